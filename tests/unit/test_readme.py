"""The README tells the truth where a test can hold it to that."""

import re
from pathlib import Path

from click.testing import CliRunner

from reclane.cli import cli
from reclane_worker.settings import WorkerSettings

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_every_setting_stands_in_the_table_and_nothing_else_does() -> None:
    settings = {f"RECLANE_{name.upper()}" for name in WorkerSettings.model_fields}
    shown = set(re.findall(r"^\| `(RECLANE_\w+)` \|", README, re.MULTILINE))
    assert shown == settings | {"RECLANE_DATA_DIR"}


def test_every_command_named_exists() -> None:
    listed = CliRunner().invoke(cli, ["--help"]).output
    named = set(re.findall(r"^    reclane (\w+)|`reclane (\w+)", README, re.MULTILINE))
    commands = {first or second for first, second in named}
    assert {"demo", "worker", "recommend", "doctor"} <= commands
    for command in commands:
        assert re.search(rf"^  {command} ", listed, re.MULTILINE)

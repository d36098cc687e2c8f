"""The README tells the truth where a test can hold it to that."""

import ast
import re
from pathlib import Path

from click.testing import CliRunner

from parity import DIFFERENT, KEPT, NOT_KEPT
from reclane.cli import cli
from reclane_worker.settings import WorkerSettings

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
INTEGRATION = Path(__file__).parents[1] / "integration"
VERDICTS = {"KEPT": KEPT, "DIFFERENT": DIFFERENT, "NOT_KEPT": NOT_KEPT}


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


def parity_rows() -> list[tuple[str, str, set[str]]]:
    """Feature, verdict and the names used of every test that carries a `parity` row."""
    found = []
    for path in sorted(INTEGRATION.glob("test_*.py")):
        for test in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(test, ast.FunctionDef):
                continue
            used = {node.attr for node in ast.walk(test) if isinstance(node, ast.Attribute)}
            marks = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
            for mark in (mark for mark in marks if ast.unparse(mark.func) == "row"):
                feature, verdict = mark.args
                found.append((ast.literal_eval(feature), VERDICTS[ast.unparse(verdict)], used))
    return found


def test_every_row_of_the_celery_table_is_a_test_and_every_such_test_a_row() -> None:
    verdicts = "|".join(VERDICTS.values())
    table = re.findall(rf"^\| (.+?) \| ({verdicts}) \|", README, re.MULTILINE)
    declared = [(feature, verdict) for feature, verdict, _ in parity_rows()]
    assert len(table) > 30
    assert len(set(table)) == len(table)
    assert sorted(table) == sorted(declared)


def test_what_is_called_kept_was_compared_with_a_stock_worker() -> None:
    for feature, verdict, used in parity_rows():
        assert verdict != KEPT or "same" in used, feature

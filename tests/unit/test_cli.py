"""The `reclane` command: quick help, catalogs from files, errors in one line."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from reclane import __version__
from reclane import cli as module
from reclane.cli import cli, load_command, main
from reclane.errors import CatalogError, ItemsInvalid, MissingExtra

GOOD = "id,title,text,price,tags[]\na,Heat,A heist.,3,crime|drama\nb,Alien,Space.,4.5,horror\n"
BAD = "id,title,text\na,Heat,A heist.\n,Nameless,x\nb,Alien,Space.\na,Again,x\n"
HEAVY = ("torch", "transformers", "celery", "numpy", "pyarrow", "rich", "reclane_worker")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def build(tmp_path: Path, content: str, *options: str | Path) -> Result:
    source = tmp_path / "items.csv"
    source.write_text(content, "utf-8")
    return run(
        "catalog", "build", source, "--out", tmp_path / "out", "--model", "hash:384", *options
    )


# ---- help


def test_help_lists_every_command_without_importing_what_is_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from reclane.cli import cli\n"
        "result = CliRunner().invoke(cli, ['--help']); print(result.output)\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules], result.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "heavy: [] 0" in done.stdout
    for name in ("catalog", "demo", "eval", "worker"):
        assert f"\n  {name} " in done.stdout


def test_every_command_has_a_summary() -> None:
    assert set(module._entries()) <= set(module._SUMMARIES)


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").output.strip().endswith(__version__)


def test_an_unknown_command_is_refused() -> None:
    result = run("recomend")
    assert result.exit_code == 2
    assert "No such command" in result.output


# ---- catalogs


def test_a_catalog_is_built_from_a_small_csv_and_described(tmp_path: Path) -> None:
    result = build(tmp_path, GOOD)
    assert result.exit_code == 0, result.output
    assert "2 items, version " in result.stdout
    described = json.loads(run("catalog", "info", tmp_path / "out", "--json").stdout)
    assert (described["items"], described["model"], described["dim"]) == (2, "hash:384", 384)
    assert described["version"] in result.stdout


def test_info_shows_a_table(tmp_path: Path) -> None:
    build(tmp_path, GOOD)
    result = run("catalog", "info", tmp_path / "out")
    assert result.exit_code == 0
    assert "hash:384" in result.stdout
    assert "all SHA-256 as built" in result.stdout


def test_info_verifies(tmp_path: Path) -> None:
    build(tmp_path, GOOD)
    with (tmp_path / "out" / "items.jsonl").open("ab") as file:
        file.write(b"\n")
    result = run("catalog", "info", tmp_path / "out")
    assert isinstance(result.exception, CatalogError)
    assert "items.jsonl" in str(result.exception)


def test_the_first_bad_row_ends_the_build_with_its_line(tmp_path: Path) -> None:
    result = build(tmp_path, BAD)
    assert isinstance(result.exception, ItemsInvalid)
    assert str(result.exception).startswith("line 3: id is missing")
    assert "--skip-bad" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["items.csv"]


def test_bad_rows_are_left_out_and_reported_with_their_lines(tmp_path: Path) -> None:
    result = build(tmp_path, BAD, "--skip-bad")
    assert result.exit_code == 0, result.output
    assert "2 items" in result.stdout
    assert "2 rows were left out" in result.stderr
    assert "line 3: id is missing" in result.stderr
    assert "line 5: duplicate id; line 2 has it first" in result.stderr


def test_a_long_list_of_bad_rows_is_cut_and_counted(tmp_path: Path) -> None:
    rows = "".join(f",no id {number},x\n" for number in range(50))
    result = build(tmp_path, f"id,title,text\na,Heat,x\n{rows}", "--skip-bad")
    assert "50 rows were left out" in result.stderr
    assert result.stderr.count("id is missing") == 20
    assert "and 30 more" in result.stderr


def test_an_existing_folder_needs_the_flag(tmp_path: Path) -> None:
    assert build(tmp_path, GOOD).exit_code == 0
    again = build(tmp_path, GOOD)
    assert isinstance(again.exception, CatalogError)
    assert "--replace" in str(again.exception)
    assert build(tmp_path, GOOD, "--replace").exit_code == 0


def test_a_catalog_is_changed_and_compacted(tmp_path: Path) -> None:
    build(tmp_path, GOOD)
    out, more = tmp_path / "out", tmp_path / "more.csv"
    more.write_text("sku,title\na,Heat 2\nc,Cube\n,Nameless\n")
    options = ("--id", "sku", "--skip-bad", "--model", "hash:384")
    changed = run("catalog", "upsert", out, more, *options)
    assert changed.exit_code == 0, changed.output
    assert "1 added, 1 changed, 0 as they were; 3 items, version " in changed.stdout
    assert "line 4: id is missing" in changed.stderr
    assert (
        "0 added, 0 changed, 2 as they were; 3 items"
        in run("catalog", "upsert", out, more, *options).stdout
    )
    refused = run("catalog", "upsert", out, more, "--id", "sku", "--model", "hash:384")
    assert "line 4: id is missing" in str(refused.exception)
    arguments = ["catalog", "delete", str(out), "b", "-"]
    gone = CliRunner().invoke(cli, arguments, input="c\n\nnobody\n")
    assert "2 removed, 1 were not there; 1 items, version " in gone.stdout
    assert "2 since it was built or compacted" in run("catalog", "info", out).stdout
    assert "1 items, version " in run("catalog", "compact", out).stdout
    assert json.loads(run("catalog", "info", out, "--json").stdout)["segments"] == []


def test_publishing_and_looking_need_no_model() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from reclane.cli import cli\n"
        "for name in ('info', 'publish', 'published', 'rollback'):\n"
        "    assert CliRunner().invoke(cli, ['catalog', name, '--help']).exit_code == 0\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_columns_can_be_mapped(tmp_path: Path) -> None:
    content = "sku,name,about\na,Heat,A heist.\n"
    options = ("--id", "sku", "--title", "name", "--text", "about", "--fields", "title, text")
    assert build(tmp_path, content, *options).exit_code == 0
    (line,) = (tmp_path / "out" / "items.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == {"id": "a", "title": "Heat", "text": "A heist.", "attributes": {}}


def test_a_column_that_is_missing_is_named_beside_those_there_are(tmp_path: Path) -> None:
    result = build(tmp_path, GOOD, "--id", "sku")
    assert isinstance(result.exception, ItemsInvalid)
    assert "no column sku; it has id, title, text, price, tags" in str(result.exception)


def test_fields_that_no_item_has_are_refused(tmp_path: Path) -> None:
    result = build(tmp_path, GOOD, "--fields", "titel,txet")
    assert result.exit_code != 0


def test_no_fields_at_all_are_refused(tmp_path: Path) -> None:
    result = build(tmp_path, GOOD, "--fields", " , ")
    assert result.exit_code == 2
    assert "name at least one column" in result.output


def test_the_model_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECLANE_MODEL", "hash:64")
    (tmp_path / "items.csv").write_text(GOOD, "utf-8")
    assert run("catalog", "build", tmp_path / "items.csv", "--out", tmp_path / "o").exit_code == 0
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["dim"] == 64


# ---- errors


@pytest.fixture
def needy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    """The entry of a command whose module imports a package that is not installed."""
    (tmp_path / "needy_command.py").write_text("import package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    return EntryPoint("worker", "needy_command:worker", module.GROUP)


@pytest.mark.parametrize(
    ("name", "extra"), [("worker", "worker"), ("demo", "demo"), ("beat", "beat")]
)
def test_a_missing_extra_names_the_pip_command(needy: EntryPoint, name: str, extra: str) -> None:
    with pytest.raises(MissingExtra) as caught:
        load_command(EntryPoint(name, needy.value, needy.group))
    assert str(caught.value) == (
        f"`reclane {name}` needs package_that_is_not_there: pip install 'reclane[{extra}]'"
    )


def test_an_error_of_ours_is_one_line_on_stderr_and_exit_code_1(
    needy: EntryPoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_entries", lambda: {"worker": needy})
    monkeypatch.setattr(sys, "argv", ["reclane", "worker"])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (1, "")
    assert err.startswith("reclane: `reclane worker` needs package_that_is_not_there")
    assert err.count("\n") == 1


def test_a_command_whose_extra_is_missing_does_not_break_help_nor_advice(
    needy: EntryPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_entries", lambda: {"worker": needy})
    assert "worker" in run("--help").output
    assert "No such command 'worke'" in run("worke").output


def test_every_command_can_be_loaded() -> None:
    assert module._entries()
    for entry in module._entries().values():
        assert isinstance(load_command(entry), click.Command)

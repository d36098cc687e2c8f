"""Exit codes: one table for the code, --help and the README; no traceback for a person's Ctrl-C."""

import inspect
import re
import sys
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner

from reclane import cli as module
from reclane import errors
from reclane.cli import cli, exits, main, options
from reclane.errors import (
    BrokerUnavailable,
    CatalogDamaged,
    DeadlineUnreachable,
    InvalidRequest,
    InvalidSettings,
    QueueFull,
    ReclaneError,
    RequestFailed,
    RequestRevoked,
    ResultTimeout,
    UnknownLetter,
    UnknownRequest,
    UnknownRun,
)

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ReclaneError("x"), 1),
        (CatalogDamaged("x"), 1),
        (RequestFailed("x"), 3),
        (RequestRevoked("x"), 4),
        (InvalidRequest("x"), 65),
        (UnknownRequest("x"), 66),
        (UnknownLetter("x"), 66),
        (UnknownRun("x"), 66),
        (BrokerUnavailable("x"), 69),
        (QueueFull(2, 1), 75),
        (DeadlineUnreachable(2.0, 1.0), 75),
        (InvalidSettings("x"), 78),
        (ResultTimeout("x"), 124),
        (RuntimeError("x"), 1),
    ],
)
def test_an_error_ends_with_the_code_of_its_nearest_class(error: Exception, code: int) -> None:
    assert exits.of(error) == code


def test_no_error_of_ours_looks_like_success_and_codes_are_distinct() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert all(exits.of(kind.__new__(kind)) for kind in kinds if issubclass(kind, ReclaneError))
    assert len({row.code for row in exits.TABLE}) == len(exits.TABLE)


def test_help_and_readme_show_the_whole_table() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    for row in exits.TABLE:
        assert re.search(rf"^ *{row.code}  {re.escape(row.meaning)}$", shown, re.MULTILINE)
        assert f"| {row.code} | {row.meaning} |" in README


def test_every_command_of_our_own_is_listed_described_and_can_be_loaded() -> None:
    assert set(module.OWN) <= set(module._SUMMARIES)
    with click.Context(cli) as ctx:
        for name in module.OWN:
            command = cli.get_command(ctx, name)
            assert command is not None
            assert command.name == name


def ending(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> object:
    """The exit code of a command that raises."""

    def broken() -> NoReturn:
        raise raised

    command = click.Command("broken", callback=broken)
    monkeypatch.setattr(module, "_import", lambda path: command)
    monkeypatch.setattr(module, "OWN", {"broken": "-"})
    monkeypatch.setattr(sys, "argv", ["reclane", "broken"])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (RequestRevoked("it was cancelled"), 4, "reclane: it was cancelled [revoked]"),
        (BrokerUnavailable("Redis is away"), 69, "reclane: Redis is away"),
        (BrokerUnavailable("a\x1b[2Jb\n  c"), 69, "reclane: a [2Jb\n  c\n"),
        (ResultTimeout("too late"), 124, "reclane: too late"),
        (click.UsageError("say more"), 2, "Error: say more"),
        (click.exceptions.Exit(7), 7, ""),
    ],
)
def test_a_command_that_ends_early_says_so_on_stderr_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    said: str,
) -> None:
    assert ending(monkeypatch, raised) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_an_error_that_is_not_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ending(monkeypatch, ZeroDivisionError())


def test_nothing_is_done_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(click.UsageError, match="--yes"):
        options.confirm("Sure?", yes=False)
    options.confirm("Sure?", yes=True)


@pytest.mark.parametrize("answer", [True, False])
def test_a_no_changes_nothing(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", lambda question, err: answer)
    if answer:
        options.confirm("Sure?", yes=False)
    else:
        with pytest.raises(click.ClickException, match="nothing was changed"):
            options.confirm("Sure?", yes=False)

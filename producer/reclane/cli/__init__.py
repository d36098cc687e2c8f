"""The `reclane` command. Heavier commands join by the entry-point group `reclane.commands`."""

import errno
import os
import sys
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from reclane import __version__
from reclane.cli import exits
from reclane.cli.printing import printable
from reclane.errors import MissingExtra, ReclaneError

GROUP: Final = "reclane.commands"
PROGRAM: Final = "reclane"

# The light side's own commands, each imported only when it is used.
OWN: Final = {
    "bulk": "reclane.cli.bulk:bulk",
    "completion": "reclane.cli.completion:completion",
    "dlq": "reclane.cli.dlq:dlq",
    "doctor": "reclane.cli.doctor:doctor",
    "queue": "reclane.cli.queue:queue",
    "recommend": "reclane.cli.asking:recommend",
    "schedule": "reclane.cli.schedule:schedule",
    "submit": "reclane.cli.asking:submit",
    "wait": "reclane.cli.asking:wait",
}


class CommandGroup(click.Group):
    """Loads a command only when it is used, so that `reclane --help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *OWN, *_entries()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name in OWN:
            return _import(OWN[cmd_name])
        entry = _entries().get(cmd_name)
        return None if entry is None else load_command(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _SUMMARIES.get(name, "")) for name in self.list_commands(ctx)]
            )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:  # click would exit with 1
            if error.errno != errno.EPIPE:
                raise
            ctx.exit(exits.READER_GONE)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, without importing any command."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=_SUMMARIES.get(name)) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


# Known here so that --help needs not import them.
_SUMMARIES = {
    "beat": "Begin the runs of schedules when they are due.",
    "bench": "Measure speed on this machine, as ratios inside one run.",
    "bulk": "Answer every row of a file or table; watch, pause, resume or cancel a run.",
    "catalog": "Build, inspect, change and publish item catalogs.",
    "completion": "Print a script that completes commands in your shell.",
    "demo": "See it work: queue, worker, model and catalog on this machine.",
    "dlq": "Read, mend, requeue or drop dead letters.",
    "doctor": "Check Redis, settings, workers and queues, each finding with its fix.",
    "eval": "Measure recommendation quality on requests with known answers.",
    "probe": "Ask whether the worker beside you lives or is ready; for health checks.",
    "queue": "See what waits, and purge it.",
    "recommend": "Ask for recommendations and print them.",
    "schedule": "Bulk runs by a cron: add, list, pause, resume, remove, run now.",
    "submit": "Enqueue requests and print their ids.",
    "train": "Fine-tune the encoder on requests with known answers.",
    "wait": "Await answers to requests that were submitted before.",
    "worker": "Run a worker: Celery with the lane.",
}


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=exits.summary(),
)
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Recommendations through a message queue. Settings come from RECLANE_* and .env."""


def main() -> NoReturn:
    """Entry point: an error is one line on stderr and an exit code of `exits.TABLE`."""
    try:
        code = _run()
        print(end="", flush=True)  # fails here, not when Python ends
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        code = exits.READER_GONE
    if code == exits.READER_GONE:
        # What is still buffered has no reader; Python would complain about it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run() -> int:
    try:
        code: Any = cli(prog_name=PROGRAM, standalone_mode=False)
    except ReclaneError as error:
        for line in f"{PROGRAM}: {error}".split("\n"):
            click.echo(printable(line), err=True)
        return exits.of(error)
    except click.Abort:
        return exits.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code if isinstance(code, int) else exits.OK


def _import(path: str) -> click.Command:
    module, _, name = path.partition(":")
    command = getattr(import_module(module), name)
    assert isinstance(command, click.Command)
    return command


def load_command(entry: EntryPoint) -> click.Command:
    """Import a command.

    Raises:
        MissingExtra: a package it needs is not installed; names the pip command that adds it.
    """
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        extra = entry.name if entry.name in ("beat", "demo", "train") else "worker"
        raise MissingExtra(
            f"`reclane {entry.name}` needs {error.name}: pip install 'reclane[{extra}]'"
        ) from error
    assert isinstance(command, click.Command)
    return command


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}

"""The `reclane` command. Heavier commands join by the entry-point group `reclane.commands`."""

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click

from reclane import __version__
from reclane.errors import MissingExtra, ReclaneError

GROUP = "reclane.commands"


class CommandGroup(click.Group):
    """Loads a command only when it is used, so that `reclane --help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_entries()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        entry = _entries().get(cmd_name)
        if own is not None or entry is None:
            return own
        return load_command(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _SUMMARIES.get(name, "")) for name in self.list_commands(ctx)]
            )


# Known here so that --help needs not import them.
_SUMMARIES = {
    "catalog": "Build and inspect item catalogs.",
    "demo": "See it work: queue, worker, model and catalog on this machine.",
    "eval": "Measure recommendation quality on requests with known answers.",
    "probe": "Ask whether the worker beside you lives or is ready; for health checks.",
    "worker": "Run a worker: Celery with the lane.",
}


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reclane")
def cli() -> None:
    """Recommendations through a message queue."""


def main() -> NoReturn:
    """Entry point: our own errors end with one line on stderr and exit code 1."""
    try:
        cli(standalone_mode=True)
    except ReclaneError as error:
        click.echo(f"reclane: {error}", err=True)
        sys.exit(1)
    sys.exit(0)


def load_command(entry: EntryPoint) -> click.Command:
    """Import a command.

    Raises:
        MissingExtra: a package it needs is not installed; names the pip command that adds it.
    """
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        extra = "demo" if entry.name == "demo" else "worker"
        raise MissingExtra(
            f"`reclane {entry.name}` needs {error.name}: pip install 'reclane[{extra}]'"
        ) from error
    assert isinstance(command, click.Command)
    return command


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}

"""`reclane catalog`: build a catalog from items, look at one, change one, publish one.

Each command is imported when it is used: only some of them need a model.
"""

from importlib import import_module
from typing import Final

import click

_COMMANDS: Final = {
    "build": "build",
    "compact": "changes",
    "delete": "changes",
    "info": "info",
    "publish": "publish",
    "published": "publish",
    "rollback": "publish",
    "upsert": "changes",
}


class CatalogGroup(click.Group):
    """Knows its commands by their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"reclane_worker.cli.{_COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=CatalogGroup)
def catalog() -> None:
    """Build, inspect, change and publish item catalogs."""

"""Options that name a file of interactions and its columns: of `catalog build` and `eval`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from reclane_worker.taste.interactions import InteractionColumns

_USUAL = InteractionColumns()
_OPTIONS = (
    click.option(
        "--interactions",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Who did what: JSONL, CSV, TSV or Parquet, also gzipped.",
    ),
    click.option("--user", default=_USUAL.user, show_default=True, help="Its column with users."),
    click.option("--item", default=_USUAL.item, show_default=True, help="With item ids."),
    click.option(
        "--rating", default=_USUAL.rating, show_default=True, help="With ratings, if any."
    ),
    click.option("--time", default=_USUAL.time, show_default=True, help="With times, if any."),
    click.option(
        "--liked-from",
        default=_USUAL.liked_from,
        show_default=True,
        help="The least rating of an item that was liked; without ratings every one was.",
    ),
)


def interaction_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `interactions`, a path or None, and `named`, their columns."""

    @functools.wraps(command)
    def called(
        *, user: str, item: str, rating: str, time: str, liked_from: float, **rest: Any
    ) -> None:
        command(named=InteractionColumns(user, item, rating, time, liked_from), **rest)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called

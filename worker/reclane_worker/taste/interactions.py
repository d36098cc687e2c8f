"""Who did what, when, and whether they liked it: a file as arrays, sorted by user and time."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from reclane.errors import ItemsInvalid
from reclane_worker.reading import BadRow, Columns, Row, as_id, read_rows

MAX_LIKES: Final = 1_000  # of a user, the newest: pairs of items grow with their square
Ints = npt.NDArray[np.int32]
Table: TypeAlias = sparse.csr_array
"""A sparse matrix by rows; scipy has no types."""


@dataclass(frozen=True, slots=True)
class InteractionColumns:
    """Which columns say who, what, how good and when; `liked_from` is the least rating of an item
    that was liked. Where there is no rating it was liked, where there is no time rows are in order.
    """

    user: str = "user"
    item: str = "item"
    rating: str = "rating"
    time: str = "timestamp"
    liked_from: float = 4.0


@dataclass(frozen=True, slots=True)
class Interactions:
    """Of each pair of user and item the newest, by user and then time, all (interactions,).

    `users` counts from 0 without gaps, `items` are positions in a catalog of `size` items.
    """

    users: Ints
    items: Ints
    liked: npt.NDArray[np.bool_]
    times: npt.NDArray[np.float64]
    size: int

    def __len__(self) -> int:
        return len(self.users)

    def of(self, wanted: npt.NDArray[np.bool_]) -> "Interactions":
        """Those that are wanted, (interactions,) bool; users are numbered anew."""
        _, users = np.unique(self.users[wanted], return_inverse=True)
        return Interactions(
            users.astype(np.int32),
            self.items[wanted],
            self.liked[wanted],
            self.times[wanted],
            self.size,
        )

    def last_liked(self) -> npt.NDArray[np.bool_]:
        """Each user's last liked interaction, of users with at least two, (interactions,) bool."""
        found = np.zeros(len(self), dtype=bool)
        places = np.flatnonzero(self.liked)
        owners = self.users[places]
        ends = np.flatnonzero(np.diff(owners, append=-1))
        several = np.diff(ends, prepend=-1) > 1
        found[places[ends[several]]] = True
        return found

    def likes(self) -> Table:
        """(users, items) float32, 1 where a user liked an item; at most MAX_LIKES each."""
        places = np.flatnonzero(self.liked)
        places = places[_from_the_end(self.users[places]) < MAX_LIKES]
        shape = (int(self.users.max(initial=-1)) + 1, self.size)
        ones = np.ones(len(places), dtype=np.float32)
        return sparse.csr_array((ones, (self.users[places], self.items[places])), shape=shape)

    def tastes(self, decay: float) -> Table:
        """(users, items) float32: what a request weighs a user's likes with, the newest most, each
        row of length one."""
        places = np.flatnonzero(self.liked)
        ages = _from_the_end(self.users[places])
        weights = np.power(decay, ages, dtype=np.float64).astype(np.float32)
        near = (ages < MAX_LIKES) & (weights > 1e-6)
        places, weights = places[near], weights[near]
        shape = (int(self.users.max(initial=-1)) + 1, self.size)
        matrix = sparse.csr_array((weights, (self.users[places], self.items[places])), shape=shape)
        lengths = np.sqrt(matrix.multiply(matrix).sum(1))
        return sparse.csr_array(
            matrix.multiply(1 / np.maximum(lengths, 1e-12)[:, None]), dtype=np.float32
        )


def _from_the_end(users: Ints) -> npt.NDArray[np.int64]:
    """Of each place how many of the same user come after it; `users` is sorted."""
    return np.searchsorted(users, users, side="right") - 1 - np.arange(len(users))


def read_interactions(
    path: Path,
    columns: InteractionColumns,
    ids: Sequence[str],
    on_bad: Callable[[BadRow], None],
) -> Interactions:
    """Interactions with the items `ids` of a catalog; those with others are left out.

    Memory is some 100 bytes an interaction while they are put in order, and the users' names. Times
    are numbers, or dates as ISO 8601 writes them, of UTC where they name no zone.

    Raises:
        ItemsInvalid: as reading items; no interaction is with an item of the catalog.
        MissingExtra: Parquet without pyarrow.
    """
    positions = {item: position for position, item in enumerate(ids)}
    numbers: dict[str, int] = {}
    users, items, ratings, times = array("i"), array("i"), array("d"), array("d")
    for row in read_rows(path, Columns(id=columns.user, title=columns.item)):
        if isinstance(row, BadRow):
            on_bad(row)
            continue
        line, cells = row
        try:
            user, item = _name(cells, columns.user), _name(cells, columns.item)
            rating = _number(cells, columns.rating, columns.liked_from)
            time = _time(cells, columns.time)
        except ValueError as bad:
            on_bad(BadRow(line, str(bad)))
            continue
        position = positions.get(item)
        if position is None:
            continue
        users.append(numbers.setdefault(user, len(numbers)))
        items.append(position)
        ratings.append(rating)
        times.append(time)
    if not users:
        raise ItemsInvalid(f"{path}: no interaction is with an item of the catalog; see --item")
    return arranged(users, items, np.asarray(ratings) >= columns.liked_from, times, len(ids))


def arranged(
    users: Sequence[int],
    items: Sequence[int],
    liked: Sequence[bool] | npt.NDArray[np.bool_],
    times: Sequence[float],
    size: int,
) -> Interactions:
    """Interactions in the order that `Interactions` promises; equal times keep theirs."""
    user, item = np.asarray(users, dtype=np.int32), np.asarray(items, dtype=np.int32)
    time = np.asarray(times, dtype=np.float64)
    order = np.lexsort((time, user))
    pairs = user[order].astype(np.int64) * size + item[order]
    _, newest = np.unique(pairs[::-1], return_index=True)
    kept = order[np.sort(len(pairs) - 1 - newest)]
    every = np.asarray(liked, dtype=bool)
    return Interactions(user[kept], item[kept], every[kept], time[kept], size)


def _name(cells: Row, column: str) -> str:
    found = as_id(cells.get(column))
    if not found:
        raise ValueError(f"{column} is missing or no id")
    return found


def _number(cells: Row, column: str, absent: float) -> float:
    value = cells.get(column)
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{column} is no number")
    return float(value)


def _time(cells: Row, column: str) -> float:
    """Seconds, or whatever a number counts; only their order matters."""
    value = cells.get(column)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{column} is no time") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return _number(cells, column, 0.0)

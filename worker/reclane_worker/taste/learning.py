"""Learns a catalog's taste from interactions, with the likes held out that its weights need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic_core import from_json
from safetensors.numpy import load_file
from safetensors.torch import save_file
from scipy import sparse

from reclane_worker import manifest as layout
from reclane_worker.index.filters import Attributes
from reclane_worker.intent.schema import Schema, readers
from reclane_worker.reading import BadRow
from reclane_worker.taste import neighbours, signals
from reclane_worker.taste.interactions import (
    InteractionColumns,
    Interactions,
    Table,
    read_interactions,
)
from reclane_worker.taste.likeness import Likeness
from reclane_worker.taste.weighing import Content, by_content, fit_weights

DECAY: Final = 0.9  # as the setting history_decay by default


def add_taste(
    folder: Path,
    path: Path,
    columns: InteractionColumns,
    on_bad: Callable[[BadRow], None],
    decay: float = DECAY,
) -> None:
    """Write what the interactions in `path` say into a catalog folder that is being built.

    Raises:
        ItemsInvalid, MissingExtra: as `read_interactions`.
    """
    with (folder / layout.ITEMS).open("rb") as lines:
        rows = [from_json(line) for line in lines]
    interactions = read_interactions(path, columns, [row["id"] for row in rows], on_bad)
    vectors = load_file(folder / layout.VECTORS)["vectors"]
    device = torch.device("cpu")
    schema = Schema.model_validate_json((folder / layout.SCHEMA).read_bytes())
    attributes = Attributes((row["attributes"] for row in rows), len(rows), readers(schema))
    content = by_content(vectors, Likeness.of(attributes, schema, device))
    taste = learn(interactions, content, device, decay)
    save_file(signals.tensors_of(taste), folder / layout.TASTE)


def learn(
    interactions: Interactions, content: Content, device: torch.device, decay: float = DECAY
) -> signals.Taste:
    """What interactions say of the items of a catalog; `content` scores tastes by what items are.

    The weights are learnt without each user's last like, which they are to foresee; the tables
    then of everything. `decay` is that of requests' histories.
    """
    last = interactions.last_liked()
    before = interactions.of(~last)
    weights = fit_weights(*_foreseen(interactions, last, decay), content, _tables(before.likes()))
    return signals.make(weights.tolist(), *_tables(interactions.likes()), device)


def _foreseen(
    interactions: Interactions, last: "np.ndarray[Any, np.dtype[np.bool_]]", decay: float
) -> tuple[Table, Table, "np.ndarray[Any, np.dtype[np.int32]]"]:
    """Of each user with a last like: tastes before it, what was seen by then, and that like."""
    of_theirs = np.isin(interactions.users, interactions.users[last])
    theirs = interactions.of(of_theirs)
    targets = theirs.last_liked()
    before = theirs.of(~targets)
    shape = (int(theirs.users.max(initial=-1)) + 1, theirs.size)
    ones = np.ones(len(before), dtype=np.float32)
    seen = sparse.csr_array((ones, (before.users, before.items)), shape=shape)
    return before.tastes(decay), seen, theirs.items[targets]


def _tables(likes: Table) -> tuple[Table, Table]:
    return neighbours.item_item(likes), neighbours.ease(likes)

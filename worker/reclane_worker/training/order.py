"""What a training is asked to do, and how it knows after a kill that it is still the same one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from reclane.errors import ModelUnusable
from reclane_worker.manifest import MANIFEST, file_digest
from reclane_worker.reading import OWN_FIELDS

PLAN: Final = "plan.json"
CHECKPOINTS: Final = "checkpoints"


class Choices(BaseModel):
    """How to learn; `fields` count where ITEMS is no built catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: tuple[str, ...] = OWN_FIELDS
    epochs: int = 2
    learning_rate: float = 3e-5
    max_tokens: int = 128
    batch_tokens: int = 12_288
    seed: int = 0


class Identity(BaseModel):
    """What a training learns from and how; one that goes on must agree in all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str
    choices: Choices
    data: dict[str, str]
    """SHA-256 of each file by what it is: items, requests, validation."""


@dataclass(frozen=True, slots=True)
class Order:
    """Where things are, and how long it may take. `items` is a file, or a built catalog."""

    items: Path
    requests: Path
    out: Path
    validation: Path | None
    choices: Choices
    minutes: float
    resume: bool


def identity_of(order: Order, model: str, revision: str) -> Identity:
    """What the order comes to for this model."""
    items = order.items / MANIFEST if order.items.is_dir() else order.items
    files = {"items": items, "requests": order.requests}
    if order.validation is not None:
        files["validation"] = order.validation
    digests = {name: file_digest(path) for name, path in files.items()}
    return Identity(model=model, revision=revision, choices=order.choices, data=digests)


def settle(folder: Path, identity: Identity, *, resume: bool) -> None:
    """Begin in the working folder, or see that what stands there is this very training. One that
    never came to a checkpoint is only gone on with where that is asked for.

    Raises:
        ModelUnusable: it has checkpoints and is not to be resumed, or is another one.
    """
    plan = folder / PLAN
    if not resume and not any((folder / CHECKPOINTS).glob("*")):
        shutil.rmtree(folder, ignore_errors=True)
    if not plan.exists():
        folder.mkdir(parents=True, exist_ok=True)
        plan.write_text(identity.model_dump_json(indent=2) + "\n", "utf-8")
        return
    if not resume:
        raise ModelUnusable(
            f"{folder} holds a training that has not ended: pass --resume to go on with it, or "
            "delete it"
        )
    try:
        known = Identity.model_validate_json(plan.read_bytes())
    except (OSError, ValidationError):
        raise ModelUnusable(f"{plan} cannot be read; delete {folder} and begin anew") from None
    if known != identity:
        differing = [n for n in Identity.model_fields if getattr(known, n) != getattr(identity, n)]
        raise ModelUnusable(
            f"{folder} holds another training ({', '.join(differing)} differ); delete it, or give "
            "the same files and options"
        )

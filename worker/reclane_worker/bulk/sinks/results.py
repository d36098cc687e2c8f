"""What a run writes: results in parts, and a manifest once all parts are there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from reclane.contract import Versions

FORMAT: Final = 1
MANIFEST: Final = "_manifest.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One row's answer (a `Recommendation` as a dict) or failure (a `Failure`), not both.

    `at` is when it was made, seconds since 1970. It comes with the result, so that a part
    written again has the same bytes. `digest` tells the request, model and catalog version that
    made an answer from any other: 32 hex digits, or "" where nobody will ask.
    """

    key: str
    answer: dict[str, Any] | None
    failure: dict[str, Any] | None
    at: float
    digest: str = ""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Model):
    """A part as it was written; `name` and `sha256` are those of its file, where it has one."""

    number: int
    rows: int
    bytes: int
    name: str | None = None
    sha256: str | None = None


class Manifest(_Model):
    """What a finished run wrote. `counts` as the run keeps them; times in seconds since 1970."""

    format: Literal[1] = FORMAT
    run: str
    parts: tuple[Part, ...]
    counts: dict[str, int]
    versions: tuple[Versions, ...]
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Carried:
    """What one call carried over, None where there was nothing, and where the next goes on."""

    part: Part | None
    at: int


class Sink(Protocol):
    """Where a run's results go. Every method may be repeated, each by another process."""

    def check(self) -> None:
        """See that the sink can be written, before anything runs; may make it.

        Raises:
            StepFailed: it cannot; the message says what to do.
        """

    def write(self, part: int, results: Sequence[Result]) -> Part:
        """Write a part whole, in the place of what an earlier call wrote as this part.

        Raises:
            SinkFull: there is no room; nothing half is left where readers look.
            StoreUnavailable: it could not be reached.
            SinkUnusable: it cannot be written at all.
        """

    def unchanged(self, wanted: Mapping[str, str]) -> set[str]:
        """Of the keys with the digest that each would have now: those whose record, as readers
        see it, has that digest. They are kept as if they were written now.

        Meant for a thousand at a time. What earlier runs wrote is read as it was at the first
        call, since no two runs write to one place at once.

        Raises:
            SinkUnusable: what earlier runs wrote cannot be read.
            StoreUnavailable: it could not be reached.
        """

    def carry(self, number: int, at: int, parts: Sequence[Part]) -> Carried | None:
        """Take over some of what readers see of rows that this run did not write.

        For a run that adds to the earlier result, once all its own `parts` are written: writes
        as part `number`, as `write` does, going on `at` where the call before ended (first 0).
        None: nothing is left.

        Raises:
            StepFailed: as `write`; or what earlier runs wrote cannot be read.
        """

    def complete(self, manifest: Manifest) -> None:
        """Show the result of a finished run to readers, where parts alone do not.

        Raises:
            StepFailed: as `write`; or a part of the manifest is missing.
        """

    def clear(self) -> None:
        """Drop what an unfinished run left, where readers do not see it anyway."""

    def close(self) -> None:
        """Let go of connections."""


def record(result: Result, with_fields: bool) -> dict[str, Any]:
    """The same content for every sink: key, items (best first), flags, versions, failure, made_at,
    digest.

    Items, versions are None where there is a failure, and failure is None where there is none.
    A failure has no digest, so that a later run asks again.
    """
    failure, answer = result.failure, result.answer
    return {
        "key": result.key,
        "items": None if answer is None else [_item(item, with_fields) for item in answer["items"]],
        "flags": [] if answer is None else answer.get("flags", []),
        "versions": None if answer is None else answer["versions"],
        "failure": failure and {name: failure[name] for name in ("code", "message")},
        "made_at": datetime.fromtimestamp(result.at, UTC),
        "digest": None if answer is None else result.digest or None,
    }


def _item(item: dict[str, Any], with_fields: bool) -> dict[str, Any]:
    names = ("id", "rank", "score", "title", *(("fields",) if with_fields else ()))
    return {name: item.get(name) for name in names}

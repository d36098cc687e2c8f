"""An evaluation as a file: what was measured with what, and every request's values, no texts."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import to_json

from reclane import __version__
from reclane.errors import RunMismatch
from reclane_worker.cases import Case
from reclane_worker.encoder import Encoder
from reclane_worker.evaluation.measuring import OURS, SHOWN, Measured, Values
from reclane_worker.settings import WorkerSettings

FORMAT: Final = 1
COUNTED: Final = ("dense_weight", "history_decay")
"""Settings that change answers, where they are set."""
_DIGITS: Final = 6


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SavedCatalog(_Model):
    """One catalog of a run. `files` are the SHA-256 of what it was built of, `digest` that of all
    requests with their answers, `requests` their ids; `values` by system are in their order."""

    version: str
    files: dict[str, str]
    items: int
    fields: tuple[str, ...]
    popularity: str
    stages_ms: dict[str, float]
    digest: str
    requests: tuple[str, ...]
    values: dict[str, dict[str, tuple[float, ...]]]

    @model_validator(mode="after")
    def _is_whole(self) -> "SavedCatalog":
        columns = [row for system in self.values.values() for row in system.values()]
        if not set(SHOWN) <= self.values.get(OURS, {}).keys():
            raise ValueError("measures are missing")
        if {len(row) for row in columns} != {len(set(self.requests))}:
            raise ValueError("values and requests differ in number")
        return self


class SavedRun(_Model):
    """A whole run: when, with which release, model and settings, and each catalog by name."""

    format: Literal[1] = 1
    made: datetime
    reclane: str
    model: str
    model_revision: str
    settings: dict[str, float]
    catalogs: dict[str, SavedCatalog]


def saved_run(measured: Iterable[Measured], encoder: Encoder, settings: WorkerSettings) -> SavedRun:
    """What is kept of a run."""
    return SavedRun(
        made=datetime.now(UTC).replace(microsecond=0),
        reclane=__version__,
        model=encoder.name,
        model_revision=encoder.revision,
        settings=settings.model_dump(include=set(COUNTED), exclude_none=True),
        catalogs={one.name: _catalog(one) for one in measured},
    )


def _catalog(one: Measured) -> SavedCatalog:
    return SavedCatalog(
        version=one.catalog.version,
        files=one.manifest.files,
        items=len(one.catalog),
        fields=one.manifest.fields,
        popularity=one.popular,
        stages_ms={stage: round(ms, 4) for stage, ms in one.stages.items()},
        digest=digest_of(one.cases),
        requests=tuple(case.id for case in one.cases),
        values={system: _rounded(values) for system, values in one.values.items()},
    )


def _rounded(values: Values) -> dict[str, tuple[float, ...]]:
    return {name: tuple(round(value, _DIGITS) for value in row) for name, row in values.items()}


def digest_of(cases: Sequence[Case]) -> str:
    """One for all requests, whatever their order: one for each would confirm a guessed text."""
    rows = sorted((case.id, case.request.query, sorted(case.relevant)) for case in cases)
    return hashlib.sha256(to_json(rows)).hexdigest()


def write_run(path: Path, run: SavedRun) -> None:
    """The file appears whole or not at all. Each row of values is a line: changes stay small."""
    part = path.with_name(f".{path.name}-{os.getpid()}")
    part.write_text(_lines(run.model_dump(mode="json")) + "\n", "utf-8")
    part.replace(path)


def _lines(value: object, depth: int = 0) -> str:
    """JSON with objects spread over lines and lists on one."""
    if not isinstance(value, Mapping) or not value:
        return to_json(value).decode()
    inner = " " * (depth + 1)
    rows = [f"{inner}{to_json(k).decode()}: {_lines(v, depth + 1)}" for k, v in value.items()]
    return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"


def read_run(path: Path) -> SavedRun:
    """Raises:
    RunMismatch: the file is no run of a format this version knows.
    """
    try:
        return SavedRun.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RunMismatch(f"{path} cannot be read ({error.strerror})") from None
    except ValidationError:
        raise RunMismatch(
            f"{path} holds no evaluation of format {FORMAT}; make one with: reclane eval --save"
        ) from None

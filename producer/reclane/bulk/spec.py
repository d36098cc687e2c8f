"""What a run reads and where it writes, as data: strict, frozen, JSON both ways.

JSON of a spec holds its URL in full, or no other process could use it; everything else that
prints one shows stars. A PostgreSQL URL may leave the password to PGPASSFILE or ~/.pgpass.
"""

import os
from datetime import datetime
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)

from reclane.bulk.moments import read_since
from reclane.bulk.urls import SQLITE, DatabaseUrl, RedisUrl, store
from reclane.contract import (
    DELIVERY_FIELDS,
    RecommendRequest,
    parse_request,
    validated,
)
from reclane.errors import InvalidRequest

KEY_PLACE: Final = "{key}"
FIELDS: Final = tuple(
    name for name in RecommendRequest.model_fields if name not in DELIVERY_FIELDS | {"v"}
)
"""The fields of a request that a row, or the defaults of all rows, may give."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChangedSince(_Spec):
    """Keep the rows whose `column` is `value` or later: a number, or an ISO 8601 date or time
    (UTC unless it says otherwise). A row without a value there is passed over."""

    column: str
    value: int | float | str

    @field_validator("value")
    @classmethod
    def _is_comparable(cls, value: float | str) -> float | str:
        read_since(value)
        return value

    @property
    def since(self) -> float | datetime:
        """`value` as what rows are compared with; a moment is aware."""
        return read_since(self.value)


class _Rows(_Spec):
    """How a row becomes a request.

    `key` is the column that names the row in the sink. `columns` is request field -> column; a
    column named like a field needs no entry. `defaults` are the fields of a request that its row
    leaves out. `separator` splits a list that is text, unless the text is JSON.
    """

    key: str = "user_id"
    columns: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    separator: str = Field(default="|", min_length=1)
    changed_since: ChangedSince | None = None

    @field_validator("columns", "defaults")
    @classmethod
    def _names_fields(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name not in FIELDS:
                near = get_close_matches(name, FIELDS, 1)
                hint = f"do you mean {near[0]}?" if near else "see reclane.RecommendRequest"
                raise ValueError(f"no request field {name[:40]}; {hint}")
        return given

    @field_validator("defaults")
    @classmethod
    def _fits_the_contract(cls, defaults: dict[str, Any]) -> dict[str, Any]:
        try:
            parse_request({"user_id": "anyone", **defaults})
        except InvalidRequest as error:
            raise ValueError(str(error)) from None
        return defaults


class FilesSource(_Rows):
    """Files by path or glob: .parquet, and .csv, .tsv, .jsonl, .ndjson, each also with .gz.

    A relative path is relative to the process that reads: make it absolute in a stored spec.
    """

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1, max_length=1_000)


class SqlSource(_Rows):
    """A table (or `schema.table`), or a query, of SQLite or PostgreSQL.

    It is read in the order of `order_by` (by default the key), a column whose values are unique
    and never NULL. Rows that come, go or change while a run reads are seen as they are when the
    run gets there.
    """

    kind: Literal["sql"] = "sql"
    url: DatabaseUrl
    table: str | None = None
    query: str | None = None
    order_by: str | None = None

    @model_validator(mode="after")
    def _reads_one_thing(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either table or query")
        return self


SourceSpec: TypeAlias = Annotated[FilesSource | SqlSource, Field(discriminator="kind")]
SOURCE_SPEC: Final[TypeAdapter[SourceSpec]] = TypeAdapter(SourceSpec)
"""`SOURCE_SPEC.validate_python({"kind": "files", "paths": ["/data/users.csv"]})`"""


class ParquetSink(_Spec):
    """Parquet parts under `path`; see `sinks/folder.py`. `fields` adds each item's fields, as
    JSON text."""

    kind: Literal["parquet"] = "parquet"
    path: str
    fields: bool = False


class JsonlSink(_Spec):
    """JSON lines under `path`; see `sinks/folder.py`."""

    kind: Literal["jsonl"] = "jsonl"
    path: str
    fields: bool = False
    gzip: bool = False


class RedisSink(_Spec):
    """One JSON value for each row, under `key` with `{key}` replaced, kept for `ttl_s` seconds."""

    kind: Literal["redis"] = "redis"
    url: RedisUrl
    key: str = f"recs:{KEY_PLACE}"
    ttl_s: int = Field(ge=1, le=86_400 * 366)
    fields: bool = False

    @model_validator(mode="after")
    def _names_rows(self) -> Self:
        if self.key.count(KEY_PLACE) != 1 or self.key == KEY_PLACE:
            raise ValueError("key needs {key} once and other characters beside it: recs:{key}")
        return self


class SqlSink(_Spec):
    """One row for each row, in `table` (or `schema.table`), which is made if there is none."""

    kind: Literal["sql"] = "sql"
    url: DatabaseUrl
    table: str
    fields: bool = False


SinkSpec: TypeAlias = Annotated[
    ParquetSink | JsonlSink | RedisSink | SqlSink, Field(discriminator="kind")
]
SINK_SPEC: Final[TypeAdapter[SinkSpec]] = TypeAdapter(SinkSpec)
"""`SINK_SPEC.validate_python({"kind": "parquet", "path": "/data/recommendations"})`"""


class RunSpec(_Spec):
    """All that a bulk run is: where it reads and writes, and what it leaves out or gives up on.

    `only_changed` asks only for rows whose answer in the sink was made from another request, model
    or catalog version. With it, or with the source's `changed_since`, the answers are added to the
    earlier result; without, they replace it. More than `max_bad` bad rows end the run; None: no
    number does.
    """

    source: SourceSpec
    sink: SinkSpec
    only_changed: bool = False
    max_bad: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _means_the_same_everywhere(self) -> Self:
        for path in (*_paths(self.source), *_paths(self.sink)):
            if not Path(path).is_absolute() or "\0" in path:
                raise ValueError("write absolute paths, since any worker may take the run on")
        return self

    @property
    def incremental(self) -> bool:
        """Whether what the sink has of other rows stays."""
        return self.only_changed or self.source.changed_since is not None

    def output(self) -> str:
        """Names the output in 32 hex digits: two specs that write to one place have the same."""
        return sha256(repr(_place(self.sink)).encode()).hexdigest()[:32]


def parse_run(data: Any) -> RunSpec:
    """Validate a plain dict, or return a spec as it is.

    Raises:
        InvalidRequest: naming every field that is wrong, never quoting its content.
    """
    return validated(RunSpec, data)


def _paths(spec: SourceSpec | SinkSpec) -> tuple[str, ...]:
    """Of files; a server has none."""
    if isinstance(spec, FilesSource):
        return spec.paths
    if isinstance(spec, ParquetSink | JsonlSink):
        return (spec.path,)
    url = spec.url.get_secret_value()
    return (url.removeprefix(SQLITE),) if url.startswith(SQLITE) else ()


def _place(sink: SinkSpec) -> tuple[object, ...]:
    if isinstance(sink, ParquetSink | JsonlSink):
        return ("folder", os.path.abspath(sink.path))  # noqa: PTH100  a link is not followed
    within = ("key", sink.key) if isinstance(sink, RedisSink) else ("table", sink.table)
    return (*store(sink.url), *within)

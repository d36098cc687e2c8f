"""Rows to requests, by the spec's columns: pure."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from reclane.bulk.spec import FIELDS, FilesSource, SqlSource
from reclane.contract import MAX_ID_CHARS, MAX_REQUEST_BYTES, parse_request
from reclane.errors import InvalidRequest
from reclane_worker.bulk.errors import SourceUnusable
from reclane_worker.bulk.sources.changed import Changed
from reclane_worker.bulk.sources.lines import Lines
from reclane_worker.bulk.sources.rows import Met
from reclane_worker.bulk.sources.values import Unreadable, read_value, text

_ASKING = ("query", "history", "user_id")  # a request needs one of them


@dataclass(frozen=True, slots=True)
class Mapper:
    """How rows with certain columns become requests."""

    key: str
    fields: Mapping[str, str]  # request field -> column
    defaults: Mapping[str, Any]
    separator: str
    changed: Changed | None

    @property
    def columns(self) -> list[str]:
        """All that is read of a row, each once."""
        more = [self.changed.column] if self.changed else []
        return list(dict.fromkeys([self.key, *self.fields.values(), *more]))

    def meet(self, after: tuple[Any, ...], place: str, record: Mapping[str, Any]) -> Met:
        """What the row is: good, bad, or passed over."""
        try:
            if self.changed and not self.changed.keeps(record.get(self.changed.column)):
                return Met(after, place)
            key = _key(self.key, record.get(self.key))
            request, size = self._request(record)
        except (Unreadable, InvalidRequest) as error:
            return Met(after, place, reason=str(error))
        return Met(after, place, key, request, size)

    def _request(self, record: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        request = dict(self.defaults)
        for field, column in self.fields.items():
            value = read_value(field, record.get(column), self.separator)
            if value is not None:
                request[field] = value
        parse_request(request)
        size = len(to_json(request))
        if size > MAX_REQUEST_BYTES:
            raise Unreadable(f"the request takes {size} bytes, limit {MAX_REQUEST_BYTES}")
        return request, size


def _key(column: str, cell: Any) -> str:
    key = text(cell)
    if key is None or key == "":
        raise Unreadable(f"{column}: the row has no key")
    if not isinstance(key, str | UUID):
        raise Unreadable(f"{column}: a key is text or an integer")
    key = str(key)
    if len(key) > MAX_ID_CHARS or "\0" in key:
        raise Unreadable(f"{column}: a key has at most {MAX_ID_CHARS} characters, none of them NUL")
    return key


def met_in(
    lines: Lines, name: str, mapper: Mapper, read: Callable[[], Mapping[str, Any] | None]
) -> Iterator[Met]:
    """The rows of a text file. `read` takes the next record off the lines, None where it is blank;
    it raises Unreadable for one that is none, and StopIteration behind the last."""
    while True:
        lines.begin_row()
        place = f"{name}:{lines.line + 1}"
        try:
            record = read()
        except StopIteration:
            return
        except Unreadable as error:
            yield Met((lines.offset, lines.line), place, reason=str(error))
            continue
        if record is not None:
            yield mapper.meet((lines.offset, lines.line), place, record)


def bind(spec: FilesSource | SqlSource, columns: Collection[str] | None, name: str) -> Mapper:
    """The mapper for a file or table of these columns; None where rows may differ (JSON).

    Raises:
        SourceUnusable: a column is missing, or nothing would be asked.
    """
    changed = Changed(spec.changed_since) if spec.changed_since else None
    fields = {field: spec.columns.get(field, field) for field in FIELDS}
    if columns is not None:
        named = {spec.key, *spec.columns.values()} | ({changed.column} if changed else set())
        if missing := sorted(named - set(columns)):
            raise SourceUnusable(
                f"{name}: there is no column {', '.join(missing)}; it has {', '.join(columns)}"
            )
        fields = {field: column for field, column in fields.items() if column in columns}
    if not any(field in fields or field in spec.defaults for field in _ASKING):
        raise SourceUnusable(
            f"{name}: no column gives query, history or user_id; say which does in columns"
        )
    return Mapper(spec.key, fields, spec.defaults, spec.separator, changed)

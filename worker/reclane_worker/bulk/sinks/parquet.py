"""Parquet as the form of a part. The schema is a promise: columns are only added."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic_core import to_json

from reclane.errors import MissingExtra
from reclane_worker.bulk.sinks.hashes import Hashes

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise MissingExtra("Parquet needs pyarrow: pip install 'reclane[worker]'") from error


def schema(with_fields: bool) -> Any:
    """The columns of a part; an item's fields are JSON text, since each catalog has its own."""
    item = [("id", pa.string()), ("rank", pa.int32()), ("score", pa.float64())]
    item += [("title", pa.string()), *([("fields", pa.string())] if with_fields else [])]
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            ("items", pa.list_(pa.struct(item))),
            ("flags", _list_of(code=pa.string(), reasons=pa.list_(pa.string()))),
            ("versions", _struct(model=pa.string(), catalog=pa.string(), contract=pa.int32())),
            ("failure", _struct(code=pa.string(), message=pa.string())),
            pa.field("made_at", pa.timestamp("us", "UTC"), nullable=False),
            ("digest", pa.string()),
        ]
    )


class Parquet:
    """A `Form`: one row for each record."""

    ending: Final = ".parquet"
    readable: Final = (".parquet",)

    def __init__(self, with_fields: bool) -> None:
        self._with_fields = with_fields
        self._schema = schema(with_fields)

    def encode(self, records: list[dict[str, Any]]) -> bytes:
        if self._with_fields:
            records = [{**one, "items": _with_text(one["items"])} for one in records]
        return _encoded(pa.Table.from_pylist(records, schema=self._schema))

    def digests(self, path: Path) -> Iterator[tuple[str, str | None]]:
        table = self._read(path, ["key", "digest"])
        yield from zip(table["key"].to_pylist(), table["digest"].to_pylist(), strict=True)

    def without(self, paths: Sequence[Path], newer: Hashes) -> tuple[bytes, int]:
        kept = pa.concat_tables(self._kept(path, newer) for path in paths)
        return _encoded(kept), kept.num_rows

    def _kept(self, path: Path, newer: Hashes) -> Any:
        table = self._read(path, self._schema.names)
        return table.filter(pa.array(~newer.hold(table["key"].to_pylist())))

    def _read(self, path: Path, columns: list[str]) -> Any:
        """These columns as they are now; a part made before one of them was added has nulls."""
        with parquet.ParquetFile(path) as file:
            table = file.read(columns)
        found = {
            name: table[name] if name in table.schema.names else pa.nulls(table.num_rows)
            for name in columns
        }
        return pa.table(found).cast(pa.schema([self._schema.field(name) for name in columns]))


def _encoded(table: Any) -> bytes:
    out = pa.BufferOutputStream()
    parquet.write_table(table, out, compression="zstd")
    return bytes(out.getvalue())


def _with_text(items: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    if items is None:
        return None
    return [{**item, "fields": to_json(item["fields"] or {}).decode()} for item in items]


def _struct(**fields: Any) -> Any:
    return pa.struct(list(fields.items()))


def _list_of(**fields: Any) -> Any:
    return pa.list_(_struct(**fields))

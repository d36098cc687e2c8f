"""Parquet bytes of a part. The schema is a promise: columns are only added."""

from typing import Any

from pydantic_core import to_json

from reclane.errors import MissingExtra

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


def encode_parquet(records: list[dict[str, Any]], with_fields: bool) -> bytes:
    """A Parquet file of these records; the same records give the same bytes."""
    if with_fields:
        records = [{**one, "items": _with_text(one["items"])} for one in records]
    table = pa.Table.from_pylist(records, schema=schema(with_fields))
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

"""What a request is read as, by a catalog that is made of rows: title and attributes."""

from collections.abc import Iterator
from typing import Any

from reclane_worker.index.filters import Attributes
from reclane_worker.intent.learning import SchemaBuilder
from reclane_worker.intent.parse import Reader, Reading
from reclane_worker.intent.schema import Aliases, Schema

Rows = list[tuple[str, dict[str, Any]]]


def schema(rows: Rows, aliases: Aliases | None = None) -> Schema:
    builder = SchemaBuilder(aliases)
    for title, attributes in rows:
        builder.add(title, attributes)
    return builder.build()


def reader(rows: Rows, aliases: Aliases | None = None) -> Reader:
    attributes = Attributes([row for _, row in rows], len(rows))
    return Reader(schema(rows, aliases), attributes.texts, [title for title, _ in rows])


def told(understood: Reading) -> Iterator[str]:
    """Constraints in short: attribute, condition; `~` before a wish, `-` before an exclusion."""
    for one in understood.constraints:
        condition = one.condition.model_dump(exclude_none=True, by_alias=True)
        sign = ("" if one.hard else "~") + ("-" if one.unless else "")
        yes_no = True in condition.get("any_of", ())
        bounds = "yes" if yes_no else ",".join(f"{k} {_text(v)}" for k, v in condition.items())
        yield f"{sign}{'|'.join(one.attributes)}: {bounds}"


def _text(value: Any) -> str:
    return (
        "/".join(map(_text, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, int | float)
        else str(value)
    )

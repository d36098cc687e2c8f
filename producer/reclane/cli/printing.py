"""What goes to stdout: data only, as JSON or as aligned text fit for a terminal."""

import json
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from reclane.contract import Recommendation
from reclane.errors import ReclaneError, RequestFailed


def document(value: Any) -> None:
    """One JSON document, indented."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def line(value: Any) -> None:
    """One JSON value on one line."""
    click.echo(compact(value))


def compact(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """What JSON can hold of a dumped model; secrets become stars."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def table(rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Aligned columns; those in `right` are right-aligned."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = [
            _padded(cell, widths[n], n in right, last=n == len(row) - 1)
            for n, cell in enumerate(row)
        ]
        click.echo("  ".join(cells).rstrip())


def printable(text: str) -> str:
    """Text without control characters: what a stranger sent must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def width(text: str) -> int:
    """Columns in a terminal; Chinese characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def duration(seconds: float | None) -> str:
    """A span of time in the unit that fits, or - where it is not known."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


def moment(seconds: float) -> str:
    """A time since the epoch as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def answer(found: Recommendation) -> None:
    """Rank, score, id, title and the fields asked for; what to know about it on stderr."""
    rows = [
        [
            item.rank,
            f"{item.score:.3f}",
            item.id,
            item.title,
            *(f"{name}={json.dumps(v, ensure_ascii=False)}" for name, v in item.fields.items()),
        ]
        for item in found.items
    ]
    longest = max(map(len, rows), default=0)
    table([row + [""] * (longest - len(row)) for row in rows], right=(0, 1))
    for flag in found.flags:
        click.echo(printable(f"reclane: {flag.code}: {'; '.join(flag.reasons)}"), err=True)


def error_fields(error: ReclaneError) -> dict[str, Any]:
    """An error as data."""
    if isinstance(error, RequestFailed):
        return {"code": error.code, "message": error.message, "retry": error.retry}
    return {"code": error.code, "message": str(error), "retry": False}


def _padded(text: str, columns: int, right: bool, last: bool) -> str:
    if last and not right:
        return text
    space = " " * (columns - width(text))
    return space + text if right else text + space

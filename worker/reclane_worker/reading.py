"""Reads catalog items from JSON lines, CSV, TSV or Parquet, one row at a time.

Each format turns into (line, row) pairs or bad rows; `_to_item` then checks a row the same way
whatever it came from. A bad row is reported and skipped, a bad file raises ItemsInvalid. Memory
is bounded by one line or Parquet batch; only the ids seen, kept to find duplicates, grow.
"""

import csv
import gzip
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, TextIO, TypeAlias

from pydantic_core import from_json

from reclane.contract import MAX_ID_CHARS
from reclane.errors import ItemsInvalid, MissingExtra

Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | list[Scalar]
Row: TypeAlias = dict[str, object]

MAX_LINE_CHARS: Final = 16 * 1024 * 1024
OWN_FIELDS: Final = ("title", "text")  # of any item; what is encoded unless told otherwise
TITLE_CHARS: Final = 80  # of the text, where an item has no title

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUPPORTED = ".jsonl, .ndjson, .json, .csv, .tsv (each also with .gz) and .parquet"
_PARQUET_BATCH_ROWS = 1024
_NUMBER = re.compile(r"[+-]?(?!0\d)(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One catalog item as its file gives it; `title` is never empty, `text` may be."""

    id: str
    title: str
    text: str
    attributes: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold the id, title and text; every other column becomes an attribute."""

    id: str = "id"
    title: str = "title"
    text: str = "text"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was skipped, and why.

    `line` is 1-based: the physical line of a JSON row, the one where a CSV record starts (right
    after the line where the csv module says that the previous one ended), or the Parquet row.
    """

    line: int
    reason: str


class _BadRowError(Exception):
    """Why the row at hand cannot be used; becomes a BadRow once its line is known."""


def read_items(
    path: Path, columns: Columns, on_bad: Callable[[BadRow], None]
) -> Iterator[SourceItem]:
    """Yield the good items in file order; call `on_bad` for every other row.

    A CSV cell that is a decimal number becomes one, an empty cell is absent, and a column named
    `genres[]` splits on `|` into the list `genres`. A row's `attributes` object is merged into
    its other attributes, which win where names clash.

    Raises:
        ItemsInvalid: at once for a missing file or unknown ending; while iterating for a
            mapped column that the file does not have, or a file damaged or cut short.
        MissingExtra: while iterating, for Parquet without pyarrow.
    """
    return _items(read_rows(path, columns), columns, on_bad)


def read_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Row] | BadRow]:
    """A file's rows, each with its line, as they stand: the cells of `columns` are text.

    Raises:
        ItemsInvalid, MissingExtra: as `read_items`.
    """
    name = path.name.lower()
    ending = PurePath(name.removesuffix(".gz")).suffix
    rows: Iterator[tuple[int, Row] | BadRow]
    if ending in _JSON_LINES:
        rows = _json_rows(path, columns)
    elif ending in _DELIMITERS:
        rows = _csv_rows(path, columns, _DELIMITERS[ending])
    elif name.endswith(".parquet"):
        rows = _parquet_rows(path, columns)
    else:
        raise ItemsInvalid(f"{path}: unknown kind of file; supported are {_SUPPORTED}")
    if not path.is_file():
        raise ItemsInvalid(f"{path}: there is no such file")
    return rows


def count_rows(path: Path) -> int | None:
    """How many rows a file has at most, for a progress bar; None where it cannot be told."""
    try:
        if path.name.lower().endswith(".parquet"):
            import pyarrow.parquet as parquet

            return int(parquet.read_metadata(path).num_rows)
        return sum(1 for _ in open_lines(path))
    except Exception:
        return None


def _items(
    rows: Iterator[tuple[int, Row] | BadRow], columns: Columns, on_bad: Callable[[BadRow], None]
) -> Iterator[SourceItem]:
    first_lines: dict[str, int] = {}
    for row in rows:
        if isinstance(row, BadRow):
            on_bad(row)
            continue
        line, cells = row
        try:
            item = _to_item(cells, columns)
        except _BadRowError as bad:
            on_bad(BadRow(line, str(bad)))
            continue
        first = first_lines.setdefault(item.id, line)
        if first == line:
            yield item
        else:
            on_bad(BadRow(line, f"duplicate id; line {first} has it first"))


def _to_item(row: Row, columns: Columns) -> SourceItem:
    item_id = _id(row.get(columns.id))
    title, text = _text("title", row.get(columns.title)), _text("text", row.get(columns.text))
    if not title and not text:
        raise _BadRowError("title and text are both missing")
    own = {columns.id, columns.title, columns.text} & row.keys()
    nested = row.get("attributes")
    if isinstance(nested, dict):
        row = nested | {name: value for name, value in row.items() if name != "attributes"}
    attributes = {
        name: _value(name, value)
        for name, value in row.items()
        if value is not None and name not in own
    }
    return SourceItem(item_id, title or text.lstrip()[:TITLE_CHARS], text, attributes)


def as_id(value: object) -> str | None:
    """An id as text, as which a whole number counts, too; None of what cannot be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _id(value: object) -> str:
    found = as_id(value)
    if value is None or (found is not None and not found.strip()):
        raise _BadRowError("id is missing")
    if found is None:
        raise _BadRowError("id is not a string")
    if len(found) > MAX_ID_CHARS:
        raise _BadRowError(f"id is longer than {MAX_ID_CHARS} characters")
    return found


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # the film 1917, the novel 1984
    if not isinstance(value, str):
        raise _BadRowError(f"{name} is not a string")
    return value if value.strip() else ""


def _value(name: str, value: object) -> Value:
    if isinstance(value, list):
        return [_scalar(name, element) for element in value if element is not None]
    return _scalar(name, value)


def _scalar(name: str, value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise _BadRowError(f"attribute {name} is not a finite number")
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        raise _BadRowError(f"attribute {name} is an object; flatten it")
    kind = type(value).__name__
    raise _BadRowError(
        f"attribute {name} holds a {kind}; use text, numbers, booleans or a list of those"
    )


def _require_columns(columns: Columns, names: Collection[str], path: Path) -> None:
    # A file may do without title or text, but not without one that the caller named.
    optional = {Columns().title, Columns().text}
    wanted = {columns.id} | ({columns.title, columns.text} - optional)
    has = ", ".join(names) or "no columns"
    if missing := sorted(wanted - set(names)):
        raise ItemsInvalid(f"{path}: there is no column {', '.join(missing)}; it has {has}")
    if len(set(names)) != len(names):
        raise ItemsInvalid(f"{path}: two columns have the same name; it has {has}")


def open_lines(path: Path) -> Iterator[str]:
    """Physical lines. A byte that is not UTF-8 arrives as a lone surrogate: one row is bad."""
    try:
        with _open(path) as file:
            while line := file.readline(MAX_LINE_CHARS + 1):
                if len(line) > MAX_LINE_CHARS:
                    raise ItemsInvalid(f"{path}: a line is longer than {MAX_LINE_CHARS} characters")
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise ItemsInvalid(f"{path}: cannot be read to its end: {error}") from error


def _open(path: Path) -> TextIO:
    # newline="\n": the only line end in JSON lines; csv itself takes the \r of \r\n.
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _BadRowError("invalid UTF-8") from None


def _json_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Row] | BadRow]:
    is_first = True
    for line, text in enumerate(open_lines(path), start=1):
        if not text.strip():
            continue
        try:
            row = _json_row(text)
        except _BadRowError as bad:
            yield BadRow(line, str(bad))
            continue
        if is_first:
            _require_columns(columns, row.keys(), path)
            is_first = False
        yield line, row


def _json_row(text: str) -> Row:
    encoded = _utf8(text)
    try:
        row = from_json(encoded, allow_inf_nan=False)
    except ValueError as error:
        # The parser saw this line alone; its "line 1" would be taken for the file's.
        reason = str(error).replace(" at line 1 column", " at column")
        raise _BadRowError(f"invalid JSON: {reason}") from None
    if not isinstance(row, dict):
        raise _BadRowError("not a JSON object; write one object on each line")
    return row


def _csv_rows(path: Path, columns: Columns, delimiter: str) -> Iterator[tuple[int, Row] | BadRow]:
    reader = csv.reader(open_lines(path), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _utf8("".join(header))
    except (csv.Error, _BadRowError) as error:
        raise ItemsInvalid(f"{path}: the header cannot be read: {error}") from None
    _require_columns(columns, [name.removesuffix("[]") for name in header], path)
    while True:
        line = reader.line_num + 1
        try:
            if (cells := next(reader, None)) is None:
                return
            if cells:  # a blank line has none
                yield line, _csv_row(header, cells, columns)
        except csv.Error as error:
            yield BadRow(line, f"{error}; skipped to the end of line {reader.line_num}")
        except _BadRowError as bad:
            yield BadRow(line, str(bad))


def _csv_row(header: list[str], cells: list[str], columns: Columns) -> Row:
    if len(cells) != len(header):
        raise _BadRowError(f"{len(cells)} fields where the header has {len(header)}")
    _utf8("".join(cells))
    row: Row = {}
    for name, cell in zip(header, cells, strict=True):
        if not cell:
            continue
        if name in (columns.id, columns.title, columns.text):
            row[name] = cell
        elif name.endswith("[]"):
            row[name.removesuffix("[]")] = [_number(part) for part in cell.split("|") if part]
        else:
            row[name] = _number(cell)
    return row


def _number(cell: str) -> Scalar:
    """The number that the cell is, else the cell.

    Python would take `nan`, `Infinity` and `1_000` for numbers too; in a catalog they are words.
    """
    if not _NUMBER.fullmatch(cell.strip()):
        return cell
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _parquet_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Row] | BadRow]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("reading Parquet needs pyarrow: pip install pyarrow") from None
    line = 0
    try:
        # The defaults load a whole row group, often the whole file; these two read it in pieces.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            _require_columns(columns, file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
                for index in range(batch.num_rows):
                    line += 1
                    yield _parquet_row(arrays, index, line)
    except (pa.ArrowException, OSError) as error:
        raise ItemsInvalid(f"{path}: cannot be read as Parquet: {error}") from error


def _parquet_row(arrays: dict[str, Any], index: int, line: int) -> tuple[int, Row] | BadRow:
    # Row by row: batch.to_pylist() does the same work but fails for all rows at once.
    try:
        return line, {name: array[index].as_py() for name, array in arrays.items()}
    except UnicodeDecodeError:
        return BadRow(line, "invalid UTF-8")
    except (ValueError, OverflowError) as error:
        return BadRow(line, f"a value cannot be converted: {error}")

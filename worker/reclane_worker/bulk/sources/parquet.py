"""Rows of a Parquet file; a position is the row group and the row in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from reclane.bulk.spec import FilesSource
from reclane.errors import MissingExtra
from reclane_worker.bulk.errors import SourceUnusable
from reclane_worker.bulk.sources.changed import Changed
from reclane_worker.bulk.sources.mapping import Mapper, bind
from reclane_worker.bulk.sources.rows import Met
from reclane_worker.bulk.sources.values import Unreadable

_BATCH_ROWS: Final = 512


def read_parquet(path: Path, name: str, spec: FilesSource, at: tuple[int, ...]) -> Iterator[Met]:
    """Rows from `at` on. Row groups before it are skipped, and those whose statistics say that
    nothing in them changed since.

    Raises:
        SourceUnusable: the file cannot be read, or a column is missing.
    """
    first_group, first_row = at or (0, 0)
    with _opened(path) as file:
        mapper = bind(spec, file.schema_arrow.names, name)
        before = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if group >= first_group and not _unchanged(file, group, mapper.changed):
                start = first_row if group == first_group else 0
                for row, record in _records(file, group, start, mapper.columns):
                    yield _meet(mapper, (group, row + 1), f"{name} row {before + row + 1}", record)
            before += rows


def count_parquet(path: Path) -> int:
    """Rows by the file's footer.

    Raises:
        SourceUnusable: it cannot be read.
    """
    with _opened(path) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("Parquet needs pyarrow: pip install 'reclane[worker]'") from None
    try:
        # By default the whole row group is read ahead; this reads it in pieces.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise SourceUnusable(f"{path}: cannot be read as Parquet: {error}") from error


def _records(
    file: Any, group: int, start: int, columns: list[str]
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(row in the group, its cells), None for a row that cannot be converted."""
    first = 0
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
        if first + batch.num_rows > start:
            skipped = max(0, start - first)
            yield from enumerate(_converted(batch.slice(skipped)), start=first + skipped)
        first += batch.num_rows


def _converted(batch: Any) -> list[dict[str, Any] | None]:
    batch = _in_microseconds(batch)
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError):  # one row's fault: find it
        return [_one(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _one(batch: Any) -> dict[str, Any] | None:
    try:
        return dict(batch.to_pylist()[0])
    except (ValueError, OverflowError):
        return None


def _in_microseconds(batch: Any) -> Any:
    """Python has no finer moments: one with nanoseconds in it could not be converted."""
    import pyarrow as pa

    for index, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            finer = batch.column(index).cast(pa.timestamp("us", field.type.tz), safe=False)
            batch = batch.set_column(index, field.name, finer)
    return batch


def _meet(mapper: Mapper, after: tuple[int, int], place: str, record: dict[str, Any] | None) -> Met:
    if record is None:
        return Met(after, place, reason="a value cannot be converted, or is not valid UTF-8")
    return mapper.meet(after, place, record)


def _unchanged(file: Any, group: int, changed: Changed | None) -> bool:
    """Whether the group's statistics rule out that one of its rows is wanted."""
    if changed is None:
        return False
    metadata = file.metadata.row_group(group)
    for index in range(metadata.num_columns):
        column = metadata.column(index)
        if column.path_in_schema == changed.column:
            return _all_before(column.statistics, changed)
    return False


def _all_before(statistics: Any, changed: Changed) -> bool:
    if statistics is None or not statistics.has_min_max:
        return False
    try:
        latest = statistics.max
        # The largest text need not be the latest moment.
        return not isinstance(latest, str) and not changed.keeps(latest)
    except (Unreadable, ValueError, OverflowError):  # no Python value: see the rows
        return False

"""A sink in SQLite or PostgreSQL: one row for each key, one transaction for each part.

A failure never replaces an earlier answer: it is stored only where there is no row. `run` says
which run wrote a row; a row that later runs no longer have stays.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable

from reclane.bulk.spec import SqlSink
from reclane_worker.bulk.database import make_engine, split_table, transaction
from reclane_worker.bulk.errors import SinkUnusable
from reclane_worker.bulk.sinks.results import Carried, Manifest, Part, Result, record

_JSON: Final = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


class Table:
    """A `Sink`: the columns are key (unique), items, flags, versions, failure, made_at,
    digest, run."""

    def __init__(self, spec: SqlSink, run: str) -> None:
        """Connects only when it is used.

        Raises:
            SinkUnusable: the URL cannot be read.
            MissingExtra: there is no driver.
        """
        self._run = run
        self._fields = spec.fields
        self._engine = make_engine(spec.url, SinkUnusable)
        schema, name = split_table(spec.table)
        self._table = sa.Table(
            name,
            sa.MetaData(schema=schema),
            sa.Column("key", sa.Text, primary_key=True),
            *(sa.Column(column, _JSON) for column in ("items", "flags", "versions", "failure")),
            sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),  # SQLite: UTC
            sa.Column("digest", sa.Text),
            sa.Column("run", sa.Text, nullable=False),
        )

    def check(self) -> None:
        """Makes the table if there is none, and tries to write a row, undone at once."""
        row = self._row(Result("reclane-check", None, None, at=0.0))
        try:
            with transaction(self._engine, SinkUnusable) as connection:
                connection.execute(CreateTable(self._table, if_not_exists=True))
                with connection.begin_nested() as savepoint:
                    connection.execute(self._upsert(), [row])
                    savepoint.rollback()
        except SinkUnusable as error:
            columns = ", ".join(column.name for column in self._table.columns)
            raise SinkUnusable(
                f"{error}; {self._table} needs the columns {columns}, key unique"
            ) from None

    def write(self, part: int, results: Sequence[Result]) -> Part:
        # In the order of keys, or two parts could wait for each other's rows.
        ordered = sorted(results, key=lambda result: result.key)
        answers = [self._row(result) for result in ordered if result.answer is not None]
        failures = [self._row(result) for result in ordered if result.answer is None]
        with transaction(self._engine, SinkUnusable) as connection:
            if answers:
                connection.execute(self._upsert(), answers)
            if failures:
                kept = self._insert().on_conflict_do_nothing(index_elements=["key"])
                connection.execute(kept, failures)
        size = sum(len(to_json(row)) for row in answers + failures)
        return Part(number=part, rows=len(results), bytes=size)

    def unchanged(self, wanted: Mapping[str, str]) -> set[str]:
        columns = self._table.columns
        rows = sa.select(columns.key, columns.digest).where(columns.key.in_(wanted))
        with transaction(self._engine, SinkUnusable) as connection:
            return {key for key, digest in connection.execute(rows) if digest == wanted[key]}

    def carry(self, number: int, at: int, parts: Sequence[Part]) -> Carried | None:
        return None  # a row stays until it is replaced

    def complete(self, manifest: Manifest) -> None:
        pass  # each part was shown as it was written

    def clear(self) -> None:
        pass

    def close(self) -> None:
        self._engine.dispose()

    def _row(self, result: Result) -> dict[str, Any]:
        return {**_without_nul(record(result, self._fields)), "run": self._run}

    def _insert(self) -> Any:
        if self._engine.dialect.name == "postgresql":
            return postgresql.insert(self._table)
        return sqlite.insert(self._table)

    def _upsert(self) -> Any:
        insert = self._insert()
        new = {one.name: one for one in insert.excluded if not one.primary_key}
        return insert.on_conflict_do_update(index_elements=["key"], set_=new)


def _without_nul(value: Any) -> Any:
    """PostgreSQL stores no NUL: one title with it would keep a part from being written."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nul(one) for one in value]
    return value

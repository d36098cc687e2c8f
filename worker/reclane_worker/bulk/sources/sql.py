"""A source in SQLite or PostgreSQL: pages by key, never OFFSET, so that each costs the same."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from reclane.bulk.spec import SqlSource
from reclane_worker.bulk.database import make_engine, split_table, sqlite_file, transaction
from reclane_worker.bulk.errors import SourceUnusable, StoreUnavailable
from reclane_worker.bulk.sources.mapping import Mapper, bind
from reclane_worker.bulk.sources.rows import Cursor, Met, Slice, take

PAGE_ROWS: Final = 1_000


class Database:
    """A `Source`; each page is read in a read-only transaction of its own."""

    def __init__(self, spec: SqlSource) -> None:
        """Connects only when it is used.

        Raises:
            SourceUnusable: the URL cannot be read, or its SQLite file does not exist.
            MissingExtra: there is no driver.
        """
        self._spec = spec
        self._engine = make_engine(spec.url, SourceUnusable)
        self._order_by = spec.order_by or spec.key
        self._name = split_table(spec.table)[1] if spec.table else "query"
        file = sqlite_file(self._engine)
        if file is not None and not file.is_file():  # SQLite would make an empty one
            raise SourceUnusable(f"{file.absolute()}: there is no such SQLite file")
        self._at: tuple[Any, ...] | None = None
        self._met: Iterator[Met] | None = None  # from `_at` on

    def check(self) -> None:
        with self._reading() as connection:
            self._mapper(connection)
            self._check_order(connection)

    def read(self, cursor: Cursor | None, limit: int) -> Slice:
        at = tuple(cursor["at"]) if cursor else ()
        met, self._met = self._met if self._at == at else None, None
        met = met or self._read_from(at)
        rows, bad, after = take(met, limit)
        if after is None:
            return Slice(rows, bad, None)
        self._at, self._met = after, met
        return Slice(rows, bad, {"at": list(after)})

    def count(self) -> int | None:
        try:
            return self._count()
        except StoreUnavailable:  # too many to count in time; one that is away is told by `read`
            return None

    def _count(self) -> int | None:
        with self._reading() as connection:
            mapper = self._mapper(connection)
            if mapper.changed and self._since(mapper) is None:
                return None
            counted = sa.select(sa.func.count()).select_from(self._table())
            for condition in self._conditions(mapper, ()):
                counted = counted.where(condition)
            return int(connection.execute(counted).scalar_one())

    def close(self) -> None:
        self._met = None

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        reading = self._engine.execution_options(postgresql_readonly=True)
        return transaction(reading, SourceUnusable)

    def _table(self) -> Any:
        if self._spec.query is None:
            schema, name = split_table(self._spec.table or "")
            return sa.table(name, schema=schema)
        query = self._spec.query.strip().rstrip(";").replace(":", r"\:")  # no parameters
        return sa.text(query).columns().subquery("source")

    def _mapper(self, connection: sa.Connection) -> Mapper:
        nothing = sa.select(sa.text("*")).select_from(self._table()).limit(0)
        columns = list(connection.execute(nothing).keys())
        if self._order_by not in columns:
            raise SourceUnusable(
                f"{self._name}: there is no column {self._order_by} to order by; "
                f"it has {', '.join(columns)}"
            )
        return bind(self._spec, columns, self._name)

    def _check_order(self, connection: sa.Connection) -> None:
        order = _column(self._order_by)
        nulls = sa.select(sa.literal(1)).select_from(self._table()).where(order.is_(None))
        if connection.execute(nulls.limit(1)).first():
            raise SourceUnusable(f"{self._name}.{self._order_by} has NULLs; {_ADVICE}")
        if not self._is_unique(connection):
            twice = sa.select(sa.literal(1)).select_from(self._table()).group_by(order)
            if connection.execute(twice.having(sa.func.count() > 1).limit(1)).first():
                raise self._repeats()

    def _is_unique(self, connection: sa.Connection) -> bool:
        """Whether the schema promises it; otherwise one has to look at every row."""
        if self._spec.table is None:
            return False
        schema, name = split_table(self._spec.table)
        schema_of = sa.inspect(connection)
        if name not in schema_of.get_table_names(schema):
            return False  # a view
        keys = [schema_of.get_pk_constraint(name, schema)["constrained_columns"]]
        keys += [one["column_names"] for one in schema_of.get_unique_constraints(name, schema)]
        return [self._order_by] in keys

    def _repeats(self) -> SourceUnusable:
        return SourceUnusable(f"{self._name}.{self._order_by} has a value twice; {_ADVICE}")

    def _read_from(self, at: tuple[Any, ...]) -> Iterator[Met]:
        mapper: Mapper | None = None
        while True:
            with self._reading() as connection:
                if mapper is None:
                    mapper = self._mapper(connection)
                    if not at:
                        self._check_order(connection)
                page = self._page(connection, mapper, at)
            keys = [record[self._order_by] for record in page]
            if any(key == following for key, following in pairwise(keys)):
                raise self._repeats()
            for record in page[:PAGE_ROWS]:
                at = (_scalar(record[self._order_by], self._order_by),)
                place = f"{self._name} row {self._order_by}={at[0]}"
                yield mapper.meet(at, place, record)
            if len(page) <= PAGE_ROWS:
                return

    def _page(self, connection: sa.Connection, mapper: Mapper, at: tuple[Any, ...]) -> list[Any]:
        """The next rows and one more, so that its key can be compared."""
        order = _column(self._order_by)
        names = dict.fromkeys([self._order_by, *mapper.columns])
        page = sa.select(*map(_column, names)).select_from(self._table())
        for condition in self._conditions(mapper, at):
            page = page.where(condition)
        return list(connection.execute(page.order_by(order).limit(PAGE_ROWS + 1)).mappings())

    def _conditions(self, mapper: Mapper, at: tuple[Any, ...]) -> Iterator[Any]:
        if at:
            # Without a type the server takes text for whatever the column is (uuid, numeric).
            yield _column(self._order_by) > sa.bindparam("last", at[0], type_=sa.types.NullType())
        since = self._since(mapper)
        if mapper.changed and since is not None:
            yield _column(mapper.changed.column) >= sa.bindparam("since", since)

    def _since(self, mapper: Mapper) -> Any:
        """What the server can compare with; None where only `Changed` can.

        SQLite keeps moments as text or numbers of any form.
        """
        if mapper.changed is None or self._engine.dialect.name == "sqlite":
            return None
        return mapper.changed.since


_ADVICE: Final = "set order_by to a column that is unique and NOT NULL, such as the primary key"


def _column(name: str) -> Any:
    return sa.column(name)


def _scalar(value: Any, column: str) -> int | float | str:
    if isinstance(value, int | float | str):
        return value
    if isinstance(value, UUID | Decimal | date | datetime):
        return str(value)
    raise SourceUnusable(f"{column}: order_by needs a column of numbers, text, uuid or time")

"""SQLite and PostgreSQL through SQLAlchemy: connecting, and what its errors mean here."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from reclane.errors import MissingExtra
from reclane_worker.bulk.errors import SinkFull, StepFailed, StoreUnavailable

_MISSING: Final = "databases need: pip install 'reclane[bulk-sql]'"
_LOCK_TIMEOUT_S: Final = 30
_STATEMENT_TIMEOUT_S: Final = 120
# Of PostgreSQL, in seconds. Its own bound on a statement does not help whoever waits for a machine
# that is gone: the system would wait for two hours.
_BOUNDS: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

try:
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool
except ImportError as error:
    raise MissingExtra(_MISSING) from error


def make_engine(url: SecretStr, unusable: type[StepFailed]) -> sa.Engine:
    """An engine that keeps no connection open and prints no values.

    Raises:
        StepFailed: of the class `unusable`, where the URL cannot be read or lacks a file name.
        MissingExtra: there is no driver.
    """
    try:
        parsed = sa.make_url(url.get_secret_value())
    except (sa.exc.ArgumentError, ValueError):
        raise unusable("the database URL cannot be read; write special characters as %40") from None
    if is_sqlite := parsed.drivername == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise unusable("the SQLite URL names no file; write sqlite:////absolute/path.db")
        arguments: dict[str, object] = {"timeout": _LOCK_TIMEOUT_S}
    else:
        parsed = parsed.set(drivername="postgresql+psycopg")
        # A pooler between us and the server may give each transaction another connection.
        arguments = {"prepare_threshold": None, **_BOUNDS}
    try:
        engine = sa.create_engine(
            parsed, poolclass=NullPool, hide_parameters=True, connect_args=arguments
        )
    except ImportError:
        raise MissingExtra(_MISSING) from None
    if is_sqlite:
        # sqlite3 itself would open a transaction only before a statement that writes rows.
        sa.event.listen(engine, "connect", _no_implicit_begin)
        sa.event.listen(engine, "begin", _begin)
    return engine


def _no_implicit_begin(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


@contextmanager
def transaction(engine: sa.Engine, unusable: type[StepFailed]) -> Iterator[sa.Connection]:
    """One transaction, whole or undone, with times in UTC and a bound on each statement.

    Raises:
        SinkFull: the database has no room.
        StoreUnavailable: it cannot be reached, or was busy too long.
        StepFailed: of the class `unusable`, for everything else.
    """
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                limit = _STATEMENT_TIMEOUT_S * 1_000
                connection.exec_driver_sql(
                    f"SET LOCAL statement_timeout = {limit}; SET LOCAL TIME ZONE 'UTC'"
                )
            yield connection
    except sa.exc.SQLAlchemyError as error:
        raise _translated(error, unusable) from None


def _translated(error: sa.exc.SQLAlchemyError, unusable: type[StepFailed]) -> StepFailed:
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or ""
    name = getattr(original, "sqlite_errorname", "")
    if state.startswith("53") or name == "SQLITE_FULL":
        return SinkFull("the database has no room; free some and write again")
    # 08 connection, 40 deadlock, 55P03 lock, 57 timeout or shutdown; no state: not connected
    unreached = state.startswith(("08", "40", "55P03", "57")) or (
        isinstance(error, sa.exc.OperationalError) and not state and not name
    )
    if unreached or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR")):
        return StoreUnavailable(f"the database did not answer: {_said(original, error)}")
    return unusable(f"the database refused: {_said(original, error)}")


def _said(original: object, error: Exception) -> str:
    """The driver's first line; of PostgreSQL without the detail, which quotes rows.

    Its class 22 (data) quotes values in the first line too.
    """
    if (getattr(original, "sqlstate", None) or "").startswith("22"):
        return f"a value does not fit its column ({type(original).__name__})"
    diagnosis = getattr(original, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    return str(primary or original or error).strip().partition("\n")[0]


def sqlite_file(engine: sa.Engine) -> Path | None:
    """The file of an SQLite database; None for a server."""
    return Path(str(engine.url.database)) if engine.dialect.name == "sqlite" else None


def split_table(table: str) -> tuple[str | None, str]:
    """`schema.table` or `table` to (schema, table)."""
    schema, _, name = table.rpartition(".")
    return schema or None, name

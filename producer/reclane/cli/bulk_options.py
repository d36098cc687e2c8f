"""Options that say what a bulk run reads and writes; `bulk run` and `schedule add` share them."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from reclane.bulk.spec import RunSpec, parse_run
from reclane.bulk.urls import DATABASES, REDIS, SQLITE
from reclane.cli.options import Decorator, together


def _pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in value)
    if any(not name or not given for name, given in pairs.items()):
        raise click.BadParameter(f"write {param.metavar}", ctx, param)
    if len(pairs) < len(value):
        raise click.BadParameter("one name is given twice", ctx, param)
    return pairs


def _values(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    """As `_pairs`; a value that is JSON is taken as such."""
    return {name: _json_or_text(text) for name, text in _pairs(ctx, param, value).items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_OPTIONS: Final[tuple[Decorator, ...]] = (
    click.argument("source", metavar="IN...", nargs=-1, required=True),
    click.option(
        "--out",
        required=True,
        help="A folder, or the URL of a Redis or a database (sqlite:///, postgresql://).",
    ),
    click.option(
        "--format",
        type=click.Choice(["parquet", "jsonl", "jsonl.gz"]),
        help="Of the files in the folder; parquet unless told.",
    ),
    click.option("--to-table", help="Where --out is a database: the table to write."),
    click.option("--redis-key", help="Where --out is a Redis: the key of a row, recs:{key}."),
    click.option("--ttl", "ttl_s", type=int, help="Where --out is a Redis: seconds a row is kept."),
    click.option("--with-fields", is_flag=True, help="Write each item's fields, too."),
    click.option("--from-table", help="Where IN is a database: the table to read."),
    click.option("--from-query", help="Where IN is a database: the SELECT to read."),
    click.option("--order-by", help="Unique column to read a database by; the key unless told."),
    click.option(
        "--key",
        default="user_id",
        show_default=True,
        help="Column that names a row in the output.",
    ),
    click.option(
        "--map",
        "columns",
        multiple=True,
        callback=_pairs,
        metavar="FIELD=COLUMN",
        help="Which column gives a field of the request: history=watched.",
    ),
    click.option(
        "--set",
        "defaults",
        multiple=True,
        callback=_values,
        metavar="FIELD=VALUE",
        help="A field that every request has: k=20, catalog=films.",
    ),
    click.option(
        "--separator", default="|", show_default=True, help="Between the ids of a list in a text."
    ),
    click.option(
        "--changed-since",
        callback=_values,
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Only rows whose column is so new: updated_at=2026-11-24T03:00:00Z, or a number.",
    ),
    click.option(
        "--only-changed",
        is_flag=True,
        help="Ask only where the request, the model or the catalog changed since the last run.",
    ),
    click.option("--max-bad", type=int, help="Give up at more bad rows; never unless told."),
)


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds IN and the options of a run; `run_spec` takes them."""
    return together(_OPTIONS, command)


def run_spec(given: dict[str, Any]) -> RunSpec:
    """The spec that the options describe; takes them out of `given`.

    Raises:
        click.UsageError: options that do not go together.
        InvalidRequest: one breaks the spec.
    """
    taken = {name: given.pop(name) for name in _NAMES}
    spec = {"source": _source(taken), "sink": _sink(taken)}
    return parse_run({**spec, **_given(taken, "only_changed", "max_bad")})


_NAMES: Final = (
    *("source", "out", "format", "to_table", "redis_key", "ttl_s", "with_fields", "from_table"),
    *("from_query", "order_by", "key", "columns", "defaults", "separator", "changed_since"),
    *("only_changed", "max_bad"),
)


def _source(taken: dict[str, Any]) -> dict[str, Any]:
    rows = _given(taken, "key", "columns", "defaults", "separator")
    if since := taken["changed_since"]:
        if len(since) > 1:
            raise click.UsageError("--changed-since: give one column")
        column, value = next(iter(since.items()))
        rows["changed_since"] = {"column": column, "value": value}
    url, *more = taken["source"]
    database = _given(taken, "from_table", "from_query", "order_by")
    if not url.startswith(DATABASES):
        _refuse(database, "IN is no database")
        _refuse_urls(taken["source"], DATABASES)
        return {"kind": "files", "paths": [*map(os.path.abspath, taken["source"])], **rows}
    if more or len(database.keys() & {"from_table", "from_query"}) != 1:
        raise click.UsageError("a database is read by one URL and --from-table or --from-query")
    return {
        "kind": "sql",
        "url": _absolute(url),
        **{name.removeprefix("from_"): value for name, value in database.items()},
        **rows,
    }


def _sink(taken: dict[str, Any]) -> dict[str, Any]:
    out, fields = taken["out"], {"fields": taken["with_fields"]}
    redis, table = _given(taken, "redis_key", "ttl_s"), _given(taken, "to_table")
    if out.startswith((*REDIS, *DATABASES)):
        _refuse(_given(taken, "format"), "--out is no folder")
    if out.startswith(REDIS):
        _refuse(table, "--out is no database")
        if "ttl_s" not in redis:
            raise click.UsageError("a Redis needs --ttl: how many seconds a row is kept")
        key = {"key": redis["redis_key"]} if "redis_key" in redis else {}
        return {"kind": "redis", "url": out, "ttl_s": redis["ttl_s"], **key, **fields}
    _refuse(redis, "--out is no Redis")
    if out.startswith(DATABASES):
        if not table:
            raise click.UsageError("a database needs --to-table")
        return {"kind": "sql", "url": _absolute(out), "table": table["to_table"], **fields}
    _refuse(table, "--out is no database")
    _refuse_urls([out], (*DATABASES, *REDIS))
    kind, _, zipped = (taken["format"] or "parquet").partition(".")
    packed = {"gzip": True} if zipped else {}
    return {"kind": kind, "path": os.path.abspath(out), **packed, **fields}  # noqa: PTH100


def _given(taken: dict[str, Any], *names: str) -> dict[str, Any]:
    """What was said of these options; 0 was."""
    said = {name: taken[name] for name in names}
    return {name: one for name, one in said.items() if one is not False and one not in (None, {})}


def _refuse(options: dict[str, Any], why: str) -> None:
    if options:
        option = next(iter(options)).replace("_", "-").removesuffix("-s")
        raise click.UsageError(f"--{option}: {why}")


def _refuse_urls(paths: Sequence[str], known: Sequence[str]) -> None:
    """What looks like a URL is no path."""
    for path in paths:
        scheme, found, _ = path.partition("://")
        if found and "/" not in scheme:
            raise click.UsageError(f"{scheme}://: write a path, or a URL with {', '.join(known)}")


def _absolute(url: str) -> str:
    """An SQLite URL whose file does not depend on where a worker was started."""
    if not url.startswith(SQLITE):
        return url
    return f"{SQLITE}{Path(url.removeprefix(SQLITE)).absolute()}"

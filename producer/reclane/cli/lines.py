"""Requests and ids as scripts give them: one a line."""

import json
from collections.abc import Iterator
from typing import IO, Any, Final
from uuid import uuid4

import click

from reclane.cli.options import stdin
from reclane.contract import MAX_ID_CHARS, MAX_REQUEST_BYTES, RecommendRequest, parse_request
from reclane.errors import InvalidRequest

MAX_LINES: Final = 100_000
MAX_FILE_BYTES: Final = 256_000_000
SHOWN_BAD_LINES: Final = 10


def read_requests(source: IO[bytes], common: dict[str, Any], keep: bool) -> list[RecommendRequest]:
    """Requests from JSON lines, each over the common fields; empty lines are skipped.

    Raises:
        InvalidRequest: naming the bad lines (the first of many), or the bound that was met.
    """
    good: list[RecommendRequest] = []
    bad: list[str] = []
    more = 0
    for number, line in enumerate(_bounded(source), start=1):
        if not line.strip():
            continue
        if len(good) + len(bad) + more == MAX_LINES:
            raise InvalidRequest(f"more than {MAX_LINES} requests; split the file")
        try:
            good.append(parse_request(kept(common | _object(line), keep)))
        except InvalidRequest as error:
            more += len(bad) == SHOWN_BAD_LINES
            bad += [f"line {number}: {error}"] if len(bad) < SHOWN_BAD_LINES else []
    if bad:
        tail = [f"and {more} more bad lines"] if more else []
        text = "\n  ".join(bad + tail)
        raise InvalidRequest(f"nothing was enqueued\n  {text}")
    if not good:
        raise InvalidRequest("there is no request to submit")
    return good


def _bounded(source: IO[bytes]) -> Iterator[bytes]:
    """Lines, none read further than a request may be long; such a one is the last."""
    total = 0
    while line := source.readline(MAX_REQUEST_BYTES + 2):
        total += len(line)
        if total > MAX_FILE_BYTES:
            raise InvalidRequest(f"more than {MAX_FILE_BYTES} bytes; split the file")
        yield line
        if len(line) > MAX_REQUEST_BYTES + 1:
            return


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_REQUEST_BYTES + 1:
        raise InvalidRequest(f"longer than {MAX_REQUEST_BYTES} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidRequest("not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequest('not a JSON object; write {"query": "..."}')
    return value


def kept(fields: dict[str, Any], keep: bool) -> dict[str, Any]:
    """A key of its own keeps a result: whoever repeats a keyed request may read it again."""
    return {"idempotency_key": uuid4().hex, **fields} if keep else fields


def unique_ids(ids: tuple[str, ...]) -> list[str]:
    """Ids in order, each once; - is replaced by the lines of stdin."""
    found: dict[str, None] = {}
    for one in ids:
        for text in stdin() if one == "-" else (one,):
            task_id = text.strip()
            if len(task_id) > MAX_ID_CHARS:
                raise click.UsageError(f"an id has at most {MAX_ID_CHARS} characters")
            if task_id:
                found[task_id] = None
            if len(found) > MAX_LINES:  # what one `submit --from` may have printed
                raise click.UsageError(f"more than {MAX_LINES} ids; wait for them in parts")
    if not found:
        raise click.UsageError("no ids were given")
    return list(found)

"""Requests with known answers: read from a file, and answered by a pipeline to be measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import from_json

from reclane.contract import MAX_QUERY_BYTES, Failure, RecommendRequest, parse_request
from reclane.errors import InvalidRequest, ItemsInvalid
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import as_id, open_lines

DEPTH: Final = 100
BESIDE: Final = ("history", "filters", "exclude", "candidates")
"""Fields of a request that a case may have; others are the file's own."""
_CHUNK: Final = 256


class Case:
    """One request with its known answers; `id` is its own, or else its line. `beside` are fields
    of the request beside its query."""

    def __init__(
        self,
        query: str,
        relevant: frozenset[str],
        id: str,  # noqa: A002
        beside: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.request = parse_request({"query": _cut(query), "k": DEPTH, **beside})
        self.relevant = relevant
        self.id = id


def read_cases(path: Path) -> list[Case]:
    """Requests with answers, from JSON lines (gzip too).

    Raises:
        ItemsInvalid: naming the line without query or relevant.
    """
    cases: dict[str, Case] = {}
    for number, line in enumerate(open_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = from_json(line, allow_inf_nan=False)
        except ValueError as error:
            raise ItemsInvalid(f"{path}, line {number} is no JSON: {error}") from None
        try:
            query, relevant = row["query"], row["relevant"]
            if not isinstance(query, str) or not query.strip():
                raise ValueError("no query")
            ids = list(map(as_id, relevant)) if isinstance(relevant, list) else []
            if not ids or not all(ids):
                raise ValueError("no ids")
        except (ValueError, KeyError, TypeError):
            raise ItemsInvalid(
                f"{path}, line {number}: write an object with `query` and a list `relevant` of "
                "item ids"
            ) from None
        name = str(row.get("id", number))
        name = f"{name}#{number}" if name in cases else name
        beside = {field: row[field] for field in BESIDE if field in row}
        try:
            cases[name] = Case(query, frozenset(filter(None, ids)), name, beside)
        except InvalidRequest as error:
            raise ItemsInvalid(f"{path}, line {number}: {error}") from None
    if not cases:
        raise ItemsInvalid(f"{path} has no requests")
    return list(cases.values())


def _cut(query: str) -> str:
    """What a client could send: the contract's limit in bytes."""
    return query.encode()[:MAX_QUERY_BYTES].decode("utf-8", "ignore")


def rankings(pipeline: Pipeline, requests: Sequence[RecommendRequest]) -> Iterator[list[str]]:
    """The ids of each answer, best first; a request that fails raises ItemsInvalid."""
    for start in range(0, len(requests), _CHUNK):
        for answer in pipeline.recommend(requests[start : start + _CHUNK]):
            if isinstance(answer, Failure):
                raise ItemsInvalid(f"a request failed: {answer.message} [{answer.code}]")
            yield [item["id"] for item in answer["items"]]

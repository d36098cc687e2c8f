"""A bulk run over real users: each one's films, answered from what they have seen."""

import csv
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import redis
from pyarrow import parquet

from bulk import begin, finish, spec, written
from reclane import Client, RecommendRequest
from reclane.embedded import EmbeddedServer
from reclane_worker.building import build_catalog
from reclane_worker.encoder import load_encoder
from reclane_worker.reading import Columns, read_items
from reclane_worker.settings import WorkerSettings
from support import DEADLINE_S, StartWorker

SEEN = 50  # films of a user's history, the newest
K = 20

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("RECLANE_DATA_DIR" not in os.environ, reason="RECLANE_DATA_DIR is not set"),
]


def rows(name: str) -> Iterator[dict[str, str]]:
    path = Path(os.environ["RECLANE_DATA_DIR"]) / "movielens" / name
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter=";")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every film under the stand-in model."""
    folder = tmp_path_factory.mktemp("movielens")
    lines = (
        {"id": row["movieId"], "title": row["title"], "genres": row["genres"].split("|")}
        for row in rows("movies.csv.gz")
    )
    source = folder / "items.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    encoder = load_encoder(WorkerSettings.load(model="hash:384"))
    items = read_items(source, Columns(), pytest.fail)
    build_catalog(items, folder / "films", encoder, fields=("title", "genres"))
    return folder / "films"


def histories() -> dict[str, list[str]]:
    """User -> films, the newest last."""
    found: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in rows("ratings.csv.gz"):
        found[row["userId"]].append((int(row["timestamp"]), row["movieId"]))
    return {user: [film for _, film in sorted(seen)[-SEEN:]] for user, seen in found.items()}


def test_every_user_gets_exactly_what_a_single_request_gives(
    server: EmbeddedServer,
    films: Path,
    client: Client,
    raw: "redis.Redis",
    tmp_path: Path,
) -> None:
    users = histories()
    assert len(users) == 610
    table = {"user": list(map(int, users)), "seen": list(users.values())}
    parquet.write_table(pa.table(table), tmp_path / "users.parquet")
    workers = StartWorker(server.url, films, tmp_path)
    try:
        workers()
        wanted = spec(tmp_path / "users.parquet", tmp_path / "recs")
        wanted["source"] |= {"key": "user", "columns": {"history": "seen"}, "defaults": {"k": K}}
        begin(raw, wanted)
        assert finish(raw).counts["answered"] == len(users)
        single = client.submit_many(
            RecommendRequest(history=tuple(seen), k=K) for seen in users.values()
        )
        alone = {user: one.result(DEADLINE_S) for user, one in zip(users, single, strict=True)}
    finally:
        workers.kill_all()
    found = written(tmp_path / "recs")
    assert found.keys() == alone.keys()
    for user, answer in alone.items():
        assert len(answer.items) == K
        assert not {item.id for item in answer.items} & set(users[user])
        expected = [(item.id, item.rank, item.title) for item in answer.items]
        assert [_shown(item) for item in found[user]["items"]] == expected
        scores = [item["score"] for item in found[user]["items"]]
        assert scores == pytest.approx([item.score for item in answer.items], abs=1e-5)
        assert found[user]["versions"] == answer.versions.model_dump(exclude_none=True)
    again = duckdb.sql(f"SELECT key, items FROM '{tmp_path}/recs/*.parquet'").fetchall()
    assert dict(again) == {key: record["items"] for key, record in found.items()}


def _shown(item: dict[str, Any]) -> tuple[str, int, str]:
    return item["id"], item["rank"], item["title"]

"""Real weights, real catalog, real queue: the answers that the demo promises, and quality."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from reclane import Client, RecommendRequest
from reclane.embedded import EmbeddedServer
from reclane_worker.demo import MODEL
from reclane_worker.local import WorkerProcess
from reclane_worker.pipeline import Pipeline
from support import DEADLINE_S

RECLANE = str(Path(sys.executable).parent / "reclane")


def leader(pipeline: Pipeline, query: str, *fields: str) -> dict[str, object]:
    answer = pipeline.recommend([RecommendRequest(query=query, k=3, fields=fields)])[0]
    assert isinstance(answer, dict)
    best: dict[str, object] = answer["items"][0]["fields"]
    return best


@pytest.mark.parametrize("query", ["想看一部好看的科幻电影", "a good science fiction film"])
def test_a_science_fiction_film_leads(pipeline: Pipeline, query: str) -> None:
    best = leader(pipeline, query, "domain", "genres")
    assert best["domain"] == "film"
    assert "science fiction" in str(best["genres"])


@pytest.mark.parametrize("query", ["想买一双舒适的跑步鞋", "comfortable running shoes"])
def test_a_running_shoe_leads(pipeline: Pipeline, query: str) -> None:
    assert leader(pipeline, query, "category")["category"] == "running shoes"


def test_piano_music_leads_for_a_relaxing_evening(pipeline: Pipeline) -> None:
    best = leader(pipeline, "relaxing piano music for the evening", "domain", "instrument")
    assert best == {"domain": "music", "instrument": "piano"}


def test_answers_through_the_queue_are_those_of_the_pipeline(
    server: EmbeddedServer, pipeline: Pipeline, demo_catalog: Path, tmp_path: Path
) -> None:
    queries = ["a good science fiction film", "想买一双舒适的跑步鞋", "news about space", "jazz"]
    environment = {"RECLANE_MODEL": MODEL, "RECLANE_CATALOG": f"demo={demo_catalog}"}
    expected = pipeline.recommend([RecommendRequest(query=query) for query in queries])
    with (
        WorkerProcess(server.url, environment, tmp_path / "worker.log"),
        Client(server.url) as client,
    ):
        for query, answer in zip(queries, expected, strict=True):
            assert isinstance(answer, dict)
            items = client.recommend(query, timeout=DEADLINE_S).items
            assert [item.id for item in items] == [item["id"] for item in answer["items"]]
            for item, other in zip(items, answer["items"], strict=True):
                assert item.score == pytest.approx(other["score"], abs=1e-3)


def test_the_demo_shows_answers_and_figures_and_stops_everything() -> None:
    done = subprocess.run(
        [RECLANE, "demo", "--requests", "100"],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for shown in ("想看一部好看的科幻电影", "running shoes", "ratio to offline", "padding", "p99"):
        assert shown in done.stdout
    port = re.search(r"127\.0\.0\.1:(\d+)", done.stdout)
    worker = re.search(r"Celery process (\d+)", done.stdout)
    assert port
    assert worker
    with pytest.raises(redis.ConnectionError), redis.Redis(port=int(port[1])) as client:
        client.ping()
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker[1]), 0)


@pytest.mark.data
@pytest.mark.timeout(400)
@pytest.mark.skipif("RECLANE_DATA_DIR" not in os.environ, reason="RECLANE_DATA_DIR is not set")
def test_eval_on_real_requests_beats_bm25_where_the_model_reads_the_language() -> None:
    folder = Path(os.environ["RECLANE_DATA_DIR"]) / "books"
    items, requests = folder / "items.jsonl.gz", folder / "requests.validation.jsonl.gz"
    done = subprocess.run(
        [RECLANE, "eval", str(items), str(requests), "--model", MODEL, "--limit", "80", "--json"],
        capture_output=True,
        text=True,
        timeout=6 * DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout)["scores"]
    assert scores["reclane"]["R@10"]["mean"] > scores["bm25"]["R@10"]["mean"] + 0.1
    assert scores["reclane"]["R@10"]["n"] == 80


@pytest.mark.data
@pytest.mark.timeout(400)
@pytest.mark.skipif("RECLANE_DATA_DIR" not in os.environ, reason="RECLANE_DATA_DIR is not set")
def test_reading_real_requests_finds_what_they_ask_for() -> None:
    folder = Path(os.environ["RECLANE_DATA_DIR"]) / "beijing"
    items, requests = folder / "items.jsonl.gz", folder / "requests.validation.jsonl.gz"
    command = [RECLANE, "eval", str(items), str(requests), "--model", "hash:64", "--limit", "200"]
    done = subprocess.run(
        [*command, "--ablate", "--json"], capture_output=True, text=True, timeout=6 * DEADLINE_S
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    scores = report["scores"]["reclane"]
    assert scores["P@5"]["mean"] > 0.74
    assert scores["Success@5"]["mean"] > 0.93
    gain = report["gains"]["reading the request"]["P@5"]
    assert 0.3 < gain["low"] < gain["mean"] < gain["high"]


def test_serving_goes_on_until_interrupted_and_then_stops_everything() -> None:
    command = [RECLANE, "demo", "--serve", "--requests", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout
        try:
            url = ""
            for line in process.stdout:  # ends with the process; pytest's timeout bounds it
                found = re.search(r"export RECLANE_REDIS_URL=(\S+)", line)
                url = found[1] if found else url
                if "RECLANE_CATALOG" in line:
                    break
            with Client(url) as client:
                assert client.recommend("running shoes", k=3, timeout=DEADLINE_S).items
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert "exit code 0; everything is stopped" in process.stdout.read()
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(url) as gone:
        gone.ping()

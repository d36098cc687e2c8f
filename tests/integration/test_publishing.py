"""Other versions of a catalog go to workers that run: no request is dropped, no batch mixes two."""

import gc
import os
import shutil
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from commands import Reclane

from feeding import load, start_all
from reclane import Client, Recommendation
from reclane.contract import RecommendRequest
from reclane.embedded import EmbeddedServer
from reclane.errors import CatalogError, NotPublished
from reclane.publishing import (
    MAX_EARLIER,
    Publication,
    followers,
    publish,
    published,
    rollback,
)
from reclane_worker.building import build_catalog
from reclane_worker.catalog import load_catalog
from reclane_worker.changing import compact, upsert
from reclane_worker.demo import FIELDS, ITEMS
from reclane_worker.encoder import load_encoder
from reclane_worker.following import Following
from reclane_worker.loading import load_pipeline
from reclane_worker.local import WorkerProcess
from reclane_worker.manifest import read_manifest
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.reading import Columns, SourceItem, read_items
from reclane_worker.settings import WorkerSettings
from support import DEADLINE_S, KEYS, StartWorker, eventually, statistics, watch
from support import assert_each_once as published_once

ENCODER = load_encoder(WorkerSettings.load(model="hash:384"))
SMALL = {"RECLANE_LEASE_MESSAGES": "32", "RECLANE_BATCH_REQUESTS": "8"}


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    """What a worker loads is left alone by the collector; tests go on with theirs."""
    yield
    gc.unfreeze()


def marked(mark: str) -> list[SourceItem]:
    """The demo's items; their ids betray the version."""
    items = read_items(ITEMS, Columns(), pytest.fail)
    return [SourceItem(f"{mark}/{one.id}", one.title, one.text, one.attributes) for one in items]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two catalogs, blue and green."""
    folder = tmp_path_factory.mktemp("published")
    for name in ("blue", "green"):
        build_catalog(marked(name), folder / name, ENCODER, fields=FIELDS)
    return folder


@pytest.fixture
def reclane(server: EmbeddedServer) -> Reclane:
    made = Reclane(server.url, "")
    made.environment["RECLANE_MODEL"] = "hash:384"
    return made


@pytest.fixture
def blue(start_worker: StartWorker, built: Path) -> WorkerProcess:
    """A worker that serves blue; not started yet."""
    return start_worker.prepare({**SMALL, "RECLANE_CATALOG": f"demo={built / 'blue'}"})


def version(folder: Path) -> str:
    return read_manifest(folder).version


def serving(raw: "redis.Redis", name: str, built: Path) -> int:
    """How many workers serve a version that is published now."""
    wanted = published(raw, KEYS)["demo"].now
    assert wanted.version == version(built / name)
    return sum(one.state == "serves" for one in followers(raw, KEYS, "demo", wanted)[0])


def assert_of_one_version(answers: list[Recommendation], versions: dict[str, str]) -> set[str]:
    """Every item is of the version that its answer names; returns which there were."""
    marks = {f"demo@{version}": mark for mark, version in versions.items()}
    for answer in answers:
        mark = marks[answer.versions.catalog]
        assert answer.items
        assert {item.id.partition("/")[0] for item in answer.items} == {mark}
    return {marks[answer.versions.catalog] for answer in answers}


def test_a_version_is_published_and_rolled_back_under_load_and_nothing_is_lost(
    server: EmbeddedServer,
    client: Client,
    raw: "redis.Redis",
    start_worker: StartWorker,
    blue: WorkerProcess,
    built: Path,
    reclane: Reclane,
) -> None:
    second = start_worker.prepare(blue.environment)
    start_all(blue, second)
    versions = {name: version(built / name) for name in ("blue", "green")}

    def ask() -> set[str]:
        handles = client.submit_many(["film"] * 40)
        return assert_of_one_version([one.result(DEADLINE_S) for one in handles], versions)

    with watch(raw) as seen:
        with load(client, server.url) as feeder:
            eventually(lambda: len(feeder.handles) >= 500, "there is a load")
            green = ["catalog", "publish", str(built / "green"), "--name", "demo"]
            assert "2 of 2 workers serve it" in reclane(*green).stdout
            assert ask() == {"green"}
            publish(raw, KEYS, "demo", str(built / "blue"), versions["blue"])
            again = rollback(raw, KEYS, "demo").now
            assert again.version == versions["green"]
            publish(raw, KEYS, "demo", str(built / "blue"), versions["blue"])
            eventually(lambda: serving(raw, "blue", built) == 2, "both serve it")
            assert ask() == {"blue"}
            rollback(raw, KEYS, "demo")
            eventually(lambda: serving(raw, "green", built) == 2, "both have gone back")
            assert ask() == {"green"}
        answers = [handle.result(DEADLINE_S) for handle in feeder.handles]
        published_once(seen, feeder.handles)
    assert assert_of_one_version(answers, versions) == {"blue", "green"}
    assert (blue.stop(), second.stop()) == (0, 0)


def test_a_worker_that_is_killed_amid_a_publication_comes_back_with_it(
    client: Client,
    raw: "redis.Redis",
    start_worker: StartWorker,
    blue: WorkerProcess,
    built: Path,
) -> None:
    green = built / "green"
    blue.start()
    blue.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, blue.pid, os.WSTOPPED)
    publish(raw, KEYS, "demo", str(green), version(green))
    waiting = client.submit_many(["film"] * 10)
    blue.kill()
    again = start_worker(blue.environment)
    answers = [one.result(DEADLINE_S) for one in waiting]
    assert {one.versions.catalog for one in answers} == {f"demo@{version(green)}"}
    assert again.stop() == 0


def test_a_worker_that_starts_without_what_is_published_takes_its_folder_and_says_so(
    built: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = WorkerSettings.load(model="hash:384", catalog=f"demo={built / 'blue'}")
    wanted = Publication(folder=str(built / "gone"), version="0" * 12, at=0.0)
    pipeline = load_pipeline(settings, {"demo": wanted})
    assert pipeline.catalogs["demo"].version == version(built / "blue")
    assert "not what is published, but" in caplog.text
    here = Publication(folder=str(built / "green"), version=version(built / "green"), at=0.0)
    assert load_pipeline(settings, {"demo": here}).catalogs["demo"].version == here.version


def test_a_worker_that_cannot_load_a_version_serves_on_and_says_why(
    raw: "redis.Redis",
    client: Client,
    start_worker: StartWorker,
    blue: WorkerProcess,
    built: Path,
    reclane: Reclane,
    stock: Any,
    tmp_path: Path,
) -> None:
    blue.start()
    other = load_encoder(WorkerSettings.load(model="hash:256"))
    build_catalog(marked("other"), tmp_path / "demo", other)
    refused = reclane("catalog", "publish", str(tmp_path / "demo"), code=1)
    assert "0 of 1 workers serve it" in refused.stdout
    assert "was built with hash:256@1, the worker runs hash:384@1" in refused.stderr
    assert client.recommend("film", timeout=DEADLINE_S).items[0].id.startswith("blue/")
    (told,) = stock.control.inspect(timeout=DEADLINE_S, limit=1).stats().values()
    assert "hash:256" in told["reclane"]["refused"]["demo"]["why"]
    assert told["reclane"]["catalogs"] == [f"demo@{version(built / 'blue')}"]

    rolled = reclane("catalog", "rollback", "demo", code=1)
    assert "nothing was published as 'demo' before" in rolled.stderr
    elsewhere = reclane("catalog", "publish", str(built / "green"), "--wait", "5", code=1)
    assert "none of 1 workers has a catalog 'green'" in elsewhere.stderr
    mended = reclane("catalog", "publish", str(built / "green"), "--name", "demo")
    assert "1 of 1 workers serve it" in mended.stdout
    assert statistics(raw)["refused"] == {}
    rows = {row["name"]: row for row in reclane.json("catalog", "published")}
    assert [one["state"] for one in rows["demo"]["workers"]] == ["serves"]
    assert rows["green"]["workers"] == []
    assert rows["demo"]["earlier"][0]["folder"] == str(tmp_path / "demo")


def test_a_folder_that_changes_is_published_again_and_any_version_of_it_can_come_back(
    raw: "redis.Redis", built: Path, tmp_path: Path, server: EmbeddedServer
) -> None:
    folder = Path(shutil.copytree(built / "blue", tmp_path / "blue"))
    settings = WorkerSettings.load(model="hash:384", redis_url=server.url)
    pipeline = Pipeline(ENCODER, {"demo": load_catalog("demo", folder, ENCODER)}, settings)
    following = Following(settings, pipeline)
    news = SourceItem("news", "breaking news", "of today", {})

    def serving() -> tuple[str, bool]:
        following.follow()
        served = pipeline.catalogs["demo"]
        return served.version, "news" in served.positions

    first = version(folder)
    publish(raw, KEYS, "demo", str(folder), first)
    second = upsert(folder, [news], ENCODER).manifest.version
    assert serving() == (first, False)
    publish(raw, KEYS, "demo", str(folder), second)
    assert serving() == (second, True)
    third = compact(folder).version
    publish(raw, KEYS, "demo", str(folder), third)
    assert serving() == (third, True)
    for expected in ((second, True), (first, False)):
        rollback(raw, KEYS, "demo")
        assert serving() == expected
    assert following.told()["refused"] == {}
    following.stop()


def test_the_catalog_before_is_freed_once_its_requests_are_answered(
    raw: "redis.Redis", built: Path, server: EmbeddedServer
) -> None:
    settings = WorkerSettings.load(model="hash:384", redis_url=server.url)
    blue = load_catalog("demo", built / "blue", ENCODER)
    pipeline = Pipeline(ENCODER, {"demo": blue}, settings)
    following = Following(settings, pipeline)
    publish(raw, KEYS, "demo", str(built / "green"), version(built / "green"))
    speller = blue.reader._speller
    assert speller is not None
    spread: Any = speller._spread
    parts = (blue, blue.reader, blue.attributes, blue.lexical, speller, spread.__self__)
    held = [weakref.ref(one) for one in parts]
    del parts, speller, spread
    before = pipeline.prepare([RecommendRequest(query="film", k=3)], [0.0])
    del blue
    following.follow()
    waiting = [one for one in before if isinstance(one, Prepared)]
    (answer,) = pipeline.run(waiting)
    assert isinstance(answer, dict)
    assert answer["items"][0]["id"].startswith("blue/")
    gc.disable()  # it is left alone by the collector
    try:
        del waiting, before
        assert [ref() for ref in held] == [None] * 6
    finally:
        gc.enable()
    following.stop()


def test_what_cannot_be_loaded_is_not_tried_again_and_again(
    raw: "redis.Redis", built: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WorkerSettings.load(model="hash:384", redis_url=server.url)
    pipeline = Pipeline(ENCODER, {"demo": load_catalog("demo", built / "blue", ENCODER)}, settings)
    following = Following(settings, pipeline)
    tried: list[str] = []

    def fail(name: str, *_: Any) -> Any:
        tried.append(name)
        raise MemoryError

    monkeypatch.setattr("reclane_worker.following.load_catalog", fail)
    for _ in range(2):
        publish(raw, KEYS, "demo", str(built / "green"), version(built / "green"))
        following.follow()
        following.follow()
    assert tried == ["demo", "demo"]
    assert following.told()["refused"]["demo"]["why"] == "MemoryError: see the worker's log"
    assert pipeline.catalogs["demo"].version == version(built / "blue")
    following.stop()


def test_what_is_rolled_back_while_it_loads_is_not_served(
    raw: "redis.Redis", built: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WorkerSettings.load(model="hash:384", redis_url=server.url)
    pipeline = Pipeline(ENCODER, {"demo": load_catalog("demo", built / "blue", ENCODER)}, settings)
    following = Following(settings, pipeline)
    loaded: list[str] = []

    def load_and_roll_back(name: str, folder: Path, *rest: Any) -> Any:
        rollback(raw, KEYS, "demo")
        loaded.append(folder.name)
        return load_catalog(name, folder, *rest)

    monkeypatch.setattr("reclane_worker.following.load_catalog", load_and_roll_back)
    for name in ("blue", "green"):
        publish(raw, KEYS, "demo", str(built / name), version(built / name))
    for _ in range(2):
        following.follow()
    assert loaded == ["green"]
    assert pipeline.catalogs["demo"].version == version(built / "blue")
    assert following.told()["refused"] == {}
    following.stop()


# ---- what Redis holds


def test_earlier_publications_are_bounded_and_one_version_counts_once(raw: "redis.Redis") -> None:
    versions = [f"{number:012x}" for number in range(MAX_EARLIER + 5)]
    for one in versions:
        publish(raw, KEYS, "demo", "/shop", one)
        publish(raw, KEYS, "demo", "/elsewhere/shop", one)
    (name, found), *_ = published(raw, KEYS).items()
    assert (name, found.now.version, found.now.folder) == ("demo", versions[-1], "/elsewhere/shop")
    assert [one.version for one in found.earlier] == versions[-2 : -MAX_EARLIER - 2 : -1]
    for one in reversed(versions[-MAX_EARLIER - 1 : -1]):
        assert rollback(raw, KEYS, "demo").now.version == one
    with pytest.raises(NotPublished, match="before"):
        rollback(raw, KEYS, "demo")
    with pytest.raises(NotPublished, match="nothing is published as 'films'"):
        rollback(raw, KEYS, "films")


@pytest.mark.parametrize("name", ["", "a/b", "a=b", "a,b", "a b", "x" * 201])
def test_a_name_that_no_setting_can_spell_is_refused(name: str, raw: "redis.Redis") -> None:
    with pytest.raises(CatalogError, match="--name"):
        publish(raw, KEYS, name, "/shop", "0" * 12)


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"[]", b'{"now": {"folder": "/x", "version": "../x"}}']
)
def test_what_cannot_be_read_is_nothing_and_may_be_published_over(
    stored: bytes, raw: "redis.Redis"
) -> None:
    raw.hset(KEYS.catalogs, "demo", stored)
    assert published(raw, KEYS) == {}
    assert publish(raw, KEYS, "demo", "/shop", "0" * 12).earlier == ()


def test_without_workers_a_version_is_published_for_those_that_start(
    raw: "redis.Redis", built: Path, reclane: Reclane
) -> None:
    told = reclane("catalog", "publish", str(built / "green"))
    assert "no worker runs now" in told.stdout
    found = published(raw, KEYS)["green"].now
    assert (found.folder, found.version) == (str(built / "green"), version(built / "green"))
    assert followers(raw, KEYS, "green", found) == ([], 0)

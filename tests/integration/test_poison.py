"""One request that does harm, at every place of a batch: its neighbours are answered, and it ends
as a typed failure and a dead letter."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from celery import Celery

from bulk import begin, finish, look, spec, users, write_rows, written
from reclane import Client, Handle, ReclaneError, RequestFailed, names
from reclane.operations import letters
from reclane_worker.bulk.conductor import MAX_TRIES
from reclane_worker.ending import EXIT_STUCK
from reclane_worker.local import WorkerProcess
from support import DEADLINE_S, KEYS, StartWorker, assert_nothing_left, eventually

BATCH = 9
FIRST, MIDDLE, LAST = 0, BATCH // 2, BATCH - 1
PLACES = [
    MIDDLE,
    pytest.param(FIRST, marks=pytest.mark.long),
    pytest.param(LAST, marks=pytest.mark.long),
]
SETTINGS = {"RECLANE_MAX_ATTEMPTS": "2"}
FAULTS: list[tuple[str, str, list[int]]] = [  # with how workers end before it is condemned
    ("raisefault", "pipeline_error", []),
    ("nanfault", "non_finite", []),
    ("exitfault", "poison", [9] * 2),
    ("hangfault", "poison", [EXIT_STUCK] * 2),
]


def a_batch(client: Client, fault: str, place: int) -> list[Handle]:
    return client.submit_many(texts_with(fault, place))


def texts_with(fault: str, place: int) -> list[str]:
    """Equally long requests, no two alike, so that the batch has them in this order."""
    return [f"film {'shoes' if n != place else fault} number{n}" for n in range(BATCH)]


def supervise(start_worker: StartWorker, done: Callable[[], bool]) -> list[int]:
    """Start a worker whenever there is none, as a supervisor would; how each of them ended."""
    codes = []
    while not done():
        worker = start_worker.prepare(SETTINGS, app="faulty_worker")
        with contextlib.suppress(ReclaneError):
            worker.start()  # it may die of its first lease before that is seen
        code = end_of(worker, done)
        codes += [] if code is None else [code]
    return codes


def end_of(worker: WorkerProcess, done: Callable[[], bool]) -> int | None:
    eventually(lambda: done() or worker.ended(), "all is answered or the worker ends")
    return worker.wait() if worker.ended() else None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("fault", "code", "deaths"), FAULTS)
def test_a_request_that_does_harm_fails_alone(
    fault: str,
    code: str,
    deaths: list[int],
    place: int,
    client: Client,
    raw: "redis.Redis",
    start_worker: StartWorker,
) -> None:
    handles = a_batch(client, fault, place)
    assert supervise(start_worker, lambda: all(handle.done() for handle in handles)) == deaths
    for number, handle in enumerate(handles):
        if number != place:
            assert handle.result(DEADLINE_S).items
    with pytest.raises(RequestFailed) as raised:
        handles[place].result(DEADLINE_S)
    assert raised.value.code == code
    (letter,) = letters.newest(raw, KEYS)
    assert (letter.id, letter.code) == (handles[place].id, code)
    assert_nothing_left(raw)


def test_two_culprits_of_one_batch_are_told_apart(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    texts = ["film exitfault", "film one", "film exitfault two", "film three"]
    handles = client.submit_many(texts)
    codes = supervise(start_worker, lambda: all(handle.done() for handle in handles))
    assert codes == [9] * 3  # once together, then each alone
    for handle, text in zip(handles, texts, strict=True):
        if "exitfault" in text:
            with pytest.raises(RequestFailed, match="poison"):
                handle.result(0)
        else:
            assert handle.result(0).items
    assert raw.llen(KEYS.dead_letters) == 2
    assert_nothing_left(raw)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("fault", "code", "deaths"),
    [*FAULTS, ("tokenisefault", "poison", [9] * 2)],
)
def test_a_request_that_does_harm_in_a_chunk_fails_alone(
    fault: str,
    code: str,
    deaths: list[int],
    place: int,
    stock: Celery,
    raw: "redis.Redis",
    start_worker: StartWorker,
) -> None:
    chunk = [{"query": text} for text in texts_with(fault, place)]
    result = stock.send_task(names.RECOMMEND_MANY, args=[chunk], queue=names.BULK_QUEUE)
    assert supervise(start_worker, lambda: raw.exists(KEYS.result(result.id)) == 1) == deaths
    answers = result.get(timeout=DEADLINE_S)["answers"]
    assert [answer.get("code") for answer in answers] == [
        code if number == place else None for number in range(BATCH)
    ]
    assert all(answer["items"] for answer in answers if "code" not in answer)
    (letter,) = letters.newest(raw, KEYS)
    assert (letter.id, letter.code) == (f"{result.id}.{place}", code)
    assert letters.request_of(letter) == chunk[place]
    assert_nothing_left(raw)


def test_culprits_of_one_chunk_are_told_apart_and_company_is_no_guilt(
    stock: Celery, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    texts = [f"film exitfault{' ' if n in (3, 41) else ''}number{n}" for n in range(60)]
    texts[20] = ""
    handles = client.submit_many(["film one", "film two"])
    chunk = [{"query": text} for text in texts]
    result = stock.send_task(names.RECOMMEND_MANY, args=[chunk], queue=names.BULK_QUEUE)
    supervise(start_worker, lambda: raw.exists(KEYS.result(result.id)) == 1)
    answers = result.get(timeout=DEADLINE_S)["answers"]
    failed = {n: answer["code"] for n, answer in enumerate(answers) if "code" in answer}
    assert failed == {3: "poison", 20: "invalid_request", 41: "poison"}
    assert all(handle.result(DEADLINE_S).items for handle in handles)
    assert {letter.id for letter in letters.newest(raw, KEYS)} == {
        f"{result.id}.{place}" for place in (3, 41)
    }
    assert_nothing_left(raw)


@pytest.mark.long
def test_culprits_of_a_bulk_run_fail_alone_and_are_not_blamed_on_the_run(
    raw: "redis.Redis", start_worker: StartWorker, tmp_path: Path
) -> None:
    """Workers die more often than a run may be taken on without getting further."""
    culprits = {3, 11, 20, 33, 41, 59}
    rows = [
        {**row, "query": f"film {'exitfault' if n in culprits else 'shoes'} number{n}"}
        for n, row in enumerate(users(60))
    ]
    begin(raw, spec(write_rows(tmp_path / "users.parquet", rows), tmp_path / "recs"))
    assert len(supervise(start_worker, lambda: look(raw).over)) > MAX_TRIES
    assert finish(raw).counts["failed"] == len(culprits)
    failed = {key for key, record in written(tmp_path / "recs").items() if record["failure"]}
    assert failed == {f"u{n}" for n in culprits}
    assert raw.llen(KEYS.dead_letters) == len(culprits)
    assert_nothing_left(raw)

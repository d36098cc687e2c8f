"""Many requests in one message: each is answered as if it came alone, and the message ends once."""

from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from reclane import Client, RequestFailed, names
from reclane.contract import MAX_CHUNK, ManyAnswers
from reclane.testing import StubWorker
from reclane.testing import item as stub_item
from support import (
    DEADLINE_S,
    KEYS,
    StartWorker,
    assert_nothing_left,
    eventually,
    in_flight,
    on_device,
    statistics,
)

TEXTS = ["film", "comfortable running shoes", "想看一部好看的科幻电影", "jazz"]
ASKED = [{"query": text, "k": 3} for text in TEXTS]
BAD = {"query": "film", "k": 0}


def send(app: Celery, chunk: Any, queue: str = names.BULK_QUEUE, **options: Any) -> AsyncResult:
    return app.send_task(names.RECOMMEND_MANY, args=[chunk], queue=queue, **options)


def ids(answer: dict[str, Any]) -> list[str]:
    return [one["id"] for one in answer["items"]]


@pytest.mark.parametrize("queue", [names.BULK_QUEUE, names.INTERACTIVE_QUEUE, names.TASKS_QUEUE])
def test_each_request_is_answered_as_if_it_came_alone(
    queue: str, stock: Celery, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    alone = [client.submit(text, k=3).result(DEADLINE_S) for text in TEXTS]
    given = send(stock, [*ASKED[:2], BAD, *ASKED[2:]], queue).get(timeout=DEADLINE_S)
    answers = given["answers"]
    assert answers.pop(2)["code"] == "invalid_request"
    assert [ids(answer) for answer in answers] == [[i.id for i in one.items] for one in alone]
    assert len(ManyAnswers.model_validate(given).answers) == len(answers)
    assert_nothing_left(raw)


def test_the_stub_answers_a_chunk_alike(stock: Celery, server: Any) -> None:
    def answer(request: Any) -> Any:
        if request.query == "jazz":
            raise RequestFailed("no", "unknown_catalog")
        return [stub_item(request.query)]

    with StubWorker(server.url, answer) as stub:
        answers = send(stock, [*ASKED, BAD]).get(timeout=DEADLINE_S)["answers"]
        assert [one.query for one in stub.requests] == TEXTS
    assert [ids(one) for one in answers[:3]] == [[text] for text in TEXTS[:3]]
    assert [one["code"] for one in answers[3:]] == ["unknown_catalog", "invalid_request"]


@pytest.mark.parametrize(
    "chunk",
    [
        [],
        "film",
        ASKED[0],
        [ASKED[0]] * (MAX_CHUNK + 1),
        [{"query": "film", "k": 500}] * 41,
    ],
)
def test_what_is_no_chunk_fails_as_a_whole(
    chunk: Any, stock: Celery, start_worker: StartWorker, raw: "redis.Redis"
) -> None:
    start_worker()
    for queue in (names.BULK_QUEUE, names.TASKS_QUEUE):
        with pytest.raises(RequestFailed, match="requests: "):
            send(stock, chunk, queue).get(timeout=DEADLINE_S)
    assert_nothing_left(raw)


def test_a_chunk_of_nothing_but_failures_ends(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    urgent = {"query": "film", "deadline_s": 5}
    unknown = {"query": "film", "catalog": "elsewhere"}
    for chunk in ([BAD, urgent], [BAD, unknown]):
        answers = send(stock, chunk).get(timeout=DEADLINE_S)["answers"]
        assert answers[0]["code"] == "invalid_request"
    assert answers[1]["code"] == "unknown_catalog"
    assert_nothing_left(raw)


def test_links_and_counters_see_one_message(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    follow = stock.signature(
        names.RECOMMEND, args=(ASKED[0],), immutable=True, queue=names.INTERACTIVE_QUEUE
    )
    follow.freeze()
    send(stock, ASKED, link=follow).get(timeout=DEADLINE_S)
    assert AsyncResult(follow.id, app=stock).get(timeout=DEADLINE_S)["items"]
    send(stock, ASKED).get(timeout=DEADLINE_S)
    counted = {"accepted": 3, "chunks": 2, "requests": 2 * len(ASKED) + 1}
    eventually(
        lambda: counted.items() <= statistics(raw).items(), "the worker has published its counts"
    )
    assert_nothing_left(raw)


def test_a_worker_that_is_stopped_gives_a_chunk_back_whole(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    chunk = [{"query": f"film slowfault number{n}"} for n in range(40)]
    result = send(stock, chunk)
    settings = {"RECLANE_BATCH_REQUESTS": "4"}
    first = start_worker(settings, app="faulty_worker")
    eventually(lambda: on_device(first), "its first requests run")
    assert first.stop() == 0
    assert raw.llen(KEYS.list(names.BULK_QUEUE)) == 1
    assert not result.ready()
    start_worker()
    assert len(result.get(timeout=DEADLINE_S)["answers"]) == len(chunk)
    assert_nothing_left(raw)


def test_a_worker_takes_no_more_chunks_than_it_needs(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    chunks = [[{"query": f"film number{m}and{n}", "k": 1} for n in range(200)] for m in range(40)]
    results = [send(stock, chunk) for chunk in chunks]
    start_worker()
    eventually(lambda: any(result.ready() for result in results), "the first is answered")
    held = []
    while not all(result.ready() for result in results):
        held.append(in_flight(raw))
    assert 0 < max(held) <= len(chunks) / 2
    assert_nothing_left(raw)

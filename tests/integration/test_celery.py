"""The lane as a stock Celery client sees it, and reclane's messages on a stock Celery worker."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from reclane import Client, RequestFailed, names
from reclane.embedded import EmbeddedServer
from reclane.wire import decode_message, encode_revoked
from support import DEADLINE_S, KEYS, StartWorker, eventually

RECOMMEND = {"queue": names.INTERACTIVE_QUEUE}
SPACE = {"query": "space film", "k": 3}


def send(app: Celery, *args: object, **options: object) -> AsyncResult:
    return app.send_task(names.RECOMMEND, args=args, **{**RECOMMEND, **options})


def test_delay_and_get_from_a_stock_client(stock: Celery, start_worker: StartWorker) -> None:
    start_worker()
    positional = send(stock, SPACE).get(timeout=DEADLINE_S)
    keywords = stock.send_task(names.RECOMMEND, kwargs=SPACE, **RECOMMEND).get(timeout=DEADLINE_S)
    assert [item["id"] for item in positional["items"]] == [i["id"] for i in keywords["items"]]
    assert len(positional["items"]) == 3


def test_a_failure_is_typed_for_a_stock_client(stock: Celery, start_worker: StartWorker) -> None:
    start_worker()
    result = send(stock, {"query": "film", "k": 0})
    with pytest.raises(RequestFailed, match="k: ") as raised:
        result.get(timeout=DEADLINE_S)
    assert raised.value.code == "invalid_request"
    assert result.state == "FAILURE"


def test_a_foreign_task_on_the_queue_fails_and_is_kept(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    result = stock.send_task("somebody.elses", **RECOMMEND)
    with pytest.raises(RequestFailed, match=r"reclane\.tasks"):
        result.get(timeout=DEADLINE_S)
    assert raw.llen(KEYS.dead_letters) == 1


def test_an_expired_message_is_revoked(stock: Celery, start_worker: StartWorker) -> None:
    late = send(stock, SPACE, expires=0.01)
    start_worker()
    with pytest.raises(TaskRevokedError):
        late.get(timeout=DEADLINE_S)


def test_a_revoked_message_never_runs(stock: Celery, start_worker: StartWorker) -> None:
    start_worker()
    eventually(lambda: stock.control.ping(timeout=1), "the worker hears remote control")
    result = send(stock, SPACE, countdown=3)
    stock.control.revoke(result.id)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=DEADLINE_S)


def test_a_countdown_waits_even_when_the_worker_is_replaced(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    first = start_worker()
    result = send(stock, SPACE, countdown=3)
    eventually(lambda: raw.zcard(KEYS.scheduled) == 1, "the message is parked")
    assert not result.ready()
    first.kill()
    start_worker()
    assert result.get(timeout=DEADLINE_S)["items"]
    assert raw.zcard(KEYS.scheduled) == 0


def test_priority_0_is_served_before_9(stock: Celery, start_worker: StartWorker) -> None:
    low = [send(stock, SPACE, priority=9) for _ in range(3)]
    middle = [send(stock, SPACE, priority=5) for _ in range(3)]
    high = [send(stock, SPACE, priority=0) for _ in range(3)]
    one_by_one = {"RECLANE_LEASE_MESSAGES": "1", "RECLANE_DEVICE_THREADS": "1"}
    start_worker(one_by_one)
    for result in low + middle + high:
        result.get(timeout=DEADLINE_S)

    def done(results: list[AsyncResult]) -> list[str]:
        return [str(result.date_done) for result in results]

    assert max(done(high)) <= min(done(middle))
    assert max(done(middle)) <= min(done(low))


def test_ignore_result_stores_nothing(
    stock: Celery, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    ignored = send(stock, SPACE, ignore_result=True)
    start_worker()
    client.recommend("film", timeout=DEADLINE_S)
    eventually(lambda: not raw.keys(KEYS.inflight("*")), "the message is done")
    assert raw.get(KEYS.result(ignored.id)) is None


def test_links_chains_and_chords_go_on(stock: Celery, start_worker: StartWorker) -> None:
    """Callbacks here are requests themselves; an immutable signature ignores the parent."""
    start_worker()
    step = stock.signature(names.RECOMMEND, args=(SPACE,), immutable=True, options=RECOMMEND)
    linked = step.clone()
    linked.set(task_id="linked-by-a-parent")
    send(stock, SPACE, link=linked)
    after_link = stock.AsyncResult("linked-by-a-parent")
    assert after_link.get(timeout=DEADLINE_S)["items"]

    chained = chain(step, step, step, app=stock).apply_async()
    assert chained.get(timeout=DEADLINE_S)["items"]
    assert chained.parent.get(timeout=DEADLINE_S)["items"]

    grouped = group([step] * 3, app=stock).apply_async()
    assert [len(r["items"]) for r in grouped.get(timeout=DEADLINE_S)] == [3, 3, 3]

    body = step.clone()
    result = chord([step] * 3, app=stock)(body)
    assert result.get(timeout=DEADLINE_S)["items"]


def test_an_errback_hears_of_a_failure(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    errback = stock.signature("somebody.listens", options={"queue": "errors"})
    result = send(stock, {"query": "film", "k": 0}, link_error=errback)
    with pytest.raises(RequestFailed):
        result.get(timeout=DEADLINE_S)
    eventually(lambda: raw.llen("errors") == 1, "the errback is sent")
    message = decode_message(raw.lindex("errors", 0))
    assert (message.task, message.args) == ("somebody.listens", [result.id])


def test_an_errback_is_sent_also_where_the_result_is_ignored(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    errback = stock.signature("somebody.listens", options={"queue": "errors"})
    result = send(stock, {"query": "film", "k": 0}, link_error=errback, ignore_result=True)
    eventually(lambda: raw.llen("errors") == 1, "the errback is sent")
    assert raw.get(KEYS.result(result.id)) is None


def test_a_cancelled_linked_request_stays_revoked(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker(app="faulty_worker")
    link = stock.signature("somebody.listens", options={"queue": "links"})
    result = send(stock, {"query": "slowfault"}, link=link)
    eventually(lambda: raw.keys(KEYS.inflight("*")), "the request is with the worker")
    revoked = encode_revoked(result.id, "cancelled", time.time())
    raw.set(KEYS.result(result.id), revoked)
    eventually(lambda: not raw.keys(KEYS.inflight("*")), "the request has ended")
    assert raw.get(KEYS.result(result.id)) == revoked
    assert raw.llen("links") == 0


def test_a_message_that_celerys_side_can_never_serve_fails_for_good(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    send(stock, SPACE, link=stock.signature("somebody.listens"), countdown=0.01)
    result = send(stock, SPACE, link={"task": 5, "args": 7})
    with pytest.raises(Exception, match=r".") as raised:
        result.get(timeout=DEADLINE_S)
    assert not isinstance(raised.value, TimeoutError)


def test_the_ordinary_task_keeps_request_text_out_of_the_log(
    stock: Celery, start_worker: StartWorker
) -> None:
    worker = start_worker()
    request = {"query": "secretword film"}
    result = stock.send_task(names.RECOMMEND, args=[request], queue=names.TASKS_QUEUE)
    assert result.get(timeout=DEADLINE_S)["items"]
    eventually(lambda: "succeeded in" in worker.log(), "Celery logs the task")
    assert "secretword" not in worker.log()


def test_signal_receivers_hear_of_every_request(
    stock: Celery, client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    seen.touch()
    worker = start_worker({"SIGNALS_SEEN": str(seen)}, app="signal_worker")
    results = [send(stock, SPACE) for _ in range(3)]
    ids = [result.id for result in results if result.get(timeout=DEADLINE_S)["items"]]
    handle = client.submit("secretword film")
    assert handle.result(DEADLINE_S).items
    eventually(lambda: len(seen.read_text().splitlines()) == 4, "four signals")
    assert seen.read_text().split() == [w for i in [*ids, handle.id] for w in (names.RECOMMEND, i)]
    assert "secretword" not in worker.log()


def test_ping_and_registered_are_answered(stock: Celery, start_worker: StartWorker) -> None:
    start_worker()
    eventually(lambda: stock.control.ping(timeout=1), "the worker answers ping")
    registered = stock.control.inspect(timeout=5).registered()
    assert all(names.RECOMMEND in tasks for tasks in registered.values())


def test_a_stock_worker_without_the_lane_gives_the_same_items(
    stock: Celery, server: EmbeddedServer, start_worker: StartWorker, tmp_path: object
) -> None:
    lane = start_worker()
    with_lane = send(stock, SPACE).get(timeout=DEADLINE_S)
    lane.stop()
    environment = lane.environment | {"RECLANE_LANE": "false"}
    command = [sys.executable, "-m", "celery", "-A", "reclane_worker", "worker"]
    with subprocess.Popen(
        [*command, "-Q", names.INTERACTIVE_QUEUE],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            without = send(stock, SPACE).get(timeout=DEADLINE_S)
            with Client(server.url) as client:
                ours = client.recommend("space film", k=3, timeout=DEADLINE_S)
        finally:
            process.terminate()
            process.wait(DEADLINE_S)
    assert without["items"] == with_lane["items"]
    assert [item.id for item in ours.items] == [item["id"] for item in without["items"]]


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["-P", "processes"], {}, "needs --pool threads"),
        ([], {"CELERY_BROKER_URL": "redis://127.0.0.1:1/5"}, "same Redis database"),
        ([], {"RECLANE_CATALOG": ""}, "RECLANE_CATALOG is not set"),
        ([], {"RECLANE_MODEL": "hash:64"}, "was built with hash:384"),
        ([], {"RECLANE_REDIS_URL": "http://secret@host"}, "must start with redis://"),
    ],
)
def test_a_worker_refuses_what_would_lose_or_mix(
    server: EmbeddedServer,
    start_worker: StartWorker,
    arguments: list[str],
    environment: dict[str, str],
    reason: str,
) -> None:
    worker = start_worker.prepare(environment, arguments=arguments)
    done = subprocess.run(
        worker.command, env=worker.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode != 0
    assert reason in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_a_lane_queue_cannot_be_given_to_celery(
    server: EmbeddedServer, start_worker: StartWorker
) -> None:
    worker = start_worker.prepare({})
    command = [*worker.command, "-Q", names.INTERACTIVE_QUEUE]
    done = subprocess.run(
        command, env=worker.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode != 0
    assert "start the worker with -Q reclane.tasks" in done.stdout + done.stderr

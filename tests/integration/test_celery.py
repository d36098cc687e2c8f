"""The lane as a stock Celery client sees it, and reclane's messages on a stock Celery worker."""

import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import redis
from celery import Celery, chain, chord
from celery.result import AsyncResult

from parity import BAD, SPACE, Side, Sides
from reclane import Client, RequestFailed, names
from reclane.embedded import EmbeddedServer
from reclane.wire import encode_revoked
from support import (
    DEADLINE_S,
    KEYS,
    StartWorker,
    eventually,
    on_device,
)

RECOMMEND = {"queue": names.INTERACTIVE_QUEUE}


def send(app: Celery, *args: object, **options: object) -> AsyncResult:
    return app.send_task(names.RECOMMEND, args=args, **{**RECOMMEND, **options})


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
    worker = start_worker({"SIGNALS_SEEN": str(seen)}, app="listening_worker")
    results = [send(stock, SPACE) for _ in range(3)]
    ids = [result.id for result in results if result.get(timeout=DEADLINE_S)["items"]]
    handle = client.submit("secretword film")
    assert handle.result(DEADLINE_S).items
    expected = {f"success {i} True" for i in [*ids, handle.id]}

    def successes() -> list[str]:
        return [line for line in seen.read_text().splitlines() if line.startswith("success ")]

    eventually(lambda: len(successes()) == len(expected), "one signal each")
    assert set(successes()) == expected
    assert "secretword" not in worker.log()


def test_reclanes_client_gets_the_same_items_from_a_stock_worker(sides: Sides) -> None:
    def observe(side: Side) -> list[str]:
        with Client(side.server.url) as client:
            return [item.id for item in client.recommend(**SPACE, timeout=DEADLINE_S).items]

    assert len(sides.same(observe)) == 3


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


@pytest.mark.parametrize(
    ("environment", "code", "reason"),
    [
        ({"RECLANE_CATALOG": ""}, 78, "RECLANE_CATALOG is not set; build one"),
        ({"RECLANE_CATALOG": "nowhere"}, 1, "nowhere"),
        ({"RECLANE_MODEL": "hash:64"}, 1, "was built with hash:384"),
        ({"RECLANE_DEVICE": "gpu"}, 1, "use auto, cpu or cuda"),
    ],
)
def test_a_worker_that_cannot_start_says_so_in_a_line_and_by_its_exit_code(
    start_worker: StartWorker, environment: dict[str, str], code: int, reason: str
) -> None:
    worker = start_worker.prepare(environment)
    command = [sys.executable, "-m", "reclane.cli", "worker"]
    done = subprocess.run(
        command, env=worker.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert f"the worker cannot start: {reason}" in said or reason in said
    assert "Traceback" not in said


def test_a_worker_that_waits_for_redis_can_be_ended(start_worker: StartWorker) -> None:
    worker = start_worker.prepare({"RECLANE_DRAIN_S": "1"})
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
    process = subprocess.Popen(
        [sys.executable, "-m", "reclane.cli", "worker"],
        env=worker.environment | {"RECLANE_REDIS_URL": url},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Redis cannot be reached" in line:
                break
        process.terminate()
        assert process.wait(DEADLINE_S) is not None
    finally:
        process.kill()
        process.communicate()


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


def test_a_chord_hears_of_a_member_that_was_revoked_while_it_ran(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker(app="faulty_worker")
    slow, other = (
        stock.signature(names.RECOMMEND, args=(ask,), immutable=True, options=RECOMMEND)
        for ask in ({"query": "slowfault film"}, SPACE)
    )
    result = chord([slow, other], app=stock)(other.clone())
    member = result.parent.results[0]
    eventually(lambda: on_device(worker), "the member runs")
    raw.set(KEYS.result(member.id), encode_revoked(member.id, "revoked", time.time()), ex=300)
    eventually(lambda: result.state == "FAILURE", "the chord has failed, and does not wait")


@pytest.mark.parametrize("ask", [SPACE, BAD])
def test_a_chord_whose_worker_died_after_storing_its_part_goes_on(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker, ask: dict[str, object]
) -> None:
    step = stock.signature(names.RECOMMEND, args=(ask,), immutable=True, options=RECOMMEND)
    dying = start_worker({"FAULTY_STORE": "1"}, app="faulty_worker")
    result = chord([step], app=stock)(step.clone(args=(SPACE,)))
    (part,) = result.parent.results
    dying.wait(DEADLINE_S)
    kept = raw.get(KEYS.result(part.id))
    start_worker()
    outcome = "SUCCESS" if ask is SPACE else "FAILURE"
    eventually(lambda: result.state == outcome, "the chord hears of its part")
    assert kept is not None
    assert raw.get(KEYS.result(part.id)) == kept


def test_a_failure_whose_worker_died_after_storing_it_reaches_errbacks_and_the_chain(
    stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    listener = stock.signature("somebody.listens", options={"queue": "errors"})
    step = stock.signature(names.RECOMMEND, args=(BAD,), options=RECOMMEND)
    dying = start_worker({"FAULTY_STORE": "1"}, app="faulty_worker")
    last = chain(step, step.clone(), app=stock).apply_async(link_error=listener)
    dying.wait(DEADLINE_S)
    assert (last.parent.state, last.state, raw.llen("errors")) == ("FAILURE", "PENDING", 0)
    start_worker()
    eventually(lambda: last.state == "FAILURE", "the rest of the chain has failed")
    eventually(lambda: raw.llen("errors") == 1, "the errback was sent")
    assert last.parent.state == "FAILURE"


def test_a_key_asked_anew_while_its_old_request_runs_gets_its_own_answer(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Also where somebody listens to signals, so that Celery itself stores the results."""
    seen = tmp_path / "seen"
    seen.touch()
    one_thread = {"RECLANE_DEVICE_THREADS": "1", "SIGNALS_SEEN": str(seen)}
    worker = start_worker(one_thread, app="listening_worker")
    old = client.submit("slowfault film", idempotency_key="k")
    eventually(lambda: on_device(worker), "the old request runs")
    assert old.cancel()
    new = client.submit("shoes", idempotency_key="k")
    assert new.result(DEADLINE_S).intent.text == "shoes"


def test_a_date_that_no_calendar_has_fails_its_own_message(
    stock: Celery, client: Client, start_worker: StartWorker
) -> None:
    start_worker(arguments=["-E"])
    beyond = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12)))
    result = send(stock, SPACE, eta=beyond)
    with pytest.raises(RequestFailed, match="the eta header"):
        result.get(timeout=DEADLINE_S)
    assert client.recommend("film", timeout=DEADLINE_S).items

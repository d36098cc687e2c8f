"""The command line against a server and a worker, each command a process of its own."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import NoReturn

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from click.testing import CliRunner
from commands import PREFIX, Reclane, environment

from proxy import Proxy
from reclane import Client, RecommendRequest, RequestFailed, RequestRevoked, names, wire
from reclane.cli import cli
from reclane.client import Handle
from reclane.contract import Failure
from reclane.embedded import EmbeddedServer
from reclane.errors import NotRequeueable
from reclane.operations import letters, purging
from reclane.settings import Settings
from reclane_worker.lane import Entry
from reclane_worker.triage import dead_letter
from support import DEADLINE_S, StartWorker, eventually

KEYS = names.Keys(PREFIX)
QUEUE = KEYS.list(names.INTERACTIVE_QUEUE)
FAILURE = Failure(code="poison", message="workers died")
WAITS_FOR_ANOTHER = b'{"status": "PENDING", "result": null, "reclane": {"digest": "ffff"}}'


@pytest.fixture(scope="module")
def module_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as running:
        yield running


@pytest.fixture
def reclane(module_server: EmbeddedServer, raw: "redis.Redis") -> Reclane:
    return Reclane(module_server.url)


@pytest.fixture
def raw(module_server: EmbeddedServer) -> Iterator["redis.Redis"]:
    """A plain connection to an empty database without a worker."""
    with redis.Redis.from_url(module_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def served(
    hash_catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Reclane, "redis.Redis"]]:
    """The command, and a plain connection, beside a worker that answers."""
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as connection:
        workers = StartWorker(server.url, hash_catalog, tmp_path_factory.mktemp("worker"))
        workers({"RECLANE_KEY_PREFIX": PREFIX})
        yield Reclane(server.url), connection
        workers.kill_all()


def message(task_id: str, query: str = "film", reply_to: str = "", digest: str = "") -> bytes:
    """`digest`: of a request whose id comes from an idempotency key."""
    return wire.encode_request(
        RecommendRequest(query=query),
        task_id=task_id,
        queue=names.INTERACTIVE_QUEUE,
        reply_to=reply_to,
        now=time.time(),
        digest=digest,
    )


def letter(raw_message: bytes, task_id: str) -> bytes:
    entry = Entry("1:1:1", names.INTERACTIVE_QUEUE, raw_message, 3)
    return dead_letter(entry, task_id, FAILURE, int(time.time() * 1e3))


def bury(connection: "redis.Redis", *ids: str) -> None:
    """What a worker leaves of requests that killed it: letter, failure and crashes."""
    for task_id in ids:
        one = message(task_id)
        connection.lpush(KEYS.dead_letters, letter(one, task_id))
        meta = wire.encode_failure(task_id, FAILURE, time.time())
        connection.set(KEYS.result(task_id), meta, ex=300)
        connection.hset(KEYS.attempts, sha1(one).hexdigest(), 3)


def ending(handle: Handle) -> str:
    """How a request ended: a word."""
    try:
        return "answered" if handle.result(DEADLINE_S).items else "empty"
    except RequestFailed as error:
        return error.code


# ---- asking


def test_a_recommendation_is_printed(served: tuple[Reclane, "redis.Redis"]) -> None:
    reclane, _ = served
    arguments = ("recommend", "science fiction", "-k", "3", "--fields", "year")
    done = reclane(*arguments, "--filter", "year>=1980", "--filter", "domain=film")
    assert done.stderr == ""
    rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert all("film/" in row and "year=" in row for row in rows)


def test_a_recommendation_is_one_json_document(served: tuple[Reclane, "redis.Redis"]) -> None:
    reclane, _ = served
    found = reclane.json("recommend", "-k", "2", "-", stdin="科幻电影\n")
    assert found["intent"]["text"] == "科幻电影"
    assert [item["rank"] for item in found["items"]] == [1, 2]


def test_a_failure_has_its_code_and_says_what_to_do(served: tuple[Reclane, "redis.Redis"]) -> None:
    reclane, _ = served
    done = reclane("recommend", "x", "--filter", "nope=1", code=3)
    assert done.stdout == ""
    assert "no attribute 'nope'" in done.stderr
    found = reclane.json("recommend", "x", "--filter", "nope=1", code=3)
    assert found["error"]["code"] == "invalid_filter"
    assert "no attribute 'nope'" in found["error"]["message"]


def test_what_was_submitted_is_awaited_by_another_process(
    served: tuple[Reclane, "redis.Redis"],
) -> None:
    reclane, connection = served
    ids = reclane("submit", "--from", "-", "-k", "2", stdin='{"query":"a"}\n{"query":"b"}').stdout
    one = reclane("submit", "film", "--filter", "nope=1").stdout
    eventually(
        lambda: all(connection.exists(KEYS.result(i)) for i in (ids + one).split()),
        "all are answered before anybody listens",
    )
    done = reclane("wait", "-", "--json", stdin=ids + one, code=3)
    found = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
    first, second = ids.split()
    assert [found[i]["answer"]["intent"]["text"] for i in (first, second)] == ["a", "b"]
    assert len(found[first]["answer"]["items"]) == 2
    assert found[one.strip()]["error"]["code"] == "invalid_filter"


def test_waiting_ends_at_the_timeout_with_its_own_code(reclane: Reclane) -> None:
    (one,) = reclane.lines("submit", "nobody works")
    (found,) = reclane.lines("wait", one["id"], "--timeout", "0.2", code=124)
    assert (found["id"], found["error"]["code"]) == (one["id"], "timeout")
    done = reclane("recommend", "nobody works", "--timeout", "0.2", code=124)
    assert done.stdout == ""


def test_an_id_that_nobody_knows_has_its_own_code_and_others_are_awaited(
    served: tuple[Reclane, "redis.Redis"],
) -> None:
    reclane, _ = served
    known = reclane("submit", "film").stdout.strip()
    found = reclane.lines("wait", "nobody", known, code=66)
    assert [(one["id"], "answer" in one) for one in found] == [("nobody", False), (known, True)]
    assert found[0]["error"]["code"] == "unknown_request"
    assert reclane.lines("wait", known, code=66), "an answer that was read is forgotten"


def test_an_answer_to_keep_can_be_read_again(served: tuple[Reclane, "redis.Redis"]) -> None:
    reclane, _ = served
    known = reclane("submit", "film", "--keep").stdout.strip()
    assert reclane.lines("wait", known) == reclane.lines("wait", known)


def test_a_key_names_one_request(reclane: Reclane, raw: "redis.Redis") -> None:
    first = reclane("submit", "film", "--key", "mine").stdout
    assert reclane("submit", "film", "--key", "mine").stdout == first
    assert raw.llen(QUEUE) == 1
    assert "idempotency_key" in reclane("submit", "novel", "--key", "mine", code=65).stderr


def test_a_full_queue_has_its_own_code_and_takes_nothing(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    reclane.environment["RECLANE_QUEUE_LIMIT"] = "2"
    source = '{"query":"a"}\n{"query":"b"}\n{"query":"c"}\n'
    done = reclane("submit", "--from", "-", stdin=source, code=75)
    assert (done.stdout, raw.llen(QUEUE)) == ("", 0)


def test_one_bad_line_keeps_all_from_being_enqueued(reclane: Reclane, raw: "redis.Redis") -> None:
    done = reclane("submit", "--from", "-", stdin='{"query":"a"}\n{"query":1}\n', code=65)
    assert done.stdout == ""
    assert "line 2: query: " in done.stderr
    assert raw.dbsize() == 0


def test_everything_stands_under_the_prefix(reclane: Reclane, raw: "redis.Redis") -> None:
    reclane("submit", "film")
    assert raw.llen(QUEUE) == 1
    assert all(key.startswith(PREFIX.encode()) for key in raw.scan_iter())


def test_a_redis_that_is_away_has_its_own_code() -> None:
    away = Reclane("redis://127.0.0.1:1/0")
    away.environment["RECLANE_ENQUEUE_TIMEOUT_S"] = "0.1"
    away.environment["RECLANE_SOCKET_TIMEOUT_S"] = "0.5"
    for arguments in (("submit", "x"), ("wait", "x"), ("queue", "ls")):
        done = away(*arguments, code=69)
        assert done.stdout == ""
        assert "RECLANE_REDIS_URL" in done.stderr


def test_a_setting_that_is_impossible_has_its_own_code() -> None:
    wrong = Reclane("http://zqx@h")
    assert "zqx" not in wrong("queue", "ls", code=78).stderr


# ---- manners


def test_ctrl_c_ends_without_a_traceback(reclane: Reclane, raw: "redis.Redis") -> None:
    (one,) = reclane.lines("submit", "nobody works")
    channels = KEYS.channel(names.notify_channel("*"))
    with reclane.running("wait", one["id"], "--timeout", "600") as process:
        eventually(lambda: raw.pubsub_channels(channels), "it listens")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def test_ctrl_c_cancels_what_was_asked(
    module_server: EmbeddedServer, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(handle: Handle, timeout: float) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(Handle, "result", interrupted)
    result = CliRunner(env=environment(module_server.url)).invoke(cli, ["recommend", "film"])
    assert (result.exit_code, result.stdout) == (1, "")  # click's own; `main` makes it 130
    task_id = wire.decode_message(raw.lindex(QUEUE, 0) or b"").id
    assert wire.decode_result(raw.get(KEYS.result(task_id)) or b"").status == "REVOKED"


def test_a_reader_that_goes_away_ends_the_command_quietly(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    one = letter(message("t", "x" * 2_000), "t")
    raw.lpush(KEYS.dead_letters, *[one] * 2_000)
    with reclane.running("dlq", "ls", "--json", "-n", "2000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 141
        assert process.stderr.read() == b""


def test_bash_completes_commands_without_loading_them() -> None:
    script = """
        source <(reclane completion bash)
        COMP_WORDS=(reclane que) COMP_CWORD=1
        _reclane_completion reclane que reclane
        echo "${COMPREPLY[@]}"
        COMPREPLY=() COMP_WORDS=(reclane queue p) COMP_CWORD=2
        _reclane_completion reclane p queue
        echo "${COMPREPLY[@]}"
        complete -p reclane
    """
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    first, second, registered = done.stdout.splitlines()
    assert (first, second) == ("queue", "peek purge")
    assert "_reclane_completion" in registered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_their_script(reclane: Reclane, shell: str) -> None:
    assert "_RECLANE_COMPLETE" in reclane("completion", shell).stdout


# ---- queues


def test_queues_show_priorities_age_holders_and_the_schedule(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    raw.lpush(QUEUE, message("a"), message("b"))
    raw.lpush(KEYS.list(names.BULK_QUEUE, 6), message("c"))
    now_ms = int(raw.time()[0] * 1e3)
    raw.zadd(KEYS.leases, {"w1": now_ms + 60_000, "w2": now_ms - 60_000})
    raw.hset(KEYS.inflight("w1"), "1:1:1", QUEUE.encode() + b"\n" + message("d"))
    raw.zadd(KEYS.scheduled, {"soon": now_ms + 60_000, "late": now_ms - 60_000})
    found = reclane.json("queue", "ls")
    queues = {one["queue"]: one for one in found["queues"]}
    assert queues[names.INTERACTIVE_QUEUE]["length"] == 2
    assert 0 <= queues[names.INTERACTIVE_QUEUE]["oldest_s"] < DEADLINE_S
    assert queues[names.BULK_QUEUE]["by_priority"] == {"0": 0, "3": 0, "6": 1, "9": 0}
    assert queues[names.TASKS_QUEUE]["oldest_s"] is None
    held = {one["worker"]: one["in_flight"] for one in found["workers"]}
    assert held == {"w1": 1, "w2": 0}
    left = {one["worker"]: one["lease_left_s"] for one in found["workers"]}
    assert left["w2"] < 0 < left["w1"]
    assert (found["scheduled"], found["overdue"], found["dead_letters"]) == (2, 1, 0)
    assert found["next_due_s"] < 0
    text = reclane("queue", "ls").stdout
    assert "6:1" in text
    assert "w1" in text


def test_a_peek_shows_what_is_next_and_keeps_its_text_to_itself(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    raw.lpush(KEYS.list(names.INTERACTIVE_QUEUE, 3), message("third"))
    raw.lpush(QUEUE, message("first", "zqx"), b"nonsense", message("later"))
    before = raw.lrange(QUEUE, 0, -1)
    hidden = reclane("queue", "peek", "interactive", "--json").stdout
    assert "zqx" not in hidden
    found = json.loads(hidden)
    assert [(one["id"], one["priority"]) for one in found] == [
        ("first", 0),
        ("", 0),
        ("later", 0),
        ("third", 3),
    ]
    assert "not valid JSON" in found[1]["problem"]
    assert found[0]["bytes"] == len(before[-1])
    shown = reclane.json("queue", "peek", names.INTERACTIVE_QUEUE, "-n", "1", "--show-text")
    assert [one["request"] for one in shown] == [{"query": "zqx"}]
    assert "zqx" not in reclane("queue", "peek", "interactive").stdout
    assert raw.lrange(QUEUE, 0, -1) == before


def test_a_peek_says_what_has_expired(reclane: Reclane, raw: "redis.Redis") -> None:
    envelope = json.loads(message("late"))
    envelope["headers"]["expires"] = "2001-01-01T00:00:00+00:00"
    raw.lpush(QUEUE, json.dumps(envelope))
    assert reclane("queue", "peek", "interactive").stdout.split()[-2:] == ["expired", "-"]


def test_a_purge_ends_every_request_and_tells_whoever_waits(
    reclane: Reclane, module_server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    settings = Settings.load(redis_url=module_server.url, key_prefix=PREFIX)
    # Only a notification can bring the answers within the deadline.
    patient = settings.model_copy(update={"reread_interval_s": 10 * DEADLINE_S})
    with Client(settings=patient) as client:
        handles = client.submit_many([f"film {n}" for n in range(450)])
        raw.lpush(QUEUE, b"nonsense")
        raw.lpush(KEYS.list(names.INTERACTIVE_QUEUE, 9), message("low"))
        raw.lpush(KEYS.list(names.BULK_QUEUE), message("other"))
        refused = reclane("queue", "purge", "interactive", code=2)
        assert "--yes" in refused.stderr
        assert raw.llen(QUEUE) == 451
        done = reclane.json("queue", "purge", "interactive", "--yes")
        assert done == {
            "queue": names.INTERACTIVE_QUEUE,
            "ended": 452,
            "without_id": 1,
            "left": 0,
        }
        for handle in handles:
            with pytest.raises(RequestRevoked) as caught:
                handle.result(DEADLINE_S)
            assert caught.value.code == "purged"
    assert wire.is_terminal(raw.get(KEYS.result("low")) or b"{}")
    assert all(raw.llen(key) == 0 for key in KEYS.lists(names.INTERACTIVE_QUEUE))
    assert raw.llen(KEYS.list(names.BULK_QUEUE)) == 1
    assert 0 < raw.ttl(KEYS.result(handles[0].id)) <= 300


def test_beside_a_worker_every_request_is_answered_or_purged_and_the_count_is_right(
    served: tuple[Reclane, "redis.Redis"],
) -> None:
    reclane, connection = served
    settings = Settings.load(redis_url=reclane.url, key_prefix=PREFIX)
    with Client(settings=settings) as client:
        handles, ended = [], 0

        def purged_some() -> int:
            """The worker may have been quicker: then once more."""
            nonlocal ended
            handles.extend(client.submit_many([f"film {n}" for n in range(3_000)]))
            done = purging.purge(connection, settings, names.INTERACTIVE_QUEUE)
            assert (done.without_id, done.left) == (0, 0)
            ended += done.ended
            return ended

        eventually(purged_some, "something is purged")
        endings = Counter(ending(handle) for handle in handles)
    assert set(endings) <= {"answered", "purged"}
    assert endings["purged"] == ended


def test_after_a_lost_reply_a_purge_can_be_repeated(
    reclane: Reclane, module_server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    ids = [str(number) for number in range(5)]
    raw.lpush(QUEUE, *map(message, ids))
    with Proxy(module_server.port) as proxy:
        cut = Reclane(proxy.url)
        proxy.cut_reply_to(b"Take messages out of a list")
        cut("queue", "purge", "interactive", "--yes", code=69)
        assert proxy.cuts == 1
    raw.lpush(QUEUE, message("later"))
    assert reclane.json("queue", "purge", "interactive", "--yes")["ended"] == 1
    stored = [raw.get(KEYS.result(one)) or b"" for one in [*ids, "later"]]
    assert {wire.decode_result(one).status for one in stored} == {"REVOKED"}


def test_a_purge_of_large_messages_takes_several_calls(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    ids = [str(number) for number in range(9)]
    large = [json.loads(message(one)) | {"padding": "x" * 300_000} for one in ids]
    raw.lpush(QUEUE, *map(json.dumps, large))
    raw.config_resetstat()
    assert reclane.json("queue", "purge", "interactive", "--yes")["ended"] == 9
    assert raw.info("commandstats")["cmdstat_eval"]["calls"] == 3
    assert raw.exists(*map(KEYS.result, ids)) == 9


def test_a_purge_never_overwrites_a_result(reclane: Reclane, raw: "redis.Redis") -> None:
    raw.lpush(QUEUE, message("done"))
    raw.set(KEYS.result("done"), wire.encode_success("done", {"x": 1}, 0.0))
    assert reclane.json("queue", "purge", "interactive", "--yes")["ended"] == 1
    assert wire.decode_result(raw.get(KEYS.result("done")) or b"").status == "SUCCESS"


def test_a_purge_ends_no_other_request_under_the_same_key(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    raw.lpush(QUEUE, message("a", digest="0" * 40))
    raw.set(KEYS.result("a"), WAITS_FOR_ANOTHER)
    assert reclane.json("queue", "purge", "interactive", "--yes")["ended"] == 1
    assert raw.get(KEYS.result("a")) == WAITS_FOR_ANOTHER


def test_a_purge_leaves_what_only_celery_can_end(
    reclane: Reclane, module_server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    options = {"global_keyprefix": PREFIX}
    with Celery(broker=module_server.url, backend=module_server.url, set_as_current=False) as app:
        app.conf.update(broker_transport_options=options, result_backend_transport_options=options)
        sent: list[AsyncResult] = []
        for number in range(3):
            link = app.signature("next.task") if number == 1 else None
            queue = names.INTERACTIVE_QUEUE
            fields = [{"query": "film"}]
            sent.append(app.send_task(names.RECOMMEND, args=fields, queue=queue, link=link))
        done = reclane.json("queue", "purge", "interactive", "--yes")
        assert (done["ended"], done["left"]) == (2, 1)
        assert [one.state for one in sent] == ["REVOKED", "PENDING", "REVOKED"]
    assert raw.llen(QUEUE) == 1


def test_an_empty_queue_needs_no_yes(reclane: Reclane) -> None:
    assert "0 ended" in reclane("queue", "purge", "bulk").stdout


# ---- dead letters


def test_letters_are_listed_and_shown_without_what_they_ask(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    raw.lpush(KEYS.dead_letters, letter(message("a", "zqx"), "a"), letter(b"nonsense", ""))
    found = reclane.lines("dlq", "ls")
    assert [one["code"] for one in found] == ["poison", "poison"]
    assert found[1]["id"] == "a"
    assert found[0]["id"].startswith("@")
    assert [one["id"] for one in reclane.lines("dlq", "ls", "-n", "1")] == [found[0]["id"]]
    assert "zqx" not in reclane("dlq", "ls").stdout
    assert "request" not in reclane.json("dlq", "show", "a")
    assert reclane.json("dlq", "show", "a", "--show-text")["request"] == {"query": "zqx"}
    nameless = reclane.json("dlq", "show", found[0]["id"], "--show-text")
    assert "cannot be read" in nameless["problem"]
    reclane("dlq", "show", "nobody", code=66)


def test_a_letter_that_was_requeued_is_answered(served: tuple[Reclane, "redis.Redis"]) -> None:
    reclane, connection = served
    bury(connection, "sleeper")
    assert connection.exists(KEYS.result("sleeper"))
    (done,) = reclane.lines("dlq", "requeue", "sleeper")
    assert done["outcome"] == "requeued"
    (found,) = reclane.lines("wait", "sleeper")
    assert found["answer"]["items"]
    assert connection.hlen(KEYS.attempts) == 0


def test_a_letter_of_a_real_worker_is_mended_and_answered(
    served: tuple[Reclane, "redis.Redis"], tmp_path: Path
) -> None:
    reclane, connection = served
    wrong = json.loads(message("misrouted"))
    wrong["headers"]["task"] = "shop.task"
    connection.lpush(QUEUE, json.dumps(wrong))
    eventually(lambda: connection.llen(KEYS.dead_letters), "the worker refused it")
    shown = reclane.json("dlq", "show", "misrouted", "--show-text")
    assert shown["code"] == "unknown_task"
    file = tmp_path / "request.json"
    file.write_text(json.dumps(shown["request"] | {"k": 2}))
    reclane("dlq", "requeue", "misrouted", "--request", str(file))
    (found,) = reclane.lines("wait", "misrouted")
    assert len(found["answer"]["items"]) == 2
    assert connection.llen(KEYS.dead_letters) == 0


def test_a_letter_is_mended_in_an_editor(reclane: Reclane, raw: "redis.Redis") -> None:
    bury(raw, "a")
    reclane.environment["EDITOR"] = "sed -i s/film/novel/"
    reclane("dlq", "requeue", "a", "--edit")
    (again,) = raw.lrange(QUEUE, 0, -1)
    assert wire.decode_message(again).request_fields() == {"query": "novel"}
    bury(raw, "b")
    reclane.environment["EDITOR"] = "sed -i s/film//"
    reclane("dlq", "requeue", "b", "--edit", code=65)
    assert raw.llen(KEYS.dead_letters) == 1


def test_a_requeue_moves_a_letter_once(reclane: Reclane, raw: "redis.Redis") -> None:
    bury(raw, "a", "b")
    reclane("dlq", "requeue", "a")
    assert [wire.decode_message(one).id for one in raw.lrange(QUEUE, 0, -1)] == ["a"]
    assert wire.is_pending(raw.get(KEYS.result("a")) or b"")
    assert not wire.is_pending(raw.get(KEYS.result("b")) or b"")
    assert raw.hlen(KEYS.attempts) == 1
    assert raw.llen(KEYS.dead_letters) == 1
    reclane("dlq", "requeue", "a", code=66)
    assert raw.llen(QUEUE) == 1


def test_a_repeated_requeue_does_nothing(raw: "redis.Redis") -> None:
    bury(raw, "a")
    (one,) = letters.newest(raw, KEYS)
    assert letters.requeue(raw, KEYS, one, one.raw) == "requeued"
    raw.set(KEYS.result("a"), wire.encode_failure("a", FAILURE, 0.0))
    assert letters.requeue(raw, KEYS, one, one.raw) == "gone"
    assert (raw.llen(QUEUE), raw.exists(KEYS.result("a"))) == (1, 1)
    assert not letters.drop(raw, KEYS, one)


@pytest.mark.parametrize("kept", [True, False], ids=["its-failure-is-kept", "it-has-expired"])
def test_a_requeued_request_keeps_its_idempotency_key(raw: "redis.Redis", kept: bool) -> None:
    digest = "0" * 40
    raw.lpush(KEYS.dead_letters, letter(message("a", digest=digest), "a"))
    if kept:
        raw.set(KEYS.result("a"), wire.encode_failure("a", FAILURE, 0.0, digest))
    (one,) = letters.newest(raw, KEYS)
    assert letters.requeue(raw, KEYS, one, one.raw) == "requeued"
    waiting = raw.get(KEYS.result("a")) or b""
    assert wire.is_pending(waiting)
    assert json.loads(waiting)["reclane"] == {"digest": digest}
    assert raw.ttl(KEYS.result("a")) > 86_400


def test_an_edited_letter_has_the_key_wait_for_the_new_request(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    raw.lpush(KEYS.dead_letters, letter(message("a", digest="0" * 40), "a"))
    reclane.environment["EDITOR"] = "sed -i s/film/novel/"
    reclane("dlq", "requeue", "a", "--edit")
    (again,) = raw.lrange(QUEUE, 0, -1)
    expected = wire.request_digest(RecommendRequest(query="novel"))
    assert wire.decode_message(again).digest == expected
    assert wire.decode_pending(raw.get(KEYS.result("a")) or b"").digest == expected


def test_a_letter_stays_where_its_key_waits_for_another_request(raw: "redis.Redis") -> None:
    raw.lpush(KEYS.dead_letters, letter(message("a", digest="0" * 40), "a"))
    raw.set(KEYS.result("a"), WAITS_FOR_ANOTHER)
    (one,) = letters.newest(raw, KEYS)
    assert letters.requeue(raw, KEYS, one, one.raw) == "answered"
    assert (raw.llen(QUEUE), raw.llen(KEYS.dead_letters)) == (0, 1)
    assert raw.get(KEYS.result("a")) == WAITS_FOR_ANOTHER


def test_after_a_lost_reply_a_requeue_can_be_repeated(
    reclane: Reclane, module_server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    bury(raw, "a", "b")
    with Proxy(module_server.port) as proxy:
        cut = Reclane(proxy.url)
        proxy.cut_reply_to(b"Put a dead letter's message back")
        cut("dlq", "requeue", "--all", "--yes", code=69)
        assert proxy.cuts == 1
    reclane("dlq", "requeue", "--all", "--yes")
    assert [wire.decode_message(one).id for one in raw.lrange(QUEUE, 0, -1)] == ["b", "a"]


@pytest.mark.parametrize("origin", ["", "celery-task-meta-x", names.TASKS_QUEUE])
def test_a_letter_goes_only_to_lists_that_the_lane_serves(raw: "redis.Redis", origin: str) -> None:
    bury(raw, "a")
    (one,) = letters.newest(raw, KEYS)
    with pytest.raises(NotRequeueable, match="not a list that workers serve"):
        letters.requeue(raw, KEYS, replace(one, origin=origin), one.raw)
    assert raw.llen(KEYS.dead_letters) == 1


def test_letters_are_read_in_pages(raw: "redis.Redis") -> None:
    total = 2 * letters.PAGE + 1
    bury(raw, *map(str, range(total)))
    ids = [one.id for one in letters.newest(raw, KEYS)]
    assert ids == [str(number) for number in reversed(range(total))]
    assert [one.id for one in letters.newest(raw, KEYS, letters.PAGE)] == ids[: letters.PAGE]
    assert [one.id for one in letters.oldest_first(raw, KEYS, total)] == ids[::-1]


def test_all_letters_go_back_oldest_first_but_those_that_cannot(
    reclane: Reclane, raw: "redis.Redis"
) -> None:
    bury(raw, "first")
    raw.lpush(KEYS.dead_letters, letter(b"nonsense", ""))
    bury(raw, "answered", "last")
    raw.set(KEYS.result("answered"), wire.encode_success("answered", {}, 0.0))
    reclane("dlq", "requeue", "--all", code=2)
    assert raw.llen(KEYS.dead_letters) == 4
    found = reclane.lines("dlq", "requeue", "--all", "--yes", code=1)
    outcomes = [one["outcome"] for one in found]
    assert outcomes == ["requeued", "refused", "answered", "requeued"]
    waiting = [wire.decode_message(one).id for one in raw.lrange(QUEUE, 0, -1)]
    assert waiting == ["last", "first"]
    assert raw.llen(KEYS.dead_letters) == 2
    assert raw.exists(KEYS.result("answered"))


def test_letters_are_dropped_by_name_or_all(reclane: Reclane, raw: "redis.Redis") -> None:
    bury(raw, "a", "b", "c")
    (done,) = reclane.lines("dlq", "drop", "b")
    assert (done["id"], done["outcome"]) == ("b", "dropped")
    assert [one["id"] for one in reclane.lines("dlq", "ls")] == ["c", "a"]
    reclane("dlq", "drop", "b", code=66)
    reclane("dlq", "drop", code=2)
    reclane("dlq", "drop", "--all", "--yes")
    assert raw.llen(KEYS.dead_letters) == 0
    assert "there are no dead letters" in reclane("dlq", "requeue", "--all").stderr
    assert raw.exists(KEYS.result("b"))

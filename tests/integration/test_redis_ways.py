"""Every documented way to reach Redis, for each who goes it: both clients, a stock Celery
application and a worker. And what each says where Redis will not let it in."""

import asyncio
import gc
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
import trustme
from celery import Celery
from kombu import pools

from bulk import RUN, spec, users, write_rows
from reclane import AsyncClient, BrokerUnavailable, Client, names, publishing
from reclane._connection import connect
from reclane.bulk import runs, schedules
from reclane.bulk.spec import parse_run
from reclane.contract import Failure, RecommendRequest
from reclane.embedded import EmbeddedServer, Tls
from reclane.errors import RunConflict
from reclane.operations import letters, purging, queues
from reclane.settings import Settings
from reclane.wire import encode_failure, encode_request, encode_revoked
from reclane_worker.bulk.beat import BulkScheduler
from reclane_worker.ending import EXIT_LANE
from reclane_worker.lane import Committed, Ending, Entry, Lane
from reclane_worker.rights import refused
from reclane_worker.settings import WorkerSettings
from reclane_worker.triage import dead_letter
from reclane_worker.wait import QueueWatch
from schedules import NIGHTLY, plan, rewind
from support import (
    DEADLINE_S,
    TEST_SERVER,
    StartWorker,
    eventually,
    on_device,
    redis_binary,
)

SECRET = "zq:x/p@ss?#%;+&é w"
DURABLE = {"appendonly": "yes", "appendfsync": "always"}
README = Path(__file__).parents[2] / "README.md"
LANE_QUEUE = {"queue": names.INTERACTIVE_QUEUE}


def with_user(url: str, user: str, password: str) -> str:
    return url.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)


def documented_users() -> dict[str, list[str]]:
    """The README's users, name -> rules, as they are printed."""
    lines = re.findall(r"^ACL SETUSER (\S+) (.+(?:\n  .+)*)", README.read_text("utf-8"), re.M)
    return {name: rules.split() for name, rules in lines}


def make_users(server: EmbeddedServer) -> "redis.Redis":
    """Create them; returns a connection that may do everything."""
    admin = redis.Redis.from_url(server.socket_url)
    for name, rules in documented_users().items():
        admin.execute_command("ACL", "SETUSER", name, *rules)
    admin.execute_command("ACL", "LOG", "RESET")
    return admin


def denied(admin: "redis.Redis") -> list[str]:
    """What was refused so far. redis-py asks to tell its version, and does without."""
    log = [entry["object"] for entry in admin.acl_log()]
    return [what for what in log if what != "client|setinfo"]


@contextmanager
def stock(url: str, prefix: str = "", **conf: Any) -> Iterator[Celery]:
    """An application that knows nothing of reclane; `url` is in Celery's own spelling."""
    app = Celery("stock", broker=url, backend=url, set_as_current=False)
    options = {"global_keyprefix": prefix, "max_retries": 1, "interval_start": 0.1}
    app.conf.update(
        broker_transport_options=options, result_backend_transport_options=options, **conf
    )
    try:
        yield app
    finally:
        gc.collect()  # a result unsubscribes when it is collected; the server must still be there
        app.close()


def send(app: Celery, query: str = "space film", **options: Any) -> Any:
    """The answer to one request of a stock application."""
    sent = app.send_task(names.RECOMMEND, args=[{"query": query}], **{**LANE_QUEUE, **options})
    return sent.get(timeout=DEADLINE_S)


def ask_both(settings: Settings) -> list[str]:
    """Ask through both clients; returns whose catalog answered."""

    async def ask() -> str:
        async with AsyncClient(settings=settings) as client:
            return (await client.recommend("film", timeout=DEADLINE_S)).versions.catalog

    with Client(settings=settings) as client:
        return [client.recommend("film", timeout=DEADLINE_S).versions.catalog, asyncio.run(ask())]


@pytest.fixture
def start(hash_catalog: Path, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers; each is told its URL."""
    workers = StartWorker("redis://127.0.0.1:1/0", hash_catalog, tmp_path)
    yield workers
    workers.kill_all()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for the loopback address, signed by an authority of these tests."""
    folder = tmp_path_factory.mktemp("tls")
    made = Tls(folder / "server.pem", folder / "server.key", folder / "authority.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(made.certificate)
    issued.private_key_pem.write_to_path(made.key)
    authority.cert_pem.write_to_path(made.authority)
    return made


@pytest.fixture
def client_certificate(authority: trustme.CA, tmp_path: Path) -> str:
    """Certificate and key of a client, as options of a URL."""
    issued = authority.issue_cert("client.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    issued.private_key_pem.write_to_path(tmp_path / "client.key")
    return f"&ssl_certfile={tmp_path / 'client.pem'}&ssl_keyfile={tmp_path / 'client.key'}"


@pytest.fixture
def locked() -> Iterator[EmbeddedServer]:
    """A server that wants a password."""
    with EmbeddedServer({"requirepass": SECRET}, binary=TEST_SERVER) as server:
        yield server


@pytest.fixture
def open_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(DURABLE, binary=TEST_SERVER) as server:
        yield server


# ---- the ways


def test_a_password_of_special_characters_and_another_database(
    locked: EmbeddedServer, start: StartWorker
) -> None:
    plain = locked.url.removesuffix("/0") + "/3"
    url = plain.replace("://", f"://:{quote(SECRET, safe='')}@")
    worker = start(url=url)
    assert len(ask_both(Settings.load(redis_url=url))) == 2
    with stock(url) as app:
        assert send(app)["items"]
        eventually(lambda: app.control.ping(timeout=1), "remote control")
    assert worker.stop() == 0
    assert SECRET not in worker.log()
    assert quote(SECRET, safe="") not in worker.log()
    with redis.Redis.from_url(locked.socket_url, password=SECRET) as admin:
        assert set(admin.info("keyspace")) == {"db3"}


def test_the_documented_users_may_do_what_they_need_and_nothing_is_refused(
    open_server: EmbeddedServer, start: StartWorker
) -> None:
    admin = make_users(open_server)
    prefix = {"RECLANE_KEY_PREFIX": "shop:"}
    worker = start(prefix, url=with_user(open_server.url, "shop-worker", "WORKER-PASSWORD"))
    eventually(lambda: "ready." in worker.log(), "Celery's own consumer has started")
    producer = with_user(open_server.url, "shop-web", "WEB-PASSWORD")
    settings = Settings.load(redis_url=producer, key_prefix="shop:")
    ask_both(settings)
    with Client(settings=settings) as client:
        handles = client.submit_many(["film"] * 50)
        handles[-1].cancel()
        for handle in handles[:-1]:
            assert handle.result(DEADLINE_S).items
    with stock(with_user(open_server.url, "shop-celery", "CELERY-PASSWORD"), "shop:") as app:
        assert send(app)["items"]
        assert send(app, queue=names.TASKS_QUEUE)["items"]
        step = app.signature(names.RECOMMEND, args=({"query": "film"},), immutable=True)
        linked = step.set(queue=names.INTERACTIVE_QUEUE, task_id="linked")
        send(app, link=linked)
        assert app.AsyncResult("linked").get(timeout=DEADLINE_S)["items"]
    with stock(open_server.url, "shop:") as operator:
        eventually(lambda: operator.control.ping(timeout=1), "remote control")
    assert denied(admin) == []
    admin.execute_command("ACL", "SETUSER", "shop-worker", "-hdel")
    with Client(settings=settings) as client:
        client.submit("film")
        assert worker.wait(DEADLINE_S) == EXIT_LANE
    assert "Redis forbids its user" in worker.log()
    assert "Ways to Redis" in worker.log()
    assert "PASSWORD" not in worker.log()
    admin.close()


def test_the_documented_users_may_run_bulk(
    open_server: EmbeddedServer, start: StartWorker, tmp_path: Path
) -> None:
    admin = make_users(open_server)
    keys = names.Keys("shop:")
    worker = with_user(open_server.url, "shop-worker", "WORKER-PASSWORD")
    start({"RECLANE_KEY_PREFIX": "shop:"}, url=worker)
    operator = with_user(open_server.url, "shop-operator", "OPERATOR-PASSWORD")
    source = write_rows(tmp_path / "users.parquet", [*users(12_000), {"user_id": "", "query": "x"}])
    with redis.Redis.from_url(operator) as client:
        assert runs.start(client, keys, RUN, parse_run(spec(source, tmp_path / "recs")))
        eventually(lambda: runs.read(client, keys, RUN).done, "it has begun")
        runs.pause(client, keys, RUN)
        eventually(lambda: not admin.zcard(keys.bulk_due), "the worker has let go")
        runs.resume(client, keys, RUN)
        eventually(lambda: runs.read(client, keys, RUN).over, "the run is over")
        assert runs.read(client, keys, RUN).counts["answered"] == 12_000
        again = spec(source, tmp_path / "recs", only_changed=True)
        assert runs.start(client, keys, "again", parse_run(again))
        eventually(lambda: runs.read(client, keys, "again").over, "the next run is over")
        assert runs.read(client, keys, "again").counts["unchanged"] == 12_000
        assert runs.start(client, keys, "given-up", parse_run(again))
        with suppress(RunConflict):  # it may be quicker
            runs.cancel(client, keys, "given-up")
        eventually(lambda: runs.read(client, keys, "given-up").over, "it is over")
        assert len(runs.known(client, keys)) == 3
        assert len(runs.bad_rows(client, keys, RUN)) == 1
    assert denied(admin) == []
    admin.close()


def test_the_worker_says_which_right_is_missing_whichever_it_is(
    open_server: EmbeddedServer,
) -> None:
    """So the documented user has none that reclane does not ask for, and lacks none."""
    admin = make_users(open_server)
    url = with_user(open_server.url, "shop-worker", "WORKER-PASSWORD")
    settings = Settings.load(redis_url=url, key_prefix="shop:")
    assert refused(settings) is None
    rules = documented_users()["shop-worker"]
    for rule in [rule for rule in rules if rule[0] in "+&~"]:
        admin.execute_command(
            "ACL", "SETUSER", "shop-worker", "reset", *(r for r in rules if r != rule)
        )
        told = refused(settings)
        assert told is not None, rule
        assert "Ways to Redis" in told, rule
        assert "PASSWORD" not in told, rule
    admin.close()


def test_the_documented_users_need_every_right_they_have(open_server: EmbeddedServer) -> None:
    """Take one away, and something that the user does is refused."""
    admin = make_users(open_server)
    web = Settings.load(
        redis_url=with_user(open_server.url, "shop-web", "WEB-PASSWORD"), key_prefix="shop:"
    )
    answered = encode_revoked("answered", "cancelled", time.time())
    admin.set(web.keys.result("answered"), answered)

    def use_web() -> None:
        with Client(settings=web) as client:
            client.submit_many(["film"] * 600)  # more than one call holds
            client.submit("film", deadline_s=60.0).cancel()
            handle = client.submit("film")
            failure = encode_failure(handle.id, Failure(code="a", message="b"), time.time())
            admin.set(web.keys.result(handle.id), failure)  # which is read, and then forgotten
            eventually(lambda: handle.done() or denied(admin), "the answer is read")

    def use_celery() -> None:
        pools.reset()  # kombu shares connections between applications
        with stock(with_user(open_server.url, "shop-celery", "CELERY-PASSWORD"), "shop:") as app:
            options: dict[str, Any] = LANE_QUEUE | {"retry": False}
            sent = app.send_task(names.RECOMMEND, args=[{}], task_id="answered", **options)
            sent.get(timeout=DEADLINE_S, propagate=False)
            list(app.backend.get_many(["answered"], timeout=DEADLINE_S))
            sent.forget()
            admin.set(web.keys.result("answered"), answered)

    operator = Settings.load(
        redis_url=with_user(open_server.url, "shop-operator", "OPERATOR-PASSWORD"),
        key_prefix="shop:",
    )

    of_beat = with_user(open_server.url, "shop-beat", "BEAT-PASSWORD")
    uses: dict[str, Callable[[], None]] = {
        "shop-web": use_web,
        "shop-celery": use_celery,
        "shop-operator": lambda: operate(admin, operator),
        "shop-beat": lambda: beat(admin, of_beat),
    }
    for user, use in uses.items():
        rules = documented_users()[user]
        use()
        assert denied(admin) == []
        for rule in [rule for rule in rules if rule[0] in "+&~"]:
            kept = [other for other in rules if other != rule]
            admin.execute_command("ACL", "SETUSER", user, "reset", *kept)
            admin.script_flush()  # else a script is loaded only once
            with suppress(Exception):  # how it fails is not the question here
                use()
            assert denied(admin), (user, rule)
            admin.execute_command("ACL", "LOG", "RESET")
    admin.close()


def operate(admin: "redis.Redis", settings: Settings) -> None:
    """All that `reclane queue`, `dlq`, `bulk`, `schedule` and `catalog` do, with something to do
    it to."""
    keys, now = settings.keys, time.time()
    queue = keys.list(names.INTERACTIVE_QUEUE)
    failure = Failure(code="poison", message="workers died")
    sent = encode_request(
        RecommendRequest(query="film"),
        task_id="t",
        queue=names.INTERACTIVE_QUEUE,
        reply_to=names.notify_channel("c"),
        now=now,
    )
    letter = dead_letter(Entry("1:1:1", names.INTERACTIVE_QUEUE, sent, 3), "t", failure, 0)
    admin.delete(queue, keys.dead_letters)
    admin.lpush(keys.dead_letters, letter, letter)
    admin.set(keys.result("t"), encode_failure("t", failure, now))
    admin.zadd(keys.leases, {"worker": 1})
    with connect(settings) as client:
        (again, dropped) = letters.newest(client, keys)
        letters.requeue(client, keys, again, again.raw)
        queues.overview(client, keys)
        queues.peek(client, keys, names.INTERACTIVE_QUEUE, 1)
        purging.purge(client, settings, names.INTERACTIVE_QUEUE)
        for one in letters.oldest_first(client, keys, 1):
            assert letters.drop(client, keys, one)
            assert one == dropped
        conduct(admin, client, keys)
        arrange(admin, client, keys)
        roll(admin, client, keys)


def roll(admin: "redis.Redis", client: "redis.Redis", keys: names.Keys) -> None:
    """What people do to catalogs that are published."""
    admin.zadd(keys.leases, {"lives": 2**52})
    for version in ("1" * 12, "2" * 12):
        publishing.publish(client, keys, "demo", "/shop", version)
    wanted = publishing.rollback(client, keys, "demo").now
    publishing.published(client, keys)
    assert publishing.followers(client, keys, "demo", wanted)[0]


def conduct(admin: "redis.Redis", client: "redis.Redis", keys: names.Keys) -> None:
    """What people do to bulk runs, where no worker is."""
    for run_id in ("other", RUN):
        admin.delete(keys.bulk_run(run_id))
    where = parse_run(spec(Path("/users.parquet"), Path("/recs")))
    runs.start(client, keys, RUN, where)
    with suppress(RunConflict):
        runs.start(client, keys, "other", where)
    admin.hset(keys.bulk_run(RUN), "state", "failed")
    runs.resume(client, keys, RUN)
    runs.known(client, keys)
    runs.bad_rows(client, keys, RUN)


def arrange(admin: "redis.Redis", client: "redis.Redis", keys: names.Keys) -> None:
    """What people do to schedules."""
    forget(admin, keys)
    schedules.add(client, keys, NIGHTLY, plan("/scheduled"))
    schedules.known(client, keys)
    schedules.pause(client, keys, NIGHTLY)
    schedules.resume(client, keys, NIGHTLY)
    schedules.run_now(client, keys, NIGHTLY)
    schedules.remove(client, keys, NIGHTLY)


def beat(admin: "redis.Redis", url: str) -> None:
    """A beat's life: from the lock, over a run that is due and one that is skipped, to its end."""
    with pytest.MonkeyPatch.context() as patch, Celery(set_as_current=False) as app:
        patch.setenv("RECLANE_REDIS_URL", url)
        patch.setenv("RECLANE_KEY_PREFIX", "shop:")
        keys = Settings.load().keys
        forget(admin, keys)
        for name in (NIGHTLY, "other"):
            schedules.add(admin, keys, name, plan("/scheduled"))
            rewind(admin, keys, name)
        scheduler = BulkScheduler(app, max_interval=1)
        scheduler.tick()
        scheduler.close()
        scheduler._client.close()


def forget(admin: "redis.Redis", keys: names.Keys) -> None:
    for pattern in (keys.beat_entry("*"), keys.bulk_run("*"), keys.bulk_output("*")):
        for key in admin.scan_iter(pattern):
            admin.delete(key)


# CPython leaves a socket to the collector when the server dies between TCP and TLS handshake.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.parametrize("client_wanted", [False, True], ids=["server", "both"])
def test_tls_with_certificates_on_one_side_and_on_both(
    client_wanted: bool, tls: Tls, client_certificate: str, start: StartWorker
) -> None:
    """With both, the users and the key prefix too; a restarted server is found again."""
    wanted = {"tls-auth-clients": "yes" if client_wanted else "no"}
    with EmbeddedServer(DURABLE | wanted, binary=redis_binary(), tls=tls) as server:
        url, stock_url, prefix = server.url, server.url + "&ssl_cert_reqs=required", ""
        if client_wanted:
            url += client_certificate
            admin = make_users(server)
            stock_url = with_user(url, "shop-celery", "CELERY-PASSWORD")
            stock_url += "&ssl_cert_reqs=required"
            prefix = "shop:"
            url = with_user(url, "shop-worker", "WORKER-PASSWORD")
        worker = start({"RECLANE_KEY_PREFIX": prefix}, url=url)
        settings = Settings.load(
            redis_url=url.replace("shop-worker:WORKER", "shop-web:WEB"), key_prefix=prefix
        )
        ask_both(settings)
        with stock(stock_url, prefix) as app:
            assert send(app)["items"]
        if client_wanted:
            assert denied(admin) == []
            admin.close()
        else:
            restart(server, settings)
        assert worker.stop() == 0
        assert "PASSWORD" not in worker.log()


def restart(server: EmbeddedServer, settings: Settings) -> None:
    """The server crashes and comes back; the client that was connected goes on."""
    with Client(settings=settings) as client:
        client.recommend("film", timeout=DEADLINE_S)
        server.kill()
        server.start()
        for handle in client.submit_many(["film"] * 20):
            assert handle.result(DEADLINE_S).items


def test_a_unix_socket_with_a_database(open_server: EmbeddedServer, start: StartWorker) -> None:
    url = open_server.socket_url.replace("db=0", "db=1")
    worker = start(url=url)
    settings = Settings.load(redis_url=url)
    ask_both(settings)
    path = settings.redis_options()["path"]
    with stock(f"redis+socket://{path}?virtual_host=1") as app:
        assert send(app)["items"]
        eventually(lambda: app.control.ping(timeout=1), "remote control")
    restart(open_server, settings)
    assert worker.stop() == 0
    with redis.Redis.from_url(open_server.socket_url) as admin:
        assert set(admin.info("keyspace")) == {"db1"}


def test_two_systems_share_a_database_under_their_prefixes(
    open_server: EmbeddedServer, start: StartWorker, hash_catalog: Path
) -> None:
    url = open_server.url
    for name in ("shop", "news"):
        start(
            {"RECLANE_KEY_PREFIX": f"{name}:", "RECLANE_CATALOG": f"{name}={hash_catalog}"},
            url=url,
            arguments=["-n", f"{name}@here", "-E"],
        )
    for name in ("shop", "news"):
        settings = Settings.load(redis_url=url, key_prefix=f"{name}:")
        assert {catalog.split("@")[0] for catalog in ask_both(settings)} == {name}
    for name in ("shop", "news"):
        other = "news" if name == "shop" else "shop"
        with stock(url, f"{name}:") as app, stock(url, f"{other}:") as others:
            assert send(app)["versions"]["catalog"].startswith(f"{name}@")
            eventually(
                lambda app=app, name=name: pinged(app) == {f"{name}@here"},
                "remote control reaches this system's worker and no other",
            )
            assert event_senders(app, others) == {f"{name}@here"}
    with redis.Redis.from_url(url) as admin:
        outside = [k for k in admin.scan_iter() if not k.startswith((b"shop:", b"news:"))]
        assert outside == []


def pinged(app: Celery) -> set[str]:
    return {name for reply in app.control.ping(timeout=1) for name in reply}


def event_senders(app: Celery, *others: Celery) -> set[str]:
    """Whose heartbeats `app` hears, after every worker of all applications was asked for one."""
    heard: list[str] = []

    def hear(event: Mapping[str, Any]) -> None:
        heard.append(event["hostname"])

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": hear})
        received = receiver.itercapture(limit=None, timeout=DEADLINE_S, wakeup=False)
        next(received)  # the consumer is there
        for asked in (*others, app):
            asked.control.broadcast("heartbeat")
        while len(heard) < 3:
            next(received)
        received.close()
    return set(heard)


# ---- what is said where Redis lets nobody in


def refusal_of(url: str, prefix: str = "") -> list[str]:
    """What both clients say, with the log lines that came before."""
    settings = Settings.load(redis_url=url, key_prefix=prefix, enqueue_timeout_s=1)

    async def ask() -> None:
        async with AsyncClient(settings=settings) as client:
            await client.submit("film")

    with pytest.raises(BrokerUnavailable) as of_sync, Client(settings=settings) as client:
        client.submit("film")
    with pytest.raises(BrokerUnavailable) as of_async:
        asyncio.run(ask())
    return [str(of_sync.value), str(of_async.value)]


@pytest.mark.parametrize("password", ["", "zqwrong"], ids=["none", "wrong"])
def test_a_client_without_the_password_is_told_at_once(
    password: str, locked: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = locked.url.replace("://", f"://:{password}@") if password else locked.url
    for told in refusal_of(url):
        assert "refuses the user or the password" in told
        assert "RECLANE_REDIS_URL" in told
    assert "refuses the user or the password" in caplog.text
    assert "zqwrong" not in caplog.text


def test_a_password_is_changed_without_a_pause(open_server: EmbeddedServer) -> None:
    """A user has both for a while; the name has special characters, too."""
    name, new = "us:er@é", f"new {SECRET}"
    before, after = (with_user(open_server.url, name, password) for password in (SECRET, new))
    admin = redis.Redis.from_url(open_server.socket_url)
    admin.execute_command("ACL", "SETUSER", name, "on", f">{SECRET}", "~*", "&*", "+@all")
    with Client(before) as old:
        old.submit("film")
        admin.execute_command("ACL", "SETUSER", name, f">{new}")
        with Client(after) as changed:
            changed.submit("film")
            admin.execute_command("ACL", "SETUSER", name, f"<{SECRET}")
            old.submit("film")  # what is connected stays
            admin.execute_command("CLIENT", "KILL", "USER", name)
            changed.submit("film")
            with pytest.raises(BrokerUnavailable, match="refuses the user or the password"):
                old.submit("film")
    assert admin.llen(names.INTERACTIVE_QUEUE) == 4
    admin.close()


def test_a_client_without_the_rights_is_told_which(
    open_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    admin = make_users(open_server)
    url = with_user(open_server.url, "shop-web", "WEB-PASSWORD")
    for told in refusal_of(url, "news:"):
        assert "forbids" in told
        assert "Ways to Redis" in told
        assert "PASSWORD" not in told
    admin.execute_command("ACL", "SETUSER", "shop-web", "-lpush")
    for told in refusal_of(url, "shop:"):
        assert "forbids" in told
        assert "PASSWORD" not in told
    assert "PASSWORD" not in caplog.text
    admin.close()


def test_a_client_that_must_not_trust_the_server_says_how_to_mend_it(tls: Tls) -> None:
    with EmbeddedServer(binary=redis_binary(), tls=tls) as server:
        address = f":zqsecret@127.0.0.1:{server.port}/0"
        trusted = f"?ssl_ca_certs={tls.authority}"
        for told in refusal_of(f"rediss://{address}"):
            assert "certificate of Redis is not trusted" in told
            assert "?ssl_ca_certs=" in told
            assert "zqsecret" not in told
        for told in refusal_of(f"rediss://{address}{trusted}".replace("127.0.0.1", "localhost")):
            assert "a host name that the certificate holds" in told
        for told in refusal_of(f"redis://{address}"):
            assert "rediss:// for TLS" in told
            assert "zqsecret" not in told


def test_a_client_without_the_certificate_that_the_server_wants_is_told(tls: Tls) -> None:
    wants = {"tls-auth-clients": "yes"}
    with EmbeddedServer(wants, binary=redis_binary(), tls=tls) as server:
        for told in refusal_of(server.url):
            assert "wants a client's certificate" in told


def said_at_the_end(start: StartWorker, url: str, **environment: str) -> str:
    """All that a worker prints that refuses to start."""
    worker = start.prepare(environment, url=url)
    done = subprocess.run(
        worker.command, env=worker.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_a_worker_without_the_password_refuses_to_start(
    locked: EmbeddedServer, start: StartWorker
) -> None:
    said = said_at_the_end(start, locked.url.replace("://", "://:zqwrong@"))
    assert "refuses the user or the password" in said
    assert "RECLANE_REDIS_URL" in said
    assert "zqwrong" not in said


def test_a_worker_without_the_rights_refuses_to_start(
    open_server: EmbeddedServer, start: StartWorker
) -> None:
    admin = make_users(open_server)
    admin.execute_command("ACL", "SETUSER", "shop-worker", "-publish")
    url = with_user(open_server.url, "shop-worker", "WORKER-PASSWORD")
    said = said_at_the_end(start, url, RECLANE_KEY_PREFIX="shop:")
    assert "PUBLISH shop:reclane:notify:" in said
    assert "Ways to Redis" in said
    assert "PASSWORD" not in said
    admin.close()


def test_a_worker_that_must_not_trust_the_server_refuses_to_start(
    tls: Tls, start: StartWorker
) -> None:
    with EmbeddedServer(binary=redis_binary(), tls=tls) as server:
        said = said_at_the_end(start, f"rediss://:zqsecret@127.0.0.1:{server.port}/0")
    assert "certificate of Redis is not trusted" in said
    assert "?ssl_ca_certs=" in said
    assert "zqsecret" not in said


def test_a_server_that_is_not_there_is_named() -> None:
    server = EmbeddedServer(binary="/no/such/redis-server")
    with pytest.raises(BrokerUnavailable, match="/no/such/redis-server cannot be started"):
        server.start()
    server.stop()


# ---- what depends on the server or on the kind of connection


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_no_wake_up_is_lost_in_a_buffer(encrypted: bool, tls: Tls) -> None:
    """An announcement waits in the parser or, read in pieces of 16 bytes, decrypted in the TLS
    object, where the socket's readiness does not show it."""
    extra = {"binary": redis_binary(), "tls": tls} if encrypted else {}
    with EmbeddedServer(**extra) as server:  # type: ignore[arg-type]
        settings = Settings.load(redis_url=server.url)
        watch = QueueWatch(settings)
        watch._make = partial(watch._make, socket_read_size=16 if encrypted else 65_536)
        watch.wait(0)
        with connect(settings) as other:
            for turn in range(100):
                other.lpush(names.INTERACTIVE_QUEUE, *["x"] * (turn % 3 + 1))
                if turn % 2:  # off the socket, into the buffers
                    assert watch._connection.can_read(timeout=DEADLINE_S)
                started = time.monotonic()
                watch.wait(DEADLINE_S)
                assert time.monotonic() - started < DEADLINE_S / 2, f"turn {turn} was not announced"
        watch._connection.disconnect()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_full_server_is_drained_by_every_script_of_the_lane(kind: str) -> None:
    binary = redis_binary() if kind == "redis" else None
    with EmbeddedServer(binary=binary) as server:
        settings = WorkerSettings.load(redis_url=server.url)
        lane, other = Lane(settings, "one"), Lane(settings, "two")
        with Client(server.url) as client, redis.Redis.from_url(server.url) as admin:
            handles = client.submit_many(["film"] * 4)
            admin.config_set("maxmemory", 1)
            with pytest.raises(BrokerUnavailable, match="refuses"):
                client.submit("film")
            leased = lane.lease(0, 4)
            fields = [entry.field for entry in leased.entries]
            assert len(fields) == 4
            assert lane.start(fields[:1])
            assert lane.renew("{}")
            meta = b'{"status": "FAILURE", "result": null, "task_id": "x"}'
            ending = Ending(fields[0], handles[0].id, meta, "", b"dead")
            assert lane.commit([ending]) == Committed()
            assert lane.give_back(fields[1:2]) == 1
            assert lane.give_back(fields[2:3], leased.now_ms + 600_000) == 1
            assert lane.held() == fields[3:]
            admin.config_set("maxmemory", 0)
            admin.zadd(settings.keys.leases, {"one": 1})
            admin.config_set("maxmemory", 1)
            assert other.recover() == [("one", 1, 0)]
            assert other.leave()
            assert admin.llen(names.INTERACTIVE_QUEUE) == 2
            assert admin.get(settings.keys.result(handles[0].id)) == meta
        lane.close()
        other.close()


def test_redis_itself_serves_a_worker_that_is_killed_and_its_heir(start: StartWorker) -> None:
    with EmbeddedServer(DURABLE, binary=redis_binary()) as server, Client(server.url) as client:
        first = start(url=server.url, app="faulty_worker")
        handles = client.submit_many(["slowfault film", *(f"film {n}" for n in range(100))])
        eventually(lambda: on_device(first), "a batch is on the device")
        first.kill()
        start(url=server.url)
        for handle in handles:
            assert handle.result(DEADLINE_S).items
        ask_both(Settings.load(redis_url=server.url))
        with stock(server.url) as app:
            assert send(app)["items"]

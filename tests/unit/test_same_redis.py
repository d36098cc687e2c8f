"""RECLANE_REDIS_URL in Celery's spelling, as kombu and Celery's backend then read it."""

from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from reclane.settings import Settings
from reclane_worker.celery_side.same_redis import celery_redis, differing


def read_by_celery(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """The connection parameters that broker and result backend arrive at."""
    app = Celery("reader", set_as_current=False)
    app.conf.update(celery_redis(settings))
    transport = app.connection_for_write().transport
    channel = object.__new__(transport.Channel)  # __init__ would connect
    channel.connection = transport
    return channel._connparams(), app.backend.connparams


COMMON = ("host", "port", "path", "db", "username", "password")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "redis://h:7000/3",
        "redis://h?db=4",
        "redis://:p%40s%2Fs%3F%23%3B%25@h:1/0",
        "redis://user:p%20w@h:1/0",
        "redis://user@h:1/0",
        "redis://h:1/0?username=u&password=p%26w",
        "redis://[::1]:1/0",
        "rediss://user:pw@h:1/2",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=5",
        "unix:///run/a%20b%3F.sock?db=5",
        "unix://user:p%40w@/run/redis.sock?db=5",
        "unix:///run/redis.sock?password=p%2Fw",
    ],
)
def test_broker_and_backend_arrive_where_reclane_does(url: str) -> None:
    settings = Settings.load(redis_url=url)
    ours = {"db": 0, "host": "localhost", "port": 6379} | settings.redis_options()
    if "path" in ours:
        del ours["host"], ours["port"]
    for found in read_by_celery(settings):
        given = {k: found[k] for k in COMMON if found.get(k) is not None}
        assert given == ours


def test_tls_is_verified_unless_one_says_otherwise() -> None:
    for found in read_by_celery(Settings.load(redis_url="rediss://h:1/0")):
        connection = made(found)
        assert connection.cert_reqs.name == "CERT_REQUIRED"
        assert connection.check_hostname
    for found in read_by_celery(Settings.load(redis_url="rediss://h:1/0?ssl_cert_reqs=none")):
        assert made(found).cert_reqs.name == "CERT_NONE"


def test_every_option_of_tls_reaches_broker_and_backend(tmp_path: Path) -> None:
    file = tmp_path / "a b.pem"
    file.touch()
    path = str(file).replace(" ", "%20")
    url = f"rediss://h:1/0?ssl_ca_certs={path}&ssl_certfile={path}&ssl_keyfile={path}"
    url += "&ssl_check_hostname=false&ssl_min_version=772&ssl_password=p%40w"
    for found in read_by_celery(Settings.load(redis_url=url)):
        connection = made(found)
        assert connection.ca_certs == connection.certfile == connection.keyfile == str(file)
        assert not connection.check_hostname
        assert connection.ssl_min_version == 772
        assert connection.certificate_password == "p@w"


def made(found: dict[str, Any]) -> Any:
    given = {k: v for k, v in found.items() if k not in ("connection_class", "max_connections")}
    connection = found["connection_class"](**given)
    assert isinstance(connection, redis.SSLConnection)
    return connection


def configured(settings: Settings, **changed: Any) -> Any:
    app = Celery("configured", set_as_current=False)
    app.conf.update({**celery_redis(settings), **changed})
    return app.conf


OURS = Settings.load(redis_url="rediss://h:1/0", key_prefix="shop:")


def test_what_follows_from_the_settings_differs_in_nothing() -> None:
    assert differing(configured(OURS), OURS) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_read_url", "rediss://other:1/0"),
        ("broker_write_url", "rediss://h:1/1"),
        ("result_backend", "redis://h:1/0"),
        ("broker_use_ssl", {"ssl_cert_reqs": "none"}),
        ("redis_backend_use_ssl", None),
        ("broker_transport_options", {"global_keyprefix": "news:"}),
        ("result_backend_transport_options", {}),
    ],
)
def test_a_setting_of_celery_that_leads_elsewhere_is_named(name: str, value: object) -> None:
    assert differing(configured(OURS, **{name: value}), OURS) == [name]


def test_broker_and_backend_that_agree_with_each_other_only_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lane would work on another database than Celery."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://other:1/0")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://other:1/0")
    found = differing(configured(OURS), OURS)
    assert found == ["broker_read_url", "broker_write_url", "result_backend"]

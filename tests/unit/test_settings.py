"""Settings: where they come from, and that a URL with its password never shows."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from reclane.client import connect
from reclane.errors import InvalidSettings, ReclaneError
from reclane.settings import Settings
from reclane_worker.settings import WorkerSettings

PASSWORD = "zqxpass"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def url(settings: Settings) -> str:
    return settings.redis_url.get_secret_value()


def refusal(**overrides: object) -> str:
    with pytest.raises(InvalidSettings) as caught:
        WorkerSettings.load(**overrides)
    return str(caught.value)


def test_the_defaults_are_those_documented() -> None:
    settings = WorkerSettings.load()
    assert url(settings) == "redis://localhost:6379/0"
    assert (settings.socket_timeout_s, settings.enqueue_timeout_s) == (5.0, 15.0)
    assert (settings.result_ttl_s, settings.lease_ms, settings.max_attempts) == (300, 10_000, 3)
    assert settings.lane


def test_the_environment_has_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECLANE_REDIS_URL", "redis://env:1/2")
    monkeypatch.setenv("RECLANE_SOCKET_TIMEOUT_S", "1.5")
    monkeypatch.setenv("REDIS_URL", "redis://wrong:1/2")
    settings = Settings.load()
    assert (url(settings), settings.socket_timeout_s) == ("redis://env:1/2", 1.5)


def test_a_dotenv_file_is_read_and_may_hold_other_settings(in_an_empty_folder: Path) -> None:
    (in_an_empty_folder / ".env").write_text("RECLANE_REDIS_URL=redis://file:1/2\nOTHER=1\n")
    assert url(Settings.load()) == "redis://file:1/2"


def test_the_environment_wins_over_dotenv_and_an_argument_over_both(
    in_an_empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_an_empty_folder / ".env").write_text("RECLANE_REDIS_URL=redis://file:1/2\n")
    monkeypatch.setenv("RECLANE_REDIS_URL", "redis://env:1/2")
    assert url(Settings.load()) == "redis://env:1/2"
    assert url(Settings.load(redis_url="redis://given:1/2")) == "redis://given:1/2"


def test_none_leaves_a_setting_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECLANE_REDIS_URL", "redis://env:1/2")
    assert url(Settings.load(redis_url=None)) == "redis://env:1/2"


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_redis_url_is_accepted(scheme: str) -> None:
    assert url(Settings.load(redis_url=f"{scheme}://h:1/2")) == f"{scheme}://h:1/2"


@pytest.mark.parametrize("start", ["http://", "amqp://", "sqla+sqlite://", "//", ""])
def test_another_scheme_is_refused_without_quoting_the_url(start: str) -> None:
    message = refusal(redis_url=f"{start}user:{PASSWORD}@zqxhost/0")
    assert "redis_url" in message
    assert "zqx" not in message


@pytest.mark.parametrize(
    "address",
    [
        f"redis://:[{PASSWORD}]@h/0",
        f"redis://:{PASSWORD}\u2100@h/0",
        f"redis://:[{PASSWORD}@h/0",
    ],
)
def test_a_url_that_cannot_be_split_is_refused_without_quoting_it(address: str) -> None:
    assert "zqx" not in refusal(redis_url=address)


@pytest.mark.parametrize("address", ["redis://:zqx/pass@h:6379/0", "redis://h:99999/0"])
def test_a_url_without_a_usable_port_is_refused_without_quoting_it(address: str) -> None:
    with pytest.raises(ReclaneError, match=r"^(?!.*zqx)"):
        connect(Settings.load(redis_url=address))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_a_scheme_accepted_can_be_connected_to(scheme: str) -> None:
    connect(Settings.load(redis_url=f"{scheme}://h/0"))


@pytest.mark.parametrize(
    "options",
    [
        "socket_timeout=1",  # Celery would not hear of it
        "protocol=3",  # the lane's and the clients' own choice
        "decode_responses=true",
        "db=1&zqxname=1",  # perhaps a part of a password with a ? in it
        "ssl_cert_reqs=none",  # not without TLS
    ],
)
def test_an_option_in_the_url_that_not_every_connection_heeds_is_refused(options: str) -> None:
    message = refusal(redis_url=f"redis://:{PASSWORD}@h:1/0?{options}")
    assert "only db, username, password" in message
    assert "zqx" not in message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ssl_cert_reqs=CERT_NONE", "required, optional or none"),
        ("ssl_ca_certs=/no/such/file", "ssl_ca_certs names no file"),
        ("ssl_certfile=/no/such/file", "ssl_certfile names no file"),
        ("ssl_keyfile=/", "ssl_keyfile names no file"),
    ],
)
def test_an_option_of_tls_that_cannot_work_is_refused_at_once(options: str, reason: str) -> None:
    assert reason in refusal(redis_url=f"rediss://:{PASSWORD}@h:1/0?{options}")


@pytest.mark.parametrize("path", ["/shop", "/1/2", "/-1", "/१"])
def test_a_path_that_is_no_database_is_refused(path: str) -> None:
    assert "number of a database" in refusal(redis_url=f"redis://h:1{path}")


def test_a_url_is_taken_apart_with_its_percent_encoding_undone() -> None:
    options = Settings.load(
        redis_url="unix://us%40er:p%2Fw%3F@/run/a%20b.sock?db=2"
    ).redis_options()
    assert options == {"username": "us@er", "password": "p/w?", "path": "/run/a b.sock", "db": 2}


def test_a_scheme_that_redis_py_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidSettings):
        connect(Settings.load(redis_url="redis+socket:///tmp/redis.sock"))


def test_no_representation_shows_the_password() -> None:
    settings = WorkerSettings.load(redis_url=f"redis://:{PASSWORD}@h/0")
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert PASSWORD not in shown
    assert PASSWORD in url(settings)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().socket_timeout_s = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("socket_timeout_s", 0),
        ("enqueue_timeout_s", 50.1),
        ("reread_interval_s", 0),
        ("lease_ms", 499),
        ("lease_messages", 0),
        ("lease_messages", 501),
        ("batch_tokens", 15),
        ("max_attempts", 0),
        ("result_ttl_s", 0),
        ("dense_weight", 1.1),
        ("history_decay", 0),
        ("device_threads", 0),
        ("drain_s", 0),
    ],
)
def test_an_impossible_value_is_refused_and_named(name: str, value: object) -> None:
    assert name in refusal(**{name: value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" , ", {}),
        ("/data/films", {"films": "/data/films"}),
        ("/data/films/", {"films": "/data/films"}),
        ("films=/data/a", {"films": "/data/a"}),
        ("films=/data/a, news=b", {"films": "/data/a", "news": "b"}),
        ("/data/films,news=b", {"films": "/data/films", "news": "b"}),
    ],
)
def test_catalogs_are_a_folder_or_names_with_folders(text: str, expected: dict[str, str]) -> None:
    found = WorkerSettings.load(catalog=text).catalogs()
    assert found == {name: Path(folder) for name, folder in expected.items()}
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("text", "name"), [("films=/data/day=3/films", "films"), ("/data/day=3/films", "films")]
)
def test_a_folder_may_have_an_equals_sign(text: str, name: str) -> None:
    assert WorkerSettings.load(catalog=text).catalogs() == {name: Path("/data/day=3/films")}


def test_two_catalogs_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidSettings):
        WorkerSettings.load(catalog="a=/x,a=/y").catalogs()

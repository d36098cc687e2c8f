"""What is said about errors of Redis that repeating the call does not mend."""

import ssl

import pytest
import redis

from reclane._refusal import refusal


def tls_error(reason: str) -> ssl.SSLError:
    """As the ssl module makes it from OpenSSL's."""
    error = ssl.SSLError(1, "zqx")
    error.reason = reason
    return error


def wrapped(cause: Exception) -> redis.RedisError:
    """As redis-py raises it: an error of its own, the cause behind it."""
    try:
        try:
            raise cause
        except OSError as error:
            raise redis.ConnectionError("Error connecting to zqxhost") from error
    except redis.ConnectionError as error:
        return error


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (redis.AuthenticationError("WRONGPASS zqx"), "percent-encoded"),
        (redis.exceptions.NoPermissionError("no permissions to run 'x'"), "Ways to Redis"),
        (
            redis.ResponseError("The user executing the script can't run this command"),
            "Ways to Redis",
        ),
        (redis.ResponseError("ACL failure in script: User x has no"), "Ways to Redis"),
        (wrapped(ssl.SSLCertVerificationError("zqx")), "ssl_ca_certs"),
        (wrapped(tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED")), "ssl_certfile"),
        (wrapped(tls_error("WRONG_VERSION_NUMBER")), "this port speaks TLS"),
        (wrapped(PermissionError(13, "zqx")), "unixsocketperm"),
    ],
)
def test_each_refusal_comes_with_what_to_do(error: Exception, advice: str) -> None:
    told = refusal(error)
    assert told is not None
    assert advice in told
    assert "zqx" not in told


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("closed"),
        redis.TimeoutError("late"),
        redis.BusyLoadingError("LOADING"),
        redis.ResponseError("OOM command not allowed"),
        wrapped(ConnectionRefusedError(111, "refused")),
        wrapped(FileNotFoundError(2, "no socket file yet")),
        wrapped(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")),
        wrapped(ssl.SSLError(1, "no reason")),
        wrapped(tls_error("UNEXPECTED_EOF_WHILE_READING")),
        PermissionError(13, "a file of the model's"),
    ],
)
def test_what_may_pass_by_itself_is_no_refusal(error: Exception) -> None:
    assert refusal(error) is None


def test_a_pipelines_command_is_not_repeated() -> None:
    text = "Command # 1 (EVAL #!lua zqx) of pipeline caused error: no permissions to run 'eval'"
    told = refusal(redis.exceptions.NoPermissionError(text))
    assert told is not None
    assert "no permissions to run 'eval'" in told
    assert "zqx" not in told


def test_redis_7_refusing_a_long_command_before_a_password_is_a_missing_password() -> None:
    told = refusal(redis.ResponseError("Protocol error: unauthenticated multibulk length"))
    assert told is not None
    assert "the user or the password" in told

"""Says what to do where Redis, or the way to it, will refuse until somebody changes something.

No text here quotes a URL or a password. Redis's own words name the user, commands and keys.
"""

import ssl
from collections.abc import Iterator

import redis.exceptions

RIGHTS = (
    "give it the rights that the README lists under Ways to Redis: shop-worker for a worker, "
    "shop-web for a client, shop-operator for `reclane queue`, `dlq`, `bulk` and `schedule`, "
    "shop-beat for a beat"
)
_IN_SCRIPT = ("the user executing the script can't", "acl failure in script")  # Redis 7, Valkey

# In OpenSSL's reasons; others, an end of file above all, come from a server that restarts.
_TLS_REFUSED = ("ALERT", "MISMATCH", "UNSUPPORTED_PROTOCOL", "WRONG_VERSION_NUMBER")


def refusal(error: BaseException) -> str | None:
    """What to do about an error that repeating the call does not mend; None for any other."""
    if not isinstance(error, redis.exceptions.RedisError):
        return None
    # Redis 7 reads no long command before a password, and says so in words of its own.
    if isinstance(error, redis.exceptions.AuthenticationError) or "unauthenticated" in str(error):
        return (
            "Redis refuses the user or the password: set both in RECLANE_REDIS_URL, "
            "redis://user:password@host, with special characters percent-encoded"
        )
    if forbidden(error):
        words = str(error).rpartition("caused error: ")[2]  # without a pipeline's command before
        return f"Redis forbids its user something that reclane needs ({words.strip()}): {RIGHTS}"
    for cause in _causes(error):
        told = _way(cause)
        if told:
            return told
    return None


def forbidden(error: BaseException) -> bool:
    """Whether an access rule (ACL) stands in the way, of a command or of one in a script."""
    if isinstance(error, redis.exceptions.NoPermissionError):
        return True
    text = str(error).lower()
    return isinstance(error, redis.exceptions.ResponseError) and any(w in text for w in _IN_SCRIPT)


def _way(cause: BaseException) -> str | None:
    """TLS or a socket file that will not let us through."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = _detail(cause, "verify_message")
        return (
            f"the certificate of Redis is not trusted ({why}): give the authority that signed it, "
            "rediss://...?ssl_ca_certs=/path/ca.pem, in RECLANE_REDIS_URL, and a host name that "
            "the certificate holds"
        )
    if isinstance(cause, ssl.SSLError) and any(w in _detail(cause, "reason") for w in _TLS_REFUSED):
        return (
            f"TLS with Redis fails ({_detail(cause, 'reason')}): check that this port speaks TLS, "
            "and whether the server wants a client's certificate, "
            "rediss://...?ssl_certfile=...&ssl_keyfile=..."
        )
    if isinstance(cause, PermissionError):
        return "this process may not open the socket file in RECLANE_REDIS_URL: see unixsocketperm"
    return None


def _detail(error: ssl.SSLError, name: str) -> str:
    """OpenSSL's own word for it; an error that Python's ssl module makes itself has none."""
    return str(getattr(error, name, None) or type(error).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, redis-py's wrapping included."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__

"""RECLANE_REDIS_URL as Celery spells it: the one place for its broker and its result backend.

Celery differs from redis-py, whose URL it is: a unix socket is `redis+socket://`, options of TLS
go into settings of their own, other options in the URL are an error, and TLS is not verified
unless one asks for it.
"""

from typing import Any
from urllib.parse import quote

from reclane import names
from reclane.settings import Settings


def celery_redis(settings: Settings) -> dict[str, Any]:
    """Celery's settings that follow from RECLANE_REDIS_URL, the key prefix and the timeout."""
    given = settings.redis_options()
    socket = "path" in given
    url = _socket_url(given) if socket else _tcp_url(settings.tls, given)
    tls = None
    if settings.tls:
        options = {name: value for name, value in given.items() if name.startswith("ssl_")}
        tls = {"ssl_cert_reqs": "required"} | options
    return {
        "broker_url": url,
        "result_backend": url,
        "broker_use_ssl": tls,
        "redis_backend_use_ssl": tls,
        "broker_transport_options": {
            "priority_steps": list(names.PRIORITY_STEPS),
            "socket_timeout": settings.socket_timeout_s,
            "socket_keepalive": True,
            "global_keyprefix": settings.key_prefix,
        },
        "result_backend_transport_options": {"global_keyprefix": settings.key_prefix},
        "redis_socket_timeout": settings.socket_timeout_s,
        "redis_socket_keepalive": not socket,  # its unix connection does not take the option
    }


def differing(conf: Any, settings: Settings) -> list[str]:
    """Names of Celery's settings (`app.conf`) that lead elsewhere than RECLANE_REDIS_URL."""
    ours = celery_redis(settings)
    expected = {
        "broker_read_url": ours["broker_url"],  # both fall back to broker_url
        "broker_write_url": ours["broker_url"],
        **{k: ours[k] for k in ("result_backend", "broker_use_ssl", "redis_backend_use_ssl")},
    }
    found = [k for k, v in expected.items() if (getattr(conf, k) or None) != v]
    for name in ("broker_transport_options", "result_backend_transport_options"):
        if getattr(conf, name).get("global_keyprefix", "") != settings.key_prefix:
            found.append(name)
    return found


def _credentials(given: dict[str, Any]) -> str:
    user, password = given.get("username", ""), given.get("password", "")
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""


def _socket_url(given: dict[str, Any]) -> str:
    db = given.get("db", 0)
    return f"redis+socket://{_credentials(given)}{quote(given['path'])}?virtual_host={db}"


def _tcp_url(tls: bool, given: dict[str, Any]) -> str:
    scheme = "rediss" if tls else "redis"
    host = given.get("host", "localhost")
    where = f"[{host}]" if ":" in host else host
    return f"{scheme}://{_credentials(given)}{where}:{given.get('port', 6379)}/{given.get('db', 0)}"

"""A Django service, in one file, that asks for recommendations: one client per process.

    pip install reclane django
    RECLANE_REDIS_URL=redis://localhost:6379/0 python django_app.py runserver
    # or gunicorn django_app:application

    curl 'localhost:8000/search?q=running+shoes&k=3'
    curl localhost:8000/recommendations -d '{"history": ["film/alien"], "k": 3}'

In a project of yours, `client` and the views go into an app, `Reclane` into MIDDLEWARE.
"""

import json
import os
import sys
import threading
from collections.abc import Callable

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from reclane import (
    BrokerUnavailable,
    Client,
    DeadlineUnreachable,
    InvalidRequest,
    QueueFull,
    ReclaneError,
    RequestFailed,
    RequestRevoked,
    ResultTimeout,
)
from reclane.contract import parse_request

WAIT_S = float(os.environ.get("RECOMMEND_TIMEOUT_S", "10"))
"""How long a caller waits; the request carries it, so that no worker answers nobody."""

# The first that fits counts.
STATUSES: tuple[tuple[type[ReclaneError], int], ...] = (
    (InvalidRequest, 422),
    (RequestRevoked, 504),  # it expired before a worker reached it
    (RequestFailed, 502),
    (ResultTimeout, 504),
    (QueueFull, 503),
    (DeadlineUnreachable, 503),
    (BrokerUnavailable, 503),
)
RETRY_AFTER_S = 1  # sent with every 503


class _OnePerProcess:
    """Makes the client when it is first needed: a server that forks has forked by then."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = Client()
            return self._client

    def _forget(self) -> None:
        self._client, self._lock = None, threading.Lock()


client = _OnePerProcess()


@require_GET
def search(request: HttpRequest) -> HttpResponse:
    k = request.GET.get("k", "10")
    fields = {"query": request.GET.get("q", ""), "k": int(k) if k.isdecimal() else k}
    return _answer(fields)


@require_POST
def recommend(request: HttpRequest) -> HttpResponse:
    try:
        fields = json.loads(request.body)
    except ValueError:
        raise InvalidRequest("the body is not JSON") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the body is not an object")
    return _answer(fields)


def _answer(fields: dict[str, object]) -> HttpResponse:
    wanted = parse_request({"deadline_s": WAIT_S, **fields})
    answer = client().recommend(wanted, timeout=WAIT_S)
    return HttpResponse(answer.model_dump_json(), content_type="application/json")


class Reclane:
    """Middleware: a stable code and what to do, with the status that fits."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, ReclaneError):
            return None
        status = next((s for kind, s in STATUSES if isinstance(error, kind)), 500)
        content = {
            "code": error.code,
            "message": str(error),
            "retry": getattr(error, "retry", status >= 503),
        }
        headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
        return JsonResponse(content, status=status, headers=headers)


urlpatterns = [path("search", search), path("recommendations", recommend)]

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[f"{__name__}.Reclane"],
        SECRET_KEY=os.environ.get("SECRET_KEY", "nothing here is signed"),
        ALLOWED_HOSTS=os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1").split(","),
    )
    django.setup(set_prefix=False)

application = WSGIHandler()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)

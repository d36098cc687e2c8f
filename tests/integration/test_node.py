"""Node enqueues and reads answers with the Celery clients that npm has, unchanged."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from reclane import Client, Recommendation, names
from reclane.embedded import EmbeddedServer
from support import DEADLINE_S, KEYS, StartWorker

SPACE = {"query": "想看一部科幻电影", "k": 3, "fields": ["year"]}
CLIENTS = ("celery_node", "celery_ts")


class Node:
    """Runs the scripts in tests/node against one server."""

    def __init__(self, modules: Path, url: str) -> None:
        self._folder = modules.parent
        self._url = url

    def __call__(self, script: str, *calls: Mapping[str, Any]) -> list[Any]:
        """What each call gave; see the head of the script."""
        arguments = [self._url, names.INTERACTIVE_QUEUE, json.dumps(calls)]
        done = subprocess.run(
            ["node", f"{script}.mjs", *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outcomes: list[Any] = json.loads(done.stdout)
        assert len(outcomes) == len(calls)
        return outcomes


@pytest.fixture
def node(node_modules: Path, server: EmbeddedServer) -> Node:
    return Node(node_modules, server.url)


def answers(script: str, outcomes: Sequence[Any]) -> list[Recommendation]:
    """Held to the contract, as a reclane client would."""
    raw = [outcome["answer"] if script == "celery_node" else outcome for outcome in outcomes]
    return [Recommendation.model_validate(one) for one in raw]


@pytest.mark.parametrize("script", CLIENTS)
def test_a_node_client_gets_the_answer_that_python_gets(
    script: str, node: Node, client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    positional, keywords = answers(script, node(script, {"args": [SPACE]}, {"kwargs": SPACE}))
    ours = client.recommend(**SPACE, timeout=DEADLINE_S)
    assert len(ours.items) == 3
    assert positional.items == keywords.items == ours.items
    assert positional.intent == ours.intent


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        ({"args": [{"query": "film", "k": 0}]}, "invalid_request", "k: "),
        ({"kwargs": {"query": "film", "colour": "red"}}, "invalid_request", "colour: "),
        ({"args": [{"query": "film", "filters": {"nope": 1}}]}, "invalid_filter", "'nope'"),
        ({"args": [SPACE], "kwargs": SPACE}, "malformed_message", "not both"),
    ],
)
@pytest.mark.parametrize("script", CLIENTS)
def test_a_failure_reaches_node_typed(
    script: str,
    call: Mapping[str, Any],
    code: str,
    said: str,
    node: Node,
    start_worker: StartWorker,
) -> None:
    start_worker()
    (outcome,) = node(script, call)
    if script == "celery_node":
        assert outcome["status"] == "FAILURE"
    failure = outcome["failure"] if script == "celery_node" else outcome
    assert failure["exc_type"] == "RequestFailed"
    assert failure["exc_module"] == "reclane.errors"
    message, stored_code, retry = failure["exc_message"]
    assert (stored_code, retry) == (code, False)
    assert said in message


def test_an_expired_request_of_node_is_revoked(node: Node, start_worker: StartWorker) -> None:
    """celery-node cannot set an expiry; celery-ts can."""
    start_worker()
    (outcome,) = node("celery_ts", {"args": [SPACE], "expires_in_ms": -1})
    assert outcome["exc_type"] == "TaskRevokedError"
    assert outcome["exc_message"] == ["expired"]


def test_a_request_of_node_for_later_is_answered_later(
    node: Node, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    before = datetime.now(UTC)
    (later,) = answers("celery_ts", node("celery_ts", {"args": [SPACE], "eta_in_ms": 1_500}))
    assert len(later.items) == 3
    (stored,) = raw.mget(raw.keys(KEYS.result("*")))
    done = datetime.fromisoformat(json.loads(stored)["date_done"])
    assert done >= before + timedelta(milliseconds=1_500)

"""Writes the Celery golden files: what a stock Celery of today puts into Redis.

Run once per Celery release: .venv/bin/python tests/unit/golden/capture.py
"""

import json
from pathlib import Path

import celery
import redis
from celery import Celery, states

from reclane import names
from reclane.embedded import EmbeddedServer

HERE = Path(__file__).parent
NAME = "celery_" + "_".join(celery.__version__.split(".")[:2])
TASK_ID = "0b9c7a52-5f0e-4c55-9a3c-2f0a6f6f3c11"


def capture_message(app: Celery, client: "redis.Redis") -> bytes:
    app.send_task(
        names.RECOMMEND,
        args=[{"query": "想看一部好看的科幻电影", "k": 3}],
        kwargs={"offset": 2},
        task_id=TASK_ID,
        queue=names.INTERACTIVE_QUEUE,
        priority=3,
        countdown=60,
        expires=3600,
        link=app.signature("shop.show", args=["front page"]),
    )
    raw: bytes = client.lindex(names.priority_list(names.INTERACTIVE_QUEUE, 3), 0)
    return raw


def capture_results(app: Celery, client: "redis.Redis") -> dict[str, str]:
    backend = app.backend
    backend.store_result("success", {"items": ["跑步鞋"]}, states.SUCCESS)
    backend.mark_as_failure("failure", ValueError("too long", 7), traceback="Traceback ...")
    backend.mark_as_revoked("revoked", "expired")
    backend.store_result("started", {"pid": 1, "hostname": "w"}, states.STARTED)
    return {
        task_id: client.get(backend.get_key_for_task(task_id)).decode()
        for task_id in ("success", "failure", "revoked", "started")
    }


def main() -> None:
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        app = Celery("shop", broker=server.url, backend=server.url)
        (HERE / f"{NAME}_message.json").write_bytes(capture_message(app, client))
        results = json.dumps(capture_results(app, client), indent=2, ensure_ascii=False)
        (HERE / f"{NAME}_results.json").write_text(results + "\n", "utf-8")
        app.close()


if __name__ == "__main__":
    main()

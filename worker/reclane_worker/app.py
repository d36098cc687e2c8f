"""START READING HERE: the Celery app, its configuration and its ordinary tasks.

`celery -A reclane_worker worker -Q reclane.tasks` starts a Celery worker whose lane (see
`step.py`) takes recommendation requests in batches. Nothing here imports torch: a beat, a
producer or `celery inspect` may load this app cheaply.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from celery import Celery

from reclane import names, wire
from reclane._connection import connect
from reclane.bulk import runs
from reclane.bulk.spec import parse_run
from reclane.contract import Failure, RecommendRequest, parse_chunk, parse_request
from reclane.errors import BulkError, InvalidRequest, RequestFailed, WireError
from reclane_worker.celery_side.finisher import answer_or_raise, computed
from reclane_worker.celery_side.same_redis import celery_redis
from reclane_worker.chunks import many_answers
from reclane_worker.settings import WorkerSettings
from reclane_worker.step import BulkStep, LaneStep

if TYPE_CHECKING:
    from reclane_worker.pipeline import Pipeline

app = Celery("reclane_worker")


def configuration() -> dict[str, Any]:
    """Celery's settings, read when first needed. JSON only, one Redis for broker and results."""
    settings = WorkerSettings.from_environment()
    return {
        **celery_redis(settings),
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "result_expires": settings.result_ttl_s,
        "task_default_queue": names.TASKS_QUEUE,
        "task_routes": {
            names.RECOMMEND: {"queue": names.INTERACTIVE_QUEUE},
            names.RECOMMEND_MANY: {"queue": names.BULK_QUEUE},
            names.BULK_START: {"queue": names.TASKS_QUEUE},
        },
        "worker_pool": "threads",
        "worker_concurrency": 2,
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
    }


app.add_defaults(configuration)
app.steps["worker"].update((LaneStep, BulkStep))


# resultrepr_maxsize: Celery logs a task's result and sends it in events; it holds request text.
@app.task(name=names.RECOMMEND, resultrepr_maxsize=1)  # type: ignore[untyped-decorator]  # celery ships no types
def recommend(*args: Any, **fields: Any) -> dict[str, Any]:
    """One request on a stock worker or in eager mode: the same answer, without batching.

    Raises:
        RequestFailed: with the code that the lane would store.
    """
    ready = computed()
    if ready is not None:  # the lane ends a linked message here, through Celery
        return answer_or_raise(ready)
    with _typed_failures():
        request = parse_request(_message(args, fields).request_fields())
    return answer_or_raise(local_pipeline().recommend([request])[0])


@app.task(name=names.RECOMMEND_MANY, resultrepr_maxsize=1)  # type: ignore[untyped-decorator]
def recommend_many(*args: Any, **fields: Any) -> dict[str, Any]:
    """A chunk of requests; each is answered or fails alone, as `contract.ManyAnswers` has it.

    Raises:
        RequestFailed: the chunk itself breaks the contract.
    """
    ready = computed()
    if ready is not None:
        return answer_or_raise(ready)
    with _typed_failures():
        chunk = parse_chunk(_message(args, fields).chunk_fields())
    asked = [one for one in chunk if isinstance(one, RecommendRequest)]
    answers = iter(local_pipeline().recommend(asked))
    return many_answers(one if isinstance(one, Failure) else next(answers) for one in chunk)


@app.task(name=names.BULK_START, bind=True)  # type: ignore[untyped-decorator]
def bulk_start(task: Any, spec: dict[str, Any], run_id: str | None = None) -> dict[str, Any]:
    """Begin a bulk run, as `reclane bulk run` does; a message that comes twice begins one.

    `spec` is `reclane.bulk.spec.RunSpec` as JSON. Returns the run's id and whether this began it.

    Raises:
        RequestFailed: the spec is wrong, or another run writes to the same output.
    """
    settings = WorkerSettings.from_environment()
    run_id = run_id or task.request.id
    with _typed_failures(), connect(settings) as client:
        begun = runs.start(client, settings.keys, run_id, parse_run(spec))
    return {"run": run_id, "begun": begun}


def _message(args: Sequence[Any], fields: dict[str, Any]) -> wire.Message:
    return wire.Message("", "", list(args), fields, {}, {}, {}, None, None, None)


@contextmanager
def _typed_failures() -> Iterator[None]:
    try:
        yield
    except (BulkError, InvalidRequest, WireError) as error:
        raise RequestFailed(str(error), error.code) from None


@cache
def local_pipeline() -> "Pipeline":
    """The pipeline of this process, loaded once; a worker with the lane shares it."""
    from reclane_worker.following import published_now
    from reclane_worker.loading import load_pipeline

    settings = WorkerSettings.from_environment()
    return load_pipeline(settings, published_now(settings))

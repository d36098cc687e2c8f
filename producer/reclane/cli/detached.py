"""Requests that one process submits and another awaits."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from reclane.client import Client
from reclane.contract import Recommendation, RecommendRequest
from reclane.errors import InvalidRequest


def enqueue(client: Client, requests: Sequence[RecommendRequest]) -> Iterator[str]:
    """Enqueue all, then yield their ids in order.

    The client does not listen: it would read, and forget, answers that are for somebody else.

    Raises:
        InvalidRequest: one is too large, and nothing was enqueued; or, after all other ids, its
            idempotency key belongs to another request.
        QueueFull: nothing was enqueued.
        BrokerUnavailable: Redis went away; some may be enqueued.
    """
    conflict: BaseException | None = None
    for one in client._talk(client._exchange.submit(requests, Future[Recommendation])):
        error = one.future.exception() if one.future.done() else None
        if isinstance(error, InvalidRequest):
            conflict = conflict or error
        else:
            yield one.id
    if conflict:
        raise conflict

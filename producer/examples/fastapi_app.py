"""A FastAPI service that asks for recommendations: one client for the application.

    pip install reclane fastapi uvicorn
    RECLANE_REDIS_URL=redis://localhost:6379/0 uvicorn fastapi_app:app

    curl 'localhost:8000/search?q=running+shoes&k=3'
    curl localhost:8000/recommendations -H 'content-type: application/json' \
         -d '{"history": ["film/alien"], "k": 3}'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from reclane import (
    AsyncClient,
    BrokerUnavailable,
    DeadlineUnreachable,
    InvalidRequest,
    QueueFull,
    ReclaneError,
    Recommendation,
    RecommendRequest,
    RequestFailed,
    RequestRevoked,
    ResultTimeout,
)

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


class State(TypedDict):
    reclane: AsyncClient


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """One client for all requests: it shares one connection for answers."""
    async with AsyncClient() as client:
        yield {"reclane": client}


app = FastAPI(lifespan=lifespan)


def reclane(request: Request) -> AsyncClient:
    client: AsyncClient = request.state.reclane
    return client


Reclane = Annotated[AsyncClient, Depends(reclane)]


@app.get("/search")
async def search(client: Reclane, q: str, k: int = 10) -> Recommendation:
    return await client.recommend(q, k=k, deadline_s=WAIT_S, timeout=WAIT_S)


@app.post("/recommendations")
async def recommend(client: Reclane, wanted: RecommendRequest) -> Recommendation:
    """Any request of the contract; FastAPI refuses others with 422 and shows them in its docs."""
    if wanted.deadline_s is None:
        wanted = wanted.model_copy(update={"deadline_s": WAIT_S})
    return await client.recommend(wanted, timeout=WAIT_S)


@app.exception_handler(ReclaneError)
async def explain(_: Request, error: ReclaneError) -> JSONResponse:
    """A stable code and what to do, with the status that fits."""
    status = next((s for kind, s in STATUSES if isinstance(error, kind)), 500)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    content = {
        "code": error.code,
        "message": str(error),
        "retry": getattr(error, "retry", status >= 503),
    }
    return JSONResponse(content, status, headers)

"""reclane: recommendations through a message queue. This is the light client.

Start with `Client` (or `AsyncClient`); `RecommendRequest` says what one may ask.
"""

from reclane.aio import AsyncClient, AsyncHandle
from reclane.client import Client, Handle
from reclane.contract import Failure, Item, Recommendation, RecommendRequest
from reclane.errors import (
    BrokerUnavailable,
    ClientClosed,
    DeadlineUnreachable,
    InvalidRequest,
    InvalidSettings,
    QueueFull,
    ReclaneError,
    RequestFailed,
    RequestRevoked,
    ResultTimeout,
    UnknownRequest,
)
from reclane.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "BrokerUnavailable",
    "Client",
    "ClientClosed",
    "DeadlineUnreachable",
    "Failure",
    "Handle",
    "InvalidRequest",
    "InvalidSettings",
    "Item",
    "QueueFull",
    "ReclaneError",
    "RecommendRequest",
    "Recommendation",
    "RequestFailed",
    "RequestRevoked",
    "ResultTimeout",
    "Settings",
    "UnknownRequest",
    "__version__",
]

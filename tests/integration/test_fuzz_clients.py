"""Clients whose answers and notifications are garbage: they raise our errors, and live on."""

import asyncio
from contextlib import suppress
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import bytes_like
from reclane import AsyncClient, Client, ReclaneError, wire
from reclane.embedded import EmbeddedServer
from support import DEADLINE_S, KEYS

ANSWER = {"status": "SUCCESS", "result": {"items": []}, "task_id": "t"}
GARBAGE = bytes_like(ANSWER).filter(wire.is_terminal)  # what is not is waited for
SOME = settings(
    max_examples=max(10, settings().max_examples // 3),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def channels(raw: "redis.Redis") -> list[Any]:
    return raw.pubsub_channels(KEYS.channel("reclane:notify:*"))


def say(raw: "redis.Redis", task_id: str, stored: bytes, noise: bytes) -> None:
    """Store garbage, and tell whoever listens, with more garbage around the id."""
    raw.set(KEYS.result(task_id), stored)
    for channel in channels(raw):
        raw.publish(channel, noise)
        raw.publish(channel, noise.replace(b"\n", b"") + b"\n" + task_id.encode())


def test_a_client_survives_garbage(client: Client, raw: "redis.Redis") -> None:
    @given(stored=GARBAGE, noise=st.binary(max_size=50))
    @SOME
    def check(stored: bytes, noise: bytes) -> None:
        handle = client.submit("film")
        say(raw, handle.id, stored, noise)
        with suppress(ReclaneError):
            handle.result(DEADLINE_S)
        assert handle.done()

    check()


def test_an_async_client_survives_garbage(server: EmbeddedServer, raw: "redis.Redis") -> None:
    @given(examples=st.lists(st.tuples(GARBAGE, st.binary(max_size=50)), min_size=5, max_size=20))
    @settings(SOME, max_examples=max(3, settings().max_examples // 20))
    def check(examples: list[tuple[bytes, bytes]]) -> None:
        asyncio.run(ask(examples))

    async def ask(examples: list[tuple[bytes, bytes]]) -> None:
        async with AsyncClient(server.url) as client:
            for stored, noise in examples:
                handle = await client.submit("film")
                await asyncio.to_thread(say, raw, handle.id, stored, noise)
                with suppress(ReclaneError):
                    await handle.result(DEADLINE_S)

    check()

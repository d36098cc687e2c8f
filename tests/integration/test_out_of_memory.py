"""A worker whose address space is really bounded: the model's allocations fail, no request does."""

import pytest
import redis

from reclane import Client, RequestFailed
from support import DEADLINE_S, StartWorker, assert_nothing_left, eventually, statistics

MIB = 1 << 20
BATCH_TOKENS = 256
BOUNDED = {
    "RECLANE_BATCH_TOKENS": str(BATCH_TOKENS),
    "RECLANE_DEVICE_THREADS": "1",
    "FAULTY_TOKEN_BYTES": str(8 * MIB),  # a full batch needs 2 GiB, never touched
    "FAULTY_ROOM_BYTES": str(1_536 * MIB),
}


def texts(round_: int) -> list[str]:
    return [f"a good film to see in week {round_}x{n}" for n in range(200)]  # 8 tokens each


def test_batches_that_do_not_fit_into_memory_shrink_and_grow_back_and_no_request_fails(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker(BOUNDED, app="faulty_worker")
    client.recommend("memoryfault", timeout=DEADLINE_S)
    for round_ in range(2):
        for handle in client.submit_many(texts(round_)):
            assert handle.result(DEADLINE_S).items
    eventually(lambda: statistics(raw).get("out_of_memory", 0) > 0, "it says that memory ran out")
    assert statistics(raw)["batch_tokens"] < BATCH_TOKENS
    assert "out of memory with" in worker.log()
    assert "good film" not in worker.log()

    client.recommend("memoryback", timeout=DEADLINE_S)
    rounds = iter(range(2, 1_000))

    def grown() -> bool:
        for handle in client.submit_many(texts(next(rounds))):
            assert handle.result(DEADLINE_S).items
        return bool(statistics(raw)["batch_tokens"] == BATCH_TOKENS)

    eventually(grown, "the cap is what was configured")
    assert worker.stop() == 0  # the process that was started, to the end
    assert_nothing_left(raw)


def test_a_request_that_does_not_fit_into_memory_fails_alone(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker(BOUNDED, app="faulty_worker")
    client.recommend("memoryfault", timeout=DEADLINE_S)
    large, *small = client.submit_many(["film " * 240, *texts(0)])
    with pytest.raises(RequestFailed) as raised:
        large.result(DEADLINE_S)
    assert (raised.value.code, raised.value.retry) == ("out_of_memory", True)
    for handle in small:
        assert handle.result(DEADLINE_S).items
    assert worker.stop() == 0
    assert_nothing_left(raw)

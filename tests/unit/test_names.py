"""Names that others rely on, against kombu's and Celery's own."""

import pytest
from celery import Celery
from kombu.transport.redis import PRIORITY_STEPS, Channel
from redbeat.schedulers import RedBeatConfig

from reclane import names


@pytest.fixture
def channel() -> Channel:
    """Kombu's Redis channel without a connection: its naming is pure."""
    return object.__new__(Channel)


@pytest.mark.parametrize("queue", names.LANE_QUEUES)
@pytest.mark.parametrize("priority", range(10))
def test_a_priority_list_is_the_one_that_kombu_uses(
    channel: Channel, queue: str, priority: int
) -> None:
    assert names.priority_list(queue, priority) == channel._q_for_pri(queue, priority)


@pytest.mark.parametrize(("priority", "as_if"), [(-1, 0), (10, 9), (255, 9)])
def test_a_priority_out_of_range_is_the_nearest(priority: int, as_if: int) -> None:
    assert names.priority_list("q", priority) == names.priority_list("q", as_if)


def test_the_priority_steps_are_kombus_default() -> None:
    assert list(names.PRIORITY_STEPS) == PRIORITY_STEPS


def test_the_lane_takes_interactive_first_and_priority_0_first() -> None:
    assert names.Keys().lane_lists() == (
        "reclane.interactive",
        "reclane.interactive\x06\x163",
        "reclane.interactive\x06\x166",
        "reclane.interactive\x06\x169",
        "reclane.bulk",
        "reclane.bulk\x06\x163",
        "reclane.bulk\x06\x166",
        "reclane.bulk\x06\x169",
    )


@pytest.mark.parametrize("task_id", ["0b9c7a52-5f0e-4c55-9a3c-2f0a6f6f3c11", "é"])
def test_a_result_key_is_the_one_that_celery_uses(task_id: str) -> None:
    with Celery(backend="redis://localhost:1/0", set_as_current=False) as app:
        assert names.Keys().result(task_id).encode() == app.backend.get_key_for_task(task_id)


def test_every_key_and_channel_is_under_the_prefix() -> None:
    keys = names.Keys("shop-a:")
    plain = [keys.leases, keys.incarnations, keys.scheduled, keys.attempts, keys.dead_letters]
    plain += [keys.catalogs, keys.catalogs_changed]
    made = [f("x") for f in (keys.inflight, keys.worker, keys.result, keys.channel)]
    for key in [*plain, *made, *keys.lane_lists()]:
        assert key.startswith("shop-a:")


def test_a_prefixed_result_key_is_the_one_that_celery_uses() -> None:
    options = {"global_keyprefix": "shop-a:"}
    with Celery(backend="redis://localhost:1/0", set_as_current=False) as app:
        app.conf.result_backend_transport_options = options
        assert names.Keys("shop-a:").result("t").encode() == app.backend.get_key_for_task("t")


def test_the_names_of_schedules_are_those_that_redbeat_uses() -> None:
    keys = names.Keys("shop-a:")
    with Celery(set_as_current=False) as app:
        app.conf.update(
            redbeat_key_prefix=keys.beat_entry(""), redbeat_redis_url="", redbeat_redis_options={}
        )
        theirs = RedBeatConfig(app)
    assert (keys.beat_schedule, keys.beat_lock) == (theirs.schedule_key, theirs.lock_key)
    assert keys.beat_lock == "shop-a:reclane:beat::lock"


def test_public_names_stay() -> None:
    assert names.LANE_TASKS == ("reclane.recommend", "reclane.recommend_many")
    assert (names.INTERACTIVE_QUEUE, names.BULK_QUEUE, names.TASKS_QUEUE) == (
        "reclane.interactive",
        "reclane.bulk",
        "reclane.tasks",
    )


def test_only_our_own_channels_ask_for_a_grouped_notification() -> None:
    assert names.is_notify_channel(names.notify_channel("c"))
    assert not names.is_notify_channel("467e39cf-f3fb-3a58-ad2c-2a675ad713e3")
    assert not names.is_notify_channel("")


def test_bulk_is_told_by_the_list_that_a_message_came_from() -> None:
    assert all(names.is_bulk(name) for name in names.Keys().lists(names.BULK_QUEUE))
    assert not any(names.is_bulk(name) for name in names.Keys().lists(names.INTERACTIVE_QUEUE))


def test_before_bulk_everything_interactive_is_served() -> None:
    keys = names.Keys("shop:")
    interactive = keys.lists(names.INTERACTIVE_QUEUE)
    assert keys.served_before(names.INTERACTIVE_QUEUE) == interactive[:1]
    assert keys.served_before(names.INTERACTIVE_QUEUE, 6) == interactive[:3]
    assert keys.served_before(names.BULK_QUEUE) == (*interactive, keys.list(names.BULK_QUEUE))

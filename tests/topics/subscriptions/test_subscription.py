"""What a subscription promises to its consumers, and to those who look at it."""

import asyncio
import logging
import sys

import pytest

from magnetar.broker.entry import EARLIEST, LATEST, EntryFlags, EntryId
from magnetar.broker.port import (
    Acknowledged,
    ConsumerAssignError,
    ConsumerBusyError,
    KeyShared,
    NotAllowedError,
    PersistenceError,
    ServiceNotReadyError,
    SubscriptionType,
)
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.topics.consumers.consumer import Limits
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.subscriptions.subscription import Subscription
from tests.topics.stage import Guest, Stage

EXCLUSIVE = SubscriptionType.EXCLUSIVE
SHARED = SubscriptionType.SHARED
FAILOVER = SubscriptionType.FAILOVER
KEY_SHARED = SubscriptionType.KEY_SHARED
ALL = list(SubscriptionType)
WITH_COUNTS = [SHARED, KEY_SHARED]


# --- attaching ---------------------------------------------------------------------------


async def test_an_exclusive_subscription_takes_one_consumer() -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.join(work, EXCLUSIVE)
    with pytest.raises(ConsumerBusyError):
        stage.join(work, EXCLUSIVE)


@pytest.mark.parametrize("kind", ALL)
async def test_the_type_may_change_only_while_nobody_is_connected(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    other = SHARED if kind is not SHARED else FAILOVER
    guest = stage.join(work, kind)
    with pytest.raises(ConsumerBusyError):
        stage.join(work, other)
    await guest.consumer.close()
    stage.join(work, other)
    assert work.type is other


async def test_what_a_shared_consumer_left_is_read_again_by_an_exclusive_one() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(6)
    worker = stage.join(work, SHARED, permits=6)
    await stage.settle()
    worker.ack(entries[1], entries[3])
    await worker.consumer.close()
    reader = stage.join(work, EXCLUSIVE, permits=9)
    await stage.settle()
    assert reader.door.ids == [entries[i] for i in (0, 2, 4, 5)]


async def test_nothing_is_delivered_before_permits() -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.publish(3)
    guest = stage.join(work, EXCLUSIVE)
    await stage.settle()
    assert guest.door.got == []


async def test_sticky_ranges_must_not_overlap() -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.join(work, KEY_SHARED, key_shared=KeyShared([(0, 99)], sticky=True))
    with pytest.raises(ConsumerAssignError):
        stage.join(work, KEY_SHARED, key_shared=KeyShared([(50, 150)], sticky=True))
    stage.join(work, KEY_SHARED, key_shared=KeyShared([(100, 65_535)], sticky=True))
    assert len(work.consumers) == 2


async def test_sticky_and_automatic_consumers_do_not_mix() -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.join(work, KEY_SHARED, key_shared=KeyShared([(0, 99)], sticky=True))
    with pytest.raises(ConsumerAssignError):
        stage.join(work, KEY_SHARED)


async def test_slots_that_no_sticky_consumer_declared_wait_for_one_that_does() -> None:
    stage = Stage()
    work = await stage.subscription()
    low, high = stage.publish(1, key_hash=5)[0], stage.publish(1, key_hash=500)[0]
    first = stage.join(work, KEY_SHARED, permits=9, key_shared=KeyShared([(0, 99)], sticky=True))
    await stage.settle()
    assert first.door.ids == [low]
    second = stage.join(
        work, KEY_SHARED, permits=9, key_shared=KeyShared([(100, 999)], sticky=True)
    )
    await stage.settle()
    assert second.door.ids == [high]


async def test_without_consistent_hashing_keys_go_to_halves_and_keep_their_order() -> None:
    stage = Stage(settings={"key_shared_consistent_hashing": False})
    work = await stage.subscription()
    entries = [stage.publish(1, key_hash=each)[0] for each in (5, 40_000, 5, 40_000)]
    first = stage.join(work, KEY_SHARED, "same", permits=9)
    second = stage.join(work, KEY_SHARED, "same", permits=9)
    await stage.settle()
    assert (first.door.ids, second.door.ids) == (
        [entries[1], entries[3]], [entries[0], entries[2]],
    )  # fmt: skip
    third = stage.join(work, KEY_SHARED, "same", permits=9)
    more = stage.publish(1, key_hash=5)
    await stage.settle()
    assert third.door.ids == [], "what came before is not acknowledged yet"
    second.ack(entries[0], entries[2])
    await stage.settle()
    assert third.door.ids == more
    await second.consumer.close()
    last = stage.publish(1, key_hash=20_000)
    await stage.settle()
    assert third.door.ids + first.door.ids == [*more, *last, entries[1], entries[3]]


async def test_an_exclusive_consumer_of_some_keys_gets_those_and_the_others_are_done() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = [stage.publish(1, key_hash=each)[0] for each in (5, 500, 6, 700, 7, 800)]
    low = KeyShared([(0, 99)], sticky=True)
    with pytest.raises(ConsumerAssignError):
        stage.join(work, EXCLUSIVE, key_shared=KeyShared([(0, 99), (50, 60)], sticky=True))
    reader = stage.join(work, EXCLUSIVE, permits=2, key_shared=low)
    await stage.settle()
    assert reader.door.ids == [entries[0], entries[2]]
    reader.ack(entries[0], entries[2])
    reader.consumer.flow(9)
    await stage.settle()
    assert reader.door.ids == [entries[0], entries[2], entries[4]]
    reader.ack(entries[4])
    assert work.cursor.mark_delete == entries[5]
    await reader.consumer.close()
    stage.publish(1, key_hash=900)
    everything = stage.join(work, EXCLUSIVE, permits=9)
    await stage.settle()
    assert len(everything.door.ids) == 1, "the next consumer wants all keys"


@pytest.mark.parametrize("wanted", [KeyShared(), KeyShared([(0, 99)]), KeyShared(sticky=True)])
async def test_without_sticky_ranges_an_exclusive_consumer_gets_everything(
    wanted: KeyShared,
) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = [stage.publish(1, key_hash=each)[0] for each in (5, 500)]
    reader = stage.join(work, EXCLUSIVE, permits=9, key_shared=wanted)
    await stage.settle()
    assert reader.door.ids == entries


@pytest.mark.parametrize("kind", WITH_COUNTS)
async def test_a_compacted_read_needs_an_order(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    with pytest.raises(NotAllowedError):
        stage.join(work, kind, read_compacted=True)


async def test_a_subscription_that_is_not_durable_goes_with_its_last_consumer() -> None:
    stage = Stage()
    work = await stage.subscription(durable=False)
    guest = stage.join(work, EXCLUSIVE)
    await guest.consumer.close()
    assert stage.home.forgotten == [work]
    await guest.consumer.close()
    assert stage.home.forgotten == [work]


async def test_a_reader_that_does_not_come_back_after_a_seek_is_forgotten() -> None:
    stage = Stage()
    stage.publish(3)
    work = await stage.subscription(durable=False)
    guest = stage.join(work, EXCLUSIVE)
    await guest.consumer.seek(EARLIEST, (), None)
    await stage.loop.advance(59)
    assert stage.home.forgotten == []
    await stage.loop.advance(2)
    assert stage.home.forgotten == [work]


async def test_unsubscribing_beside_others_needs_force() -> None:
    stage = Stage()
    work = await stage.subscription()
    one, _ = stage.join(work, SHARED), stage.join(work, SHARED)
    with pytest.raises(ConsumerBusyError):
        await one.consumer.unsubscribe(force=False)
    await one.consumer.unsubscribe(force=True)
    assert stage.home.removed == [work]


async def test_acknowledgements_of_a_consumer_that_is_gone_are_ignored() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(2)
    guest = stage.join(work, EXCLUSIVE, permits=2)
    await stage.settle()
    await guest.consumer.close()
    guest.ack(entries[0])
    guest.consumer.flow(5)
    assert work.mark_delete == EARLIEST


# --- order and permits -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_one_consumer_gets_everything_in_order(kind: SubscriptionType) -> None:
    stage = Stage(ledger_entries_max=7)
    work = await stage.subscription()
    entries = stage.publish(30, key_hash=9)
    guest = stage.join(work, kind, permits=1000)
    await stage.settle()
    assert guest.door.ids == entries
    assert guest.door.got[29].body == b"29"


@pytest.mark.parametrize("kind", [EXCLUSIVE, FAILOVER, SHARED])
async def test_a_run_is_delivered_in_one_call(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.publish(250)
    guest = stage.join(work, kind, permits=1000)
    await stage.settle()
    assert guest.door.calls == [250]


@pytest.mark.parametrize("kind", ALL)
async def test_a_batch_is_sent_whole_and_permits_may_go_negative(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(3, messages=10)
    guest = stage.join(work, kind, permits=11)
    await stage.settle()
    assert guest.door.ids == entries[:2]
    assert guest.consumer.permits == -9
    guest.consumer.flow(9)
    await stage.settle()
    assert guest.door.ids == entries[:2]
    guest.consumer.flow(1)
    await stage.settle()
    assert guest.door.ids == entries


async def test_acknowledged_messages_of_a_batch_cost_no_permits() -> None:
    stage = Stage()
    work = await stage.subscription()
    [entry] = stage.publish(1, messages=8)
    guest = stage.join(work, SHARED, permits=8)
    await stage.settle()
    guest.ack_part(entry, 0b11)
    assert guest.consumer.unacked_messages == 2
    guest.consumer.redeliver(None, None)
    guest.consumer.flow(5)
    await stage.settle()
    assert guest.door.got[1].ack_set == (0b11,)
    assert guest.consumer.permits == 3


@pytest.mark.parametrize("kind", ALL)
async def test_a_congested_connection_gets_nothing_until_it_resumes(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(4, key_hash=1)
    guest = stage.join(work, kind)
    guest.door.congested = True
    guest.consumer.flow(2)
    await stage.settle()
    guest.consumer.flow(100)
    await stage.settle()
    assert guest.door.ids == entries[:2]
    guest.door.congested = False
    guest.consumer.resume()
    await stage.settle()
    assert guest.door.ids == entries


async def test_a_pass_gives_way_after_a_bounded_number_of_entries() -> None:
    stage = Stage(settings={"dispatch_entries_max": 10})
    work = await stage.subscription()
    stage.publish(100)
    guest = stage.join(work, EXCLUSIVE, permits=1000)
    for _ in range(3):
        await asyncio.sleep(0)
    assert 10 <= len(guest.door.got) < 100
    await stage.settle()
    assert len(guest.door.got) == 100


# --- failover ----------------------------------------------------------------------------


async def test_the_next_failover_consumer_starts_a_second_later_where_acks_ended() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(10)
    first = stage.join(work, FAILOVER, "a", permits=10)
    await stage.settle()
    assert first.door.actives == [True]
    second = stage.join(work, FAILOVER, "b", permits=100, priority=1)
    assert second.door.actives == [False]
    first.ack(*entries[:4])
    await first.consumer.close()
    await stage.settle()
    assert second.door.got == []
    await stage.loop.advance(1.0)
    assert second.door.ids == entries[4:]
    assert second.door.actives == [False, True]


async def test_a_better_consumer_takes_over_and_the_other_is_told() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(4)
    low = stage.join(work, FAILOVER, "a", permits=2, priority=1)
    await stage.settle()
    best = stage.join(work, FAILOVER, "b", permits=9)
    low.consumer.flow(10)
    low.ack(entries[0])
    await stage.loop.advance(1.0)
    assert low.door.ids == entries[:2]
    assert low.door.actives == [True, False]
    assert best.door.actives == [True]
    assert best.door.ids == entries[1:]


# --- redelivery --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_COUNTS)
async def test_each_redelivery_counts_one(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    [entry] = stage.publish(1, key_hash=3)
    guest = stage.join(work, kind, permits=10)
    for _ in range(4):
        await stage.settle()
        guest.consumer.redeliver([entry], None)
    await stage.settle()
    assert [each.redeliveries for each in guest.door.got] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", WITH_COUNTS)
async def test_a_consumer_that_vanishes_leaves_its_entries_to_the_others(
    kind: SubscriptionType,
) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(10, key_hash=3)
    one = stage.join(work, kind, "a", permits=5)
    await stage.settle()
    one.ack(entries[0])
    other = stage.join(work, kind, "b", permits=100)
    await one.consumer.close()
    await stage.settle()
    got = {each.id: each.redeliveries for each in other.door.got}
    assert got == {entry: 1 if entry in entries[1:5] else 0 for entry in entries[1:]}


@pytest.mark.parametrize("kind", [EXCLUSIVE, FAILOVER])
async def test_redelivery_in_order_goes_back_to_the_first_unacknowledged(
    kind: SubscriptionType,
) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(5)
    guest = stage.join(work, kind, permits=100, epoch=0)
    await stage.settle()
    guest.ack(entries[0], entries[2])
    guest.consumer.redeliver([entries[4]], 1)
    await stage.settle()
    again = guest.door.got[5:]
    assert [each.id for each in again] == [entries[1], entries[3], entries[4]]
    assert {each.epoch for each in guest.door.got[:5]} == {0}
    assert {(each.epoch, each.redeliveries) for each in again} == {(1, 0)}
    guest.consumer.redeliver(None, 0)
    await stage.settle()
    assert len(guest.door.got) == 8, "a redelivery of an older epoch is stale"


async def test_what_must_be_sent_again_comes_before_anything_new() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(6)
    guest = stage.join(work, SHARED, permits=3)
    await stage.settle()
    guest.consumer.redeliver([entries[2], entries[0]], None)
    guest.consumer.flow(10)
    await stage.settle()
    assert guest.door.ids[3:] == [entries[0], entries[2], *entries[3:]]


async def test_an_entry_that_was_acknowledged_meanwhile_is_not_sent_again() -> None:
    stage = Stage()
    work = await stage.subscription()
    [entry] = stage.publish(1)
    guest = stage.join(work, SHARED, permits=1)
    await stage.settle()
    guest.consumer.redeliver([entry], None)
    guest.ack(entry)
    guest.consumer.flow(1)
    await stage.settle()
    assert guest.door.ids == [entry]


# --- key_shared --------------------------------------------------------------------------


async def test_a_key_stays_with_its_old_consumer_until_that_is_done_with_it() -> None:
    stage = Stage()
    work = await stage.subscription()
    old = stage.join(work, KEY_SHARED, "old", permits=1000)
    keys = range(1, 60_000, 997)
    first = {key: stage.publish(1, key_hash=key)[0] for key in keys}
    work.wake()
    await stage.settle()
    new = stage.join(work, KEY_SHARED, "new", permits=1000)
    second = {key: stage.publish(1, key_hash=key)[0] for key in keys}
    work.wake()
    await stage.settle()
    assert new.door.got == [], "the old consumer has unacknowledged entries of every key"
    moved = [key for key in keys if second[key] not in old.door.ids]
    assert moved
    for key in moved[: len(moved) // 2]:
        old.ack(first[key])
    await stage.settle()
    assert new.door.ids == [second[key] for key in moved[: len(moved) // 2]]
    await old.consumer.close()
    await stage.settle()
    assert {second[key] for key in moved} <= set(new.door.ids)


async def test_one_stuck_key_does_not_hold_up_the_others() -> None:
    stage = Stage()
    work = await stage.subscription()
    stuck = stage.join(work, KEY_SHARED, "stuck", permits=1)
    free = stage.join(work, KEY_SHARED, "free", permits=10_000)
    entries = [stage.publish(1, key_hash=1 + i * 131)[0] for i in range(400)]
    work.wake()
    await stage.settle()
    assert len(stuck.door.got) == 1
    for _ in range(3):
        free.ack(*free.door.ids)
        await stage.settle()
    assert 50 < len(free.door.got) < 350
    stuck.consumer.flow(1000)
    await stage.settle()
    assert sorted(stuck.door.ids + free.door.ids) == entries


async def test_without_order_a_key_moves_at_once() -> None:
    stage = Stage()
    work = await stage.subscription()
    any_order = KeyShared(allow_out_of_order=True)
    keys = range(1, 60_000, 997)
    stage.join(work, KEY_SHARED, "old", permits=1000, key_shared=any_order)
    for key in keys:
        stage.publish(1, key_hash=key)
    work.wake()
    await stage.settle()
    new = stage.join(work, KEY_SHARED, "new", permits=1000, key_shared=any_order)
    for key in keys:
        stage.publish(1, key_hash=key)
    work.wake()
    await stage.settle()
    assert new.door.got


# --- too much unacknowledged -------------------------------------------------------------


async def test_a_consumer_with_too_much_unacknowledged_gets_nothing_until_half_is_done() -> None:
    stage = Stage()
    work = await stage.subscription(limits=Limits(10, 0))
    entries = stage.publish(30)
    guest = stage.join(work, SHARED, permits=100)
    await stage.settle()
    assert guest.door.ids == entries[:10]
    assert work.stats()["consumers"][0]["blockedConsumerOnUnackedMsgs"]
    guest.ack(*entries[:4])
    await stage.settle()
    assert len(guest.door.got) == 10
    guest.ack(entries[4])
    await stage.settle()
    assert guest.door.ids == entries[:15]


async def test_a_subscription_with_too_much_unacknowledged_stops_for_everybody() -> None:
    stage = Stage()
    work = await stage.subscription(limits=Limits(0, 10))
    stage.publish(30)
    one, two = stage.join(work, SHARED, permits=6), stage.join(work, SHARED, permits=100)
    await stage.settle()
    got = len(one.door.got) + len(two.door.got)
    assert 10 <= got < 30
    assert work.stats()["blockedSubscriptionOnUnackedMsgs"]
    one.ack(*one.door.ids)
    two.ack(*two.door.ids)
    await stage.settle()
    assert len(one.door.got) + len(two.door.got) > got


async def test_a_reader_that_never_acknowledges_is_never_blocked() -> None:
    stage = Stage()
    work = await stage.subscription(limits=Limits(10, 10))
    stage.publish(100)
    guest = stage.join(work, EXCLUSIVE, permits=1000)
    await stage.settle()
    assert len(guest.door.got) == 100


# --- acknowledging -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_COUNTS)
async def test_a_cumulative_acknowledgement_needs_an_order(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    [entry] = stage.publish(1)
    guest = stage.join(work, kind, permits=1)
    with pytest.raises(NotAllowedError):
        guest.ack(entry, cumulative=True)


@pytest.mark.parametrize("kind", ALL)
async def test_the_backlog_is_right_at_once_after_acknowledging(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = [*stage.publish(3, messages=5, key_hash=1), *stage.publish(4, key_hash=1)]
    guest = stage.join(work, kind, permits=100)
    await stage.settle()
    assert work.stats()["msgBacklog"] == 19
    guest.ack(entries[1])
    assert work.stats()["msgBacklog"] == 14
    guest.ack(entries[0], entries[5])
    assert work.stats()["msgBacklog"] == 8
    guest.ack_part(entries[2], 0b1)
    assert work.stats()["msgBacklog"] == 8
    guest.ack_part(entries[2], 0b10)
    assert work.stats()["msgBacklog"] == 3


async def test_a_cumulative_acknowledgement_inside_a_batch_leaves_its_rest() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(3, messages=4)
    guest = stage.join(work, EXCLUSIVE, permits=100)
    await stage.settle()
    guest.ack_part(entries[1], 0b1100, cumulative=True)
    assert work.mark_delete == entries[0]
    guest.consumer.redeliver(None, None)
    await stage.settle()
    assert [(each.id, each.ack_set) for each in guest.door.got[3:]] == [
        (entries[1], (0b1100,)),
        (entries[2], ()),
    ]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrong", [(9, 0), (1, 500), (1, -1), (0, 0), (2**62, 2**62), (-1, -1)])
async def test_acknowledging_what_does_not_exist_changes_nothing(
    kind: SubscriptionType, wrong: tuple[int, int]
) -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.publish(5)
    guest = stage.join(work, kind, permits=2)
    await stage.settle()
    guest.ack(EntryId(*wrong))
    guest.ack_part(EntryId(*wrong), 1)
    if kind is EXCLUSIVE:
        guest.ack(EntryId(*wrong), cumulative=True)
    assert work.backlog == 5
    assert work.cursor.holes == 0
    assert not work.cursor.ack_sets


async def test_another_consumer_may_acknowledge_what_one_has() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(4)
    one = stage.join(work, SHARED, permits=4)
    await stage.settle()
    two = stage.join(work, SHARED)
    two.ack(*entries[:3])
    assert one.consumer.unacked_messages == 1
    assert work.stats()["unackedMessages"] == 1


async def test_changes_of_the_cursor_are_told_once_until_they_are_taken() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(4)
    guest = stage.join(work, EXCLUSIVE, permits=4)
    await stage.settle()
    guest.ack(entries[0])
    guest.ack(entries[1])
    assert stage.home.changed == [work]
    restored = Cursor.restore(work.take_changes())
    assert restored.mark_delete == entries[1]
    assert not work.changed
    guest.ack(entries[2])
    assert stage.home.changed == [work, work]
    restored.apply(work.take_changes())
    assert restored.mark_delete == entries[2]


# --- restart -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_after_a_restart_holes_are_skipped_and_the_backlog_is_right(
    kind: SubscriptionType,
) -> None:
    stage = Stage(ledger_entries_max=6)
    work = await stage.subscription()
    entries = stage.publish(20, key_hash=4, messages=3)
    guest = stage.join(work, kind, permits=100)
    await stage.settle()
    guest.ack(*entries[2:9], entries[12])
    again = await stage.subscription(cursor=Cursor.restore(work.take_changes()))
    assert again.backlog == 36
    guest = stage.join(again, kind, permits=100)
    await stage.settle()
    assert guest.door.ids == [e for e in entries if e not in {*entries[2:9], entries[12]}]


async def test_a_cursor_beyond_the_end_of_its_log_is_set_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    entries = stage.publish(3)
    work = await stage.subscription(cursor=Cursor(EntryId(7, 7), 90))
    assert work.mark_delete == entries[-1]
    assert work.backlog == 0
    assert "beyond the end" in caplog.text


# --- cold reads, damage ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_cold_entries_are_read_ahead_one_read_at_a_time(kind: SubscriptionType) -> None:
    stage = Stage(ledger_entries_max=50, settings={"dispatch_entries_max": 40})
    stage.log.cold = True
    work = await stage.subscription()
    entries = stage.publish(120, key_hash=3)
    reads = stage.log.reads
    guest = stage.join(work, kind)
    for _ in range(60):
        guest.consumer.flow(2)
        await stage.settle()
    assert guest.door.ids == entries
    assert stage.log.reads - reads <= 6


@pytest.mark.parametrize("kind", ALL)
async def test_a_quarantined_gap_is_passed_with_a_counted_error(
    kind: SubscriptionType, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(ledger_entries_max=10)
    work = await stage.subscription()
    entries = stage.publish(20, key_hash=3)
    stage.log.damage(entries[4], entries[6])
    guest = stage.join(work, kind, permits=100)
    await stage.settle()
    assert guest.door.ids == entries[:4] + entries[7:]
    stats = work.stats()
    assert (stats["gapsPassed"], stats["gapEntriesPassed"]) == (1, 3)
    assert "quarantine" in caplog.text
    guest.ack(*entries[:4])
    assert work.mark_delete == entries[6]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("kind", ALL)
async def test_a_gap_at_the_very_start_is_passed_once(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(6, key_hash=3)
    stage.log.damage(entries[0], entries[1])
    guest = stage.join(work, kind, permits=100)
    await stage.settle()
    assert guest.door.ids == entries[2:]
    assert work.mark_delete == entries[1]
    assert stage.log.reads <= 2


async def test_a_gap_to_the_end_of_its_ledger_is_passed_to_the_next_one() -> None:
    stage = Stage(ledger_entries_max=5)
    work = await stage.subscription()
    entries = stage.publish(8)
    stage.log.damage(entries[3], EntryId(entries[3].ledger, 2**63 - 1))
    guest = stage.join(work, EXCLUSIVE, permits=100)
    await stage.settle()
    assert guest.door.ids == entries[:3] + entries[5:]
    assert work.stats()["gapEntriesPassed"] == 2


async def test_a_read_that_fails_is_tried_again_a_second_later() -> None:
    stage = Stage()
    stage.log.cold = True
    entries = stage.publish(3)
    work = await stage.subscription(cursor=Cursor(EARLIEST, 0))
    stage.log.failures = [StorageError("the disk is gone"), StorageError("still gone")]
    guest = stage.join(work, EXCLUSIVE, permits=9)
    await stage.settle()
    assert guest.door.got == []
    await stage.loop.advance(1.0)
    assert guest.door.got == []
    await stage.loop.advance(1.0)
    assert guest.door.ids == entries


async def test_what_was_trimmed_is_not_waited_for() -> None:
    stage = Stage(ledger_entries_max=3)
    work = await stage.subscription()
    entries = stage.publish(7)
    guest = stage.join(work, SHARED, permits=2)
    await stage.settle()
    guest.consumer.redeliver(None, None)
    await stage.log.trim(entries[6])
    guest.consumer.flow(10)
    await stage.settle()
    assert guest.door.ids[2:] == [entries[6]]


@pytest.mark.parametrize("kind", ALL)
async def test_markers_are_never_delivered_and_hold_nothing_up(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(2, key_hash=3)
    stage.publish(2, flags=EntryFlags.MARKER)
    entries += stage.publish(1, key_hash=3)
    guest = stage.join(work, kind, permits=9)
    await stage.settle()
    assert guest.door.ids == entries
    guest.ack(*entries)
    assert work.backlog == 0


# --- delayed -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_COUNTS)
async def test_a_delayed_entry_comes_at_its_time_and_not_before(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    guest = stage.join(work, kind, permits=100)
    [later] = stage.publish(1, deliver_at_ms=stage.clock.wall_ms() + 2_500, key_hash=1)
    [now] = stage.publish(1, key_hash=1)
    work.wake()
    await stage.settle()
    assert guest.door.ids == [now]
    assert work.stats()["msgDelayed"] == 1
    await stage.loop.advance(2.4)
    assert guest.door.ids == [now]
    await stage.loop.advance(0.1)
    assert guest.door.ids == [now, later]
    guest.ack(now)
    assert work.mark_delete == EARLIEST, "mark-delete cannot pass what waits"
    guest.ack(later)
    assert work.mark_delete == now


@pytest.mark.parametrize("kind", [EXCLUSIVE, FAILOVER])
async def test_delays_are_ignored_where_there_is_an_order(kind: SubscriptionType) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(2, deliver_at_ms=stage.clock.wall_ms() + 60_000)
    guest = stage.join(work, kind, permits=100)
    await stage.settle()
    assert guest.door.ids == entries


async def test_delayed_entries_survive_a_restart() -> None:
    stage = Stage()
    work = await stage.subscription()
    now_ms = stage.clock.wall_ms()
    later = [stage.publish(1, deliver_at_ms=now_ms + 9_000 - i * 1000)[0] for i in range(4)]
    guest = stage.join(work, SHARED, permits=100)
    await stage.settle()
    work.end_consumers(None)
    again = await stage.subscription(cursor=Cursor.restore(work.take_changes()))
    guest = stage.join(again, SHARED, permits=100)
    await stage.settle()
    assert guest.door.got == []
    await stage.loop.advance(9.0)
    assert guest.door.ids == later[::-1]


async def test_due_entries_wait_for_permits_and_keep_their_order() -> None:
    stage = Stage()
    work = await stage.subscription()
    now_ms = stage.clock.wall_ms()
    later = [stage.publish(1, deliver_at_ms=now_ms + 900 - i * 100)[0] for i in range(4)]
    guest = stage.join(work, SHARED, permits=1)
    await stage.settle()
    await stage.loop.advance(2.0)
    assert guest.door.ids == later[3:]
    for _ in range(3):
        guest.consumer.flow(1)
        await stage.settle()
    assert guest.door.ids == later[::-1]


async def test_delays_are_ignored_where_the_namespace_switched_them_off() -> None:
    stage = Stage()
    work = await stage.subscription(limits=Limits(0, 0, delayed_delivery=False))
    entries = stage.publish(1, deliver_at_ms=stage.clock.wall_ms() + 60_000)
    guest = stage.join(work, SHARED, permits=100)
    await stage.settle()
    assert guest.door.ids == entries


# --- seek, skip, expire ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_a_seek_closes_every_consumer_and_starts_at_the_entry_itself(
    kind: SubscriptionType,
) -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(9, key_hash=3)
    guest = stage.join(work, kind, permits=100)
    await stage.settle()
    guest.ack(*entries[:5], entries[7])
    await guest.consumer.seek(entries[2], (), None)
    assert guest.door.closed_with == [None]
    assert not work.consumers
    assert work.backlog == 7
    back = stage.join(work, kind, permits=100)
    await stage.settle()
    assert back.door.ids == entries[2:]
    assert {each.redeliveries for each in back.door.got} == {0}


async def test_a_seek_into_a_batch_restores_what_was_left_of_it() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(3, messages=4)
    guest = stage.join(work, EXCLUSIVE)
    await guest.consumer.seek(entries[1], (0b1110,), None)
    back = stage.join(work, EXCLUSIVE, permits=100)
    await stage.settle()
    assert [(each.id, each.ack_set) for each in back.door.got] == [
        (entries[1], (0b1110,)),
        (entries[2], ()),
    ]


@pytest.mark.parametrize(
    ("where", "first"), [(EARLIEST, 0), (LATEST, 6), (EntryId(0, 5), 0), (EntryId(99, 0), 6)]
)
async def test_a_seek_beyond_either_end_goes_to_that_end(where: EntryId, first: int) -> None:
    stage = Stage()
    work = await stage.subscription(LATEST)
    entries = stage.publish(6)
    guest = stage.join(work, EXCLUSIVE)
    await guest.consumer.seek(where, (), None)
    assert work.backlog == 6 - first
    entries += stage.publish(1)
    back = stage.join(work, EXCLUSIVE, permits=100)
    await stage.settle()
    assert back.door.ids == entries[first:]


async def test_a_seek_by_time_starts_at_the_first_entry_published_since() -> None:
    stage = Stage()
    work = await stage.subscription()
    times = []
    for _ in range(5):
        stage.clock.advance(10)
        times.append(stage.clock.wall_ms())
        stage.publish(1)
    guest = stage.join(work, EXCLUSIVE)
    await guest.consumer.seek(None, (), times[2] - 5)
    assert work.backlog == 3
    await work.reset(time_ms=times[4] + 1)
    assert work.backlog == 0


async def test_a_seek_to_nothing_is_refused() -> None:
    stage = Stage()
    work = await stage.subscription()
    guest = stage.join(work, EXCLUSIVE)
    with pytest.raises(NotAllowedError):
        await guest.consumer.seek(None, (), None)
    assert guest.door.closed_with == []


async def test_nobody_may_join_during_a_seek() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(3)
    stage.log.cold = True
    guest = stage.join(work, EXCLUSIVE)
    task = stage.loop.create_task(guest.consumer.seek(entries[1], (), None))
    await stage.settle()
    assert task.done()

    class Door:
        def closed(self, reason: object) -> None:
            with pytest.raises(ServiceNotReadyError):
                stage.join(work, EXCLUSIVE)

    guest = stage.join(work, EXCLUSIVE)
    guest.consumer.events = Door()  # type: ignore[assignment]
    await guest.consumer.seek(entries[1], (), None)


async def test_after_a_seek_delayed_entries_and_counts_begin_anew() -> None:
    stage = Stage()
    work = await stage.subscription()
    [entry] = stage.publish(1)
    guest = stage.join(work, SHARED, permits=3)
    await stage.settle()
    guest.consumer.redeliver(None, None)
    await stage.settle()
    await guest.consumer.seek(entry, (), None)
    back = stage.join(work, SHARED, permits=3)
    await stage.settle()
    assert [each.redeliveries for each in back.door.got] == [0]


async def test_skipping_takes_the_next_entries_that_are_not_acknowledged() -> None:
    stage = Stage(ledger_entries_max=4)
    work = await stage.subscription()
    entries = stage.publish(12, messages=2)
    guest = stage.join(work, SHARED, permits=4)
    await stage.settle()
    guest.ack(entries[1])
    assert await work.skip(5) == 5
    assert work.mark_delete == entries[5]
    assert work.backlog == 12
    assert await work.skip(100) == 6
    assert work.backlog == 0


async def test_clearing_the_backlog_takes_everything_from_everybody() -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.publish(10, messages=3)
    stage.publish(2, deliver_at_ms=stage.clock.wall_ms() + 5_000)
    guest = stage.join(work, SHARED, permits=6)
    await stage.settle()
    await work.clear_backlog()
    assert work.backlog == 0
    assert guest.consumer.unacked_messages == 0
    guest.consumer.flow(100)
    await stage.loop.advance(6)
    assert len(guest.door.got) == 2


async def test_expiry_takes_what_is_older_and_counts_it() -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.publish(3)
    stage.clock.advance(100)
    entries = stage.publish(2)
    assert await work.expire(50) == 3
    assert work.stats()["totalMsgExpired"] == 3
    guest = stage.join(work, EXCLUSIVE, permits=9)
    await stage.settle()
    assert guest.door.ids == entries
    assert await work.expire_to(entries[0], inclusive=False) == 0
    assert await work.expire_to(entries[0]) == 1
    assert work.backlog == 1


async def test_the_backlog_of_batches_is_right_after_skipping_past_holes() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(10, messages=3)
    guest = stage.join(work, SHARED, permits=30)
    await stage.settle()
    guest.ack(entries[2], entries[3], entries[7])
    await work.expire_to(entries[4])
    assert work.backlog == 12


async def test_peeking_shows_the_backlog_and_moves_nothing() -> None:
    stage = Stage(ledger_entries_max=4)
    work = await stage.subscription()
    entries = stage.publish(9)
    guest = stage.join(work, SHARED, permits=9)
    await stage.settle()
    guest.ack(*entries[1:6])
    shown = [await work.peek(number) for number in range(1, 6)]
    assert [each.id for each in shown if each] == [entries[0], *entries[6:]]
    assert shown[4] is None
    assert shown[1] is not None
    assert (shown[1].body, shown[1].envelope.messages) == (b"6", 1)
    stage.log.damage(entries[0], entries[0])
    with pytest.raises(PersistenceError):
        await work.peek(1)


@pytest.mark.parametrize("damaged", [1, 2, 5, 9, 10, 14])
async def test_the_last_message_is_the_last_one_that_can_be_read(damaged: int) -> None:
    stage = Stage(ledger_entries_max=10)
    work = await stage.subscription()
    entries = stage.publish(15)
    guest = stage.join(work, EXCLUSIVE)
    stage.log.damage(entries[-damaged], entries[-1])
    assert (await guest.consumer.last_message()).entry == entries[-damaged - 1]


async def test_what_is_readable_between_two_gaps_is_not_overlooked() -> None:
    stage = Stage(ledger_entries_max=50)
    work = await stage.subscription()
    entries = stage.publish(40)
    guest = stage.join(work, EXCLUSIVE)
    stage.log.damage(entries[36], entries[39])
    stage.log.damage(entries[20], entries[34])
    assert (await guest.consumer.last_message()).entry == entries[35]


async def test_a_topic_of_which_nothing_can_be_read_has_no_last_message() -> None:
    stage = Stage(ledger_entries_max=10)
    work = await stage.subscription()
    entries = stage.publish(15)
    guest = stage.join(work, EXCLUSIVE)
    stage.log.damage(entries[0], entries[9])
    stage.log.damage(entries[10], entries[14])
    assert (await guest.consumer.last_message()).entry == EARLIEST


async def test_the_last_message_tells_its_batch_size_and_the_mark() -> None:
    stage = Stage()
    work = await stage.subscription()
    guest = stage.join(work, EXCLUSIVE, permits=9)
    assert (await guest.consumer.last_message()).entry == EARLIEST
    first, last = stage.publish(1)[0], stage.publish(1, messages=7)[0]
    work.wake()
    await stage.settle()
    guest.ack(first)
    assert await guest.consumer.last_message() == (last, 7, first)


# --- non-durable -------------------------------------------------------------------------


async def test_a_reader_starts_at_the_entry_it_names() -> None:
    stage = Stage()
    entries = stage.publish(5)
    work = await stage.subscription(entries[2], durable=False)
    guest = stage.join(work, EXCLUSIVE, permits=9)
    await stage.settle()
    assert guest.door.ids == entries[2:]
    guest.ack(entries[2])
    assert not work.changed
    assert stage.home.changed == []


# --- the end of a topic ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_the_end_of_a_terminated_topic_is_told_once_everything_is_delivered(
    kind: SubscriptionType,
) -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.publish(5)
    guest = stage.join(work, kind, permits=4)
    await stage.settle()
    work.terminate()
    await stage.settle()
    assert guest.door.ends == 0
    guest.consumer.flow(4)
    await stage.settle()
    work.wake()
    await stage.settle()
    assert guest.door.ends == 1


# --- figures -----------------------------------------------------------------------------


async def test_stats_have_pulsars_keys_and_current_figures() -> None:
    stage = Stage()
    work = await stage.subscription(properties={"a": "1"})
    stage.publish(4, messages=2)
    guest = stage.join(work, KEY_SHARED, "me", permits=100, client_address="here:1")
    await stage.settle()
    guest.ack(guest.door.ids[0])
    stats = work.stats()
    assert stats["type"] == "Key_Shared"
    assert stats["msgOutCounter"] == 8
    assert stats["bytesOutCounter"] == sum(len(each.body) for each in guest.door.got)
    assert stats["unackedMessages"] == 6
    assert stats["subscriptionProperties"] == {"a": "1"}
    assert stats["keySharedMode"] == "AUTO_SPLIT"
    [consumer] = stats["consumers"]
    assert consumer["consumerName"] == "me"
    assert consumer["availablePermits"] == 92
    assert consumer["keyHashRanges"] == ["[0, 65535]"]
    assert work.internal_stats()["markDeletePosition"] == str(guest.door.ids[0])
    assert guest.consumer.stats().unacked == 6


async def test_rates_are_per_second() -> None:
    stage = Stage()
    work = await stage.subscription()
    guest = stage.join(work, EXCLUSIVE, permits=1000)
    work.stats()
    stage.publish(50)
    work.wake()
    await stage.settle()
    stage.clock.advance(5)
    assert work.stats()["msgRateOut"] == pytest.approx(10)
    assert guest.consumer.stats().message_rate == pytest.approx(10)


# --- small and large ---------------------------------------------------------------------


def size_of(thing: object, seen: set[int]) -> int:
    """Return the bytes of an object and what it alone holds."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    size = sys.getsizeof(thing)
    if isinstance(thing, dict):
        size += sum(size_of(k, seen) + size_of(v, seen) for k, v in thing.items())
    elif isinstance(thing, list | tuple | set):
        size += sum(size_of(each, seen) for each in thing)
    for kind in type(thing).__mro__:
        for slot in getattr(kind, "__slots__", ()):
            if hasattr(thing, slot):
                size += size_of(getattr(thing, slot), seen)
    return size


async def test_an_idle_subscription_is_small() -> None:
    stage = Stage()
    work: Subscription = await stage.subscription()
    shared = [stage.log, stage.ground, stage.home, work.topic, work.limits, work.type, work.name]
    seen = {id(each) for each in shared}
    assert size_of(work, seen) < 2_400


async def test_a_stuck_consumer_costs_less_than_a_megabyte() -> None:
    stage = Stage()
    work = await stage.subscription()
    stage.publish(1)
    stage.log.ledgers[0].rows *= 60_000
    stage.log.ledgers[0].bodies *= 60_000
    stage.log.next_index = 60_000
    stuck: Guest = stage.join(work, SHARED, permits=100_000)
    for _ in range(12):
        await stage.settle()
    assert stuck.consumer.unacked_messages == 50_000
    assert size_of(stuck.consumer.unacked, set()) < 50_000
    stuck.consumer.acknowledge([Acknowledged(1, i) for i in range(50_000)], cumulative=False)
    await stage.settle()
    assert work.backlog == 10_000


# --- what random lives found -------------------------------------------------------------


async def test_an_acknowledged_due_entry_does_not_hide_the_next_one() -> None:
    stage = Stage(settings={"dispatch_entries_max": 1})
    work = await stage.subscription()
    first, second = stage.publish(2, deliver_at_ms=stage.clock.wall_ms() + 1_000)
    guest = stage.join(work, SHARED, permits=1)
    [taken] = stage.publish(1)
    work.wake()
    await stage.settle()
    assert guest.door.ids == [taken]
    await stage.loop.advance(2)
    guest.ack(first)
    guest.consumer.flow(5)
    await stage.settle()
    assert guest.door.ids == [taken, second]


@pytest.mark.parametrize("kind", ALL)
async def test_a_cold_read_across_the_end_of_a_ledger_is_used(kind: SubscriptionType) -> None:
    stage = Stage(ledger_entries_max=5)
    work = await stage.subscription()
    stage.log.cold = True
    entries = stage.publish(12, key_hash=2)
    guest = stage.join(work, kind, permits=100)
    await stage.settle()
    assert guest.door.ids == entries
    assert stage.log.reads <= 4


async def test_acknowledging_unread_batches_keeps_the_backlog_right() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(6, messages=4)
    guest = stage.join(work, EXCLUSIVE)
    guest.ack(entries[1])
    assert work.backlog == 20
    guest.ack(entries[3], cumulative=True)
    assert work.backlog == 8


async def test_an_estimated_backlog_survives_a_restart_and_is_set_right_by_reading() -> None:
    stage = Stage()
    work = await stage.subscription()
    entries = stage.publish(6, messages=4)
    stage.log.cold = True
    guest = stage.join(work, EXCLUSIVE)
    guest.ack(*entries[:3])
    assert work.backlog == 21
    stage.log.cold = False
    again = await stage.subscription(cursor=Cursor.restore(work.take_changes()))
    stage.join(again, EXCLUSIVE, permits=1)
    await stage.settle()
    assert again.backlog == 12

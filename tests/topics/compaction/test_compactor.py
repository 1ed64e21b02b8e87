"""Compaction on a whole core: what survives, who sees it, and what a crash leaves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata.compactions import Compactions
from magnetar.broker.metadata.holdings import load_facts
from magnetar.broker.metadata.policies import Retention
from magnetar.broker.port import (
    Acknowledged,
    NotAllowedError,
    PortError,
    Selection,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.run import Run
from magnetar.broker.storage.stock import unowned
from magnetar.broker.topics.compaction import last_of_key
from magnetar.broker.topics.compaction.compacted import Status
from magnetar.broker.topics.compaction.compactor import AGAIN_S, AlreadyRunningError
from magnetar.broker.topics.duties import Duties
from magnetar.broker.topics.topic import Topic
from magnetar.broker.topics.upkeep import keep_up
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName
from tests.topics.bodies import Read, Said, Written, batch, chunks, read, run_of, single
from tests.topics.whole_core import Client, ConsumerDoor, Core, Listener, enact_policies

T = TopicName.parse("t")
CODECS = (api.NONE, api.LZ4, api.ZLIB, api.ZSTD, api.SNAPPY)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    core = await Core(tmp_path / "data", ledger_entries_max=10).start()
    yield core
    await core.stop()


class Reader(ConsumerDoor):
    """Opens what it gets, as a client does."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[Read] = []
        self.core: Core
        self.listener: Listener

    def deliver(self, run: Run, selection: Selection) -> bool:
        for row in selection.rows:
            at = EntryId(selection.ledger, selection.first_entry + row)
            self.read += read(at, bytes(run.body(row)), selection.ack_sets.get(row, ()))
        return super().deliver(run, selection)

    async def settled(self) -> list[Read]:
        """What was read once nothing more comes."""
        before = -1
        while before != len(self.received):
            before = len(self.received)
            await self.core.settled()
        return self.read


async def publish(core: Core, *written: Written, topic: str = "t") -> list[EntryId]:
    producer: Client = await core.producer(topic)
    places = []
    for start in range(0, len(written), 5):
        for _, place in await producer.post(run_of(written[start : start + 5])):
            assert not isinstance(place, PortError), place
            places.append(place)
    await producer.producer.close()
    return places


async def compact(core: Core, topic: str = "t") -> Topic:
    found = await core.catalog.topic(TopicName.parse(topic))
    core.catalog.compactor.start(found)
    await ended(found)
    assert found.compacted is not None
    assert found.compacted.status is Status.SUCCESS, found.compacted.error
    return found


async def ended(topic: Topic) -> None:
    side = topic.compacted
    assert side is not None
    assert side.task is not None
    await asyncio.wait([side.task], timeout=30)


async def reader(core: Core, name: str = "reader", permits: int = 10_000, **options: Any) -> Reader:

    door = Reader()
    door.core = core
    request = SubscribeRequest(
        T,
        name,
        **{"durable": False, "start": EARLIEST, "read_compacted": True, **options},
    )
    consumer = await core.catalog.subscribe(request, door)
    door.listener = Listener(door, consumer)
    consumer.flow(permits)
    return door


async def view(core: Core, **options: Any) -> list[tuple[str | None, bytes | None]]:
    door = await reader(core, **options)
    found = [(each.key, each.value) for each in await door.settled()]
    await door.listener.consumer.close()
    return found


def say(*pairs: tuple[str | None, bytes | None]) -> list[Written]:
    return [single(Said(*each)) for each in pairs]


# --- what survives


async def test_the_last_message_of_every_key_survives_in_its_place(core: Core) -> None:
    places = await publish(core, *say(("a", b"1"), ("b", b"1"), ("a", b"2"), ("c", b"1")))
    await compact(core)
    door = await reader(core)
    found = await door.settled()
    assert [(each.id, each.key, each.value) for each in found] == [
        (places[1], "b", b"1"),
        (places[2], "a", b"2"),
        (places[3], "c", b"1"),
    ]


async def test_who_does_not_ask_for_the_view_gets_everything(core: Core) -> None:
    await publish(core, *say(("a", b"1"), ("a", b"2")))
    await compact(core)
    assert await view(core, read_compacted=False) == [("a", b"1"), ("a", b"2")]


async def test_a_null_or_an_empty_message_deletes_its_key(core: Core) -> None:
    await publish(core, *say(("a", b"1"), ("b", b"1"), ("c", b"1"), ("a", None), ("b", b"")))
    await compact(core)
    assert await view(core) == [("c", b"1")]


async def test_what_was_deleted_may_come_back(core: Core) -> None:
    await publish(core, *say(("a", b"1"), ("a", None), ("a", b"2")))
    await compact(core)
    assert await view(core) == [("a", b"2")]


async def test_messages_without_a_key_are_left_out(core: Core) -> None:
    await publish(core, *say((None, b"x"), ("a", b"1"), (None, b"y")))
    await compact(core)
    assert await view(core) == [("a", b"1")]


async def test_messages_without_a_key_stay_where_that_is_set(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", compaction_retain_null_key=True).start()
    await publish(core, *say((None, b"x"), ("a", b"1"), ("a", b"2")))
    await publish(core, batch([Said(None, b"y"), Said("a", b"3")]))
    await compact(core)
    assert await view(core) == [(None, b"x"), (None, b"y"), ("a", b"3")]
    await core.stop()


@pytest.mark.parametrize("codec", CODECS)
async def test_a_batch_keeps_its_survivors_and_their_indexes(
    core: Core, codec: api.CompressionType
) -> None:
    said = [Said("a", b"1" * 50), Said("b", b"2" * 50), Said("c", b"3" * 50)]
    places = await publish(core, batch(said, codec), single(Said("b", b"new")))
    await compact(core)
    found = await (await reader(core)).settled()
    assert found == [
        Read(places[0], 0, "a", b"1" * 50),
        Read(places[0], 2, "c", b"3" * 50),
        Read(places[1], -1, "b", b"new"),
    ]


async def test_a_batch_of_which_all_survives_is_not_touched(core: Core) -> None:
    whole = batch([Said("a", b"1"), Said("b", b"2")], api.ZSTD)
    await publish(core, whole)
    await compact(core)
    door = await reader(core)
    await door.settled()
    assert [body for _, body in door.received] == [whole.body]


async def test_a_batch_can_shrink_more_than_once(core: Core) -> None:
    await publish(core, batch([Said("a", b"1"), Said("b", b"2"), Said("c", b"3")], api.LZ4))
    await publish(core, *say(("a", b"4")))
    await compact(core)
    await publish(core, *say(("b", None)))
    await compact(core)
    assert await view(core) == [("c", b"3"), ("a", b"4")]
    await publish(core, *say(("c", None)))
    await compact(core)
    assert await view(core) == [("a", b"4")]


async def test_an_encrypted_batch_stays_whole(core: Core) -> None:
    sealed = batch([Said("a", b"1"), Said("a", b"2")], encrypted=True)
    await publish(core, *say(("a", b"0")), sealed, *say(("a", b"3")))
    await compact(core)
    door = await reader(core)
    await door.settled()
    assert [body for _, body in door.received] == [sealed.body, *(e.body for e in say(("a", b"3")))]


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff\xff", b"\0\0\0\2\x08\x07rest"])
async def test_a_body_that_nobody_can_read_stays_as_it_is(core: Core, body: bytes) -> None:
    await publish(core, *say(("a", b"1")), Written(body), *say(("a", b"2")))
    await compact(core)
    door = Reader()
    door.core = core
    door.deliver = lambda run, selection: ConsumerDoor.deliver(door, run, selection)  # type: ignore[method-assign]

    request = SubscribeRequest(T, "r", durable=False, start=EARLIEST, read_compacted=True)
    (await core.catalog.subscribe(request, door)).flow(10)
    await door.settled()
    assert [each for _, each in door.received] == [body, say(("a", b"2"))[0].body]


async def test_contents_that_claim_to_be_huge_are_left_alone(core: Core) -> None:
    bomb = batch([Said("a", b"1")], api.ZLIB)
    about = api.MessageMetadata.FromString(bomb.body[4 : 4 + bomb.body[3]])
    about.uncompressed_size = 2**31
    part = about.SerializeToString()
    evil = Written(
        len(part).to_bytes(4, "big") + part + bomb.body[4 + bomb.body[3] :], 1, bomb.flags
    )
    await publish(core, evil, *say(("a", b"2")))
    await compact(core)
    door = await reader(core, permits=0)
    door.deliver = lambda run, selection: ConsumerDoor.deliver(door, run, selection)  # type: ignore[method-assign]
    door.listener.consumer.flow(10)
    await door.settled()
    assert len(door.received) == 2


async def test_a_chunked_message_stays_or_goes_whole(core: Core) -> None:
    old = chunks(Said("a", b"old" * 10), "u1", 3)
    new = chunks(Said("a", b"new" * 10), "u2", 3)
    await publish(core, *old, *say(("b", b"1")), *new)
    await compact(core)
    door = await reader(core)
    await door.settled()
    assert [body for _, body in door.received] == [
        say(("b", b"1"))[0].body,
        *(each.body for each in new),
    ]


async def test_chunks_whose_end_is_still_to_come_stay(core: Core) -> None:
    first, second = chunks(Said("a", b"new" * 10), "u", 2)
    await publish(core, *say(("a", b"1")), first)
    await compact(core)
    await publish(core, second)
    door = await reader(core)
    await door.settled()
    assert [body for _, body in door.received][-2:] == [first.body, second.body]
    await compact(core)
    door = await reader(core, "another")
    await door.settled()
    assert [body for _, body in door.received] == [first.body, second.body]


async def test_chunks_without_a_beginning_are_left_out(core: Core) -> None:
    _, second = chunks(Said("a", b"new" * 10), "u", 2)
    await publish(core, second, *say(("a", b"1")))
    await compact(core)
    assert await view(core) == [("a", b"1")]


# --- against a model

KEYS = st.sampled_from(["a", "b", "c", "d", None])
SAID = st.builds(Said, KEYS, st.one_of(st.none(), st.just(b""), st.binary(min_size=1, max_size=30)))
ENTRY = st.one_of(
    st.builds(single, SAID, st.sampled_from(CODECS)),
    st.builds(batch, st.lists(SAID, min_size=1, max_size=5), st.sampled_from(CODECS)),
)


def last_values(entries: Sequence[Written]) -> list[tuple[str, bytes]]:
    """What a plain dictionary makes of it, in the order of the last messages."""
    state: dict[str, bytes] = {}
    for entry in entries:
        for _, _, key, value in read(EARLIEST, entry.body):
            if key is not None:
                state.pop(key, None)
                if value:
                    state[key] = value
    return list(state.items())


@given(rounds=st.lists(st.lists(ENTRY, max_size=12), min_size=1, max_size=4), tail=st.lists(ENTRY))
@settings(max_examples=40)
async def test_the_view_is_what_a_dictionary_would_hold(
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[list[Written]],
    tail: list[Written],
) -> None:
    core = await Core(tmp_path_factory.mktemp("model") / "data", ledger_entries_max=5).start()
    everything: list[Written] = []
    for entries in rounds:
        await publish(core, *entries)
        everything += entries
        if everything:
            await compact(core)
    await publish(core, *tail)
    shown = [
        (each.key, b"" if each.value is None else each.value)
        for entry in tail
        for each in read(EARLIEST, entry.body)
    ]
    if everything or tail:
        found = [(key, value or b"") for key, value in await view(core)]
        assert found == last_values(everything) + shown
    await core.stop()


# --- who reads it


async def test_a_view_is_read_up_to_its_horizon_and_then_the_log(core: Core) -> None:
    await publish(core, *say(*((f"k{i % 3}", b"%d" % i) for i in range(25))))
    await compact(core)
    await publish(core, *say(("k0", b"x"), ("k0", b"y")))
    assert await view(core) == [
        ("k1", b"22"),
        ("k2", b"23"),
        ("k0", b"24"),
        ("k0", b"x"),
        ("k0", b"y"),
    ]


async def test_a_reader_may_begin_in_the_middle_of_a_view(core: Core) -> None:
    places = await publish(core, *say(*((f"k{i}", b"%d" % i) for i in range(30))))
    await publish(core, *say(*((f"k{i}", None) for i in range(0, 30, 3))))
    await compact(core)
    found = await (await reader(core, start=places[12])).settled()
    assert [each.id for each in found] == [places[i] for i in range(12, 30) if i % 3]


async def test_few_permits_are_enough(core: Core) -> None:
    await publish(core, *say(*((f"k{i % 7}", b"%d" % i) for i in range(40))))
    await compact(core)
    door = await reader(core, permits=1)
    for _ in range(8):
        await door.settled()
        door.listener.consumer.flow(1)
    assert [each.value for each in await door.settled()] == [b"%d" % i for i in range(33, 40)]


async def test_a_durable_subscription_is_done_when_it_has_acknowledged_what_it_got(
    core: Core,
) -> None:
    places = await publish(core, *say(*((f"k{i % 3}", b"%d" % i) for i in range(25))))
    topic = await compact(core)
    door = await reader(core, name="s", durable=True, start=None, from_earliest=True)
    found = await door.settled()
    assert len(found) == 3
    for each in found:
        door.listener.acknowledge(each.id)
    subscription = topic.readers[0]
    assert subscription.mark_delete == places[-1]
    assert subscription.backlog_entries == 0


async def test_a_backlog_knows_how_many_messages_a_view_has_left_out(core: Core) -> None:
    written = [batch([Said(f"k{n % 3}", b"%d" % n) for _ in range(4)]) for n in range(9)]
    await publish(core, *written)
    await publish(core, *say(("x", b"1"), ("x", b"2")))
    topic = await compact(core)
    door = await reader(core, name="s", durable=True, start=None, from_earliest=True)
    assert len(await door.settled()) == 3 + 1, "three batches, and one message"
    [subscription] = topic.readers
    assert subscription.backlog == 3 * 4 + 1, "not what no batch is left of"
    for each in door.read:
        door.listener.acknowledge(each.id)
    assert subscription.backlog == 0
    assert not subscription.cursor.estimated


async def test_what_was_acknowledged_of_a_view_does_not_come_again(core: Core) -> None:
    await publish(core, *say(*((f"k{i % 3}", b"%d" % i) for i in range(25))))
    await compact(core)
    door = await reader(core, name="s", durable=True, start=None, from_earliest=True)
    found = await door.settled()
    door.listener.acknowledge(found[1].id)
    await door.listener.consumer.close()
    again = await reader(core, name="s", durable=True, start=None)
    assert [each.value for each in await again.settled()] == [found[0].value, found[2].value]


async def test_a_batch_that_shrank_is_done_when_its_rest_is(core: Core) -> None:
    said = [Said("a", b"1"), Said("b", b"2"), Said("c", b"3")]
    [place] = await publish(core, batch(said, api.LZ4))
    await publish(core, *say(("b", b"new")))
    topic = await compact(core)
    door = await reader(core, name="s", durable=True, start=None, from_earliest=True)
    await door.settled()

    consumer = door.listener.consumer
    consumer.acknowledge([Acknowledged(*place, [0b110])], cumulative=False)
    assert topic.readers[0].cursor.ack_sets
    consumer.acknowledge([Acknowledged(*place, [0b011])], cumulative=False)
    assert not topic.readers[0].cursor.ack_sets
    assert topic.readers[0].mark_delete == place


@pytest.mark.parametrize("kind", [SubscriptionType.SHARED, SubscriptionType.KEY_SHARED])
async def test_only_one_at_a_time_may_read_a_view(core: Core, kind: SubscriptionType) -> None:
    with pytest.raises(NotAllowedError, match="compacted"):
        await reader(core, name="s", type=kind, durable=True, start=None)
    assert not (await core.catalog.topic(T)).subscriptions


async def test_a_topic_that_is_not_stored_has_no_view(core: Core) -> None:
    fleeting = "non-persistent://public/default/t"
    with pytest.raises(NotAllowedError, match="compacted"):
        await core.consumer(fleeting, read_compacted=True)


async def test_a_failover_subscription_reads_the_view(core: Core) -> None:
    await publish(core, *say(("a", b"1"), ("a", b"2")))
    await compact(core)
    assert await view(
        core, durable=True, start=None, from_earliest=True, type=SubscriptionType.FAILOVER
    ) == [("a", b"2")]


async def test_the_last_message_is_the_last_survivor_while_nothing_newer_is_there(
    core: Core,
) -> None:
    said = [Said("a", b"1"), Said("b", b"2"), Said("c", b"3")]
    [place] = await publish(core, batch(said))
    await publish(core, *say(("c", None)))
    await compact(core)
    last = await (await reader(core)).listener.consumer.last_message()
    assert (last.entry, last.batch_size) == (place, 2)
    [newest] = await publish(core, *say(("x", b"y")))
    assert (await (await reader(core, "2")).listener.consumer.last_message()).entry == newest


async def test_nothing_is_the_last_message_of_an_empty_view(core: Core) -> None:
    await publish(core, *say(("c", b"1"), ("c", None)))
    await compact(core)
    last = await (await reader(core)).listener.consumer.last_message()
    assert last.entry == EARLIEST


async def test_a_reader_within_a_view_misses_no_deletion_when_the_next_view_comes(
    core: Core,
) -> None:
    await publish(core, *say(("a", b"1"), ("b", b"1")))
    await compact(core)
    door = await reader(core, permits=1)
    await door.settled()
    await publish(core, *say(("a", None)))
    await compact(core)
    door.listener.consumer.flow(100)
    state: dict[str | None, bytes] = {}
    for each in await door.settled():
        state.pop(each.key, None)
        if each.value:
            state[each.key] = each.value
    assert state == {"b": b"1"}


# --- what is kept


async def test_the_view_outlives_what_retention_drops(core: Core) -> None:
    places = await publish(core, *say(*((f"k{i}", b"%d" % i) for i in range(35))))
    await enact_policies(core, retention=Retention(time_min=0, size_mib=0))
    topic = await compact(core)
    assert await keep_up(topic, core.clock) == 3
    assert topic.log.first == places[30]
    door = await reader(core)
    assert [each.id for each in await door.settled()] == places
    middle = await reader(core, "middle", start=places[15])
    assert [each.id for each in await middle.settled()] == places[15:]
    durable = await reader(core, "s", durable=True, start=None, from_earliest=True)
    for each in await durable.settled():
        durable.listener.acknowledge(each.id)
    [mine] = [each for each in topic.readers if each.name == "s"]
    assert (mine.backlog, mine.mark_delete) == (0, places[-1])


async def test_compaction_goes_on_from_the_view_when_the_log_is_trimmed(core: Core) -> None:
    await publish(core, *say(*((f"k{i}", b"%d" % i) for i in range(35))))
    await enact_policies(core, retention=Retention(time_min=0, size_mib=0))
    topic = await compact(core)
    await keep_up(topic, core.clock)
    await publish(core, *say(("k0", None), ("k1", b"new")))
    await compact(core)
    found = await view(core)
    assert found == [(f"k{i}", b"%d" % i) for i in range(2, 35)] + [("k1", b"new")]


async def test_what_compaction_has_not_seen_is_not_trimmed(core: Core) -> None:
    await publish(core, *say(("a", b"1")))
    topic = await compact(core)
    await publish(core, *say(*((f"k{i}", b"%d" % i) for i in range(35))))
    await enact_policies(core, retention=Retention(time_min=0, size_mib=0))
    assert await keep_up(topic, core.clock) == 0
    await compact(core)
    assert await keep_up(topic, core.clock) == 3


async def test_the_former_view_is_given_back(core: Core) -> None:
    await publish(core, *say(("a", b"1")))
    topic = await compact(core)
    assert topic.compacted is not None
    assert topic.compacted.view is not None
    former = topic.compacted.view.ledger
    await publish(core, *say(("b", b"1")))
    await compact(core)
    await core.ledgers.flush()
    assert list(await Compactions(core.store, T).load()) == [topic.compacted.view.ledger]
    assert former in await core.catalog._duties._dropped.list()


async def test_a_deleted_topic_takes_its_view_with_it(core: Core) -> None:
    await publish(core, *say(("a", b"1")))
    topic = await compact(core)
    assert topic.compacted is not None
    assert topic.compacted.view is not None
    ledger = topic.compacted.view.ledger
    await core.catalog.delete(T, force=True)
    assert await Compactions(core.store, T).load() == {}
    assert ledger in await core.catalog._duties._dropped.list()


# --- when it runs


async def test_nothing_new_is_a_success(core: Core) -> None:
    await publish(core, *say(("a", b"1")))
    topic = await compact(core)
    assert topic.compacted is not None
    before = topic.compacted.view
    await compact(core)
    assert topic.compacted.view is before


async def test_a_topic_is_compacted_once_at_a_time(core: Core) -> None:
    await publish(core, *say(("a", b"1")))
    topic = await core.catalog.topic(T)
    core.catalog.compactor.start(topic)
    with pytest.raises(AlreadyRunningError):
        core.catalog.compactor.start(topic)
    await ended(topic)


async def test_enough_new_bytes_start_it(core: Core) -> None:
    await enact_policies(core, compaction_threshold=1000)
    await publish(core, *say(("a", b"1" * 400)))
    topic = await core.catalog.topic(T)
    await core.catalog._duties.keep_up()
    assert topic.compacted is None
    await publish(core, *say(("a", b"2" * 800)))
    await core.catalog._duties.keep_up()
    await ended(topic)
    assert await view(core) == [("a", b"2" * 800)]
    assert topic.compacted is not None
    done = topic.compacted.task
    await core.catalog._duties.keep_up()
    assert topic.compacted.task is done


async def test_what_failed_is_not_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    core = await Core(tmp_path / "data", clock).start()
    await enact_policies(core, compaction_threshold=1)
    monkeypatch.setattr(Duties, "_judge_disk", lambda _: None)  # the disk is not full in truth
    await publish(core, *say(("a", b"1")))
    core.catalog.trouble.limit = "the disk is full"
    await core.catalog._duties.keep_up()
    topic = await core.catalog.topic(T)
    await ended(topic)
    assert topic.compacted is not None
    failed = topic.compacted.task
    core.catalog.trouble.limit = ""
    await core.catalog._duties.keep_up()
    assert topic.compacted.task is failed
    clock.advance(AGAIN_S)
    await core.catalog._duties.keep_up()
    assert topic.compacted.task is not failed
    await ended(topic)
    assert topic.compacted.status is Status.SUCCESS
    await core.stop()


async def test_figures_tell_what_it_did(core: Core) -> None:
    await publish(core, *say(("a", b"1"), ("a", b"2"), ("b", None)))
    topic = await compact(core)
    shown = topic.stats()["compaction"]
    assert shown["lastCompactionRemovedEventCount"] == 2
    assert shown["lastCompactionSucceedTimestamp"] > 0
    internal = await topic.internal_stats()
    assert internal["compactedLedger"]["entries"] == 1
    assert internal["cursors"]["__compaction"]["markDeletePosition"] == str(topic.log.last)


# --- crashes


async def test_a_view_survives_a_restart(core: Core, tmp_path: Path) -> None:
    await publish(core, *say(("a", b"1"), ("a", b"2")))
    await compact(core)
    other = await core.crashed(tmp_path / "copy").start()
    assert await view(other) == [("a", b"2")]
    topic = await other.catalog.topic(T)
    assert topic.stats()["compaction"]["lastCompactionRemovedEventCount"] == 1
    await other.stop()


STEPS = ["begin", "append", "seal", "finish before", "finish after"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_leaves_the_old_view_or_the_new_one(  # noqa: C901 - one hook per step
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await publish(core, *say(("a", b"1"), ("b", b"1")))
    await compact(core)
    await publish(core, *say(("a", b"2"), ("b", None)))
    copies: list[Core] = []

    def crash() -> None:
        if not copies:
            copies.append(core.crashed(tmp_path / "copy"))

    whole_begin, whole_finish = Compactions.begin, Compactions.finish
    whole_append, whole_seal = core.ledgers.append, core.ledgers.seal

    async def begin(self: Compactions, *arguments: Any) -> int:
        ledger = await whole_begin(self, *arguments)
        if step == "begin":
            crash()
        return ledger

    async def finish(self: Compactions, *arguments: Any) -> None:
        if step == "finish before":
            crash()
        await whole_finish(self, *arguments)
        if step == "finish after":
            crash()

    def append(*arguments: Any) -> None:
        whole_append(*arguments)
        if step == "append":
            crash()

    async def seal(ledger: int) -> int:
        end = await whole_seal(ledger)
        if step == "seal":
            crash()
        return end

    monkeypatch.setattr(Compactions, "begin", begin)
    monkeypatch.setattr(Compactions, "finish", finish)
    monkeypatch.setattr(core.ledgers, "append", append)
    monkeypatch.setattr(core.ledgers, "seal", seal)
    await compact(core)
    [other] = copies
    await other.start()
    old = [("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", None)]
    new = [("a", b"2")]
    assert await view(other) == (new if step == "finish after" else old)
    known = await Compactions(other.store, T).load()
    assert len(known) == 1
    assert not other.recovered.gaps
    await compact(other)
    assert await view(other) == new
    await other.ledgers.flush()
    facts = await load_facts(other.store)
    assert unowned(facts, other.ledgers.stored.ledgers()) == []
    assert facts.dropped  # the former view, and what a crash left
    await other.stop()


async def test_a_topic_that_is_closed_meanwhile_keeps_its_old_view(core: Core) -> None:
    await publish(core, *say(("a", b"1")))
    await compact(core)
    await publish(core, *say(*((f"k{i}", b"%d" % i) for i in range(50))))
    topic = await core.catalog.topic(T)
    core.catalog.compactor.start(topic)
    await asyncio.sleep(0)
    await core.catalog.unload(T)
    assert len(await Compactions(core.store, T).load()) == 1
    assert (await view(core))[0] == ("a", b"1")


async def test_a_failure_is_an_error_with_its_reason(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Duties, "_judge_disk", lambda _: None)  # the disk is not full in truth
    await publish(core, *say(("a", b"1")))
    core.catalog.trouble.limit = "the disk is full"
    topic = await core.catalog.topic(T)
    core.catalog.compactor.start(topic)
    await ended(topic)
    side = topic.compacted
    assert side is not None
    assert (side.status, side.error) == (Status.ERROR, "the disk is full")
    assert await Compactions(core.store, T).load() == {}
    core.catalog.trouble.limit = ""
    await compact(core)


# --- memory


async def test_more_keys_than_memory_take_more_rounds(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(last_of_key, "_SETTLE_AT", 1)
    monkeypatch.setattr(last_of_key, "PARTS", 64)
    object.__setattr__(core.config, "compaction_memory_bytes_max", 100 * 16)
    await publish(core, *say(*((f"k{i % 500}", b"%d" % i) for i in range(1000))))
    await compact(core)
    assert await view(core) == [(f"k{i}", b"%d" % (500 + i)) for i in range(500)]


# --- damage


async def restarted_with_damage(core: Core, body: bytes, *, newest: bool) -> Core:
    """Restart on the same folder, with one byte of a body changed in one of the entry logs."""
    await core.stop()
    logs = sorted(
        (core.config.data / "entries").glob("*.log"), key=lambda path: path.stat().st_mtime_ns
    )
    [*_, log] = logs if newest else logs[:1]
    content = bytearray(log.read_bytes())
    content[content.index(body) + len(body) - 1] ^= 1
    log.write_bytes(content)
    again = Core(core.config.data, core.clock, ledger_entries_max=10)
    return await again.start()


async def test_what_is_damaged_in_the_log_is_left_out_and_counted(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", ledger_entries_max=10).start()
    await publish(core, *say(("a", b"first"), ("a", b"damaged"), ("b", b"other")))
    core = await restarted_with_damage(core, b"damaged", newest=True)
    await compact(core)
    assert await view(core) == [("a", b"first"), ("b", b"other")]
    assert core.catalog.compactor._lost.value == 1
    await core.stop()


async def test_a_damaged_view_is_made_anew_from_the_log(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", ledger_entries_max=10).start()
    await publish(core, *say(("a", b"1"), ("b", b"value-b"), ("a", b"value-a")))
    await core.ledgers.flush()
    await compact(core)
    core = await restarted_with_damage(core, b"value-b", newest=True)
    # A reader goes over to the log, which has all that there was: more than the view.
    assert await view(core) == [("a", b"1"), ("b", b"value-b"), ("a", b"value-a")]
    await publish(core, *say(("c", b"value-c")))
    await compact(core)
    left = [("b", b"value-b"), ("a", b"value-a"), ("c", b"value-c")]
    assert await view(core, name="2") == left
    await core.stop()


async def test_a_damaged_view_without_a_log_loses_only_what_is_damaged(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", ledger_entries_max=10).start()
    await publish(core, *say(*((f"k{n}", b"value-%d." % n) for n in range(25))))
    await enact_policies(core, retention=Retention(time_min=0, size_mib=0))
    await core.ledgers.flush()
    topic = await compact(core)
    assert await keep_up(topic, core.clock) == 2
    core = await restarted_with_damage(core, b"value-7.", newest=True)
    kept = [(f"k{n}", b"value-%d." % n) for n in range(25) if n != 7]
    assert await view(core) == kept
    await publish(core, *say(("new", b"x")))
    await compact(core)
    assert await view(core, name="2") == [*kept, ("new", b"x")]
    await core.stop()


# --- the event loop


async def test_a_large_batch_does_not_hold_the_loop(core: Core) -> None:
    """How often others had their turn is counted: what a machine makes of it is not timed here."""
    said = [Said(f"k{n % 1000}", b"x" * 20) for n in range(20_000)]
    await publish(core, batch(said, api.ZSTD), batch(said[:10_000], api.LZ4))
    turns, running = 0, True

    async def watch() -> None:
        nonlocal turns
        while running:
            await asyncio.sleep(0)
            turns += 1

    watching = asyncio.create_task(watch())
    await compact(core)
    running = False
    await watching
    assert turns > 50
    assert len(await view(core)) == 1000

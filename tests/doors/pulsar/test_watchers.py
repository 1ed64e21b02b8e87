"""Topic list watchers: what a client is told as topics come and go."""

import asyncio
from typing import Any

import pytest

from magnetar.broker.doors.pulsar import watchers as watchers_module
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.broker.wire.pulsar.commands import topics_hash
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.pulsar.conftest import Rig
from tests.doors.raw_client import RawClient, command

PREFIX = "persistent://public/default/"


async def watch(
    client: RawClient, pattern: str = "public/default/a.*", watcher: int = 1, **fields: Any
) -> Any:
    """Open a watcher and return what it is told first."""
    return await client.ask(
        "WATCH_TOPIC_LIST",
        "WATCH_TOPIC_LIST_SUCCESS",
        request_id=fields.pop("request_id", 10),
        watcher_id=watcher,
        namespace="public/default",
        topics_pattern=pattern,
        **fields,
    )


def names(topics: Any) -> list[str]:
    return [each.rpartition("/")[2] for each in topics]


async def test_the_broker_says_that_it_has_watchers(rig: Rig) -> None:
    flags = (await (await rig.dial()).connect()).feature_flags
    assert flags.supports_topic_watchers
    assert flags.supports_topic_watcher_reconcile


async def test_a_watcher_is_told_what_there_is_and_what_comes_and_goes(rig: Rig) -> None:
    rig.port.tell(a1=True, b1=True)
    client = await rig.client()
    first = await watch(client)
    assert (first.request_id, first.watcher_id, names(first.topic)) == (10, 1, ["a1"])
    assert first.topics_hash == topics_hash([f"{PREFIX}a1"])

    rig.port.tell(a2=True, b2=True)
    update = await client.expect("WATCH_TOPIC_UPDATE")
    assert (update.watcher_id, names(update.new_topics), names(update.deleted_topics)) == (
        1, ["a2"], [],
    )  # fmt: skip
    assert update.topics_hash == topics_hash([f"{PREFIX}a1", f"{PREFIX}a2"])

    rig.port.tell(a1=False, b1=False)
    update = await client.expect("WATCH_TOPIC_UPDATE")
    assert (names(update.new_topics), names(update.deleted_topics)) == ([], ["a1"])
    assert update.topics_hash == topics_hash([f"{PREFIX}a2"])


async def test_partitions_fit_by_the_name_of_their_topic_and_are_told_one_by_one(rig: Rig) -> None:
    client = await rig.client()
    await watch(client, "persistent://public/default/a")
    rig.port.tell(**{"a-partition-0": True, "a-partition-1": True, "ab": True})
    update = await client.expect("WATCH_TOPIC_UPDATE")
    assert sorted(names(update.new_topics)) == ["a-partition-0", "a-partition-1"]


async def test_topics_in_memory_are_watched_by_who_names_them(rig: Rig) -> None:
    client = await rig.client()
    await watch(client, "non-persistent://public/default/a.*", watcher=1)
    await watch(client, "public/default/a.*", watcher=2)
    rig.port.tell(**{"non-persistent://public/default/a1": True})
    update = await client.expect("WATCH_TOPIC_UPDATE")
    assert (update.watcher_id, names(update.new_topics)) == (1, ["a1"])
    await client.nothing()


async def test_what_is_known_already_is_not_told_again(rig: Rig) -> None:
    rig.port.tell(a1=True)
    client = await rig.client()
    await watch(client)
    rig.port.tell(a1=True)
    rig.port.tell(a9=False)
    await client.nothing()


async def test_who_brings_the_right_hash_gets_no_list(rig: Rig) -> None:
    rig.port.tell(a1=True)
    client = await rig.client()
    known = topics_hash([f"{PREFIX}a1"])
    assert names((await watch(client, topics_hash=known)).topic) == []
    assert names((await watch(client, watcher=2, topics_hash="00000000")).topic) == ["a1"]


async def test_a_watcher_opened_again_is_told_what_there_is(rig: Rig) -> None:
    client = await rig.client()
    empty = await watch(client)
    rig.port.tell(a1=True)
    await client.expect("WATCH_TOPIC_UPDATE")
    again = await watch(client, request_id=11, topics_hash=empty.topics_hash)
    assert (again.request_id, names(again.topic)) == (11, ["a1"])
    same = await watch(client, request_id=12, topics_hash=again.topics_hash)
    assert (names(same.topic), same.topics_hash) == ([], again.topics_hash)
    assert len(rig.door.service.views) == 1


async def test_one_id_watches_one_pattern(rig: Rig) -> None:
    client = await rig.client()
    await watch(client)
    error = await client.ask(
        "WATCH_TOPIC_LIST", "ERROR", request_id=2, watcher_id=1,
        namespace="public/default", topics_pattern="public/default/b.*",
    )  # fmt: skip
    assert (error.request_id, error.error) == (2, api.NotAllowedError)


async def test_a_closed_watcher_is_told_nothing_and_costs_nothing(rig: Rig) -> None:
    client = await rig.client()
    await watch(client)
    await client.ask("WATCH_TOPIC_LIST_CLOSE", "SUCCESS", request_id=2, watcher_id=1)
    await client.ask("WATCH_TOPIC_LIST_CLOSE", "SUCCESS", request_id=3, watcher_id=1)
    rig.port.tell(a1=True)
    await client.nothing()
    assert (rig.port.watches, len(rig.door.service.views)) == ([], 0)


async def test_watchers_end_with_their_connection(rig: Rig) -> None:
    staying, leaving = await rig.client(), await rig.client()
    await watch(staying)
    await watch(leaving)
    await watch(leaving, "public/default/b.*", watcher=2)
    assert len(rig.door.service.views) == 2
    leaving.close()
    await rig.until(lambda: len(rig.door.service.views) == 1)
    rig.port.tell(a1=True)
    await staying.expect("WATCH_TOPIC_UPDATE")
    staying.close()
    await rig.until(lambda: not rig.port.watches)


async def test_a_watcher_closed_while_it_is_opened_is_not_left_behind(rig: Rig) -> None:
    rig.port.gate = asyncio.Event()
    client = await rig.client()
    opening = {
        "watcher_id": 1, "namespace": "public/default", "topics_pattern": "public/default/a.*"
    }  # fmt: skip
    await client.send(
        command("WATCH_TOPIC_LIST", request_id=1, **opening),
        command("WATCH_TOPIC_LIST", request_id=2, **opening),
        command("WATCH_TOPIC_LIST_CLOSE", request_id=3, watcher_id=1),
    )
    error = await client.expect("ERROR")
    assert (error.request_id, error.error) == (2, api.ServiceNotReady)
    await client.expect("SUCCESS")
    rig.port.gate.set()
    error = await client.expect("ERROR")
    assert (error.request_id, error.error) == (1, api.ServiceNotReady)
    await rig.until(lambda: not rig.port.watches)


@pytest.mark.parametrize("pattern", ["(", "a" * 2000, "(" * 900])
async def test_a_bad_pattern_is_an_error_and_nothing_worse(rig: Rig, pattern: str) -> None:
    client = await rig.client()
    error = await client.ask(
        "WATCH_TOPIC_LIST", "ERROR", request_id=1, watcher_id=1,
        namespace="public/default", topics_pattern=pattern,
    )  # fmt: skip
    assert error.error == api.MetadataError
    await watch(client)  # the id is free


async def test_a_namespace_that_is_none_or_is_missing_is_an_error(rig: Rig) -> None:
    client = await rig.client()
    error = await client.ask(
        "WATCH_TOPIC_LIST", "ERROR", request_id=1, watcher_id=1,
        namespace="nowhere", topics_pattern="a",
    )  # fmt: skip
    assert error.error == api.InvalidTopicName
    rig.port.failures["topics"] = NamespaceNotFoundError("no such namespace")
    error = await client.ask(
        "WATCH_TOPIC_LIST", "ERROR", request_id=1, watcher_id=1,
        namespace="public/missing", topics_pattern="a",
    )  # fmt: skip
    assert error.error == api.TopicNotFound
    assert (rig.port.watches, len(rig.door.service.views)) == ([], 0)


async def test_there_are_limits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers_module, "WATCHERS_PER_CONNECTION_MAX", 2)
    monkeypatch.setattr(watchers_module, "VIEWS_MAX", 2)
    client, other = await rig.client(), await rig.client()

    async def refused(who: RawClient, watcher: int, pattern: str) -> str:
        error = await who.ask(
            "WATCH_TOPIC_LIST", "ERROR", request_id=1, watcher_id=watcher,
            namespace="public/default", topics_pattern=pattern,
        )  # fmt: skip
        assert error.error == api.NotAllowedError
        return str(error.message)

    await watch(client, "a", watcher=1)
    await watch(client, "b", watcher=2)
    assert "2 watchers" in await refused(client, 3, "a")
    assert "patterns" in await refused(other, 1, "c")
    await watch(other, "b", watcher=1)  # somebody watches that already


async def test_who_does_not_read_is_told_what_is_left_to_tell_when_it_does(
    make_rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers_module, "UPDATE_BYTES_MAX", 20_000)
    rig = make_rig(write_buffer_bytes_per_connection_max=64 * 1024)
    client = await rig.client(receive_buffer=4096)
    rig.shrink_send_buffers()
    await watch(client)
    wanted = {f"a{i:04}{'x' * 900}" for i in range(600)}
    rig.port.tell(**dict.fromkeys(wanted, True))
    (connection,) = rig.door._connections
    (watcher,) = connection.session.watchers._by_id.values()
    await rig.until(lambda: watcher.stuck)
    assert len(watcher.left) > 300
    gone = [list(watcher.left)[-1].rpartition("/")[2]]
    rig.port.tell(**dict.fromkeys(gone, False))
    await rig.until(lambda: f"{PREFIX}{gone[0]}" not in watcher.left)
    told: set[str] = set()
    while told != wanted - set(gone):
        update = await client.expect("WATCH_TOPIC_UPDATE")
        assert not update.deleted_topics
        told |= set(names(update.new_topics))
    assert not watcher.left


async def test_many_who_watch_the_same_share_one_view(rig: Rig) -> None:
    clients = [await rig.client() for _ in range(5)]
    for client in clients:
        for watcher in range(4):
            await watch(client, watcher=watcher)
    assert (len(rig.port.watches), len(rig.door.service.views)) == (1, 1)
    rig.port.tell(a1=True)
    for client in clients:
        told = {(await client.expect("WATCH_TOPIC_UPDATE")).watcher_id for _ in range(4)}
        assert told == {0, 1, 2, 3}

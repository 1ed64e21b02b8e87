"""The metrics: Pulsar's names, the topics' own numbers, and no long turn of the event loop."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.exposition import merged
from magnetar.broker.doors.admin.http.together import Totals
from magnetar.broker.doors.admin.resources.scrape import CLIENTS_MAX, TALLIES_MAX
from magnetar.broker.metadata.store import Store
from magnetar.broker.topics.compaction.compacted import Compacted
from magnetar.broker.topics.producers.producer import Inlet
from magnetar.broker.topics.producers.tally import Tally
from magnetar.names import TopicName


def consumer(name: str) -> dict[str, Any]:
    return {"consumerName": name, "availablePermits": 7, "unackedMessages": 1}


def stats(subscriptions: int = 1, producers: int = 1, consumers: int = 1) -> dict[str, Any]:
    one = {
        "msgBacklog": 5,
        "blockedSubscriptionOnUnackedMsgs": True,
        "unackedMessages": 3,
        "consumers": [consumer(f"c{i}") for i in range(consumers)],
    }
    return {
        "msgRateIn": 1.5,
        "msgInCounter": 2**53,
        "bytesInCounter": 10,
        "storageSize": 100,
        "backlogSize": 50,
        "publishers": [{"producerName": f"p{i}", "producerId": i} for i in range(producers)],
        "subscriptions": {f"s{i}": one for i in range(subscriptions)},
    }


class FakeTopic:
    def __init__(self, name: str, shown: dict[str, Any]) -> None:
        self.compacted: Compacted | None = None
        self.closed = False
        self.name = TopicName.parse(name)
        self.shown = shown
        self.inlet = Inlet(log=None, wake=lambda: None)

    def stats(self) -> dict[str, Any]:
        return self.shown

    def entry_rates(self) -> tuple[float, ...]:
        return 2.0, 3.0, 4.0


class Loaded:
    """A catalog that only knows what it has loaded."""

    def __init__(self, *topics: FakeTopic) -> None:
        self.topics = topics

    def loaded(self) -> list[FakeTopic]:
        return list(self.topics)


@pytest.fixture
def scrape(ask: Any, store: Store, new_context: Callable[..., Context]) -> Any:
    async def call(catalog: Loaded, **changed: Any) -> str:
        answer = await ask(AdminApp(new_context(store, catalog, **changed)), "GET", "/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return str(answer.body.decode())

    return call


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    names = set()
    for family in parse(text):
        assert family.name not in names, "a family appears once"
        names.add(family.name)
        for each in family.samples:
            found.setdefault(each.name, []).append((each.labels, each.value))
    return found


async def test_a_topic_shows_under_pulsars_names(scrape: Any) -> None:
    found = samples(await scrape(Loaded(FakeTopic("persistent://t/n/orders", stats()))))
    of_topic = {"cluster": "standalone", "namespace": "t/n", "topic": "persistent://t/n/orders"}
    assert found["pulsar_rate_in"] == [(of_topic, 1.5)]
    assert found["pulsar_in_messages_total"] == [(of_topic, 2**53)]
    assert found["pulsar_storage_size"] == [(of_topic, 100)]
    assert found["pulsar_msg_backlog"] == [(of_topic, 5)]
    of_subscription = of_topic | {"subscription": "s0"}
    assert found["pulsar_subscription_back_log"] == [(of_subscription, 5)]
    assert found["pulsar_subscription_blocked_on_unacked_messages"] == [(of_subscription, 1)]
    of_consumer = of_subscription | {"consumer_name": "c0", "consumer_id": ""}
    assert found["pulsar_consumer_available_permits"] == [(of_consumer, 7)]
    of_producer = of_topic | {"producer_name": "p0", "producer_id": "0"}
    assert found["pulsar_producer_msg_rate_in"] == [(of_producer, 0)]


async def test_counts_of_the_whole_process_name_the_worker(scrape: Any) -> None:
    topics = [FakeTopic(f"persistent://t/{n}/x{i}", stats(2, 3, 1)) for n in "ab" for i in range(2)]
    found = samples(await scrape(Loaded(*topics), worker=0))
    mine = {"cluster": "standalone", "worker": "0"}
    assert found["pulsar_broker_topics_count"] == [(mine, 4)]
    assert found["pulsar_broker_subscriptions_count"] == [(mine, 8)]
    assert found["pulsar_broker_producers_count"] == [(mine, 12)]
    assert found["pulsar_broker_consumers_count"] == [(mine, 8)]
    assert found["pulsar_topics_count"] == [
        (mine | {"namespace": "t/a"}, 2),
        (mine | {"namespace": "t/b"}, 2),
    ]
    assert found["process_cpu_seconds_total"][0][1] > 0


async def test_a_process_without_topics_has_metrics_too(scrape: Any) -> None:
    found = samples(await scrape(Loaded()))
    assert found["pulsar_broker_topics_count"][0][1] == 0


async def test_families_are_sorted_so_that_merging_works(scrape: Any) -> None:
    texts = [
        await scrape(Loaded(*(FakeTopic(f"persistent://t/n/{i}-{w}", stats()) for i in range(5))))
        for w in range(2)
    ]
    names = [line.split(" ")[2] for line in texts[0].splitlines() if line.startswith("# HELP")]
    assert names == sorted(names)

    async def pieces(text: str) -> Any:
        yield text.encode()

    both = b"".join([piece async for piece in merged([pieces(text) for text in texts])]).decode()
    assert len(samples(both)["pulsar_rate_in"]) == 10


async def test_hostile_names_do_not_break_the_text(scrape: Any) -> None:
    name = 'persistent://t/n/a"b\\c{}=,#'
    found = samples(await scrape(Loaded(FakeTopic(name, stats()))))
    assert found["pulsar_rate_in"][0][0]["topic"] == name


async def test_too_many_clients_are_not_shown_singly(scrape: Any) -> None:
    crowd = FakeTopic("persistent://t/n/crowd", stats(producers=CLIENTS_MAX + 1))
    found = samples(await scrape(Loaded(crowd)))
    assert "pulsar_producer_msg_rate_in" not in found
    assert found["pulsar_producers_count"][0][1] == CLIENTS_MAX + 1


TURN_S_MAX = 0.005
"""How long one turn of the event loop may take."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """A broker freezes what it has; among the objects of all tests, a collection takes a while."""
    gc.disable()
    yield
    gc.enable()


async def longest_turn(work: Callable[[], Coroutine[Any, Any, object]]) -> float:
    """Return the CPU time of the longest turn: on a busy machine, wall time says nothing.

    The best of three times: a machine that is taken away for a moment is no turn that is long
    each time.
    """
    longest = [0.0] * 3

    async def watch(attempt: int) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest[attempt], before = max(longest[attempt], now - before), now

    for attempt in range(len(longest)):
        watcher = asyncio.create_task(watch(attempt))
        await work()
        await asyncio.sleep(0)  # the watcher sees the last turn, too
        watcher.cancel()
    return min(longest)


@pytest.mark.parametrize("singly", [True, False])
@pytest.mark.usefixtures("no_collector")
async def test_ten_thousand_topics_leave_the_loop_its_turns(
    store: Store, new_context: Callable[..., Context], singly: bool
) -> None:
    topics = [FakeTopic(f"persistent://t/n/x{i}", stats(1, 0, 0)) for i in range(10_000)]
    context = new_context(store, Loaded(*topics))
    context.config.metrics_of_topics = singly
    app = AdminApp(context)
    sent = bytearray()

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/metrics",
        "path": "/metrics",
        "query_string": b"",
        "headers": [],
        "asgi": {"spec_version": "2.4"},
    }
    assert await longest_turn(lambda: app(scope, receive, send)) < TURN_S_MAX
    del sent[len(sent) // 3 :]

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(sent), 65_536):
            yield bytes(sent[at : at + 65_536])
            await asyncio.sleep(0)

    async def merge() -> None:
        async for _ in merged([pieces(), pieces()], Totals()):
            await asyncio.sleep(0)

    assert await longest_turn(merge) < TURN_S_MAX


async def test_what_holds_the_loop_too_long_would_be_seen() -> None:
    async def hold() -> None:
        await asyncio.sleep(0)
        begun = time.thread_time()
        while time.thread_time() < begun + 2 * TURN_S_MAX:
            pass

    assert await longest_turn(hold) > TURN_S_MAX


# --- write latency and entry sizes


def written(name: str, *sizes: int) -> FakeTopic:
    topic = FakeTopic(name, stats())
    topic.inlet.tally = Tally()
    topic.inlet.tally.sizes(sizes)
    topic.inlet.tally.wrote(len(sizes), 3_000, 2)
    return topic


LATENCIES = [f"pulsar_storage_write_latency_le_{bound}" for bound in
             ["0_5", "1", "5", "10", "20", "50", "100", "200", "1000", "overflow"]]  # fmt: skip
SIZES = [f"pulsar_entry_size_le_{bound}" for bound in
         ["128", "512", "1_kb", "2_kb", "4_kb", "16_kb", "100_kb", "1_mb", "overflow"]]  # fmt: skip


async def test_buckets_have_pulsars_names_and_belong_to_topics(scrape: Any) -> None:
    first, second = "persistent://public/default/a", "persistent://public/default/b"
    catalog = Loaded(written(first, 100, 100, 3000), written(second, 2**21), FakeTopic(
        "persistent://public/default/idle", stats()))  # fmt: skip
    found = samples(await scrape(catalog))
    of_first = {name: value for name in found for labels, value in found[name]
                if labels.get("topic") == first}  # fmt: skip
    assert [of_first[name] for name in LATENCIES] == [0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    assert [of_first[name] for name in SIZES] == [2, 0, 0, 0, 1, 0, 0, 0, 0]
    assert of_first["pulsar_storage_write_latency_count"] == 3
    assert of_first["pulsar_storage_write_latency_overflow"] == 0
    assert of_first["pulsar_storage_write_latency_sum"] == 9_000, "microseconds, as in Pulsar"
    assert of_first["pulsar_entry_size_count"] == 3
    shown = {labels["topic"] for labels, _ in found[SIZES[-1]]}
    assert shown == {first, second}, "a topic that nobody published to has no buckets"


async def test_with_many_topics_buckets_are_those_of_their_namespaces(scrape: Any) -> None:
    topics = [
        written(f"persistent://public/n{number % 2}/t{number}", 100, 600)
        for number in range(TALLIES_MAX + 2)
    ]
    found = samples(await scrape(Loaded(*topics)))
    shown = {labels["namespace"]: value for labels, value in found[SIZES[0]]}
    half = TALLIES_MAX / 2 + 1
    assert shown == {"public/n0": half, "public/n1": half}
    assert all(set(labels) == {"cluster", "worker", "namespace"} for labels, _ in found[SIZES[0]])
    assert {value for _, value in found["pulsar_storage_write_latency_sum"]} == {half * 2 * 3_000}


async def test_what_is_stored_is_summed_by_namespace(scrape: Any) -> None:
    kept = [FakeTopic(f"persistent://public/default/{name}", stats()) for name in "ab"]
    memory = FakeTopic("non-persistent://public/default/c", stats())
    found = samples(await scrape(Loaded(*kept, memory)))
    values = {name: [value for _, value in found[name]] for name in found if "_ml_" in name}
    assert values["pulsar_ml_count"] == [2]
    assert values["pulsar_ml_AddEntryMessagesRate"] == [4]
    assert values["pulsar_ml_MarkDeleteRate"] == [8]
    assert found["pulsar_ml_count"][0][0].get("namespace") is None
    namespaces = {labels["namespace"] for labels, _ in found["pulsar_ml_MarkDeleteRate"]}
    assert namespaces == {"public/default/persistent"}, "as Pulsar names it there"
    assert values["pulsar_ml_StoredMessagesSize"] == [200]
    assert values["pulsar_ml_NumberOfMessagesInBacklog"] == [10]


# --- what is shown singly


async def test_without_topics_the_same_names_are_those_of_namespaces(
    scrape: Any, store: Store, new_context: Callable[..., Context]
) -> None:
    config = new_context(store).config
    config.metrics_of_topics = False
    topics = [written(f"persistent://t/{n}/x{i}", 100) for n in "ab" for i in range(3)]
    found = samples(await scrape(Loaded(*topics), config=config))
    mine = {"cluster": "standalone", "worker": "0"}
    assert found["pulsar_rate_in"] == [
        (mine | {"namespace": "t/a"}, 4.5),
        (mine | {"namespace": "t/b"}, 4.5),
    ]
    assert found["pulsar_msg_backlog"][0] == (
        mine | {"namespace": "t/a", "remote_cluster": "local"}, 15
    )  # fmt: skip
    assert found["pulsar_storage_write_rate"][0][1] == 6
    assert found[SIZES[0]][0] == (mine | {"namespace": "t/a"}, 3)
    assert found["pulsar_broker_topics_count"] == [(mine, 6)]
    assert "pulsar_average_msg_size" not in found, "averages do not add up"
    assert "pulsar_subscription_back_log" not in found
    assert not [name for name in found for labels, _ in found[name] if "topic" in labels]


@pytest.mark.parametrize(
    ("setting", "family"),
    [
        ("metrics_of_producers", "pulsar_producer_msg_rate_in"),
        ("metrics_of_consumers", "pulsar_consumer_available_permits"),
    ],
)
async def test_clients_are_shown_unless_a_setting_says_no(
    scrape: Any, store: Store, new_context: Callable[..., Context], setting: str, family: str
) -> None:
    catalog = Loaded(FakeTopic("persistent://t/n/x", stats()))
    config = new_context(store).config
    assert family in samples(await scrape(catalog, config=config))
    setattr(config, setting, False)
    found = samples(await scrape(catalog, config=config))
    assert family not in found
    assert len(found["pulsar_rate_in"]) == 1


async def test_bundles_are_shown_if_a_setting_says_so(
    scrape: Any, store: Store, new_context: Callable[..., Context]
) -> None:
    topics = [FakeTopic(f"persistent://public/default/x{i}", stats()) for i in range(20)]
    config = new_context(store).config
    assert "pulsar_bundle_topics_count" not in samples(await scrape(Loaded(*topics)))
    config.metrics_of_bundles = True
    found = samples(await scrape(Loaded(*topics), config=config))
    assert sum(value for _, value in found["pulsar_bundle_topics_count"]) == 20
    assert sum(value for _, value in found["pulsar_bundle_msg_rate_in"]) == 30
    assert 1 < len(found["pulsar_bundle_topics_count"]) <= 4
    assert found["pulsar_bundle_topics_count"][0][0]["bundle"].startswith("public/default/0x")


async def test_managed_ledgers_have_buckets_by_range_in_entries_per_second(scrape: Any) -> None:
    found = samples(await scrape(Loaded(*(written(f"persistent://t/n/{i}", 100) for i in "ab"))))
    shown = {labels["quantile"]: value for labels, value in found["pulsar_ml_EntrySizeBuckets"]}
    assert len(shown) == 8
    assert (shown["0.0_128.0"], shown["128.0_512.0"]) == (2 / 60, 0)
    shown = {labels["quantile"]: v for labels, v in found["pulsar_ml_AddEntryLatencyBuckets"]}
    assert shown["1.0_5.0"] == 2 / 60
    assert sum(shown.values()) == 2 / 60
    assert found["pulsar_ml_AddEntryLatencyBuckets_OVERFLOW"][0][1] == 0

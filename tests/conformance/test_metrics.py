"""Each metric moves by the event that it counts, and by no other: one table, a whole broker.

event      what must move             what else may move
───────    ────────────────────       ──────────────────────────────
all that is watched and in neither column has to stay as it was
"""

import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pulsar
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from magnetar.client.admin import Admin
from tests.conformance.conftest import Restartable
from tests.conformance.talk import (
    LIMIT_S,
    acknowledgements_are_durable,
    eventually,
    receive,
    send,
)
from tests.tidy.metrics_page import LEFT_OUT, Shown, page

TOPIC = "persistent://public/default/measured"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"

CONNECTED = {
    "pulsar_active_connections",
    "pulsar_connection_created_total_count",
    "pulsar_connection_create_success_count",
}
LOOKED_UP = {"pulsar_broker_lookup_answers_total", "pulsar_broker_lookup_count"}
LOADED = {
    "pulsar_broker_topics_count",
    "pulsar_topics_count",
    "pulsar_ml_count",
    "pulsar_topic_load_times_count",
}
PUBLISHED = {
    "bookie_WRITE_BYTES",
    "bookie_journal_JOURNAL_ADD_ENTRY_count",
    "bookie_journal_JOURNAL_SYNC_count",
    "magnetar_publish_latency_seconds_count",
    "magnetar_publish_entries_total",
    "pulsar_broker_publish_latency_count",
    "pulsar_in_bytes_total",
    "pulsar_in_messages_total",
    "pulsar_ml_cache_entries",
    "pulsar_ml_cache_inserted_entries_total",
    "pulsar_storage_logical_size",
    "pulsar_storage_size",
}
WRITTEN_DOWN = {"bookie_journal_JOURNAL_SYNC_count"}
"""Cursors go into the journal, too."""
DELIVERED = {
    "pulsar_out_bytes_total",
    "pulsar_out_messages_total",
    "pulsar_subscription_unacked_messages",
    "pulsar_consumer_unacked_messages",
}
BACKLOG = {"pulsar_broker_msg_backlog", "pulsar_msg_backlog", "pulsar_subscription_back_log"}
OTHERS = {
    "magnetar_topics_unloaded_total",
    "pulsar_broker_consumers_count",
    "pulsar_broker_lookup_failures_total",
    "pulsar_broker_producers_count",
    "pulsar_broker_subscriptions_count",
    "pulsar_connection_create_fail_count",
    "pulsar_consumer_available_permits",
    "pulsar_consumers_count",
    "pulsar_lb_unload_bundle_total",
    "pulsar_ml_cache_evicted_entries_total",
    "pulsar_producers_count",
    "pulsar_publish_rate_limit_times",
    "pulsar_storage_backlog_size",
    "pulsar_subscription_blocked_on_unacked_messages",
    "pulsar_subscriptions_count",
}
WATCHED = CONNECTED | LOOKED_UP | LOADED | PUBLISHED | WRITTEN_DOWN | DELIVERED | BACKLOG | OTHERS
Figures = dict[str, float]


def watched(admin: Admin) -> Figures:
    """The sum over all samples of each name that is watched."""
    sums = dict.fromkeys(WATCHED, 0.0)
    for family in parse(admin.metrics()):
        for each in family.samples:
            if each.name in sums:
                sums[each.name] += each.value
    return sums


REST_READINGS = 3
"""So often the same: what a client sends by itself may be late on a machine that is busy."""


def at_rest(admin: Admin) -> Figures:
    """What is shown once nothing moves any more."""
    deadline_s = time.monotonic() + LIMIT_S
    before, same = watched(admin), 0
    while time.monotonic() < deadline_s:
        time.sleep(0.15)  # a client gathers acknowledgements for a tenth of a second
        now = watched(admin)
        same = same + 1 if now == before and acknowledgements_are_durable(admin) else 0
        if same == REST_READINGS:
            return now
        before = now
    raise AssertionError("the figures do not come to rest")


class Stage:
    """A broker, and what events have left so far."""

    def __init__(self, broker: Restartable, admin: Admin) -> None:
        self.broker = broker
        self.admin = admin
        self.client: Any = None
        self.producer: Any = None
        self.consumer: Any = None
        self.received: list[Any] = []

    # --- events

    def hang_up_without_a_word(self) -> None:
        host, port = "127.0.0.1", int(self.broker.process.ports.url.rpartition(":")[2])
        socket.create_connection((host, port), timeout=LIMIT_S).close()

    def open_a_producer(self) -> None:
        self.client = self.broker.client()
        self.producer = self.client.create_producer(TOPIC, batching_enabled=False)

    def look_up_nothing(self) -> None:
        with suppress(pulsar.PulsarException):
            self.client.create_producer("persistent://public/nowhere/x")

    def publish(self) -> None:
        send(self.producer, 10)

    def make_a_subscription(self) -> None:
        self.admin.create_subscription(TOPIC, "s")

    def receive(self) -> None:
        self.consumer = self.client.subscribe(
            TOPIC, "s", pulsar.ConsumerType.Shared, receiver_queue_size=100
        )
        self.received = receive(self.consumer, 10)

    def acknowledge(self) -> None:
        for each in self.received:
            self.consumer.acknowledge(each)

    def close_the_consumer(self) -> None:
        self.consumer.close()

    def publish_too_fast(self) -> None:
        path = TOPIC.replace("://", "/")
        self.admin.json("POST", f"/admin/v2/{path}/publishRate", {"publishThrottlingRateInMsg": 10})
        eventually(self._is_throttled)

    def _is_throttled(self) -> bool:
        send(self.producer, 20)
        return bool(self.admin.stats(TOPIC)["publishRateLimitedTimes"])

    def close_the_producer(self) -> None:
        self.producer.close()

    def unload(self) -> None:
        self.admin.unload(TOPIC)


OPENED = CONNECTED | LOOKED_UP
EVENTS: list[tuple[Callable[[Stage], None], set[str], set[str]]] = [
    (
        Stage.hang_up_without_a_word,
        {"pulsar_connection_created_total_count", "pulsar_connection_create_fail_count"},
        set(),
    ),
    (
        Stage.open_a_producer,
        OPENED | LOADED | {"pulsar_broker_producers_count", "pulsar_producers_count"},
        set(),
    ),
    (Stage.look_up_nothing, set(), {"pulsar_broker_lookup_failures_total"}),
    (Stage.publish, PUBLISHED, set()),
    (
        Stage.make_a_subscription,
        {"pulsar_broker_subscriptions_count", "pulsar_subscriptions_count"},
        WRITTEN_DOWN,
    ),
    (Stage.publish, PUBLISHED | BACKLOG | {"pulsar_storage_backlog_size"}, set()),
    (
        Stage.receive,
        DELIVERED
        | {
            "pulsar_broker_consumers_count",
            "pulsar_consumers_count",
            "pulsar_consumer_available_permits",
        },
        OPENED | WRITTEN_DOWN,
    ),
    (
        Stage.acknowledge,
        BACKLOG
        | {"pulsar_subscription_unacked_messages", "pulsar_consumer_unacked_messages"}
        | {"pulsar_storage_backlog_size"},
        WRITTEN_DOWN,
    ),
    (
        Stage.close_the_consumer,
        {
            "pulsar_broker_consumers_count",
            "pulsar_consumers_count",
            "pulsar_consumer_available_permits",
        },
        WRITTEN_DOWN,
    ),
    (
        Stage.publish_too_fast,
        PUBLISHED | BACKLOG | {"pulsar_publish_rate_limit_times", "pulsar_storage_backlog_size"},
        WRITTEN_DOWN,
    ),
    (
        Stage.close_the_producer,
        {"pulsar_broker_producers_count", "pulsar_producers_count"},
        set(),
    ),
    (
        Stage.unload,
        {"magnetar_topics_unloaded_total"},
        # What is counted of a topic begins anew when it is loaded.
        {name for name in WATCHED if name not in OPENED} - {"pulsar_lb_unload_bundle_total"},
    ),
]


def test_each_metric_moves_by_what_it_counts_and_by_nothing_else(restartable: Restartable) -> None:
    with restartable.admin() as admin:
        stage = Stage(restartable, admin)
        before = at_rest(admin)
        for event, must, may in EVENTS:
            event(stage)
            now = at_rest(admin)
            moved = {name for name in WATCHED if now[name] != before[name]}
            assert must <= moved, f"{event.__name__} did not move {must - moved}"
            assert moved <= must | may, f"{event.__name__} moved {moved - must - may}, too"
            before = now
        assert now["pulsar_lb_unload_bundle_total"] == 0


def in_use(restartable: Restartable, admin: Admin) -> str:
    """What a broker shows that has done a bit of everything."""
    admin.set_setting("metrics_of_bundles", "true")
    client = restartable.client()
    producer = client.create_producer(TOPIC)
    consumer = client.subscribe(TOPIC, "s")
    for number in range(10):
        producer.send(str(number).encode(), partition_key="k")
    consumer.acknowledge(receive(consumer, 1)[0])
    admin.compact(TOPIC)
    eventually(lambda: admin.compaction(TOPIC)[0] == "SUCCESS")
    eventually(lambda: "pulsar_bundle_topics_count" in admin.metrics())
    return admin.metrics()


@pytest.mark.parametrize("restartable", [2], indirect=True)
def test_the_page_of_metrics_is_what_a_broker_shows(restartable: Restartable) -> None:
    with restartable.admin() as admin:
        shown = page(in_use(restartable, admin))
    told = "pipe /metrics of a broker in use through tests/tidy/metrics_page.py again"
    written = PAGE.read_text()
    assert rows_of(shown) == rows_of(written), told
    assert shown == written, told


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


SIGNALS = frozenset(
    """
    pulsar_broker_rate_in pulsar_broker_rate_out pulsar_broker_throughput_in
    pulsar_broker_throughput_out pulsar_rate_in pulsar_rate_out pulsar_throughput_in
    pulsar_throughput_out pulsar_in_messages_total pulsar_in_bytes_total
    pulsar_out_messages_total pulsar_out_bytes_total pulsar_entry_size_le_128
    pulsar_entry_size_le_512 pulsar_entry_size_le_1_kb pulsar_entry_size_le_2_kb
    pulsar_entry_size_le_4_kb pulsar_entry_size_le_16_kb pulsar_entry_size_le_100_kb
    pulsar_entry_size_le_1_mb pulsar_entry_size_le_overflow pulsar_storage_write_latency_le_0_5
    pulsar_storage_write_latency_le_1 pulsar_storage_write_latency_le_5
    pulsar_storage_write_latency_le_10 pulsar_storage_write_latency_le_20
    pulsar_storage_write_latency_le_50 pulsar_storage_write_latency_le_100
    pulsar_storage_write_latency_le_200 pulsar_storage_write_latency_le_1000
    pulsar_storage_write_latency_overflow pulsar_ml_AddEntryLatencyBuckets
    pulsar_broker_msg_backlog pulsar_storage_backlog_size pulsar_subscription_back_log
    pulsar_subscription_unacked_messages pulsar_subscription_blocked_on_unacked_messages
    pulsar_subscription_msg_rate_redeliver pulsar_subscription_msg_rate_out
    pulsar_subscription_msg_ack_rate pulsar_consumer_available_permits
    pulsar_broker_topics_count pulsar_broker_subscriptions_count pulsar_broker_producers_count
    pulsar_broker_consumers_count pulsar_active_connections
    pulsar_connection_created_total_count pulsar_connection_create_fail_count
    pulsar_ml_cache_used_size pulsar_ml_cache_entries pulsar_ml_cache_hits_rate
    pulsar_ml_cache_misses_rate pulsar_ml_cache_hits_throughput
    pulsar_ml_cache_misses_throughput pulsar_ml_cache_evictions
    pulsar_ml_cache_inserted_entries_total pulsar_ml_cache_evicted_entries_total
    pulsar_publish_rate_limit_times pulsar_broker_throttled_connections
    pulsar_broker_throttled_connections_global_limit pulsar_storage_size
    pulsar_storage_logical_size pulsar_storage_offloaded_size pulsar_storage_write_rate
    pulsar_storage_read_rate pulsar_ml_MarkDeleteRate pulsar_lb_directMemory_usage
    pulsar_lb_unload_bundle_total pulsar_lb_bundles_split_total pulsar_bundle_msg_rate_in
    pulsar_bundle_msg_throughput_in pulsar_broker_lookup pulsar_broker_lookup_pending_requests
    pulsar_broker_topic_load_pending_requests pulsar_topic_load_times process_cpu_seconds_total
    bookie_journal_JOURNAL_ADD_ENTRY bookie_journal_JOURNAL_SYNC
    bookie_journal_JOURNAL_QUEUE_SIZE bookie_WRITE_BYTES bookie_READ_BYTES
    bookie_write_cache_size bookie_read_cache_size
    """.split()  # noqa: SIM905 - a list of names is read more easily without quotes
)
"""What whoever steers a Pulsar cluster reads, and finds here."""

LABELS_OF_TOPICS = {
    "pulsar_rate_in": {"cluster", "namespace", "topic"},
    "pulsar_storage_write_latency_le_1": {"cluster", "namespace", "topic"},
    "pulsar_subscription_back_log": {"cluster", "namespace", "topic", "subscription"},
    "pulsar_broker_rate_in": {"cluster"},
    "pulsar_ml_cache_hits_rate": {"cluster"},
    "pulsar_topics_count": {"cluster", "namespace"},
    "pulsar_ml_MarkDeleteRate": {"cluster", "namespace"},
    "pulsar_broker_lookup": {"cluster", "quantile"},
}


def test_every_signal_is_on_the_page_under_its_name_and_labels_or_left_out_with_a_reason() -> None:
    row = re.compile(r"^\| `(\S+)` \| (\w+) \| ([\w, ]*) \| (.*) \|$", re.MULTILINE)
    listed = {
        name: Shown(name, kind, tuple(labels.split(", ")), text)
        for name, kind, labels, text in row.findall(PAGE.read_text())
    }
    assert [name for name in sorted(SIGNALS) if name not in listed] == []
    for name, labels in LABELS_OF_TOPICS.items():
        assert set(listed[name].labels) == labels
    assert not SIGNALS & {name for names in LEFT_OUT for name in names.split(", ")}
    assert "worker" not in {
        label
        for each in listed.values()
        if each.name.startswith("pulsar_")
        for label in each.labels
    }

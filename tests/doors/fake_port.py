"""A port for tests of doors: topics in memory, and a test that decides when things happen.

`hold` keeps commits back until `commit()`; `congested` makes `publish` answer False until
`clear()`; `gate` holds every coroutine until it is set; `failures` says what a method raises.
Runs are really copied, because a door reuses its buffer as soon as `publish` returns.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from magnetar.broker.entry import EARLIEST, LATEST, EntryFlags, EntryId, TransactionId
from magnetar.broker.port import (
    Acknowledged,
    ConsumerBusyError,
    ConsumerEvents,
    ConsumerStats,
    Group,
    LastMessage,
    ListMode,
    Location,
    MetadataError,
    NamespaceNotFoundError,
    NotAllowedError,
    PortError,
    Producer,
    ProducerBusyError,
    ProducerEvents,
    ProducerRequest,
    PublishDone,
    Schema,
    SchemaNotFoundError,
    Selection,
    SubscribeRequest,
    SubscriptionType,
    TopicNews,
    VersionedSchema,
)
from magnetar.broker.run import LENGTH, MESSAGES, OFFSET, PRODUCER, ROW_SIZE, TRANSACTION, Run
from magnetar.names import NamespaceName, TopicName

LEDGER = 7


@dataclass
class FakeTopic:
    name: str
    rows: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    subscriptions: dict[str, "FakeSubscription"] = field(default_factory=dict)
    producers: dict[str, "FakeProducer"] = field(default_factory=dict)

    def append(self, row: memoryview, body: bytes) -> int:
        self.rows.append(bytes(row))
        self.bodies.append(body)
        return len(self.rows) - 1

    def run(self, first: int, count: int) -> Run:
        """Entries as a run of their own, like the one a log hands out."""
        rows = bytearray(b"".join(self.rows[first : first + count]))
        run = Run(rows, b"".join(self.bodies[first : first + count]), base=1000)
        lengths = [len(each) for each in self.bodies[first : first + count]]
        offsets = run.u32(OFFSET)
        for row, start in enumerate(itertools.accumulate(lengths[:-1], initial=1000)):
            offsets[row] = start
        return run


@dataclass
class FakeSubscription:
    name: str
    topic: FakeTopic
    type: SubscriptionType
    position: int = 0
    consumers: list["FakeConsumer"] = field(default_factory=list)
    replay: list[int] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    redeliveries: dict[int, int] = field(default_factory=dict)

    def dispatch(self) -> None:
        progress = True
        while progress:
            progress = False
            for consumer in self.consumers:
                if consumer.permits <= 0 or consumer.stuck:
                    continue
                if self.replay:
                    self._send(consumer, self.replay.pop(0), 1)
                    progress = True
                elif self.position < len(self.topic.rows):
                    count = min(consumer.permits, len(self.topic.rows) - self.position, 10)
                    self._send(consumer, self.position, count)
                    self.position += count
                    progress = True

    def _send(self, consumer: "FakeConsumer", first: int, count: int) -> None:
        run = self.topic.run(first, count)
        consumer.permits -= run.message_count()
        redeliveries = {
            row: self.redeliveries[first + row]
            for row in range(count)
            if self.redeliveries.get(first + row)
        }
        consumer.unacked.update(range(first, first + count))
        selection = Selection(LEDGER, first, range(count), redeliveries)
        consumer.stuck = not consumer.events.deliver(run, selection)

    def give_back(self, entries: Sequence[int]) -> None:
        for entry in entries:
            self.redeliveries[entry] = self.redeliveries.get(entry, 0) + 1
        self.replay = sorted({*self.replay, *entries})


@dataclass(eq=False)
class FakeProducer:
    port: "FakePort"
    topic: FakeTopic
    name: str
    events: ProducerEvents
    request: ProducerRequest
    last_sequence_id: int = -1
    topic_epoch: int | None = None
    ready: bool = True
    schema_version: int | None = None
    closed: bool = False
    pending: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        self.closed = True
        self.topic.producers.pop(self.name, None)
        while self.pending:
            self.settled.clear()
            await self.settled.wait()


@dataclass(eq=False)
class FakeConsumer:
    port: "FakePort"
    subscription: FakeSubscription
    name: str
    events: ConsumerEvents
    request: SubscribeRequest
    permits: int = 0
    stuck: bool = False
    closed: bool = False
    unacked: set[int] = field(default_factory=set)
    acks: list[Acknowledged] = field(default_factory=list)
    transactional: list[tuple[TransactionId, list[Acknowledged]]] = field(default_factory=list)
    seeks: list[tuple[EntryId | None, tuple[int, ...], int | None]] = field(default_factory=list)

    def flow(self, permits: int) -> None:
        self.permits += permits
        self.subscription.dispatch()

    def resume(self) -> None:
        self.stuck = False
        self.port.resumed += 1
        self.subscription.dispatch()

    def acknowledge(self, ids: Sequence[Acknowledged], *, cumulative: bool) -> None:
        shared = self.subscription.type in {SubscriptionType.SHARED, SubscriptionType.KEY_SHARED}
        if cumulative and shared:
            raise NotAllowedError("cumulative acknowledgement on a shared subscription")
        self.acks.extend(ids)
        for each in ids:
            done = range(each.entry + 1) if cumulative else (each.entry,)
            if not each.ack_set:
                self.subscription.acknowledged.update(done)
                self.unacked.difference_update(done)

    async def acknowledge_in(
        self, transaction: TransactionId, ids: Sequence[Acknowledged], *, cumulative: bool
    ) -> None:
        await self.port.pass_gate("acknowledge_in")
        self.transactional.append((transaction, list(ids)))

    def redeliver(self, ids: Sequence[EntryId] | None, epoch: int | None) -> None:
        entries = sorted(self.unacked) if ids is None else [each.entry for each in ids]
        self.subscription.give_back(entries)
        self.subscription.dispatch()

    async def seek(
        self, position: EntryId | None, ack_set: Sequence[int], time_ms: int | None
    ) -> None:
        await self.port.pass_gate("seek")
        if position is None and time_ms is None:
            raise MetadataError("a seek needs a message id or a publish time")
        self.seeks.append((position, tuple(ack_set), time_ms))
        subscription = self.subscription
        for each in list(subscription.consumers):
            await each.close()
            each.events.closed(None)
        entry = position.entry if position is not None else 0
        subscription.position = max(0, min(entry, len(subscription.topic.rows)))
        subscription.replay.clear()

    async def last_message(self) -> LastMessage:
        await self.port.pass_gate("last_message")
        topic, position = self.subscription.topic, self.subscription.position
        mark = EntryId(LEDGER, position - 1)
        if not topic.rows:
            return LastMessage(EARLIEST, 0, mark)
        last = topic.run(len(topic.rows) - 1, 1)
        batch = last.envelope(0).flags & EntryFlags.BATCH
        size = last.u32(MESSAGES)[0] if batch else 0
        return LastMessage(EntryId(LEDGER, len(topic.rows) - 1), size, mark)

    def stats(self) -> ConsumerStats:
        return ConsumerStats(
            name=self.name,
            type=self.subscription.type,
            permits=self.permits,
            unacked=len(self.unacked),
            blocked=False,
            backlog=len(self.subscription.topic.rows) - len(self.subscription.acknowledged),
            message_rate=1.5,
            byte_rate=2.5,
            redelivery_rate=0.0,
            ack_rate=0.5,
            expired_rate=0.0,
            address=self.request.client_address,
            connected_since_ms=1_700_000_000_000,
        )

    async def unsubscribe(self, *, force: bool) -> None:
        await self.port.pass_gate("unsubscribe")
        others = [each for each in self.subscription.consumers if each is not self]
        if others and not force:
            raise ConsumerBusyError("others are connected")
        del self.subscription.topic.subscriptions[self.subscription.name]
        await self.close()

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.subscription.consumers.remove(self)
        self.subscription.give_back(sorted(self.unacked))
        self.subscription.dispatch()


@dataclass(eq=False)
class _Held:
    run: Run
    groups: list[Group]
    done: PublishDone
    producers: list[FakeProducer]


class FakePort:
    """Everything a door may ask for, in memory."""

    def __init__(self, url: str = "pulsar://127.0.0.1:6650") -> None:
        self.url = url
        self.topic_table: dict[str, FakeTopic] = {}
        self.partitioned: dict[str, int] = {}
        self.namespaces = {"public/default"}
        self.failures: dict[str, Exception] = {}
        self.gate: asyncio.Event | None = None
        self.hold = False
        self.congested = False
        self.published_runs = 0
        self.transactions: list[TransactionId | None] = []
        """The transaction of every row that was published."""
        self.resumed = 0
        self.watches: list[tuple[str, TopicNews]] = []
        self.held: list[_Held] = []
        self.schemas: dict[str, list[Schema]] = {}
        self.opened: list[FakeProducer] = []
        self.subscribed: list[FakeConsumer] = []
        self.on_publish: Callable[[Run], None] = lambda _run: None
        self._waiting: list[Callable[[], None]] = []
        self._names = itertools.count()

    async def pass_gate(self, method: str) -> None:
        """Wait while a test wants it, then fail if a test wants that."""
        if self.gate is not None:
            await self.gate.wait()
        if method in self.failures:
            raise self.failures[method]

    def topic(self, name: str) -> FakeTopic:
        full = str(TopicName.parse(name))
        return self.topic_table.setdefault(full, FakeTopic(full))

    async def locate(self, topic: TopicName, listener: str | None = None) -> Location:
        await self.pass_gate("locate")
        if listener:
            raise NotAllowedError(f"there is no listener {listener!r}")
        self._check(topic)
        return Location(self.url, "http://127.0.0.1:8080", here=True)

    async def partitions(self, topic: TopicName, *, create: bool) -> int:
        await self.pass_gate("partitions")
        self._check(topic)
        return self.partitioned.get(str(topic), 0)

    async def topics(self, namespace: NamespaceName, mode: ListMode) -> list[str]:
        await self.pass_gate("topics")
        prefix = {
            ListMode.PERSISTENT: (f"persistent://{namespace}/",),
            ListMode.NON_PERSISTENT: (f"non-persistent://{namespace}/",),
            ListMode.ALL: (f"persistent://{namespace}/", f"non-persistent://{namespace}/"),
        }[mode]
        return [name for name in self.topic_table if name.startswith(prefix)]

    def watch_topics(self, namespace: NamespaceName, news: TopicNews) -> Callable[[], None]:
        watch = (str(namespace), news)
        self.watches.append(watch)
        return lambda: self.watches.remove(watch)

    def tell(self, **there: bool) -> None:
        """Say that topics of the default namespace have come or gone, in lists and to watchers."""
        names = {str(TopicName.parse(name)): is_there for name, is_there in there.items()}
        for name, is_there in names.items():
            if is_there:
                self.topic(name)
            else:
                self.topic_table.pop(name, None)
        for namespace, news in list(self.watches):
            if namespace == "public/default":
                news(names)

    async def open_producer(self, request: ProducerRequest, events: ProducerEvents) -> Producer:
        await self.pass_gate("open_producer")
        self._check(request.topic)
        topic = self.topic(str(request.topic))
        name = request.name or f"standalone-0-{next(self._names)}"
        if name in topic.producers:
            raise ProducerBusyError(f"another producer is named {name!r}")
        producer = FakeProducer(self, topic, name, events, request)
        if request.schema is not None:
            producer.schema_version = await self.create_schema(request.topic, request.schema)
        topic.producers[name] = producer
        self.opened.append(producer)
        return producer

    async def subscribe(self, request: SubscribeRequest, events: ConsumerEvents) -> FakeConsumer:
        await self.pass_gate("subscribe")
        self._check(request.topic)
        topic = self.topic(str(request.topic))
        subscription = topic.subscriptions.get(request.subscription)
        if subscription is None:
            subscription = FakeSubscription(request.subscription, topic, request.type)
            subscription.position = len(topic.rows)
            if request.from_earliest or (request.start and request.start < EntryId(LEDGER, 0)):
                subscription.position = 0
            elif request.start is not None and request.start != LATEST:
                subscription.position = request.start.entry
            topic.subscriptions[request.subscription] = subscription
        if not subscription.consumers:
            subscription.type = request.type
        elif request.type is SubscriptionType.EXCLUSIVE or request.type is not subscription.type:
            raise ConsumerBusyError("the subscription has a consumer")
        consumer = FakeConsumer(self, subscription, request.consumer_name, events, request)
        subscription.consumers.append(consumer)
        self.subscribed.append(consumer)
        if request.type in {SubscriptionType.EXCLUSIVE, SubscriptionType.FAILOVER}:
            events.active(len(subscription.consumers) == 1)
        return consumer

    async def schema(self, topic: TopicName, version: int | None) -> VersionedSchema:
        await self.pass_gate("schema")
        versions = self.schemas.get(str(topic), [])
        if not versions or (version is not None and version >= len(versions)):
            raise SchemaNotFoundError(f"topic {topic} has no such schema")
        number = len(versions) - 1 if version is None else version
        return VersionedSchema(number, versions[number], 0)

    async def create_schema(self, topic: TopicName, schema: Schema) -> int | None:
        await self.pass_gate("create_schema")
        if not schema.declared:
            return None
        versions = self.schemas.setdefault(str(topic), [])
        versions.append(schema)
        return len(versions) - 1

    def publish(self, run: Run, producers: Sequence[Producer | None], done: PublishDone) -> bool:
        self.published_runs += 1
        self.on_publish(run)
        groups: list[Group] = []
        owners: list[FakeProducer] = []
        slots = run.u32(PRODUCER).tolist()
        for row in range(run.count):
            producer = producers[slots[row]]
            assert isinstance(producer, FakeProducer), "a row of an unused slot was published"
            assert run.u32(LENGTH)[row] == len(run.body(row))
            raw = run.rows[row * ROW_SIZE : (row + 1) * ROW_SIZE]
            if "publish" in self.failures:
                error = self.failures["publish"]
                assert isinstance(error, PortError)
                groups.append(Group(slots[row], row, 1, -1, -1, error))
            else:
                entry = producer.topic.append(raw, bytes(run.body(row)))
                groups.append(Group(slots[row], row, 1, LEDGER, entry))
            producer.pending += 1
            owners.append(producer)
            named = (None, *(run.transactions or ()))
            self.transactions.append(named[run.u32(TRANSACTION)[row]])
        self.held.append(_Held(run, _merge(groups), done, owners))
        if not self.hold:
            asyncio.get_running_loop().call_soon(self.commit)
        return not self.congested

    def commit(self, runs: int | None = None) -> None:
        """Let held runs become durable, all of them in one commit by default."""
        count = len(self.held) if runs is None else runs
        committed, self.held = self.held[:count], self.held[count:]
        for each in committed:
            each.done(each.run, each.groups)
            for producer in each.producers:
                producer.pending -= 1
                producer.settled.set()
        for topic in self.topic_table.values():
            for subscription in topic.subscriptions.values():
                subscription.dispatch()

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        self._waiting.append(callback)

    def clear(self) -> None:
        """Let publishing go on."""
        self.congested = False
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            asyncio.get_running_loop().call_soon(callback)

    def _check(self, topic: TopicName) -> None:
        if str(topic.namespace_name) not in self.namespaces:
            raise NamespaceNotFoundError(f"namespace {topic.namespace_name} does not exist")


def _merge(groups: list[Group]) -> list[Group]:
    """Join neighbouring rows of one producer with neighbouring entry ids, as a log does."""
    merged: list[Group] = []
    for group in groups:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.slot == group.slot
            and last.error is group.error
            and (group.error is not None or last.first_entry + last.count == group.first_entry)
        ):
            merged[-1] = last._replace(count=last.count + 1)
        else:
            merged.append(group)
    return merged

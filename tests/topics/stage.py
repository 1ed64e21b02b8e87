"""A stage for subscriptions: ground, home and doors that do what a test tells them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magnetar.broker.clock import ManualClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.entry import EARLIEST, EntryId, TransactionId
from magnetar.broker.metadata.transactions import HeldAcks
from magnetar.broker.port import (
    Acknowledged,
    KeyShared,
    PortError,
    Selection,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.run import Run
from magnetar.broker.topics.compaction.compacted import Compacted
from magnetar.broker.topics.consumers.consumer import Limits, OpenConsumer
from magnetar.broker.topics.consumers.places import cursor_at
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.rota import Rota
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.names import TopicName
from tests.topics.memory_log import ManualLoop, MemoryLog

TOPIC = TopicName.parse("persistent://public/default/orders")


@dataclass(frozen=True)
class StageGround:
    """What subscriptions stand on."""

    config: BrokerConfig
    clock: ManualClock
    loop: ManualLoop
    rota: Rota


class StageHome:
    """Remembers what a subscription told its topic."""

    def __init__(self) -> None:
        self.compacted: Compacted | None = None
        self.changed: list[Subscription] = []
        self.removed: list[Subscription] = []
        self.forgotten: list[Subscription] = []
        self.held: list[tuple[TransactionId, int, HeldAcks]] = []

    def cursor_changed(self, subscription: Subscription) -> None:
        self.changed.append(subscription)

    async def remove_subscription(self, subscription: Subscription) -> None:
        self.removed.append(subscription)
        subscription.end_consumers(None)

    def forget_subscription(self, subscription: Subscription) -> None:
        self.forgotten.append(subscription)

    async def hold_acks(
        self, subscription: Subscription, transaction: TransactionId, number: int, acks: HeldAcks
    ) -> None:
        self.held.append((transaction, number, acks))


@dataclass
class Delivered:
    """One entry as a door got it."""

    id: EntryId
    redeliveries: int
    ack_set: tuple[int, ...]
    epoch: int | None
    body: bytes


class Door:
    """The door's end of one consumer: keeps what it was given."""

    def __init__(self) -> None:
        self.got: list[Delivered] = []
        self.calls: list[int] = []
        self.actives: list[bool] = []
        self.ends = 0
        self.closed_with: list[PortError | None] = []
        self.congested = False
        self.refused = False
        self.uninvited = 0
        """How often something came after a refusal and before `resume`."""

    def deliver(self, run: Run, selection: Selection) -> bool:
        assert list(selection.rows) == sorted(selection.rows)
        assert len(selection.rows) > 0
        self.uninvited += self.refused
        self.refused = self.congested
        self.calls.append(len(selection.rows))
        for row in selection.rows:
            self.got.append(
                Delivered(
                    EntryId(selection.ledger, selection.first_entry + row),
                    selection.redeliveries.get(row, 0),
                    tuple(selection.ack_sets.get(row, ())),
                    selection.epoch,
                    bytes(run.body(row)),
                )
            )
        return not self.congested

    def active(self, active: bool) -> None:
        self.actives.append(active)

    def end_of_topic(self) -> None:
        self.ends += 1

    def closed(self, reason: PortError | None) -> None:
        self.closed_with.append(reason)

    @property
    def ids(self) -> list[EntryId]:
        return [each.id for each in self.got]

    def take(self) -> list[Delivered]:
        """Return what came since the last call of this."""
        got, self.got = self.got, []
        return got


@dataclass(eq=False)
class Guest:
    """A consumer and its door."""

    consumer: OpenConsumer
    door: Door

    def ack(self, *entries: EntryId, cumulative: bool = False) -> None:
        self.consumer.acknowledge([Acknowledged(*each) for each in entries], cumulative=cumulative)

    def ack_part(self, entry: EntryId, *words: int, cumulative: bool = False) -> None:
        self.consumer.acknowledge([Acknowledged(*entry, words)], cumulative=cumulative)


@dataclass
class Stage:
    """One topic with one log, and the subscriptions a test opens on it."""

    clock: ManualClock = field(default_factory=ManualClock)
    ledger_entries_max: int = 1 << 30
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop = ManualLoop(self.clock)
        self.log = MemoryLog(self.clock, ledger_entries_max=self.ledger_entries_max)
        self.ground = StageGround(
            BrokerConfig(data=Path("unused"), **self.settings),
            self.clock,
            self.loop,
            Rota(self.loop, self.clock),
        )
        self.home = StageHome()

    def publish(self, count: int, **columns: Any) -> list[EntryId]:
        """Store entries whose bodies count up."""
        first = self.log.next_index
        return [self.log.append(b"%d" % (first + i), **columns) for i in range(count)]

    async def subscription(
        self,
        start: EntryId = EARLIEST,
        *,
        cursor: Cursor | None = None,
        limits: Limits | None = None,
        **options: Any,
    ) -> Subscription:
        """Open a subscription."""
        return Subscription(
            "work",
            TOPIC,
            self.log,
            cursor or await cursor_at(self.log, start),
            self.ground,
            self.home,
            limits=limits,
            **options,
        )

    def join(
        self,
        subscription: Subscription,
        kind: SubscriptionType,
        name: str = "c",
        *,
        permits: int = 0,
        key_shared: KeyShared | None = None,
        **fields: Any,
    ) -> Guest:
        """Let a consumer in."""
        door = Door()
        request = SubscribeRequest(
            TOPIC, subscription.name, kind, name, key_shared=key_shared, **fields
        )
        guest = Guest(subscription.add_consumer(request, door), door)
        if permits:
            guest.consumer.flow(permits)
        return guest

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        await self.loop.settle()

"""The port: what a door may ask of a log. Types only.

    door ──▶ Port.open_producer ──▶ Producer        door ──▶ Port.subscribe ──▶ Consumer
    door ──▶ Port.publish(run)                       log ──▶ ConsumerEvents.deliver
     log ──▶ PublishDone(groups), once per commit

Behind the port stands the log of this process, or a topic elsewhere. A door never learns
which. Everything here is called on the event loop; nothing here blocks. What may take
time is a coroutine; `publish`, `flow`, `acknowledge` and `redeliver` are plain calls,
because they happen per socket read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, overload, runtime_checkable

from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.run import Run
from magnetar.names import NamespaceName, TopicName


class PortError(Exception):
    """Base of everything a port refuses. The message is for the client, and says what to do."""


class TopicNotFoundError(PortError):
    """The topic does not exist and may not be created by asking for it."""


class NamespaceNotFoundError(PortError):
    """The tenant or the namespace does not exist."""


class SubscriptionNotFoundError(PortError):
    """The subscription does not exist and may not be created by asking for it."""


class ServiceNotReadyError(PortError):
    """The topic is being loaded or moved, or lives elsewhere: look it up again, then retry."""


class TopicMovedError(ServiceNotReadyError):
    """The topic is served by another process from now on."""

    def __init__(self, message: str, url: str = "", url_tls: str = "") -> None:
        super().__init__(message)
        self.url, self.url_tls = url, url_tls
        """Where that is; empty: look it up."""


class PersistenceError(PortError):
    """The log could not write. Nothing was acknowledged; the client may send again."""


class MetadataError(PortError):
    """A fact could not be read or written, or the command names something that is not there."""


class ProducerBusyError(PortError):
    """Another live producer of the topic has this name, or holds the topic for itself."""


class ProducerFencedError(PortError):
    """The topic belongs to another exclusive producer. There is no point in retrying."""


class ConsumerBusyError(PortError):
    """The subscription is taken, or its type does not fit."""


class ConsumerAssignError(PortError):
    """Key ranges overlap, or do not fit those of the other consumers."""


class NotAllowedError(PortError):
    """The command makes no sense here, such as a cumulative acknowledgement on Shared."""


class TopicTerminatedError(PortError):
    """The topic was closed for good; it can still be read."""


class TransactionCoordinatorNotFoundError(PortError):
    """There is no coordinator of this number."""


class TransactionNotFoundError(PortError):
    """The transaction never was, is over, or belongs to somebody else."""


class InvalidTransactionStatusError(PortError):
    """The transaction is decided: it can neither be joined nor decided otherwise."""


class TransactionConflictError(PortError):
    """The message is acknowledged, or about to be, by somebody else."""


class TooManyRequestsError(PortError):
    """A limit on what may be under way at a time is reached: try again later."""


class SchemaNotFoundError(TopicNotFoundError):
    """The topic has no schema, or none of that version."""


class IncompatibleSchemaError(PortError):
    """Data of this schema and of those before it do not go together, or a schema is needed."""


class InvalidSchemaError(IncompatibleSchemaError):
    """The definition is none, or too large or too complex to be checked."""


class QuotaExceededError(PortError):
    """The backlog quota is full. `hold`: wait and try again; otherwise fail."""

    def __init__(self, message: str, *, hold: bool) -> None:
        super().__init__(message)
        self.hold = hold


class AccessMode(Enum):
    """How many producers a topic may have beside this one. Numbers are Pulsar's."""

    SHARED = 0
    EXCLUSIVE = 1
    WAIT_FOR_EXCLUSIVE = 2
    EXCLUSIVE_WITH_FENCING = 3


class SubscriptionType(Enum):
    """Who of a subscription's consumers gets an entry. Numbers are Pulsar's."""

    EXCLUSIVE = 0
    SHARED = 1
    FAILOVER = 2
    KEY_SHARED = 3


class ListMode(Enum):
    """Which topics of a namespace to list. Numbers are Pulsar's."""

    PERSISTENT = 0
    NON_PERSISTENT = 1
    ALL = 2


# --- schemas -----------------------------------------------------------------------------


class SchemaType(Enum):
    """What a schema's definition is. Names are those of Pulsar's admin REST, numbers the wire's."""

    NONE = 0
    STRING = 1
    JSON = 2
    PROTOBUF = 3
    AVRO = 4
    BOOLEAN = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FLOAT = 10
    DOUBLE = 11
    DATE = 12
    TIME = 13
    TIMESTAMP = 14
    KEY_VALUE = 15
    INSTANT = 16
    LOCAL_DATE = 17
    LOCAL_TIME = 18
    LOCAL_DATE_TIME = 19
    PROTOBUF_NATIVE = 20
    AUTO_CONSUME = 21
    EXTERNAL = 22


class Schema(NamedTuple):
    """What the payloads of a topic are, as a client declares it."""

    type: SchemaType
    data: bytes = b""
    """The definition; empty for strings and numbers."""
    properties: Mapping[str, str] = {}
    name: str = ""

    @property
    def declared(self) -> bool:
        """Whether this says anything: bytes and "whatever the topic has" do not."""
        return self.type not in {SchemaType.NONE, SchemaType.AUTO_CONSUME}


class VersionedSchema(NamedTuple):
    """A schema as a topic has it."""

    version: int
    """From 0. Messages carry it as eight bytes, big-endian."""
    schema: Schema
    created_ms: int


# --- publishing ------------------------------------------------------------------------


class ProducerEvents(Protocol):
    """What a log tells a door about one of its producers."""

    def ready(self, topic_epoch: int) -> None:
        """Report that a producer waiting for exclusive access got it."""

    def closed(self, reason: PortError) -> None:
        """Report that the broker ended this producer; the client should look up and come again."""


@runtime_checkable
class ThrottledEvents(Protocol):
    """What the events of a producer have besides, if its door can keep a client waiting."""

    def throttle(self, seconds: float) -> None:
        """Take nothing more from this producer for so long: it has sent more than it may.

        0: its rate is limited, be ready for that; below 0: it is limited no more.
        """


@runtime_checkable
class MovingEvents(Protocol):
    """What the events of a producer or a consumer have besides, if its door can make it wait."""

    def moving(self) -> None:
        """Take nothing more from this client: its topic moves. `closed` follows.

        What was taken before is still reported.
        """


@dataclass(frozen=True, slots=True)
class ProducerRequest:
    """What a client asks for when it opens a producer."""

    topic: TopicName
    name: str | None = None
    """None: the log makes one up, unique among all producers."""
    user_provided_name: bool = True
    epoch: int = 0
    """Counts the reconnections of this producer; a higher one replaces a lower one."""
    access_mode: AccessMode = AccessMode.SHARED
    topic_epoch: int | None = None
    encrypted: bool = False
    initial_subscription: str | None = None
    schema: Schema | None = None
    client_address: str = ""
    client_version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    caller: str = ""
    """In whose name it is opened, for a port that passes the request on. Opaque here."""
    owner: str = ""
    """Whose it is. Only what is the same one's takes the place of a producer of the same name."""
    passed_on: bool = False
    """By another process, which takes this one for the owner. It is not passed on again."""


class Producer(Protocol):
    """An open producer. A door puts it into a slot and names the slot in the rows it publishes."""

    @property
    def name(self) -> str: ...
    @property
    def last_sequence_id(self) -> int:
        """The highest sequence id stored under this name; -1: none, or deduplication is off."""
        ...

    @property
    def topic_epoch(self) -> int | None: ...
    @property
    def ready(self) -> bool:
        """False while the producer waits for exclusive access."""
        ...

    @property
    def schema_version(self) -> int | None:
        """The version of the producer's schema; None: it declared none."""
        ...

    async def close(self) -> None:
        """Return once everything this producer has published is durable or refused."""


class Group(NamedTuple):
    """What became of neighbouring rows of one published run, all of one producer.

    Exactly one of three: stored (`error` None, `ledger` >= 0), a duplicate (`error` None,
    `ledger` -1), or refused (`error` set). Non-persistent topics also report `ledger` -1.
    """

    slot: int
    first_row: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    ledger: int
    first_entry: int
    error: PortError | None = None


PublishDone = Callable[[Run, Sequence[Group]], None]
"""Called on the event loop, once or several times for one run, until every row is accounted for.

Groups of one producer come in the order in which it sent them, also across runs.
All calls of one commit come back to back, so that a door can collect them and write once.
"""


# --- consuming -------------------------------------------------------------------------


class Selection(NamedTuple):
    """Which rows of a run go to one consumer."""

    ledger: int
    first_entry: int
    """The entry id of row 0 of the run; row `i` is entry `first_entry + i`."""
    rows: Sequence[int]
    """Row numbers in rising order. A `range` when they are neighbours."""
    redeliveries: Mapping[int, int] = {}
    """Row number -> how often it was delivered before, where that is not 0."""
    ack_sets: Mapping[int, Sequence[int]] = {}
    """Row number -> the 64-bit words (signed, 1 = still to be acknowledged) of a batch that was
    acknowledged in part."""
    epoch: int | None = None
    """The consumer epoch this delivery belongs to, if the client uses epochs."""


class ConsumerEvents(Protocol):
    """What a log tells a door about one of its consumers."""

    def deliver(self, run: Run, selection: Selection) -> bool:
        """Send entries. False: the connection is full, send no more before `Consumer.resume`."""
        ...

    def active(self, active: bool) -> None:
        """Report whether this is the consumer served, on a Failover or Exclusive subscription."""

    def end_of_topic(self) -> None:
        """Report that the topic is terminated and everything in it was delivered."""

    def closed(self, reason: PortError | None) -> None:
        """Report that the broker ended this consumer; the client should look up and come again."""


class KeyShared(NamedTuple):
    """The options of a Key_Shared subscription."""

    ranges: Sequence[tuple[int, int]] = ()
    """Inclusive ranges within 0..65535 for a sticky consumer; empty: split automatically."""
    sticky: bool = False
    allow_out_of_order: bool = False


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """What a client asks for when it subscribes."""

    topic: TopicName
    subscription: str
    type: SubscriptionType = SubscriptionType.EXCLUSIVE
    consumer_name: str = ""
    priority: int = 0
    durable: bool = True
    from_earliest: bool = False
    start: EntryId | None = None
    """Inclusive, for subscriptions that are not durable. `EARLIEST` and `LATEST` are allowed."""
    start_ack_set: Sequence[int] = ()
    rollback_seconds: int = 0
    read_compacted: bool = False
    create_topic: bool = True
    key_shared: KeyShared | None = None
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    epoch: int | None = None
    schema: Schema | None = None
    client_address: str = ""
    client_version: str = ""
    caller: str = ""
    """In whose name it is opened, for a port that passes the request on. Opaque here."""
    passed_on: bool = False
    """As in `ProducerRequest`."""


class Acknowledged(NamedTuple):
    """One id of an acknowledgement."""

    ledger: int
    entry: int
    ack_set: Sequence[int] = ()
    """Words of 64 bits, 1 = still to be acknowledged. Empty: the whole entry."""


class Neighbours(Sequence[Acknowledged]):
    """The ids of neighbouring entries, each acknowledged as a whole: one object for all of them."""

    __slots__ = ("entries", "ledger")
    __hash__ = None  # type: ignore[assignment]  # it equals lists

    def __init__(self, ledger: int, entries: range) -> None:
        """Take a ledger, and its entries without a gap."""
        self.ledger = ledger
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Acknowledged: ...
    @overload
    def __getitem__(self, index: slice) -> list[Acknowledged]: ...
    def __getitem__(self, index: int | slice) -> Acknowledged | list[Acknowledged]:
        if isinstance(index, slice):
            return [Acknowledged(self.ledger, entry) for entry in self.entries[index]]
        return Acknowledged(self.ledger, self.entries[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Neighbours({self.ledger}, {self.entries})"


class LastMessage(NamedTuple):
    """Where a topic ends, and how far this consumer's subscription is."""

    entry: EntryId
    """`EARLIEST` if the topic is empty."""
    batch_size: int
    """Messages in that entry if it is a batch, else 0."""
    mark_delete: EntryId


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A consumer's figures, as CONSUMER_STATS and admin REST show them. Rates are per second."""

    name: str
    type: SubscriptionType
    permits: int
    unacked: int
    blocked: bool
    backlog: int
    message_rate: float
    byte_rate: float
    redelivery_rate: float
    ack_rate: float
    expired_rate: float
    address: str
    connected_since_ms: int


class Consumer(Protocol):
    """An open consumer."""

    @property
    def name(self) -> str: ...

    def flow(self, permits: int) -> None:
        """Allow `permits` more messages."""

    def resume(self) -> None:
        """Take back the False of `deliver`: the connection has room again."""

    def acknowledge(self, ids: Sequence[Acknowledged], *, cumulative: bool) -> None:
        """Acknowledge entries. Ids that are unknown or already acknowledged are no error.

        Raises:
            NotAllowedError: cumulative on a Shared or Key_Shared subscription.
            TransactionConflictError: transactions hold some of them; the others are acknowledged.
        """

    async def acknowledge_in(
        self, transaction: TransactionId, ids: Sequence[Acknowledged], *, cumulative: bool
    ) -> None:
        """Acknowledge entries once a transaction is committed; durable when this returns.

        Until then they are neither acknowledged nor sent again.

        Raises:
            TransactionConflictError: one is acknowledged, or another transaction holds it.
            TransactionNotFoundError, InvalidTransactionStatusError: the transaction is over.
        """

    def redeliver(self, ids: Sequence[EntryId] | None, epoch: int | None) -> None:
        """Send entries again; None: everything this consumer has not acknowledged."""

    async def seek(
        self, position: EntryId | None, ack_set: Sequence[int], time_ms: int | None
    ) -> None:
        """Reset the subscription to a position (inclusive) or a publish time.

        Every consumer of the subscription is closed first (`ConsumerEvents.closed`).
        """

    async def last_message(self) -> LastMessage: ...

    def stats(self) -> ConsumerStats: ...

    async def unsubscribe(self, *, force: bool) -> None:
        """Delete the subscription and its cursor.

        Raises:
            ConsumerBusyError: others are connected, and `force` is off.
        """

    async def close(self) -> None:
        """Leave. What was delivered and not acknowledged goes back to the subscription."""


TopicNews = Callable[[Mapping[str, bool]], None]
"""Is called with full names of topics that may have come or gone, and whether each is there."""


# --- the port --------------------------------------------------------------------------


class Location(NamedTuple):
    """Where the owner of a topic can be reached."""

    url: str
    """`pulsar://host:port`; empty, like every other: it is not reached that way."""
    http_url: str
    here: bool
    """True: this very process owns the topic."""
    url_tls: str = ""
    """`pulsar+ssl://host:port`."""
    http_url_tls: str = ""


class Port(Protocol):
    """Everything a protocol door may ask for."""

    async def locate(self, topic: TopicName, listener: str | None = None) -> Location:
        """Return where a topic is served.

        Raises:
            NamespaceNotFoundError: the tenant or namespace is missing.
            NotAllowedError: there is no listener of that name.
        """
        ...

    async def partitions(self, topic: TopicName, *, create: bool) -> int:
        """Return how many partitions a topic has, 0 for an ordinary topic.

        With `create`, a topic that does not exist is made as its namespace prescribes.

        Raises:
            TopicNotFoundError: there is no such topic and `create` is False or not permitted.
            NamespaceNotFoundError: the tenant or namespace is missing.
        """
        ...

    async def topics(self, namespace: NamespaceName, mode: ListMode) -> list[str]:
        """Return the full names of a namespace's topics, partitions included, system topics not."""
        ...

    async def schema(self, topic: TopicName, version: int | None) -> VersionedSchema:
        """Return a topic's schema; None: the latest version.

        Raises:
            SchemaNotFoundError: it has none, or not this version.
        """
        ...

    async def create_schema(self, topic: TopicName, schema: Schema) -> int | None:
        """Return the version of a schema, which is added if the topic has it not and may get it.

        None: it is one that is not kept, such as plain bytes.

        Raises:
            TopicNotFoundError: there is no such topic.
            IncompatibleSchemaError: it does not go with what the topic has.
        """
        ...

    def watch_topics(self, namespace: NamespaceName, news: TopicNews) -> Callable[[], None]:
        """Tell soon which topics of a namespace come and go; return how to stop that.

        Partitions are told one by one, of all processes, system topics not. What is told may be
        known already: a topic is told again when it changed in another way.
        """
        ...

    async def open_producer(self, request: ProducerRequest, events: ProducerEvents) -> Producer: ...

    async def subscribe(self, request: SubscribeRequest, events: ConsumerEvents) -> Consumer: ...

    def publish(self, run: Run, producers: Sequence[Producer | None], done: PublishDone) -> bool:
        """Store a run. `producers[slot]` is the producer of a row; None only for unused slots.

        The buffer of the run may be reused as soon as this returns; the rows belong to the
        port until every row is accounted for. Returns False when too many bytes wait for the
        disk: the run was taken, but the door reads no further before `call_when_clear` calls.
        """
        ...

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call once, soon, when publishing may go on."""


# --- transactions ------------------------------------------------------------------------


class Participants(Protocol):
    """Where entries and acknowledgements of transactions are, in this process or another."""

    async def settle(self, topic: TopicName, transaction: TransactionId) -> None:
        """Do for the entries of one topic what is decided; nothing, if nothing is."""

    async def settle_subscription(
        self, topic: TopicName, subscription: str, transaction: TransactionId
    ) -> None:
        """Do for the acknowledgements of one subscription what is decided."""


class Transactions(Participants, Protocol):
    """The coordinators of transactions, whichever process a client came to.

    `role` is who asks; None: nobody was asked who he is. A transaction of somebody else's is
    not found. Whatever these return is durable.
    """

    async def coordinators(self) -> int:
        """Return how many there are; their numbers begin with 0."""
        ...

    async def demand(self, coordinator: int) -> None:
        """Check that there is such a coordinator.

        Raises:
            TransactionCoordinatorNotFoundError: there is not.
        """

    async def open(self, coordinator: int, ttl_ms: int, role: str | None) -> TransactionId:
        """Open a transaction; it is aborted after so many milliseconds.

        Raises:
            TransactionCoordinatorNotFoundError: there is no such coordinator.
            TooManyRequestsError: it has too many open ones.
        """
        ...

    async def add(self, transaction: TransactionId, participants: int, role: str | None) -> None:
        """Check that so many topics or subscriptions may take part in a transaction.

        They are written down when the first entry, or acknowledgement, comes.

        Raises:
            TransactionNotFoundError, InvalidTransactionStatusError: it is over, or another's.
        """

    async def end(self, transaction: TransactionId, role: str | None, *, commit: bool) -> None:
        """Commit or abort.

        Raises:
            TransactionNotFoundError: it is over, or another's.
            InvalidTransactionStatusError: the other is decided.
        """

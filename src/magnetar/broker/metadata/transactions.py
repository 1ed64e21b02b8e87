"""Transactions: what of them must survive.

    transactions/<coordinator>/<number>                    JSON: state, owner, time-out
    transaction-parts/<coordinator>/<number>/topic/<topic>     JSON: takes part with entries
    transaction-parts/<coordinator>/<number>/cursor/<cursor>   JSON: ... with acknowledgements
    transaction-buffers/<topic>/<number in the topic>      JSON: where its entries begin
    transaction-acks/<cursor>/<coordinator>/<number>/<n>   JSON: acknowledgements held back

    OPEN ──decide──▶ COMMITTING ──everybody has done it──▶ no record
      └────decide──▶ ABORTING ────everybody has done it──▶ no record, but for where in which topic
                                                           entries lie that nobody may see

The record of a transaction is written twice: when it is opened and when it is decided. Whoever
takes part writes that down under the condition that the record still has the version it was
opened with, so nothing can join what is decided: a request that was delayed is refused, and
never becomes part of something later (the lesson of Kafka's KIP-890). The decision is one
write of one key; everything after it may be done any number of times, by any process.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from magnetar.broker.entry import EARLIEST, EntryId, TransactionId
from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Change,
    Check,
    ConflictError,
    Delete,
    DeleteAll,
    Put,
    Store,
    number_of,
    numbered,
)
from magnetar.broker.port import (
    InvalidTransactionStatusError,
    NotAllowedError,
    TopicNotFoundError,
    TransactionNotFoundError,
)
from magnetar.names import TopicName

COORDINATORS = 4
"""How many there are before somebody asks for more. Each client looks all of them up when it
starts (Pulsar has 16); they have no state of their own, so that more of them gain nothing."""

COORDINATORS_MAX = 64

PARTICIPANTS_MAX = 10_000
"""Topics and subscriptions of one transaction."""

FINISH_ATTEMPTS_MAX = 20


class State(Enum):
    """What is decided about a transaction. The names are Pulsar's."""

    OPEN = "OPEN"
    COMMITTING = "COMMITTING"
    ABORTING = "ABORTING"


class TransactionRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One transaction that is not over."""

    state: State = State.OPEN
    owner: str | None = None
    """The role that opened it; None: nobody was asked who he is."""
    ttl_ms: int
    opened_ms: int
    timed_out: bool = False


class Transaction(NamedTuple):
    """A transaction as it is stored."""

    id: TransactionId
    record: TransactionRecord
    version: int


class BufferRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The entries of one transaction in one topic."""

    most: int
    least: int
    first_ledger: int
    first_entry: int
    """None of its entries lies before this place."""
    aborted: bool = False
    last_ledger: int = EARLIEST.ledger
    last_entry: int = EARLIEST.entry
    """Of an aborted one: none lies after this place; EARLIEST: nobody has looked yet."""

    @property
    def transaction(self) -> TransactionId:
        """Which transaction."""
        return TransactionId(self.most, self.least)

    @property
    def first(self) -> EntryId:
        """None of its entries lies before this place."""
        return EntryId(self.first_ledger, self.first_entry)

    @property
    def last(self) -> EntryId:
        """None of its entries lies after this place; EARLIEST: nobody has looked yet."""
        return EntryId(self.last_ledger, self.last_entry)


class HeldAcks(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Acknowledgements of one command, until it is known what becomes of their transaction."""

    ranges: list[tuple[int, int, int]] = []
    """Ledger, first entry and how many: whole entries."""
    parts: list[tuple[int, int, int, list[int]]] = []
    """Ledger, entry, messages in the batch, and which of them as words: 1 = acknowledged."""
    up_to: tuple[int, int, list[int]] | None = None
    """Ledger, entry and ack set of a cumulative acknowledgement."""


class AckRecord(NamedTuple):
    """Held acknowledgements as they are stored."""

    transaction: TransactionId
    number: int
    acks: HeldAcks


class _TopicPart(msgspec.Struct, kw_only=True):
    number: int


class _CursorPart(msgspec.Struct, kw_only=True):
    topic: str
    subscription: str


class CursorPart(NamedTuple):
    """A subscription that holds acknowledgements of a transaction."""

    topic: TopicName
    subscription: str
    cursor: int


class Participants(NamedTuple):
    """Who has something of a transaction."""

    topics: Sequence[tuple[TopicName, int]]
    """With the number that the transaction has there."""
    cursors: Sequence[CursorPart]


class _Count(msgspec.Struct, kw_only=True):
    coordinators: int


class TransactionStore:
    """All transactions that are not over."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- coordinators

    async def coordinators(self) -> int:
        """Return how many coordinators there are."""
        found = await facts.read(self._store, paths.TRANSACTION_COORDINATORS, _Count)
        return COORDINATORS if found is None else found.coordinators

    async def scale(self, coordinators: int) -> None:
        """Have more coordinators.

        Raises:
            NotAllowedError: there are as many already, or that is too many.
        """
        now = await self.coordinators()
        if not now < coordinators <= COORDINATORS_MAX:
            raise NotAllowedError(
                f"there are {now} coordinators; allowed: more than that, to {COORDINATORS_MAX}"
            )
        key = paths.TRANSACTION_COORDINATORS
        await self._store.commit([Put(key, encode(_Count(coordinators=coordinators)))])

    async def open(self, coordinator: int, record: TransactionRecord) -> TransactionId:
        """Open a transaction; it is on disk when this returns."""
        [number] = await self._store.commit(
            [
                Append(
                    paths.transaction_counter(coordinator),
                    paths.transactions(coordinator),
                    encode(record),
                )
            ]
        )
        assert number is not None
        return TransactionId(coordinator, number)

    async def find(self, transaction: TransactionId) -> Transaction:
        """Return a transaction that is not over.

        Raises:
            TransactionNotFoundError: there is none: it never was, or is over.
        """
        if not (0 <= transaction.most < 2**63 and 0 <= transaction.least < 2**63):
            raise _missing(transaction)
        key = paths.transaction(transaction)
        found = await self._store.get(key)
        if found is None:
            raise _missing(transaction)
        return Transaction(transaction, decode(key, found.value, TransactionRecord), found.version)

    async def find_open(self, transaction: TransactionId) -> Transaction:
        """Return a transaction that may still be joined.

        Raises:
            TransactionNotFoundError: there is none: it never was, or is over.
            InvalidTransactionStatusError: it is decided.
        """
        found = await self.find(transaction)
        if found.record.state is not State.OPEN:
            raise _decided(found)
        return found

    async def of(self, coordinator: int) -> list[Transaction]:
        """Return the transactions of a coordinator that are not over, oldest first."""
        return [
            Transaction(
                TransactionId(coordinator, number_of(key)),
                decode(key, found.value, TransactionRecord),
                found.version,
            )
            for key, found in await self._store.scan(paths.transactions(coordinator))
        ]

    async def count(self, coordinator: int) -> int:
        """Return how many transactions of a coordinator are not over."""
        return len(await self._store.keys(paths.transactions(coordinator)))

    async def last_number(self, coordinator: int) -> int:
        """Return the number of the last transaction that a coordinator opened; 0: none."""
        found = await self._store.get(paths.transaction_counter(coordinator))
        return 0 if found is None else int(found.value)

    async def decide(
        self, transaction: Transaction, state: State, *, timed_out: bool = False
    ) -> Transaction:
        """Commit or abort: whatever follows can be done again. It is on disk when this returns.

        Raises:
            ConflictError: somebody else has decided meanwhile.
        """
        record = msgspec.structs.replace(transaction.record, state=state, timed_out=timed_out)
        key = paths.transaction(transaction.id)
        [version] = await self._store.commit([Put(key, encode(record), transaction.version)])
        assert version is not None
        return Transaction(transaction.id, record, version)

    async def participants(self, transaction: TransactionId) -> Participants:
        """Return who has something of a transaction."""
        topics: list[tuple[TopicName, int]] = []
        cursors: list[CursorPart] = []
        prefix = paths.transaction_parts(transaction)
        for key, found in await self._store.scan(prefix):
            if key.startswith(prefix + paths.TOPIC_PART):
                name = paths.topic_name(prefix + paths.TOPIC_PART, key)
                topics.append((name, decode(key, found.value, _TopicPart).number))
            else:
                part = decode(key, found.value, _CursorPart)
                cursors.append(
                    CursorPart(TopicName.parse(part.topic), part.subscription, number_of(key))
                )
        return Participants(topics, cursors)

    async def finish(self, transaction: Transaction, participants: Participants) -> None:
        """Forget a decided transaction: everybody who is there has done his part.

        Of an aborted one it stays written down where its entries lie.
        """
        aborted = transaction.record.state is State.ABORTING
        for attempt in range(FINISH_ATTEMPTS_MAX):
            changes: list[Change] = []
            for topic, number in participants.topics:
                key = numbered(paths.transaction_buffers(topic), number)
                if not aborted:
                    changes.append(Delete(key))
                    continue
                found = await self._store.get(key)
                record = None if found is None else decode(key, found.value, BufferRecord)
                if found is not None and record is not None and not record.aborted:
                    record.aborted = True
                    changes.append(Put(key, encode(record), found.version))
            changes += [
                DeleteAll(paths.transaction_acks(each.cursor, transaction.id))
                for each in participants.cursors
            ]
            changes += [
                DeleteAll(paths.transaction_parts(transaction.id)),
                Delete(paths.transaction(transaction.id)),
            ]
            own = paths.transaction(transaction.id)
            try:
                await self._store.commit([Check(own, transaction.version), *changes])
            except ConflictError as error:
                if error.key == own:
                    return  # somebody else has finished it
                if attempt == FINISH_ATTEMPTS_MAX - 1:
                    raise
            else:
                return

    # --- topics

    async def join(
        self, transaction: Transaction, topic: TopicName, number: int, first: EntryId
    ) -> None:
        """Write down that a topic takes entries of an open transaction, none before `first`.

        Raises:
            InvalidTransactionStatusError: it is decided, or over.
            NotAllowedError: it has too many participants.
            TopicNotFoundError: the topic is gone.
        """
        await self._demand_room(transaction.id)
        record = BufferRecord(
            most=transaction.id.most,
            least=transaction.id.least,
            first_ledger=first.ledger,
            first_entry=first.entry,
        )
        part = paths.transaction_part(transaction.id, topic)
        await self._commit_part(
            transaction,
            paths.topic(topic),
            topic,
            [
                Put(numbered(paths.transaction_buffers(topic), number), encode(record)),
                Put(part, encode(_TopicPart(number=number))),
            ],
        )

    async def buffers(self, topic: TopicName) -> dict[int, BufferRecord]:
        """Return the transactions that a topic has entries of, open and aborted, by number."""
        return {
            number_of(key): decode(key, found.value, BufferRecord)
            for key, found in await self._store.scan(paths.transaction_buffers(topic))
        }

    async def topics_with_buffers(self) -> set[TopicName]:
        """Return the topics that have entries of transactions, open or aborted."""
        kind = paths.TRANSACTION_BUFFERS
        return {
            paths.topic_name(kind, key.rpartition("/")[0]) for key in await self._store.keys(kind)
        }

    async def save_buffer(self, topic: TopicName, number: int, record: BufferRecord) -> None:
        """Write down where the entries of an aborted transaction lie."""
        key = numbered(paths.transaction_buffers(topic), number)
        await facts.commit_where_present(self._store, {key: [Put(key, encode(record))]})

    async def drop_buffers(self, topic: TopicName, numbers: Sequence[int]) -> None:
        """Forget transactions of which a topic has no entries any more."""
        prefix = paths.transaction_buffers(topic)
        await self._store.commit([Delete(numbered(prefix, number)) for number in numbers])

    # --- subscriptions

    async def hold(  # noqa: PLR0913, PLR0917 - what one acknowledgement is about
        self,
        transaction: Transaction,
        topic: TopicName,
        subscription: str,
        cursor: int,
        number: int,
        acks: HeldAcks,
    ) -> None:
        """Write down acknowledgements in an open transaction.

        Raises:
            InvalidTransactionStatusError: it is decided, or over.
            NotAllowedError: it has too many participants.
            TopicNotFoundError: the subscription is gone.
        """
        await self._demand_room(transaction.id)
        part = _CursorPart(topic=str(topic), subscription=subscription)
        await self._commit_part(
            transaction,
            numbered(paths.cursors(topic), cursor),
            topic,
            [
                Put(
                    numbered(paths.transaction_acks(cursor, transaction.id), number),
                    encode(acks),
                ),
                Put(paths.transaction_cursor_part(transaction.id, cursor), encode(part)),
            ],
        )

    async def acks(self, cursor: int) -> list[AckRecord]:
        """Return the acknowledgements that are held back at a cursor, by transaction, in order."""
        prefix = paths.all_transaction_acks(cursor)
        return [
            AckRecord(
                paths.transaction_of_acks(prefix, key),
                number_of(key),
                decode(key, found.value, HeldAcks),
            )
            for key, found in await self._store.scan(prefix)
        ]

    async def cursors_with_acks(self) -> set[int]:
        """Return the cursors at which acknowledgements are held back."""
        keys = await self._store.keys(paths.TRANSACTION_ACKS)
        return {paths.cursor_of_acks(key) for key in keys}

    # --- inside

    async def _demand_room(self, transaction: TransactionId) -> None:
        if len(await self._store.keys(paths.transaction_parts(transaction))) >= PARTICIPANTS_MAX:
            raise NotAllowedError(
                f"transaction {transaction} has {PARTICIPANTS_MAX} topics and subscriptions"
            )

    async def _commit_part(
        self, transaction: Transaction, place: str, topic: TopicName, changes: Sequence[Change]
    ) -> None:
        key = paths.transaction(transaction.id)
        try:
            await self._store.commit(
                [Check(key, transaction.version), Check(place, PRESENT), *changes]
            )
        except ConflictError as error:
            if error.key == place:
                raise TopicNotFoundError(f"topic {topic}, or its subscription, is gone") from None
            raise InvalidTransactionStatusError(
                f"transaction {transaction.id} is over, or about to be"
            ) from None


def _missing(transaction: TransactionId) -> TransactionNotFoundError:
    return TransactionNotFoundError(f"transaction {transaction} is not open: unknown, or over")


def _decided(transaction: Transaction) -> InvalidTransactionStatusError:
    return InvalidTransactionStatusError(
        f"transaction {transaction.id} is {transaction.record.state.value} already"
    )

"""What a subscription does for a transaction: hold acknowledgements, then make or drop them.

    ACK ──▶ check, hold in memory ──▶ written down, if the transaction is open ──▶ answer
                                        └─ it is not: let go, refuse
    decided ──▶ settle ──committed──▶ acknowledged        (the cursor is saved before anybody
                  └──────aborted────▶ sent again           forgets what was held)

What is held in memory before it is durable makes the second of two wishes for one message the
one that is refused.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from magnetar.broker.entry import EARLIEST, EntryId, TransactionId
from magnetar.broker.metadata.transactions import AckRecord, HeldAcks
from magnetar.broker.port import (
    Acknowledged,
    NotAllowedError,
    SubscriptionType,
    TransactionConflictError,
)
from magnetar.broker.topics.consumers.consumption import Consumption
from magnetar.broker.topics.consumers.delivery import Delivery
from magnetar.broker.topics.consumers.places import read_one
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.held_acks import HeldAcknowledgements, Taken, Wish, as_bits
from magnetar.broker.topics.cursors.reading import Log


class Holder(Protocol):
    """The subscription, as it is seen here."""

    name: str
    type: SubscriptionType
    durable: bool
    log: Log
    cursor: Cursor
    consumption: Consumption
    delivery: Delivery | None
    held: HeldAcknowledgements | None

    def exists(self, position: EntryId) -> bool: ...
    def acknowledge_taken(self, taken: Taken) -> None: ...
    def wake(self) -> None: ...


S = TypeVar("S", bound=Holder)
S_contra = TypeVar("S_contra", contravariant=True)


class Notebook(Protocol[S_contra]):
    """Where it is written down."""

    async def hold_acks(
        self, subscription: S_contra, transaction: TransactionId, number: int, acks: HeldAcks
    ) -> None: ...


async def acknowledge_in(
    subscription: S,
    notebook: Notebook[S],
    transaction: TransactionId,
    ids: Sequence[Acknowledged],
    *,
    cumulative: bool,
) -> None:
    """Hold acknowledgements until a transaction is decided; they are on disk when this returns.

    Raises:
        TransactionConflictError: something of it is acknowledged, or held by another one.
        TransactionNotFoundError, InvalidTransactionStatusError: the transaction is over.
        NotAllowedError: not on this kind of subscription.
    """
    if not subscription.durable:
        raise NotAllowedError("a subscription that is not durable takes part in no transaction")
    shared = {SubscriptionType.SHARED, SubscriptionType.KEY_SHARED}
    if cumulative and subscription.type in shared:
        raise NotAllowedError(
            f"a {subscription.type.name} subscription has no cumulative acknowledgement"
        )
    entries, wishes = await _wishes(subscription, () if cumulative else ids)
    held = subscription.held
    if held is None:
        held = subscription.held = HeldAcknowledgements()
    if cumulative:
        for each in ids:
            _demand_there(subscription, EntryId(each.ledger, each.entry))
            number, acks = held.hold_up_to(transaction, each, subscription.cursor)
            await _write(subscription, notebook, transaction, number, acks)
        return
    number, acks = held.hold(transaction, entries, wishes, subscription.cursor)
    if subscription.delivery is not None:
        subscription.delivery.park(acks.ranges, _sizes(acks))
    await _write(subscription, notebook, transaction, number, acks)
    subscription.wake()  # somebody may have been blocked


async def _write(
    subscription: S,
    notebook: Notebook[S],
    transaction: TransactionId,
    number: int,
    acks: HeldAcks,
) -> None:
    if not acks.ranges and not acks.parts and acks.up_to is None:
        return
    try:
        await notebook.hold_acks(subscription, transaction, number, acks)
    except BaseException:
        if subscription.held is not None:
            subscription.held.give_back(transaction, acks)
        if subscription.delivery is not None:
            subscription.delivery.unpark(acks.ranges, _sizes(acks))
        parts = [(ledger, entry, 1) for ledger, entry, _, _ in acks.parts]
        _send_again(subscription, [*acks.ranges, *parts])
        raise


async def _wishes(
    subscription: Holder, ids: Sequence[Acknowledged]
) -> tuple[list[EntryId], list[Wish]]:
    """Tell whole entries from messages of batches, whose number has to be known."""
    entries: list[EntryId] = []
    wishes: list[Wish] = []
    for ledger, entry, ack_set in ids:
        at = EntryId(ledger, entry)
        _demand_there(subscription, at)
        if not any(ack_set) or subscription.cursor.is_acknowledged(at):
            entries.append(at)
            continue
        size = subscription.consumption.extras.get(ledger, entry) + 1
        if size == 1:
            size = (await read_one(subscription.log, at)).envelope.messages
        bits = ((1 << size) - 1) & ~as_bits(ack_set)
        if bits:
            wishes.append(Wish(at, size, bits))
    return entries, wishes


def _sizes(acks: HeldAcks) -> list[tuple[EntryId, int]]:
    """Return of which batches messages are held, and how many."""
    return [
        (EntryId(ledger, entry), as_bits(words).bit_count())
        for ledger, entry, _, words in acks.parts
    ]


def _demand_there(subscription: Holder, at: EntryId) -> None:
    if not subscription.exists(at):
        raise TransactionConflictError(f"there is no message {at} to acknowledge")


def settle(subscription: Holder, transaction: TransactionId, *, committed: bool) -> None:
    """Acknowledge what a transaction held, or send it again."""
    held = subscription.held
    taken = None if held is None else held.take(transaction)
    if taken is None:
        return
    ranges = [(each.ledger, each.first, each.length) for each in taken.ranges]
    if subscription.delivery is not None:
        places = [at for at, _ in taken.parts]
        subscription.delivery.unpark(ranges, list(zip(places, taken.part_sizes, strict=True)))
    if committed:
        subscription.acknowledge_taken(taken)
        return
    ranges += [(at.ledger, at.entry, 1) for at, _ in taken.parts]
    if taken.cumulative is not None:
        first = subscription.cursor.next_unacknowledged(EARLIEST, subscription.log)
        ranges.append((*first, 1))
    _send_again(subscription, ranges)


def hold_again(
    subscription: Holder, records: Sequence[AckRecord], committed: Sequence[TransactionId]
) -> None:
    """Hold what was held before a start; of committed transactions, acknowledge it."""
    held = subscription.held = HeldAcknowledgements()
    for each in records:
        held.restore(each.transaction, each.number, each.acks)
    for transaction in committed:
        settle(subscription, transaction, committed=True)


def _send_again(subscription: Holder, ranges: Sequence[tuple[int, int, int]]) -> None:
    if subscription.delivery is not None and ranges:
        subscription.delivery.release(ranges)
        subscription.wake()

"""A topic's part in transactions: what becomes of entries and acknowledgements, once it is decided.

    told to look ──▶ what is decided, on disk? ──open, or over──▶ nothing
                        ├─ entries            read, or never     (what is aborted is written down)
                        └─ acknowledgements   made, or dropped   (the cursor is saved)

Whoever tells a topic may be late, or wrong: it only ever does what is decided.
"""

from collections.abc import Container, Iterable
from contextlib import suppress

from magnetar.broker.entry import TransactionId
from magnetar.broker.metadata.transactions import State, TransactionStore
from magnetar.broker.port import TransactionNotFoundError
from magnetar.broker.topics.cursors.transaction_buffer import TransactionBuffer
from magnetar.broker.topics.subscriptions.checkpoints import Checkpoints
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.broker.topics.subscriptions.transacting import hold_again, settle


async def settle_entries(
    buffer: TransactionBuffer, transaction: TransactionId, store: TransactionStore
) -> None:
    """Let the entries of a transaction be read, or never, if that is decided."""
    if transaction not in buffer.open:
        return
    committed = await _is_committed(store, transaction)
    if committed is None:
        return
    ending = buffer.end(transaction, committed=committed)
    if ending is not None and not committed:
        await buffer.save_aborted(transaction, ending)


async def settle_acks(
    subscription: Subscription,
    transaction: TransactionId,
    store: TransactionStore,
    checkpoints: Checkpoints,
) -> bool:
    """Do for acknowledgements what is decided; return whether the cursor was to be saved."""
    committed = await _is_committed(store, transaction)
    if committed is None:
        return False
    settle(subscription, transaction, committed=committed)
    if committed:
        checkpoints.changed(subscription)
        await checkpoints.save_cursors([subscription])
    return committed


async def load_held(
    subscriptions: Iterable[Subscription],
    cursors: Container[int],
    store: TransactionStore,
    checkpoints: Checkpoints,
) -> None:
    """Hold again what transactions held before a start, at those of some cursors."""
    for subscription in subscriptions:
        cursor = checkpoints.cursor_of(subscription)
        if cursor is None or cursor not in cursors:
            continue
        records = await store.acks(cursor)
        decided = {each.transaction: State.ABORTING for each in records}
        for transaction in decided:
            with suppress(TransactionNotFoundError):
                decided[transaction] = (await store.find(transaction)).record.state
        hold_again(
            subscription,
            [each for each in records if decided[each.transaction] is not State.ABORTING],
            [each for each, state in decided.items() if state is State.COMMITTING],
        )


async def _is_committed(store: TransactionStore, transaction: TransactionId) -> bool | None:
    """Return what is decided; None: nothing is, or it is over and forgotten."""
    try:
        found = await store.find(transaction)
    except TransactionNotFoundError:
        return None
    state = found.record.state
    return None if state is State.OPEN else state is State.COMMITTING

"""What one connection asks of transaction coordinators, and siblings of participants.

    TC_CLIENT_CONNECT ──▶ is there such a coordinator? any process serves each of them
    NEW_TXN           ──▶ Transactions.open
    ADD_PARTITION, ADD_SUBSCRIPTION ──▶ Transactions.add        END_TXN ──▶ Transactions.end
    END_TXN_ON_PARTITION, END_TXN_ON_SUBSCRIPTION ──▶ look at what is decided (siblings say so)

Errors are fields of the answers, which name the transaction again. The last two commands decide
nothing, so that it does no harm whoever sends them. Source: the Pulsar binary protocol.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from magnetar.broker.doors.pulsar.requests import Line, Requests
from magnetar.broker.entry import TransactionId
from magnetar.broker.port import TooManyRequestsError, TransactionNotFoundError, Transactions
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName

OPEN_PER_CONNECTION_MAX = 5_000
"""Transactions that one connection has opened and not ended."""

LONGEST_MS = 3 * 3600 * 1000
"""What a client gets that asks for no time-out."""

TOLD_MAX = 10_000
"""Ends that one connection has heard of and may ask about again, the latest ones."""

_NONE = TransactionId(0, 0)


class TransactionRequests:
    """Answers one connection's commands about transactions."""

    __slots__ = ("_line", "_open", "_requests", "_role", "_told", "_transactions")

    def __init__(
        self,
        line: Line,
        requests: Requests,
        transactions: Transactions,
        role: Callable[[], str | None],
    ) -> None:
        """`role` tells who is connected; None: nobody was asked who he is."""
        self._line = line
        self._requests = requests
        self._transactions = transactions
        self._role = role
        self._open: dict[TransactionId, float] = {}
        """When their time is up, by the clock of the event loop."""
        self._told: dict[TransactionId, None] = {}
        """What was ended, and this connection was told so."""

    def connect(self, command: api.CommandTcClientConnectRequest) -> None:
        """Answer TC_CLIENT_CONNECT_REQUEST."""
        refuse = partial(commands.coordinator_refused, command.request_id)
        self._requests.start(self._connect(command), refuse)

    async def _connect(self, command: api.CommandTcClientConnectRequest) -> bytes:
        await self._transactions.demand(command.tc_id)
        return commands.coordinator_connected(command.request_id)

    def open(self, command: api.CommandNewTxn) -> None:
        """Answer NEW_TXN."""
        self._start(
            api.BaseCommand.NEW_TXN_RESPONSE, command.request_id, _NONE, self._opened(command)
        )

    async def _opened(self, command: api.CommandNewTxn) -> bytes:
        now_s = asyncio.get_running_loop().time()
        if len(self._open) >= OPEN_PER_CONNECTION_MAX:
            self._open = {each: due for each, due in self._open.items() if due > now_s}
        if len(self._open) >= OPEN_PER_CONNECTION_MAX:
            raise TooManyRequestsError(
                f"this connection has {OPEN_PER_CONNECTION_MAX} open transactions; end some first"
            )
        transaction = await self._transactions.open(
            command.tc_id, command.txn_ttl_millis, self._role()
        )
        self._open[transaction] = now_s + (command.txn_ttl_millis or LONGEST_MS) / 1000
        return commands.transaction_answer(
            api.BaseCommand.NEW_TXN_RESPONSE, command.request_id, transaction
        )

    def add_partitions(self, command: api.CommandAddPartitionToTxn) -> None:
        """Answer ADD_PARTITION_TO_TXN."""
        topics = list(command.partitions)
        kind = api.BaseCommand.ADD_PARTITION_TO_TXN_RESPONSE
        self._add(kind, command.request_id, _transaction(command), topics)

    def add_subscriptions(self, command: api.CommandAddSubscriptionToTxn) -> None:
        """Answer ADD_SUBSCRIPTION_TO_TXN."""
        topics = [each.topic for each in command.subscription]
        kind = api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN_RESPONSE
        self._add(kind, command.request_id, _transaction(command), topics)

    def _add(
        self,
        kind: api.BaseCommand.Type,
        request_id: int,
        transaction: TransactionId,
        topics: list[str],
    ) -> None:
        async def work() -> None:
            for each in topics:
                TopicName.parse(each)
            await self._transactions.add(transaction, len(topics), self._role())

        self._answer(kind, request_id, transaction, work())

    def end(self, command: api.CommandEndTxn) -> None:
        """Answer END_TXN."""
        transaction = _transaction(command)

        async def work() -> None:
            commit = command.txn_action == api.COMMIT
            if transaction in self._told:
                raise TransactionNotFoundError(f"transaction {transaction} is over")
            try:
                await self._transactions.end(transaction, self._role(), commit=commit)
            finally:
                self._open.pop(transaction, None)
            # Who may have missed the answer comes again on another connection, and gets it.
            if len(self._told) >= TOLD_MAX:
                del self._told[next(iter(self._told))]
            self._told[transaction] = None

        self._answer(api.BaseCommand.END_TXN_RESPONSE, command.request_id, transaction, work())

    def end_on_partition(self, command: api.CommandEndTxnOnPartition) -> None:
        """Answer END_TXN_ON_PARTITION."""
        transaction = _transaction(command)

        async def work() -> None:
            await self._transactions.settle(TopicName.parse(command.topic), transaction)

        kind = api.BaseCommand.END_TXN_ON_PARTITION_RESPONSE
        self._answer(kind, command.request_id, transaction, work())

    def end_on_subscription(self, command: api.CommandEndTxnOnSubscription) -> None:
        """Answer END_TXN_ON_SUBSCRIPTION."""
        transaction = _transaction(command)
        where = command.subscription

        async def work() -> None:
            await self._transactions.settle_subscription(
                TopicName.parse(where.topic), where.subscription, transaction
            )

        kind = api.BaseCommand.END_TXN_ON_SUBSCRIPTION_RESPONSE
        self._answer(kind, command.request_id, transaction, work())

    def _answer(
        self,
        kind: api.BaseCommand.Type,
        request_id: int,
        transaction: TransactionId,
        work: Coroutine[Any, Any, None],
    ) -> None:
        async def answer() -> bytes:
            await work
            return commands.transaction_answer(kind, request_id, transaction)

        self._start(kind, request_id, transaction, answer())

    def _start(
        self,
        kind: api.BaseCommand.Type,
        request_id: int,
        transaction: TransactionId,
        work: Coroutine[Any, Any, bytes],
    ) -> None:
        refuse = partial(commands.transaction_refused, kind, request_id, transaction)
        self._requests.start(work, refuse)


def _transaction(command: Any) -> TransactionId:
    return TransactionId(command.txnid_most_bits, command.txnid_least_bits)

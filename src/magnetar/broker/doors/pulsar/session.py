"""The session: what one client means. It knows no socket.

    bytes ──▶ walk ──▶ run      ──▶ Producers.publish
                       acks     ──▶ Consumers.acknowledge
                       flows    ──▶ Consumers.flow
                       command  ──▶ may the caller? ──▶ HANDLERS[type] ──▶ an answer, now or later

What a run, acks and flows name was opened on this connection, which is what they need. Every
other command is weighed in one place, `_handle`, by the row it has in `access.commands`.

Before CONNECT everything else is refused and little is buffered. After it every command that
a client may send has a row in the table; one that has none closes the connection. Answers
that take time are tasks (`requests`); the rest is answered in place. Source: the Pulsar
binary protocol, its commands and the order of their answers.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from magnetar.broker.access.authorize import Access
from magnetar.broker.access.caller import BROKER, LOCAL, Caller
from magnetar.broker.access.commands import demands_of, refusal_of
from magnetar.broker.access.rights import AuthenticationError, Demand
from magnetar.broker.clock import Clock
from magnetar.broker.config import KIB, BrokerConfig
from magnetar.broker.doors.pulsar.errors import server_error
from magnetar.broker.doors.pulsar.login import (
    REFRESH,
    LogIn,
    Verdict,
    carried,
    original_principal,
)
from magnetar.broker.doors.pulsar.lookup import Lookup, Lookups
from magnetar.broker.doors.pulsar.publish import Producers, Stopwatch
from magnetar.broker.doors.pulsar.requests import Hold, Line, Requests
from magnetar.broker.doors.pulsar.schemas import Schemas
from magnetar.broker.doors.pulsar.subscribe import Consumers
from magnetar.broker.doors.pulsar.transactions import TransactionRequests
from magnetar.broker.doors.pulsar.watchers import Views, Watchers
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import Port, Transactions
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.codec import walk
from magnetar.broker.wire.pulsar.commands import PROTOCOL_VERSION
from magnetar.broker.wire.pulsar.connection import State, check_walk, unsupported_request
from magnetar.broker.wire.pulsar.frames import FRAME_OVERHEAD_MAX, type_name
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import InvalidNameError

CONNECT_BYTES_MAX = 64 * KIB
"""What a client may send before it has introduced itself."""

COMMANDS_PER_TURN = 100
"""Commands other than SEND, ACK and FLOW handled at once: each costs as much as tens of those,
and nobody may hold the event loop for more than a few milliseconds."""


_TRANSACTION_COMMANDS: Mapping[int, tuple[str, Callable[[TransactionRequests, Any], None]]] = {
    api.BaseCommand.TC_CLIENT_CONNECT_REQUEST: (
        "tcClientConnectRequest",
        TransactionRequests.connect,
    ),
    api.BaseCommand.NEW_TXN: ("newTxn", TransactionRequests.open),
    api.BaseCommand.ADD_PARTITION_TO_TXN: (
        "addPartitionToTxn",
        TransactionRequests.add_partitions,
    ),
    api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN: (
        "addSubscriptionToTxn",
        TransactionRequests.add_subscriptions,
    ),
    api.BaseCommand.END_TXN: ("endTxn", TransactionRequests.end),
    api.BaseCommand.END_TXN_ON_PARTITION: (
        "endTxnOnPartition",
        TransactionRequests.end_on_partition,
    ),
    api.BaseCommand.END_TXN_ON_SUBSCRIPTION: (
        "endTxnOnSubscription",
        TransactionRequests.end_on_subscription,
    ),
}


class Service:
    """What all sessions of a door share."""

    def __init__(  # noqa: PLR0913, PLR0917 - what sessions are made of
        self,
        port: Port,
        config: BrokerConfig,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        server_version: str,
        access: Access | None = None,
        transactions: Transactions | None = None,
        *,
        clock: Clock,
    ) -> None:
        """Take what sessions work with; without `access`, everybody may do everything."""
        self.clock = clock
        self.publish_latency = metrics.latencies(
            "magnetar_publish_latency_seconds",
            "From reading entries from the socket to their receipts.",
        )
        text = "From reading entries from the socket to their receipts, ms."
        metrics.summary("pulsar_broker_publish_latency", text, self.publish_latency)
        self.access = access
        self.port = port
        self.transactions = transactions
        self.config = config
        self.loop = loop
        self.server_version = server_version
        self.frame_bytes_max = config.message_bytes_max + FRAME_OVERHEAD_MAX
        self.lookups = Lookups(metrics, clock)
        self.views = Views(port, loop)
        self.discarded = metrics.counter(
            "magnetar_messages_discarded_total", "Messages that a client could not use and gave up."
        )


class Session:
    """One client: its state, its producers and consumers, and its questions."""

    __slots__ = (
        "_frame_bytes_max",
        "_line",
        "_login",
        "_requests",
        "_service",
        "_state",
        "caller",
        "consumers",
        "lookup",
        "producers",
        "schemas",
        "transactions",
        "watchers",
    )

    def __init__(self, line: Line, service: Service) -> None:
        self._line = line
        self._service = service
        self._state = State.AWAITING_CONNECT
        self._requests = Requests(line, service.loop)
        # What comes from a sibling process is counted there, where the client is.
        watch = None if line.sibling else Stopwatch(service.clock, service.publish_latency)
        self.producers = Producers(line, self._requests, service.port, service.config, watch)
        self.consumers = Consumers(line, self._requests, service.port, service.discarded)
        self.lookup = Lookup(
            line, self._requests, service.port, service.lookups, service.transactions
        )
        self.transactions: TransactionRequests | None = None
        self.watchers = Watchers(line, self._requests, service.views)
        self.schemas = Schemas(line, self._requests, service.port)
        self._frame_bytes_max = CONNECT_BYTES_MAX
        self._login = LogIn(service.access.authenticator) if service.access else None
        self.caller = LOCAL
        """Who the client is, from CONNECT on."""

    # --- the connection calls these

    def receive(self, buffer: memoryview, start: int, end: int) -> int:
        """Handle the whole frames of `buffer[start:end]`; return where the rest begins.

        Stops early when the connection is to be held.

        Raises:
            FrameError, ProtocolError: the client has to go.
        """
        producers = self.producers
        if producers.watch is not None:
            producers.watch.started()
        cold = 0
        more = True
        while more and not self._line.held:
            stop = end if not producers.paced_bytes else self._paced(buffer, start, end)
            taken = walk(buffer, start, stop, producers.slots, self._frame_bytes_max)
            check_walk(self._state, taken)
            # Permits first: who allowed messages before one was sent must get it also where
            # nothing is kept, on a non-persistent topic.
            for flow in taken.flows:
                self.consumers.flow(flow)
            if taken.broken:
                producers.publish_around(taken.run, taken.consumed - start, taken.broken)
            elif taken.run is not None:
                producers.publish(taken.run, taken.consumed - start)
            for stray in taken.strays:
                producers.stray(stray)
            for ack in taken.acks:
                self.consumers.acknowledge(ack)
            if taken.command is not None:
                self._handle(taken.command)
                cold += 1
                if cold == COMMANDS_PER_TURN and taken.more:
                    self._line.hold(Hold.TURN)
                    self._line.release(Hold.TURN)
                    return taken.consumed
            start, more = taken.consumed, taken.more or stop < end
        return start

    def _paced(self, buffer: memoryview, start: int, end: int) -> int:
        """Return how far to look into what was read, where what follows may have to wait."""
        first_frame = 4 + int.from_bytes(buffer[start : start + 4])
        return min(end, start + max(self.producers.paced_bytes, first_frame))

    def refuse(self, error: Exception) -> None:
        """Tell a client why it has to go."""
        self._state = State.CLOSED
        self._line.send(commands.error(commands.NO_REQUEST, api.UnknownError, str(error)))

    def resume(self) -> None:
        """Go on delivering: the socket has room again."""
        self.consumers.resume()
        self.watchers.resume()

    def ping(self) -> None:
        """Ask whether the client is there."""
        if self._state is State.OPEN:
            self._line.send(commands.ping())

    def drain(self) -> None:
        """Answer what was sent, send the client elsewhere, and close."""
        self._line.hold(Hold.CLOSING)
        if self._state is State.OPEN:
            self._requests.start(self._say_goodbye(), partial(commands.error, commands.NO_REQUEST))
        else:
            self._line.close()

    async def _say_goodbye(self) -> None:
        try:
            await asyncio.gather(self.producers.drain(), self.consumers.drain())
        finally:
            self._line.close()

    def closed(self) -> None:
        """Close everything: the connection is gone."""
        self._state = State.CLOSED
        self.producers.disconnected()
        self.consumers.disconnected()
        self.watchers.disconnected()

    # --- commands

    def _handle(self, command: api.BaseCommand) -> None:
        request_id = unsupported_request(command)
        if request_id is not None:
            message = f"{type_name(command)} is not supported by this broker"
            self._line.send(commands.error(request_id, api.NotAllowedError, message))
            return
        access = self._service.access
        if access is not None and not self._may(access, command):
            return
        self._HANDLERS[command.type](self, command)

    def _may(self, access: Access, command: api.BaseCommand) -> bool:
        """Return whether a command may be handled now. If not, it is seen to."""
        try:
            caller, demands = self._acting(command), demands_of(command)
        except (InvalidNameError, AuthenticationError) as error:
            code = server_error(error)
            if code == api.AuthenticationError:  # who asks is known; it is this that they may not
                code = api.AuthorizationError
            self._line.send(refusal_of(command)(code, str(error)))
            return False
        if access.allows(caller, demands):
            self.producers.owner = caller.principal
            return True
        # Nothing more is taken from the connection meanwhile, so that commands keep their order.
        self._line.hold(Hold.RIGHTS)
        self._requests.start(
            self._handle_if_allowed(access, caller, demands, command), refusal_of(command)
        )
        return False

    async def _handle_if_allowed(
        self,
        access: Access,
        caller: Caller,
        demands: Sequence[Demand],
        command: api.BaseCommand,
    ) -> None:
        try:
            await access.authorize(caller, demands)
        finally:
            self._line.release(Hold.RIGHTS)
        if self._state is State.OPEN:
            self.producers.owner = caller.principal
            self._HANDLERS[command.type](self, command)

    def _acting(self, command: api.BaseCommand) -> Caller:
        """Return in whose name a command is sent.

        Raises:
            AuthenticationError: in that of somebody for whom the client may not speak.
        """
        caller = self.caller
        if caller.broker:
            return carried(command) or caller
        original = original_principal(command)
        if original and original != caller.original and self._login is not None:
            return self._login.speaking(caller, original)
        return caller

    def _needs(self, command: api.BaseCommand) -> Sequence[Demand]:
        """Return what the client must go on being allowed, as long as it has what it opens."""
        if self._service.access is None or self.caller.broker:
            return ()
        return demands_of(command)

    def _connect(self, command: api.BaseCommand) -> None:
        if self._login is None:
            self._open(command.connect)
            return
        if self._line.sibling:  # nobody else can open the socket that it came over
            self.caller = BROKER
            self._open(command.connect)
            return
        # Until it is known who that is, nothing else is taken from the connection.
        self._line.hold(Hold.RIGHTS)
        self._requests.start(self._log_in(self._login, command.connect), self._shut_out)

    async def _log_in(self, login: LogIn, connect: api.CommandConnect) -> None:
        caller = await login.begin(connect, self._line.address, self._line.certificate)
        if self._state is not State.AWAITING_CONNECT:
            return  # it left meanwhile
        self.caller = caller
        self.producers.caller = self.consumers.caller = caller.to_text()
        self._open(connect)
        self._line.release(Hold.RIGHTS)

    def _shut_out(self, _: api.ServerError, message: str) -> bytes:
        """Say why somebody is not let in, and close."""
        return self._hang_up(api.AuthenticationError, message)

    def _hang_up(self, code: api.ServerError, message: str) -> bytes:
        self._state = State.CLOSED
        self._line.send(commands.error(commands.NO_REQUEST, code, message))
        self._line.close()
        return b""

    def _open(self, connect: api.CommandConnect) -> None:
        self._state = State.OPEN
        self._frame_bytes_max = self._service.frame_bytes_max
        self.producers.client_version = connect.client_version
        self.consumers.client_version = connect.client_version
        self.consumers.protocol_version = connect.protocol_version
        if self._service.config.broker_entry_metadata:
            knows = connect.feature_flags.supports_broker_entry_metadata
            self.consumers.entry_metadata = knows
        self._line.introduced()
        self._line.send(
            commands.connected(
                self._service.server_version,
                connect.protocol_version,
                self._service.config.message_bytes_max,
                entry_metadata=self._service.config.broker_entry_metadata,
            )
        )

    def _auth_response(self, command: api.BaseCommand) -> None:
        if self._login is None:
            return
        self._line.hold(Hold.RIGHTS)
        self._requests.start(self._renew(self._login, command.authResponse), self._shut_out)

    async def _renew(self, login: LogIn, response: api.CommandAuthResponse) -> None:
        self.caller = await login.renew(response, self.caller)
        self._line.release(Hold.RIGHTS)

    def look_at_credential(self) -> None:
        """See whether the client's credential is still good; the door asks now and then."""
        if self._login is None or self._state is not State.OPEN or self.caller.broker:
            return
        match self._login.look(self.caller):
            case Verdict.CHALLENGE:
                version, method = self._service.server_version, self._login.method
                self._line.send(commands.auth_challenge(version, PROTOCOL_VERSION, method, REFRESH))
            case Verdict.CLOSE:
                self._hang_up(api.AuthenticationError, "the credential is not good any more")
            case Verdict.GOOD:
                pass

    def look_at_rights(self) -> None:
        """Close what the client may not have any more; the door asks when grants have changed."""
        access = self._service.access
        if access is None or self._state is not State.OPEN:
            return
        self.producers.withdraw(lambda demands: access.allows(self.caller, demands))
        self.consumers.withdraw(lambda demands: access.allows(self.caller, demands))
        self.watchers.withdraw(lambda demands: access.allows(self.caller, demands))

    def _ping(self, _: api.BaseCommand) -> None:
        self._line.send(commands.pong())

    def _heard(self, _: api.BaseCommand) -> None:
        """Nothing to do: that it came is what it says."""

    def _transaction(self, command: api.BaseCommand) -> None:
        """Answer a command about a transaction."""
        field, answer = _TRANSACTION_COMMANDS[command.type]
        content = getattr(command, field)
        if self._service.transactions is None:
            message = f"{type_name(command)}: there are no transactions here"
            self._line.send(commands.error(content.request_id, api.NotAllowedError, message))
            return
        if self.transactions is None:
            self.transactions = TransactionRequests(
                self._line, self._requests, self._service.transactions, self._role
            )
        answer(self.transactions, content)

    def _role(self) -> str | None:
        """Return who is connected; None: nobody was asked who he is."""
        return None if self._service.access is None else self.caller.principal

    def _producer(self, command: api.BaseCommand) -> None:
        if self._has_room(command.producer.request_id):
            self.producers.open(command.producer, self._needs(command))

    def _subscribe(self, command: api.BaseCommand) -> None:
        if self._has_room(command.subscribe.request_id):
            self.consumers.open(command.subscribe, self._needs(command))

    def _has_room(self, request_id: int) -> bool:
        limit = self._service.config.endpoints_per_connection_max
        if len(self.producers) + len(self.consumers) < limit:
            return True
        message = f"this connection has {limit} producers and consumers, which is the limit"
        self._line.send(commands.error(request_id, api.NotAllowedError, message))
        return False

    _HANDLERS: ClassVar[dict[int, Callable[["Session", api.BaseCommand], None]]] = {
        api.BaseCommand.CONNECT: _connect,
        api.BaseCommand.PING: _ping,
        api.BaseCommand.PONG: _heard,
        api.BaseCommand.AUTH_RESPONSE: _auth_response,
        api.BaseCommand.PRODUCER: _producer,
        api.BaseCommand.CLOSE_PRODUCER: lambda session, command: session.producers.close(
            command.close_producer
        ),
        api.BaseCommand.SUBSCRIBE: _subscribe,
        api.BaseCommand.CLOSE_CONSUMER: lambda session, command: session.consumers.close(
            command.close_consumer
        ),
        api.BaseCommand.UNSUBSCRIBE: lambda session, command: session.consumers.unsubscribe(
            command.unsubscribe
        ),
        api.BaseCommand.SEEK: lambda session, command: session.consumers.seek(command.seek),
        api.BaseCommand.REDELIVER_UNACKNOWLEDGED_MESSAGES: (
            lambda session, command: session.consumers.redeliver(
                command.redeliverUnacknowledgedMessages
            )
        ),
        api.BaseCommand.GET_LAST_MESSAGE_ID: (
            lambda session, command: session.consumers.last_message_id(command.getLastMessageId)
        ),
        api.BaseCommand.CONSUMER_STATS: lambda session, command: session.consumers.stats(
            command.consumerStats
        ),
        api.BaseCommand.PARTITIONED_METADATA: lambda session, command: session.lookup.partitions(
            command.partitionMetadata
        ),
        api.BaseCommand.LOOKUP: lambda session, command: session.lookup.locate(command.lookupTopic),
        api.BaseCommand.GET_TOPICS_OF_NAMESPACE: (
            lambda session, command: session.lookup.topics(command.getTopicsOfNamespace)
        ),
        api.BaseCommand.WATCH_TOPIC_LIST: lambda session, command: session.watchers.open(
            command.watchTopicList
        ),
        api.BaseCommand.WATCH_TOPIC_LIST_CLOSE: lambda session, command: session.watchers.close(
            command.watchTopicListClose
        ),
        **dict.fromkeys(_TRANSACTION_COMMANDS, _transaction),
        api.BaseCommand.GET_SCHEMA: lambda session, command: session.schemas.get(command.getSchema),
        api.BaseCommand.GET_OR_CREATE_SCHEMA: (
            lambda session, command: session.schemas.create(command.getOrCreateSchema)
        ),
    }

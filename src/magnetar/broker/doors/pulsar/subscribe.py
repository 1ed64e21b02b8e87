"""The consumers of one connection: from FLOW to MESSAGE, and from ACK to the cursor.

    SUBSCRIBE ──▶ SUCCESS ──▶ ACTIVE_CONSUMER_CHANGE     nothing is delivered before FLOW
    FLOW ──▶ Consumer.flow ··▶ deliver(run, selection) ──▶ MESSAGE *, one write
    ACK  ──▶ Consumer.acknowledge                        ACK_RESPONSE if the client wants one
    SEEK ──▶ CLOSE_CONSUMER to all of the subscription, then SUCCESS

A consumer that outruns its client's socket gets False from `deliver` and waits for
`resume`. What arrives for an id that is not open is dropped in silence: acknowledgements and
permits may be on their way while a consumer is closed from either side.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from magnetar.broker.access.rights import Demand
from magnetar.broker.clock import iso_time
from magnetar.broker.doors.pulsar.endpoint import Phase, Turns, place_of
from magnetar.broker.doors.pulsar.errors import server_error
from magnetar.broker.doors.pulsar.requests import Line, Requests
from magnetar.broker.doors.pulsar.schemas import declared
from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.metrics import Counter
from magnetar.broker.port import (
    Consumer,
    KeyShared,
    MetadataError,
    NotAllowedError,
    Port,
    PortError,
    Selection,
    ServiceNotReadyError,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.codec import encode_messages
from magnetar.broker.wire.pulsar.entry_metadata import encode_messages_with_block
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.walker import Ack, Flow
from magnetar.names import InvalidNameError, TopicName, check_subscription

logger = logging.getLogger(__name__)

ACTIVE_CHANGE_VERSION = 12
"""The first protocol version whose clients know ACTIVE_CONSUMER_CHANGE."""

END_OF_TOPIC_VERSION = 9
"""The first protocol version whose clients know REACHED_END_OF_TOPIC."""

CUT_OFF_BY_END_OF_TOPIC = "Pulsar-CPP-"
"""Clients of this name (C++, Python, Node.js) take REACHED_END_OF_TOPIC for an invalid message:
they close the connection with everything on it, come back, and do it again, ten times a second.
Version 4.2 still does; apache/pulsar-client-cpp#605 mends it, in a release not known yet."""

_TYPE_NAMES = {
    SubscriptionType.EXCLUSIVE: "Exclusive",
    SubscriptionType.SHARED: "Shared",
    SubscriptionType.FAILOVER: "Failover",
    SubscriptionType.KEY_SHARED: "Key_Shared",
}


class Endpoint:
    """One consumer id of a connection. The port delivers to it and tells it about its consumer."""

    __slots__ = (
        "_consumers",
        "_is_active",
        "consumer",
        "id",
        "leaving",
        "lost",
        "needs",
        "partition",
        "permits",
        "phase",
    )

    def __init__(
        self, consumers: "Consumers", consumer_id: int, needs: Sequence[Demand] = ()
    ) -> None:
        self._consumers = consumers
        self.id = consumer_id
        self.phase = Phase.OPENING
        self.consumer: Consumer | None = None
        self.partition = -1
        self.permits = 0
        """What the client allowed before it knew that the consumer is open."""
        self.lost: PortError | None = None
        """Why the broker closed it while it was still opening."""
        self.needs = needs
        """What its client must go on being allowed."""
        self.leaving = False
        """The client asked for its end, so it need not be told."""
        self._is_active: bool | None = None

    def deliver(self, run: Run, selection: Selection) -> bool:
        """Send entries; False: the client's socket has enough for now."""
        if self.phase is not Phase.OPEN:
            return True
        return self._consumers.deliver(self, run, selection)

    def active(self, active: bool) -> None:
        """Tell the client whether this consumer is the one served."""
        self._is_active = active
        if self.phase is Phase.OPEN:
            self.tell_active()

    def tell_active(self) -> None:
        """Repeat the latest news about being the one served, if there is any."""
        if self._is_active is not None:
            self._consumers.tell_active(self, active=self._is_active)

    def end_of_topic(self) -> None:
        """Tell the client that nothing will follow."""
        if self.phase is Phase.OPEN:
            self._consumers.tell_end(self)

    def moving(self) -> None:
        """Send and take nothing more."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.MOVING

    def closed(self, reason: PortError | None) -> None:
        """Tell the client to look the topic up, or where it is now, and come again."""
        if self.phase is Phase.OPENING:
            self.lost = reason or ServiceNotReadyError(
                "the subscription was reset; subscribe again"
            )
        elif self.phase in {Phase.OPEN, Phase.MOVING}:
            self._consumers.ended(self, reason)


class Consumers:
    """All consumers of one connection."""

    __slots__ = (
        "_by_id",
        "_discarded",
        "_gone",
        "_line",
        "_port",
        "_requests",
        "_stuck",
        "_turns",
        "caller",
        "client_version",
        "entry_metadata",
        "protocol_version",
    )

    def __init__(self, line: Line, requests: Requests, port: Port, discarded: Counter) -> None:
        self._line = line
        self._requests = requests
        self._turns = Turns(requests)
        self._port = port
        self._discarded = discarded
        self.client_version = ""
        self.caller = ""
        """Who the client is, for whoever the port passes its requests on to."""
        self.protocol_version = 0
        self.entry_metadata = False
        """The client wants to know what the broker knows of an entry."""
        self._by_id: dict[int, Endpoint] = {}
        self._stuck: dict[Endpoint, None] = {}
        self._gone = False

    def __len__(self) -> int:
        return len(self._by_id)

    # --- opening and closing

    def open(self, command: api.CommandSubscribe, needs: Sequence[Demand] = ()) -> None:
        """Answer SUBSCRIBE."""
        known = self._by_id.get(command.consumer_id)
        if known is not None and known.phase is Phase.OPENING:
            message = f"consumer {command.consumer_id} is being opened already"
            self._line.send(commands.error(command.request_id, api.ServiceNotReady, message))
        elif known is not None and known.phase is Phase.OPEN:
            self._line.send(commands.success(command.request_id))
        else:
            endpoint = Endpoint(self, command.consumer_id, needs)
            self._by_id[endpoint.id] = endpoint
            self._start_turn(endpoint.id, command.request_id, self._open(endpoint, command))

    async def _open(self, endpoint: Endpoint, command: api.CommandSubscribe) -> None:
        try:
            request = _request(command, self._line, self.client_version, self.caller)
            consumer = await self._port.subscribe(request, endpoint)
        except BaseException:
            self._forget(endpoint)
            raise
        if self._gone or endpoint.lost is not None:
            self._forget(endpoint)
            await consumer.close()
            if endpoint.lost is not None:
                raise endpoint.lost
            return
        endpoint.consumer = consumer
        endpoint.partition = request.topic.partition
        self._line.send(commands.success(command.request_id))
        if endpoint.phase is Phase.OPENING:
            endpoint.phase = Phase.OPEN
            endpoint.tell_active()
            if endpoint.permits:
                consumer.flow(endpoint.permits)

    def close(self, command: api.CommandCloseConsumer) -> None:
        """Answer CLOSE_CONSUMER."""
        endpoint = self._by_id.get(command.consumer_id)
        if endpoint is not None:
            endpoint.phase = Phase.CLOSING
        self._start_turn(
            command.consumer_id, command.request_id, self._close(endpoint, command.request_id)
        )

    async def _close(self, endpoint: Endpoint | None, request_id: int) -> bytes:
        if endpoint is not None:
            if endpoint.consumer is not None:
                await endpoint.consumer.close()
            self._forget(endpoint)
        return commands.success(request_id)

    def unsubscribe(self, command: api.CommandUnsubscribe) -> None:
        """Answer UNSUBSCRIBE."""
        self._start_turn(command.consumer_id, command.request_id, self._unsubscribe(command))

    async def _unsubscribe(self, command: api.CommandUnsubscribe) -> bytes:
        endpoint, consumer = self._find(command.consumer_id)
        endpoint.leaving = True
        try:
            await consumer.unsubscribe(force=command.force)
        finally:
            endpoint.leaving = False
        self._forget(endpoint)
        return commands.success(command.request_id)

    def ended(self, endpoint: Endpoint, reason: PortError | None) -> None:
        """Take leave of a consumer that the broker closed."""
        self._forget(endpoint)
        if not endpoint.leaving:
            url, url_tls = place_of(reason)
            frame = commands.close_consumer(endpoint.id, assigned_url=url, assigned_url_tls=url_tls)
            self._line.send(frame)

    def withdraw(self, allowed: Callable[[Sequence[Demand]], bool]) -> None:
        """Close the consumers whose client may not have them any more."""
        for endpoint in list(self._by_id.values()):
            if endpoint.phase is Phase.OPEN and not allowed(endpoint.needs):
                self._requests.start(self._withdraw(endpoint), _nobody_listens)

    async def _withdraw(self, endpoint: Endpoint) -> None:
        await self._say_goodbye(endpoint)

    async def drain(self) -> None:
        """Close every consumer, and send its client elsewhere."""
        await asyncio.gather(*map(self._say_goodbye, list(self._by_id.values())))

    async def _say_goodbye(self, endpoint: Endpoint) -> None:
        if endpoint.consumer is not None and endpoint.phase is Phase.OPEN:
            endpoint.phase = Phase.CLOSING
            await endpoint.consumer.close()
            self._forget(endpoint)
            self._line.send(commands.close_consumer(endpoint.id))

    def disconnected(self) -> None:
        """Close every consumer: the client is gone. Those being opened close once they are."""
        self._gone = True
        for endpoint in self._by_id.values():
            if endpoint.consumer is not None and endpoint.phase in {Phase.OPEN, Phase.MOVING}:
                endpoint.phase = Phase.CLOSED
                self._requests.start(endpoint.consumer.close(), _nobody_listens)
        self._by_id.clear()
        self._stuck.clear()

    # --- delivery

    def flow(self, flow: Flow) -> None:
        """Pass permits on."""
        endpoint = self._by_id.get(flow.consumer_id)
        if endpoint is None:
            return
        if endpoint.phase is Phase.OPENING:
            endpoint.permits += flow.permits
        elif endpoint.phase is Phase.OPEN and endpoint.consumer is not None:
            endpoint.consumer.flow(flow.permits)

    def deliver(self, endpoint: Endpoint, run: Run, selection: Selection) -> bool:
        """Send entries to one consumer; False: the client's socket has enough for now."""
        try:
            encode = encode_messages_with_block if self.entry_metadata else encode_messages
            frames = encode(endpoint.id, endpoint.partition, run, selection)
            room = self._line.deliver(frames)
        except Exception:  # a bug in an answer; the subscription and other connections go on
            logger.exception("closing %s: a delivery failed", self._line.address)
            self._line.abort()
            return False
        if not room:
            self._stuck[endpoint] = None
        return room

    def resume(self) -> None:
        """Let consumers go on that had to stop for the socket, as far as there is room now."""
        while self._stuck and not self._line.congested:
            endpoint = next(iter(self._stuck))
            del self._stuck[endpoint]
            if endpoint.phase is Phase.OPEN and endpoint.consumer is not None:
                endpoint.consumer.resume()

    def tell_active(self, endpoint: Endpoint, *, active: bool) -> None:
        """Send ACTIVE_CONSUMER_CHANGE to a client that knows it."""
        if self.protocol_version >= ACTIVE_CHANGE_VERSION:
            self._line.send(commands.active_consumer_change(endpoint.id, active=active))

    def tell_end(self, endpoint: Endpoint) -> None:
        """Send REACHED_END_OF_TOPIC to a client that knows it."""
        if self.client_version.startswith(CUT_OFF_BY_END_OF_TOPIC):
            return
        if self.protocol_version >= END_OF_TOPIC_VERSION:
            self._line.send(commands.reached_end_of_topic(endpoint.id))

    # --- acknowledgement

    def acknowledge(self, ack: Ack) -> None:
        """Pass an acknowledgement on, and answer it if the client wants that."""
        endpoint = self._by_id.get(ack.consumer_id)
        if endpoint is None or endpoint.consumer is None or endpoint.phase is not Phase.OPEN:
            return
        if ack.validation_error is not None:
            self._discarded.value += 1
        if ack.transaction is not None:
            self._acknowledge_in(ack.transaction, ack, endpoint.consumer)
            return
        try:
            endpoint.consumer.acknowledge(ack.ids, cumulative=ack.cumulative)
        except PortError as error:
            if ack.request_id is None:
                logger.info("%s: acknowledgement refused: %s", self._line.address, error)
                return
            self._line.send(
                commands.ack_response(
                    ack.consumer_id, ack.request_id, server_error(error), str(error)
                )
            )
            return
        if ack.request_id is not None:
            self._line.send(commands.ack_response(ack.consumer_id, ack.request_id))

    def _acknowledge_in(self, transaction: TransactionId, ack: Ack, consumer: Consumer) -> None:
        """Pass an acknowledgement in a transaction on; it is answered once it is durable."""
        number, request_id = ack.consumer_id, ack.request_id

        async def work() -> bytes | None:
            await consumer.acknowledge_in(transaction, ack.ids, cumulative=ack.cumulative)
            if request_id is None:
                return None
            return commands.ack_response(number, request_id, transaction=transaction)

        def refuse(code: api.ServerError, message: str) -> bytes:
            if request_id is None:
                logger.info("%s: acknowledgement refused: %s", self._line.address, message)
                return b""
            return commands.ack_response(number, request_id, code, message, transaction)

        self._requests.start(work(), refuse)

    def redeliver(self, command: api.CommandRedeliverUnacknowledgedMessages) -> None:
        """Pass a negative acknowledgement on; without ids it is about everything."""
        endpoint = self._by_id.get(command.consumer_id)
        if endpoint is None or endpoint.consumer is None or endpoint.phase is not Phase.OPEN:
            return
        ids = [commands.entry_id(each) for each in command.message_ids]
        epoch = command.consumer_epoch if command.HasField("consumer_epoch") else None
        endpoint.consumer.redeliver(ids or None, epoch)

    # --- questions

    def seek(self, command: api.CommandSeek) -> None:
        """Answer SEEK."""
        self._start_turn(command.consumer_id, command.request_id, self._seek(command))

    async def _seek(self, command: api.CommandSeek) -> bytes:
        _, consumer = self._find(command.consumer_id)
        if command.HasField("message_id"):
            at = commands.entry_id(command.message_id)
            await consumer.seek(at, list(command.message_id.ack_set), None)
        elif command.HasField("message_publish_time"):
            await consumer.seek(None, (), command.message_publish_time)
        else:
            raise MetadataError("SEEK needs a message id or a publish time")
        return commands.success(command.request_id)

    def last_message_id(self, command: api.CommandGetLastMessageId) -> None:
        """Answer GET_LAST_MESSAGE_ID."""
        self._requests.start(
            self._last_message_id(command), partial(commands.error, command.request_id)
        )

    async def _last_message_id(self, command: api.CommandGetLastMessageId) -> bytes:
        await self._turns.through(command.consumer_id)
        endpoint, consumer = self._find(command.consumer_id)
        last = await consumer.last_message()
        return commands.last_message_id(
            command.request_id,
            last.entry,
            last.mark_delete,
            partition=endpoint.partition,
            batch_size=last.batch_size,
        )

    def stats(self, command: api.CommandConsumerStats) -> None:
        """Answer CONSUMER_STATS."""
        endpoint = self._by_id.get(command.consumer_id)
        if endpoint is None or endpoint.consumer is None or endpoint.phase is not Phase.OPEN:
            message = f"consumer {command.consumer_id} is not open on this connection"
            self._line.send(
                commands.consumer_stats_failed(command.request_id, api.ConsumerNotFound, message)
            )
            return
        stats = endpoint.consumer.stats()
        self._line.send(
            commands.consumer_stats(
                command.request_id,
                name=stats.name,
                type_name=_TYPE_NAMES[stats.type],
                permits=stats.permits,
                unacked=stats.unacked,
                blocked=stats.blocked,
                backlog=stats.backlog,
                message_rate=stats.message_rate,
                byte_rate=stats.byte_rate,
                redelivery_rate=stats.redelivery_rate,
                ack_rate=stats.ack_rate,
                expired_rate=stats.expired_rate,
                address=stats.address,
                connected_since=iso_time(stats.connected_since_ms),
            )
        )

    # --- the table

    def _find(self, consumer_id: int) -> tuple[Endpoint, Consumer]:
        """Return an open consumer.

        Raises:
            MetadataError: there is none of that id.
        """
        endpoint = self._by_id.get(consumer_id)
        if endpoint is None or endpoint.consumer is None or endpoint.phase is not Phase.OPEN:
            raise MetadataError(f"consumer {consumer_id} is not open on this connection")
        return endpoint, endpoint.consumer

    def _forget(self, endpoint: Endpoint) -> None:
        endpoint.phase = Phase.CLOSED
        if self._by_id.get(endpoint.id) is endpoint:
            del self._by_id[endpoint.id]
        self._stuck.pop(endpoint, None)

    def _start_turn(
        self, consumer_id: int, request_id: int, work: Coroutine[Any, Any, bytes | None]
    ) -> None:
        self._turns.start(consumer_id, work, partial(commands.error, request_id))


def _request(
    command: api.CommandSubscribe, line: Line, version: str, caller: str
) -> SubscribeRequest:
    """Put SUBSCRIBE in the words of the port.

    Raises:
        InvalidNameError: the name of the topic is not one.
        NotAllowedError: the name of the subscription is not one.
    """
    key_shared = None
    if command.HasField("keySharedMeta"):
        meta = command.keySharedMeta
        key_shared = KeyShared(
            ranges=[(each.start, each.end) for each in meta.hashRanges],
            sticky=meta.keySharedMode == api.STICKY,
            allow_out_of_order=meta.allowOutOfOrderDelivery,
        )
    start: EntryId | None = None
    if command.HasField("start_message_id"):
        start = commands.entry_id(command.start_message_id)
    return SubscribeRequest(
        topic=TopicName.parse(command.topic),
        subscription=_subscription(command.subscription),
        type=SubscriptionType(command.subType),
        consumer_name=command.consumer_name,
        priority=command.priority_level,
        durable=command.durable,
        from_earliest=command.initialPosition == api.CommandSubscribe.Earliest,
        start=start,
        start_ack_set=list(command.start_message_id.ack_set),
        rollback_seconds=command.start_message_rollback_duration_sec,
        read_compacted=command.read_compacted,
        create_topic=command.force_topic_creation,
        key_shared=key_shared,
        properties={each.key: each.value for each in command.subscription_properties},
        metadata={each.key: each.value for each in command.metadata},
        epoch=command.consumer_epoch if command.HasField("consumer_epoch") else None,
        schema=declared(command.schema) if command.HasField("schema") else None,
        client_address=line.address,
        client_version=version,
        caller=caller,
        passed_on=line.sibling,
    )


def _subscription(name: str) -> str:
    """Return the name of a subscription if it is one.

    Pulsar has no code for one that is not. That of a topic's name makes clients try again.

    Raises:
        NotAllowedError: it is not.
    """
    try:
        return check_subscription(name)
    except InvalidNameError as error:
        raise NotAllowedError(str(error)) from None


def _nobody_listens(code: api.ServerError, message: str) -> bytes:  # noqa: ARG001 - a Refuse
    return b""

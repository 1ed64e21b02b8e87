"""One connection to a sibling process. On it we are the client, and many of ours are one.

    dialling ──CONNECTED──▶ open ──end of stream, silence, bytes that make no sense──▶ lost
        └───── DIAL_TIMEOUT_S ───────────────────────────────────────────────────────▶

    producer id ──▶ whoever takes receipts        request id ──▶ whoever waits for the answer
    consumer id ──▶ whoever takes deliveries

Ids are the link's own and are never used twice. What is written in one turn of the loop
leaves in one write. Nothing here waits for one client: what a client does not take is kept,
or given up, by its consumer. A link that is lost stays so; the next one who needs its sibling
dials anew.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, ClassVar, Protocol, cast

from magnetar.broker.config import MIB
from magnetar.broker.port import (
    Group,
    NotAllowedError,
    PortError,
    PublishDone,
    ServiceNotReadyError,
    TopicMovedError,
)
from magnetar.broker.remote.errors import port_error
from magnetar.broker.run import Bytes, Run
from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.frames import COMMAND_BYTES_MAX, FrameError, type_name
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.relay import Answer, Delivery, Receipt, read_answers

logger = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 10.0
"""How long a sibling may take to say CONNECTED. One that is being replaced does so in less:
its listening socket stays open meanwhile."""

ANSWER_BYTES_MAX = 66 * MIB
"""The largest message that a broker can be set to take, whatever this one is set to now, and what
stands before it. What is stored has to be readable."""

UNSENT_BYTES_HIGH = 4 * MIB
"""With more than this unsent, doors are asked to publish no more for now."""

UNSENT_BYTES_MAX = 64 * MIB
"""What is not published, acknowledgements and permits, cannot be asked to wait. A sibling that
takes nothing for so long is given up."""

_ANSWERS = {
    api.BaseCommand.SUCCESS: "success",
    api.BaseCommand.ERROR: "error",
    api.BaseCommand.PRODUCER_SUCCESS: "producer_success",
    api.BaseCommand.GET_LAST_MESSAGE_ID_RESPONSE: "getLastMessageIdResponse",
    api.BaseCommand.CONSUMER_STATS_RESPONSE: "consumerStatsResponse",
    api.BaseCommand.ACK_RESPONSE: "ackResponse",
    api.BaseCommand.END_TXN_ON_PARTITION_RESPONSE: "endTxnOnPartitionResponse",
    api.BaseCommand.END_TXN_ON_SUBSCRIPTION_RESPONSE: "endTxnOnSubscriptionResponse",
}
"""Commands that answer a request, and the field with its id."""

_REFUSE_BY_FIELD = {
    api.BaseCommand.ACK_RESPONSE,
    api.BaseCommand.END_TXN_ON_PARTITION_RESPONSE,
    api.BaseCommand.END_TXN_ON_SUBSCRIPTION_RESPONSE,
}
"""Those of them that say no themselves."""


class Settled:
    """Collects what became of rows, and tells the doors in that order."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._done: PublishDone | None = None
        self._groups: list[Group] = []

    def add(self, run: Run, done: PublishDone, group: Group) -> None:
        """Add a group. Groups of one run that follow each other are told together."""
        if run is not self._run or done != self._done:
            self.tell()
            self._run, self._done = run, done
        self._groups.append(group)

    def tell(self) -> None:
        """Tell what was collected."""
        groups, self._groups = self._groups, []
        if groups and self._run is not None and self._done is not None:
            self._done(self._run, groups)


class ProducerEnd(Protocol):
    """What a link knows of a producer."""

    request_id: int
    """Of the request that opened it."""

    def take(self, receipts: Sequence[Receipt], settled: Settled) -> None:
        """Take receipts.

        Raises:
            FrameError: they are not for what was sent.
        """
        ...

    def refused(self, sequence_id: int, error: PortError, settled: Settled) -> None:
        """Take a refusal.

        Raises:
            FrameError: it is not for what was sent.
        """
        ...

    def admitted(self, answer: api.CommandProducerSuccess) -> None:
        """Take the news that the wait for exclusive access is over."""
        ...

    def ended(self, reason: PortError) -> None:
        """Come to an end: the owner closed it, or the link is lost."""
        ...


class ConsumerEnd(Protocol):
    """What a link knows of a consumer."""

    def take(self, delivery: Delivery) -> None: ...
    def active(self, active: bool) -> None: ...
    def end_of_topic(self) -> None: ...
    def ended(self, reason: PortError) -> None: ...


class Link(asyncio.Protocol):
    """A connection to the door of one sibling."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client_version: str,
        *,
        keep_alive_s: float,
        frame_bytes_max: int,
        lost: Callable[["Link"], None],
    ) -> None:
        """Make a link that is not dialled yet; `lost` is called once, when it is no more."""
        self.loop = loop
        self._client_version = client_version
        self._keep_alive_s = keep_alive_s
        self.frame_bytes_max = frame_bytes_max
        """The largest frame that the sibling reads. It would cut the connection for a larger one,
        and with it all who share it."""
        self._when_lost = lost
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = loop.create_future()
        self.opened.add_done_callback(_retrieved)
        self.lost: ServiceNotReadyError | None = None
        """Why it is no more."""
        self.endpoints = 0
        """Producers and consumers that use it, or are about to."""
        self.congested = False
        """Publish no more for now."""
        self.producers: dict[int, ProducerEnd] = {}
        self.opened_by: dict[int, ProducerEnd] = {}
        """The producers, by the request that opened each."""
        self.consumers: dict[int, ConsumerEnd] = {}
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._ids = count(1)
        self._when_clear: list[Callable[[], None]] = []
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._frame_bytes = 0
        self._out: list[Bytes] = []
        self._heard = True
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None

    # --- life

    async def dial(self, path: str, timeout_s: float = DIAL_TIMEOUT_S) -> None:
        """Connect and introduce ourselves. How it went is in `opened`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.loop.create_unix_connection(lambda: self, path)
                await asyncio.shield(self.opened)
        except PortError:
            pass  # `opened` says so to whoever waits
        except (OSError, TimeoutError) as error:
            self.give_up(f"cannot be reached: {str(error) or 'no answer'}")

    def give_up(self, why: str) -> None:
        """End now. Whoever has to do with it is told; the sibling notices by itself."""
        if self.lost is not None:
            return
        reason = ServiceNotReadyError(f"the process that serves the topic {why}; try again")
        self.lost = reason
        if self._transport is not None:
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        if not self.opened.done():
            self.opened.set_exception(reason)
        self._out.clear()
        self._chunks.clear()
        requests, self._requests = self._requests, {}
        for waiting in requests.values():
            if not waiting.done():
                waiting.set_exception(reason)
        self._end_all(reason)
        self._clear()
        self._when_lost(self)

    def _end_all(self, reason: PortError) -> None:
        ends: list[ProducerEnd | ConsumerEnd] = [*self.producers.values(), *self.consumers.values()]
        for each in ends:
            try:
                each.ended(reason)
            except Exception:  # a bug behind one client; the others have to hear of it too
                logger.exception("a client could not be told that its link is lost")

    def close(self) -> None:
        """Say what is still to be said, and end."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
        self._transport = None
        self.give_up("is not needed any more")

    # --- sending

    def new_id(self) -> int:
        """Return an id for a producer, a consumer or a request."""
        return next(self._ids)

    def send(self, data: Bytes) -> None:
        """Send soon, after what was sent before."""
        if self.lost is not None:
            return
        if not self._out:
            self.loop.call_soon(self.flush)
        self._out.append(data)

    def flush(self) -> None:
        """Hand everything to the transport; the buffers may be reused then."""
        out, self._out = self._out, []
        if out and self._transport is not None and self.lost is None:
            self._transport.write(b"".join(out))
            if self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
                # Not from here: whoever sends is in the middle of something else.
                self.loop.call_soon(self.give_up, "takes nothing any more")

    def bounded(self, frame: bytes) -> bytes:
        """Return a command that the sibling will read.

        Raises:
            NotAllowedError: it is too large.
        """
        limit = min(self.frame_bytes_max, COMMAND_BYTES_MAX)
        if len(frame) > limit:
            raise NotAllowedError(f"a command of {len(frame)} bytes, the limit is {limit}")
        return frame

    async def ask(self, command: Callable[[int], bytes]) -> Any:
        """Send the command made with a request id; return the contents of its answer.

        Raises:
            PortError: the sibling refused, or the link is lost.
        """
        if self.lost is not None:
            raise self.lost
        request_id = self.new_id()
        frame = self.bounded(command(request_id))
        answer: asyncio.Future[Any] = self.loop.create_future()
        self._requests[request_id] = answer
        self.send(frame)
        try:
            return await answer
        finally:
            self._requests.pop(request_id, None)

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call once, soon, when publishing may go on."""
        if self.congested:
            self._when_clear.append(callback)
        else:
            self.loop.call_soon(callback)

    def _clear(self) -> None:
        self.congested = False
        callbacks, self._when_clear = self._when_clear, []
        for callback in callbacks:
            self.loop.call_soon(callback)

    # --- the loop calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.lost is not None:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_HIGH, low=UNSENT_BYTES_HIGH // 4)
        self._transport.write(client_role.connect(self._client_version))
        self._timer = self.loop.call_later(self._keep_alive_s, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._chunks.append(data)
        self._held_bytes += len(data)
        if self._held_bytes < self._frame_bytes or self.lost is not None:
            return
        whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        try:
            taken = read_answers(whole, ANSWER_BYTES_MAX)
            rest = whole[taken.consumed :]
            self._chunks = [rest] if rest else []
            self._held_bytes, self._frame_bytes = len(rest), taken.frame_bytes
            self._handle(taken.answers)
        except FrameError as error:
            logger.warning("giving up a connection to a sibling process: %s", error)
            self.give_up("was misunderstood")
        except Exception:  # a bug; nobody on this link can rely on it any more
            logger.exception("giving up a connection to a sibling process")
            self.give_up("was misunderstood")

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self._clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self.give_up(f"has gone ({exc})" if exc else "has gone")

    def _look(self) -> None:
        """Notice silence: ask after one interval without a sign of life, give up after two."""
        if self._heard:
            self._heard = self._asked = False
        elif self._asked:
            self.give_up("does not answer")
            return
        else:
            self._asked = True
            self.send(commands.ping())
        self._timer = self.loop.call_later(self._keep_alive_s, self._look)

    # --- what the sibling says

    def _handle(self, answers: Sequence[Answer]) -> None:
        settled = Settled()
        try:
            self._take(answers, settled)
        finally:
            settled.tell()  # what was confirmed before something made no sense is confirmed

    def _take(self, answers: Sequence[Answer], settled: Settled) -> None:
        receipts: list[Receipt] = []
        for each in answers:
            if isinstance(each, Receipt):
                if receipts and receipts[0].producer_id != each.producer_id:
                    self._take_receipts(receipts, settled)
                    receipts = []
                receipts.append(each)
                continue
            if receipts:
                self._take_receipts(receipts, settled)
                receipts = []
            if isinstance(each, Delivery):
                consumer = self.consumers.get(each.consumer_id)
                if consumer is not None:
                    consumer.take(each)
                continue
            self._command(each, settled)
        self._take_receipts(receipts, settled)

    def _take_receipts(self, receipts: Sequence[Receipt], settled: Settled) -> None:
        if receipts and (producer := self.producers.get(receipts[0].producer_id)) is not None:
            producer.take(receipts, settled)

    def _command(self, command: api.BaseCommand, settled: Settled) -> None:
        if command.type in _ANSWERS:
            self._answer(command, getattr(command, _ANSWERS[command.type]))
        elif command.type in self._HANDLERS:
            self._HANDLERS[command.type](self, command, settled)
        else:
            raise FrameError(f"{type_name(command)} from a sibling")

    def _connected(self, _: api.BaseCommand, __: Settled) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def _ping(self, _: api.BaseCommand, __: Settled) -> None:
        self.send(commands.pong())

    def _pong(self, _: api.BaseCommand, __: Settled) -> None:
        """Nothing to do: that it came is what it says."""

    def _send_error(self, command: api.BaseCommand, settled: Settled) -> None:
        refused = command.send_error
        producer = self.producers.get(refused.producer_id)
        if producer is not None:
            error = port_error(refused.error, refused.message)
            producer.refused(refused.sequence_id, error, settled)

    def _close_producer(self, command: api.BaseCommand, settled: Settled) -> None:
        settled.tell()  # what was stored before is confirmed before
        producer = self.producers.get(command.close_producer.producer_id)
        if producer is not None:
            producer.ended(_sent_away(command.close_producer))

    def _close_consumer(self, command: api.BaseCommand, _: Settled) -> None:
        consumer = self.consumers.get(command.close_consumer.consumer_id)
        if consumer is not None:
            consumer.ended(_sent_away(command.close_consumer))

    def _active(self, command: api.BaseCommand, _: Settled) -> None:
        change = command.active_consumer_change
        consumer = self.consumers.get(change.consumer_id)
        if consumer is not None:
            consumer.active(change.is_active)

    def _end_of_topic(self, command: api.BaseCommand, _: Settled) -> None:
        consumer = self.consumers.get(command.reachedEndOfTopic.consumer_id)
        if consumer is not None:
            consumer.end_of_topic()

    _HANDLERS: ClassVar[dict[int, Callable[["Link", api.BaseCommand, Settled], None]]] = {
        api.BaseCommand.CONNECTED: _connected,
        api.BaseCommand.PING: _ping,
        api.BaseCommand.PONG: _pong,
        api.BaseCommand.SEND_ERROR: _send_error,
        api.BaseCommand.CLOSE_PRODUCER: _close_producer,
        api.BaseCommand.CLOSE_CONSUMER: _close_consumer,
        api.BaseCommand.ACTIVE_CONSUMER_CHANGE: _active,
        api.BaseCommand.REACHED_END_OF_TOPIC: _end_of_topic,
    }

    def _answer(self, command: api.BaseCommand, answer: Any) -> None:
        """Hand an answer to whoever asked."""
        if command.type == api.BaseCommand.ERROR and answer.request_id == commands.NO_REQUEST:
            raise FrameError(f"the sibling refuses to go on: {answer.message}")
        waiting = self._requests.pop(answer.request_id, None)
        if waiting is None:
            if command.type == api.BaseCommand.PRODUCER_SUCCESS:
                self._admit(answer)
        elif waiting.done():
            pass  # whoever asked has gone
        elif command.type == api.BaseCommand.ERROR:
            waiting.set_exception(port_error(answer.error, answer.message))
        elif command.type == api.BaseCommand.CONSUMER_STATS_RESPONSE and answer.HasField(
            "error_code"
        ):
            waiting.set_exception(port_error(answer.error_code, answer.error_message))
        elif command.type in _REFUSE_BY_FIELD and answer.HasField("error"):
            waiting.set_exception(port_error(answer.error, answer.message))
        else:
            waiting.set_result(answer)

    def _admit(self, answer: api.CommandProducerSuccess) -> None:
        """Hand on another answer to PRODUCER."""
        producer = self.opened_by.get(answer.request_id)
        if producer is not None:
            producer.admitted(answer)


def _sent_away(close: api.CommandCloseProducer | api.CommandCloseConsumer) -> PortError:
    url, url_tls = close.assignedBrokerServiceUrl, close.assignedBrokerServiceUrlTls
    return TopicMovedError(
        "the topic was closed where it is served; look it up again", url=url, url_tls=url_tls
    )


def _retrieved(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()

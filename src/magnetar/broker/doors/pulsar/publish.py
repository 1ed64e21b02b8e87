"""The producers of one connection: from SEND to receipt.

    run ──▶ Flight ──▶ Port.publish ··· one call of `done` per commit ···▶ receipts, in order

An open producer has a slot; the walker writes slots into rows, and only ids in `slots` may
send. Receipts and errors of one producer leave in the order of its SENDs: the port keeps that
order for what was published, and an error found on arrival (a wrong checksum) waits in
`Endpoint.behind` for the rows before it.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter

from magnetar.broker.access.rights import Demand
from magnetar.broker.clock import Clock
from magnetar.broker.config import KIB, BrokerConfig
from magnetar.broker.doors.pulsar.endpoint import Phase, Turns, place_of
from magnetar.broker.doors.pulsar.errors import server_error
from magnetar.broker.doors.pulsar.requests import Hold, Line, Requests
from magnetar.broker.doors.pulsar.schemas import declared, packed
from magnetar.broker.latency import Latencies
from magnetar.broker.port import (
    AccessMode,
    Group,
    Port,
    PortError,
    Producer,
    ProducerRequest,
)
from magnetar.broker.run import PRODUCER, SEQUENCE_ID, Run
from magnetar.broker.wire.pulsar import codec, commands
from magnetar.broker.wire.pulsar.frames import FrameError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.walker import Broken, Stray
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

THROTTLE_STEP_S = 10.0
"""A client that is kept waiting for longer is shown that we are still there."""

PACED_BYTES_MIN, PACED_BYTES, PACED_BYTES_MAX = KIB // 4, 4 * KIB, 64 * KIB
"""What a connection sends that publishes at a limited rate is looked at in pieces, so that waits
come in time: at first so large, then as large as fits the rate."""

PACED_WAIT_S = 0.02
"""How long a wait the pieces should lead to."""

CLOSED_IDS_MAX = 1_000
"""Producer ids closed by the broker whose late SENDs are dropped in silence."""


_count_of = attrgetter("count")


class Endpoint:
    """One producer id of a connection. The port tells it about its producer."""

    __slots__ = (
        "_producers",
        "behind",
        "id",
        "lost",
        "needs",
        "paced",
        "phase",
        "producer",
        "request_id",
        "slot",
        "topic",
    )

    def __init__(
        self, producers: "Producers", command: api.CommandProducer, needs: Sequence[Demand]
    ) -> None:
        self._producers = producers
        self.id = command.producer_id
        self.request_id = command.request_id
        self.topic = command.topic
        self.phase = Phase.OPENING
        self.producer: Producer | None = None
        self.slot: int | None = None
        self.lost: PortError | None = None
        """Why the broker closed it while it was still opening."""
        self.needs = needs
        """What its client must go on being allowed."""
        self.paced = False
        """Its topic's rate was limited while it was still opening."""
        self.behind: list[tuple[int, bytes]] = []
        """Rows of this producer still to be settled, and what to send then."""

    def ready(self, topic_epoch: int) -> None:
        """Tell the client that it got the exclusive access it waited for."""
        if self.phase is Phase.OPEN and self.slot is None:
            self._producers.admit(self, topic_epoch)

    def throttle(self, seconds: float) -> None:
        """Take nothing more from the client for a while."""
        if self.phase is Phase.OPENING:
            self.paced = True
        elif self.phase is Phase.OPEN:
            self._producers.throttle(self, seconds)

    def moving(self) -> None:
        """Take nothing more. What the client sends meanwhile it sends again, where it comes to."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.MOVING
            self._producers.moving(self)

    def closed(self, reason: PortError) -> None:
        """Tell the client to look the topic up, or where it is now, and come again."""
        if self.phase is Phase.OPENING:
            self.lost = reason
        elif self.phase in {Phase.OPEN, Phase.MOVING}:
            self._producers.ended(self, reason)


class Stopwatch:
    """Measures how long the entries of a connection take from the socket to their receipts."""

    __slots__ = ("_latency", "_now", "read_at_s")

    def __init__(self, clock: Clock, latency: Latencies) -> None:
        self._now = clock.monotonic
        self._latency = latency
        self.read_at_s = 0.0

    def started(self) -> None:
        """Take the time: what follows was read now."""
        self.read_at_s = self._now()

    def stopped(self, entries: int, read_at_s: float) -> None:
        """Count entries that have their receipts now."""
        self._latency.record(self._now() - read_at_s, entries)


class Flight:
    """One published run whose rows are not all settled yet."""

    __slots__ = ("_producers", "bytes", "left", "read_at_s", "run", "settled")

    def __init__(self, producers: "Producers", run: Run, size: int) -> None:
        watch = producers.watch
        self.read_at_s = 0.0 if watch is None else watch.read_at_s
        self._producers = producers
        self.run = run
        self.bytes = size
        self.left = run.count
        self.settled: list[Group] = []

    def done(self, run: Run, groups: Sequence[Group]) -> None:
        """Take the news about some rows."""
        self._producers.settle(self, run, groups)

    def rows_of(self, slot: int) -> int:
        """Return how many rows of a slot are not settled. For rare cases."""
        rows = self.run.u32(PRODUCER).tolist().count(slot)
        return rows - sum(group.count for group in self.settled if group.slot == slot)


class Producers:
    """All producers of one connection."""

    __slots__ = (
        "_by_id",
        "_by_slot",
        "_closed_ids",
        "_config",
        "_flights",
        "_free",
        "_gone",
        "_ids",
        "_line",
        "_pending_bytes",
        "_port",
        "_producers",
        "_requests",
        "_retired",
        "_throttled_until_s",
        "_timer",
        "_turns",
        "_waits_for_disk",
        "caller",
        "client_version",
        "owner",
        "paced_bytes",
        "slots",
        "watch",
    )

    def __init__(
        self,
        line: Line,
        requests: Requests,
        port: Port,
        config: BrokerConfig,
        watch: Stopwatch | None = None,
    ) -> None:
        self.watch = watch
        """None: nobody measures."""
        self._line = line
        self._requests = requests
        self._turns = Turns(requests)
        self._port = port
        self._config = config
        self.client_version = ""
        self.caller = ""
        """Who the client is, for whoever the port passes its requests on to."""
        self.owner = ""
        """The role for which the next producer is opened."""
        self.paced_bytes = 0
        """How much of the connection to look at before it may have to wait; 0: all there is."""
        self.slots: dict[int, int] = {}
        """Producer ids that may send, and their slots."""
        self._by_id: dict[int, Endpoint] = {}
        self._by_slot: list[Endpoint | None] = []
        self._producers: list[Producer | None] = []
        self._ids: list[int] = []
        self._free: list[int] = []
        self._retired: list[int] = []
        self._flights: dict[Flight, None] = {}
        self._pending_bytes = 0
        self._closed_ids: dict[int, None] = {}
        self._waits_for_disk = False
        self._timer: asyncio.TimerHandle | None = None
        self._throttled_until_s = 0.0
        self._gone = False

    def __len__(self) -> int:
        return len(self._by_id)

    # --- opening and closing

    def open(self, command: api.CommandProducer, needs: Sequence[Demand] = ()) -> None:
        """Answer PRODUCER."""
        known = self._by_id.get(command.producer_id)
        if known is not None and known.phase is Phase.OPENING:
            message = f"producer {command.producer_id} is being opened already"
            self._line.send(commands.error(command.request_id, api.ServiceNotReady, message))
        elif known is not None and known.phase is Phase.OPEN and known.topic != command.topic:
            # Pulsar says that all is well, and what is sent then lands in the other topic.
            message = f"producer {command.producer_id} of this connection is open on {known.topic}"
            self._line.send(commands.error(command.request_id, api.NotAllowedError, message))
        elif known is not None and known.phase is Phase.OPEN:
            known.request_id = command.request_id
            self._line.send(_success(known))
        else:
            endpoint = Endpoint(self, command, needs)
            self._by_id[endpoint.id] = endpoint
            self._turns.start(
                endpoint.id,
                self._open(endpoint, command, self.owner),
                partial(commands.error, command.request_id),
            )

    async def _open(
        self, endpoint: Endpoint, command: api.CommandProducer, owner: str
    ) -> bytes | None:
        try:
            request = _request(command, self._line, self.client_version, self.caller, owner)
            producer = await self._port.open_producer(request, endpoint)
        except BaseException:
            self._forget(endpoint)
            raise
        if self._gone or endpoint.lost is not None:
            self._forget(endpoint)
            await producer.close()
            if endpoint.lost is not None:
                raise endpoint.lost
            return None
        endpoint.producer = producer
        if endpoint.phase is Phase.OPENING:
            endpoint.phase = Phase.OPEN
            self._closed_ids.pop(endpoint.id, None)
            if producer.ready:
                self._give_slot(endpoint, producer)
            if endpoint.paced:
                # After the answer to PRODUCER, which is what a sibling waits for.
                asyncio.get_running_loop().call_soon(endpoint.throttle, 0.0)
        return _success(endpoint)

    def admit(self, endpoint: Endpoint, topic_epoch: int) -> None:
        """Let a producer send that had to wait for its turn on the topic."""
        if endpoint.producer is not None:
            self._give_slot(endpoint, endpoint.producer)
            self._line.send(_success(endpoint, topic_epoch))

    def moving(self, endpoint: Endpoint) -> None:
        """Drop what comes for a producer from now on; go on answering what came before."""
        self.slots.pop(endpoint.id, None)
        self._expect_late(endpoint.id)

    def ended(self, endpoint: Endpoint, reason: PortError) -> None:
        """Take leave of a producer that the broker closed."""
        endpoint.phase = Phase.CLOSED
        self._forget(endpoint)
        self._expect_late(endpoint.id)
        url, url_tls = place_of(reason)
        frame = commands.close_producer(endpoint.id, assigned_url=url, assigned_url_tls=url_tls)
        self._line.send(frame)

    def _expect_late(self, producer_id: int) -> None:
        """Drop in silence what is still on its way for a producer that the broker closes."""
        self._closed_ids[producer_id] = None
        if len(self._closed_ids) > CLOSED_IDS_MAX:
            del self._closed_ids[next(iter(self._closed_ids))]

    def close(self, command: api.CommandCloseProducer) -> None:
        """Answer CLOSE_PRODUCER, once everything sent before it has been answered."""
        endpoint = self._by_id.get(command.producer_id)
        if endpoint is not None:
            endpoint.phase = Phase.CLOSING
            self.slots.pop(endpoint.id, None)
        self._turns.start(
            command.producer_id,
            self._close(endpoint, command.request_id),
            partial(commands.error, command.request_id),
        )

    async def _close(self, endpoint: Endpoint | None, request_id: int) -> bytes:
        if endpoint is not None:
            if endpoint.producer is not None:
                await endpoint.producer.close()
            self._forget(endpoint)
        return commands.success(request_id)

    def withdraw(self, allowed: Callable[[Sequence[Demand]], bool]) -> None:
        """Close the producers whose client may not have them any more."""
        for endpoint in list(self._by_id.values()):
            if endpoint.phase is Phase.OPEN and not allowed(endpoint.needs):
                self._requests.start(self._withdraw(endpoint), _nobody_listens)

    async def _withdraw(self, endpoint: Endpoint) -> None:
        """Close one after its receipts. What arrives for it from now on is dropped."""
        self._expect_late(endpoint.id)
        await self._say_goodbye(endpoint)

    async def drain(self) -> None:
        """Close every producer after its receipts, and send its client elsewhere."""
        await asyncio.gather(*map(self._say_goodbye, list(self._by_id.values())))

    async def _say_goodbye(self, endpoint: Endpoint) -> None:
        self.slots.pop(endpoint.id, None)
        if endpoint.producer is not None and endpoint.phase is Phase.OPEN:
            endpoint.phase = Phase.CLOSING
            await endpoint.producer.close()
            self._forget(endpoint)
            self._line.send(commands.close_producer(endpoint.id))

    def disconnected(self) -> None:
        """Close every producer: the client is gone. Those being opened close once they are."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        self.slots.clear()
        for endpoint in self._by_id.values():
            if endpoint.producer is not None and endpoint.phase in {Phase.OPEN, Phase.MOVING}:
                endpoint.phase = Phase.CLOSED
                self._requests.start(_close_quietly(endpoint.producer), _nobody_listens)
        self._by_id.clear()

    # --- publishing

    def publish_around(self, run: Run | None, size: int, broken: Sequence[Broken]) -> None:
        """Store a run, and refuse the entries that were left out of it as damaged on the way."""
        first = 0
        for each in broken:
            if run is not None and each.row > first:
                self.publish(run.slice(first, each.row - first), size)
                first, size = each.row, 0
            self._refuse_broken(each)
        if run is not None and first < run.count:
            self.publish(run.slice(first, run.count - first), size)

    def publish(self, run: Run, size: int) -> None:
        """Store a run that took `size` bytes of the connection."""
        flight = Flight(self, run, size)
        self._flights[flight] = None
        self._pending_bytes += size
        if self._pending_bytes > self._config.pending_publish_bytes_per_connection_max:
            self._line.hold(Hold.PENDING)
        if not self._port.publish(run, self._producers, flight.done) and not self._waits_for_disk:
            self._waits_for_disk = True
            self._line.hold(Hold.PUBLISHING)
            self._port.call_when_clear(self._disk_is_clear)

    def _disk_is_clear(self) -> None:
        self._waits_for_disk = False
        self._line.release(Hold.PUBLISHING)

    # --- rates

    def throttle(self, endpoint: Endpoint, seconds: float) -> None:
        """Take nothing from the connection for a while, as Pulsar does.

        0: be ready for that; below 0: it will not be necessary any more.
        A sibling process passes on what many clients send: it is told which of them to stop.
        """
        if self._line.sibling:
            self._line.send(_wait(endpoint, seconds))
            return
        paced = self.paced_bytes or PACED_BYTES
        if seconds > 0:
            paced = int(paced * PACED_WAIT_S / seconds)
        self.paced_bytes = min(max(paced, PACED_BYTES_MIN), PACED_BYTES_MAX)
        if seconds <= 0:
            self.paced_bytes = 0 if seconds < 0 else self.paced_bytes
            return
        loop = asyncio.get_running_loop()
        self._throttled_until_s = max(self._throttled_until_s, loop.time() + seconds)
        self._line.hold(Hold.RATE)
        if self._timer is None:
            self._timer = loop.call_later(min(seconds, THROTTLE_STEP_S), self._has_waited)

    def _has_waited(self) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._throttled_until_s - loop.time()
        self._timer = None
        if left_s <= 0:
            self._line.release(Hold.RATE)
            return
        if left_s > THROTTLE_STEP_S / 2:
            self._line.send(commands.ping())
        self._timer = loop.call_later(min(left_s, THROTTLE_STEP_S), self._has_waited)

    def _refuse_broken(self, broken: Broken) -> None:
        endpoint = self._by_slot[broken.slot]
        if endpoint is None or endpoint.phase is Phase.CLOSED:
            return
        message = "the checksum does not match what arrived; send it again"
        frame = commands.send_error(
            broken.producer_id, broken.sequence_id, api.ChecksumError, message
        )
        rows = sum(flight.rows_of(broken.slot) for flight in self._flights)
        if rows:
            endpoint.behind.append((rows, frame))
        else:
            self._line.send(frame)

    def stray(self, stray: Stray) -> None:
        """Drop a SEND that the broker's own close has overtaken.

        Raises:
            FrameError: there never was such a producer, or the client closed it itself.
        """
        if stray.producer_id not in self._closed_ids:
            raise FrameError(f"SEND for producer {stray.producer_id}, which is not open")

    def settle(self, flight: Flight, run: Run, groups: Sequence[Group]) -> None:
        """Send receipts and errors for some rows, in their order."""
        try:
            self._answer(run, groups)
            flight.left -= sum(map(_count_of, groups))
            if flight.left <= 0:
                self._landed(flight)
            else:
                flight.settled.extend(groups)
        except Exception:  # a bug in an answer; the port and other connections go on
            logger.exception("closing %s: its receipts failed", self._line.address)
            self._line.abort()

    def _answer(self, run: Run, groups: Sequence[Group]) -> None:
        if self._gone:
            return
        stored: list[Group] = []
        endpoints, closed = self._by_slot, Phase.CLOSED
        for group in groups:
            endpoint = endpoints[group.slot]
            if endpoint is None or endpoint.phase is closed:
                continue
            if group.error is None and not endpoint.behind:
                stored.append(group)
                continue
            self._send_receipts(run, stored)
            stored = []
            if group.error is None:
                self._send_receipts(run, (group,))
            else:
                self._send_errors(run, group, endpoint.id, group.error)
            self._send_what_waited(endpoint, group.count)
        self._send_receipts(run, stored)

    def _send_receipts(self, run: Run, groups: Sequence[Group]) -> None:
        if groups:
            self._line.send(codec.encode_receipts(self._ids, run, groups))

    def _send_errors(self, run: Run, group: Group, producer_id: int, error: PortError) -> None:
        code, message = server_error(error), str(error)
        rows = slice(group.first_row, group.first_row + group.count)
        for sequence_id in run.i64(SEQUENCE_ID)[rows].tolist():
            self._line.send(commands.send_error(producer_id, sequence_id, code, message))

    def _send_what_waited(self, endpoint: Endpoint, settled_rows: int) -> None:
        endpoint.behind = [(rows - settled_rows, frame) for rows, frame in endpoint.behind]
        while endpoint.behind and endpoint.behind[0][0] <= 0:
            self._line.send(endpoint.behind.pop(0)[1])

    def _landed(self, flight: Flight) -> None:
        del self._flights[flight]
        if self.watch is not None:
            self.watch.stopped(flight.run.count, flight.read_at_s)
        self._pending_bytes -= flight.bytes
        if self._pending_bytes <= self._config.pending_publish_bytes_per_connection_max // 2:
            self._line.release(Hold.PENDING)

    # --- slots

    def _give_slot(self, endpoint: Endpoint, producer: Producer) -> None:
        self._reclaim()
        if self._free:
            slot = self._free.pop()
            self._by_slot[slot], self._producers[slot] = endpoint, producer
            self._ids[slot] = endpoint.id
        else:
            slot = len(self._by_slot)
            self._by_slot.append(endpoint)
            self._producers.append(producer)
            self._ids.append(endpoint.id)
        endpoint.slot = slot
        self.slots[endpoint.id] = slot

    def _forget(self, endpoint: Endpoint) -> None:
        if self._by_id.get(endpoint.id) is endpoint:
            del self._by_id[endpoint.id]
            self.slots.pop(endpoint.id, None)
        endpoint.phase = Phase.CLOSED
        if endpoint.slot is not None:
            self._retired.append(endpoint.slot)
            endpoint.slot = None

    def _reclaim(self) -> None:
        """Free the slots that were left, unless a run in flight still names them."""
        if not self._retired:
            return
        busy = {slot for flight in self._flights for slot in flight.run.u32(PRODUCER).tolist()}
        self._free.extend(slot for slot in self._retired if slot not in busy)
        self._retired = [slot for slot in self._retired if slot in busy]
        for slot in self._free:
            self._by_slot[slot] = self._producers[slot] = None


def _success(endpoint: Endpoint, topic_epoch: int | None = None) -> bytes:
    producer = endpoint.producer
    assert producer is not None
    return commands.producer_success(
        endpoint.request_id,
        producer.name,
        last_sequence_id=producer.last_sequence_id,
        topic_epoch=producer.topic_epoch if topic_epoch is None else topic_epoch,
        ready=producer.ready or topic_epoch is not None,
        schema_version=packed(producer.schema_version),
    )


def _wait(endpoint: Endpoint, seconds: float) -> bytes:
    """Return what tells a sibling how long one of its producers has to wait.

    The answer to PRODUCER once more, not ready, with the milliseconds in place of a sequence id.
    """
    wait_ms = math.ceil(seconds * 1000)
    return commands.producer_success(endpoint.request_id, "", last_sequence_id=wait_ms, ready=False)


def _request(
    command: api.CommandProducer, line: Line, version: str, caller: str, owner: str
) -> ProducerRequest:
    """Put PRODUCER in the words of the port.

    Raises:
        InvalidNameError: the topic's name is not one.
    """
    return ProducerRequest(
        topic=TopicName.parse(command.topic),
        name=command.producer_name or None,
        user_provided_name=command.user_provided_producer_name,
        epoch=command.epoch,
        access_mode=AccessMode(command.producer_access_mode),
        topic_epoch=command.topic_epoch if command.HasField("topic_epoch") else None,
        encrypted=command.encrypted,
        initial_subscription=command.initial_subscription_name or None,
        schema=declared(command.schema) if command.HasField("schema") else None,
        client_address=line.address,
        client_version=version,
        caller=caller,
        owner=owner,
        passed_on=line.sibling,
        metadata={each.key: each.value for each in command.metadata},
    )


async def _close_quietly(producer: Producer) -> None:
    await producer.close()


def _nobody_listens(code: api.ServerError, message: str) -> bytes:  # noqa: ARG001 - a Refuse
    return b""

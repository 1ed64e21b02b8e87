"""A producer of a topic that a sibling owns: rows out, groups back, in order.

    publish(rows) ──▶ SEND * ──▶ sent: ┌──────┬──────┬──────┐
                                       │ run 1│ run 1│ run 2│  rows without an answer, in order
    SEND_RECEIPT, SEND_ERROR ──────────▶ the first of them ──▶ Group ──▶ the door

The owner answers a producer in the order of its SENDs, so an answer is always for the first
row that has none; its sequence id shows that this holds. When the owner or the link is gone,
the producer is closed first and what it had sent refused then: its client comes back, and
sends again whatever it had no receipt for.
"""

from collections import deque
from collections.abc import Callable, Sequence

from magnetar.broker.port import (
    Group,
    NotAllowedError,
    PortError,
    ProducerEvents,
    ProducerRequest,
    PublishDone,
    ServiceNotReadyError,
    ThrottledEvents,
)
from magnetar.broker.remote import requests
from magnetar.broker.remote.link import Link, Settled
from magnetar.broker.run import LENGTH, SEQUENCE_ID, Run
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.frames import FrameError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.relay import SEND_BYTES_MAX, Receipt, encode_sends

_NOT_STORED = -1


class _Sent:
    """Rows of one run that have no answer yet."""

    __slots__ = ("done", "error", "first_row", "run", "sequence_ids", "slot", "taken")

    def __init__(self, run: Run, slot: int, first_row: int, count: int, done: PublishDone) -> None:
        self.run = run
        self.slot = slot
        self.first_row = first_row
        self.sequence_ids: list[int] = run.i64(SEQUENCE_ID)[first_row : first_row + count].tolist()
        self.done = done
        self.taken = 0
        """How many of them have an answer."""
        self.error: PortError | None = None
        """Why they were not sent. They wait here for those before them."""


class RemoteProducer:
    """An open producer of a topic elsewhere. Implements `port.Producer`."""

    def __init__(self, link: Link, events: ProducerEvents, left: Callable[[], None]) -> None:
        """Use a place on the link until `left`; `open` must be awaited before anything else."""
        self.link = link
        self._when_left = left
        self._events = events
        self._id = link.new_id()
        self.request_id = 0
        self.name = ""
        self.last_sequence_id = -1
        self.topic_epoch: int | None = None
        self.ready = False
        self.schema_version: int | None = None
        self._closed: PortError | None = None
        self._sent: deque[_Sent] = deque()
        self._left = False

    async def open(self, request: ProducerRequest) -> None:
        """Open it where its topic is.

        Raises:
            PortError: the owner refuses, or cannot be reached.
        """

        def command(request_id: int) -> bytes:
            self.request_id = request_id
            self.link.opened_by[request_id] = self
            return requests.producer(request_id, self._id, request)

        self.link.producers[self._id] = self
        try:
            answer = await self.link.ask(command)
        except PortError:
            self._leave()
            raise
        except BaseException:  # nobody waits any more for what is being opened
            self.link.send(client_role.close_producer(self.link.new_id(), self._id))
            self._leave()
            raise
        self.name = answer.producer_name
        self.last_sequence_id = answer.last_sequence_id
        if answer.schema_version:
            self.schema_version = int.from_bytes(answer.schema_version, "big")
        if not self.ready:  # the second answer may have come right behind the first
            self.ready = answer.producer_ready
            self.topic_epoch = answer.topic_epoch if answer.HasField("topic_epoch") else None

    async def close(self) -> None:
        """Return once everything this producer has published is durable or refused."""
        if self._closed is not None:
            return
        self._closed = ServiceNotReadyError(f"producer {self.name!r} is closed")
        try:
            await self.link.ask(lambda number: client_role.close_producer(number, self._id))
        except PortError:
            pass  # the link is lost: `ended` has refused what was on its way
        finally:
            self._leave()
            self._refuse_rest(self._closed)

    def publish(
        self, run: Run, slot: int, first_row: int, count: int, done: PublishDone
    ) -> Group | None:
        """Send neighbouring rows to the owner; return a group if they are refused at once."""
        sent = _Sent(run, slot, first_row, count, done)
        rows = run if count == run.count else run.slice(first_row, count)
        limit = self.link.frame_bytes_max - SEND_BYTES_MAX
        if self._closed is not None:
            sent.error = self._closed
        elif max(rows.u32(LENGTH)) > limit:
            sent.error = NotAllowedError(f"an entry is larger than {limit} bytes")
        if sent.error is not None and not self._sent:
            return Group(slot, first_row, count, _NOT_STORED, _NOT_STORED, sent.error)
        self._sent.append(sent)
        if sent.error is None:
            for piece in encode_sends(self._id, rows):
                self.link.send(piece)
        return None

    # --- the link calls these

    def take(self, receipts: Sequence[Receipt], settled: Settled) -> None:
        """Take receipts.

        Raises:
            FrameError: they are not for what was sent.
        """
        at = 0
        while at < len(receipts):
            sent = self._first()
            start, (_, _, ledger, entry) = at, receipts[at]
            while at < len(receipts) and sent.taken + at - start < len(sent.sequence_ids):
                each = receipts[at]
                if each.sequence_id != sent.sequence_ids[sent.taken + at - start]:
                    raise FrameError(f"a receipt for {each.sequence_id}, out of turn")
                if each.ledger != ledger or (ledger >= 0 and each.entry != entry + at - start):
                    break
                at += 1
            self._settle(sent, at - start, ledger, entry if ledger >= 0 else -1, None, settled)

    def refused(self, sequence_id: int, error: PortError, settled: Settled) -> None:
        """Take a refusal.

        Raises:
            FrameError: it is not for what was sent.
        """
        sent = self._first()
        if sequence_id & 2**64 - 1 != sent.sequence_ids[sent.taken] & 2**64 - 1:
            raise FrameError(f"a refusal of {sequence_id}, out of turn")
        self._settle(sent, 1, _NOT_STORED, _NOT_STORED, error, settled)

    def admitted(self, answer: api.CommandProducerSuccess) -> None:
        """Take the news that the wait for exclusive access is over.

        Or that the owner takes no more of this producer's for some milliseconds: it has sent
        more than its topic's rate allows.
        """
        if not answer.producer_ready:
            if isinstance(self._events, ThrottledEvents):
                self._events.throttle(answer.last_sequence_id / 1000)
            return
        self.ready = True
        self.topic_epoch = answer.topic_epoch
        self._events.ready(answer.topic_epoch)

    def ended(self, reason: PortError) -> None:
        """Close, then refuse what has no answer."""
        self._leave()
        closing = self._closed is not None
        self._closed = self._closed or reason
        if not closing:
            self._events.closed(reason)
        self._refuse_rest(reason)

    def _refuse_rest(self, reason: PortError) -> None:
        settled = Settled()
        while self._sent:
            sent = self._sent[0]
            left = len(sent.sequence_ids) - sent.taken
            self._settle(sent, left, _NOT_STORED, _NOT_STORED, sent.error or reason, settled)
        settled.tell()

    def _first(self) -> _Sent:
        if not self._sent:
            raise FrameError("an answer to nothing that was sent")
        return self._sent[0]

    def _settle(  # noqa: PLR0913, PLR0917 - a group, taken apart
        self,
        sent: _Sent,
        count: int,
        ledger: int,
        entry: int,
        error: PortError | None,
        settled: Settled,
    ) -> None:
        group = Group(sent.slot, sent.first_row + sent.taken, count, ledger, entry, error)
        sent.taken += count
        settled.add(sent.run, sent.done, group)
        if sent.taken < len(sent.sequence_ids):
            return
        self._sent.popleft()
        while self._sent and (behind := self._sent[0]).error is not None:
            rows = len(behind.sequence_ids)
            refused = Group(
                behind.slot, behind.first_row, rows, _NOT_STORED, _NOT_STORED, behind.error
            )
            self._sent.popleft()
            settled.add(behind.run, behind.done, refused)

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self.link.producers.pop(self._id, None)
            self.link.opened_by.pop(self.request_id, None)
            self.link.endpoints -= 1
            self._when_left()

"""A connection that many clients share: what ends it, and what must not."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from magnetar.broker.port import Group, PortError, ProducerRequest, ServiceNotReadyError
from magnetar.broker.remote import link as module
from magnetar.broker.remote.link import Link
from magnetar.broker.remote.producer import RemoteProducer
from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName
from tests.doors.raw_client import RawClient, command
from tests.remote.conftest import ConsumerEars, House, ProducerEars, Receipts, run_of


class Rude:
    """A sibling that says whatever a test wants."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self._listening.setblocking(False)
        self.lost: list[Link] = []
        self.clients: list[RawClient] = []

    async def link(self, keep_alive_s: float = 30.0) -> tuple[Link, RawClient]:
        """Return both ends of an open link."""
        loop = asyncio.get_running_loop()
        link = Link(
            loop, "test", keep_alive_s=keep_alive_s, frame_bytes_max=10_000, lost=self.lost.append
        )
        dialling = loop.create_task(link.dial(self._path))
        accepted, _ = await loop.sock_accept(self._listening)
        accepted.setblocking(False)
        other = RawClient(accepted)
        self.clients.append(other)
        await other.expect("CONNECT")
        await other.send(commands.connected("rude", 21))
        await dialling
        return link, other

    def close(self) -> None:
        self._listening.close()
        for each in self.clients:
            each.close()


@pytest.fixture
async def rude(tmp_path: Path) -> AsyncIterator[Rude]:
    sibling = Rude(str(tmp_path / "rude.sock"))
    yield sibling
    sibling.close()
    await asyncio.sleep(0)


async def opened(link: Link, other: RawClient) -> tuple[RemoteProducer, ProducerEars]:
    """A producer on the link, its id 1."""
    ears = ProducerEars()
    producer = RemoteProducer(link, ears, lambda: None)
    opening = asyncio.create_task(producer.open(ProducerRequest(topic=TopicName.parse("far"))))
    asked = await other.expect("PRODUCER")
    await other.send(commands.producer_success(asked.request_id, "p"))
    await opening
    return producer, ears


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing to wait on from outside
            await asyncio.sleep(0.002)


def receipt(producer_id: int, sequence_id: int, entry: int = 0) -> bytes:
    at = api.MessageIdData(ledgerId=7, entryId=entry)
    return command("SEND_RECEIPT", producer_id=producer_id, sequence_id=sequence_id, message_id=at)


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 64,
        commands.error(commands.NO_REQUEST, api.UnknownError, "go away"),
        command("LOOKUP", topic="t", request_id=1),
        (70 * 1024 * 1024).to_bytes(4, "big") + (4).to_bytes(4, "big"),
        (4).to_bytes(4, "big") + (40).to_bytes(4, "big"),
    ],
    ids=["noise", "an error of the connection", "a question", "too large", "larger than its frame"],
)
async def test_a_sibling_that_makes_no_sense_is_given_up(rude: Rude, said: bytes) -> None:
    link, other = await rude.link()
    _, ears = await opened(link, other)
    await other.send(said)
    await until(lambda: rude.lost == [link])
    assert isinstance(link.lost, ServiceNotReadyError)
    assert len(ears.reasons) == 1


async def test_a_receipt_out_of_turn_is_noticed_and_nothing_is_confirmed(rude: Rude) -> None:
    link, other = await rude.link()
    producer, ears = await opened(link, other)
    receipts = Receipts()
    producer.publish(run_of((0, 5), (0, 6)), 0, 0, 2, receipts.done)
    await other.frame()
    await other.send(receipt(1, 6))
    await until(lambda: rude.lost == [link])
    assert len(ears.reasons) == 1
    assert {type(became) for _, _, became in receipts.told} == {ServiceNotReadyError}


async def test_what_was_confirmed_before_the_nonsense_stays_confirmed(rude: Rude) -> None:
    link, other = await rude.link()
    producer, _ = await opened(link, other)
    receipts = Receipts()
    producer.publish(run_of((0, 5), (0, 6), (0, 7)), 0, 0, 3, receipts.done)
    await other.frame()
    await other.send(receipt(1, 5, 3), commands.pong(), receipt(1, 7, 4))
    await until(lambda: rude.lost == [link])
    assert receipts.told[0] == (0, 5, 3)
    assert [sequence for _, sequence, _ in receipts.told] == [5, 6, 7]
    assert {type(became) for _, _, became in receipts.told[1:]} == {ServiceNotReadyError}


async def test_what_was_stored_is_confirmed_before_its_producer_is_closed(rude: Rude) -> None:
    link, other = await rude.link()
    producer, ears = await opened(link, other)
    receipts, order = Receipts(), list[str]()

    def done(run: Run, groups: Sequence[Group]) -> None:
        order.append("told")
        receipts.done(run, groups)

    def closed(reason: PortError) -> None:
        order.append("closed")

    ears.closed = closed  # type: ignore[method-assign]
    producer.publish(run_of((0, 5), (0, 6)), 0, 0, 2, done)
    await other.send(receipt(1, 5, 3) + commands.close_producer(1))
    await until(lambda: len(receipts.told) == 2)
    assert order == ["told", "closed", "told"]
    assert receipts.told[0] == (0, 5, 3)
    assert isinstance(receipts.told[1][2], ServiceNotReadyError)


async def test_receipts_split_anywhere_are_put_together(rude: Rude) -> None:
    link, other = await rude.link()
    producer, _ = await opened(link, other)
    receipts = Receipts()
    producer.publish(run_of((0, 5), (0, 6), (0, 7)), 0, 0, 3, receipts.done)
    said = receipt(1, 5, 10) + receipt(1, 6, 11) + receipt(1, 7, 20)
    for at in range(0, len(said), 7):
        await other.send(said[at : at + 7])
        await asyncio.sleep(0.001)
    await until(lambda: len(receipts.told) == 3)
    assert receipts.told == [(0, 5, 10), (0, 6, 11), (0, 7, 20)]


async def test_duplicates_are_confirmed_without_a_place(rude: Rude) -> None:
    link, other = await rude.link()
    producer, _ = await opened(link, other)
    receipts = Receipts()
    producer.publish(run_of((0, 5), (0, 6), (0, 7)), 0, 0, 3, receipts.done)
    none = api.MessageIdData(ledgerId=2**64 - 1, entryId=2**64 - 1)
    await other.send(
        command("SEND_RECEIPT", producer_id=1, sequence_id=5, message_id=none),
        command("SEND_RECEIPT", producer_id=1, sequence_id=6, message_id=none),
        receipt(1, 7, 3),
    )
    await until(lambda: len(receipts.told) == 3)
    assert receipts.told[2] == (0, 7, 3)
    assert receipts.told[0][2] == -1


async def test_what_belongs_to_nobody_any_more_is_dropped(rude: Rude) -> None:
    link, other = await rude.link()
    _, ears = await opened(link, other)
    await other.send(
        receipt(99, 1),
        commands.send_error(99, 1, api.PersistenceError, "no"),
        commands.close_producer(99),
        commands.close_consumer(99),
        commands.active_consumer_change(99, active=True),
        commands.reached_end_of_topic(99),
        commands.success(12345),
        commands.pong(),
        commands.ping(),
    )
    await other.expect("PONG")
    assert not ears.reasons
    assert link.lost is None


async def test_a_silent_sibling_is_asked_and_then_given_up(rude: Rude) -> None:
    link, other = await rude.link(keep_alive_s=0.05)
    _, ears = await opened(link, other)
    await until(lambda: link.lost is not None)
    assert "does not answer" in str(link.lost)
    assert len(ears.reasons) == 1


async def test_one_that_answers_pings_is_kept(rude: Rude) -> None:
    link, other = await rude.link(keep_alive_s=0.03)
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.3
    while loop.time() < end:
        await other.send(commands.pong())
        await asyncio.sleep(0.01)
    assert link.lost is None


async def test_a_sibling_that_reads_nothing_congests_publishing_and_is_given_up_at_last(
    rude: Rude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNSENT_BYTES_MAX", 16 * 1024 * 1024)
    link, other = await rude.link()
    _, ears = await opened(link, other)
    piece = bytes(1024 * 1024)
    clear: list[bool] = []
    while not link.congested:
        link.send(piece)
        link.flush()
        await asyncio.sleep(0)
    assert link.lost is None
    link.call_when_clear(lambda: clear.append(True))
    await asyncio.sleep(0.01)
    assert not clear
    for _ in range(32):
        link.send(piece)
        link.flush()
    await until(lambda: link.lost is not None)
    assert len(ears.reasons) == 1
    await until(lambda: clear == [True])


async def test_a_question_to_a_lost_sibling_is_refused_at_once(rude: Rude) -> None:
    link, other = await rude.link()
    asked = asyncio.create_task(link.ask(lambda number: command("SUCCESS", request_id=number)))
    await other.expect("SUCCESS")
    other.close()
    with pytest.raises(ServiceNotReadyError):
        await asked
    with pytest.raises(ServiceNotReadyError):
        await link.ask(lambda number: command("SUCCESS", request_id=number))


async def test_one_door_that_fails_does_not_keep_the_news_from_the_others(house: House) -> None:
    _, first = await house.far_consumer("far-a")
    _, second = await house.far_consumer("far-b")

    def fail(reason: PortError | None) -> None:
        raise RuntimeError("a bug of the door")

    first.closed = fail  # type: ignore[method-assign]
    house.cut()
    await house.until(lambda: bool(second.reasons))
    assert isinstance(second, ConsumerEars)

"""kill -9 while transactions read, write and decide: each of them counts wholly or not at all.

Several clients by raw frames, since the official Python client knows no transactions. Each
reads a message of a Shared subscription, writes to two topics that belong to different
processes if there are two, acknowledges, and commits or aborts; all in one transaction. Every few
hundred milliseconds the whole broker is killed and started again on the same folder.

    TESTS_KILLS=60 pytest tests/conformance/test_transactions_killed.py
"""

import asyncio
import logging
import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pulsar
import pytest

from magnetar.broker.ownership import owner_of
from magnetar.broker.supervisor import RESTARTS_PER_MINUTE_MAX
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError
from tests.conformance.child import Child, running
from tests.conformance.talk import RECEIVE_MS
from tests.conformance.test_kill_loop import complaints, quiet_client
from tests.conformance.transaction_histories import (
    Attempt,
    Wish,
    lost_commits,
    never_done,
    torn,
    twice,
    uncommitted_reads,
)
from tests.doors.raw_client import RawClient, command, message_payload, send

logger = logging.getLogger(__name__)

KILLS = int(os.environ.get("TESTS_KILLS", "5"))
CLIENTS = 4
INPUTS = 300
TTL_MS = 2_000
"""What a client leaves open when its broker is killed comes again after this time."""
ABORTED = 0.2
STEP_S = 5.0
DRAIN_S = 60.0


def topic_of(worker: int, workers: int, name: str) -> str:
    return next(
        topic
        for number in range(1_000)
        if owner_of(topic := f"persistent://public/default/{name}-{number}", workers) == worker
    )


class Worker:
    """Turns inputs into outputs, each in a transaction of its own, and writes down how it went."""

    def __init__(self, number: int, url: str, source: str, targets: list[str]) -> None:
        self._number = number
        self._url = urlsplit(url)
        self._source = source
        self._targets = targets
        self._random = random.Random(number)
        self.attempts: list[Attempt] = []

    async def run(self) -> None:
        while True:
            client = None
            try:
                assert self._url.hostname is not None
                assert self._url.port is not None
                client = await RawClient.dial((self._url.hostname, self._url.port))
                await self._work(client)
            except (OSError, TimeoutError, AssertionError) as error:
                logger.info("worker %d comes again: %s", self._number, error)
                await asyncio.sleep(0.05)
            finally:
                if client is not None:
                    client.close()

    async def _work(self, client: RawClient) -> None:
        await client.connect()
        for number, topic in enumerate(self._targets):
            await client.produce(number, topic)
        await client.subscribe(0, self._source, initialPosition=api.CommandSubscribe.Earliest)
        sequence_id = 0
        while True:
            await client.send(command("FLOW", consumer_id=0, messagePermits=1))
            frame = await client.frame(DRAIN_S)
            assert frame.command.type == api.BaseCommand.MESSAGE, frame.command
            name = f"{self._number}-{len(self.attempts)}"
            attempt = Attempt(name, int(message_payload(frame)))
            self.attempts.append(attempt)
            opened = await client.ask(
                "NEW_TXN",
                "NEW_TXN_RESPONSE",
                request_id=1,
                tc_id=self._number % 2,
                txn_ttl_millis=TTL_MS,
            )
            assert not opened.HasField("error"), opened
            within = {
                "txnid_most_bits": opened.txnid_most_bits,
                "txnid_least_bits": opened.txnid_least_bits,
            }
            await client.send(
                *(
                    send(number, sequence_id, name.encode(), in_transaction=within)
                    for number in range(len(self._targets))
                ),
                command(
                    "ACK",
                    consumer_id=0,
                    ack_type=api.CommandAck.Individual,
                    message_id=[frame.command.message.message_id],
                    request_id=2,
                    **within,
                ),
            )
            sequence_id += 1
            for _ in range(len(self._targets) + 1):
                said = (await client.frame(STEP_S)).command
                assert said.type in {
                    api.BaseCommand.SEND_RECEIPT,
                    api.BaseCommand.ACK_RESPONSE,
                }, said
                assert not said.ackResponse.HasField("error"), said
            commit = self._random.random() >= ABORTED
            attempt.wish = Wish.COMMIT if commit else Wish.ABORT
            await client.send(
                command(
                    "END_TXN",
                    request_id=3,
                    txn_action=api.COMMIT if commit else api.ABORT,
                    **within,
                )
            )
            ended = await client.expect("END_TXN_RESPONSE", STEP_S + 5)
            assert not ended.HasField("error"), ended
            attempt.answered = True


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker to kill."""
    own = BrokerProcess(tmp_path, free_ports(request.param), request.param)
    own.start()
    yield own
    own.discard()


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> int:
    """How many processes the broker has."""
    count: int = request.node.callspec.params["broker"]
    return count


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_transactions_are_whole_however_often_the_broker_is_killed(
    broker: BrokerProcess, workers: int
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.warning("seed %d, %d kills", seed, KILLS)
    moments = random.Random(seed)
    source = topic_of(0, workers, "in")
    targets = [topic_of(0, workers, "a"), topic_of(workers - 1, workers, "b")]
    await asyncio.to_thread(fill, broker.ports.url, source)
    doers = [Worker(number, broker.ports.url, source, targets) for number in range(CLIENTS)]
    tasks = [asyncio.create_task(each.run()) for each in doers]
    for _ in range(KILLS):
        await asyncio.sleep(moments.uniform(0.05, 0.6))
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
    await assert_whole_in_the_end(broker, doers, tasks, source, targets)
    assert broker.stop() == 0, broker.log_end()
    assert not complaints(broker), "a crash is no damage"


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_transactions_are_whole_however_often_one_of_two_processes_is_killed(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.warning("seed %d, %d kills", seed, KILLS)
    moments = random.Random(seed)
    source = topic_of(0, 2, "in")
    targets = [topic_of(0, 2, "a"), topic_of(1, 2, "b")]
    with running(Child(tmp_path, workers=2)) as broker:
        await asyncio.to_thread(fill, broker.ports.url, source)
        doers = [Worker(number, broker.ports.url, source, targets) for number in range(CLIENTS)]
        tasks = [asyncio.create_task(each.run()) for each in doers]
        killed_at: deque[float] = deque(maxlen=RESTARTS_PER_MINUTE_MAX)
        for _ in range(KILLS):
            await asyncio.sleep(moments.uniform(0.05, 2.0))
            if len(killed_at) == RESTARTS_PER_MINUTE_MAX:  # more often, and the supervisor gives up
                await asyncio.sleep(killed_at[0] + 60.0 - time.monotonic())
            killed_at.append(time.monotonic())
            alive = broker.workers()
            if alive:  # otherwise both are being started again just now
                with suppress(ProcessLookupError):
                    os.kill(moments.choice(alive), signal.SIGKILL)
        await assert_whole_in_the_end(broker, doers, tasks, source, targets)
        assert broker.stop() == 0, broker.log_end()


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_transactions_are_whole_while_their_topics_move_from_process_to_process(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.warning("seed %d, %d moves", seed, 4 * KILLS)
    moments = random.Random(seed)
    source = topic_of(0, 2, "in")
    targets = [topic_of(0, 2, "a"), topic_of(1, 2, "b")]
    with running(Child(tmp_path, workers=2)) as broker:
        await asyncio.to_thread(fill, broker.ports.url, source)
        doers = [Worker(number, broker.ports.url, source, targets) for number in range(CLIENTS)]
        tasks = [asyncio.create_task(each.run()) for each in doers]
        for number in range(4 * KILLS):
            await asyncio.sleep(moments.uniform(0.05, 0.5))
            topic = [source, *targets][number % 3].replace("://", "/")
            await asyncio.to_thread(move, broker, topic, moments.randrange(2))
        await assert_whole_in_the_end(broker, doers, tasks, source, targets)
        assert broker.stop() == 0, broker.log_end()


def move(broker: Child, topic: str, process: int) -> None:
    with broker.admin() as admin:
        admin.json("PUT", f"/admin/v2/{topic}/process/{process}")


async def assert_whole_in_the_end(
    broker: BrokerProcess | Child,
    doers: list[Worker],
    tasks: list[asyncio.Task[None]],
    source: str,
    targets: list[str],
) -> None:
    await asyncio.to_thread(until_drained, broker, source)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    attempts = [each for doer in doers for each in doer.attempts]
    seen = await asyncio.to_thread(read_all, broker.ports.url, targets)
    # A commit is answered once it is decided, on disk. A process that was killed just then shows
    # what belongs to it when it is back: readers stop before that meanwhile.
    deadline = time.monotonic() + DRAIN_S
    while lost_commits(attempts, seen) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        seen = await asyncio.to_thread(read_all, broker.ports.url, targets)
    assert_whole(attempts, seen)


def assert_whole(attempts: list[Attempt], seen: dict[str, list[str]]) -> None:
    answered = [each for each in attempts if each.answered]
    logger.warning("%d attempts, %d answered", len(attempts), len(answered))
    assert {each.wish for each in answered} == {Wish.COMMIT, Wish.ABORT}, "not much was tested"
    assert not uncommitted_reads(attempts, seen)
    assert not lost_commits(attempts, seen)
    assert not torn(seen)
    assert not twice(attempts, seen)
    assert not never_done(range(INPUTS), attempts, seen)


def fill(url: str, topic: str) -> None:
    client = quiet_client(url)
    client.subscribe(topic, "s", consumer_type=pulsar.ConsumerType.Shared).close()
    producer = client.create_producer(topic, batching_enabled=False)
    for number in range(INPUTS):
        producer.send_async(str(number).encode(), None)
    producer.flush()
    client.close()


def until_drained(broker: BrokerProcess, topic: str) -> None:
    """Wait until everything is acknowledged; what nobody ended has to time out first."""
    deadline = time.monotonic() + DRAIN_S
    with Admin(broker.ports.admin_url) as admin:
        while time.monotonic() < deadline:
            with suppress(AdminError):  # its process is being started again
                if not admin.stats(topic)["subscriptions"]["s"]["msgBacklog"]:
                    return
            time.sleep(0.2)
    raise AssertionError("the inputs were never all done")


def read_all(url: str, topics: list[str]) -> dict[str, list[str]]:
    client = quiet_client(url)
    seen: dict[str, list[str]] = {}
    for topic in topics:
        reader = client.create_reader(topic, pulsar.MessageId.earliest)
        seen[topic] = []
        while reader.has_message_available():
            seen[topic].append(reader.read_next(timeout_millis=RECEIVE_MS).data().decode())
        reader.close()
    client.close()
    return seen

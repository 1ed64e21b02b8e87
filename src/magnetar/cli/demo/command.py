"""`magnetar demo`: one topic, three purposes, a killed broker, and a table of what is left.

    start a broker ─▶ publish 22,695 real readings ─▶ half-way: SIGKILL, start it again
                        └─▶ hourly means │ alerts │ four queue workers, all the while
                    ─▶ a late-comer replays everything ─▶ compare with the file ─▶ exit code

Nothing here waits for a time to pass: every wait is for a condition, and has a limit.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import click

from magnetar.cli.demo.broker import BrokerProcess, free_ports, wait_until
from magnetar.cli.demo.checks import Check, Outcome, Received, checks
from magnetar.cli.demo.readings import Reading, decode_mean, decode_reading, load
from magnetar.cli.demo.roles import (
    Alerts,
    Consuming,
    Deliveries,
    HourlyMeans,
    Outbox,
    Publisher,
    Role,
    Worker,
    open_consumer,
)
from magnetar.cli.demo.screen import Screen, screen_for
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.verb import Asked, LocalVerb, pass_asked
from magnetar.client.admin import Admin
from magnetar.client.cluster import Cluster, SubscriptionType
from magnetar.client.follow import follow
from magnetar.client.rest import AdminError

TOPIC = "persistent://public/default/readings"
MEANS_TOPIC = "persistent://public/default/hourly-means"
ALERTS_TOPIC = "persistent://public/default/alerts"
PURPOSES = ("hourly-means", "alerts", "work")
"""The subscriptions of the topic of readings."""
NAMESPACE = "public/default"
QUEUE_WORKERS = 4
LIMIT_S = 120.0
"""For the whole story; it takes a fraction of it."""


class Kill(NamedTuple):
    """How the broker was killed and came back."""

    processes: int
    acknowledged: int
    in_flight: int
    """Readings sent and not acknowledged at that moment."""
    ready_again_s: float


class Told(NamedTuple):
    """What the demo found out."""

    checks: list[Check]
    kill: Kill
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return all(each.ok for each in self.checks)


@click.command(cls=LocalVerb)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Broker processes."
)
@click.option("--keep", is_flag=True, help="Keep the data folder.")
@pass_asked
def demo(asked: Asked, workers: int, keep: bool) -> int:
    """Watch queues, streams and replay survive a killed broker.

    Starts a broker of its own in a temporary folder and on free ports; touches nothing else.
    Exit code 0 only if every check holds.
    """
    folder = Path(tempfile.mkdtemp(prefix="magnetar-demo-"))
    screen = screen_for(json=asked.json)
    broker = BrokerProcess(folder, free_ports(workers), workers)
    told = None
    try:
        told = Story(load(), broker, screen).play()
        screen.verdict(told.checks)
    finally:
        screen.close()
        broker.discard()
        if keep or (told is not None and not told.ok):
            screen.phase(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        asked.show_one(as_json(told, str(folder) if keep or not told.ok else None))
    else:
        screen.phase(
            f"\n{'everything holds' if told.ok else 'NOT everything holds'}, {told.seconds:.1f} s"
        )
    return ExitCode.OK if told.ok else ExitCode.FAILED


def as_json(told: Told, folder: str | None) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "ok": told.ok,
        "seconds": round(told.seconds, 3),
        "folder": folder,
        "kill": told.kill._asdict(),
        "checks": [each._asdict() for each in told.checks],
    }


class Story:
    """The demo from start to end. Owns the clients and threads, not the broker's folder."""

    def __init__(
        self,
        readings: Sequence[Reading],
        broker: BrokerProcess,
        screen: Screen,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._readings = readings
        self._broker = broker
        self._screen = screen
        self._clock = clock
        self._began = clock()
        self._deduplication = False

    def play(self) -> Told:
        """Tell it once.

        Raises:
            CommandError: the broker did not start, or a part could not go on.
        """
        total = len(self._readings)
        self._phase(f"starting a broker in {self._broker.log.parent}")
        seconds = self._broker.start()
        self._phase(f"ready after {seconds:.2f} s at {self._broker.ports.url}")
        with ExitStack() as held:
            self._deduplication = self._ask_for_deduplication()
            cast = Cast(self._readings, lambda: held.enter_context(Cluster(self._broker.ports.url)))
            held.callback(cast.end)
            self._phase(f"publishing {total:,} readings; means, alerts and four workers listen")
            cast.begin()
            self._until(lambda: cast.publisher.outbox.acknowledged >= total // 2, cast)
            kill = self._kill(cast)
            finished = self._until(cast.finished, cast)
            cast.end()
            self._until(lambda: all(each.done for each in cast.outboxes), cast)
            cast.leave()
            if not finished:
                self._phase(f"gave up waiting after {LIMIT_S:g} s")
            self._phase("a late-comer replays everything")
            outcome = self._outcome(cast, held.enter_context(Cluster(self._broker.ports.url)))
        told = Told(checks(self._readings, outcome), kill, self._clock() - self._began)
        code = self._broker.stop()
        stopped = Check("exit code of the broker", 0, code, code == 0)
        return told._replace(checks=[*told.checks, stopped])

    def _phase(self, text: str) -> None:
        self._screen.phase(f"{self._clock() - self._began:5.1f} s  {text}")

    def _ask_for_deduplication(self) -> bool:
        """Let the broker drop what producers send again after the kill."""
        with Admin(self._broker.ports.admin_url) as admin:
            try:
                admin.set_policy(NAMESPACE, "deduplication", True)
            except AdminError:
                return False  # the table tells how many are stored twice
        return True

    def _until(self, condition: Callable[[], bool], cast: "Cast") -> bool:
        """Wait for a condition; return whether it came true before the limit."""

        def look() -> bool:
            self._screen.counts(cast.counts(), len(self._readings))
            cast.check()
            return condition()

        left_s = max(LIMIT_S - (self._clock() - self._began), 1.0)
        try:
            wait_until(look, "the demo", left_s, self._clock)
        except CommandError:
            cast.check()
            return condition()
        return True

    def _kill(self, cast: "Cast") -> Kill:
        outbox = cast.publisher.outbox
        processes = self._broker.kill()
        acknowledged, sent = outbox.acknowledged, outbox.sent
        self._phase(
            f"killed the broker ({processes} processes) with SIGKILL:"
            f" {acknowledged:,} acknowledged, {sent - acknowledged:,} on their way"
        )
        seconds = self._broker.start()
        self._phase(f"the broker is back after {seconds:.2f} s, on the same folder")
        return Kill(processes, acknowledged, sent - acknowledged, round(seconds, 3))

    def _outcome(self, cast: "Cast", cluster: Cluster) -> Outcome:
        def bodies(topic: str) -> list[bytes]:
            return [message.data() for message in follow(cluster, topic, until_end=True)]

        return Outcome(
            acknowledged=cast.publisher.outbox.acknowledged,
            means_received=_received(cast.means.deliveries),
            alerts_received=_received(cast.alerts.deliveries),
            work_received=_received(cast.work),
            work_by_worker={each.name: each.done for each in cast.workers},
            replayed=[decode_reading(each) for each in bodies(TOPIC)],
            means=[decode_mean(each) for each in bodies(MEANS_TOPIC)],
            alerts=[decode_reading(each) for each in bodies(ALERTS_TOPIC)],
            backlog=self._backlog(),
            deduplication=self._deduplication,
        )

    def _backlog(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with Admin(self._broker.ports.admin_url) as admin:

            def nothing_left() -> bool:
                told = admin.stats(TOPIC)["subscriptions"]
                # Only these: the reader of the late-comer is a subscription, too, for a moment.
                found.update({name: int(told[name]["msgBacklog"]) for name in PURPOSES})
                return not any(found.values())

            with suppress(CommandError):  # the table shows what is left
                wait_until(nothing_left, "the backlogs", 5.0, self._clock)
        return found


def _received(deliveries: Deliveries) -> Received:
    return Received(deliveries.distinct, deliveries.again)


class Cast:
    """Everybody who takes part."""

    def __init__(self, readings: Sequence[Reading], connect: Callable[[], Cluster]) -> None:
        total = len(readings)
        kinds = SubscriptionType
        means, alerts, work = PURPOSES
        cluster = connect()
        consumer = open_consumer(cluster, TOPIC, means, kinds.EXCLUSIVE)
        self.means = HourlyMeans(cluster, consumer, Deliveries(total), MEANS_TOPIC)
        cluster = connect()
        consumer = open_consumer(cluster, TOPIC, alerts, kinds.FAILOVER)
        self.alerts = Alerts(cluster, consumer, Deliveries(total), ALERTS_TOPIC)
        self.work = Deliveries(total)
        self.workers: list[Worker] = []
        for number in range(QUEUE_WORKERS):
            cluster = connect()
            consumer = open_consumer(cluster, TOPIC, work, kinds.SHARED)
            self.workers.append(Worker(f"worker {number}", cluster, consumer, self.work))
        self.publisher = Publisher(connect(), TOPIC, readings)
        self._total = total

    @property
    def consuming(self) -> list[Consuming]:
        """Who receives readings."""
        return [self.means, self.alerts, *self.workers]

    @property
    def everybody(self) -> list[Role]:
        """Who has a thread."""
        return [self.publisher, *self.consuming]

    @property
    def outboxes(self) -> list[Outbox]:
        """Who publishes."""
        return [self.publisher.outbox, self.means.outbox, self.alerts.outbox]

    def begin(self) -> None:
        """Let everybody start; those who listen first."""
        for each in reversed(self.everybody):
            each.start()

    def counts(self) -> dict[str, int]:
        """Return how far everybody is."""
        return {
            "published": self.publisher.outbox.acknowledged,
            "hourly means": self.means.deliveries.distinct,
            "alerts": self.alerts.deliveries.distinct,
            "queue": self.work.distinct,
        }

    def finished(self) -> bool:
        """Return whether every reading has arrived everywhere."""
        return all(done == self._total for done in self.counts().values())

    def check(self) -> None:
        """Raise what went wrong in any thread."""
        for each in self.everybody:
            each.check()

    def end(self) -> None:
        """Let everybody finish what they have and stop."""
        for each in self.everybody:
            each.stopping.set()
        for each in self.everybody:
            if each.is_alive():
                each.join(timeout=10)

    def leave(self) -> None:
        """Acknowledge the last inputs and close the consumers, which sends what still waits."""
        for each in self.consuming:
            each.settle()
            each.consumer.close()

"""`magnetar produce`: publish messages, one per argument or line.

    arguments ─┐
    --file    ─┼─▶ lines ──▶ paced by --rate ──▶ send, at most PENDING_MAX unconfirmed
    -         ─┘                                   └─▶ receipts: counted, the last id kept

Exit code 0 means that every message was acknowledged, so it is on the broker's disk. While
the broker takes none, `patience` says so, and why.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click
import pulsar

from magnetar.cli import values
from magnetar.cli.errors import CommandError, ExitCode, client_error
from magnetar.cli.messages import id_text
from magnetar.cli.patience import Patience, patient
from magnetar.cli.progress import progress
from magnetar.cli.verb import Asked, Verb, pass_asked

if TYPE_CHECKING:
    from magnetar.client.cluster import Cluster

PENDING_MAX = 1000
"""Messages sent but not acknowledged yet; the sender waits above that."""


class Receipts:
    """What became of the messages sent. Fed by the client's threads."""

    def __init__(self, advance: Callable[[int], None], patience: Patience | None = None) -> None:
        self.acknowledged = 0
        self.first_id = ""
        self.last_id = ""
        self.error = ""
        self._advance = advance
        self._patience = patience
        self._lock = threading.Lock()

    def expect(self) -> None:
        """Wait for one more receipt."""
        if self._patience is not None:
            self._patience.expect()

    def note(self, result: Any, message_id: Any) -> None:
        """Take one receipt. Must not raise: the client would end the program."""
        with self._lock:
            if result.name != "Ok":
                self.error = self.error or result.name
                return
            self.acknowledged += 1
            self.last_id = id_text(message_id)
            self.first_id = self.first_id or self.last_id
        if self._patience is not None:
            self._patience.met()
        self._advance(1)


class Pacer:
    """Lets `rate` messages through per second, evenly; without a rate, all at once."""

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = 1 / rate if rate else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    def wait(self) -> None:
        """Return when the next message may go. Time lost is not caught up with a burst."""
        if not self._interval_s:
            return
        now = self._clock()
        if self._next > now:
            self._sleep(self._next - now)
        self._next = max(self._next, now) + self._interval_s


def lines_of(file: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file without their ends, as they come."""
    for line in file:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


@click.command(cls=Verb)
@click.argument("topic")
@click.argument("messages", nargs=-1)
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Publish every line of a file. May be repeated.",
)
@click.option(
    "--rate",
    type=values.rate,
    metavar="NUMBER",
    help="Messages per second: from one in 1,000,000 s to 1,000,000.",
)
@click.option("--key", "-k", help="Key of every message.")
@click.option(
    "--property",
    "-p",
    "properties",
    type=values.key_value,
    metavar="KEY=VALUE",
    multiple=True,
    help="May be repeated.",
)
@click.option(
    "--event-time",
    type=values.time,
    metavar="TIME",
    help="When it happened, from 1970 on: ISO 8601, 15m (ago) or ms.",
)
@click.option(
    "--count",
    "-n",
    type=click.IntRange(min=1),
    default=1,
    help="Publish everything this often. Not with `-`.",
)
@click.option("--batch/--no-batch", default=True, help="Let the client put messages together.")
@click.option(
    "--schema",
    type=click.Choice(["none"]),
    default="none",
    help="Messages are bytes; the broker does not check them.",
)
@pass_asked
def produce(  # noqa: PLR0913, PLR0917 - one argument per option
    asked: Asked,
    topic: str,
    messages: Sequence[str],
    files: Sequence[str],
    rate: float | None,
    key: str | None,
    properties: Sequence[tuple[str, str]],
    event_time: int | None,
    count: int,
    batch: bool,
    schema: str,  # noqa: ARG001 - there is one so far
) -> None:
    """Publish messages to a topic.

    Each MESSAGE is one message; `-` stands for the lines of standard input.

    \b
      magnetar produce orders "one" "two"
      seq 1000 | magnetar produce orders - --rate 100
      magnetar produce orders --file orders.jsonl --key shop-7
    """  # noqa: D301 - click keeps the lines after a \b as they are
    if not messages and not files:
        raise click.UsageError(
            "Nothing to publish: give messages, --file, or - for standard input."
        )
    if "-" in messages and count > 1:
        raise click.UsageError("Standard input can be read once: leave out --count or `-`.")
    options: dict[str, Any] = {"properties": dict(properties)} if properties else {}
    if key is not None:
        options["partition_key"] = key
    if event_time is not None:
        options["event_timestamp"] = event_time
    known = count * len(messages) if not files and "-" not in messages else None
    started = time.perf_counter()
    with (
        asked.cluster() as cluster,
        progress("publishing", known, quiet=asked.json) as meter,
        patient(asked) as patience,
    ):
        producer = _opened(cluster, topic, patience, batch=batch)
        receipts = Receipts(meter.advance, patience)
        interrupted = _publish(
            (body for _ in range(count) for body in _bodies(messages, files)),
            lambda body: producer.send_async(body, receipts.note, **options),
            producer.flush,
            Pacer(rate),
            receipts,
        )
        topic = producer.topic()
    told = {
        "topic": topic,
        "published": receipts.acknowledged,
        "first_id": receipts.first_id,
        "last_id": receipts.last_id,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if receipts.error:
        raise _failure(topic, receipts.error, patience.reason, receipts.acknowledged)
    text = f"published {receipts.acknowledged:,} to {topic}, last {receipts.last_id}"
    if not receipts.acknowledged:
        text = f"published nothing to {topic}"
        text += "" if interrupted else ": the files and standard input had no lines"
    asked.show_one(told, text)
    if interrupted:
        raise click.exceptions.Exit(ExitCode.INTERRUPTED)


def _opened(cluster: "Cluster", topic: str, patience: Patience, *, batch: bool) -> Any:
    """Return a producer of the official client.

    Raises:
        CommandError: the broker takes nothing, and said why.
    """
    patience.expect()
    try:
        producer = cluster.producer(
            topic,
            block_if_queue_full=True,
            max_pending_messages=PENDING_MAX,
            batching_enabled=batch,
        )
    except pulsar.PulsarException as error:
        if patience.reason:
            raise _failure(topic, type(error).__name__, patience.reason, 0) from error
        raise
    patience.met()
    return producer


def _failure(topic: str, result: str, reason: str, published: int) -> CommandError:
    """Return the error for messages that were not taken: why, if the broker said so."""
    error = client_error(result, topic)
    if reason:
        error = CommandError(f"{topic}: {reason}")
    error.advice = f"{published} messages were published before that"
    return error


def _bodies(messages: Sequence[str], files: Sequence[str]) -> Iterator[bytes]:
    for message in messages:
        if message == "-":
            yield from lines_of(sys.stdin.buffer)
        else:
            yield os.fsencode(message)  # arguments may hold any bytes
    with ExitStack() as opened:
        for path in files:
            yield from lines_of(opened.enter_context(click.open_file(path, "rb")))


def _publish(
    bodies: Iterable[bytes],
    send: Callable[[bytes], None],
    flush: Callable[[], None],
    pacer: Pacer,
    receipts: Receipts,
) -> bool:
    """Send until nothing is left or one was refused; return whether Ctrl-C ended it.

    Returns once everything that was sent is answered.
    """
    interrupted = False
    try:
        for body in bodies:
            pacer.wait()
            if receipts.error:
                break
            receipts.expect()
            send(body)
    except KeyboardInterrupt:
        interrupted = True
    try:
        flush()
    except pulsar.PulsarException:
        if not receipts.error:  # otherwise the receipt told more exactly what happened
            raise
    return interrupted

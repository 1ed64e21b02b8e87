"""A command line in this process, and stand-ins for the broker behind it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pulsar
import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.cli.main import main
from magnetar.cli.verb import Asked


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line as the program would; nothing of this machine's settings leaks in."""
    for name in ("MAGNETAR_URL", "MAGNETAR_ADMIN_URL", "MAGNETAR_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Ran:
        code = main(arguments)
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


class FakeAdmin:
    """Admin REST that notes every call, and answers what a test told it to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *args, *([kwargs] if kwargs else [])))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return call


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> FakeAdmin:
    """What commands get instead of admin REST."""
    fake = FakeAdmin()
    monkeypatch.setattr(Asked, "admin", lambda _: fake)
    return fake


class FakeId:
    """A message id of the official client."""

    def __init__(self, ledger: int, entry: int, batch_index: int = -1) -> None:
        self._parts = (ledger, entry, batch_index)

    def ledger_id(self) -> int:
        return self._parts[0]

    def entry_id(self) -> int:
        return self._parts[1]

    def batch_index(self) -> int:
        return self._parts[2]

    def partition(self) -> int:
        return -1


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A message of the official client."""

    entry: int
    body: bytes

    def message_id(self) -> FakeId:
        return FakeId(7, self.entry)

    def data(self) -> bytes:
        return self.body

    def topic_name(self) -> str:
        return "persistent://public/default/t"

    def publish_timestamp(self) -> int:
        return 1_700_000_000_000 + self.entry

    def event_timestamp(self) -> int:
        return 0

    def partition_key(self) -> str:
        return "k"

    def properties(self) -> dict[str, str]:
        return {"a": "b"}

    def producer_name(self) -> str:
        return "p"

    def redelivery_count(self) -> int:
        return 0


class FakeCluster:
    """A cluster with one topic in memory; sending can be made to fail."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.send_options: list[dict[str, Any]] = []
        self.fail_after: int | None = None
        self.acknowledged: list[int] = []
        self.closed = 0
        self.opened: dict[str, Any] = {}
        self.interrupt_after: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    # --- the cluster
    def producer(self, topic: str, **options: Any) -> "FakeCluster":
        self.opened = {"topic": topic, **options}
        return self

    def consumer(self, *args: Any, **options: Any) -> "FakeCluster":
        self.opened = {"args": args, **options}
        self._position = 0
        return self

    def reader(self, *args: Any, **options: Any) -> "FakeCluster":
        return self.consumer(*args, **options)

    def admin(self) -> FakeAdmin:
        fake = FakeAdmin()
        left = len(self.bodies) - len(self.acknowledged)
        fake.answers["stats"] = {"subscriptions": {"s": {"msgBacklog": left}}}
        return fake

    # --- the producer
    def topic(self) -> str:
        return "persistent://public/default/t"

    def send_async(self, body: bytes, callback: Callable[..., None], **options: Any) -> None:
        if self.fail_after is not None and len(self.bodies) >= self.fail_after:
            callback(pulsar.Result.TopicTerminated, None)
            return
        self.bodies.append(body)
        self.send_options.append(options)
        callback(pulsar.Result.Ok, FakeId(7, len(self.bodies) - 1))

    def flush(self) -> None:
        """Everything was acknowledged at once."""

    # --- the consumer or reader
    def get_last_message_id(self) -> FakeId:
        return FakeId(7, len(self.bodies) - 1)

    def receive(self, timeout_ms: int) -> FakeMessage:
        if self._position == self.interrupt_after:
            raise KeyboardInterrupt
        if self._position >= len(self.bodies):
            raise pulsar.Timeout("Pulsar error: TimeOut")
        self._position += 1
        return FakeMessage(self._position - 1, self.bodies[self._position - 1])

    def read_next(self, timeout_ms: int) -> FakeMessage:
        return self.receive(timeout_ms)

    def has_message_available(self) -> bool:
        return self._position < len(self.bodies)

    def acknowledge(self, message: FakeMessage) -> None:
        self.acknowledged.append(message.entry)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """What commands get instead of a cluster."""
    fake = FakeCluster()
    monkeypatch.setattr(Asked, "cluster", lambda _: fake)
    yield fake
    assert fake.closed, "a command left the cluster open"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of the test's own."""
    process = BrokerProcess(tmp_path, free_ports(1))
    try:
        process.start()
        yield process
    finally:
        process.discard()

"""What every server is given: one row of the tables and one point of the plots each.

short   a few seconds each: to look, and to notice that something became slower
long    60 s and at least four write caches of 128 MiB each: what is compared
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KIB = 1024
MIB = KIB * KIB
OURS = ("Magnetar", "Magnetar, plain Python", "limit server in C")
EVERYBODY: tuple[str, ...] = ()
FAN_OUT = 10
IDLE_TOPICS = 2_000
MANY_TOPICS = 10_000
CATCH_UP_BYTES = {"short": 320 * MIB, "long": 2048 * MIB}
"""More than two write caches: most of it has left the broker's memory."""
TAIL_BYTES = {"short": 40 * MIB, "long": 512 * MIB}


@dataclass(frozen=True)
class Form:
    """How much of everything."""

    name: str
    seconds: float
    warm_up_s: float
    rest_s: float
    rounds: int


FORMS = {"short": Form("short", 1.5, 0.5, 2.0, 5), "long": Form("long", 60.0, 5.0, 60.0, 5)}


@dataclass(frozen=True)
class Work:
    """One load, and for whom."""

    name: str
    kind: str
    """What a server must be able to do."""
    mode: str
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])
    only: Sequence[str] = EVERYBODY
    bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of a backlog, by form."""
    series: str = ""
    """Which plot of growth it is a point of, at `at`."""
    at: float = 0.0

    def load(self, form: Form) -> dict[str, Any]:
        """Return what a `Load` is told."""
        told: dict[str, Any] = {"mode": self.mode, **self.told}
        if self.mode == "consume":
            entry = told.get("size_bytes", KIB) * told.get("batch", 1)
            told["messages"] = self.bytes[form.name] // entry * told.get("batch", 1)
        return told | {"seconds": form.seconds, "warm_up_s": form.warm_up_s, "silence_s": 20.0}


def _publish(name: str, size: int, **told: Any) -> Work:
    kind = "batch-publish" if told.get("batch", 1) > 1 else "publish"
    return Work(f"publish {name}", kind, "publish", {"size_bytes": size, **told})


def _fan_out(count: int, **more: Any) -> Work:
    told = {"size_bytes": KIB, "subscriptions": count}
    # Every consumer is read to on its own: the backlog shrinks as they become more.
    backlog = {form: size // 4 for form, size in TAIL_BYTES.items()}
    return Work(f"fan-out to {count}, 1 KB", "fan-out", "consume", told, bytes=backlog, **more)


COMPARED = (
    _publish("100 B", 100),
    _publish("1 KB", KIB),
    _publish("128 KB", 128 * KIB),
    _publish("1 KB, batches of 100", KIB, batch=100),
    _publish("100 B, batches of 100", 100, batch=100),
    Work("consume 1 KB", "consume", "consume", {"size_bytes": KIB}, bytes=TAIL_BYTES),
    Work(
        *("consume 1 KB, batches of 100", "batch-consume", "consume"),
        {"size_bytes": KIB, "batch": 100},
        bytes=TAIL_BYTES,
    ),
    _fan_out(FAN_OUT),
    Work("catch-up read, 1 KB", "consume", "consume", {"size_bytes": KIB}, bytes=CATCH_UP_BYTES),
    Work("latency at 1,000 messages/s, 1 KB", "latency", "latency", {"size_bytes": KIB}),
    Work(
        *("publish 1 KB to 10,000 topics", "topics", "publish"),
        {"size_bytes": KIB, "topics": MANY_TOPICS},
        only=(*OURS, "pulsar-lite"),
    ),
    Work("idle with 2,000 topics", "idle", "publish", {"size_bytes": 100, "topics": IDLE_TOPICS}),
)

GROWTH = (
    *(
        Work(
            *(f"growth: {count:,} topics", "topics", "publish"),
            {"size_bytes": KIB, "topics": count},
            only=OURS,
            series="topics",
            at=count,
        )
        for count in (1, 100, 1_000, 10_000)
    ),
    *(
        Work(
            *(f"growth: {count} consumers", "fan-out", "consume"),
            {"size_bytes": KIB, "subscriptions": count},
            only=OURS,
            bytes={form: size // 4 for form, size in TAIL_BYTES.items()},
            series="consumers",
            at=count,
        )
        for count in (1, 2, 5, 10, 20)
    ),
    *(
        Work(
            *(f"growth: {size:,} B messages", "publish", "publish"),
            {"size_bytes": size},
            only=OURS,
            series="message size",
            at=size,
        )
        for size in (100, 1_024, 8_192, 65_536, 1_048_576)
    ),
    *(
        Work(
            *(f"growth: backlog of {size} MiB", "consume", "consume"),
            {"size_bytes": KIB},
            only=OURS,
            bytes={"short": size * MIB, "long": 8 * size * MIB},
            series="backlog",
            at=size,
        )
        for size in (16, 64, 256, 512)
    ),
)

WORKS = (*COMPARED, *GROWTH)

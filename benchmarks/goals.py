"""The figures that the project wants to reach, and what a run of benchmarks says about them.

Ratios only, each of two servers in the same rounds: above 1 is better for Magnetar, unless the goal
says "at most". A figure whose servers were not all measured is left out.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

MAGNETAR, PLAIN, LIMIT = "Magnetar", "Magnetar, plain Python", "limit server in C"
NATS, NATS_SYNCED = "NATS JetStream, its default", "NATS JetStream, sync always"
REDIS, QUORUM = "Redis streams, appendfsync always", "RabbitMQ quorum queue"
PULSAR, KAFKA = "Apache Pulsar standalone, journal synced", "Apache Kafka, flush per message"
READERS = {KAFKA: "Apache Kafka, its default"}
"""Who is measured in its place where it makes no difference when something was synced."""
ONE_KB, LARGE = "publish 1 KB", "publish 128 KB"
LATENCY = "latency at 1,000 messages/s, 1 KB"
FAN_OUT, CONSUME, CATCH_UP = "fan-out to 10, 1 KB", "consume 1 KB", "catch-up read, 1 KB"
MANY, IDLE = "publish 1 KB to 10,000 topics", "idle with 2,000 topics"
RATE, CPU, P50, P99 = "messages_per_s", "server_cpu_us", "p50_ms", "p99_ms"
MEMORY = "server_memory_bytes"

Rows = Mapping[tuple[str, str], Mapping[str, float]]
"""(work, server) -> medians."""


class Figure(NamedTuple):
    """One goal, and what was seen."""

    what: str
    goal: str
    seen: float | None
    reached: bool


def figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return every goal of which something was seen."""
    seen: Rows = {(row["work"], row["server"]): row["median"] for row in rows if row["median"]}
    found: list[Figure] = []
    for ours, publish, large, p99 in ((MAGNETAR, 0.4, 0.7, 4.0), (PLAIN, 0.12, 0.6, 8.0)):
        found += [
            _least(
                f"{ours}, 1 KB unbatched, against the limit server",
                *(publish, _ratio(seen, ONE_KB, RATE, ours, LIMIT)),
            ),
            _least(
                f"{ours}, 128 KB, against the limit server",
                *(large, _ratio(seen, LARGE, RATE, ours, LIMIT)),
            ),
            _most(
                f"{ours}, p50 at 1,000 messages/s, against the limit server",
                *(2.0, _ratio(seen, LATENCY, P50, ours, LIMIT)),
            ),
            _most(
                f"{ours}, p99 at 1,000 messages/s, against the limit server",
                *(p99, _ratio(seen, LATENCY, P99, ours, LIMIT)),
            ),
        ]
    for peer, goal in ((NATS, 1.0), (NATS_SYNCED, 4.0), (REDIS, 4.0), (QUORUM, 10.0)):
        found.append(
            _least(
                f"1 KB unbatched, messages/s against {peer}",
                *(goal, _ratio(seen, ONE_KB, RATE, MAGNETAR, peer)),
            )
        )
    found.append(
        _least(
            f"consume 1 KB, messages/s against {QUORUM}",
            *(10.0, _ratio(seen, CONSUME, RATE, MAGNETAR, QUORUM)),
        )
    )
    for peer in (PULSAR, KAFKA):
        reader = READERS.get(peer, peer)
        pairs = ((ONE_KB, peer), (CONSUME, reader), (FAN_OUT, reader), (CATCH_UP, reader))
        cells = [_ratio(seen, work, CPU, who, MAGNETAR) for work, who in pairs]
        known = [cell for cell in cells if cell is not None]
        if len(known) < len(cells):
            continue
        mean = prod(known) ** (1 / len(known))
        what = f"CPU per message, {peer} against Magnetar"
        found.append(_least(f"{what}: geometric mean of four works", 1.5, mean))
        found.append(_least(f"{what}: the worst of them", 1.0, min(known)))
    for peer in (PULSAR, KAFKA, REDIS, NATS_SYNCED, QUORUM):
        found.append(
            _least(
                f"p99 at 1,000 messages/s, {peer} against Magnetar",
                *(1.0, _ratio(seen, LATENCY, P99, peer, MAGNETAR)),
            )
        )
    many, one = seen.get((MANY, MAGNETAR), {}), seen.get((ONE_KB, MAGNETAR), {})
    fan_out, single = seen.get((FAN_OUT, MAGNETAR), {}), seen.get((CONSUME, MAGNETAR), {})
    found += [
        _least("10,000 topics against one, messages/s", 0.7, _part(many, one, RATE)),
        _most("fan-out to ten against one, CPU per delivery", 0.5, _part(fan_out, single, CPU)),
        _least(
            "resident memory at 1,000 messages/s, Apache Pulsar against Magnetar",
            *(8.0, _ratio(seen, LATENCY, MEMORY, PULSAR, MAGNETAR)),
        ),
    ]  # fmt: skip
    idle = seen.get((IDLE, MAGNETAR), {}).get("idle_cpu_percent")
    found.append(_most("idle CPU with 2,000 topics, per cent of a core", 2.0, idle))
    return [figure for figure in found if figure.seen is not None]


def _part(above: Mapping[str, float], below: Mapping[str, float], name: str) -> float | None:
    if not above.get(name) or not below.get(name):
        return None
    return above[name] / below[name]


def _ratio(seen: Rows, work: str, name: str, above: str, below: str) -> float | None:
    return _part(seen.get((work, above), {}), seen.get((work, below), {}), name)


def _least(what: str, goal: float, seen: float | None) -> Figure:
    return Figure(what, f"at least {goal:g}", seen, seen is not None and seen >= goal)


def _most(what: str, goal: float, seen: float | None) -> Figure:
    return Figure(what, f"at most {goal:g}", seen, seen is not None and seen <= goal)

"""Which process has which topic: a table that can be changed while all of them serve.

    topic ──pinned?──▶ pins[full name] ─────────────────────────────┐
      └───no──▶ crc32c(full name) % 1024 ──▶ shares[that number] ───┴──▶ number of a process

There are 1,024 shares, whatever the number of processes and topics; what moves when their number
changes are shares, as few as make all processes even again. A topic that somebody moved by hand is
pinned. As Redis Cluster's slots, and Pulsar's bundles but that they are not per namespace. Pure.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Self

import msgspec
from crc32c import crc32c

SHARES = 1024
"""So many parts all topics are divided into. More processes than that would have nothing to do."""

PINS_MAX = 10_000
"""Topics that were moved by hand. Each takes some 60 bytes, in every process."""


class TooManyPinsError(ValueError):
    """More topics would be moved by hand than are kept track of."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to move, and where to: numbers of processes by share, or by the name of a topic."""

    shares: Mapping[int, int] = {}
    pins: Mapping[str, int] = {}


class Assignment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole table."""

    shares: tuple[int, ...]
    """The process of each share."""
    pins: dict[str, int] = {}
    """The process of each topic that is not with its share."""

    @classmethod
    def fresh(cls, workers: int) -> Self:
        """Return the table of so many processes that start together."""
        return cls(shares=tuple(share % workers for share in range(SHARES)))

    def worker_of(self, topic: str) -> int:
        """Return the number of the process that owns a topic, given its full name."""
        pinned = self.pins.get(topic) if self.pins else None
        return self.shares[share_of(topic)] if pinned is None else pinned

    def suits(self, workers: int) -> bool:
        """Return whether exactly these processes have shares, each about as many."""
        counts = Counter(self.shares)
        whole = len(self.shares) == SHARES and all(0 <= each < workers for each in counts)
        if not whole or any(not 0 <= each < workers for each in self.pins.values()):
            return False
        return max(counts.values()) - min(counts[worker] for worker in range(workers)) <= 1

    def changed(self, change: Change) -> Self:
        """Return the table as it is after a change.

        Raises:
            TooManyPinsError: there are too many topics that were moved by hand.
        """
        shares = list(self.shares)
        for share, worker in change.shares.items():
            shares[share] = worker
        pins = {**self.pins, **change.pins}
        kept = {name: worker for name, worker in pins.items() if shares[share_of(name)] != worker}
        if len(kept) > max(PINS_MAX, len(self.pins)):
            raise TooManyPinsError(
                f"{len(kept)} topics would be with another process than others of their share;"
                f" at most {PINS_MAX} can be"
            )
        return type(self)(shares=tuple(shares), pins=kept)

    def owned(self, worker: int) -> int:
        """Return how many shares a process has."""
        return self.shares.count(worker)


def share_of(topic: str) -> int:
    """Return in which share a topic is, given its full name."""
    return crc32c(topic.encode()) % SHARES


def evened(table: Assignment, workers: int) -> Change:
    """Return what has to move so that processes 0, 1, ... have about equally many shares.

    Only what has to: a process that has too many gives, and one that has too few takes. Pins stay,
    but for those to processes that are to have nothing.
    """
    have: dict[int, list[int]] = {worker: [] for worker in range(workers)}
    homeless: list[int] = []
    for share, worker in enumerate(table.shares):
        have.get(worker, homeless).append(share)
    least, more = divmod(SHARES, workers)
    # Who has most may keep one more than the others: nothing moves that need not.
    by_size = sorted(have, key=lambda worker: (-len(have[worker]), worker))
    wanted = {worker: least + (at < more) for at, worker in enumerate(by_size)}
    for worker, shares in have.items():
        surplus = len(shares) - wanted[worker]
        if surplus > 0:
            # Those first that are where they are by no rule: then 1, 2, 4... processes end as
            # they would have started.
            shares.sort(key=lambda share: (share % workers == worker, share))
            homeless += shares[:surplus]
            have[worker] = shares[surplus:]
    moved: dict[int, int] = {}
    room = {worker: wanted[worker] - len(shares) for worker, shares in have.items()}
    rest: list[int] = []
    for share in homeless:
        if room[share % workers] > 0:
            room[share % workers] -= 1
            moved[share] = share % workers
        else:
            rest.append(share)
    open_places = [worker for worker in sorted(room) for _ in range(room[worker])]
    moved.update(zip(rest, open_places, strict=True))
    after = table.changed(Change(shares=moved))
    pins = {
        name: after.shares[share_of(name)]
        for name, worker in table.pins.items()
        if worker >= workers
    }
    return Change(shares=moved, pins=pins)

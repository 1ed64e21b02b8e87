"""The knobs: settings that may be turned while the broker runs, and how far at once.

    by hand          any live setting, within the bounds that `config` declares
    by an operator   the knobs of this table: narrower bounds, a largest step, a pause in between
    by neither       what changes a promise: syncs, retention, time to live, log-in, schemas

An operator is a program that tries to run the broker well (`?by=operator`). It is held to this
table by code, so that what it decides, however wrong, can only be dear and never unsafe. What
people set is kept beside what it sets, and holds again when it is told to let go.

Pure: facts, and functions of values. Names are those of `config`.
"""

from collections.abc import Mapping
from typing import NamedTuple

MIB = 1 << 20

WRITE_CACHE_SHARE = 0.25
"""Of the machine's memory, the most that entries may take which are in no entry log yet."""
READ_CACHE_SHARE = 0.40
"""The most that blocks may take which were read back from entry logs."""


COMMITS_PER_CACHE = 4
"""One commit may be this part of a process's write cache, so that publishing need not pause."""


class Knob(NamedTuple):
    """One row: a live setting that an operator may turn."""

    name: str
    unit: str
    low: float
    high: float
    add: float
    """The largest step that is always allowed, up or down."""
    up: float
    """... or times this at once,"""
    down: float
    """... or divided by this."""
    interval_s: float
    """The shortest time between two changes."""
    effect: str
    holds_from: str = "now"
    share: float = 0.0
    """Of the machine's memory: an upper bound, too, where it is not 0."""

    def high_on(self, memory_bytes: int) -> float:
        """Return the upper bound on a machine; its memory is 0 where it is not known."""
        if not self.share or not memory_bytes:
            return self.high
        return max(self.low, min(self.high, int(self.share * memory_bytes)))

    def allows(self, before: float, after: float) -> bool:
        """Return whether one step may be so large."""
        if abs(after - before) <= self.add:
            return True
        return before / self.down <= after <= before * self.up


PROCESSES = Knob(
    "broker_processes", "processes", 1, 64, 2, 1, 1, 30,
    "More: more cores serve; the topics that move pause for a moment. A start takes --workers.",
)  # fmt: skip
"""Not a setting: whoever turns it asks the supervisor. A program may have one for each core."""

NEXT_LEDGER = "the next ledger"

_ROWS = (
    Knob(
        "journal_window_ms", "ms", 0, 2, 1, 2, 2, 1,
        "Longer: fewer syncs, less CPU for each message; it adds itself to the publish latency.",
    ),
    Knob(
        "journal_window_bytes", "bytes", 16 << 10, 1 * MIB, 0, 2, 2, 1,
        "Commits early under load; keeps latency low where the window is long.",
    ),
    Knob(
        "flush_interval_s", "s", 0.1, 600, 0, 2, 2, 10,
        "Longer: a smoother disk, fewer and larger entry logs, more to replay after a crash.",
    ),
    Knob(
        "write_cache_bytes_max", "bytes", 16 * MIB, 64 << 30, 0, 1.5, 1.5, 10,
        "Larger: absorbs bursts, and serves who reads what was just written.",
        share=WRITE_CACHE_SHARE,
    ),
    Knob(
        "read_cache_bytes_max", "bytes", 16 * MIB, 64 << 30, 0, 1.5, 1.5, 10,
        "Larger: more hits for those who lag behind and for replays; costs memory.",
        share=READ_CACHE_SHARE,
    ),
    Knob(
        "read_cache_ttl_ms", "ms", 100, 600_000, 0, 2, 2, 5,
        "Longer: more for a fan-out to consumers that do not keep step; costs memory.",
    ),
    Knob(
        "read_ahead_entries", "entries", 1, 5000, 1, 2, 2, 1,
        "Larger: fewer reads for who catches up in order; wasted where reads are at random.",
    ),
    Knob(
        "dispatch_entries_max", "entries", 1, 1000, 1, 2, 2, 1,
        "Larger: throughput; smaller: fairness and latency.",
    ),
    Knob(
        "round_robin_entries_max", "entries", 1, 200, 1, 2, 2, 1,
        "Smaller: spread evenly between the consumers of a Shared subscription; larger: cheaper.",
    ),
    Knob(
        "unacked_messages_per_consumer_max", "messages", 100, 1_000_000, 0, 2, 2, 5,
        "Larger: consumers' throughput; costs memory, and more comes again when one is lost.",
    ),
    Knob(
        "unacked_messages_per_subscription_max", "messages", 100, 1_000_000, 0, 2, 2, 5,
        "The same for all consumers of a subscription together.",
    ),
    Knob(
        "ledger_bytes_max", "bytes", 16 * MIB, 4096 * MIB, 0, 2, 2, 60,
        "Small: space comes back earlier, more ledgers to keep in mind.", NEXT_LEDGER,
    ),
    Knob(
        "ledger_age_s_max", "s", 60, 86_400, 0, 2, 2, 60,
        "Bounds the age of the ledger that a topic writes to.", NEXT_LEDGER,
    ),
    Knob(
        "pending_publish_bytes_per_connection_max", "bytes", 1 * MIB, 64 * MIB, 0, 2, 2, 1,
        "The point at which a connection is not read from until its entries are synced.",
    ),
)  # fmt: skip

KNOBS: Mapping[str, Knob] = {each.name: each for each in _ROWS}
"""By name, in the order in which a person would look at them."""


class Elsewhere(NamedTuple):
    """A knob that is turned by a call of its own, because there is one of it per tenant."""

    name: str
    unit: str
    field: str
    """Of what the call takes and returns."""
    effect: str
    low: float = 0
    up: float = 1.5
    down: float = 1.25
    interval_s: float = 1.0
    path: str = "/admin/v2/resourcegroups/{group}"


ELSEWHERE = tuple(
    Elsewhere(
        f"tenant_{verb}_rate_{what}_max",
        f"{what}/s",
        f"{verb}RateIn{field}",
        "Protects a tenant's neighbours; -1 or 0 is no limit. Namespaces join by policy.",
    )
    for verb in ("publish", "dispatch")
    for what, field in (("messages", "Msgs"), ("bytes", "Bytes"))
)
"""Rates of those who share a resource group: namespaces name the group they belong to."""

ABSENT: Mapping[str, str] = {
    "offload_threshold_bytes": "tiered storage is not built yet: nothing is moved to a lower tier",
    "stored_compression": "batches are stored as they came: let producers compress",
}
"""Knobs that there will be, and why there is nothing to turn yet. They are refused by name."""


class Conflict(NamedTuple):
    """Settings that contradict each other, and what to do about it."""

    names: tuple[str, ...]
    advice: str


def conflicts(values: Mapping[str, float], memory_bytes: int, workers: int) -> list[Conflict]:
    """Return what does not go together.

    Args:
        values: Live settings by name, for the whole data folder.
        memory_bytes: Of the machine; 0: it is not known.
        workers: How many processes share what is divided.
    """
    found = []
    write, group = values["write_cache_bytes_max"], values["journal_window_bytes"]
    if group * COMMITS_PER_CACHE > write / workers:
        found.append(
            Conflict(
                ("journal_window_bytes", "write_cache_bytes_max"),
                f"one commit of journal_window_bytes, {group:.0f}, would be more than a quarter"
                f" of the write cache, which is {write / workers:.0f} bytes in each process:"
                f" set journal_window_bytes to {write / workers / COMMITS_PER_CACHE:.0f} at most,"
                f" or write_cache_bytes_max to {group * COMMITS_PER_CACHE * workers:.0f} at least",
            )
        )
    for name, share in (
        ("write_cache_bytes_max", WRITE_CACHE_SHARE),
        ("read_cache_bytes_max", READ_CACHE_SHARE),
    ):
        if memory_bytes and values[name] > share * memory_bytes:
            found.append(
                Conflict(
                    (name,),
                    f"{name} is {values[name]:.0f}, more than {share:.0%} of this machine's"
                    f" memory: set {share * memory_bytes:.0f} at most",
                )
            )
    warn, full = values["disk_used_percent_warn"], values["disk_used_percent_readonly"]
    if warn > full:
        found.append(
            Conflict(
                ("disk_used_percent_warn", "disk_used_percent_readonly"),
                f"disk_used_percent_warn, {warn:g}, is above disk_used_percent_readonly, {full:g},"
                " so the warning would come too late: lower the former or raise the latter first",
            )
        )
    return found

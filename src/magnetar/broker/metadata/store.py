"""The store: versioned keys, changed all at once or not at all.

    key (text)  ->  value (bytes), version (int, from 1)

    get, scan, keys     read what is committed
    commit(changes)     first every condition, then every write, in one durable transaction
    watch(prefix)       tells which keys may have changed, here or in another process

The version of a key is the number of the change that wrote it. Changes are numbered
through the whole store, so a key that was deleted and made again never shows an old
version, and a later write always has the higher number. Keys are paths: `noun/part/part`;
a prefix ends in a slash. Looked to: etcd's transactions (compare first, then write, no key
twice), its one revision for everything, and its watch, without the history.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from magnetar.broker.port import MetadataError

PRESENT = -1
"""For `Check`: the key must exist, in whatever version."""


class StoreError(MetadataError):
    """The store could not do what it was asked."""


class ConflictError(StoreError):
    """A condition does not hold: somebody else was faster. Nothing was changed."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        """The key or prefix whose condition failed."""


class CorruptMetadataError(StoreError):
    """What was once durable no longer reads back. The message says what to do."""


class NewerFormatError(StoreError):
    """The file was written by a newer program. It is left as it is."""


class StoreUnavailableError(StoreError):
    """The disk is full, cannot be written, or is locked for too long. Nothing was changed."""


class Versioned(NamedTuple):
    """What lies under a key."""

    value: bytes
    version: int


class Put(NamedTuple):
    """Write a value. `version`: only if the key still has it; None: whatever is there."""

    key: str
    value: bytes
    version: int | None = None


class Delete(NamedTuple):
    """Remove a key; there need not be one."""

    key: str


class DeleteAll(NamedTuple):
    """Remove every key under a prefix."""

    prefix: str


class Increment(NamedTuple):
    """Add to a counter, which starts at 0. The result of the change is its new value."""

    key: str
    by: int = 1


class Append(NamedTuple):
    """Write a value under `prefix` and the next number of a counter (see `numbered`).

    The number is the result of the change.
    """

    counter: str
    prefix: str
    value: bytes


class Check(NamedTuple):
    """A condition: the key has this version, `PRESENT` for any, None for no such key."""

    key: str
    version: int | None


class CheckEmpty(NamedTuple):
    """A condition: there is no key under the prefix."""

    prefix: str


Change = Put | Delete | DeleteAll | Increment | Append | Check | CheckEmpty

Watcher = Callable[[Sequence[str]], None]
"""Is called on the event loop with keys that may have changed, each once, sorted."""


class Store(Protocol):
    """Small facts that must survive. All calls are made on the event loop."""

    async def get(self, key: str) -> Versioned | None:
        """Return what lies under a key; None: nothing."""
        ...

    async def scan(self, prefix: str) -> list[tuple[str, Versioned]]:
        """Return everything under a prefix, sorted by key."""
        ...

    async def keys(self, prefix: str) -> list[str]:
        """Return the keys under a prefix, sorted."""
        ...

    async def commit(self, changes: Sequence[Change]) -> list[int | None]:
        """Make all changes or none; return once they are durable.

        Conditions see the state before the commit; writes happen in the given order. One
        result per change: the new version for `Put`, the number for `Increment` and `Append`,
        else None. Commits that are made at the same time share one sync.

        Raises:
            ConflictError: a condition does not hold.
            StoreUnavailableError: the disk refused.
        """
        ...

    def watch(self, prefix: str, callback: Watcher) -> Callable[[], None]:
        """Call back after each change under a prefix; return how to stop that.

        Changes by this process are told before their `commit` returns, those of other
        processes a little later. Several changes of one key may be told as one.
        """
        ...

    def nudge(self) -> None:
        """Look now for changes by other processes."""
        ...

    async def close(self) -> None:
        """Finish what was begun, then let go. Calling it twice is harmless."""
        ...


def numbered(prefix: str, number: int) -> str:
    """Return the key of a numbered thing; keys sort as their numbers do."""
    return f"{prefix}{number:016x}"


def number_of(key: str) -> int:
    """Return the number at the end of a key that `numbered` made."""
    return int(key[-16:], 16)


def check_prefix(prefix: str) -> str:
    """Return a prefix if it is one: empty, or ending in a slash."""
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"prefix {prefix!r} must end in a slash")
    return prefix


def check_change(change: Change) -> None:
    """Refuse what no store can write, before it is queued with what others want written.

    Raises:
        ValueError: a key is not valid Unicode, or a prefix does not end in a slash.
    """
    match change:
        case DeleteAll(prefix) | CheckEmpty(prefix):
            check_prefix(prefix).encode()
        case Append(counter, prefix):
            check_prefix(prefix).encode()
            counter.encode()
        case Put(key) | Delete(key) | Increment(key) | Check(key):
            key.encode()

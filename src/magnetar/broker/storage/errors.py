"""What the storage refuses, and what it has lost. Whose fault each is stands beside it."""

from typing import NamedTuple

from magnetar.broker.entry import EntryId

REST_OF_LEDGER = 2**63 - 1
"""As the last entry of a damaged range: everything from its first entry on."""


class StorageError(Exception):
    """The disk would not take or give bytes. Nothing of the call is durable; it may be repeated."""


class StorageFullError(StorageError):
    """There is no room on the disk. Writing goes on by itself when there is."""


class LedgerSealedError(StorageError):
    """The ledger takes no more entries here: the caller's mistake, or a failed sync sealed it."""


class LedgerNotFoundError(StorageError):
    """No entry at or after the one asked for is stored in this ledger."""


class QuarantinedError(StorageError):
    """Entries `first` to `last` of a ledger were stored and no longer read back.

    They are reported, never served, and the file that held them is kept.
    """

    def __init__(self, ledger: int, first: int, last: int, reason: str) -> None:
        super().__init__(f"ledger {ledger}: entries {first} to {last} are damaged: {reason}")
        self.ledger = ledger
        self.first = first
        self.last = last
        self.reason = reason


class FormatError(StorageError):
    """The data folder was written by a version that this one does not understand."""


class Gap(NamedTuple):
    """Entries that are lost, both ends inclusive."""

    first: EntryId
    last: EntryId
    reason: str

    def __str__(self) -> str:
        """Return the range, as people are told."""
        if self.last.entry == REST_OF_LEDGER:
            return f"{self.first} and all that followed"
        return f"{self.first} to {self.last}"


class LedgerEnd(NamedTuple):
    """What a ledger holds, as far as this process knows. Times are the producers' clocks."""

    end: int
    """The entry id after the last entry."""
    first_index: int
    """Messages of the topic before this ledger's first entry; 0 if `end` is 0."""
    next_index: int
    bytes: int
    """Bytes in all bodies."""
    publish_first_ms: int
    """The lowest publish time; 0 if there is no entry."""
    publish_last_ms: int
    """The highest publish time; 0 if there is no entry."""


EMPTY_LEDGER = LedgerEnd(0, 0, 0, 0, 0, 0)

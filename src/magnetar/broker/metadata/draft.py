"""The draft: what a group of commits would write, worked out before anything is written.

    commit 1 ─┐   conditions: looked up in the draft, then in the store
    commit 2 ─┼─▶ writes: kept in the draft, one per key, the last one wins
    commit 3 ─┘   a failed condition throws out its own commit, and nothing of it was kept

Pure: it reads through two functions and writes nothing. So commits that arrive together
share one transaction without a savepoint each, and a counter that is raised a hundred
times in one group is written once.
"""

from collections.abc import Callable, Iterable, Sequence

from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Change,
    Check,
    CheckEmpty,
    ConflictError,
    CorruptMetadataError,
    Delete,
    DeleteAll,
    Increment,
    Put,
    Versioned,
    numbered,
)


class Draft:
    """The writes of the commits accepted so far."""

    def __init__(
        self,
        read: Callable[[str], Versioned | None],
        keys: Callable[[str], Iterable[str]],
        last_change: int,
    ) -> None:
        self._read = read
        self._keys = keys
        self.last_change = last_change
        """Number of the last change in the store, or of the last one drafted."""
        self.writes: dict[str, tuple[int, bytes | None]] = {}
        """Key -> number of the change and the value; None: deleted."""

    def add(self, changes: Sequence[Change]) -> list[int | None]:
        """Accept one commit whole; return its results, one per change.

        Raises:
            ConflictError: a condition does not hold. The draft is as it was.
        """
        for change in changes:
            self._demand(change)
        return [self._write(change) for change in changes]

    def _demand(self, change: Change) -> None:
        match change:
            case Check(key, wanted):
                self._demand_version(key, wanted)
            case Put(key, _, version) if version is not None:
                self._demand_version(key, version)
            case CheckEmpty(prefix):
                if present := self._present(prefix):
                    raise ConflictError(prefix, f"{prefix} is not empty: there is {present[0]}")
            case Increment(key) | Append(key):
                self._number(key)  # damaged or not a number: find out before anything is kept
            case _:
                pass

    def _demand_version(self, key: str, wanted: int | None) -> None:
        found = self._version(key)
        if wanted == PRESENT and found is not None:
            return
        if found != wanted:
            raise ConflictError(key, _difference(key, wanted, found))

    def _write(self, change: Change) -> int | None:
        match change:
            case Put(key, value):
                return self._set(key, value)
            case Delete(key):
                self._remove(key)
            case DeleteAll(prefix):
                for key in self._present(prefix):
                    self._remove(key)
            case Increment(key, by):
                number = self._number(key) + by
                self._set(key, b"%d" % number)
                return number
            case Append(counter, prefix, value):
                number = self._number(counter) + 1
                self._set(counter, b"%d" % number)
                self._set(numbered(prefix, number), value)
                return number
            case Check() | CheckEmpty():
                pass
        return None

    def _set(self, key: str, value: bytes) -> int:
        self.last_change += 1
        self.writes[key] = (self.last_change, value)
        return self.last_change

    def _remove(self, key: str) -> None:
        if self._version(key) is not None:
            self.last_change += 1
            self.writes[key] = (self.last_change, None)

    def _find(self, key: str) -> Versioned | None:
        if key in self.writes:
            version, value = self.writes[key]
            return None if value is None else Versioned(value, version)
        return self._read(key)

    def _version(self, key: str) -> int | None:
        found = self._find(key)
        return None if found is None else found.version

    def _number(self, key: str) -> int:
        found = self._find(key)
        if found is None:
            return 0
        try:
            return int(found.value)
        except ValueError:
            raise CorruptMetadataError(f"{key} is no counter: it holds {found.value!r}") from None

    def _present(self, prefix: str) -> list[str]:
        """Return the keys under a prefix, as the draft would leave them."""
        stored = (key for key in self._keys(prefix) if key not in self.writes)
        drafted = (
            key
            for key, (_, value) in self.writes.items()
            if value is not None and key.startswith(prefix)
        )
        return [*stored, *drafted]


def _difference(key: str, wanted: int | None, found: int | None) -> str:
    if wanted is None:
        return f"{key} exists already"
    if found is None:
        return f"{key} does not exist"
    return f"{key} was changed in the meantime: version {found}, expected {wanted}"

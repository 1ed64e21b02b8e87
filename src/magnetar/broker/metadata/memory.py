"""The store in memory: for tests, and for whoever wants to forget. Same rules, no disk."""

from collections.abc import Callable, Sequence

from magnetar.broker.metadata.draft import Draft
from magnetar.broker.metadata.store import (
    Change,
    StoreUnavailableError,
    Versioned,
    Watcher,
    check_change,
    check_prefix,
)
from magnetar.broker.metadata.watchers import Watchers


class MemoryStore:
    """A `Store` that lasts as long as its process."""

    def __init__(self) -> None:
        self._values: dict[str, Versioned] = {}
        self._last_change = 0
        self._watchers = Watchers()
        self._closed = False

    async def get(self, key: str) -> Versioned | None:
        """Return what lies under a key; None: nothing."""
        self._demand_open()
        return self._values.get(key)

    async def scan(self, prefix: str) -> list[tuple[str, Versioned]]:
        """Return everything under a prefix, sorted by key."""
        self._demand_open()
        return [(key, self._values[key]) for key in self._keys(prefix)]

    async def keys(self, prefix: str) -> list[str]:
        """Return the keys under a prefix, sorted."""
        self._demand_open()
        return self._keys(prefix)

    async def commit(self, changes: Sequence[Change]) -> list[int | None]:
        """Make all changes or none."""
        self._demand_open()
        for change in changes:
            check_change(change)
        draft = Draft(self._values.get, self._keys, self._last_change)
        results = draft.add(changes)
        self._last_change = draft.last_change
        for key, (version, value) in draft.writes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = Versioned(value, version)
        self._watchers.tell(draft.writes)
        return results

    def watch(self, prefix: str, callback: Watcher) -> Callable[[], None]:
        """Call back after each change under a prefix; return how to stop that."""
        return self._watchers.add(prefix, callback)

    def nudge(self) -> None:
        """Do nothing: no other process sees this store."""

    async def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def _keys(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        return sorted(key for key in self._values if key.startswith(prefix))

    def _demand_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the metadata store is closed")

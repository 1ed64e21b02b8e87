"""Who wants to know about which keys. A watcher that fails is logged and stays registered."""

import logging
from collections.abc import Callable, Iterable

from magnetar.broker.metadata.store import Watcher, check_prefix

logger = logging.getLogger(__name__)


class Watchers:
    """Callbacks by prefix. Belongs to the event loop."""

    def __init__(self) -> None:
        self._watchers: dict[int, tuple[str, Watcher]] = {}
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def add(self, prefix: str, callback: Watcher) -> Callable[[], None]:
        """Tell `callback` about keys under `prefix`; return how to stop that."""
        number = self._next
        self._next += 1
        self._watchers[number] = (check_prefix(prefix), callback)

        def stop() -> None:
            self._watchers.pop(number, None)

        return stop

    def tell(self, keys: Iterable[str]) -> None:
        """Tell each watcher which of its keys may have changed."""
        if not self._watchers:
            return
        changed = sorted(set(keys))
        for prefix, callback in list(self._watchers.values()):
            if mine := [key for key in changed if key.startswith(prefix)]:
                try:
                    callback(mine)
                except (
                    Exception
                ):  # one watcher must not keep the others, or a commit, from going on
                    logger.exception("a watcher of %s failed", prefix or "everything")

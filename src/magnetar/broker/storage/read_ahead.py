"""How much a read from an entry log brings: more and more in a sequence, one block at random.

    entry asked for ─▶ at the start of an extent      the window a sequence begins with
                    ├▶ where an earlier read ended    twice the window of that one
                    └▶ anywhere else                  its block, and no other

    [ first ......... trigger, last ][ next ]    when `trigger` is used, `next` may be read on

A window is counted in entries behind the one asked for, and one read is at most `READ_BYTES`,
less where so many sequences are under way that the cache would not have room for what all of
them read ahead. So does Linux's read-ahead. Delayed entries come due in any order, and a search
halves its way through a ledger; for those, blocks behind would only push others out.
"""

from collections import OrderedDict

from magnetar.broker.config import MIB
from magnetar.broker.storage.read_cache import Key
from magnetar.broker.storage.segment import BlockIndex

READ_BYTES = 1 * MIB
"""How much one read brings at most, unless a single block is larger."""
SEQUENCES_MAX = 256
"""Sequences that are remembered; what was used longest ago is forgotten first."""
CACHE_SHARE = 8
"""One read ahead is at most this part of the read cache,"""
SEQUENCE_SHARE = 2
"""and all sequences together read ahead at most this part of it."""
WINDOW_MAX = 1 << 20


class ReadAhead:
    """Where sequences would go on, and how far they look ahead by now."""

    def __init__(self) -> None:
        self._windows: OrderedDict[Key, int] = OrderedDict()
        self._triggers: OrderedDict[Key, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def triggers(self) -> int:
        """How many blocks there are whose use lets a sequence read on."""
        return len(self._triggers)

    def plan(self, name: str, index: BlockIndex, first: int, entries: int, cache: int) -> int:
        """Return the last block to read along with `first`.

        `entries` is what a sequence begins with, `cache` how many bytes the read cache has.
        """
        window = self._windows.pop((name, index.offsets[first]), 0)
        if window:
            window = min(window * 2, WINDOW_MAX)
        elif first == 0:
            window = entries
        sequences = SEQUENCE_SHARE * (len(self._windows) + 1)
        bytes_max = min(READ_BYTES, cache // max(CACHE_SHARE, sequences))
        last = first
        end = index.offsets[first] + index.sizes[first]
        wanted = index.firsts[first] + window
        while (
            window
            and last + 1 < len(index.firsts)
            and index.firsts[last] + index.counts[last] <= wanted
            and index.offsets[last + 1] == end
            and end + index.sizes[last + 1] - index.offsets[first] <= bytes_max
        ):
            last += 1
            end += index.sizes[last]
        if last + 1 < len(index.firsts):
            _remember(self._windows, (name, index.offsets[last + 1]), window or entries)
            if last > first:
                _remember(self._triggers, (name, index.offsets[last - 1]), last + 1)
        return last

    def due(self, key: Key) -> int | None:
        """Take note that a block is used; return the block at which its sequence reads on."""
        return self._triggers.pop(key, None)

    def drop_log(self, name: str) -> None:
        """Forget a log that is gone."""
        for remembered in (self._windows, self._triggers):
            for key in [key for key in remembered if key[0] == name]:
                del remembered[key]


def _remember(remembered: OrderedDict[Key, int], key: Key, value: int) -> None:
    remembered[key] = value
    while len(remembered) > SEQUENCES_MAX:
        remembered.popitem(last=False)

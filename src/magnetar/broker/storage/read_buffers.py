"""Pooled memory that blocks are read into.

    take ──▶ filled by one read ──▶ a block in the read cache ──▶ give_back ──▶ free   (taken again)
                                                                      └──▶ lent  (a reader looks)

A fresh large allocation costs more than the copy into it (page faults), so buffers are used
again; but never while anybody can still see the old bytes (see `slab`). Each block has a buffer
of its own: what is left of a large read when most of it is forgotten is what is still used.

Buffers are taken on the threads that read, and given back on the event loop.
"""

import threading
from collections import deque

from magnetar.broker.config import KIB, MIB
from magnetar.broker.storage.slab import Slab, is_unseen

POOLED_BYTES_MIN = 64 * KIB
"""Smaller buffers are made in exactly their size: the allocator has pools of its own for them."""
SIZE_STEP = 32 * KIB
"""Pooled buffers come in multiples of it, so that blocks of similar size share them."""
LARGER_MAX = 1.25
"""A free buffer that is larger than this times what is wanted is left for somebody else."""
FREE_BYTES_MAX = 8 * MIB
"""Kept for the next use; what has been free for longest goes first."""
LENT_MAX = 64
"""Buffers remembered while readers look at them; beyond this they are left to their readers."""


class ReadBuffers:
    """Hands out buffers and takes them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Slab] = []
        self._lent: deque[Slab] = deque(maxlen=LENT_MAX)

    @property
    def free_bytes(self) -> int:
        """Bytes that wait for their next use."""
        with self._lock:
            return sum(slab.size for slab in self._free)

    def take(self, size: int) -> Slab:
        """Return a buffer of at least `size` bytes, with old bytes in it."""
        if size < POOLED_BYTES_MIN:
            return Slab(size)
        with self._lock:
            for at in range(len(self._free) - 1, -1, -1):
                if size <= self._free[at].size <= size * LARGER_MAX:
                    return self._free.pop(at)
        return Slab(-(-size // SIZE_STEP) * SIZE_STEP)

    def give_back(self, slab: Slab) -> None:
        """Take back what nobody will write to any more; readers may still look at it."""
        if slab.size < POOLED_BYTES_MIN:
            return
        for _ in range(len(self._lent)):
            lent = self._lent.popleft()
            if is_unseen(lent):
                self._keep(lent)
            else:
                self._lent.append(lent)
        if is_unseen(slab):
            self._keep(slab)
        else:
            self._lent.append(slab)

    def clear(self) -> None:
        """Give all that is free back to the allocator."""
        with self._lock:
            self._free.clear()
        self._lent.clear()

    def _keep(self, slab: Slab) -> None:
        with self._lock:
            self._free.append(slab)
            left = sum(each.size for each in self._free)
            while left > FREE_BYTES_MAX:
                left -= self._free.pop(0).size

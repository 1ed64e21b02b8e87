"""Slabs: pooled memory that is write buffer and write cache in one.

    taken ──▶ filled with records ──▶ flushed ──▶ given back ──▶ free   (taken again)
                                                     └──▶ lent          (a reader still looks)

A fresh large allocation costs more than the copy into it (page faults), so slabs are used
again; but never while anybody can still see the old bytes. Python knows who can: a
bytearray with views on it refuses to be resized. A slab that refuses waits among the lent
ones until its last reader is gone.
"""

from collections import deque
from collections.abc import Sequence

SLAB_BYTES = 2 << 20
SLABS_FREE_MIN = 4
"""Slabs that may always be kept for the next use."""
SLABS_PER_SPARE = 4
"""One slab more is kept for so many in use."""
SLABS_LENT_MAX = 32
"""Slabs remembered while readers look at them; beyond this they are left to their readers."""


class Slab:
    """A piece of memory and how much of it is used."""

    __slots__ = ("memory", "size", "used", "view")

    def __init__(self, size: int) -> None:
        self.memory = bytearray(size)
        self.view = memoryview(self.memory)
        self.size = size
        self.used = 0


class SlabPool:
    """Hands out slabs and takes them back."""

    def __init__(self, slab_bytes: int = SLAB_BYTES) -> None:
        self.slab_bytes = slab_bytes
        self._free_max = SLABS_FREE_MIN
        self._free: list[Slab] = []
        self._lent: deque[Slab] = deque(maxlen=SLABS_LENT_MAX)

    def take(self, size: int) -> Slab:
        """Return a slab of at least `size` bytes, with old bytes in it: overwrite what you use."""
        if size > self.slab_bytes:
            return Slab(size)
        if not self._free:
            self._collect()
        return self._free.pop() if self._free else Slab(self.slab_bytes)

    def give_back(self, slabs: Sequence[Slab]) -> None:
        """Take back what nobody will write to any more; readers may still look at it.

        As many slabs are kept as one generation has just used, and some more because the next
        one may take longer: so a busy broker allocates nothing, and a quiet one soon gives its
        memory back.
        """
        self._free_max = max(SLABS_FREE_MIN, len(slabs) + len(slabs) // SLABS_PER_SPARE)
        del self._free[self._free_max :]
        for slab in slabs:
            if slab.size == self.slab_bytes and not self._reuse(slab):
                self._lent.append(slab)

    def _collect(self) -> None:
        """Take back lent slabs whose readers are gone."""
        for _ in range(len(self._lent)):
            slab = self._lent.popleft()
            if not self._reuse(slab):
                self._lent.append(slab)

    def _reuse(self, slab: Slab) -> bool:
        if not is_unseen(slab):
            return False
        if len(self._free) < self._free_max:
            slab.used = 0
            self._free.append(slab)
        return True


def is_unseen(slab: Slab) -> bool:
    """Tell whether nobody but the slab itself can see its memory."""
    slab.view.release()
    try:
        # Either step is a BufferError while a view exists; neither moves the memory.
        slab.memory.append(slab.memory.pop())
    except BufferError:
        return False
    finally:
        slab.view = memoryview(slab.memory)
    return True

"""Receive memory of all connections of a door.

    nothing partial            the one shared buffer, by all connections in turn
    a small partial frame      kept aside in exactly its bytes, put back before the next read
    a large partial frame      an own buffer: a pooled arena while there are some, else a fresh
                               one of the frame's size, whose pages cost nothing before they fill

A read is one call of `recv_into` between `get_buffer` and `buffer_updated`, and what a publish
needs of it is copied before the latter returns. So one buffer serves every connection, and an
idle connection costs no receive memory at all. A fresh large buffer is an anonymous mapping,
because `bytearray` writes zeros into all of it at once: a peer that only claims to send 5 MiB
would cost 5 MiB.
"""

import mmap

from magnetar.broker.config import KIB, MIB

SHARED_BYTES = 256 * KIB
"""What one read takes at most. At 1 KiB entries 64 KiB and 1 MiB both cost more CPU, and 1 MiB
of small entries keeps the event loop busy for tens of milliseconds."""

SMALL_FRAME_BYTES_MAX = 16 * KIB
"""Partial frames up to this size are kept aside; larger ones get their own buffer."""

ARENA_BYTES = 1 * MIB
ARENAS_MAX = 32
"""Arenas kept and reused: they stay resident. More busy connections get fresh buffers."""

LARGE_KEPT_MAX = 2
"""Buffers for larger frames that are kept for the next one: writing into fresh pages costs
more than the copy out of them."""

OWN_BYTES_MAX = 256 * MIB
"""All own buffers together. Whoever needs one beyond that is turned away, and comes again."""


class OutOfBuffersError(Exception):
    """Too many connections are in the middle of large frames. This one has to go."""


class Buffers:
    """Hands out receive buffers within a budget."""

    def __init__(self, own_bytes_max: int = OWN_BYTES_MAX) -> None:
        self.shared = memoryview(bytearray(SHARED_BYTES))
        self.own_bytes = 0
        self._own_bytes_max = own_bytes_max
        self._free: list[memoryview] = []
        self._arenas = 0
        self._large: list[memoryview] = []

    def take(self, size: int) -> memoryview:
        """Return a buffer of at least `size` bytes, for one connection alone.

        Raises:
            OutOfBuffersError: the budget is used up.
        """
        if size <= ARENA_BYTES:
            if not self._free and self._arenas < ARENAS_MAX:
                self._arenas += 1
                self._free.append(memoryview(bytearray(ARENA_BYTES)))
            if self._free:
                self._reserve(ARENA_BYTES)
                return self._free.pop()
        for position, kept in enumerate(self._large):
            if len(kept) >= size > ARENA_BYTES:
                self._reserve(len(kept))
                return self._large.pop(position)
        self._reserve(size)
        return memoryview(mmap.mmap(-1, size))

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back; its owner must not touch it again."""
        self.own_bytes -= len(buffer)
        if isinstance(buffer.obj, bytearray):
            self._free.append(buffer)
        elif len(buffer) > ARENA_BYTES and len(self._large) < LARGE_KEPT_MAX:
            self._large.append(buffer)

    def _reserve(self, size: int) -> None:
        if self.own_bytes + size > self._own_bytes_max:
            raise OutOfBuffersError(
                f"{self.own_bytes} bytes of receive buffers in use, the limit is"
                f" {self._own_bytes_max}"
            )
        self.own_bytes += size

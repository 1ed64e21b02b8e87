"""The threads of storage: what touches the disk runs there, not on the event loop.

One writes, so that flush, reclaim and recovery never meet; a few read.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

READ_THREADS = 2

T = TypeVar("T")


class Pools(NamedTuple):
    """Where blocking calls run while the loop goes on."""

    loop: AbstractEventLoop
    reads: Executor
    writes: Executor

    @classmethod
    def threads(cls, loop: AbstractEventLoop) -> "Pools":
        """Return pools of threads, which start when there is work."""
        return cls(loop, ThreadPoolExecutor(READ_THREADS, "read"), ThreadPoolExecutor(1, "flush"))

    async def read(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function that reads, and return what it returns."""
        return await self.loop.run_in_executor(self.reads, function, *arguments)

    async def write(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function that writes, after those before it; return what it returns."""
        return await self.loop.run_in_executor(self.writes, function, *arguments)

    def shutdown(self) -> None:
        """Wait for what runs, and end the threads."""
        self.reads.shutdown()
        self.writes.shutdown()

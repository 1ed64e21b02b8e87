"""The flush: a generation of the write cache becomes one entry log. Runs on a pool thread."""

from collections.abc import Callable, Sequence
from time import sleep

from magnetar.broker.storage.block import Block, summarise
from magnetar.broker.storage.cache import Generation
from magnetar.broker.storage.pages import BLOCKS_PER_SLICE
from magnetar.broker.storage.segment import LogFolder, LogWriter, Table

PAUSE_S = 0.0001
"""Python runs one thread at a time, and gives the event loop its turn only after 5 ms unless
this thread sleeps. Receipts must not wait for a flush."""


def write_generation(logs: LogFolder, generation: Generation) -> Table | None:
    """Write everything a generation holds to one durable entry log; None if it holds nothing.

    Every record of it must be durable. Nothing is left behind when it fails.
    """
    if not generation.tails:
        return None
    writer = LogWriter(logs)
    try:
        for _ in writer.add_generation(generation):
            sleep(PAUSE_S)
        return writer.finish()
    except OSError:
        writer.give_up()
        raise


class CopiedBlock:
    """A block on its way from one entry log to another."""

    __slots__ = ("block", "body_crc", "ledger")

    def __init__(self, ledger: int, block: Block, body_crc: int | None) -> None:
        self.ledger = ledger
        self.block = block
        self.body_crc = body_crc
        """Set for a damaged block, which must stay visibly damaged."""


def write_blocks(logs: LogFolder, blocks: Sequence[Callable[[], CopiedBlock]]) -> Table:
    """Write blocks, sorted by ledger and entry, to one durable entry log.

    Each is read when its turn comes, so that only one is in memory.
    """
    writer = LogWriter(logs)
    try:
        for number, read in enumerate(blocks, 1):
            copied = read()
            if number % BLOCKS_PER_SLICE == 0:
                sleep(PAUSE_S)
            run = copied.block.run
            writer.add_block(
                copied.ledger,
                run.rows,
                [run.buffer],
                summarise(run, copied.block.first_entry),
                copied.body_crc,
            )
        return writer.finish()
    except OSError:
        writer.give_up()
        raise

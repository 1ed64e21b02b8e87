"""The flush: a generation of the write cache becomes one entry log. Runs on a pool thread."""

from collections.abc import Callable, Sequence

from magnetar.broker.storage.block import Block, drafts, summarise
from magnetar.broker.storage.cache import Generation
from magnetar.broker.storage.segment import LogFolder, LogWriter, Table


def write_generation(logs: LogFolder, generation: Generation) -> Table | None:
    """Write everything a generation holds to one durable entry log; None if it holds nothing.

    Every record of it must be durable. Nothing is left behind when it fails.
    """
    if not generation.tails:
        return None
    writer = LogWriter(logs)
    try:
        for ledger in sorted(generation.tails):
            for draft in drafts(generation, generation.tails[ledger]):
                writer.add_block(ledger, draft.rows, draft.bodies, draft.summary)
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
        for read in blocks:
            copied = read()
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

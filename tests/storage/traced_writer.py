"""A small broker's storage at work, to be run under a tracer: publishes, and says what is safe.

python traced_writer.py DATA MESSAGES        prints `ACK <n>` when messages up to n are durable
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from crc32c import crc32c

from magnetar.broker.clock import SystemClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.chains import Chain
from magnetar.broker.metadata.sqlite import SqliteStore
from magnetar.broker.metadata.store import Put
from magnetar.broker.metrics import Metrics
from magnetar.broker.run import ROW, Run
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.log import Log
from magnetar.broker.storage.record import Part
from magnetar.names import TopicName

TOPIC = TopicName.parse("persistent://public/default/traced")
METADATA = "metadata.sqlite"
ENTRIES_PER_LEDGER = 12


def config_of(data: Path) -> BrokerConfig:
    return BrokerConfig(
        data=data, ledger_entries_max=ENTRIES_PER_LEDGER, journal_file_bytes=1 << 20
    )


def body_of(number: int) -> bytes:
    return b"message %06d " % number * (1 + number % 60)


async def main(data: Path, messages: int) -> None:
    files = DiskFiles()
    config = config_of(data)
    loop = asyncio.get_running_loop()
    store = await SqliteStore.open(data / METADATA, files, poll_interval_s=None)
    if await store.get(paths.topic(TOPIC)) is None:
        await store.commit([Put(paths.topic(TOPIC), b"{}")])
    ledgers = Ledgers(config, files, SystemClock(), Metrics(), loop)
    chain = Chain(store, TOPIC)
    ends = {record.ledger: record.end_entry for record in await chain.load()}
    await ledgers.recover([0], recorded_end=ends.get)
    log = Log(ledgers, chain, config, SystemClock())
    await log.load()
    committed = asyncio.Semaphore(0)

    def on_commit(tokens: Sequence[object], error: StorageError | None) -> None:
        assert error is None, error
        for token in tokens:
            assert isinstance(token, tuple)
            log.committed(token[0], token[1])
            os.write(1, b"ACK %d\n" % token[2])
            committed.release()

    ledgers.on_commit = on_commit
    number = 0
    while number < messages:
        if not log.ready:
            await log.open()
        count = min(1 + number % 3, messages - number)
        bodies = [body_of(number + at) for at in range(count)]
        rows, buffer = bytearray(), b"".join(bodies)
        offset = 0
        for body in bodies:
            rows += ROW.pack(
                offset, len(body), crc32c(body), 1, 0, 0, 0, 0, number, number, 1, 0, 0, 0
            )
            offset += len(body)
        run = Run(rows, buffer)
        log.next_index = run.stamp(log.next_index, 1)
        ledger, first = log.reserve(count)
        log.wrote(count, len(buffer), 1, 1)
        number += count
        part = Part(ledger, first, 0, count, "writer")
        ledgers.append(run, [part], (ledger, first + count, number))
        await committed.acquire()
        if number % 20 == 0:
            await ledgers.flush()
    await log.close()
    await ledgers.stop()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

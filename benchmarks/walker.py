"""Nanoseconds of the Pulsar codec: per SEND walked, per receipt and per MESSAGE encoded.

`python -m benchmarks.walker` prints one line per case. The best of many turns counts: what
is asked is what the code costs, not what else the machine is doing. "checksum alone" is the
part that plain Python cannot save: one CRC32-C over the same bodies, called once per entry.
`MAGNETAR_PURE=1` measures plain Python where the compiled kernel would run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from crc32c import crc32c

from magnetar.broker import compiled
from magnetar.broker.entry import EntryId
from magnetar.broker.port import Group, Selection
from magnetar.broker.run import HIGHEST_SEQUENCE_ID, SEQUENCE_ID, Run
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.codec import encode_messages, encode_receipts, walk
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

READ_BYTES = 256 * 1024
"""As much as one socket read brings when a client is in a hurry."""
TURNS = 100
NOW_MS = 1_763_880_000_000
PRODUCER_ID = 3


def best_ns(work: Callable[[], object], pieces: int) -> float:
    """Return the fewest nanoseconds per piece that `work` took in any turn."""
    best = float("inf")
    for _ in range(TURNS):
        start = time.perf_counter_ns()
        work()
        best = min(best, time.perf_counter_ns() - start)
    return best / pieces


def plain(count: int, size_bytes: int) -> bytes:
    """Return one read of SENDs that hold one message each."""
    return client_role.sends(
        PRODUCER_ID,
        100_000,
        count,
        bytes(size_bytes),
        producer_name="standalone-0-12",
        publish_time_ms=NOW_MS,
    )


def batches(count: int, size_bytes: int) -> bytes:
    """Return one read of SENDs that hold compressed batches of 100 messages, with a key."""
    return b"".join(
        client_role.send(
            PRODUCER_ID,
            api.MessageMetadata(
                producer_name="standalone-0-12",
                sequence_id=100_000 + 100 * number,
                publish_time=NOW_MS + number // 50,
                partition_key=f"sensor-{number % 50}",
                compression=api.LZ4,
                uncompressed_size=10 * size_bytes,
                num_messages_in_batch=100,
            ),
            bytes(size_bytes),
            highest_sequence_id=100_099 + 100 * number,
        )
        for number in range(count)
    )


def cases() -> Iterator[tuple[str, float, str]]:
    """Measure everything; yield what it is, nanoseconds and per what."""
    for label, make, size_bytes in (
        ("100 B", plain, 100),
        ("1 KiB", plain, 1024),
        ("128 KiB", plain, 128 * 1024),
        ("1 KiB batches", batches, 1024),
    ):
        count = max(READ_BYTES // (size_bytes + 60), 8)
        buffer = memoryview(bytearray(make(count, size_bytes)))
        run = _walked(buffer, count)
        yield f"walk {label}", best_ns(partial(_walked, buffer, count), count), "SEND"
        bodies = [run.body(row) for row in range(run.count)]
        yield f"  checksum alone, {label}", best_ns(partial(_checksums, bodies), count), "body"
    yield from _receipts()
    for label, size_bytes in (("100 B", 100), ("1 KiB", 1024), ("128 KiB", 128 * 1024)):
        count = max(READ_BYTES // (size_bytes + 60), 8)
        run = _walked(memoryview(plain(count, size_bytes)), count)
        chosen = Selection(12_345, 99_990, range(count))
        work = partial(encode_messages, 7, -1, run, chosen)
        yield f"encode {label}", best_ns(work, count), "MESSAGE"
    ids = [EntryId(1234, number) for number in range(2000)]
    acks = b"".join(client_role.ack(7, [each]) for each in ids)
    yield "walk single ids", best_ns(lambda: walk(memoryview(acks), 0, len(acks), {}), 2000), "ACK"
    groups = b"".join(client_role.ack(7, ids[at : at + 50]) for at in range(0, len(ids), 50))
    walking = partial(walk, memoryview(groups), 0, len(groups), {})
    yield "walk groups of ids", best_ns(walking, len(ids)), "id"


def _receipts() -> Iterator[tuple[str, float, str]]:
    count = 256
    producer_ids = [PRODUCER_ID]
    consecutive = _walked(memoryview(bytearray(plain(count, 100))), count)
    all_of_it = [Group(0, 0, count, 12_345, 999_900)]
    yield (
        "encode, one stretch",
        best_ns(lambda: encode_receipts(producer_ids, consecutive, all_of_it), count),
        "receipt",
    )
    apart = [Group(0, row, 1, 12_345, 999_900 + row) for row in range(count)]
    yield (
        "encode, groups of one",
        best_ns(lambda: encode_receipts(producer_ids, consecutive, apart), count),
        "receipt",
    )
    batched = _walked(memoryview(bytearray(batches(count, 100))), count)
    assert list(batched.i64(SEQUENCE_ID)) != list(batched.i64(HIGHEST_SEQUENCE_ID))
    yield (
        "encode, batches",
        best_ns(lambda: encode_receipts(producer_ids, batched, all_of_it), count),
        "receipt",
    )


def _checksums(bodies: Sequence[memoryview]) -> None:
    for body in bodies:
        crc32c(body)


def _walked(buffer: memoryview, count: int) -> Run:
    run = walk(buffer, 0, len(buffer), {PRODUCER_ID: 0}).run
    assert run is not None
    assert run.count == count
    return run


def main() -> None:
    """Measure and print."""
    print(compiled.described())
    for name, nanoseconds, piece in cases():
        print(f"{name:32}{nanoseconds:10.0f} ns per {piece}")


if __name__ == "__main__":
    main()

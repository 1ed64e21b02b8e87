"""Damage on the disk is noticed, named exactly, and never served; the rest stays readable."""

import os
from random import Random

import pytest

from magnetar.broker.storage import block as block_format
from magnetar.broker.storage import record as record_format
from magnetar.broker.storage.errors import LedgerNotFoundError, QuarantinedError
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, Rig, body_of

INJECTIONS = int(os.environ.get("TESTS_DAMAGES", "1200"))
SEEDS = 6
LEDGERS = (1, 2, 3)


async def filled(seed: int, *, flushed: bool) -> SimulatedDisk:
    """Return a disk with three ledgers, in entry logs or in the journal, nothing in between."""
    random = Random(seed)
    disk = SimulatedDisk()
    rig = Rig(disk)
    await rig.recover()
    rig.create(*LEDGERS)
    for _ in range(12):
        for _ in range(2):
            rig.append(*((ledger, random.randint(1, 12)) for ledger in LEDGERS))
        await rig.settle()
    rig.ledgers._committer._journal.mark()  # type: ignore[union-attr]  # as after a pause
    if flushed:
        await rig.ledgers.flush()
    rig.abandon()
    disk.ends = dict(rig.appended)  # type: ignore[attr-defined]
    return disk


def damage(disk: SimulatedDisk, random: Random, folder: str) -> str:
    """Damage one file below a folder; say how."""
    names = sorted(n for n in disk.names if n.startswith(f"{DATA}/{folder}/") and "spare" not in n)
    name = random.choice(names)
    content = bytearray(disk.names[name].data)
    used = len(content.rstrip(b"\0"))
    kind = random.choice(("flip", "flips", "zeroed page", "truncated", "swapped", "stale"))
    at = random.randrange(used)
    if kind == "flip":
        content[at] ^= 1 << random.randrange(8)
    elif kind == "flips":
        for _ in range(8):
            content[random.randrange(used)] ^= 1 << random.randrange(8)
    elif kind == "zeroed page":
        start = at - at % 512
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    elif kind == "truncated":
        del content[at:]
    else:
        one, two = (random.randrange(max(used // 512, 1)) * 512 for _ in range(2))
        piece = content[one : one + 512]
        if kind == "swapped":
            content[one : one + 512] = content[two : two + 512].ljust(len(piece), b"\0")
        content[two : two + 512] = piece.ljust(len(content[two : two + 512]), b"\0")
    disk.replace(name, content)
    return f"{kind} at {at} of {used} in {name}"


async def serve_everything(rig: Rig, ends: dict[int, int]) -> int:
    """Read all ledgers past all damage; return how many entries were not served."""
    missing, exact = 0, True
    for ledger, end in ends.items():
        entry = 0
        while entry < end:
            try:
                run = await rig.ledgers.read(ledger, entry, end - entry, 1 << 20)
            except QuarantinedError as error:
                exact &= error.first == entry
                missing += min(error.last, end - 1) - entry + 1
                entry = error.last + 1
            except LedgerNotFoundError:
                missing += end - entry
                break
            else:
                for row in range(run.count):
                    assert bytes(run.body(row)) == body_of(ledger, entry + row)
                    assert run.i64(8)[row] >= 0
                entry += run.count
    assert exact
    return missing


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("folder", ["entries", "journal"])
async def test_no_damage_makes_wrong_bytes_be_served(seed: int, folder: str) -> None:
    whole = await filled(seed, flushed=folder == "entries")
    ends: dict[int, int] = whole.ends  # type: ignore[attr-defined]
    random = Random(seed)
    for number in range(INJECTIONS // SEEDS // 2):
        disk = whole.clone()
        before = set(disk.names)
        what = damage(disk, random, folder)
        rig = Rig(disk)
        try:
            await rig.recover()
            missing = await serve_everything(rig, ends)
            reported = sum(
                gap.last.entry - gap.first.entry + 1 for gap in rig.ledgers.stored.quarantined()
            )
            if missing:
                assert rig.ledgers.stored.quarantine.reports(), "a loss that nobody reports"
            assert reported <= sum(ends.values())
            # A file may have moved to the quarantine, but no bytes are gone.
            for name in before:
                kept = name in disk.names or any(
                    other.startswith(f"{DATA}/quarantine/{name.rsplit('/')[-1]}")
                    for other in disk.names
                )
                assert kept, f"{name} is gone"
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, damage {number}: {what}: {error}") from error
        finally:
            rig.abandon()


async def test_one_damaged_body_costs_one_entry() -> None:
    disk = await filled(7, flushed=True)
    ends: dict[int, int] = disk.ends  # type: ignore[attr-defined]
    name = next(n for n in disk.names if n.startswith(f"{DATA}/entries/"))
    content = bytearray(disk.names[name].data)
    at = content.index(body_of(2, 30))
    content[at + 2] ^= 4
    disk.replace(name, content)
    rig = Rig(disk)
    await rig.recover()
    assert await serve_everything(rig, ends) == 1
    (gap,) = rig.ledgers.stored.quarantined()
    assert (gap.first, gap.last) == ((2, 30), (2, 30))
    assert await rig.check(1) == ends[1]
    assert await rig.check(3) == ends[3]


async def test_one_damaged_body_in_the_journal_costs_one_entry() -> None:
    disk = await filled(8, flushed=False)
    ends: dict[int, int] = disk.ends  # type: ignore[attr-defined]
    needle = body_of(1, 20)
    name = next(n for n in disk.names if needle in disk.names[n].data)
    content = bytearray(disk.names[name].data)
    content[content.index(needle) + 1] ^= 32
    disk.replace(name, content)
    rig = Rig(disk)
    recovered = await rig.recover()
    assert [(gap.first, gap.last) for gap in recovered.gaps] == [((1, 20), (1, 20))]
    assert await serve_everything(rig, ends) == 1
    await rig.ledgers.flush()
    again = Rig(disk)
    await again.recover()
    assert [(gap.first, gap.last) for gap in again.ledgers.stored.quarantined()] == [
        ((1, 20), (1, 20))
    ]


async def test_unknown_files_go_to_quarantine_and_are_not_deleted() -> None:
    disk = await filled(9, flushed=True)
    for stranger in ("entries/notes.txt", "journal/0/core.1234"):
        disk.make_dir((DATA / stranger).parent)
        file = disk.open(DATA / stranger, create=True)
        file.pwritev([b"precious"], 0)
    rig = Rig(disk)
    await rig.recover()
    for stranger in ("notes.txt", "core.1234"):
        assert disk.read(DATA / "quarantine" / stranger) == b"precious"
    assert {report.name for report in rig.ledgers.stored.quarantine.reports()} == {
        "notes.txt",
        "core.1234",
    }


async def test_a_body_that_looks_like_a_record_is_not_taken_for_one() -> None:
    """Behind damage the next record is searched for; what a producer wrote must not be found."""
    disk = SimulatedDisk()
    rig = Rig(disk)
    await rig.recover()
    rig.create(1, 2)
    rig.append((1, 4))
    await rig.settle()
    name = next(n for n in disk.names if n.endswith(".journal"))
    forged = bytes(disk.names[name].data[:4096])
    assert record_format.MAGIC_BYTES in forged
    header = record_format.parse_header(forged, record_format.HEADER_SIZE)
    assert header is not None
    fake = bytearray(forged[record_format.HEADER_SIZE : record_format.HEADER_SIZE + header.size])
    record_format.finish(
        memoryview(fake), 2, header.file, 77, header.number + 1, header.number,
        header.parts, header.directory, header.rows, header.base, header.body,
    )  # fmt: skip
    from magnetar.broker.storage.record import Part
    from tests.storage.rig import run_of

    for shift in range(8):
        body = b"\0" * shift + bytes(fake)
        rig.ledgers.append(run_of([body]), [Part(2, shift, 0, 1, "forger")], None)
    await rig.settle()
    rig.abandon()
    content = bytearray(disk.names[name].data)
    second = record_format.HEADER_SIZE + header.size
    content[second + 20 : second + 60] = b"\xee" * 40
    disk.replace(name, content)
    after = Rig(disk)
    await after.recover()
    assert await after.check(1) == 4
    assert after.ledgers.durable_end(1) == 4


# --- negative controls -----------------------------------------------------------------


@pytest.mark.parametrize("folder", ["entries", "journal"])
async def test_without_checksums_wrong_bytes_are_seen(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await filled(3, flushed=folder == "entries")
    ends: dict[int, int] = whole.ends  # type: ignore[attr-defined]
    for module in (block_format, record_format):
        monkeypatch.setattr(module, "head_is_valid", lambda header, data: True)
    monkeypatch.setattr(record_format, "body_is_valid", lambda header, data: True)
    monkeypatch.setattr(block_format, "body_matches", lambda header, data: True)
    random = Random(3)
    seen = 0
    for _ in range(60):
        disk = whole.clone()
        damage(disk, random, folder)
        rig = Rig(disk)
        try:
            await rig.recover()
            await serve_everything(rig, ends)
        except (AssertionError, UnicodeDecodeError, IndexError, ValueError, OverflowError):
            seen += 1
        finally:
            rig.abandon()
    assert seen > 3


async def test_a_journal_file_that_was_cut_off_is_reported() -> None:
    disk = await filled(2, flushed=False)
    *_, last = sorted(name for name in disk.names if name.endswith(".journal"))
    disk.replace(last, disk.names[last].data[:2000])
    rig = Rig(disk)
    await rig.recover()
    reasons = [report.reason for report in rig.ledgers.stored.quarantine.reports()]
    assert any("bytes shorter than it was" in reason for reason in reasons)
    assert await serve_everything(rig, disk.ends) > 0  # type: ignore[attr-defined]


async def test_a_journal_file_of_which_nothing_counts_is_kept() -> None:
    """All its heads are damaged, so that nothing tells what was in it: people may want to look."""
    disk = await filled(2, flushed=False)
    *_, last = sorted(name for name in disk.names if name.endswith(".journal"))
    content = bytearray(disk.names[last].data)
    at = content.find(record_format.MAGIC_BYTES)
    while at >= 0:
        content[at + 5] ^= 255
        at = content.find(record_format.MAGIC_BYTES, at + 1)
    disk.replace(last, content)
    rig = Rig(disk)
    await rig.recover()
    assert disk.read(DATA / "quarantine" / last.rsplit("/")[-1]) == bytes(content)

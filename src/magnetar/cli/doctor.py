"""`magnetar doctor`: is everything in a data folder still readable, and what was put aside?

Reads every byte and checks every checksum; changes nothing, and may run beside a broker.
Exit code 0 only if nothing is wrong now and nothing was ever lost. What the metadata knows
must be there, so that a file which is cut off or gone is noticed; and what is there must
belong to somebody.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from magnetar.broker.files import DiskFiles, Files
from magnetar.broker.metadata.database import read_rows, verify_database
from magnetar.broker.metadata.holdings import FACT_PREFIXES, Facts, facts_of
from magnetar.broker.metadata.store import StoreError
from magnetar.broker.storage import folder as folders
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.folder import FolderError
from magnetar.broker.storage.stock import unowned_text
from magnetar.broker.storage.verify import Verified, verify_folder
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.progress import progress
from magnetar.cli.verb import Asked, LocalVerb, pass_asked
from magnetar.standalone.safety import MARK

INSECURE = "INSECURE    the last broker on it let other machines in with --insecure"


@click.command(cls=LocalVerb)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@pass_asked
def doctor(asked: Asked, folder: Path) -> int:
    """Verify a data folder, checksum by checksum.

    Also lists what is in quarantine: damage that was found before, kept and never deleted.
    Exit code 1 if anything is wrong, or entries were lost.
    """
    files = DiskFiles()
    check_format(folder, files)
    path = folder / "metadata.sqlite"
    with progress("verifying", quiet=asked.json, as_bytes=True) as meter:
        metadata = verify_database(path)
        verified = verify_folder(folder, files, meter.reach, partial(read_facts, path))
    sound = verified.sound and not metadata
    lines = [*lines_of(verified, metadata, sound=sound)]
    insecure = files.exists(folder / "run" / MARK)
    if insecure:
        lines.insert(0, INSECURE)
    asked.show_one(
        as_json(verified, metadata, sound=sound) | {"insecure": insecure}, "\n".join(lines)
    )
    return ExitCode.OK if sound else ExitCode.FAILED


def check_format(folder: Path, files: Files) -> None:
    """Return if this is a data folder that we can read.

    Raises:
        CommandError: it is none, or a newer version wrote it.
    """
    marker = folder / "FORMAT"
    if not files.exists(marker):
        raise CommandError(
            f"{folder} is no data folder", "it has no FORMAT file", ExitCode.NOT_FOUND
        )
    try:
        folders.check_format(folder, files)
    except FolderError as error:
        raise CommandError(str(error)) from None


def read_facts(path: Path) -> Facts | None:
    """Return what the metadata says must be on the disk; None: it cannot be read."""
    try:
        return facts_of(read_rows(path, FACT_PREFIXES))
    except StoreError:
        return None  # `verify_database` says why


def lines_of(verified: Verified, metadata: Sequence[str], *, sound: bool) -> Iterator[str]:
    """Yield what a person reads."""
    yield (f"journal     {verified.journal_entries:,} entries in {verified.journal_files:,} files")
    yield (
        f"entry logs  {verified.entries:,} entries of {verified.ledgers:,} ledgers"
        f" in {verified.entry_logs:,} files"
    )
    yield f"read        {verified.bytes:,} bytes"
    for problem in metadata:
        yield f"WRONG       metadata.sqlite: {problem}"
    for finding in verified.findings:
        yield f"WRONG       {finding.file}: {finding.problem}{_lost(finding.gaps)}"
    if verified.unowned:
        yield f"WRONG       {unowned_text(verified.unowned)}; they are kept, and served to nobody"
    for report in verified.quarantine:
        yield f"quarantine  {report.name}: {report.reason}{_lost(report.gaps)}"
    yield "everything is readable" if sound else "NOT everything is readable"


def _lost(gaps: Sequence[Gap]) -> str:
    ranges = ", ".join(map(str, gaps))
    return f"; lost: {ranges}" if ranges else ""


def as_json(verified: Verified, metadata: Sequence[str], *, sound: bool) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "sound": sound,
        "journal_files": verified.journal_files,
        "journal_entries": verified.journal_entries,
        "entry_logs": verified.entry_logs,
        "entries": verified.entries,
        "ledgers": verified.ledgers,
        "bytes": verified.bytes,
        "metadata": list(metadata),
        "unowned": {str(ledger): entries for ledger, entries in verified.unowned.items()},
        "findings": [
            {"file": each.file, "problem": each.problem, "lost": _ranges(each.gaps)}
            for each in verified.findings
        ],
        "quarantine": [
            {
                "name": each.name,
                "reason": each.reason,
                "from": each.origin,
                "lost": _ranges(each.gaps),
            }
            for each in verified.quarantine
        ],
    }


def _ranges(gaps: Sequence[Gap]) -> list[dict[str, str]]:
    return [{"first": str(gap.first), "last": str(gap.last)} for gap in gaps]

"""The quarantine: damaged or unknown things, kept and named, never removed by us.

    quarantine/<name>          the bytes, moved or copied here
    quarantine/<name>.json     {"what", "why", "gaps": [[ledger, first, last], ...], "from"}

The reports are the memory of what was lost: they are read again at every start.
"""

import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from magnetar.broker.entry import EntryId
from magnetar.broker.files import Files
from magnetar.broker.storage.errors import Gap

logger = logging.getLogger(__name__)

REPORT = ".json"
VOID_REASON = "its sync failed or never ended; nothing of it was acknowledged"
"""Kept for the curious."""
TAIL_REASON = (
    "the end of the journal: cut off by a crash before it was synced and acknowledged,"
    " or damaged soon after"
)
"""Which of the two, nobody can tell: what would say so is written a moment later."""
OF_JOURNAL = "journal-"
"""How the names of pieces of a journal begin."""
LEVELS = {VOID_REASON: logging.INFO, TAIL_REASON: logging.WARNING}
"""How loudly each reason is told; others are errors."""


class Report(NamedTuple):
    """One thing in quarantine."""

    name: str
    reason: str
    origin: str
    gaps: list[Gap]

    @property
    def harmless(self) -> bool:
        """Whether nothing that was stored is missing because of it.

        Which entries lay in a damaged piece of a journal cannot always be told. What lay in an
        entry log the metadata knows, so that a loss has gaps.
        """
        told = self.reason in LEVELS or not self.name.startswith(OF_JOURNAL)
        return told and not self.gaps


class Quarantine:
    """Puts things into the quarantine folder and knows what is there. Safe in any thread."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, Report] | None = None

    def reports(self) -> list[Report]:
        """Return everything in quarantine, by name."""
        with self._lock:
            return list(self._load().values())

    def reload(self) -> None:
        """Look for what other processes have put there."""
        with self._lock:
            self._known = self._read_all()

    def gaps(self) -> list[Gap]:
        """Return every range of entries that was lost, in order, each once."""
        return sorted({gap for report in self.reports() for gap in report.gaps})

    def copy_bytes(self, name: str, data: bytes, gaps: Sequence[Gap], reason: str) -> None:
        """Keep a copy of damaged bytes. Once per name; what could not be kept is logged."""
        with self._lock:
            if name in self._load():
                return
            level = LEVELS.get(reason, logging.ERROR)
            logger.log(level, "quarantine: %s: %s %s", name, reason, _ranges(gaps))
            try:
                self._files.make_dir(self._folder)
                if data:
                    self._files.write_whole(self._folder / name, data)
                self._report(name, reason, name, gaps)
            except OSError:
                # A full or failing disk must not make a readable ledger unreadable.
                logger.exception("quarantine: could not keep %s", name)

    def move(self, path: Path, reason: str, gaps: Sequence[Gap] = ()) -> None:
        """Move a file or folder here."""
        with self._lock:
            known = self._load()
            self._files.make_dir(self._folder)
            name = path.name
            while name in known or self._files.exists(self._folder / name):
                name += "~"
            level = LEVELS.get(reason, logging.ERROR)
            text = "quarantine: %s moved to %s: %s %s"
            logger.log(level, text, path, name, reason, _ranges(gaps))
            # The report comes first: a crash in between leaves the file where it was.
            self._report(name, reason, str(path), gaps)
            self._files.rename(path, self._folder / name)
            self._files.sync_dir(self._folder)
            self._files.sync_dir(path.parent)

    def _report(self, name: str, reason: str, origin: str, gaps: Sequence[Gap]) -> None:
        report: dict[str, Any] = {
            "what": name,
            "why": reason,
            "from": origin,
            "gaps": [[gap.first.ledger, gap.first.entry, gap.last.entry] for gap in gaps],
        }
        data = json.dumps(report, indent=1).encode()
        self._files.write_whole(self._folder / (name + REPORT), data)
        self._load()[name] = Report(name, reason, origin, list(gaps))

    def _load(self) -> dict[str, Report]:
        if self._known is None:
            self._known = self._read_all()
        return self._known

    def _read_all(self) -> dict[str, Report]:
        names = [name for name in self._files.list(self._folder) if name.endswith(REPORT)]
        reports = [_parse(name, self._files.read(self._folder / name)) for name in names]
        return {report.name: report for report in reports}


def _parse(name: str, data: bytes) -> Report:
    stem = name.removesuffix(REPORT)
    try:
        fields = json.loads(data)
        why = str(fields["why"])
        gaps = [
            Gap(EntryId(int(ledger), int(first)), EntryId(int(ledger), int(last)), why)
            for ledger, first, last in fields["gaps"]
        ]
        return Report(stem, why, str(fields["from"]), gaps)
    except (ValueError, KeyError, TypeError):
        return Report(stem, "its report cannot be read", stem, [])


def _ranges(gaps: Sequence[Gap]) -> str:
    return ", ".join(map(str, gaps))

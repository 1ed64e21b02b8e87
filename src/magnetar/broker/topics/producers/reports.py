"""What becomes of the rows of one run, until their door is told.

    Rows of one producer ──▶ a group in a Report ──append──▶ stored ──commit──▶ done(run, groups)
                              │ duplicate of what is on its way: Awaited
                              └ nothing to store: `behind` the report that is on its way

The receipts are made up as if all goes well; `fail` turns one into a refusal.
"""

import logging
from typing import NamedTuple

from magnetar.broker.port import Group, PersistenceError, PortError, PublishDone
from magnetar.broker.run import Run
from magnetar.broker.storage.record import Part
from magnetar.broker.topics.producers.deduplication import Sequences
from magnetar.broker.topics.producers.producer import NOT_STORED, OpenProducer

logger = logging.getLogger(__name__)


class Awaited(NamedTuple):
    """A duplicate that is confirmed only if its first copy became durable."""

    group: int
    sequences: Sequences
    name: str
    highest: int


class Report:
    """What a door is to be told about one run, prepared as if all goes well."""

    __slots__ = (
        "awaited",
        "began_s",
        "behind",
        "counted",
        "done",
        "groups",
        "highest",
        "parts",
        "run",
        "stored",
    )

    def __init__(self, run: Run, done: PublishDone) -> None:
        self.began_s = 0.0
        self.run = run
        self.done = done
        self.groups: list[Group] = []
        self.parts: list[Part] = []
        self.stored: list[int] = []
        """Numbers of the groups that are on their way to the disk."""
        self.highest: dict[int, int] | None = None
        """Highest sequence ids of those of them that are watched for duplicates."""
        self.awaited: list[Awaited] | None = None
        self.counted: list[OpenProducer] = []
        """One entry per group: whose it is."""
        self.behind: list[Report] | None = None
        """Reports that have nothing to store themselves and wait their turn."""

    def fail(self, number: int, error: PortError) -> None:
        """Turn a group that was thought stored into a refused one."""
        group = self.groups[number]
        self.groups[number] = group._replace(ledger=NOT_STORED, first_entry=NOT_STORED, error=error)

    def send(self) -> None:
        """Tell the door, then those that wait behind."""
        for group, sequences, name, highest in self.awaited or ():
            if sequences.durable(name) < highest:
                self.groups[group] = self.groups[group]._replace(
                    error=PersistenceError("the first copy of this message could not be stored")
                )
        try:
            self.done(self.run, self.groups)
        except Exception:  # a door's mistake must not cost other connections their receipts
            logger.exception("a door could not take its receipts")
        for producer in self.counted:
            producer.reported()
        for report in self.behind or ():
            report.send()

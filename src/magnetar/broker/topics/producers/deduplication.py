"""Deduplication: drops what a producer has already sent, by its name and sequence ids.

    sequence ids of one producer name
      ... 3  4  5 │ 6  7  8 │ 9 ...
          durable ┘  pushed ┘
       duplicate     waits    new

Up to `durable` everything is on disk: what comes again is confirmed and not written. Above
that and up to `pushed` it is on its way to the disk: what comes again can be confirmed only
once the first copy is durable, and must be refused if that copy fails. The pieces of a
chunked message share one sequence id, which the last piece makes durable; Pulsar compares only
that one, and keeps the other pieces of a message that comes again, which nobody can ever read.

Names are never forgotten because of silence: a function that comes back after a month
resends from its last checkpoint and relies on what is kept here. The state is saved to
metadata before journal files are recycled; what came after that is read back from the
journal. As in Pulsar's message deduplication, apart from the forgetting.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from magnetar.broker.entry import EntryFlags
from magnetar.broker.run import FLAGS, HIGHEST_SEQUENCE_ID, SEQUENCE_ID, Run
from magnetar.broker.topics.producers.positions import rising

_PIECE = EntryFlags.CHUNK.value
_LAST_PIECE = EntryFlags.LAST_CHUNK.value

NO_SEQUENCE = -1
"""Below every sequence id: nothing is stored under this name."""


class Judgement(Enum):
    """What to do with rows of a producer."""

    NEW = auto()
    """Write them."""
    DUPLICATE = auto()
    """The first copy is durable: confirm, do not write."""
    WAITING = auto()
    """The first copy is on its way: confirm when it is durable."""


class Verdict(NamedTuple):
    """The judgement on neighbouring rows."""

    judgement: Judgement
    first_row: int
    rows: int
    highest: int
    """The highest sequence id that becomes durable, or has to be, with these rows."""


class Sequences:
    """The sequence ids of all producer names of one topic."""

    __slots__ = ("_dirty", "_durable", "_pushed")

    def __init__(self, durable: Mapping[str, int] | None = None) -> None:
        self._durable = dict(durable or {})
        self._pushed = dict(self._durable)
        self._dirty = set[str]()

    def __len__(self) -> int:
        return len(self._durable)

    def durable(self, name: str) -> int:
        """Return the highest durable sequence id of a name, -1 if there is none."""
        return self._durable.get(name, NO_SEQUENCE)

    def judge(self, name: str, run: Run) -> list[Verdict]:
        """Judge rows of one producer, in order, and count the new ones as pushed."""
        highest = rising(run.rows, self._pushed.get(name, NO_SEQUENCE))
        if highest is not None:
            self._pushed[name] = highest
            return [Verdict(Judgement.NEW, 0, run.count, highest)]
        first = run.i64(SEQUENCE_ID).tolist()
        last = run.i64(HIGHEST_SEQUENCE_ID).tolist()
        flags = run.u32(FLAGS).tolist()
        return self._judge_rows(name, first, last, flags)

    def stored(self, name: str, highest: int) -> None:
        """Note that everything of a name up to `highest` is durable."""
        if highest > self._durable.get(name, NO_SEQUENCE):
            self._durable[name] = highest
            self._dirty.add(name)
            if highest > self._pushed.get(name, NO_SEQUENCE):
                self._pushed[name] = highest

    def failed(self, name: str) -> None:
        """Forget what is on its way: it did not become durable and may be sent again."""
        durable = self._durable.get(name)
        if durable is None:
            self._pushed.pop(name, None)
        else:
            self._pushed[name] = durable

    def unsaved(self) -> dict[str, int]:
        """Return the names whose durable sequence id changed since this was last called."""
        changed = {name: self._durable[name] for name in self._dirty}
        self._dirty.clear()
        return changed

    def save_failed(self, names: Mapping[str, int]) -> None:
        """Take back `unsaved`: it could not be saved, so it has to be offered again."""
        self._dirty.update(names)

    def _judge_rows(
        self, name: str, first: list[int], last: list[int], flags: list[int]
    ) -> list[Verdict]:
        durable = self._durable.get(name, NO_SEQUENCE)
        pushed = self._pushed.get(name, NO_SEQUENCE)
        verdicts: list[Verdict] = []
        for row, (sequence_id, last_id, flag) in enumerate(zip(first, last, flags, strict=True)):
            highest = max(last_id, sequence_id)  # a producer may leave the last one 0
            if sequence_id > pushed and flag & _PIECE and not flag & _LAST_PIECE:
                judgement = Judgement.NEW
                highest = NO_SEQUENCE  # not yet a whole message: it makes no sequence id durable
            elif sequence_id > pushed:
                judgement, pushed = Judgement.NEW, highest
            elif sequence_id <= durable:
                judgement = Judgement.DUPLICATE
            else:
                judgement = Judgement.WAITING
            if verdicts and _alike(verdicts[-1], judgement, highest):
                before = verdicts[-1]
                verdicts[-1] = before._replace(
                    rows=before.rows + 1, highest=max(before.highest, highest)
                )
            else:
                verdicts.append(Verdict(judgement, row, 1, highest))
        self._pushed[name] = pushed
        return verdicts


def _alike(verdict: Verdict, judgement: Judgement, highest: int) -> bool:
    """Return whether a row may join a verdict.

    Pieces that complete no message stay apart from rows that do: the journal names the
    producer of a group only if reading the group back may raise its durable sequence id.
    """
    return verdict.judgement is judgement and (verdict.highest == NO_SEQUENCE) == (
        highest == NO_SEQUENCE
    )


def merge(*sources: Mapping[str, int]) -> dict[str, int]:
    """Return the highest sequence id of every name, from checkpoints and journal tails."""
    merged: dict[str, int] = {}
    for source in sources:
        for name, highest in source.items():
            if highest > merged.get(name, NO_SEQUENCE):
                merged[name] = highest
    return merged

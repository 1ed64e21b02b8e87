"""The rows of one producer within a published run: whose they are, and their transactions. Pure."""

from array import array
from collections.abc import Mapping
from typing import NamedTuple

from magnetar.broker.entry import TransactionId
from magnetar.broker.port import PortError
from magnetar.broker.run import TRANSACTION, Run
from magnetar.broker.topics.producers.producer import Numbers, OpenProducer


class Rows(NamedTuple):
    """Rows of one producer within a published run."""

    producer: OpenProducer
    slot: int
    first_row: int
    """Where they start in the run that is reported."""
    run: Run


def transactions_of(run: Run) -> set[TransactionId]:
    """Return the transactions that rows of a published run are in."""
    if run.transactions is None:
        return set()
    return {run.transactions[number - 1] for number in run.u32(TRANSACTION).tolist() if number}


def number_rows(run: Run, numbers: Numbers | None) -> bool:
    """Put the topic's numbers of its transactions into rows; False: some have to join first."""
    column = run.u32(TRANSACTION)
    places: list[int] = column.tolist()
    used = set(places) - {0}
    if not used:
        return True
    if numbers is None or run.transactions is None:
        return False
    found = {place: numbers.number_of(run.transactions[place - 1]) for place in used}
    known = {place: number for place, number in found.items() if number is not None}
    if len(known) < len(found):
        return False
    known[0] = 0
    column[:] = memoryview(array("I", [known[place] for place in places]))
    return True


def stretches(
    run: Run, failed: Mapping[TransactionId, PortError]
) -> list[tuple[Run, PortError | None]]:
    """Cut a run where rows that are refused begin and end."""
    assert run.transactions is not None
    errors = [None, *(failed.get(each) for each in run.transactions)]
    by_row = [errors[number] for number in run.u32(TRANSACTION).tolist()]
    pieces: list[tuple[Run, PortError | None]] = []
    first = 0
    for row in range(1, run.count + 1):
        if row == run.count or by_row[row] is not by_row[first]:
            pieces.append((run.slice(first, row - first), by_row[first]))
            first = row
    return pieces

"""What happened to numbered messages, and what must never have happened to them.

    sent        0 1 2 3 4 5 6 7          by one producer, in order
    acknowledged by the broker  0 1 2 3 5
    received    0 1 1 2 3 5 4            by one subscription, with redeliveries

A checker of its own, so that every test of crashes asks the same questions.
"""

from collections import Counter
from collections.abc import Collection, Sequence


def lost(acknowledged: Collection[int], received: Collection[int]) -> list[int]:
    """Return what the broker acknowledged and nobody ever got."""
    return sorted(set(acknowledged) - set(received))


def phantoms(sent: int, received: Collection[int]) -> list[int]:
    """Return what was received and never sent; messages are numbered from 0 to `sent` - 1."""
    return sorted(number for number in set(received) if not 0 <= number < sent)


def out_of_order(received: Sequence[int]) -> list[int]:
    """Return what came for the first time after a later one had come for the first time."""
    seen: set[int] = set()
    highest, late = -1, []
    for number in received:
        if number not in seen:
            seen.add(number)
            if number < highest:
                late.append(number)
            highest = max(highest, number)
    return late


def out_of_order_by_key(received: Sequence[int], keys: int) -> list[int]:
    """Return the same for each key alone; message n has key n modulo `keys`."""
    return [
        late
        for key in range(keys)
        for late in out_of_order([number for number in received if number % keys == key])
    ]


def stored_twice(stored: Sequence[int]) -> list[int]:
    """Return what lies in the log more than once."""
    return sorted(number for number, times in Counter(stored).items() if times > 1)

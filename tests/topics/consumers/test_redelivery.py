"""What waits to be sent again is found in order, counted once, and kept by slot."""

from magnetar.broker.entry import EntryId
from magnetar.broker.topics.consumers.redelivery import KeyedReplay, Replay
from magnetar.broker.topics.cursors.entry_set import Range


def test_the_lowest_position_is_sent_first() -> None:
    replay = Replay()
    replay.again(2, 7, 1)
    replay.again(1, 9, 2)
    assert replay.ready.first() == Range(1, 9, 2)


def test_only_redeliveries_are_counted() -> None:
    replay = Replay()
    for _ in range(3):
        replay.again(1, 4, 2)
        replay.ready.discard(1, 4, 2)
    replay.again(1, 5, 1)
    assert replay.counts(1, 3, 4) == {1: 3, 2: 4}


def test_what_is_acknowledged_is_forgotten() -> None:
    replay = Replay()
    replay.again(1, 0, 10)
    replay.done(1, 2, 1)
    replay.done_up_to(EntryId(1, 5))
    assert list(replay.ready.ranges()) == [Range(1, 6, 4)]
    assert replay.counts(1, 0, 10) == {6: 1, 7: 1, 8: 1, 9: 1}


def test_a_count_stops_at_what_its_column_holds() -> None:
    replay = Replay()
    for _ in range(65_540):
        replay.count(1, 0, 1)
    assert replay.counts(1, 0, 1) == {0: 65_535}


class Slots:
    """Says who owns which slot, as a test wants it."""

    def __init__(self) -> None:
        self.owners = {5: 1, 6: 2}
        self.replay = KeyedReplay(self.target)

    def target(self, slot: int) -> int | None:
        owner = self.owners.get(slot)
        return owner if self.replay.holders.get(slot, owner) == owner else None


def test_a_waiting_entry_is_ready_for_the_owner_of_its_slot() -> None:
    slots = Slots()
    slots.replay.wait(1, 4, 5)
    slots.replay.wait(1, 3, 6)
    assert {owner: list(each.ranges()) for owner, each in slots.replay.ready_for.items()} == {
        1: [Range(1, 4, 1)],
        2: [Range(1, 3, 1)],
    }
    assert slots.replay.queued == {5: 1, 6: 1}
    assert slots.replay.unwait(1, 4) == 5
    assert slots.replay.unwait(1, 4) == 0
    assert slots.replay.queued == {6: 1}


def test_a_slot_that_somebody_else_holds_is_parked_until_he_is_done() -> None:
    slots = Slots()
    replay = slots.replay
    replay.remember(1, 0, 5)
    replay.hold(5, 9)
    replay.wait(1, 4, 5)
    assert not replay.ready_for
    replay.returned(1, 0, 1)
    assert list(replay.ready_for[1].ranges()) == [Range(1, 4, 1)]
    assert replay.holders == {}


def test_new_owners_get_what_waited_for_the_old_ones() -> None:
    slots = Slots()
    for entry in range(4):
        slots.replay.wait(1, entry, 5)
    slots.owners = {5: 3}
    slots.replay.rearrange()
    assert {owner: list(each.ranges()) for owner, each in slots.replay.ready_for.items()} == {
        3: [Range(1, 0, 4)]
    }


def test_acknowledged_entries_neither_wait_nor_block_their_slot() -> None:
    slots = Slots()
    for entry in range(6):
        slots.replay.wait(1, entry, 5)
    slots.replay.done(1, 1, 2)
    slots.replay.done_up_to(EntryId(1, 3))
    assert [list(each) for each in slots.replay.waiting_ranges()] == [[1, 4, 2]]
    assert (slots.replay.waiting, slots.replay.queued) == (2, {5: 2})

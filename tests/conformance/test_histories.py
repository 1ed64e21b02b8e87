"""The checker notices each fault, and nothing else."""

from tests.conformance.histories import (
    lost,
    out_of_order,
    out_of_order_by_key,
    phantoms,
    stored_twice,
)


def test_a_faultless_history_with_redeliveries_passes() -> None:
    received = [0, 1, 1, 2, 0, 1, 2, 3, 3]
    assert not lost(range(4), received)
    assert not phantoms(4, received)
    assert not out_of_order(received)
    assert not out_of_order_by_key(received, 2)


def test_what_was_acknowledged_and_never_came_is_lost() -> None:
    assert lost([0, 1, 2, 5], [0, 2, 2]) == [1, 5]


def test_what_was_never_sent_is_a_phantom() -> None:
    assert phantoms(3, [0, 1, 2, 3, -1]) == [-1, 3]


def test_a_first_delivery_after_a_later_one_is_out_of_order_and_a_redelivery_is_not() -> None:
    assert out_of_order([0, 2, 1, 2, 1, 0]) == [1]


def test_keys_are_ordered_each_for_itself() -> None:
    assert out_of_order_by_key([1, 0, 2, 3], 2) == []
    assert out_of_order_by_key([1, 2, 0, 3], 2) == [0]


def test_twice_in_the_log_is_a_duplicate() -> None:
    assert stored_twice([0, 1, 2, 1]) == [1]

"""Bundles: every topic lies in one, and splitting keeps it so."""

import pytest

from magnetar.broker.doors.admin.bundles import BUNDLES_MAX, Bundles, middle, position
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.names import TopicName


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 128])
def test_every_topic_lies_in_exactly_one_bundle(count: int) -> None:
    bundles = Bundles.equal(count)
    assert len(bundles) == count
    assert list(bundles.borders) == sorted(set(bundles.borders))
    for i in range(200):
        topic = TopicName.parse(f"topic-{i}")
        inside = [
            name
            for name, low, high in zip(
                bundles.names, bundles.borders, bundles.borders[1:], strict=False
            )
            if low <= position(topic) < high
        ]
        assert inside == [bundles.of_topic(topic)]


def test_bundles_of_the_default_namespace_are_pulsars() -> None:
    borders = ["0x00000000", "0x40000000", "0x80000000", "0xc0000000", "0xffffffff"]
    assert Bundles.of(None).to_json() == {"boundaries": borders, "numBundles": 4}


def test_what_was_stored_is_read_back_and_nonsense_is_the_default() -> None:
    split = Bundles.equal(2).split("0x00000000_0x80000000", [0x1000])
    assert Bundles.of(split.to_json()).borders == split.borders
    stored: list[object] = [
        {"boundaries": ["0x00000000", "0x10"]},
        {"boundaries": ["0xffffffff", "0x00000000"]},
        {"boundaries": [1, 2]},
        {"boundaries": "x", "numBundles": True},
        {"numBundles": BUNDLES_MAX + 1},
        [],
    ]
    for nonsense in stored:
        assert len(Bundles.of(nonsense)) in {1, 4}
    with pytest.raises(Refusal):
        Bundles.of({"numBundles": 0}, check=True)


def test_a_bundle_is_cut_within_its_borders_only() -> None:
    bundles = Bundles.equal(4)
    low, high = bundles.names[:2]
    halves = bundles.split(low, [middle(low)])
    assert halves.names[:2] == ["0x00000000_0x20000000", "0x20000000_0x40000000"]
    assert len(halves) == 5
    for places in ([], [0], [0x40000000], [0x50000000]):
        with pytest.raises(Refusal):
            bundles.split(low, places)
    with pytest.raises(Refusal):
        bundles.split("0x00000000_0x00000001", [1])
    with pytest.raises(Refusal):
        Bundles.equal(BUNDLES_MAX).split(Bundles.equal(BUNDLES_MAX).names[0], [7])
    assert bundles.check(high.upper().replace("0X", "0x")) == high

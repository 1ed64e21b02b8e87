"""JSON facts: what is known is checked, what is not known is kept."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.metadata.documents import Document, InvalidDocumentError, decode, encode
from magnetar.broker.metadata.store import CorruptMetadataError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


class Inner(Document):
    """A nested object."""

    limit: int = msgspec.field(default=-1, name="limitSize")


class Outer(Document):
    """A document with one of everything."""

    number: int | None = msgspec.field(default=None, name="theNumber")
    inner: Inner | None = None
    many: dict[str, Inner] = msgspec.field(default_factory=dict)


class Plain(msgspec.Struct):
    """A record of ours."""

    number: int


KNOWN = {"theNumber", "inner", "many", ""}


@given(
    extra=st.dictionaries(
        st.text(max_size=5).filter(lambda key: key not in KNOWN), JSON.filter(bool)
    ),
    inner=st.dictionaries(
        st.text(max_size=5).filter(lambda key: key not in {"limitSize", ""}), JSON.filter(bool)
    ),
)
def test_fields_nobody_knows_survive_at_every_depth(
    extra: dict[str, Any], inner: dict[str, Any]
) -> None:
    data = {**extra, "theNumber": 3, "inner": {**inner, "limitSize": 5}, "many": {"a": inner}}
    document = Outer.from_dict(data)
    assert document.number == 3
    assert document.inner is not None
    assert document.inner.limit == 5
    again = decode("key", encode(document), Outer)
    assert again.to_dict() == {**data, "many": {"a": {**inner, "limitSize": -1}}}


def test_unset_fields_are_left_out_and_a_null_is_unset() -> None:
    assert Outer.from_dict({"theNumber": None, "inner": None}).to_dict() == {"many": {}}


def test_a_changed_field_is_written_beside_the_unknown_ones() -> None:
    document = Outer.from_dict({"theNumber": 1, "future": [1]})
    document.number = 2
    assert document.to_dict() == {"theNumber": 2, "many": {}, "future": [1]}


@pytest.mark.parametrize(
    "data", [{"theNumber": "3"}, {"inner": 3}, {"many": {"a": {"limitSize": []}}}]
)
def test_a_wrong_type_is_the_callers_fault_and_says_where(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocumentError, match="int"):
        Outer.from_dict({**data, "theNumber": "3"})


@pytest.mark.parametrize("kind", [Outer, Plain])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"theNumber": "x", "number": "x"}', b"\xff"])
def test_stored_bytes_that_make_no_sense_are_our_damage_and_name_the_key(
    kind: type[msgspec.Struct], data: bytes
) -> None:
    with pytest.raises(CorruptMetadataError, match="metadata key here"):
        decode("here", data, kind)


def test_plain_records_come_back_as_they_went() -> None:
    assert decode("key", encode(Plain(7)), Plain) == Plain(7)

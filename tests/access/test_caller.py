"""A caller as one process tells it to another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.access.caller import Caller, caller_from_text


@given(
    st.builds(
        Caller,
        role=st.text(),
        method=st.text(),
        original=st.none() | st.text(),
        expires_ms=st.none() | st.integers(0, 2**53),
        address=st.text(),
    )
)
def test_a_caller_survives_being_told(caller: Caller) -> None:
    text = caller.to_text()
    assert text.isascii()
    assert text.isprintable()
    assert caller_from_text(text) == caller


@pytest.mark.parametrize("text", ["", "anna", "[]", '["a"]', '["a","b",1,null,""]', "{}"])
def test_what_no_process_said_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
        caller_from_text(text)

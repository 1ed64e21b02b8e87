"""How one message is printed."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.cli.messages import Shown, stored
from magnetar.client.stored import Message, MessageId


@given(st.binary())
def test_no_byte_of_a_payload_is_lost_in_json(payload: bytes) -> None:
    told = json.loads(json.dumps(Shown(id="1:2", payload=payload, publish_time_ms=0).as_json()))
    if "payload" in told:
        assert told["payload"].encode() == payload
    else:
        assert base64.b64decode(told["payload_base64"]) == payload


def test_text_is_the_payload_and_with_meta_the_rest() -> None:
    shown = Shown(id="1:2", payload=b"hi", publish_time_ms=1000, key="k", properties={"a": "b"})
    assert shown.as_text() == "hi"
    assert shown.as_text(meta=True) == '1:2  1970-01-01T00:00:01.000Z  k  hi  {"a": "b"}'
    assert Shown(id="1:2", payload=b"\xff", publish_time_ms=0).as_text() == "base64:/w=="


@pytest.mark.parametrize(
    ("message", "note"),
    [
        ({"encrypted": True}, "encrypted"),
        ({"opaque": "unknown compression"}, "unknown compression"),
        ({"null_value": True}, "its key is deleted"),
        ({"chunk": (0, 3)}, "chunk 1 of 3"),
        ({"deliver_at_ms": 1000}, "delivered at 1970"),
    ],
)
def test_a_payload_that_is_not_the_whole_story_comes_with_a_note(
    message: dict[str, object], note: str
) -> None:
    whole = Message(
        id=MessageId(3, 4, -1, 5),
        payload=b"x",
        publish_time_ms=0,
        **message,  # type: ignore[arg-type]
    )
    shown = stored(whole, "t")
    assert note in shown.as_text(meta=True)
    assert note in shown.as_json()["notes"][0]
    assert shown.id == "3:4:-1:5"

"""The JSON of the WebSocket API, and everything that is not it."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.doors.websocket.shapes import (
    Outgoing,
    Ping,
    SendError,
    ShapeError,
    command,
    not_published,
    outgoing,
    published,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api


def read(**told: Any) -> Outgoing:
    found = outgoing(json.dumps({"payload": "eA==", **told}).encode())
    assert isinstance(found, Outgoing)
    return found


def test_a_message_is_read_with_all_that_it_says() -> None:
    found = read(
        properties={"a": "b", "n": 1, "f": 1.5, "t": True},
        key="k",
        context={"any": [1]},
        replicationClusters=["west"],
        eventTime="2026-01-02T03:04:05.678+01:00",
        deliverAt=7,
        deliverAfterMs=8,
    )
    assert found.payload == b"x"
    assert found.properties == {"a": "b", "n": "1", "f": "1.5", "t": "true"}
    assert found.key == "k"
    assert json.loads(bytes(found.context or b"")) == {"any": [1]}
    assert found.replicate_to == ("west",)
    assert found.event_time_ms == 1767319445678
    assert (found.deliver_at_ms, found.deliver_after_ms) == (7, 8)


def test_what_the_client_encrypted_is_passed_on_with_how() -> None:
    found = read(encryptionParam="AAE=", compressionType="LZ4", uncompressedMessageSize=9)
    assert found.encryption_param == b"\0\1"
    assert (found.compression, found.uncompressed_size) == (api.LZ4, 9)


def test_padding_of_base64_may_be_missing_as_java_allows() -> None:
    assert read(payload="eA").payload == b"x"
    assert read(payload="").payload == b""


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"payload": None}, SendError.BAD_PAYLOAD),
        ({"payload": "e!=="}, SendError.BAD_PAYLOAD),
        ({"payload": "eA==="}, SendError.BAD_PAYLOAD),
        ({"payload": "é"}, SendError.BAD_PAYLOAD),
        ({"eventTime": "yesterday"}, SendError.BAD_PAYLOAD),
        ({"eventTime": "2026-01-02T03:04:05"}, SendError.BAD_PAYLOAD),
        ({"eventTime": 5}, SendError.BAD_PAYLOAD),
        ({"encryptionParam": "?"}, SendError.BAD_PAYLOAD),
        ({"compressionType": "LZ4"}, SendError.BAD_PAYLOAD),
        ({"uncompressedMessageSize": 5}, SendError.BAD_PAYLOAD),
        ({"compressionType": "zip", "uncompressedMessageSize": 5}, SendError.NOT_JSON),
        ({"deliverAt": 2**63}, SendError.NOT_JSON),
    ],
)
def test_a_message_that_cannot_be_is_refused_with_its_context(
    told: dict[str, Any], error: SendError
) -> None:
    with pytest.raises(ShapeError) as caught:
        read(context="c", **told)
    assert caught.value.error is error
    assert bytes(caught.value.context or b"") == b'"c"'


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"7", b'"x"', b'{"payload":1}', b'{"properties":[]}', b"\xff", b"{}{}"),
        b'{"payload":"\xff"}',
        b'{"\xff":1}',
        b"[" * 100_000,
        b'{"payload":"eA==","context":' + b"[" * 100_000,
    ],
)
def test_what_is_no_json_of_ours_is_refused(text: bytes) -> None:
    with pytest.raises(ShapeError) as caught:
        outgoing(text)
    assert caught.value.error in {SendError.NOT_JSON, SendError.BAD_PAYLOAD}
    with pytest.raises(ShapeError):
        command(b"[" + text)


@given(st.binary())
def test_no_bytes_do_anything_but_be_refused(data: bytes) -> None:
    for reader in (outgoing, command):
        with suppress(ShapeError):
            reader(data)


def test_a_ping_is_no_message() -> None:
    assert outgoing(b'{"type":"ping"}') == Ping()
    assert isinstance(outgoing(b'{"type":"ping","payload":"eA=="}'), Outgoing)


def test_answers_echo_the_context_only_where_there_was_one() -> None:
    assert json.loads(published("id", None)) == {"result": "ok", "messageId": "id"}
    refused = not_published(SendError.UNKNOWN, "why", msgspec.Raw(b'{"a":1}'))
    assert json.loads(refused) == {
        "result": "send-error:8",
        "errorMsg": "why",
        "context": {"a": 1},
    }

"""The handshake as pure functions: what is accepted, and how the rest is told."""

import json

import pytest

from magnetar.broker.doors.handshake import HandshakeError, acceptance, refusal

VERSION = (b"sec-websocket-version", b"13")
KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")


def test_the_example_of_the_standard_is_answered_as_it_says() -> None:
    answer = acceptance([VERSION, KEY])
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([KEY], 426),
        ([KEY, VERSION, VERSION], 426),
        ([KEY, (VERSION[0], b"12")], 426),
        ([VERSION], 400),
        ([VERSION, KEY, KEY], 400),
        ([VERSION, (KEY[0], b"!")], 400),
        ([VERSION, (KEY[0], b"dGhl")], 400),
    ],
)
def test_a_handshake_that_is_none_has_its_status(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    with pytest.raises(HandshakeError) as caught:
        acceptance(headers)
    assert caught.value.status == status


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 426, 429, 500, 503, 504])
def test_a_refusal_is_an_http_answer_with_its_reason(status: int) -> None:
    head, _, body = refusal(status, 'no: "é"').partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-length: %d" % len(body) in head
    assert json.loads(body) == {"reason": 'no: "é"'}

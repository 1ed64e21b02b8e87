"""Where HTTP ends and WebSocket begins: the handshake, and refusals before it.

    GET /ws/v2/... HTTP/1.1              HTTP/1.1 101 Switching Protocols
    Upgrade: websocket                   Upgrade: websocket
    Connection: Upgrade           ──▶    Connection: Upgrade
    Sec-WebSocket-Key: <16 bytes>        Sec-WebSocket-Accept: base64(SHA-1(key + GUID))
    Sec-WebSocket-Version: 13

Until the 101 is sent, everything can still be refused as HTTP is. Source: RFC 6455, section 4.
No extension is offered: nothing that a client sends is decompressed.
"""

import asyncio
import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

import msgspec

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16


class HandshakeError(Exception):
    """This is no handshake that we can take. The message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Upgrades(Protocol):
    """Takes over connections on which a client asked for WebSocket."""

    def take(
        self, transport: asyncio.Transport, target: bytes, headers: Headers
    ) -> asyncio.Protocol:
        """Return what reads the connection from now on. It answers the handshake too."""
        ...

    async def stop(self) -> None:
        """End all connections that were taken, politely first."""
        ...


def acceptance(headers: Headers) -> bytes:
    """Return the answer that ends a handshake well.

    Raises:
        HandshakeError: the client's part of it is wrong.
    """
    told: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        told.setdefault(name, []).append(value)
    if told.get(b"sec-websocket-version") != [b"13"]:
        raise HandshakeError(426, "Sec-WebSocket-Version must be 13")
    keys = told.get(b"sec-websocket-key", [])
    try:
        whole = len(keys) == 1 and len(b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        whole = False
    if not whole:
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64, once")
    proof = b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % proof
    )


def refusal(status: int, text: str) -> bytes:
    """Return the answer that ends a handshake badly, and with it the connection."""
    body = msgspec.json.encode({"reason": text})
    extra = {426: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", 503: "Retry-After: 1\r\n"}
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"{extra.get(status, '')}content-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body

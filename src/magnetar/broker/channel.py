"""The channel between the supervisor and one worker: JSON lines over a socket pair.

What is said on it, and in which order, stands in `supervisor`. When either side dies, the
other reads the end of the stream.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

LINE_BYTES_MAX = 1024 * 1024
"""One line of a channel. A config is a few KiB; more is a bug, not a message."""


class Address(NamedTuple):
    """Where clients reach one worker, or the broker as a whole."""

    url: str
    """Empty, like every other: it is not reached that way."""
    http_url: str
    url_tls: str = ""
    http_url_tls: str = ""

    @property
    def netloc(self) -> str:
        """Host and port of its HTTP door."""
        return urlsplit(self.http_url or self.http_url_tls).netloc


class Channel:
    """JSON lines in both directions over one socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> "Channel":
        """Wrap a connected stream socket."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=LINE_BYTES_MAX)
        return cls(reader, writer)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue one message. The peer may be gone; then nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None: the peer is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def close(self) -> None:
        """Send what is queued and hang up. Safe to call twice."""
        self._writer.close()
        with suppress(ConnectionError):  # it hung up first, which is what we wanted to say
            await self._writer.wait_closed()

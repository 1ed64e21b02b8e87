"""The channel between the supervisor and one worker: JSON lines over a socket pair.

What is said on it, and in which order, stands in `supervisor`. When either side dies, the
other reads the end of the stream. Once a worker serves, both sides may ask (`Conversation`):

    {"ask": 7, "do": "give", ...}  ──▶     ◀── {"answer": 7, ...} or {"answer": 7, "refused": text}
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

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


class RefusedError(Exception):
    """The other side says no, or is gone. The message says why."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        """A word for programs; empty: try again later."""


OUT_OF_BOUNDS, BUSY = "out-of-bounds", "busy"
"""Kinds of refusals: what is asked for never can be; it cannot be now."""


Answering = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Does what the other side asks for. What it raises as `RefusedError` is passed on as text."""


class Conversation:
    """Questions, answers and news over one channel, in both directions, until it ends."""

    def __init__(
        self, channel: Channel, answer: Answering, news: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """`answer` gets questions, `news` every line that is neither question nor answer."""
        self._channel = channel
        self._answer = answer
        self._news = news
        self._ids = count(1)
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._over = False

    def tell(self, news: Mapping[str, Any]) -> None:
        """Send a line that has no answer."""
        self._channel.send(news)

    async def ask(self, question: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Send a question; return the answer.

        Raises:
            RefusedError: the other side refuses, goes, or takes too long.
        """
        if self._over:
            raise RefusedError("the process has gone")
        number = next(self._ids)
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._channel.send({"ask": number, **question})
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise RefusedError(f"no answer within {timeout_s:.0f} s") from None
        finally:
            del self._asked[number]

    async def listen(self) -> None:
        """Take what the other side says, until the channel ends."""
        try:
            while (message := await self._channel.receive()) is not None:
                if "ask" in message:
                    task = asyncio.get_running_loop().create_task(self._reply(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                elif "answer" in message:
                    self._take(message)
                else:
                    self._news(message)
        finally:
            self._over = True
            for waiting in self._asked.values():
                if not waiting.done():
                    waiting.set_exception(RefusedError("the process has gone"))
            for task in self._answering:
                task.cancel()

    def _take(self, message: Mapping[str, Any]) -> None:
        waiting = self._asked.get(message["answer"])
        if waiting is None or waiting.done():
            return
        if "refused" in message:
            waiting.set_exception(RefusedError(str(message["refused"]), message.get("kind", "")))
        else:
            waiting.set_result(message)

    async def _reply(self, question: Mapping[str, Any]) -> None:
        number = question["ask"]
        try:
            answer = await self._answer(question)
        except RefusedError as error:
            self._channel.send({"answer": number, "refused": str(error), "kind": error.kind})
        except Exception as error:  # whoever asks must not wait for ever because of a bug here
            logger.exception("a question of another process failed: %s", question.get("do"))
            self._channel.send({"answer": number, "refused": f"{type(error).__name__}: {error}"})
        else:
            self._channel.send({"answer": number, **answer})

"""Prometheus text: written family by family, and merged from several processes.

    # HELP pulsar_rate_in Messages per second from producers.
    # TYPE pulsar_rate_in gauge
    pulsar_rate_in{cluster="standalone",namespace="public/default",topic="..."} 12.5

A family may appear only once in one text, with all its samples together. Every process
writes its families sorted by name, so several texts merge like sorted lists, while
they arrive, and nothing is held but one piece of each.

Source: Prometheus' exposition formats, text format 0.0.4.
"""

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple

from magnetar.broker.doors.admin.http.siblings import SiblingDownError
from magnetar.broker.doors.admin.http.together import Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FAMILY = b"# HELP "
_NEXT_FAMILY = b"\n# HELP "
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", re.ASCII | re.MULTILINE)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Family(NamedTuple):
    """Samples of one name."""

    name: str
    help: str
    kind: str
    """counter, gauge or histogram."""

    def head(self) -> str:
        """Return the two lines that come before the samples."""
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"


def labels(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Return labels as they stand between the braces."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in items])


def sample(name: str, text: str, value: float) -> str:
    """Return one line; `text` is what `labels` returned."""
    return f"{name}{{{text}}} {value!r}\n"


def labelled(block: str, text: str) -> str:
    """Add labels to every sample of a rendered family."""

    def add(match: re.Match[str]) -> str:
        own = match[2]
        return f"{match[1]}{{{text},{own}}} " if own else f"{match[1]}{{{text}}} "

    return _SAMPLE.sub(add, block)


def name_of(block: str) -> str:
    """Return the family's name, given its rendered text."""
    return block[len(_FAMILY) :].split(" ", 1)[0]


async def merged(
    texts: Sequence[AsyncIterator[bytes]], totals: Totals | None = None
) -> AsyncIterator[bytes]:
    """Merge texts whose families are sorted by name. One that breaks off is dropped from there.

    What processes say about the whole broker is added up in `totals`; without, it stays apart.
    """
    readers = [_Reader(text) for text in texts]
    for reader in readers:
        await reader.advance()
    while readers := [reader for reader in readers if reader.name]:
        name = min(reader.name for reader in readers)
        mine = [reader for reader in readers if reader.name == name]
        head = bytes(mine[0].head)
        yield _as_readers_want_it(name, head)
        addition = None if totals is None else totals.family(name, head)
        for reader in mine:
            async for piece in reader.samples():
                yield piece if addition is None else addition.take(piece)
            await reader.advance()
        if addition is not None:
            yield addition.result()


def _as_readers_want_it(name: bytes, head: bytes) -> bytes:
    """Return a head whose type goes with its name.

    Readers give a counter's samples the ending `_total` if they have another; Pulsar calls such
    names gauges.
    """
    counter = b" counter\n"
    if head.endswith(counter) and not name.endswith(b"_total"):
        return head.removesuffix(counter) + b" gauge\n"
    return head


class _Reader:
    """Reads one text family by family."""

    def __init__(self, text: AsyncIterator[bytes]) -> None:
        self.name = b""
        """Of the family it stands at; empty at the end."""
        self.head = b""
        self._text = text
        self._buffer = bytearray()
        self._ended = False

    async def advance(self) -> None:
        """Go to the next family. Everything before it must have been read."""
        self.name = b""
        while self._buffer.count(b"\n", 0, 8192) < 2 and await self._more():
            pass
        if not self._buffer.startswith(_FAMILY):
            return
        end = self._buffer.find(b"\n", self._buffer.find(b"\n") + 1) + 1
        self.head = bytes(self._buffer[:end])
        self.name = self.head[len(_FAMILY) :].split(b" ", 1)[0]
        del self._buffer[:end]

    async def samples(self) -> AsyncIterator[bytes]:
        """Yield what belongs to the family, in whole lines."""
        while not self._buffer.startswith(_FAMILY):
            end = self._buffer.find(_NEXT_FAMILY)
            whole = (end if end >= 0 else self._buffer.rfind(b"\n")) + 1
            if whole:
                yield self._take(whole)
            elif not await self._more():
                return

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> bool:
        if not self._ended:
            try:
                self._buffer += await anext(self._text)
            except (StopAsyncIteration, SiblingDownError):
                self._ended = True
        return not self._ended

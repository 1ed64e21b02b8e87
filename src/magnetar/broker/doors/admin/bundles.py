"""Bundles: hash ranges of a namespace, as Pulsar shows them.

    0x00000000      0x40000000      0x80000000      0xc0000000      0xffffffff
        └── 0x00000000_0x40000000 ──┘  ...             └── includes its end

Pulsar hands topics out to brokers by bundle, and so its API shows them, splits them, and lets
some calls be about one. Our processes own topics singly; here bundles only group names. The
hash is CRC-32 of the full name, as in Pulsar. Pure.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Self

from magnetar.broker.doors.admin.errors import Refusal
from magnetar.names import TopicName

BUNDLES = 4
"""Of a namespace that was created without saying."""
BUNDLES_MAX = 128
_END = 0xFFFFFFFF


class Bundles:
    """The ranges of one namespace."""

    def __init__(self, borders: Sequence[int]) -> None:
        """Take the borders, rising, the first 0 and the last 0xffffffff."""
        self.borders = tuple(borders)

    @classmethod
    def equal(cls, count: int) -> Self:
        """Return so many ranges of the same size."""
        return cls([*((i << 32) // count for i in range(count)), _END])

    @classmethod
    def of(cls, stored: object, *, check: bool = False) -> Self:
        """Return the ranges in what is stored of a namespace, or wanted of a new one.

        Raises:
            Refusal: 412, with `check`, there cannot be such.
        """
        told: dict[str, Any] = stored if isinstance(stored, dict) else {}
        borders = _borders(told.get("boundaries"))
        if borders:
            return cls(borders)
        count = told.get("numBundles", BUNDLES)
        if isinstance(count, int) and 1 <= count <= BUNDLES_MAX:
            return cls.equal(count)
        if check:
            raise Refusal(412, f"numBundles is {count!r}, allowed: 1 to {BUNDLES_MAX}")
        return cls.equal(BUNDLES)

    def __len__(self) -> int:
        return len(self.borders) - 1

    @property
    def names(self) -> list[str]:
        """The ranges as they are written."""
        return [f"0x{low:08x}_0x{high:08x}" for low, high in pairwise(self.borders)]

    def to_json(self) -> dict[str, Any]:
        """Return the ranges as Pulsar shows and stores them."""
        return {"boundaries": [f"0x{each:08x}" for each in self.borders], "numBundles": len(self)}

    def of_topic(self, topic: TopicName) -> str:
        """Return the range a topic lies in."""
        return self.names[self._index(position(topic))]

    def check(self, text: str) -> str:
        """Return a range as we write it, if there is one like that.

        Raises:
            Refusal: 412, there is not.
        """
        known = self.names
        if text.lower() not in known:
            shown = ", ".join(known[:8])
            if not text.lower().startswith("0x"):
                raise Refusal(412, f"{text[:100]!r} is no policy, and no bundle; those are {shown}")
            raise Refusal(412, f"there is no bundle {text[:100]!r}; there are {shown}")
        return text.lower()

    def split(self, bundle: str, at: Iterable[int]) -> Self:
        """Return the ranges with one of them cut at the given places.

        Raises:
            Refusal: 412, a place lies outside of it, or there would be too many ranges.
        """
        low, high = (int(border, 16) for border in self.check(bundle).split("_"))
        places = sorted(set(at))
        if not places or not all(low < place < high for place in places):
            raise Refusal(412, f"bundle {bundle} cannot be split there: nothing lies between")
        if len(self) + len(places) > BUNDLES_MAX:
            raise Refusal(412, f"there would be more than {BUNDLES_MAX} bundles")
        return type(self)(sorted({*self.borders, *places}))

    def _index(self, place: int) -> int:
        return min(bisect_right(self.borders, place), len(self)) - 1


def position(topic: TopicName) -> int:
    """Return where a topic lies, between 0 and 0xffffffff."""
    return zlib.crc32(str(topic).encode())


def middle(bundle: str) -> int:
    """Return the place that cuts a range into halves."""
    low, high = (int(border, 16) for border in bundle.split("_"))
    return low + (high - low) // 2


def _borders(told: object) -> list[int]:
    """Return the borders somebody wrote down; none if they cannot be meant."""
    try:
        borders = [int(each, 16) for each in told] if isinstance(told, list) else []
    except (TypeError, ValueError):
        return []
    rising = all(low < high for low, high in pairwise(borders))
    whole = bool(borders) and (borders[0], borders[-1]) == (0, _END)
    return borders if whole and rising and len(borders) - 1 <= BUNDLES_MAX else []

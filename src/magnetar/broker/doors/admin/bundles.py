"""Bundles: hash ranges of a namespace, as Pulsar shows them.

    0x00000000      0x40000000      0x80000000      0xc0000000      0xffffffff
        └── 0x00000000_0x40000000 ──┘  ...             └── includes its end

Pulsar hands topics out to brokers by bundle, and so its API shows them and lets some calls
be about one. Our processes own topics singly; here bundles only group names. The hash is
CRC-32 of the full name, as in Pulsar.
"""

import zlib
from itertools import pairwise

from magnetar.broker.doors.admin.errors import Refusal
from magnetar.names import TopicName

BUNDLES = 4
"""Of a namespace that was created without saying."""
BUNDLES_MAX = 128
_END = 0xFFFFFFFF


def boundaries(bundles: int) -> list[str]:
    """Return the borders of equal ranges, one more than there are bundles."""
    return [f"0x{(i << 32) // bundles:08x}" for i in range(bundles)] + [f"0x{_END:08x}"]


def bundle_of(topic: TopicName, bundles: int) -> str:
    """Return the bundle a topic lies in."""
    index = (zlib.crc32(str(topic).encode()) * bundles) >> 32
    borders = boundaries(bundles)
    return f"{borders[index]}_{borders[index + 1]}"


def check_bundle(text: str, bundles: int) -> str:
    """Return a bundle as we write it, if the namespace has it.

    Raises:
        Refusal: 412, it has not.
    """
    borders = boundaries(bundles)
    known = [f"{low}_{high}" for low, high in pairwise(borders)]
    if text.lower() not in known:
        raise Refusal(412, f"there is no bundle {text[:100]!r}; there are {', '.join(known[:8])}")
    return text.lower()


def bundle_count(stored: object, *, check: bool = False) -> int:
    """Return the number of bundles in what is stored of a namespace, if anything is.

    Raises:
        Refusal: 412, with `check`, there cannot be as many.
    """
    count = stored.get("numBundles", BUNDLES) if isinstance(stored, dict) else BUNDLES
    if isinstance(count, int) and 1 <= count <= BUNDLES_MAX:
        return count
    if check:
        raise Refusal(412, f"numBundles is {count!r}, allowed: 1 to {BUNDLES_MAX}")
    return BUNDLES

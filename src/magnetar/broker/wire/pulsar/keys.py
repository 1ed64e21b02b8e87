"""The hash of a message's key: which Key_Shared consumer gets it.

Murmur3, x86, 32 bits, seed 0, with the sign bit cleared; over the ordering key if there is
one, else over the partition key, after undoing its base64 if the metadata says so.
Source: Austin Appleby's MurmurHash3; Pulsar's Key_Shared subscription.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from contextlib import suppress
from functools import lru_cache
from struct import Struct

KEYS_CACHED = 8192
"""Producers repeat their keys, and the hash of one costs microseconds in plain Python."""
_KEY_BYTES_CACHED = 256
"""Longer keys are not remembered, so that the cache stays within a few megabytes."""

_WORD = Struct("<I")
_C1 = 0xCC9E2D51
_C2 = 0x1B873593
_U32 = 0xFFFFFFFF


def murmur3_32(data: bytes) -> int:
    """Return Murmur3 of some bytes as an unsigned 32-bit number (x86, seed 0)."""
    value = 0
    whole = len(data) & ~3
    for (word,) in _WORD.iter_unpack(memoryview(data)[:whole]):
        word = word * _C1 & _U32  # noqa: PLW2901 - the algorithm's own way of saying it
        value ^= (word << 15 | word >> 17) * _C2 & _U32
        value = ((value << 13 | value >> 19) * 5 + 0xE6546B64) & _U32
    if whole < len(data):
        word = int.from_bytes(data[whole:], "little") * _C1 & _U32
        value ^= (word << 15 | word >> 17) * _C2 & _U32
    value ^= len(data)
    value = (value ^ value >> 16) * 0x85EBCA6B & _U32
    value = (value ^ value >> 13) * 0xC2B2AE35 & _U32
    return value ^ value >> 16


def key_hash(key: bytes, *, base64: bool = False) -> int:
    """Return the hash of a key as rows carry it: 31 bits.

    A key that claims to be base64 and is not is hashed as it stands: it is still the same
    key each time, and the broker has no business to refuse it.
    """
    if len(key) > _KEY_BYTES_CACHED:
        return _key_hash(key, base64)
    return _cached_key_hash(key, base64)


def _key_hash(key: bytes, base64: bool) -> int:
    if base64:
        with suppress(Base64Error):
            key = b64decode(key, validate=True)
    return murmur3_32(key) & 0x7FFFFFFF


_cached_key_hash = lru_cache(maxsize=KEYS_CACHED)(_key_hash)

"""The hash of a key."""

import pytest

from magnetar.broker.wire.pulsar.keys import key_hash, murmur3_32


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0x00000000),
        (b"\xff\xff\xff\xff", 0x76293B50),
        (b"\x21\x43\x65\x87", 0xF55B516B),
        (b"\x21\x43\x65", 0x7E4A8634),
        (b"\x21\x43", 0xA0F7B07A),
        (b"\x21", 0x72661CF4),
        (b"\0\0\0\0", 0x2362F9DE),
        (b"test", 0xBA6BD213),
        (b"hello", 0x248BFA47),
        (b"Hello, world!", 0xC0363E43),
        (b"The quick brown fox jumps over the lazy dog", 0x2E4FF723),
    ],
)
def test_murmur3_gives_the_published_values(data: bytes, expected: int) -> None:
    assert murmur3_32(data) == expected


def test_a_row_carries_31_bits_of_the_hash() -> None:
    assert key_hash(b"Hello, world!") == 0xC0363E43 & 0x7FFFFFFF


def test_a_base64_key_is_hashed_as_the_bytes_it_stands_for() -> None:
    assert key_hash(b"c2Vuc29y", base64=True) == key_hash(b"sensor")
    assert key_hash(b"c2Vuc29y") != key_hash(b"sensor")


@pytest.mark.parametrize("key", [b"a", b"%%%%", b"\xff\xfe", b"c2Vuc29y\n="])
def test_a_key_that_only_claims_to_be_base64_still_has_a_hash(key: bytes) -> None:
    assert key_hash(key, base64=True) == key_hash(key)


def test_long_keys_are_hashed_like_short_ones_but_not_remembered() -> None:
    assert key_hash(b"k" * 100_000) == murmur3_32(b"k" * 100_000) & 0x7FFFFFFF

"""The PROXY header: golden bytes, every split, and what is no header."""

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.wire.proxy import (
    SIGNATURE,
    V1_BYTES_MAX,
    V2_BYTES_MAX,
    ProxyHeader,
    ProxyHeaderError,
)

REST = b"\x00\x00\x00\x3a\x00\x00"
"""What comes after the header and must be left alone."""

V2_TCP4 = SIGNATURE + bytes.fromhex("21 11 000c c0000201 c6336402 dd33 19fa")
V2_TCP6 = (
    SIGNATURE
    + bytes.fromhex("21 21 0024")
    + ip_address("2001:db8::7").packed
    + ip_address("2001:db8::1").packed
    + bytes.fromhex("dd33 19fa")
)

GOLDEN = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56627 6650\r\n", "192.0.2.1:56627"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 56627 6650\r\n", "[2001:db8::7]:56627"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (V2_TCP4, "192.0.2.1:56627"),
    (V2_TCP6, "[2001:db8::7]:56627"),
    (SIGNATURE + bytes.fromhex("20 00 0000"), None),
    (SIGNATURE + bytes.fromhex("20 11 000c c0000201 c6336402 dd33 19fa"), None),
    (SIGNATURE + bytes.fromhex("21 31 00d8") + bytes(216), None),
    # With what proxies add behind the addresses: here four bytes of padding.
    (
        SIGNATURE + bytes.fromhex("21 11 0013 c0000201 c6336402 dd33 19fa 04 0004 00000000"),
        "192.0.2.1:56627",
    ),
]


def read(data: bytes, sizes: list[int]) -> tuple[ProxyHeader, bytes]:
    """Show a reader what arrives in pieces of these sizes; return it, and what it left."""
    header, at, arrived = ProxyHeader(), 0, 0
    for size in [*sizes, *[1] * len(data)]:
        arrived = min(len(data), arrived + size)
        if header.done or at == arrived:
            continue
        at += header.take(data[at : min(arrived, at + header.room)])
    return header, data[at:]


@pytest.mark.parametrize(("data", "source"), GOLDEN)
def test_every_header_is_read_at_once_and_not_a_byte_more(data: bytes, source: str | None) -> None:
    header = ProxyHeader()
    assert header.take(data + REST) == len(data)
    assert header.done
    assert (str(header.source) if header.source else None) == source


@pytest.mark.parametrize(("data", "source"), GOLDEN)
@given(sizes=st.lists(st.integers(1, 40), max_size=20))
def test_every_header_is_read_however_it_is_cut(
    data: bytes, source: str | None, sizes: list[int]
) -> None:
    header, left = read(data + REST, sizes)
    assert header.done
    assert left == REST
    assert (str(header.source) if header.source else None) == source


@pytest.mark.parametrize(
    "data",
    [
        REST,
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n",
        b"PROXY TCP4 \xff\xfe 198.51.100.2 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 " + b"1" * V1_BYTES_MAX,
        b"PROXY UNKNOWN " + b"1" * V1_BYTES_MAX + b"\r\n",
        SIGNATURE[:-1] + b"!" + bytes(4),
        SIGNATURE + bytes.fromhex("11 11 000c") + bytes(12),
        SIGNATURE + bytes.fromhex("22 11 000c") + bytes(12),
        SIGNATURE + bytes.fromhex("21 11 000b") + bytes(11),
        SIGNATURE + bytes.fromhex("21 11 ffff"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        ProxyHeader().take(data)
    with pytest.raises(ProxyHeaderError):
        read(data, [])


@pytest.mark.parametrize("data", [data for data, _ in GOLDEN])
def test_a_header_that_is_not_complete_is_waited_for(data: bytes) -> None:
    for size in range(1, len(data)):
        header = ProxyHeader()
        assert header.take(data[:size]) == size
        assert not header.done
        assert header.room > 0


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=10))
def test_random_bytes_are_a_header_or_refused_and_never_anything_else(
    data: bytes, sizes: list[int]
) -> None:
    with contextlib.suppress(ProxyHeaderError):
        read(data, sizes)


@given(st.sampled_from([data for data, _ in GOLDEN]), st.data())
def test_a_damaged_header_is_read_or_refused(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    at = draw.draw(st.integers(0, len(data) - 1))
    damaged[at] ^= 1 << draw.draw(st.integers(0, 7))
    header = ProxyHeader()
    try:
        taken = header.take(bytes(damaged))
    except ProxyHeaderError:
        return
    assert taken <= len(damaged)
    assert header.done or header.room <= V2_BYTES_MAX

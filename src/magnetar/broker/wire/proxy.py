r"""The PROXY protocol's header: what a load balancer says about the client behind it.

    version 1   PROXY TCP4 <source> <destination> <source port> <destination port>\r\n
                PROXY UNKNOWN ...\r\n                                     at most 107 bytes
    version 2   \r\n\r\n\0\r\nQUIT\n | version and command u8 | family u8 | length u16 | addresses
                command 0 (LOCAL): the proxy's own connection, such as a health check
                family 0x11: 4 + 4 + 2 + 2 bytes    0x21: 16 + 16 + 2 + 2

It stands before everything else, TLS included, and whoever reads it may not take a byte too many.
So the reader is shown what has arrived and says how much of that is the header's. Source: the
HAProxy PROXY protocol specification, versions 1 and 2.
"""

from ipaddress import ip_address
from struct import Struct
from typing import NamedTuple

V1_BYTES_MAX = 107
V2_BYTES_MAX = 16 + 2048
"""Addresses have at most 216 bytes; the rest is for what proxies add, such as TLS's particulars."""

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1 = b"PROXY "
_PREFIX = Struct(">12sBBH")
_PORTS = Struct(">HH")
_FAMILIES = {0x11: 4, 0x21: 16}


class ProxyHeaderError(ValueError):
    """What came first is no PROXY header."""


class Source(NamedTuple):
    """Where a client is, as the proxy sees it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ProxyHeader:
    """Collects one header."""

    __slots__ = ("_collected", "done", "source")

    def __init__(self) -> None:
        self._collected = b""
        self.done = False
        self.source: Source | None = None
        """The client; None: the proxy does not say, or speaks for itself."""

    @property
    def room(self) -> int:
        """How many bytes the rest of the header has at most."""
        limit = V2_BYTES_MAX if self._collected[:1] == SIGNATURE[:1] else V1_BYTES_MAX
        return limit - len(self._collected)

    def take(self, arrived: bytes) -> int:
        """Look at what has arrived after what was taken before; return how much to take of it.

        Raises:
            ProxyHeaderError: it is no header, or too long for one.
        """
        before = len(self._collected)
        data = self._collected + arrived
        end = self._version_2(data) if data[:1] == SIGNATURE[:1] else self._version_1(data)
        self._collected = data[:end]
        return end - before

    def _version_1(self, data: bytes) -> int:
        if data[: len(_V1)] != _V1[: len(data)]:
            raise ProxyHeaderError("no PROXY header came first, and --proxy-protocol asks for one")
        line, found, _ = data.partition(b"\r\n")
        if not found:
            if len(data) >= V1_BYTES_MAX:
                raise ProxyHeaderError(f"a PROXY header of more than {V1_BYTES_MAX} bytes")
            return len(data)
        if len(line) + 2 > V1_BYTES_MAX:
            raise ProxyHeaderError(f"a PROXY header of more than {V1_BYTES_MAX} bytes")
        self.source = _source_in(line)
        self.done = True
        return len(line) + 2

    def _version_2(self, data: bytes) -> int:
        if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
            raise ProxyHeaderError("no PROXY header came first, and --proxy-protocol asks for one")
        if len(data) < _PREFIX.size:
            return len(data)
        _, version_command, family, length = _PREFIX.unpack_from(data)
        end: int = _PREFIX.size + length
        if version_command not in {0x20, 0x21}:
            raise ProxyHeaderError(f"a PROXY header of version and command {version_command:#x}")
        if end > V2_BYTES_MAX:
            raise ProxyHeaderError(f"a PROXY header of {end} bytes, the limit is {V2_BYTES_MAX}")
        if len(data) < end:
            return len(data)
        if version_command == 0x21 and family in _FAMILIES:
            size = _FAMILIES[family]
            if length < 2 * size + _PORTS.size:
                raise ProxyHeaderError("a PROXY header whose addresses are cut off")
            host = data[_PREFIX.size : _PREFIX.size + size]
            port, _ = _PORTS.unpack_from(data, _PREFIX.size + 2 * size)
            self.source = Source(_text(str(ip_address(host))), port)
        self.done = True
        return end


def _source_in(line: bytes) -> Source | None:
    """Return the client in a line of version 1."""
    words = line.split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return None
    versions = {b"TCP4": 4, b"TCP6": 6}
    if len(words) != 6 or words[1] not in versions:
        raise ProxyHeaderError(f"a PROXY header that makes no sense: {line!a}")
    try:
        hosts = [ip_address(word.decode("ascii")) for word in words[2:4]]
    except ValueError:
        raise ProxyHeaderError(f"a PROXY header with no addresses in it: {line!a}") from None
    ports = [int(word) for word in words[4:] if word.isdigit() and len(word) <= 5]
    if (
        any(host.version != versions[words[1]] for host in hosts)
        or len(ports) != 2
        or max(ports) > 0xFFFF
    ):
        raise ProxyHeaderError(f"a PROXY header that makes no sense: {line!a}")
    return Source(_text(str(hosts[0])), ports[0])


def _text(host: str) -> str:
    return f"[{host}]" if ":" in host else host

"""What a session sees of its connection, and a connection of its session. Types only.

    connection ──text──▶ decode ──▶ handle ──▶ flush         once per socket read
    session    ──send──▶ one write per turn of the loop
    session    ──hold──▶ nothing is read    ──release──▶ reading goes on

Large texts are decoded in a thread, in their turn; everything else happens on the event loop.
"""

from typing import Any, Protocol


class Hold:
    """Reasons for not reading from a connection, one bit each."""

    PUBLISHING = 1
    """The log has too much waiting for the disk."""
    PENDING = 2
    """This connection has too much waiting for the disk."""
    ANSWERS = 4
    """The client does not read what it is told."""
    DECODING = 8
    """A large text is being decoded; what comes behind it waits."""
    RATE = 16
    """The client has sent more than the rate of its topic allows."""
    CLOSING = 32


class CloseCode:
    """How a connection ends. Numbers are those of RFC 6455, section 7.4."""

    GOING_AWAY = 1001
    UNSUPPORTED = 1003
    INVALID = 1007
    POLICY = 1008
    INTERNAL = 1011
    LATER = 1013


class Line(Protocol):
    """The connection, as a session sees it."""

    @property
    def address(self) -> str:
        """The client's host and port."""
        ...

    @property
    def caller(self) -> str:
        """The client's log-in, for a port that passes requests on."""
        ...

    @property
    def owner(self) -> str:
        """The client's role; empty while nobody logs in."""
        ...

    @property
    def congested(self) -> bool:
        """Whether more than enough is waiting for this client."""
        ...

    def send(self, text: bytes) -> None:
        """Send a text soon, after what was sent before; never blocks."""
        ...

    def hold(self, reason: int) -> None:
        """Take nothing more from the client before every reason was released."""
        ...

    def release(self, reason: int) -> None:
        """Take back one reason."""
        ...

    def fail(self, code: int, reason: str) -> None:
        """End the connection, after what was sent before."""
        ...


class Session(Protocol):
    """What one connection is for."""

    async def open(self) -> None:
        """Begin; the client waits for its handshake meanwhile. Nothing is sent before `flush`.

        Raises:
            PortError: the broker refuses.
        """

    def decode(self, text: bytes) -> Any:
        """Read one text. Pure, and may be called in a thread. Never raises for what clients say."""

    def handle(self, decoded: Any) -> None:
        """Do what a text asks."""

    def flush(self) -> None:
        """Know that nothing more was read for now."""

    def resume(self) -> None:
        """Know that the client has room again."""

    async def close(self) -> None:
        """End. Called once, whether or not `open` returned."""

"""What stands in front of every HTTP call: whose page is it, and is it too large?

A web page in the user's browser can reach loopback, so being bound to it protects nothing:

    Host          one of our names         else a page resolved its own name to 127.0.0.1
    Origin        absent, or our address   else a page of another site calls
    Content-Type  JSON where a body comes  else a plain form could have sent it
    body          BODY_BYTES_MAX

There are no cross-origin headers, so that a page of another site cannot read answers either.
"""

from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magnetar.broker.doors.admin.errors import Refusal, refused

BODY_BYTES_MAX = 1024 * 1024
"""Of one request. The largest legal body, a namespace with all its policies, has a few KiB."""

BODIES_BYTES_MAX = 64 * 1024 * 1024
"""Of all requests that are being received."""

SMALL_BODY_BYTES_MAX = 64 * 1024
"""Bodies up to this size are taken even then: nearly all are smaller."""

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """Lets a call through to the app, or refuses it."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        """Allow these names beside the local ones in the Host header; None: any."""
        self._app = app
        self._hosts = None if hosts is None else LOCAL_HOSTS | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = grouped(scope["headers"])
        try:
            self.check_host(headers)
            check_content(scope["method"], headers)
        except Refusal as refusal:
            await refused(refusal, f"{scope['method']} {scope['path']}")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def check_host(self, headers: dict[bytes, list[bytes]]) -> None:
        """Refuse a call that is not meant for us, or comes from somebody else's web page.

        Raises:
            Refusal: 400 or 403.
        """
        hosts = headers.get(b"host", [])
        if len(hosts) != 1:
            raise Refusal(400, f"{len(hosts)} Host headers, expected one")
        host = hosts[0].decode("latin-1").lower()
        if self._hosts is not None and without_port(host) not in self._hosts:
            raise Refusal(
                403,
                f"the Host header names {host[:200]!r}, which is not this broker; "
                "give its name with --advertised-address",
            )
        for origin in headers.get(b"origin", ()):
            _, separator, place = origin.decode("latin-1").lower().partition("://")
            if not separator or place != host:
                raise Refusal(403, "calls from web pages of other sites are not answered")


def grouped(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Return the values of each header, whose names are in lower case."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return found


def without_port(host: str) -> str:
    """Return the name in a Host header. IPv6 addresses keep their brackets."""
    name, separator, port = host.rpartition(":")
    if separator and port.isdecimal() and (not name.startswith("[") or name.endswith("]")):
        host = name
    return host.rstrip(".")


def check_content(method: str, headers: dict[bytes, list[bytes]]) -> None:
    """Refuse a state-changing call whose content a plain HTML form could have sent.

    Raises:
        Refusal: 415, it says that it is something else than JSON; 413, it says it is too long.
    """
    kinds = headers.get(b"content-type", [])
    length = headers.get(b"content-length", [b"0"])[0]
    has_body = length != b"0" or b"transfer-encoding" in headers
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise Refusal(413, f"a body of {int(length)} bytes, the limit is {BODY_BYTES_MAX}")
    if method in {"GET", "HEAD", "OPTIONS"} or (not kinds and not has_body):
        return
    kind = kinds[0].partition(b";")[0].strip().lower() if kinds else b""
    if len(kinds) > 1 or not (kind == b"application/json" or kind.endswith(b"+json")):
        told = kind.decode("latin-1") or "nothing"
        raise Refusal(415, f"Content-Type says {told}, expected application/json")
    packed = headers.get(b"content-encoding", [b"identity"])[0]
    if has_body and packed.strip().lower() != b"identity":
        told = packed[:50].decode("latin-1")
        raise Refusal(415, f"Content-Encoding says {told}; send the body as it is")


async def read_body(receive: Receive) -> bytes:
    """Collect the body of a request.

    Raises:
        Refusal: 413, it is longer than BODY_BYTES_MAX; 400, the client left in the middle.
    """
    return await Bodies().read(receive)


class Bodies:
    """The bodies that are on their way, of callers of whom nobody knows yet who they are."""

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.bytes = 0
        """Of all of them, as far as they have come."""

    async def read(self, receive: Receive) -> bytes:
        """Collect one, within what there is room for. Small ones are always taken.

        Raises:
            Refusal: 413, it is longer than BODY_BYTES_MAX; 400, the client left in the middle; 503,
                too much is on its way.
        """
        collected = bytearray()
        try:
            while True:
                message: Message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the connection ended before the body did")
                part = message.get("body", b"")
                collected += part
                self.bytes += len(part)
                if len(collected) > BODY_BYTES_MAX:
                    raise Refusal(413, f"a body of more than {BODY_BYTES_MAX} bytes")
                if self.bytes > self._bytes_max and len(collected) > SMALL_BODY_BYTES_MAX:
                    raise Refusal(503, "too many large bodies are on their way; try again later")
                if not message.get("more_body", False):
                    return bytes(collected)
        finally:
            self.bytes -= len(collected)

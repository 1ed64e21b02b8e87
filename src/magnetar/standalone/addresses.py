"""Where a standalone broker listens, and where clients are told that it is.

    6650        Pulsar, shared by all workers: one listening socket that every worker accepts on
    6651        the same with TLS
    6660 + i    Pulsar, worker i alone, only with several workers; look-ups lead there
    6860 + i    the same with TLS
    8080        HTTP
    8443        HTTPS

All are moved together by the port offset. Ports without TLS are there on loopback, and beyond
it only with --insecure; those with TLS are there when there is a certificate. Workers reach each
other over Unix sockets in the data folder, which nobody else can open.
"""

import errno
import logging
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from magnetar.broker.channel import Address
from magnetar.standalone.options import AddressError, StandaloneOptions, is_loopback

logger = logging.getLogger(__name__)

PULSAR_PORT = 6650
PULSAR_TLS_PORT = 6651
PRIVATE_PULSAR_PORT = 6660
PRIVATE_PULSAR_TLS_PORT = 6860
HTTP_PORT = 8080
HTTPS_PORT = 8443
LISTEN_BACKLOG = 1024
ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to be recognised

Sockets = Sequence[socket.socket]


@dataclass(frozen=True, slots=True)
class Shared:
    """Bound sockets that all processes have in common, by what they serve."""

    plain: Sockets
    secure: Sockets
    http: Sockets
    https: Sockets


def bind_shared(options: StandaloneOptions, held: ExitStack) -> Shared:
    """Open the ports of the broker as a whole; `held` closes them.

    Raises:
        AddressError: an address is not ours, or a port is taken.
    """
    plain, secure = options.plain, options.tls is not None
    return Shared(
        plain=_bind_port(options, PULSAR_PORT, held, wanted=plain),
        secure=_bind_port(options, PULSAR_TLS_PORT, held, wanted=secure),
        http=_bind_port(options, HTTP_PORT, held, wanted=plain),
        https=_bind_port(options, HTTPS_PORT, held, wanted=secure),
    )


def bind_private(
    options: StandaloneOptions, worker: int, held: ExitStack
) -> tuple[Sockets, Sockets]:
    """Open the ports of one worker, without and with TLS; `held` closes them.

    Raises:
        AddressError: an address is not ours, or a port is taken.
    """
    plain, secure = options.plain, options.tls is not None
    return (
        _bind_port(options, PRIVATE_PULSAR_PORT + worker, held, wanted=plain),
        _bind_port(options, PRIVATE_PULSAR_TLS_PORT + worker, held, wanted=secure),
    )


def _bind_port(options: StandaloneOptions, port: int, held: ExitStack, *, wanted: bool) -> Sockets:
    if not wanted:
        return []
    found = listen_on(options.listen, port + options.port_offset)
    return [held.enter_context(each) for each in found]


def _leads_to_owners(options: StandaloneOptions) -> bool:
    """Return whether look-ups lead clients to ports of the workers' own."""
    return options.workers > 1 and not options.single_port


def listen_on(address: str, port: int) -> list[socket.socket]:
    """Return sockets bound to the port; for loopback, the IPv6 one too where there is one.

    Raises:
        AddressError: the address is not ours, or the port is taken.
    """
    wanted = ["127.0.0.1", "::1"] if address in {"127.0.0.1", "localhost"} else [address]
    bound: list[socket.socket] = []
    for each in wanted:
        family = socket.AF_INET6 if ":" in each else socket.AF_INET
        try:
            bound.append(_bind(family, each, port))
        except OSError as error:
            if bound and family == socket.AF_INET6 and not isinstance(error, PermissionError):
                logger.debug("no IPv6 loopback: %s", error)  # a machine without IPv6
                continue
            for other in bound:
                other.close()
            raise AddressError(
                f"cannot listen on {each}:{port}: {error.strerror}. {_advice(error)}"
            ) from error
    return bound


def _advice(error: OSError) -> str:
    """Return what to do about a port that cannot be listened on."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "Give --listen an address of this machine; 0.0.0.0 stands for all of them"
    if isinstance(error, PermissionError):
        return "--port-offset N moves all ports by N"
    return "Is another broker running? --port-offset N moves all ports by N"


def _bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def bind_path(path: str) -> socket.socket:
    """Return a Unix socket at the path; one that an earlier program left there is replaced.

    Raises:
        AddressError: it cannot be there.
    """
    with suppress(FileNotFoundError):
        Path(path).unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise AddressError(f"cannot listen on {path}: {error.strerror}") from error
    return sock


# --- what clients are told -------------------------------------------------------------


def advertised(options: StandaloneOptions) -> str:
    """Return the address that look-ups tell clients to dial."""
    if options.advertised_address:
        return options.advertised_address
    if is_loopback(options.listen):
        return "localhost"
    return _machine_name() if options.listen in ANYWHERE else options.listen


@cache
def _machine_name() -> str:
    """Return a name of this machine that can be dialled, or else an address of it."""
    name = socket.getfqdn()
    try:
        socket.getaddrinfo(name, None)
        dialled = not name.startswith("localhost")
    except OSError:
        dialled = False
    reached = [each for each in _own_addresses() if not is_loopback(each)]
    return name if dialled or not reached else reached[0]


def shared_address(options: StandaloneOptions) -> Address:
    """Return where the broker as a whole is reached."""
    return _address(options, advertised(options), PULSAR_PORT, PULSAR_TLS_PORT)


def worker_addresses(options: StandaloneOptions, host: str) -> list[Address]:
    """Return where each worker is reached by clients that know the machine as `host`."""
    if not _leads_to_owners(options):
        return [_address(options, host, PULSAR_PORT, PULSAR_TLS_PORT)] * options.workers
    return [
        _address(options, host, PRIVATE_PULSAR_PORT + each, PRIVATE_PULSAR_TLS_PORT + each)
        for each in range(options.workers)
    ]


def _address(options: StandaloneOptions, host: str, port: int, tls_port: int) -> Address:
    def url(wanted: bool, scheme: str, port: int) -> str:
        return f"{scheme}://{bracketed(host)}:{port + options.port_offset}" if wanted else ""

    plain, secure = options.plain, options.tls is not None
    return Address(
        url(plain, "pulsar", port),
        url(plain, "http", HTTP_PORT),
        url(secure, "pulsar+ssl", tls_port),
        url(secure, "https", HTTPS_PORT),
    )


def bracketed(host: str) -> str:
    """Return a name or address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def http_hosts(options: StandaloneOptions) -> list[str]:
    """Return the names under which the HTTP port may be called."""
    hosts = {"localhost", "127.0.0.1", "[::1]", options.listen, advertised(options)}
    return sorted(hosts | set(options.listeners.values()))


def own_names(options: StandaloneOptions) -> list[str]:
    """Return the names and addresses under which this machine may be dialled."""
    names = {"localhost", "127.0.0.1", "::1", advertised(options), *options.listeners.values()}
    if options.listen in ANYWHERE:
        names |= {socket.gethostname(), *_own_addresses()}
    else:
        names.add(options.listen)
    return sorted(names)


def _own_addresses() -> Iterable[str]:
    """Yield this machine's addresses, as far as they are easily known."""
    with suppress(OSError):
        for _, _, _, _, peer in socket.getaddrinfo(socket.gethostname(), None):
            yield str(peer[0]).partition("%")[0]
    # Connecting a datagram socket sends nothing; it only asks which of our addresses it would use.
    outside = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
    for family, address in outside.items():
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))
            yield str(sock.getsockname()[0])

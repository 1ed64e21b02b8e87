"""Everything on one machine: a supervisor, its broker processes, and the HTTP port.

    magnetar standalone
      ├─ this process: supervisor, and the HTTP port, which forwards to the owner of a topic
      ├─ worker 0: owns its share of the topics; journal/0
      └─ worker 1 ...

Ports, all moved together by the port offset:

    6650        Pulsar, shared by all workers: one listening socket that every worker accepts on
    6660 + i    Pulsar, worker i alone, only with several workers; look-ups lead there, or, with
                a single port, only its siblings come there
    8080        HTTP
"""

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from magnetar.broker.clock import SystemClock
from magnetar.broker.config import BrokerConfig, ConfigError
from magnetar.broker.files import DiskFiles
from magnetar.broker.logs import log_to_stderr
from magnetar.broker.storage.folder import DataFolder, FolderError
from magnetar.broker.supervisor import StartError, Supervisor, WorkerStart

logger = logging.getLogger(__name__)

PULSAR_PORT = 6650
PRIVATE_PULSAR_PORT = 6660
HTTP_PORT = 8080
LISTEN_BACKLOG = 1024

SHARED_BUDGETS = ("write_cache_bytes_max", "read_cache_bytes_max", "unsynced_bytes_max")
"""Settings that bound memory for the whole data folder, and are divided among the workers."""


class AddressError(Exception):
    """An address cannot be listened on. The message names it and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneOptions:
    """What `magnetar standalone` was asked for."""

    data: Path
    listen: str = "127.0.0.1"
    advertised_address: str | None = None
    """The name or address that clients are told to dial; None: taken from `listen`."""
    port_offset: int = 0
    workers: int = 1
    single_port: bool = False
    """Clients reach the shared Pulsar port only: look-ups lead there, and whichever worker a client
    is connected to serves it."""
    insecure: bool = False
    """Listen beyond loopback although anybody who reaches the port may do anything."""
    listeners: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further advertised addresses by listener name."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of `BrokerConfig` that differ from their defaults."""


STARTING_ERRORS = (AddressError, ConfigError, FolderError, StartError)
"""Why a broker does not start, or cannot go on. The message is for people."""


def run(options: StandaloneOptions, say: Callable[[str], None], *, as_json: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the program.

    Args:
        options: What to start.
        say: Shows the banner.
        as_json: The banner is one line of JSON, for programs.

    Raises:
        AddressError, ConfigError, FolderError, StartError: it cannot start, or go on.
    """
    log_to_stderr()
    return asyncio.run(_serve(options, say, as_json=as_json))


async def _serve(options: StandaloneOptions, say: Callable[[str], None], *, as_json: bool) -> int:
    _check_exposure(options)
    _worker_config(options, 0)  # a bad setting is refused before anything is touched
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with ExitStack() as held:
        folder = held.enter_context(DataFolder.open(DiskFiles(), options.data))
        sockets = _bind_all(options, held)
        supervisor = Supervisor(_starts(options, folder, sockets), SystemClock())
        await supervisor.launch()
        # The workers import their modules on the other cores while we import ours.
        from magnetar.broker.doors.admin.forward import serve_forward  # noqa: PLC0415

        await supervisor.start()
        http = await serve_forward(
            sockets.http, folder.admin_sockets(options.workers), hosts=_http_hosts(options)
        )
        try:
            say(banner(options, folder, as_json=as_json))
            await _until_stopped(stop, supervisor)
        finally:
            await supervisor.stop()
            await http.stop()
    for each in supervisor.unfinished:
        logger.error("%s; its log says why. Nothing acknowledged is lost by that", each)
    return 1 if supervisor.unfinished else 0


async def _until_stopped(stop: asyncio.Event, supervisor: Supervisor) -> None:
    """Wait for a signal.

    Raises:
        StartError: a worker cannot be kept running.
    """
    stopped = asyncio.create_task(stop.wait())
    either: set[asyncio.Future[Any]] = {stopped, supervisor.failed}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.done():
        stopped.cancel()
        raise supervisor.failed.result()


# --- addresses -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sockets:
    """Bound sockets, by what they serve."""

    shared: Sequence[socket.socket]
    private: Sequence[Sequence[socket.socket]]
    """Per worker; empty when there is only one."""
    http: Sequence[socket.socket]


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach the address."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _check_exposure(options: StandaloneOptions) -> None:
    if not is_loopback(options.listen) and not options.insecure:
        raise AddressError(
            f"--listen {options.listen} is reachable from other machines, and this version has no"
            " log-in: anybody could read and delete everything. Listen on 127.0.0.1, or say"
            " --insecure if the network itself keeps others out"
        )


def _bind_all(options: StandaloneOptions, held: ExitStack) -> _Sockets:
    def bind(address: str, port: int) -> list[socket.socket]:
        return [held.enter_context(each) for each in listen_on(address, port + options.port_offset)]

    private = [PRIVATE_PULSAR_PORT + i for i in range(options.workers)]
    return _Sockets(
        shared=bind(options.listen, PULSAR_PORT),
        private=(
            [bind(_private_listen(options), port) for port in private]
            if options.workers > 1
            else []
        ),
        http=bind(options.listen, HTTP_PORT),
    )


def _private_listen(options: StandaloneOptions) -> str:
    """Return where the private ports are: with a single port, nobody else has to reach them."""
    return "127.0.0.1" if options.single_port else options.listen


def siblings(options: StandaloneOptions) -> list[tuple[str, int]]:
    """Return where the workers reach each other; nothing if there is only one."""
    if options.workers == 1:
        return []
    listen = _private_listen(options)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(listen, listen)  # noqa: S104
    first = PRIVATE_PULSAR_PORT + options.port_offset
    return [(host, first + worker) for worker in range(options.workers)]


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
                f"cannot listen on {each}:{port}: {error.strerror}."
                " Is another broker running? --port-offset N moves all ports by N"
            ) from error
    return bound


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


def advertised(options: StandaloneOptions) -> str:
    """Return the address that look-ups tell clients to dial."""
    if options.advertised_address:
        return options.advertised_address
    if is_loopback(options.listen):
        return "localhost"
    return socket.getfqdn() if options.listen in {"0.0.0.0", "::"} else options.listen  # noqa: S104


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _shared_address(options: StandaloneOptions) -> tuple[str, str]:
    host = _url_host(advertised(options))
    pulsar, http = PULSAR_PORT + options.port_offset, HTTP_PORT + options.port_offset
    return f"pulsar://{host}:{pulsar}", f"http://{host}:{http}"


def _addresses(options: StandaloneOptions, host: str) -> list[tuple[str, str]]:
    """Return where each worker is reached by clients that know the machine as `host`."""
    http = f"http://{_url_host(host)}:{HTTP_PORT + options.port_offset}"
    if options.workers == 1 or options.single_port:
        ports = [PULSAR_PORT + options.port_offset] * options.workers
    else:
        first = PRIVATE_PULSAR_PORT + options.port_offset
        ports = [first + worker for worker in range(options.workers)]
    return [(f"pulsar://{_url_host(host)}:{port}", http) for port in ports]


def _http_hosts(options: StandaloneOptions) -> list[str]:
    """Return the names under which the HTTP port may be called."""
    hosts = {"localhost", "127.0.0.1", "[::1]", options.listen, advertised(options)}
    return sorted(hosts | set(options.listeners.values()))


# --- workers ---------------------------------------------------------------------------


def _worker_config(options: StandaloneOptions, worker: int) -> BrokerConfig:
    """Return the settings of one worker, with its share of the folder's memory.

    Raises:
        ConfigError: a setting is unknown or out of bounds.
    """
    settings = dict(options.settings)
    unknown = settings.keys() - BrokerConfig.__dataclass_fields__.keys()
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(sorted(unknown))}")
    whole = BrokerConfig(data=options.data, worker=worker, workers=options.workers, **settings)
    share = {
        name: max(getattr(whole, name) // options.workers, 4 * 2**20) for name in SHARED_BUDGETS
    }
    return BrokerConfig(
        data=options.data, worker=worker, workers=options.workers, **{**settings, **share}
    )


def _starts(options: StandaloneOptions, folder: DataFolder, sockets: _Sockets) -> list[WorkerStart]:
    starts: list[WorkerStart] = []
    for worker in range(options.workers):
        own = [*sockets.shared, *(sockets.private[worker] if sockets.private else ())]
        fds = [each.fileno() for each in own]
        starts.append(
            WorkerStart(
                config=asdict(_worker_config(options, worker)),
                shared_address=_shared_address(options),
                addresses=_addresses(options, advertised(options)),
                siblings=siblings(options),
                listeners={
                    name: _addresses(options, host) for name, host in options.listeners.items()
                },
                pulsar_fds=fds,
                admin_sockets=folder.admin_sockets(options.workers),
                http_hosts=_http_hosts(options),
                lock_fd=folder.lock_fd,
                inherit_fds=[*fds, folder.lock_fd],
            )
        )
    return starts


def banner(options: StandaloneOptions, folder: DataFolder, *, as_json: bool = False) -> str:
    """Return what a person wants to know once the doors are open, or a program, as one line."""
    pulsar, http = _shared_address(options)
    if as_json:
        told = {
            "ready": True,
            "data": str(folder.path),
            "url": pulsar,
            "admin_url": http,
            "workers": options.workers,
            "log_in": False,
            "this_machine_only": is_loopback(options.listen),
            "warnings": list(folder.warnings()),
        }
        return json.dumps(told, ensure_ascii=False)
    lines = [
        "Magnetar is ready",
        f"  data        {folder.path}",
        "  durability  every message is synced to disk before it is acknowledged",
        f"  Pulsar      {pulsar}",
        f"  HTTP        {http}  (admin REST, /metrics)",
        f"  workers     {options.workers}",
        "  log-in      off: "
        + (
            "whoever is on this machine may do anything"
            if is_loopback(options.listen)
            else "INSECURE, whoever reaches these ports may do anything"
        ),
        *(f"  warning     {warning}" for warning in folder.warnings()),
    ]
    return "\n".join(lines)

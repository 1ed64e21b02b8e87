"""Everything on one machine: a supervisor, its broker processes, and the HTTP port.

magnetar standalone
  ├─ this process: supervisor, and the HTTP port, which forwards to the owner of a topic
  ├─ worker 0: owns its share of the topics; journal/0
  └─ worker 1 ...
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from magnetar.broker.clock import SystemClock
from magnetar.broker.config import DIVIDED, BrokerConfig, ConfigError, share_of
from magnetar.broker.doors.certificates import CertificateError, Certificates
from magnetar.broker.files import DiskFiles
from magnetar.broker.logs import log_to_stderr
from magnetar.broker.storage.folder import DataFolder, FolderError
from magnetar.broker.supervisor import StartError, Supervisor, WorkerStart
from magnetar.standalone.addresses import (
    Bound,
    advertised,
    bind_all,
    http_hosts,
    shared_address,
    worker_addresses,
)
from magnetar.standalone.banner import banner, banner_for_programs
from magnetar.standalone.options import AddressError, StandaloneOptions
from magnetar.standalone.safety import check, secured, server_certificate

logger = logging.getLogger(__name__)

RENEW_LOOK_S = 6 * 3600.0
"""How often it is seen whether our own certificate ends soon."""

STARTING_ERRORS = (AddressError, CertificateError, ConfigError, FolderError, StartError)
"""Why a broker does not start, or cannot go on. The message is for people."""


def run(options: StandaloneOptions, say: Callable[[str], None], *, as_json: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the program.

    Args:
        options: What to start.
        say: Shows the banner.
        as_json: The banner is one line of JSON, for programs.

    Raises:
        AddressError, CertificateError, ConfigError, FolderError, StartError: it cannot start, or
            go on.
    """
    log_to_stderr()
    return asyncio.run(_serve(options, say, as_json=as_json))


async def _serve(options: StandaloneOptions, say: Callable[[str], None], *, as_json: bool) -> int:
    check(options)
    _worker_config(options, 0)  # a bad setting is refused before anything is touched
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    files, clock = DiskFiles(), SystemClock()
    with ExitStack() as held:
        folder = held.enter_context(DataFolder.open(files, options.data))
        given = options
        options, lines, told = secured(given, folder.path, files, _time(clock))
        certificates = Certificates(options.tls, files) if options.tls else None
        paths = folder.sibling_sockets(options.workers) if options.workers > 1 else []
        sockets = bind_all(options, paths, held)
        supervisor = Supervisor(_starts(options, folder, sockets), clock)
        await supervisor.launch()
        # The workers import their modules on the other cores while we import ours.
        from magnetar.broker.doors.admin.http.forward import serve_forward  # noqa: PLC0415

        await supervisor.start()
        http = await serve_forward(
            sockets.http,
            folder.admin_sockets(options.workers),
            hosts=http_hosts(options),
            secure_sockets=sockets.https,
            certificates=certificates,
        )
        following: list[asyncio.Task[None]] = []
        if certificates:
            certificates.watch()
            if not given.tls:
                following.append(loop.create_task(_renew(given, folder, files, clock)))
        try:
            if as_json:
                told = {"kernels": supervisor.kernels, **told}
                say(banner_for_programs(options, str(folder.path), folder.warnings(), told))
            else:
                lines = [f"  kernels     {supervisor.kernels}", *lines]
                say(banner(options, str(folder.path), folder.warnings(), lines))
            await _until_stopped(stop, supervisor)
        finally:
            for task in following:
                task.cancel()
            await supervisor.stop()
            await http.stop()
            if certificates:
                await certificates.stop()
    for each in supervisor.unfinished:
        logger.error("%s; its log says why. Nothing acknowledged is lost by that", each)
    return 1 if supervisor.unfinished else 0


async def _renew(
    options: StandaloneOptions, folder: DataFolder, files: DiskFiles, clock: SystemClock
) -> None:
    """Renew the certificate that we made, in time; all processes read it again by themselves."""
    while True:
        await asyncio.sleep(RENEW_LOOK_S)
        try:
            await asyncio.to_thread(server_certificate, options, folder.path, files, _time(clock))
        except (AddressError, OSError) as error:
            logger.warning("the certificate was not renewed: %s", error)


def _time(clock: SystemClock) -> datetime:
    return datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)


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
    share = {name: share_of(getattr(whole, name), options.workers) for name in DIVIDED}
    return BrokerConfig(
        data=options.data, worker=worker, workers=options.workers, **{**settings, **share}
    )


def _starts(options: StandaloneOptions, folder: DataFolder, sockets: Bound) -> list[WorkerStart]:
    starts: list[WorkerStart] = []
    tls = options.tls
    siblings = folder.sibling_sockets(options.workers) if options.workers > 1 else []
    for worker in range(options.workers):
        plain = [*sockets.shared, *(sockets.private[worker] if sockets.private else ())]
        secure = [
            *sockets.shared_tls,
            *(sockets.private_tls[worker] if sockets.private_tls else ()),
        ]
        own = [
            [each.fileno() for each in some]
            for some in (plain, secure, sockets.sibling[worker : worker + 1])
        ]
        starts.append(
            WorkerStart(
                config=asdict(_worker_config(options, worker)),
                shared_address=shared_address(options),
                addresses=worker_addresses(options, advertised(options)),
                siblings=siblings,
                listeners={
                    name: worker_addresses(options, host)
                    for name, host in options.listeners.items()
                },
                pulsar_fds=own[0],
                pulsar_tls_fds=own[1],
                sibling_fds=own[2],
                tls=[str(each) if each else "" for each in tls] if tls else [],
                proxy_protocol=options.proxy_protocol,
                insecure=options.exposed,
                admin_sockets=folder.admin_sockets(options.workers),
                http_hosts=http_hosts(options),
                lock_fd=folder.lock_fd,
                inherit_fds=[*own[0], *own[1], *own[2], folder.lock_fd],
            )
        )
    return starts

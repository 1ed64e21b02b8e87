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
from datetime import UTC, datetime
from typing import Any

from magnetar.broker.clock import SystemClock
from magnetar.broker.config import ConfigError
from magnetar.broker.doors.certificates import CertificateError, Certificates
from magnetar.broker.files import DiskFiles
from magnetar.broker.logs import log_to_stderr
from magnetar.broker.scaling import Scaling
from magnetar.broker.storage.folder import DataFolder, FolderError
from magnetar.broker.supervisor import StartError, Supervisor
from magnetar.standalone.addresses import http_hosts
from magnetar.standalone.banner import banner, banner_for_programs
from magnetar.standalone.layout import Layout, worker_config
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
    worker_config(options, 0)  # a bad setting is refused before anything is touched
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
        layout = Layout(options, folder, held)
        supervisor = Supervisor(layout.plan(options.workers), clock)
        await supervisor.launch()
        # The workers import their modules on the other cores while we import ours.
        from magnetar.broker.doors.admin.http.forward import (  # noqa: PLC0415
            public_siblings,
            serve_forward,
        )

        await supervisor.start()
        siblings = public_siblings(folder.admin_sockets(options.workers))
        layout.when_met = siblings.meet
        scaling = Scaling(supervisor, layout)
        http = await serve_forward(
            layout.shared.http,
            siblings,
            hosts=http_hosts(options),
            secure_sockets=layout.shared.https,
            certificates=certificates,
            table=supervisor.table,
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
            await scaling.stop()
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

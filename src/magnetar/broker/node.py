"""One broker process: built from its config, started, drained, stopped.

    supervisor's channel ──▶ Node.recover ──▶ Node.serve ──▶ ... ──▶ Node.stop
                              │                │                      │
                              │ metadata       │ catalog's duties     │ doors: say good-bye
                              │ journal replay │ admin REST           │ catalog: last cursors
                              │                │ Pulsar door          │ ledgers: flush
                              ▼                ▼                      ▼
                           "recovered"       "ready"               exit 0

This is the only place that builds things; everything else receives what it needs as
arguments. `python -m magnetar.broker.node FD` is what the supervisor starts; FD is its end
of the channel (see supervisor).
"""

import gc

if __name__ == "__main__":
    # Nothing of what modules are made of is garbage, and looking for it among so much costs more
    # than any of the imports. `main` lets the collector go on.
    gc.disable()

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

import magnetar
from magnetar.broker import compiled
from magnetar.broker.access.audit import Audit
from magnetar.broker.access.authorize import Access, Grantor
from magnetar.broker.access.settings import check_settings
from magnetar.broker.channel import Channel, Conversation, RefusedError
from magnetar.broker.clock import SystemClock
from magnetar.broker.config import BrokerConfig, ConfigError
from magnetar.broker.doors.admin.app import serve_admin
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.siblings import Siblings
from magnetar.broker.doors.admin.login import identification
from magnetar.broker.doors.certificates import CertificateError, Certificates, TlsFiles
from magnetar.broker.doors.listener import Entrance, Listener
from magnetar.broker.doors.pulsar.door import PulsarDoor
from magnetar.broker.doors.websocket.door import WebSocketDoor
from magnetar.broker.files import DiskFiles, Files, memory_bytes
from magnetar.broker.host import Host
from magnetar.broker.logs import log_to_stderr
from magnetar.broker.metadata import assignments
from magnetar.broker.metadata.assignments import Known
from magnetar.broker.metadata.first_start import prepare
from magnetar.broker.metadata.holdings import load_facts
from magnetar.broker.metadata.live_settings import LiveSettings
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions
from magnetar.broker.metadata.placement import Placement
from magnetar.broker.metadata.sqlite import POLL_INTERVAL_S, SqliteStore
from magnetar.broker.metadata.store import StoreError
from magnetar.broker.metadata.tenants import Clusters, Tenants
from magnetar.broker.metrics import Metrics
from magnetar.broker.moving import Moving, change_from, known_from
from magnetar.broker.ownership import Address, Ownership
from magnetar.broker.port import Participants, Port
from magnetar.broker.pulse import Pulse
from magnetar.broker.remote.front import Front
from magnetar.broker.remote.participants import AllParticipants
from magnetar.broker.remote.remote import Remote
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.folder import holds_entries
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.spill import SpillFolder
from magnetar.broker.storage.stock import Stock
from magnetar.broker.topics.catalog import Catalog
from magnetar.broker.topics.handover import HandOverError
from magnetar.broker.topics.limits.policies import RULING
from magnetar.broker.transactions.coordinator import Coordinator
from magnetar.broker.transactions.figures import Figures
from magnetar.broker.wire.pulsar.opened import open_body

logger = logging.getLogger(__name__)

DRAIN_S = 3.0
"""How long clients may take to hear good-bye before their connections are cut."""

PASSING_TIMEOUT_S = 1.0
"""For sockets that were sent before the message that tells of them."""

SCALE_TIMEOUT_S = 600.0
"""How long a change of the number of processes may take. What it waits for has limits itself."""

WORKERS_MAX = 1024
"""No worker has this number, or a higher one."""

GC_THRESHOLD = (50_000, 20, 50)
"""The hot paths make no cycles. The collector's defaults would look through the heap 70 times as
often, and find nothing."""


class Node:
    """The parts of one broker process."""

    def __init__(self, start: Mapping[str, Any], files: Files) -> None:
        """Take what the supervisor said (`supervisor.WorkerStart` as JSON).

        Raises:
            ConfigError: a setting is out of bounds.
        """
        settings = dict(start["config"])
        self._config = BrokerConfig(**{**settings, "data": Path(settings["data"])})
        self._files = files
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._loop = asyncio.get_running_loop()
        self._address = Address(*start["shared_address"])
        self._ownership = Ownership(
            self._config.worker,
            [Address(*each) for each in start["addresses"]],
            {
                name: [Address(*each) for each in addresses]
                for name, addresses in start["listeners"].items()
            },
        )
        self._alone = bool(start["alone"])
        self._passing = _passing(start["passing_fd"])
        self._siblings: Sequence[str] = start["siblings"]
        self._admin_sockets: Sequence[str] = start["admin_sockets"]
        self._pulsar_sockets = _sockets(start["pulsar_fds"])
        self._secure_sockets = _sockets(start["pulsar_tls_fds"])
        self._sibling_sockets = _sockets(start["sibling_fds"])
        self._tls: Sequence[str] = start["tls"]
        self._proxied = bool(start["proxy_protocol"])
        # One of several processes says it: what they say is added up.
        insecure = bool(start["insecure"]) and self._config.worker == 0
        self._metrics.gauge(
            "magnetar_insecure",
            "1: other machines are let in with --insecure.",
            lambda: float(insecure),
        )
        self._parts = AsyncExitStack()
        """What has been started, in the order in which it must not be stopped."""

    async def recover(self) -> None:
        """Open the metadata and replay the journals that fall to this worker.

        Raises:
            StorageError, StoreError: the folder cannot be served. Nothing was changed that a
                later start would miss.
        """
        config = self._config
        first = config.worker == 0
        self._store = await SqliteStore.open(
            config.data / "metadata.sqlite",
            self._files,
            must_exist=holds_entries(config.data, self._files),
            verify=first and self._alone,
            poll_interval_s=_poll_interval_s(config.workers),
        )
        self._parts.push_async_callback(self._store.close)
        if first:
            await prepare(self._store, config.cluster)
        if first and self._alone:
            await assignments.begin(self._store, config.workers)
        self._settings = LiveSettings(
            self._store, config, clock=self._clock, memory_bytes=memory_bytes()
        )
        await self._settings.load()
        self._ledgers = Ledgers(config, self._files, self._clock, self._metrics, self._loop)
        spilled = SpillFolder(self._files, config.data / "spill" / str(config.worker))
        spilled.clear()
        self._catalog = Catalog(
            ledgers=self._ledgers,
            store=self._store,
            ownership=self._ownership,
            config=config,
            clock=self._clock,
            loop=self._loop,
            metrics=self._metrics,
            spills=lambda _topic, _subscription: spilled.owner(),
            open_body=open_body,
        )
        facts = await load_facts(self._store)
        recovered = await self._ledgers.recover(
            self._journals_to_replay(), facts.sealed_ends.get, facts.synced
        )
        self._parts.push_async_callback(self._ledgers.stop)
        await self._catalog.recover(recovered)
        stock = Stock(self._store, self._ledgers, config.worker)
        await stock.take(recovered, config.workers if self._alone else WORKERS_MAX)
        self._parts.push_async_callback(stock.stop)
        logger.info(
            "worker %d replayed %.1f MiB of journal in %.2f s",
            config.worker,
            recovered.bytes_replayed / 2**20,
            recovered.seconds,
        )
        for gap in recovered.gaps:
            if gap.first.ledger not in facts.ledgers:
                continue  # dropped: a part of it was given back, the rest was in the journal still
            logger.error("entries that were durable cannot be read any more: %s", gap)
        if first and self._alone:
            await self._store.snapshot()

    def _journals_to_replay(self) -> list[int]:
        """Return whose journals fall to this worker: its own, and orphans go to the first."""
        config = self._config
        if not self._alone:  # whoever wrote others may be writing them
            return [config.worker]
        if config.worker or not self._files.exists(config.data / "journal"):
            return [config.worker]
        names = self._files.list(config.data / "journal")
        orphans = {int(name) for name in names if name.isdigit() and int(name) >= config.workers}
        return [0, *sorted(orphans)]

    async def serve(self) -> None:
        """Open the doors."""
        config = self._config
        await self._ledgers.stored.look_again()  # the others have recovered, too
        self._reclaim_for(config.workers)
        self._moving = Moving(self._catalog, self._ownership, self._store, self._metrics)
        await self._moving.start()
        self._parts.push_async_callback(self._moving.stop)
        await self._catalog.start()
        self._parts.push_async_callback(self._catalog.stop)
        self._settings.when_changed = self._settings_changed
        self._settings.read_back = self._ledgers.settings_in_use
        self._parts.callback(self._settings.watch())
        await self._settings.load()  # another process may have changed one while we recovered
        self._settings_changed(RULING)
        store = self._store
        port, participants = self._port()
        access = await self._access(port)
        coordinator = Coordinator(
            store,
            participants,
            self._catalog,
            worker=config.worker,
            workers=config.workers,
            clock=self._clock,
            loop=self._loop,
            figures=Figures(self._metrics),
        )
        self._metrics.gauge(
            "pulsar_txn_active_count", "Transactions that are not over.", lambda: coordinator.active
        )
        await coordinator.start()
        self._parts.push_async_callback(coordinator.stop)
        self._coordinator = coordinator
        self._processes = Siblings(self._admin_sockets, own=config.worker)
        context = Context(
            catalog=self._catalog,
            partitions=Partitions(store),
            namespaces=Namespaces(store),
            tenants=Tenants(store),
            clusters=Clusters(store),
            settings=self._settings,
            placement=Placement(store),
            ownership=self._ownership,
            siblings=self._processes,
            config=config,
            metrics=self._metrics,
            clock=self._clock,
            address=self._address,
            version=magnetar.__version__,
            access=access,
            coordinator=coordinator,
            host=Host(self._files, self._clock),
            complaint=self._complaint,
            moves=self._moving,
            ask_supervisor=self._ask_supervisor,
        )
        websockets = WebSocketDoor(
            port,
            config,
            clock=self._clock,
            loop=self._loop,
            metrics=self._metrics,
            access=access,
            identify=None if access is None else identification(access),
        )
        admin = await serve_admin(context, self._admin_sockets[config.worker], websockets)
        self._parts.push_async_callback(admin.stop)
        door = PulsarDoor(
            port,
            config,
            loop=self._loop,
            metrics=self._metrics,
            server_version=f"Magnetar {magnetar.__version__}",
            clock=self._clock,
            access=access,
            transactions=coordinator,
        )
        listener = Listener(
            self._entrances(),
            door,
            connections_max=config.connections_max,
            loop=self._loop,
            metrics=self._metrics,
            certificates=self._certificates(),
            handshakes_per_host_max=None if access is None else config.strangers_per_address_max,
        )
        listener.start()
        self._listener = listener
        self._parts.push_async_callback(listener.drain, DRAIN_S)
        pulse = Pulse(self._loop, self._clock, self._metrics)
        pulse.start()
        self._parts.callback(pulse.stop)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)

    async def _access(self, port: Port) -> Access | None:
        """Return who may do what; None: log-in is off.

        Raises:
            ConfigError: the settings of log-in do not fit together, or a file cannot be read.
        """
        config = self._config
        check_settings(config)
        if not config.authentication:
            return None
        from magnetar.broker.access.providers import (  # noqa: PLC0415 - only with log-in
            authenticator,
            known,
        )

        grantor = Grantor(self._store, known(config))
        ways = authenticator(config, self._files.read, self._clock, self._metrics)
        audit = Audit(port, config.worker, self._clock, self._metrics)
        access = Access(grantor, ways, audit)
        await access.start()
        self._parts.push_async_callback(access.stop)
        return access

    def _entrances(self) -> list[Entrance]:
        """Return on what Pulsar connections are accepted, and how they begin."""
        return [
            Entrance(self._pulsar_sockets, proxied=self._proxied),
            Entrance(self._secure_sockets, secure=True, proxied=self._proxied),
            Entrance(self._sibling_sockets, sibling=True),
        ]

    def _certificates(self) -> Certificates | None:
        """Return what TLS needs, followed from now on; None: it is not spoken."""
        if not self._tls:
            return None
        certificate, key, client_ca = (Path(each) if each else None for each in self._tls)
        assert certificate is not None
        assert key is not None
        certificates = Certificates(TlsFiles(certificate, key, client_ca), self._files)
        certificates.watch()
        self._parts.push_async_callback(certificates.stop)
        return certificates

    def _settings_changed(self, names: frozenset[str]) -> None:
        self._ledgers.settings_changed()
        if names & RULING:
            self._catalog.settings_changed()

    def _complaint(self) -> str:
        reason = self._catalog.trouble.reason
        return f"nothing can be stored: {reason}" if reason else ""

    def _port(self) -> tuple[Port, Participants]:
        """Return what the doors ask, and where topics take part in transactions.

        That is the log of this process, and what its siblings own. There may be some later.
        """
        remote = Remote(
            self._siblings,
            self._config,
            clock=self._clock,
            loop=self._loop,
            metrics=self._metrics,
            version=magnetar.__version__,
        )
        self._parts.push_async_callback(remote.stop)
        self._remote = remote
        front = Front(self._catalog, remote, self._ownership)
        return front, AllParticipants(self._catalog, remote, self._ownership)

    # --- the supervisor talks to us

    async def talk(self, channel: Channel, stop: asyncio.Event) -> None:
        """Do what the supervisor says, until it says stop or is gone."""
        conversation = Conversation(channel, self._answer, partial(self._heard, stop))
        self._conversation: Conversation = conversation
        self._moving.announce = lambda known: conversation.tell(_told(known))
        listening = asyncio.create_task(conversation.listen())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({listening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (listening, stopped):
            task.cancel()
        await asyncio.gather(listening, stopped, return_exceptions=True)

    async def greeting(self) -> Mapping[str, Any]:
        """Return what the supervisor hears when this process serves."""
        found = await assignments.load(self._store)
        greeting = {"ready": True, "kernels": compiled.described()}
        return {**greeting, **(_told(found) if found else {})}

    def _heard(self, stop: asyncio.Event, news: Mapping[str, Any]) -> None:
        if "table" in news:
            self._moving.heard(known_from(news))
        elif "stop" in news:
            stop.set()

    async def _ask_supervisor(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._conversation.ask(question, SCALE_TIMEOUT_S)

    async def _answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what the supervisor asks for (see `scaling`).

        Raises:
            RefusedError: it cannot be done.
        """
        try:
            match question["do"]:
                case "let_go":
                    await self._ledgers.let_go()
                case "meet":
                    await self._meet(question)
                case "give":
                    return {"given": await self._moving.give(change_from(question))}
                case other:
                    raise RefusedError(f"nobody knows how to {other!r}")
        except (HandOverError, StorageError, StoreError) as error:
            raise RefusedError(f"worker {self._config.worker}: {error}") from error
        return {}

    async def _meet(self, told: Mapping[str, Any]) -> None:
        """Take note of which processes there are from now on."""
        config = dict(told["config"])
        workers = config.pop("workers")
        self._settings.divide(workers, config)
        self._store.poll(_poll_interval_s(workers))
        self._ownership.meet(
            [Address(*each) for each in told["addresses"]],
            {
                name: [Address(*each) for each in addresses]
                for name, addresses in told["listeners"].items()
            },
        )
        self._remote.meet(told["siblings"])
        self._processes.meet(told["admin_sockets"])
        self._listener.add(self._passed(told["secure"]))
        self._reclaim_for(workers)
        self._settings_changed(RULING)
        self._catalog.meet(workers)
        await self._coordinator.meet(workers)

    def _passed(self, secure: Sequence[bool]) -> list[Entrance]:
        """Return the sockets that come beside a message, each with TLS or without."""
        if not secure:
            return []
        _, fds, _, _ = socket.recv_fds(self._passing, 1, len(secure))
        both = list(zip(_sockets(fds), secure, strict=True))
        return [Entrance([each], secure=with_tls, proxied=self._proxied) for each, with_tls in both]

    def _reclaim_for(self, workers: int) -> None:
        """Give back the space of logs that we wrote; the first process, also those of the gone."""
        worker = self._config.worker
        gone = range(workers, WORKERS_MAX) if worker == 0 else ()
        self._ledgers.stored.reclaim_for([worker, *gone])

    async def stop(self) -> None:
        """Drain and close, the last opened first."""
        await self._parts.aclose()


def _sockets(fds: Sequence[int]) -> list[socket.socket]:
    return [socket.socket(fileno=fd) for fd in fds]


async def live(channel: Channel) -> int:
    """Be a worker until the supervisor says stop or is gone; return the exit code."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    first = await channel.receive()
    if first is None:
        return 0
    node = Node(first["start"], DiskFiles())
    try:
        await node.recover()
        channel.send({"recovered": True})
        following = await channel.receive()
        if following and "serve" in following:
            await node.serve()
            channel.send(await node.greeting())
            await node.talk(channel, stop)
    finally:
        await node.stop()
    return 0


def _told(known: Known) -> Mapping[str, Any]:
    """Return a table as it goes over a channel."""
    return {"table": msgspec.to_builtins(known.table), "version": known.version}


def _poll_interval_s(workers: int) -> float | None:
    """Return how often changes by other processes are looked for; None: there are none."""
    return POLL_INTERVAL_S if workers > 1 else None


def _passing(fd: int) -> socket.socket:
    """Return where further sockets come from."""
    sock = socket.socket(fileno=fd)
    sock.settimeout(PASSING_TIMEOUT_S)
    return sock


async def run(fd: int) -> int:
    """Serve one worker over the channel at `fd`; tell the supervisor why, if that fails."""
    channel = await Channel.over(socket.socket(fileno=fd))
    try:
        return await live(channel)
    except (CertificateError, ConfigError, StorageError, StoreError, OSError) as error:
        logger.exception("cannot go on")
        channel.send({"failed": str(error)})
        return 1
    finally:
        await channel.close()


def main() -> int:
    """Run as the process that a supervisor started; return the exit code."""
    gc.freeze()
    gc.enable()
    log_to_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which tells us
    fd = int(sys.argv[1])
    with suppress(ImportError):
        if os.environ.get("MAGNETAR_EVENT_LOOP") != "asyncio":
            import uvloop  # noqa: PLC0415 - optional at run time

            return uvloop.run(run(fd))
    return asyncio.run(run(fd))


if __name__ == "__main__":
    sys.exit(main())

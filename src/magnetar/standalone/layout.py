"""What each broker process is started with, however many there are at the moment.

    options ──▶ shared ports, once ──────────────────────────┐
            ──▶ private ports and Unix sockets, per process ─┴──▶ starts(3) ──▶ WorkerStart x 3

Sockets are bound when first there is a process for them, and stay open while it is replaced.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from magnetar.broker.channel import RefusedError
from magnetar.broker.config import DIVIDED, BrokerConfig, ConfigError, share_of
from magnetar.broker.storage.folder import DataFolder, FolderError
from magnetar.broker.supervisor import WorkerStart
from magnetar.standalone.addresses import (
    Sockets,
    advertised,
    bind_path,
    bind_private,
    bind_shared,
    http_hosts,
    shared_address,
    worker_addresses,
)
from magnetar.standalone.options import AddressError, StandaloneOptions

logger = logging.getLogger(__name__)


class Layout:
    """The sockets of a broker, and what its processes are told."""

    def __init__(self, options: StandaloneOptions, folder: DataFolder, held: ExitStack) -> None:
        """Bind what all processes share; `held` closes everything.

        Raises:
            AddressError: an address is not ours, or a port is taken.
        """
        self._options = options
        self._folder = folder
        self.when_met: Callable[[Sequence[str]], None] = _nobody
        """Is told the admin sockets of all processes whenever there are others."""
        self._held = held
        self.shared = bind_shared(options, held)
        self._private: dict[int, tuple[Sockets, Sockets]] = {}
        """Per process, without and with TLS; none where look-ups do not lead there."""
        self._sibling: dict[int, Sockets] = {}

    def starts(self, workers: int) -> list[WorkerStart]:
        """Return how each of so many processes starts. What is not bound yet is bound.

        Raises:
            RefusedError: an address is taken, or a process would have too little of something.
        """
        try:
            return self.plan(workers)
        except (AddressError, ConfigError, FolderError) as error:
            raise RefusedError(str(error)) from error

    def met(self, starts: Sequence[WorkerStart]) -> None:
        """Take note of which processes there are from now on."""
        self.when_met(starts[0].admin_sockets)

    def close(self, workers: int) -> None:
        """Close what only processes from this number on had."""
        for number in [each for each in self._sibling if each >= workers]:
            plain, secure = self._private.pop(number, ((), ()))
            for each in (*plain, *secure, *self._sibling.pop(number)):
                each.close()
        for paths in (self._folder.sibling_sockets, self._folder.admin_sockets):
            for path in paths(workers + 1)[workers:]:
                Path(path).unlink(missing_ok=True)

    def plan(self, workers: int) -> list[WorkerStart]:
        """Do what `starts` does.

        Raises:
            AddressError, ConfigError, FolderError: it cannot be done, and why.
        """
        options, folder = replace(self._options, workers=workers), self._folder
        admin_sockets = folder.admin_sockets(workers)
        siblings = folder.sibling_sockets(workers)
        configs = [worker_config(options, worker) for worker in range(workers)]
        for worker in range(workers):
            if worker not in self._sibling:
                self._sibling[worker] = [self._held.enter_context(bind_path(siblings[worker]))]
            if worker not in self._private and workers > 1 and not options.single_port:
                self._private[worker] = bind_private(options, worker, self._held)
        addresses = worker_addresses(options, advertised(options))
        listeners = {
            name: worker_addresses(options, host) for name, host in options.listeners.items()
        }
        tls = options.tls
        starts: list[WorkerStart] = []
        for worker, config in enumerate(configs):
            private, private_tls = self._private.get(worker, ((), ()))
            plain, secure, sibling = (
                [each.fileno() for each in some]
                for some in (
                    (*self.shared.plain, *private),
                    (*self.shared.secure, *private_tls),
                    self._sibling[worker],
                )
            )
            starts.append(
                WorkerStart(
                    config=asdict(config),
                    shared_address=shared_address(options),
                    addresses=addresses,
                    siblings=siblings,
                    listeners=listeners,
                    pulsar_fds=plain,
                    pulsar_tls_fds=secure,
                    sibling_fds=sibling,
                    tls=[str(each) if each else "" for each in tls] if tls else [],
                    proxy_protocol=options.proxy_protocol,
                    insecure=options.exposed,
                    admin_sockets=admin_sockets,
                    http_hosts=http_hosts(options),
                    lock_fd=folder.lock_fd,
                    inherit_fds=[*plain, *secure, *sibling, folder.lock_fd],
                    divided=DIVIDED,
                )
            )
        return starts


def worker_config(options: StandaloneOptions, worker: int) -> BrokerConfig:
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


def _nobody(paths: Sequence[str]) -> None:
    """Stand in for `when_met` until somebody calls them."""

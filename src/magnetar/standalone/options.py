"""What a standalone broker can be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from magnetar.broker.doors.certificates import TlsFiles


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
    tls_certificate: Path | None = None
    """The server's certificate, in PEM; None: no TLS on loopback, one of our own beyond it."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Whose client certificates are accepted, in PEM; None: none is asked for."""
    proxy_protocol: bool = False
    """Whoever connects to a Pulsar port is a proxy, which says who is behind it."""
    listeners: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further advertised addresses by listener name."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of `BrokerConfig` that differ from their defaults."""

    @property
    def this_machine_only(self) -> bool:
        """Whether nobody on another machine can reach it."""
        return is_loopback(self.listen)

    @property
    def exposed(self) -> bool:
        """Whether other machines are let in where the safe thing was refused."""
        return self.insecure and not self.this_machine_only

    @property
    def plain(self) -> bool:
        """Whether there are ports without TLS: on loopback, or because somebody insists."""
        return self.this_machine_only or self.insecure

    @property
    def tls(self) -> TlsFiles | None:
        """The files that TLS ports work with; None: there are no such ports.

        Raises:
            AddressError: only one of certificate and key is given.
        """
        if self.tls_certificate is None and self.tls_key is None:
            if self.tls_client_ca is not None:
                raise AddressError(
                    "--tls-client-ca needs a server certificate as well:"
                    " --tls-certificate FILE --tls-key FILE; `magnetar certs` makes them"
                )
            return None
        if self.tls_certificate is None or self.tls_key is None:
            raise AddressError(
                "a TLS certificate comes with its key: --tls-certificate FILE --tls-key FILE"
            )
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach the address."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False

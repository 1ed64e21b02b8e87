"""Certificates for tests: one authority, and what it has signed."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from magnetar.authority import Authority, Pair
from magnetar.broker.doors.certificates import TlsFiles

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=800)
NAMES = ("localhost", "127.0.0.1", "::1")


class Papers:
    """An authority and a folder for what it signs."""

    def __init__(self, folder: Path, name: str = "a CA of tests") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = Authority.create(name, LONG_AGO)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.pair.certificate)
        self.ca_key = folder / "ca.key"
        self.ca_key.write_bytes(self.authority.pair.key)

    def write(self, name: str, pair: Pair) -> tuple[Path, Path]:
        """Store a certificate and its key."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        key.write_bytes(pair.key)
        certificate.write_bytes(pair.certificate)
        return certificate, key

    def server(
        self, names: Sequence[str] = NAMES, *, expired: bool = False, clients: Path | None = None
    ) -> TlsFiles:
        """Make what a server shows; it takes the place of what was made before."""
        pair = self.authority.server(names, LONG_AGO if expired else NOW)
        return TlsFiles(*self.write("server", pair), clients)

    def client(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """Make what a client shows."""
        return self.write(name, self.authority.client(name, LONG_AGO if expired else NOW))

    def trust(self, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return a client's view: it trusts the authority, and shows what it has."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if shown is not None:
            context.load_cert_chain(*shown)
        return context

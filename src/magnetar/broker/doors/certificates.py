"""The certificate that TLS doors show, and whose clients' certificates they accept.

    certificate, key, client CA ──▶ SSLContext ──▶ every handshake that begins from now on
         ▲                               │
         └── read again every POLL_S ────┘ changed and sound: a new context; else the old one stays

TLS 1.2 and 1.3 only. Connections keep the context that they began with, so new files cost
nobody a connection. A client certificate is asked for when there is a client CA, and not
demanded: who comes without one may log in otherwise. One that does not verify ends the handshake.
What went wrong in a handshake is put into words here, because OpenSSL's own help nobody.
"""

import asyncio
import contextlib
import logging
import ssl
from asyncio import sslproto
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from magnetar.broker.files import Files

logger = logging.getLogger(__name__)

POLL_S = 2.0
"""How often the files are looked at."""

HANDSHAKE_TIMEOUT_S = 5.0
"""For a client to complete the handshake, from the moment its connection was accepted."""

SHUTDOWN_TIMEOUT_S = 2.0
"""For a client to say good-bye in TLS's own words, after we did."""

READ_BYTES = 32 * 1024
"""asyncio reads so much at once from a TLS connection, into a buffer of that connection's own; its
own default is eight times as much. One TLS record has at most 16 KiB."""


class CertificateError(Exception):
    """The files of a certificate cannot be used. The message names them and says why."""


class TlsFiles(NamedTuple):
    """What a door needs to speak TLS, as PEM files."""

    certificate: Path
    """The server's certificate, and after it those between it and its CA."""
    key: Path
    client_ca: Path | None = None
    """Whose client certificates are accepted; None: none is asked for."""


class Certificates:
    """The TLS side of all doors of a process."""

    def __init__(self, paths: TlsFiles, files: Files) -> None:
        """Read the files.

        Raises:
            CertificateError: they cannot be used.
        """
        sslproto.SSLProtocol.max_size = READ_BYTES
        self._paths = paths
        self._files = files
        self._contents = self._read()
        self.context = server_context(paths, self._contents[2])
        """For the next handshake."""
        self._refused: tuple[bytes, ...] | None = None
        self._watching: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Follow changes of the files, until `stop`."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Follow them no more."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                # In a thread: the files may be on a network's disk.
                await asyncio.to_thread(self.look)
            except Exception:  # a bug; whoever has a certificate now goes on with it
                logger.exception("the certificate's files cannot be followed")

    def look(self) -> bool:
        """Take the files if they have changed and are sound; return whether they were taken."""
        try:
            found = self._read()
            if found in {self._contents, self._refused}:
                return False
            context = server_context(self._paths, found[2])
        except CertificateError as error:
            logger.warning("the certificate in use stays: %s", error)
            return False
        self.context, self._contents = context, found
        logger.info("certificate read again from %s", self._paths.certificate)
        return True

    def _read(self) -> tuple[bytes, bytes, bytes]:
        paths = self._paths
        try:
            return (
                self._files.read(paths.certificate),
                self._files.read(paths.key),
                self._files.read(paths.client_ca) if paths.client_ca else b"",
            )
        except OSError as error:
            raise CertificateError(f"cannot read {error.filename}: {error.strerror}") from error


def server_context(paths: TlsFiles, client_ca: bytes = b"") -> ssl.SSLContext:
    """Return what a server needs to know for its handshakes.

    Raises:
        CertificateError: a file holds something else than it should, or key and certificate do
            not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(paths.certificate, paths.key, password=_no_password)
    except ssl.SSLError as error:
        raise CertificateError(_unusable(paths, error)) from error
    except OSError as error:
        raise CertificateError(f"cannot read {paths.certificate}: {error.strerror}") from error
    if paths.client_ca:
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise CertificateError(
                f"{paths.client_ca} holds no certificate in PEM; "
                "it has to be that of the CA which signs client certificates"
            ) from error
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _no_password() -> bytes:
    raise CertificateError(
        "the key is protected by a password, which nobody can type for a broker; "
        "store it without one, readable by the broker only"
    )


def _unusable(paths: TlsFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {paths.key} is not that of the certificate in {paths.certificate}"
    return (
        f"{paths.certificate} and {paths.key} are no certificate and its key in PEM"
        f" ({error.reason or error})"
    )


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """Return the common name in a certificate, as `SSLObject.getpeercert` returns one.

    None: there is no certificate, or it does not have exactly one name.
    """
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for kind, value in part if kind == "commonName"]
    return str(names[0]) if len(names) == 1 and names[0] else None


def verified_name(transport: asyncio.BaseTransport) -> str | None:
    """Return the common name of the client's certificate, which the handshake has verified."""
    return common_name(transport.get_extra_info("peercert"))


# --- what went wrong -------------------------------------------------------------------

_NO_TLS = "it does not speak TLS, and this port is for pulsar+ssl:// or https:// only"
_TOO_OLD = "it speaks no TLS version from 1.2 on"
_DISTRUST = "it does not trust our certificate; has it been given our CA, and the right name?"

_WORDS = {
    "BAD_RECORD_TYPE": _NO_TLS,
    "HTTPS_PROXY_REQUEST": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "PACKET_LENGTH_TOO_SHORT": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "VERSION_TOO_LOW": _TOO_OLD,
    "WRONG_SSL_VERSION": _TOO_OLD,
    "SSLV3_ALERT_BAD_CERTIFICATE": _DISTRUST,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _DISTRUST,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _DISTRUST,
    "TLSV1_ALERT_UNKNOWN_CA": _DISTRUST,
}
"""What OpenSSL calls it -> what it means."""


def handshake_failure(error: BaseException) -> str:
    """Return why a handshake failed, as a person would say it of the client."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        reason = error.reason or str(error)
        return _WORDS.get(reason, "the TLS handshake failed") + f" ({reason})"
    if isinstance(error, TimeoutError) or "longer than" in str(error):
        return f"it did not get through the TLS handshake in {HANDSHAKE_TIMEOUT_S:g} s"
    return "it left in the middle of the TLS handshake"


def foreign_hello(data: bytes) -> str:
    """Return what a client speaks whose first bytes are no Pulsar frame; empty: who knows."""
    if data[:2] == b"\x16\x03":
        return "it speaks TLS, and this port does not; TLS has a port of its own"
    if data[:4] in {b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI"}:
        return "it speaks HTTP, and this is the Pulsar port; admin REST has a port of its own"
    if data[:5] == b"PROXY" or data[:4] == b"\r\n\r\n":
        return "it sends a PROXY header; --proxy-protocol makes the broker expect one"
    return ""

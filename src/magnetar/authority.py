"""A private certificate authority: keys and certificates for people who have none to buy.

    Authority.create(name) ──▶ ca.pem, ca.key
          ├─ .server(names)         what clients dial: host names and addresses
          ├─ .client(common name)   the role that the holder logs in as
          └─ .renewed(pair)         the same once more, with a later end and a new key

Elliptic curve P-256 throughout: a handshake costs a broker half of what RSA would. The CA's key
signs nothing but certificates, a server's certificate proves no client and the reverse. PEM in,
PEM out: who keeps the files, and how private they are, is the caller's business. `cryptography`
is loaded when the first of these is made. Source: RFC 5280.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

CA_DAYS = 3_650
LEAF_DAYS = 365
DAYS_MAX = 36_500
RENEW_DAYS = 30
"""What has less than this left is due to be renewed."""
COMMON_NAME_CHARS_MAX = 64
"""RFC 5280, upper bound of a common name."""
NAMES_MAX = 100

_HOST = re.compile(
    r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?",
    re.IGNORECASE,
)
_SLACK = timedelta(minutes=5)
"""Certificates begin so much earlier: clocks of other machines may be behind."""


class AuthorityError(ValueError):
    """A certificate cannot be made, or what should be one cannot be read. Says what to do."""


class Pair(NamedTuple):
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a person wants to know of a certificate."""

    kind: str
    """ca, server or client; other: it was made for something else."""
    common_name: str
    names: tuple[str, ...]
    """Host names and addresses that it is valid for."""
    issuer: str
    not_before: datetime
    not_after: datetime
    serial: str
    fingerprint: str
    """SHA-256 of the certificate, as browsers and `openssl x509` show it."""

    def days_left(self, now: datetime) -> float:
        """Return how many days remain; negative: it has ended."""
        return (self.not_after - now) / timedelta(days=1)


class Authority:
    """A certificate authority with its key at hand."""

    def __init__(self, pair: Pair) -> None:
        """Take its certificate and key.

        Raises:
            AuthorityError: they are not those of a CA, or do not belong together.
        """
        self.pair = pair
        self._certificate = _certificate(pair.certificate)
        self._key = _key(pair.key)
        if facts_of(pair.certificate).kind != "ca":
            raise AuthorityError("that is no certificate of a CA, so it can sign nothing")
        if _public(self._key) != _public(self._certificate):
            raise AuthorityError("the CA's key is not that of its certificate")

    @classmethod
    def create(cls, name: str, now: datetime, days: int = CA_DAYS) -> Self:
        """Make a new authority.

        Raises:
            AuthorityError: the name or the number of days makes no sense.
        """
        from cryptography import x509  # noqa: PLC0415 - loaded when it is needed

        key = _new_key()
        subject = _subject(name)
        builder = _builder(subject, subject, key, now, days)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(signs=True), critical=True)
        return cls(_sealed(builder, key, key))

    def server(self, names: Sequence[str], now: datetime, days: int = LEAF_DAYS) -> Pair:
        """Make a certificate for a server that is dialled under these names and addresses.

        Raises:
            AuthorityError: there are none, or one is neither.
        """
        from cryptography import x509  # noqa: PLC0415

        if not 1 <= len(names) <= NAMES_MAX:
            raise AuthorityError(f"{len(names)} names, expected 1 to {NAMES_MAX}")
        key = _new_key()
        builder = self._leaf(names[0][:COMMON_NAME_CHARS_MAX], key, now, days, client=False)
        alternatives = x509.SubjectAlternativeName([_general_name(each) for each in names])
        return _sealed(builder.add_extension(alternatives, critical=False), key, self._key)

    def client(self, common_name: str, now: datetime, days: int = LEAF_DAYS) -> Pair:
        """Make a certificate whose holder logs in as the role `common_name`.

        Raises:
            AuthorityError: the name is too long, or empty.
        """
        key = _new_key()
        return _sealed(self._leaf(common_name, key, now, days, client=True), key, self._key)

    def renewed(self, certificate: bytes, now: datetime, days: int = LEAF_DAYS) -> Pair:
        """Make a certificate for whom an older one was, with a key of its own.

        Raises:
            AuthorityError: it is not one of ours, or of neither kind.
        """
        old = facts_of(certificate)
        if not self.signed(certificate):
            raise AuthorityError(f"the certificate was signed by another CA, {old.issuer!r}")
        if old.kind == "server":
            return self.server(old.names, now, days)
        if old.kind == "client":
            return self.client(old.common_name, now, days)
        raise AuthorityError(f"a certificate of kind {old.kind} is not renewed, but made anew")

    def signed(self, certificate: bytes) -> bool:
        """Return whether a certificate is one of ours.

        Raises:
            AuthorityError: it is none at all.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        try:
            _certificate(certificate).verify_directly_issued_by(self._certificate)
        except (InvalidSignature, TypeError, ValueError):
            return False
        return True

    def _leaf(
        self,
        common_name: str,
        key: "CertificateIssuerPrivateKeyTypes",
        now: datetime,
        days: int,
        *,
        client: bool,
    ) -> "x509.CertificateBuilder":
        from cryptography import x509  # noqa: PLC0415
        from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

        left = self._certificate.not_valid_after_utc - now
        if left <= timedelta(0):
            raise AuthorityError("the CA has ended; make a new one, and give it to all clients")
        builder = _builder(
            _subject(common_name), self._certificate.subject, key, now, min(days, left.days or 1)
        )
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._certificate.public_key()  # type: ignore[arg-type]  # ours are all elliptic
        )
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
        )


def facts_of(certificate: bytes) -> Facts:
    """Return what a certificate says; of several in one file, the first.

    Raises:
        AuthorityError: it is none.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    found = _certificate(certificate)
    names: list[str] = []
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += alternatives.get_values_for_type(x509.DNSName)
        names += map(str, alternatives.get_values_for_type(x509.IPAddress))
    except (x509.ExtensionNotFound, ValueError):
        pass
    return Facts(
        kind=_kind(found),
        common_name=_common_name(found.subject),
        names=tuple(names),
        issuer=_common_name(found.issuer),
        not_before=found.not_valid_before_utc,
        not_after=found.not_valid_after_utc,
        serial=f"{found.serial_number:x}",
        fingerprint=found.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def due(certificate: bytes, now: datetime, days: float = RENEW_DAYS) -> bool:
    """Return whether a certificate ends soon.

    Raises:
        AuthorityError: it is none.
    """
    return facts_of(certificate).days_left(now) < days


def _kind(certificate: "x509.Certificate") -> str:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "ca"
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return "other"
    if ExtendedKeyUsageOID.SERVER_AUTH in usage:
        return "server"
    return "client" if ExtendedKeyUsageOID.CLIENT_AUTH in usage else "other"


def _common_name(name: "x509.Name") -> str:
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _certificate(pem: bytes) -> "x509.Certificate":
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise AuthorityError("that is no certificate in PEM") from error


def _key(pem: bytes) -> "CertificateIssuerPrivateKeyTypes":
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        return load_pem_private_key(pem, None)  # type: ignore[return-value]  # a CA's is one of them
    except (TypeError, ValueError) as error:
        raise AuthorityError("that is no key in PEM without a password") from error


def _public(of: "CertificateIssuerPrivateKeyTypes | x509.Certificate") -> bytes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    return of.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _new_key() -> "CertificateIssuerPrivateKeyTypes":
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return ec.generate_private_key(ec.SECP256R1())


def _subject(common_name: str) -> "x509.Name":
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    if not 1 <= len(common_name) <= COMMON_NAME_CHARS_MAX or not common_name.isprintable():
        raise AuthorityError(
            f"{common_name!r} is no common name: 1 to {COMMON_NAME_CHARS_MAX} printable characters"
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> "x509.GeneralName":
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.IPAddress(ip_address(name.strip("[]")))
    except ValueError:
        pass
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise AuthorityError(f"{name!r} is neither a host name nor an address")
    return x509.DNSName(name.rstrip("."))


def _usage(*, signs: bool) -> "x509.KeyUsage":
    from cryptography import x509  # noqa: PLC0415

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: "x509.Name",
    issuer: "x509.Name",
    key: "CertificateIssuerPrivateKeyTypes",
    now: datetime,
    days: int,
) -> "x509.CertificateBuilder":
    from cryptography import x509  # noqa: PLC0415

    if not 1 <= days <= DAYS_MAX:
        raise AuthorityError(f"{days} days, expected 1 to {DAYS_MAX}")
    start = now.astimezone(UTC) - _SLACK
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now.astimezone(UTC) + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _sealed(
    builder: "x509.CertificateBuilder",
    key: "CertificateIssuerPrivateKeyTypes",
    signer: "CertificateIssuerPrivateKeyTypes",
) -> Pair:
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    certificate = builder.sign(signer, hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )

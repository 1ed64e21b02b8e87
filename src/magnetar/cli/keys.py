"""Keys that tokens are signed and checked with, as a command line names them.

    FILE, file:///path       a secret's raw bytes; one half of a pair in DER or PEM
    data:;base64,...         the same, as text

What a key can sign with is decided by its kind alone.
"""

import base64
import binascii
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from magnetar.cli.errors import CommandError, ExitCode

SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, section 3.2: a secret has as many bytes as the hash, and 32 are enough for a broker."""
SECRET_BYTES_MIN = 32
CURVES = {"ES256": "SECP256R1", "ES384": "SECP384R1", "ES512": "SECP521R1"}
RSA_BITS = 2048
PAIRS = ("RS256", "RS384", "RS512", *CURVES)


def secret_key(place: str) -> tuple[bytes, list[str]]:
    """Return a secret, and what can be signed with it."""
    key = key_bytes(place)
    if b"-----BEGIN" in key:
        raise CommandError("that is a PEM file and no secret", "", ExitCode.USAGE)
    if len(key) < SECRET_BYTES_MIN:
        raise CommandError(
            f"a secret of {len(key)} bytes, at least {SECRET_BYTES_MIN} are needed",
            "make one with `magnetar tokens create-secret-key`",
            ExitCode.USAGE,
        )
    return key, [name for name, size in SECRET_BYTES.items() if len(key) >= size]


def private_key(place: str) -> tuple[Any, list[str]]:
    """Return the private half of a pair, and what can be signed with it."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - loaded when needed

    data = key_bytes(place)
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            key = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_der_private_key(data, None)
    except (TypeError, ValueError):
        raise CommandError(
            "that is no private key in PEM or DER without a password", "", ExitCode.USAGE
        ) from None
    return key, _algorithms(key.public_key())


def public_key(place: str) -> tuple[Any, list[str]]:
    """Return the public half of a pair, and what it can verify."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - loaded when needed

    data = key_bytes(place)
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_der_public_key(data)
    except ValueError:
        raise CommandError("that is no public key in PEM or DER", "", ExitCode.USAGE) from None
    return key, _algorithms(key)


def _algorithms(public: Any) -> list[str]:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415

    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= RSA_BITS:
        return ["RS256", "RS384", "RS512"]
    if isinstance(public, ec.EllipticCurvePublicKey):
        found = [name for name, curve in CURVES.items() if curve.lower() == public.curve.name]
        if found:
            return found
    raise CommandError(
        "tokens are signed with RSA keys from 2048 bits on, or P-256, P-384 or P-521",
        "make a pair with `magnetar tokens create-key-pair`",
        ExitCode.USAGE,
    )


def key_bytes(place: str) -> bytes:
    """Return a key from a file or from its own text."""
    if place.startswith("data:"):
        head, separator, body = place.partition(",")
        wrong = CommandError(
            "expected data:;base64, and the key in base64 after it", "", ExitCode.USAGE
        )
        if not separator or not head.endswith(";base64"):
            raise wrong
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error:
            raise wrong from None
    path = Path(unquote(urlsplit(place).path)) if place.startswith("file:") else Path(place)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", exit_code=ExitCode.NOT_FOUND) from None

"""Keys that tokens are verified with, and the text that says where they are.

    /etc/magnetar/token.key            a file: raw bytes of a secret, or PEM, or DER
    file:///etc/magnetar/token.key     the same
    data:;base64,c2VjcmV0Li4u          the key itself
    2026=/etc/magnetar/2026.key        the same, for tokens whose header says "kid": "2026"

Several are separated by spaces: the old and the new one, while keys are changed. What a key may
verify is decided by its kind, never by the token: a secret the HS* that it is long enough for,
an RSA key RS* and PS*, an elliptic curve the ES* of its size. So a public key cannot be passed
off as a secret. No message quotes what may be a secret.
Source: Apache Pulsar's token provider; RFC 7518 for the sizes.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from magnetar.broker.config import ConfigError

SECRET_BYTES_MIN = 32
"""Of a secret. RFC 7518, section 3.2, asks for as many as the hash has."""

KEY_BYTES_MAX = 64 * 1024

SECRET_ALGORITHMS = {"HS256": 32, "HS384": 48, "HS512": 64}
"""And how many bytes of secret each needs."""

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
RSA_BITS_MIN = 2048
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

_KEY_ID = re.compile(r"([A-Za-z0-9_.-]{1,64})=(.+)", re.DOTALL)

Read = Callable[[Path], bytes]


class Key(NamedTuple):
    """One key, and what it may verify."""

    id: str | None
    key: Any
    """Bytes of a secret, or a public key of the cryptography library."""
    algorithms: Sequence[str]

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {'/'.join(self.algorithms)})"


def secret_keys(setting: str, text: str, read: Read) -> list[Key]:
    """Return the secrets that a setting names.

    Raises:
        ConfigError: one cannot be read, or is too short.
    """
    keys: list[Key] = []
    for key_id, place in _places(text):
        secret = _contents(setting, place, read)
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigError(
                f"{setting}: a secret of {len(secret)} bytes, at least {SECRET_BYTES_MIN} are"
                " needed; `magnetar tokens create-secret-key` makes one"
            )
        if b"-----BEGIN" in secret:
            raise ConfigError(f"{setting}: this is a PEM file, a public key goes elsewhere")
        keys.append(Key(key_id, secret, secret_algorithms(secret)))
    return keys


def secret_algorithms(secret: bytes) -> list[str]:
    """Return what a secret is long enough for: as long as the hash, says RFC 7518."""
    return [name for name, size in SECRET_ALGORITHMS.items() if len(secret) >= size]


def public_keys(setting: str, text: str, read: Read) -> list[Key]:
    """Return the public keys that a setting names.

    Raises:
        ConfigError: one cannot be read, or is of a kind that tokens are not signed with.
    """
    return [
        public_key(setting, key_id, _contents(setting, place, read))
        for key_id, place in _places(text)
    ]


def public_key(setting: str, key_id: str | None, data: bytes) -> Key:
    """Return a public key from its PEM or DER form.

    Raises:
        ConfigError: it is none, or of a kind that tokens are not signed with.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import (  # noqa: PLC0415 - only with log-in
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_der_public_key,
        load_pem_public_key,
    )

    try:
        pem = data.lstrip().startswith(b"-----BEGIN")
        key = load_pem_public_key(data) if pem else load_der_public_key(data)
    except ValueError:
        raise ConfigError(f"{setting}: this is no public key in PEM or DER") from None
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return Key(key_id, key, RSA_ALGORITHMS)
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVE_ALGORITHMS:
        return Key(key_id, key, (_CURVE_ALGORITHMS[key.curve.name],))
    raise ConfigError(
        f"{setting}: a public key must be RSA with {RSA_BITS_MIN} bits or more, or P-256, P-384"
        " or P-521"
    )


def _places(text: str) -> list[tuple[str | None, str]]:
    """Return key ids and places, in the order given."""
    found: list[tuple[str | None, str]] = []
    for each in text.split():
        match = _KEY_ID.fullmatch(each)
        found.append((match[1], match[2]) if match else (None, each))
    return found


def _contents(setting: str, place: str, read: Read) -> bytes:
    if place.startswith("data:"):
        head, separator, body = place.partition(",")
        if not separator or not head.endswith(";base64"):
            raise ConfigError(f"{setting}: expected data:;base64, and the key after it")
        try:
            return b64decode(body, validate=True)
        except Base64Error:
            raise ConfigError(f"{setting}: what follows data:;base64, is not base64") from None
    path = unquote(urlsplit(place).path) if place.startswith("file:") else place
    try:
        data = read(Path(path))
    except OSError as error:
        raise ConfigError(f"{setting}: the key cannot be read: {error.strerror}") from None
    if len(data) > KEY_BYTES_MAX:
        raise ConfigError(f"{setting}: {len(data)} bytes are no key, the limit is {KEY_BYTES_MAX}")
    return data

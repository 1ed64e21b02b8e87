"""Log-in by name and password, from a file as Apache's `htpasswd` writes it.

    name:$2y$05$...         bcrypt   (htpasswd -B)
    name:$apr1$salt$...     MD5, a thousand rounds (htpasswd -m)
    name:{SHA}...           SHA-1, no salt (htpasswd -s)

A name that is not in the file costs as much as one that is, so that the time of an answer does
not tell which names there are. Checks run on a thread of their own, one after the other: bcrypt
takes a tenth of a second, and nobody else is to wait for it. A pair that was right is
remembered for a while by a keyed hash, because HTTP sends it with every call.
Source: Apache's "Password Formats".
"""

import asyncio
import hmac
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha1, sha256
from pathlib import Path

from magnetar.broker.access.attempts import UnderWay, host_of
from magnetar.broker.access.authentication import Credentials
from magnetar.broker.access.caller import Caller
from magnetar.broker.access.revocations import Revocations
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.clock import Clock
from magnetar.broker.config import MIB, ConfigError

FILE_BYTES_MAX = 4 * MIB
PASSWORD_BYTES_MAX = 1_024
WAITING_MAX = 64
"""Log-ins that wait for the thread. More are refused, rather than kept until they time out."""
WAITING_PER_HOST_MAX = 8
"""... of one host: whoever guesses must not keep others out."""
REMEMBERED_MAX = 1_000
REMEMBERED_S = 60.0
_NOBODY = "$2b$10$uxUCJpvbannFNgs.3tcUFudeT8bT2lQz9xibWs/YREvVVdTBt1cAO"
"""What a password for an unknown name is compared with, if the file has bcrypt."""
_WRONG = "the name or the password is wrong"


class Passwords:
    """Logs in by name and password."""

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], bytes],
        clock: Clock,
        revocations: Revocations | None = None,
    ) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read, or has a line that is none.
        """
        self._path = path
        self._read = read
        self._clock = clock
        self._revocations = revocations
        self._text: bytes | None = None
        self._hashes: Mapping[str, str] = {}
        self._decoy = _NOBODY
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._waiting = UnderWay()
        self._secret = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._look()

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Return whose name and password these are.

        Raises:
            AuthenticationError: nobody's.
        """
        name, separator, password = credentials.data.partition(b":")
        if not separator or len(password) > PASSWORD_BYTES_MAX:
            raise AuthenticationError(_WRONG)
        try:
            role = name.decode("utf-8")
        except UnicodeDecodeError:
            raise AuthenticationError(_WRONG) from None
        mark = hmac.digest(self._secret, credentials.data, sha256)
        stored = self._hashes.get(role, "")
        if self._right.get(mark, 0.0) <= self._clock.monotonic():
            await self._check(role, password, host_of(credentials.address))
            if self._hashes.get(role) == stored:  # it may have been changed meanwhile
                self._right[mark] = self._clock.monotonic() + REMEMBERED_S
            if len(self._right) > REMEMBERED_MAX:
                self._right.popitem(last=False)
        caller = Caller(role, "basic", token_id=_line(stored))
        if not self.still(caller):
            raise AuthenticationError("the role has been revoked")
        return caller

    async def _check(self, name: str, password: bytes, host: str) -> None:
        waiting = self._waiting
        if waiting.total() >= WAITING_MAX or waiting[host] >= WAITING_PER_HOST_MAX:
            raise AuthenticationError("too many log-ins at once; try again")
        with waiting.counted(host):
            right = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._matches, name, password
            )
        if not right:
            raise AuthenticationError(_WRONG)

    def _matches(self, name: str, password: bytes) -> bool:
        stored = self._hashes.get(name)
        right = matches(password, self._decoy if stored is None else stored)
        return right and stored is not None

    def still(self, caller: Caller) -> bool:
        """Return whether a caller's line is still in the file, and it has not been revoked."""
        revoked = self._revocations is not None and self._revocations.has(caller)
        stored = self._hashes.get(caller.role)
        return stored is not None and _line(stored) == caller.token_id and not revoked

    async def refresh(self) -> None:
        """Look whether the file has changed."""
        if self._revocations is not None:
            await self._revocations.refresh()
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        try:
            text = self._read(self._path)
        except OSError as error:
            raise ConfigError(f"basic_file: {self._path}: {error.strerror}") from None
        if text == self._text:
            return
        hashes = password_hashes(text)
        # The first line's kind stands for all: files are written by one tool.
        decoy = next(iter(hashes.values()), _NOBODY)
        self._hashes, self._text, self._decoy = hashes, text, decoy
        self._right.clear()


def _line(stored: str) -> str:
    """Return what tells one hash from another: who came by a password since changed must go."""
    return sha256(stored.encode()).hexdigest()


def password_hashes(text: bytes) -> dict[str, str]:
    """Return the hash of each name in a file.

    Raises:
        ConfigError: a line is not what htpasswd writes; the message does not quote it.
    """
    if len(text) > FILE_BYTES_MAX:
        raise ConfigError(f"basic_file: more than {FILE_BYTES_MAX} bytes")
    hashes: dict[str, str] = {}
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError("basic_file: the file is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, separator, stored = stripped.partition(":")
        if not separator or not name or not stored.startswith(("$2", "$apr1$", "{SHA}")):
            raise ConfigError(
                f"basic_file: line {number}: expected name:hash with a hash of bcrypt, MD5 or SHA"
                " (htpasswd -B, -m, -s)"
            )
        hashes[name] = stored
    return hashes


def matches(password: bytes, stored: str) -> bool:
    """Return whether a password is the one that a hash was made of."""
    if stored.startswith("$2"):
        import bcrypt  # noqa: PLC0415 - only with log-in

        try:  # bcrypt knows 72 bytes of a password, and htpasswd cut off the rest as well
            return bcrypt.checkpw(password[:72], stored.encode("ascii"))
        except ValueError:
            return False
    if stored.startswith("$apr1$"):
        salt = stored.split("$")[2][:8]
        return hmac.compare_digest(apr1(password, salt.encode()).encode(), stored.encode())
    try:
        expected = b64decode(stored.removeprefix("{SHA}"), validate=True)
    except Base64Error:
        return False
    return hmac.compare_digest(sha1(password, usedforsecurity=False).digest(), expected)


_ITOA64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 1_000


def apr1(password: bytes, salt: bytes) -> str:
    """Return Apache's variant of the MD5 password hash.

    Source: the description of `apr1` in Apache's documentation of password formats.
    """
    inner = _md5(password + salt + password)
    text = bytearray(password + b"$apr1$" + salt)
    text += (inner * (len(password) // 16 + 1))[: len(password)]
    length = len(password)
    while length:
        text += b"\0" if length & 1 else password[:1]
        length >>= 1
    digest = _md5(bytes(text))
    for number in range(_ROUNDS):
        piece = password if number & 1 else digest
        if number % 3:
            piece += salt
        if number % 7:
            piece += password
        digest = _md5(piece + (digest if number & 1 else password))
    return f"$apr1${salt.decode('ascii')}${_encoded(digest)}"


_ORDER = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))
"""Which bytes of the digest make four letters together. The last one, 11, makes two."""


def _encoded(digest: bytes) -> str:
    text = "".join(_to64(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _ORDER)
    return text + _to64(digest[11], 2)


def _to64(value: int, count: int) -> str:
    return "".join(_ITOA64[(value >> 6 * place) & 63] for place in range(count))


def _md5(data: bytes) -> bytes:
    return md5(data, usedforsecurity=False).digest()

"""Credentials that are good by themselves and are not to be taken any more: a file.

    # one per line
    id 4f2c0e9a            the token whose "jti" this is
    role build-server      every token of this role, and everybody who logs in with it

The file is looked at every few seconds, so that a line takes effect well within a minute; open
connections are closed at their next check. A file that cannot be read any more changes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from magnetar.broker.access.caller import Caller
from magnetar.broker.config import MIB, ConfigError

logger = logging.getLogger(__name__)

FILE_BYTES_MAX = 16 * MIB


class Revocations:
    """What has been revoked."""

    def __init__(self, path: Path, read: Callable[[Path], bytes]) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read, or understood.
        """
        self._path = path
        self._read = read
        self._text: bytes | None = None
        self._ids: frozenset[str] = frozenset()
        self._roles: frozenset[str] = frozenset()
        self._look()

    def has(self, caller: Caller) -> bool:
        """Return whether a caller's credential has been revoked."""
        return caller.token_id in self._ids or any(each in self._roles for each in caller.names)

    async def refresh(self) -> None:
        """Look whether the file has changed.

        Raises:
            ConfigError: it cannot be read, or understood; what held before still does.
        """
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        try:
            text = self._read(self._path)
        except OSError as error:
            raise ConfigError(f"token_revocations: {self._path}: {error.strerror}") from None
        if text == self._text:
            return
        if len(text) > FILE_BYTES_MAX:
            raise ConfigError(f"token_revocations: more than {FILE_BYTES_MAX} bytes")
        ids, roles = revoked(text)
        self._ids, self._roles, self._text = ids, roles, text


def revoked(text: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Return the token ids and the roles that a file revokes.

    Raises:
        ConfigError: a line is neither.
    """
    found: dict[str, set[str]] = {"id": set(), "role": set()}
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError("token_revocations: the file is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        kind, _, value = stripped.partition(" ")
        if kind not in found or not value.strip():
            raise ConfigError(f"token_revocations: line {number}: expected `id X` or `role X`")
        found[kind].add(value.strip())
    return frozenset(found["id"]), frozenset(found["role"])

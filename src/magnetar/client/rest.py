"""REST over one connection: JSON out, JSON or the reason of a refusal in.

    kept open between calls ──closed meanwhile?──▶ GET is asked once more; other calls never are:
                                                   they always have a connection of their own

Blocking, and bounded in time and size. For one thread.
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from magnetar.client.credentials import Credentials, tls_trouble

ANSWER_BYTES_MAX = 256 * 1024 * 1024
"""More than this in one answer is refused, so that a broken server cannot fill our memory."""

Json = Any
"""What a JSON text may hold. The shapes are Pulsar's and documented there."""


class AdminError(Exception):
    """A call did not work. `status` is HTTP's; 0: no broker answered at all."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Rest:
    """One server, and the connection to it. Usable as a context manager; one thread only."""

    def __init__(self, url: str, credentials: Credentials, timeout_s: float) -> None:
        """Dial nobody yet.

        Raises:
            AdminError: the address makes no sense.
            CredentialsError: a credential cannot be read.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise AdminError(0, f"{url!r} is no admin address; expected http://host:port")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/")
        self._host = parts.hostname
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                parts.hostname, port, timeout=timeout_s, context=credentials.tls()
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout_s)
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if (shown := credentials.header()) is not None:
            self._headers["Authorization"] = shown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A later call opens it again."""
        self._connection.close()

    def json(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, object] | None = None,
    ) -> Json:
        """Ask for something; return what the answer says, None if it says nothing.

        Raises:
            AdminError: it was refused, or nobody answers.
        """
        answer = self._call(method, path, body, query)
        if not answer:
            return None
        try:
            return json.loads(answer)
        except ValueError:
            start = answer[:80].decode("utf-8", "replace")
            raise AdminError(0, f"{self.url}{path} answered with {start!r}, not JSON") from None

    def text(self, method: str, path: str) -> str:
        """Ask for something whose answer is plain text."""
        return self._call(method, path, None, None).decode("utf-8", "replace")

    def _call(
        self, method: str, path: str, body: Json | None, query: Mapping[str, object] | None
    ) -> bytes:
        target = self._base + path
        if query:
            target += "?" + urlencode({key: _word(value) for key, value in query.items()})
        data = None if body is None else json.dumps(body).encode()
        status, answer = self._exchange(method, target, data)
        if 200 <= status < 300:
            return answer
        raise AdminError(status, _reason(status, answer, method, path))

    def _exchange(self, method: str, target: str, data: bytes | None) -> tuple[int, bytes]:
        if method != "GET":
            # A kept connection may turn out closed, and then nobody knows whether the call was
            # carried out. Only what can be asked twice goes over one.
            self.close()
        kept = self._connection.sock is not None
        try:
            return self._once(method, target, data)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept or isinstance(error, TimeoutError):
                raise self._unreachable(error) from error
        try:
            return self._once(method, target, data)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error

    def _once(self, method: str, target: str, data: bytes | None) -> tuple[int, bytes]:
        self._connection.request(method, target, data, self._headers)
        response = self._connection.getresponse()
        answer = response.read(ANSWER_BYTES_MAX + 1)
        if len(answer) > ANSWER_BYTES_MAX:
            self.close()
            raise AdminError(0, f"{target}: the answer has more than {ANSWER_BYTES_MAX} bytes")
        return response.status, answer

    def _unreachable(self, error: Exception) -> AdminError:
        if isinstance(error, TimeoutError):
            return AdminError(0, f"no answer from {self.url} within {self._connection.timeout:g} s")
        if isinstance(error, ConnectionRefusedError):
            return AdminError(
                0,
                f"no broker answers at {self.url}; start one with `magnetar standalone`, "
                "or name another with --admin-url",
            )
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return AdminError(0, f"{self.url}: " + "; ".join(tls_trouble(error, self._host)))
        # A broker that dies hangs up, too; only what is no HTTP says that this is another port.
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
            return AdminError(
                0,
                f"{self.url} is not an HTTP admin port, it answered {str(error)[:60]!a}; "
                "name another with --admin-url",
            )
        return AdminError(0, f"no broker answers at {self.url}: {error}")


def _reason(status: int, answer: bytes, method: str, path: str) -> str:
    try:
        told = json.loads(answer)
        reason = told["reason"]
    except (ValueError, TypeError, KeyError):
        reason = " ".join(answer[:200].decode("utf-8", "replace").split())
    return str(reason) if reason else f"{method} {path} was refused with HTTP status {status}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

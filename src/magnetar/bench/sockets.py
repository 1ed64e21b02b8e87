"""Sockets that never wait, with and without TLS, as a generator's loop needs them."""

import socket
import ssl
from resource import RUSAGE_SELF, getrusage

from magnetar.bench.load import RunError

RECEIVE_BYTES = 1 << 20

NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def receive_now(sock: socket.socket) -> bytes:
    """Return what has arrived; nothing if nothing has.

    Raises:
        RunError: the other side has closed the connection.
    """
    try:
        data = sock.recv(RECEIVE_BYTES)
    except NOT_NOW:
        return b""
    except ConnectionError as error:
        raise RunError(f"the connection was lost: {error.strerror}") from error
    if not data:
        raise RunError("the broker closed the connection", "see its log")
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        # A selector sees the socket, not what TLS has already taken out of it.
        return data + _rest(sock)
    return data


def _rest(sock: ssl.SSLSocket) -> bytes:
    parts: list[bytes] = []
    while sock.pending():
        try:
            parts.append(sock.recv(RECEIVE_BYTES))
        except NOT_NOW:
            break
    return b"".join(parts)


def send_now(sock: socket.socket, data: memoryview) -> memoryview:
    """Send as much as fits; return the rest.

    Raises:
        RunError: the connection is lost.
    """
    try:
        return data[sock.send(data) :]
    except NOT_NOW:
        return data
    except ConnectionError as error:
        raise RunError(f"the connection was lost: {error.strerror}") from error


def cpu_s() -> float:
    """Return the CPU time this process has used."""
    used = getrusage(RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

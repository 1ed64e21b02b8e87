"""Says that something takes long, and why, while a command waits for the broker.

    expect ──▶ nothing met for AFTER_S ──▶ ask the broker how it is ──▶ one line on standard error
    met ─────▶ all is well again

The official client tries for half a minute and more before it gives up, in silence. It is right
to try; a person should know meanwhile that it does.
"""

import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from magnetar.cli.verb import Asked, log_in_advice
from magnetar.client.address import service_addresses
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError

AFTER_S = 3.0
"""How long nobody wonders."""
POLL_S = 0.25
PROBE_TIMEOUT_S = 2.0
"""How long to wait for a port to say what it speaks."""


class Patience:
    """Watches over what is expected from the broker. A context manager; safe in threads."""

    def __init__(
        self,
        why: Callable[[], str],
        say: Callable[[str], None],
        after_s: float = AFTER_S,
        *,
        whom: str = "the broker",
    ) -> None:
        """Take how to ask and how to tell.

        Args:
            why: Returns why nothing comes; empty: it is not known.
            say: Shows one line.
            after_s: How long nothing may come before it is told.
            whom: Who is waited for.
        """
        self.reason = ""
        """Why nothing came when that was last asked, and nothing has come since."""
        self._why = why
        self._say = say
        self._after_s = after_s
        self._whom = whom
        self._lock = threading.Lock()
        self._expected = 0
        self._since_s = 0.0
        self._said = False
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        # A daemon, and never joined: it may hang in a call of its own when the command ends.
        threading.Thread(target=self._watch, name="patience", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def expect(self) -> None:
        """Wait for one more answer."""
        with self._lock:
            if not self._expected:
                self._since_s = time.perf_counter()
            self._expected += 1

    def met(self) -> None:
        """Take note of an answer."""
        with self._lock:
            self._expected -= 1
            self._since_s = time.perf_counter()
            self._said = False
            self.reason = ""

    def _watch(self) -> None:
        while not self._stop.wait(min(POLL_S, self._after_s)):
            with self._lock:
                waited_s = time.perf_counter() - self._since_s
                due = self._expected > 0 and not self._said and waited_s >= self._after_s
                since_s = self._since_s
            if due:
                self._tell(since_s)

    def _tell(self, since_s: float) -> None:
        reason = self._why()
        with self._lock:
            if self._since_s != since_s or self._stop.is_set():
                return  # something came meanwhile
            self._said, self.reason = True, reason
        if reason:
            self._say(f"{reason}; still trying")
        else:
            self._say(f"no answer from {self._whom} for {self._after_s:g} s; still trying")


def complaint(admin: Admin, url: str, log_in: str = "") -> str:
    """Return why a broker does not answer; empty: it is well, or it does not say.

    `log_in` is what to do if nobody has logged in.
    """
    try:
        with admin:
            admin.health()
            admin.version()  # who may do anything at all may ask for it
    except AdminError as error:
        if error.status == 401:
            return f"{error.reason}; {log_in}" if log_in else error.reason
        return f"the broker takes nothing: {error.reason}" if error.status == 503 else misdial(url)
    return ""


def misdial(url: str) -> str:
    """Return what is wrong with an address at which HTTP answers; empty: none does."""
    for host, port in service_addresses(url):
        try:
            with socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = connection.recv(5)
        except OSError:
            continue
        if answer == b"HTTP/":
            return f"{host}:{port} is no Pulsar port, HTTP answers there"
    return ""


def patient(asked: Asked) -> Patience:
    """Return what watches over the broker of a command line."""
    return Patience(
        lambda: complaint(asked.admin(), asked.url, log_in_advice(asked.credentials)),
        asked.remark,
        whom=f"the broker at {asked.url}",
    )

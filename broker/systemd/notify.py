"""The notify protocol of systemd: lines in datagrams to the socket that NOTIFY_SOCKET names (sd_notify(3))."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Mapping

log = logging.getLogger("broker.systemd")

MAX_UNSENT = 64


class Notifier:
    """Tells the service manager how the broker is; without one it does nothing, and it never raises or waits.

    Args:
        environ: where NOTIFY_SOCKET is looked for: a path, or `@` and a name in the abstract namespace.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._unsent: deque[bytes] = deque(maxlen=MAX_UNSENT)
        self._complained = False
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @property
    def is_heard(self) -> bool:
        """Whether a service manager listens."""
        return self._socket is not None

    def tell(self, *lines: str) -> None:
        """Send one message of `lines`, after what could not be sent before."""
        if self._socket is not None:
            self._unsent.append("\n".join(lines).encode())
            self.flush()

    def flush(self) -> None:
        """Send what the manager had no room for."""
        while self._unsent and self._socket is not None:
            try:
                self._socket.sendto(self._unsent[0], self._address)
            except BlockingIOError:
                return
            except OSError as error:
                self._complain(error)
            self._unsent.popleft()

    def close(self) -> None:
        """Tell nothing any more."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning("systemd does not hear the broker at NOTIFY_SOCKET: %s", error.strerror or error)


def _address(text: str) -> str:
    """The address of the socket; empty when there is none that can be used."""
    if text.startswith("@"):
        return "\0" + text[1:]
    if text and not text.startswith("/"):
        log.warning("NOTIFY_SOCKET is %r: only paths and names that begin with '@' are supported", text)
        return ""
    return text


def status(text: str) -> str:
    """The line that shows `text` in `systemctl status`."""
    return "STATUS=" + text.replace("\n", " ")


def reloading() -> str:
    """The lines that say that a reload begins; READY=1 ends it, also when it failed."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"

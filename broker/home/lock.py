"""One broker per home: the lock file, and the directory of the socket.

Binding an ipc endpoint silently steals it from a live broker (libzmq unlinks the path first), so a lock is taken
before.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

# sockaddr_un holds 108 bytes with the final zero.
MAX_SOCKET_PATH = 107


class HomeError(Exception):
    """The broker's home cannot be used; the text says why and what to do."""


class HomeBusy(HomeError):
    """Another process has the home.

    Args:
        holder: its number, or `unknown`.
    """

    def __init__(self, home: Path, holder: str) -> None:
        super().__init__(
            f"another broker runs on {home}: process {holder} (stop it, or choose another home with --home)"
        )
        self.holder = holder


class HomeLock:
    """An exclusive flock on `broker.lock` in the home; it ends with the process, however that ends."""

    def __init__(self, home: Path) -> None:
        self._path = home / "broker.lock"
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock; raises HomeBusy naming the holder, HomeError when there can be no lock."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeError(f"cannot open {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise HomeError(f"cannot lock {self._path}: {error.strerror}") from None
            raise HomeBusy(self._path.parent, holder or "unknown") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two brokers lock two different files."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def prepare_socket(path: Path) -> str:
    """Make the directory of an ipc socket private and return the endpoint; raises HomeError.

    Args:
        path: where the socket will be; anything left there by a killed broker is replaced.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise HomeError(
            f"socket path {path} has {len(os.fsencode(path))} bytes, the system allows {MAX_SOCKET_PATH}"
            " (choose a shorter --home, or set bus.socket)"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.parent.stat()
        if status.st_uid == os.getuid() and status.st_mode & 0o077:
            path.parent.chmod(0o700)
    except OSError as error:
        raise HomeError(f"cannot prepare the socket's directory {path.parent}: {error.strerror}") from None
    return f"ipc://{path}"

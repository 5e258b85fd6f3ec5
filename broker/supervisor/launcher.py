"""The program that makes all plugin processes: one per broker, with one thread, so that it may fork.

The broker has threads, and a fork of such a process may deadlock before its exec (cpython#82616). This one imports
little, is ready in some 20 ms, and forks a guard for each plugin (guard.py); a fork shares its memory, so that a
guard has little more than one megabyte for itself where a program of its own would need eight.

Over a SOCK_SEQPACKET socket it gets a message for each plugin to start, `spawn`, with three descriptors: a file with
what to run, the pipe for what the plugin writes, and the socket on which guard and broker talk. When the socket is
closed it waits for its guards, who have lost theirs too, and ends.
"""

import gc
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback

from broker.supervisor.guard import KILL_SECS, guard, report
from broker.supervisor.processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NAME,
    children,
    prctl,
    reap,
    send_signal,
    stat,
    wake_on_child_end,
)

SPAWN = b"spawn"
DESCRIPTORS = 3
SIZE_OF_INT = 4


class Launcher:
    """Forks guards until the broker's end of the channel is closed."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._guards: set[int] = set()
        self._wake = wake_on_child_end()

    def run(self) -> None:
        """Serves the broker, then waits until its guards have done their work."""
        while self._obey():
            self._wait([self._channel, self._wake], None)
            self._reap()
        give_up_at = time.monotonic() + 2 * KILL_SECS
        while self._reap() and (patience := give_up_at - time.monotonic()) > 0:
            self._wait([self._wake], patience)

    def _wait(self, sources: list[socket.socket | int], patience: float | None) -> None:
        if self._wake in select.select(sources, [], [], patience)[0]:
            os.read(self._wake, 4096)

    def _obey(self) -> bool:
        try:
            message, descriptors = receive(self._channel)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if message == SPAWN:
            self._fork_guard(descriptors)
        return message != b""

    def _fork_guard(self, descriptors: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=descriptors.pop()) as control:
                report(control, "failed", text=f"no process could be made for it: {error.strerror}")
        else:
            if pid == 0:
                be_guard(descriptors)
            self._guards.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self) -> bool:
        """Takes zombies, ends strays, and returns whether there are any children."""
        reap(children(os.getpid()))
        mine = set(children(os.getpid()))
        self._guards &= mine
        # Only guards belong here. What else has become our child had a guard that was killed.
        send_signal(signal.SIGKILL, {pid: seen for pid in mine - self._guards if (seen := stat(pid))})
        return bool(mine)


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """The next message and the descriptors with it, without waiting.

    socket.recv_fds will not do: it ignores the flags it is given, so it would block, and no descriptor would be
    closed on exec.
    """
    space = socket.CMSG_LEN(DESCRIPTORS * SIZE_OF_INT)
    message, extra, _, _ = channel.recvmsg(64, space, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    data = b"".join(data for level, kind, data in extra if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS))
    return message, [
        int.from_bytes(data[start : start + SIZE_OF_INT], sys.byteorder) for start in range(0, len(data), SIZE_OF_INT)
    ]


def be_guard(descriptors: list[int]) -> None:
    """Makes this forked process a guard; never returns."""
    try:
        guard(*descriptors)
    except BaseException:  # noqa: BLE001 - the launcher's own life must not go on in this process
        traceback.print_exc()
    finally:
        os._exit(0)


def main() -> None:
    """Runs the launcher; its last arguments are how many descriptors plugins may have, and the number of its socket."""
    limit, descriptor = map(int, sys.argv[-2:])
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    # A terminal or systemd may signal all of the broker's processes; when to end is the broker's word alone. Blocked
    # and not ignored: what is sent to a plugin before it has unblocked them waits for it and is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NAME, b"plugmesh-launch")
    # The collector writes into every object it looks at, and a page that is written to is no longer shared.
    gc.disable()
    gc.freeze()
    Launcher(channel).run()

"""The processes of this machine as /proc shows them: who descends from whom, and signals that hit nobody else.

Launcher and guards import this before anything else is running, so it imports little itself.
"""

import ctypes
import os
import signal
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

# A process; its number and start time together identify it for good.
Stat = namedtuple("Stat", "state parent group start")


def stat(pid: int) -> Stat | None:
    """Reads /proc/PID/stat; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return None
    # The name before the closing bracket may hold brackets and spaces itself.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(fields[0], int(fields[1]), int(fields[2]), int(fields[19]))


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`, zombies too."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except ProcessLookupError:
        return found
    except FileNotFoundError:
        # It ended meanwhile, or this kernel was built without CONFIG_PROC_CHILDREN.
        return [each for each in _everybody() if (seen := stat(each)) and seen.parent == pid]
    return found


def descendants(pid: int) -> dict[int, Stat]:
    """All living processes below `pid`; zombies are passed through, not counted."""
    seen: set[int] = set()
    open_ends = [pid]
    while open_ends:
        below = set(children(open_ends.pop())) - seen
        seen |= below
        open_ends += below
    return {each: now for each in seen if (now := stat(each)) and now.state not in b"ZX"}


def send_signal(number: int, processes: Mapping[int, Stat]) -> None:
    """Signals processes as they were seen; a number that has another owner by now is left alone."""
    for pid, seen in processes.items():
        try:
            process = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # Checked after the descriptor was opened, so the descriptor cannot mean anybody else.
            now = stat(pid)
            if now and now.start == seen.start:
                signal.pidfd_send_signal(process, number)
        except OSError:
            # It has just ended, or it is another user's, and then the caller finds it alive.
            continue
        finally:
            os.close(process)


def reap(pids: Iterable[int]) -> None:
    """Takes the zombies among our own children."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def prctl(option: int, value: int | bytes) -> None:
    """Calls prctl(2); raises OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    argument = value if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, *(ctypes.c_ulong(0),) * 3) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}) refused: {os.strerror(number)}")


def drop_capabilities() -> None:
    """Give up every capability of this process, capset(2); raises OSError when the kernel refuses.

    With no_new_privs no program that it runs gets them back, even for the user root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def wake_on_child_end() -> int:
    """A descriptor that becomes readable whenever a child of this process ends."""
    wake, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake


def _everybody() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())

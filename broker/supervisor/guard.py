"""The parent of one plugin, which sees to it that nothing of the plugin outlives it or the broker.

A fork of the launcher. It is a child subreaper, so whatever the plugin starts stays below it in the tree of
processes, double-forked or with a new session (circus#1044, supervisord#1101). When the plugin has ended, the rest is
killed before the plugin is reaped; so long its number, which is also that of its process group, cannot come to mean
anybody else (go-plugin#320). When the broker is gone, however it went, the end of its socket tells the guard to kill
all. When the guard itself is killed, the plugin dies by PR_SET_PDEATHSIG and the launcher inherits and kills the rest.

Messages, one JSON object each, on a SOCK_SEQPACKET socket. Orders:
    {"order": "go"}                      run the program; until then the forked process waits
    {"order": "stop", "grace": seconds}  SIGTERM to all of it, and SIGKILL to what lives of it after that time
Reports:
    {"report": "spawned", "pid": P}
    {"report": "confined", "in_force": {…}}  what it gave up, by confine.py; it runs its program now
    {"report": "failed", "text": "…"}    it could not be run; if it was spawned, "exited" follows
    {"report": "exited", "status": S, "signal": G, "killed": how many it left, "alive": [who could not be killed]}
"""

import json
import os
import select
import signal
import socket
import time
from contextlib import suppress
from math import inf

from broker.supervisor.confine import NotConfined, confine, to_run
from broker.supervisor.processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NAME,
    PR_SET_PDEATHSIG,
    Stat,
    children,
    descendants,
    prctl,
    reap,
    send_signal,
    wake_on_child_end,
)

MAX_MESSAGE = 1 << 16
CANNOT_RUN = 127

# After SIGKILL a process ends as soon as it leaves the kernel; one that hangs there is reported, not waited for.
KILL_SECS = 2.0
LOOK_AGAIN_SECS = 0.02


def guard(plan: int, output: int, control: int) -> None:
    """Runs a plugin and waits until nothing of it is left.

    Args:
        plan: descriptor of a JSON file: command, folder (to run it in), data (a folder to make for it), env, and
            confinement (what it gives up, see confine.py).
        output: descriptor for what the plugin writes.
        control: descriptor of the socket to the broker.
    """
    _close_all_but(plan, output, control)
    wake = wake_on_child_end()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NAME, b"plugmesh-guard")
    channel = socket.socket(fileno=control)
    gate, our_gate = os.pipe2(os.O_CLOEXEC)
    me = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        report(channel, "failed", text=f"no process could be made for it: {error.strerror}")
        return
    if pid == 0:
        os.close(our_gate)
        become(plan, output, gate, channel, me)
    for descriptor in (plan, output, gate):
        os.close(descriptor)
    report(channel, "spawned", pid=pid)
    Guard(pid, our_gate, channel, wake).run()


class Guard:
    """Watches over the plugin `pid` until it has ended, and what it started with it."""

    def __init__(self, pid: int, gate: int, channel: socket.socket, wake: int) -> None:
        self._pid = pid
        self._gate: int | None = gate
        self._channel: socket.socket | None = channel
        self._wake = wake
        self._ended: os.waitid_result | None = None
        # Monotonic seconds: when to kill all, and when to stop waiting for that to work.
        self._kill_at = inf
        self._give_up_at = inf
        self._killed: set[int] = set()

    def run(self) -> None:
        """Returns when nothing lives any more, or what does cannot be killed."""
        while not self._is_over():
            self._wait()

    def _wait(self) -> None:
        sources: list[socket.socket | int] = [self._wake, *([self._channel] if self._channel else [])]
        patience = None if self._kill_at == inf else max(0.0, self._kill_at - time.monotonic())
        ready = select.select(sources, [], [], patience)[0]
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._channel in ready:
            self._obey(self._channel)

    def _obey(self, channel: socket.socket) -> None:
        try:
            message = channel.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        if not message:
            self._channel = None
            self._stop(0)
            return
        order = json.loads(message)
        if order["order"] == "go":
            self._open_gate(b"!")
        else:
            self._stop(order["grace"])

    def _stop(self, grace: float) -> None:
        self._open_gate(b"")
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        if grace > 0:
            self._signal_all(signal.SIGTERM, descendants(os.getpid()))

    def _open_gate(self, word: bytes) -> None:
        if self._gate is not None:
            with suppress(BrokenPipeError):
                os.write(self._gate, word)
            os.close(self._gate)
            self._gate = None

    def _is_over(self) -> bool:
        reap(set(children(os.getpid())) - {self._pid})
        now = time.monotonic()
        if self._ended is None:
            self._ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if self._ended and self._kill_at == inf:
                # Nobody asked it to stop, so there is no time of grace for what it leaves behind.
                self._kill_at = now
        if self._ended is None and now < self._kill_at:
            return False
        rest = descendants(os.getpid())
        if self._ended and (not rest or now >= self._give_up_at):
            self._conclude(self._ended, sorted(rest))
            return True
        if now >= self._kill_at:
            self._kill(rest, now)
        return False

    def _kill(self, rest: dict[int, Stat], now: float) -> None:
        self._give_up_at = min(self._give_up_at, now + KILL_SECS)
        # A plugin that cannot be killed is not tried for ever; its end, if it comes, wakes us.
        self._kill_at = now + LOOK_AGAIN_SECS if now < self._give_up_at else inf
        self._killed |= rest.keys() - {self._pid}
        self._signal_all(signal.SIGKILL, rest)

    def _signal_all(self, number: int, rest: dict[int, Stat]) -> None:
        self._signal_group(number)
        send_signal(number, {pid: seen for pid, seen in rest.items() if seen.group != self._pid})

    def _signal_group(self, number: int) -> None:
        """Signals the plugin's group. The plugin is not reaped yet, so its number can only mean this group."""
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # Just forked, it has not made its own group yet.
            os.kill(self._pid, number)
        except PermissionError:
            # It has become another user's process; that it does not end will be seen and told.
            return

    def _conclude(self, ended: os.waitid_result, alive: list[int]) -> None:
        reap(children(os.getpid()))
        if self._channel:
            exited = ended.si_code == os.CLD_EXITED
            status, number = (ended.si_status, None) if exited else (None, ended.si_status)
            killed = len(self._killed.difference(alive))
            report(self._channel, "exited", status=status, signal=number, killed=killed, alive=alive)


def report(channel: socket.socket, what: str, **more: object) -> None:
    """Sends a report; a broker that is gone is noticed where orders are read."""
    try:
        channel.send(json.dumps({"report": what, **more}).encode())
    except OSError:
        return


def become(plan: int, output: int, gate: int, channel: socket.socket, parent: int) -> None:
    """Turns this forked process into the plugin; never returns."""
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _reset_signals()
        # The byte comes once the bus knows this process; the end of file when it is not wanted any more.
        if os.getppid() == parent and os.read(gate, 1):
            _execute(plan, output, channel)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        report(channel, "failed", text=f"cannot run {name}{error.strerror}")
    except _NoData as error:
        report(channel, "failed", text=f"cannot make its data directory {error}")
    except NotConfined as error:
        report(channel, "failed", text=f"cannot be confined as its sandbox requires: {error}")
    except ValueError as error:
        # A zero byte, or a character that the file system cannot name.
        report(channel, "failed", text=f"cannot run its command: {error}")
    finally:
        # Whatever happened: the guard's own life must not go on in this process.
        os._exit(CANNOT_RUN)


def _execute(order: int, output: int, channel: socket.socket) -> None:
    with open(order, "rb") as file:
        run = json.load(file)
    _make_folders(run["data"], run["env"].get("TMPDIR", ""))
    os.chdir(run["folder"])
    os.dup2(output, 1)
    os.dup2(output, 2)
    command = run["command"]
    if plan := run["confinement"]:
        in_force = confine(plan)
        report(channel, "confined", in_force=in_force)
        command = to_run(command, run["folder"], plan, in_force)
    os.execvpe(command[0], command, run["env"])


class _NoData(Exception):
    """The data directory cannot be made; the text says which, and why."""


def _make_folders(data: str, temporary: str) -> None:
    try:
        os.makedirs(data, mode=0o700, exist_ok=True)
        if temporary.startswith(data):
            os.makedirs(temporary, mode=0o700, exist_ok=True)
    except OSError as error:
        raise _NoData(f"{error.filename}: {error.strerror}") from None


def _reset_signals() -> None:
    """Undoes what the interpreter, launcher and guard ignore, handle or block: a plugin starts with the defaults."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _close_all_but(*kept: int) -> None:
    """Leaves no descriptor of the launcher open here: it would keep the broker from seeing the launcher's end."""
    low = 3
    for descriptor in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(low, descriptor)
        low = descriptor + 1

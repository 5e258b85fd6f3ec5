"""The broker's end of launcher and guards: orders go out, and what becomes of each process comes back as futures."""

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from broker.supervisor.errors import SupervisorError
from broker.supervisor.guard import CANNOT_RUN, KILL_SECS, MAX_MESSAGE
from broker.supervisor.launcher import SPAWN

logger = logging.getLogger(__name__)

# -I and -S keep the environment and site-packages out of it, hence the path by hand; as a module it has a cached
# byte code, which a script has not.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from broker.supervisor.launcher import main; main()"
_ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        data: a folder that is made for it if there is none.
        env: its whole environment.
        confinement: what is given up before it runs; see confine.py.
    """

    command: tuple[str, ...]
    folder: str
    data: str
    env: dict[str, str]
    confinement: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a plugin ended.

    Args:
        status: its exit status, None when a signal ended it or it never ran.
        signal: the number of that signal.
        failure: why it never ran, or what else took it away.
        remark: what else is known of why it ended.
        killed: how many processes it had left behind, which then were killed.
        alive: those of them that could not be killed.
    """

    status: int | None = None
    signal: int | None = None
    failure: str = ""
    killed: int = 0
    alive: tuple[int, ...] = ()
    remark: str = ""

    @property
    def clean(self) -> bool:
        """Whether it ended by itself and without complaint."""
        return self.status == 0 and not self.failure

    @property
    def never_ran(self) -> bool:
        """Whether its program could not even be begun."""
        return self.status == CANNOT_RUN and bool(self.failure)

    def __str__(self) -> str:
        return self.told("")

    def told(self, when: str) -> str:
        """The whole story in one sentence, with `when` after its first part."""
        text = (self.failure or self._by_itself()) + when
        if self.remark:
            text += f": {self.remark}"
        if self.killed:
            text += f"; {self.killed} of the processes it left behind had to be killed"
        if self.alive:
            text += f"; processes {', '.join(map(str, self.alive))} of it could not be killed"
        return text

    def _by_itself(self) -> str:
        if self.signal is None:
            return f"exited with status {self.status}"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(self.signal).name}"
        return f"was ended by signal {self.signal}"


class Child:
    """A process that was ordered; `exited` is done when nothing of it lives any more.

    Args:
        remark: asked once, when it has ended, for what else is known of why.
    """

    def __init__(self, control: socket.socket, remark: Callable[[], str]) -> None:
        loop = asyncio.get_running_loop()
        self.spawned: asyncio.Future[int] = loop.create_future()
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.in_force: dict[str, Any] | None = None
        self._failure = ""
        self._remark = remark
        self._control = control
        control.setblocking(False)
        loop.add_reader(control, self._read)

    def go(self) -> None:
        """Lets the process run its program; until then it waits."""
        self._order({"order": "go"})

    def stop(self, grace: float) -> None:
        """Asks all of it to end, and kills it after `grace` seconds; at once when that is 0."""
        self._order({"order": "stop", "grace": max(0.0, grace)})

    def cut_off(self) -> None:
        """Makes its guard kill it; from any thread, even when the event loop is stuck."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def abandon(self, reason: str) -> None:
        """Closes the socket to its guard, which then kills it."""
        self._end(Exit(failure=reason))

    def _order(self, order: dict[str, Any]) -> None:
        # A guard that is gone is noticed by the reader.
        with suppress(OSError):
            self._control.send(json.dumps(order).encode())

    def _read(self) -> None:
        while not self.exited.done():
            try:
                message = self._control.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            self._note(json.loads(message) if message else {"report": "lost"})

    def _note(self, report: dict[str, Any]) -> None:
        if report["report"] == "spawned":
            if not self.spawned.done():
                self.spawned.set_result(report["pid"])
        elif report["report"] == "confined":
            self.in_force = report["in_force"]
        elif report["report"] == "exited":
            # Bubblewrap's first process outlives the plugin for a moment, and with it ends whatever else there is.
            killed = 0 if "bubblewrap" in (self.in_force or {}) else report["killed"]
            alive = tuple(report["alive"])
            self._end(Exit(report["status"], report["signal"], self._failure, killed, alive))
        elif report["report"] == "lost":
            self._end(Exit(failure="was ended because the process that guards it died"))
        else:
            self._failure = report["text"]
            if not self.spawned.done():
                self._end(Exit(failure=self._failure))

    def _end(self, how: Exit) -> None:
        if not self.exited.done():
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self.spawned.cancel()
            self.exited.set_result(replace(how, remark=self._remark()))


class Spawner:
    """Starts processes through one launcher, which is started when it is first needed and again if it dies."""

    def __init__(self) -> None:
        self._children: set[Child] = set()
        self._channel: socket.socket | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        # The broker is about to allow itself more, which is no good for programs that use select(2).
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._unsent: deque[tuple[int, ...]] = deque()
        self._ending: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Starts the launcher, so that the first plugin need not wait for it.

        Raises:
            SupervisorError: this system cannot run it.
        """
        if self._channel is not None:
            return
        if sys.platform != "linux":
            raise SupervisorError("unsupported", "starting plugins needs Linux; start them by hand on this system")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            self._launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT, str(self._descriptors), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
            )
            undo.pop_all()
        ours.setblocking(False)
        self._channel = ours
        asyncio.get_running_loop().add_reader(ours, self._lost)

    def spawn(self, program: Program, output: int, remark: Callable[[], str] = str) -> Child:
        """Orders a process; it is forked at once and runs its program after `Child.go`.

        Args:
            output: descriptor for its standard output and error; may be closed afterwards.
            remark: see Child.

        Raises:
            SupervisorError: this system cannot start plugins.
        """
        self.open()
        with ExitStack() as undo:
            plan = _in_memory(json.dumps(asdict(program)))
            undo.callback(os.close, plan)
            copy = os.dup(output)
            undo.callback(os.close, copy)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.pop_all()
        child = Child(ours, remark)
        self._children.add(child)
        child.exited.add_done_callback(lambda _: self._children.discard(child))
        self._unsent.append((plan, copy, theirs.detach()))
        self._write()
        return child

    def kill_all(self) -> None:
        """Kills everything; from any thread, even when the event loop is stuck."""
        for child in list(self._children):
            child.cut_off()

    async def close(self) -> None:
        """Ends the launcher and what still runs; plugins that matter are stopped before."""
        for child in list(self._children):
            child.abandon("was ended with the broker")
        self._disconnect()
        while self._ending:
            await asyncio.wait(self._ending)

    def _write(self) -> None:
        channel = self._channel
        while self._unsent and channel:
            try:
                socket.send_fds(channel, [SPAWN], self._unsent[0])
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(channel, self._write)
                return
            except OSError:
                # The launcher is gone; the child learns it from its own socket, whose other end closes here.
                pass
            _close_all(self._unsent.popleft())
        if channel:
            asyncio.get_running_loop().remove_writer(channel)

    def _lost(self) -> None:
        logger.error("the launcher of plugins has died; those that run go on, and the next start makes a new one")
        self._disconnect()

    def _disconnect(self) -> None:
        loop = asyncio.get_running_loop()
        if self._channel:
            loop.remove_reader(self._channel)
            loop.remove_writer(self._channel)
            self._channel.close()
            self._channel = None
        while self._unsent:
            _close_all(self._unsent.popleft())
        if self._launcher:
            # It ends when its guards have ended; to wait for that takes a thread.
            task = asyncio.create_task(asyncio.to_thread(_wait, self._launcher))
            self._launcher = None
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def _in_memory(text: str) -> int:
    descriptor = os.memfd_create("plan", os.MFD_CLOEXEC)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _wait(launcher: subprocess.Popen[bytes]) -> None:
    try:
        launcher.wait(3 * KILL_SECS)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()

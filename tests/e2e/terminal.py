"""A command in a terminal of its own: what it writes, keys, and a size that can change."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.mesh import Mesh

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])")


class Terminal:
    """What a person has before them."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self._screen = screen
        self.text = ""

    def wait_for(self, text: str, within: float = 20.0) -> str:
        """Read until this is written, after what was waited for before; returns what came until then."""
        deadline = time.monotonic() + within
        while text not in (plain := _ESCAPES.sub("", self.text)):
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was not written: {plain[-3000:]}"
            if select.select([self._screen], [], [], left)[0]:
                self.text += self._read()
        self.text = ""
        return plain

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._screen, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size."""
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def modes(self) -> int:
        """Whether it echoes and waits for lines, as a shell expects it."""
        return int(termios.tcgetattr(self._screen)[3]) & (termios.ECHO | termios.ICANON)

    def end(self, within: float = 10.0) -> int:
        """Wait until the command has ended; returns its exit code."""
        deadline = time.monotonic() + within
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._screen], [], [], 0.05)[0]:
                self.text += self._read()
        return self.process.wait(0.1)

    def _read(self) -> str:
        try:
            return os.read(self._screen, 65536).decode(errors="replace")
        except OSError:  # EIO: nobody has the other end open any more
            return ""


@contextmanager
def terminal(mesh: Mesh, *args: str, columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    """Run `broker` with these arguments in a terminal."""
    screen, other = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environ = {**mesh.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environ.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "broker", *args], env=environ, stdin=other, stdout=other, stderr=other
    )
    try:
        yield Terminal(process, screen)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(other)
        os.close(screen)

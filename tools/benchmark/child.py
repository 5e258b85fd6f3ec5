"""Processes of the benchmark: started with a clean environment, read with a time limit, never left behind."""

import ctypes
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import clock_gettime_ns, monotonic
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
_TAIL_BYTES = 2000


class BenchmarkError(Exception):
    """A measurement not to be believed: a process failed, or events were lost, doubled or reordered."""


class Child:
    """One process, its standard output read by the line, its standard error kept for the case of failure."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        talks: bool = True,
    ) -> None:
        """Start `command` as `name` (for error texts), with `environment` on top of the clean one.

        Of a process that does not talk by our rules, what it prints is kept with its errors.
        """
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._lines = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if talks else self._errors,
            stderr=self._errors,
            cwd=ROOT,
            env={**_clean_environment(), **(environment or {})},
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tell(self, line: bytes) -> None:
        """Write `line` to the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self.failure("ended before it was told to go") from None

    def hear(self, timeout: float) -> bytes:
        """Return the next line the process writes, without its newline, within `timeout` seconds.

        Raises BenchmarkError when the process ends first or the time is over.
        """
        deadline = monotonic() + timeout
        while b"\n" not in self._lines:
            self._lines += self._read(deadline, timeout)
        line, _, self._lines = self._lines.partition(b"\n")
        return line

    def check(self) -> None:
        """Raise BenchmarkError when the process has ended."""
        if self._process.poll() is not None:
            raise self.failure(f"ended with status {self._process.returncode}")

    def close(self, timeout: float = 5.0) -> int:
        """Ask the process to end, kill it after `timeout` seconds, and return its exit status."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()
        return status

    def failure(self, what: str) -> BenchmarkError:
        """Make the error that says `what` happened to this process and what it wrote last."""
        self._errors.seek(0)
        tail = self._errors.read()[-_TAIL_BYTES:].decode(errors="replace").strip()
        return BenchmarkError(f"{self.name} {what}" + (f"; it wrote:\n{tail}" if tail else " and wrote nothing"))

    def _read(self, deadline: float, timeout: float) -> bytes:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        if not select.select([handle], [], [], max(0.0, deadline - monotonic()))[0]:
            raise self.failure(f"said nothing for {timeout:g} s")
        data = os.read(handle, 1 << 16)
        if not data:
            self._process.wait()
            raise self.failure(f"ended with status {self._process.returncode} before it reported")
        return data


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this repository with the interpreter that runs the benchmark."""
    return [sys.executable, "-m", module, *arguments]


def cpu_ns(pid: int) -> int:
    """The CPU time of a process so far, user and system, in nanoseconds, by clock_getcpuclockid(3)."""
    clock = ctypes.c_int()
    if status := ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(status, os.strerror(status), f"the CPU clock of process {pid}")
    return clock_gettime_ns(clock.value)


def _clean_environment() -> dict[str, str]:
    """The environment without BROKER_*, which would point endpoints at another broker, and OTEL_*, which costs time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BROKER_", "OTEL_"))}
    kept["PYTHONPATH"] = str(ROOT)
    return kept

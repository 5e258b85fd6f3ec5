"""Real processes for the tests of the SDK: a broker, and plugins that are started by hand."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import zmq

ROOT = Path(__file__).parents[3]
HEARTBEAT_SECS = 0.1
PATIENCE_SECS = 15.0


class BrokerProcess:
    """`broker run` on a home of its own, which can be killed, frozen and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = environment(home)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.home.with_suffix(".log").read_text()

    def start(self) -> None:
        """Start it and return once it accepts connections."""
        with self.home.with_suffix(".log").open("ab") as log:
            command = [sys.executable, "-m", "broker", "run"]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self.environ, stdout=log, stderr=log)
        wait_for_socket(self.home / "run" / "broker.sock", self._process, lambda: self.log)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it in order; returns its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(PATIENCE_SECS)

    def freeze(self) -> None:
        """Stop it where it stands."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class PluginProcess:
    """A plugin that is started by hand: a script that ends in `plugin.run()`, and what it prints."""

    def __init__(self, folder: Path, home: Path, body: str) -> None:
        script = folder / "main.py"
        script.write_text(body)
        self._process = subprocess.Popen(
            [sys.executable, "-u", script],
            cwd=folder,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self.output = ""

    def wait_for(self, text: str) -> None:
        """Return once it has printed `text`."""
        deadline = time.monotonic() + PATIENCE_SECS
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while text not in self.output:
                assert selector.select(deadline - time.monotonic()), f"{text!r} was not printed, but: {self.output}"
                part = os.read(self._stdout, 65536)
                self.output += part.decode()
                assert part or text in self.output, f"it ended without printing {text!r}: {self.output}"

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> int:
        """Wait for its end; returns the exit status."""
        status = self._process.wait(PATIENCE_SECS)
        self.output += os.read(self._stdout, 1 << 20).decode()
        return status

    def close(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def _stdout(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()


def environment(home: Path) -> dict[str, str]:
    """That of the test, but for a broker with this home and short heartbeats."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    ours = {
        "BROKER_HOME": str(home),
        "BROKER_BUS_HEARTBEAT_SECS": str(HEARTBEAT_SECS),
        "PYTHONPATH": str(ROOT),
    }
    return inherited | ours


def wait_for_socket(path: Path, process: subprocess.Popen[bytes], log: object) -> None:
    """Return once somebody accepts connections there; the file alone may be left over from a crash."""
    deadline = time.monotonic() + PATIENCE_SECS
    with zmq.Context() as context:
        while time.monotonic() < deadline:
            assert process.poll() is None, f"the broker ended: {log() if callable(log) else log}"
            probe = context.socket(zmq.DEALER)
            monitor = probe.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            try:
                probe.linger = 0
                probe.connect(f"ipc://{path}")
                if monitor.poll(200):
                    return
            finally:
                probe.disable_monitor()
                monitor.close(linger=0)
                probe.close(linger=0)
    raise AssertionError(f"the broker does not listen on {path}")

"""A real `broker run` on a home of its own, with as many light plugins as it is given."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tools.scaling import light
from tools.scaling.figures import ScaleError

START_SECS = 120.0
STOP_SECS = 90.0
_POLL_SECS = 0.02
# For all but the plugins themselves, of which nothing may be cut short here.
_CONFIG = """[plugin_manager]
max_concurrency = 10
timeout = 60.0
[shutdown]
timeout_secs = {stop_secs}
"""


class Broker:
    """One broker on a fresh home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home.parent / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None
        (home / "plugins").mkdir(parents=True)
        home.chmod(0o700)
        (home / "broker.toml").write_text(_CONFIG.format(stop_secs=STOP_SECS))

    @property
    def pid(self) -> int:
        """The process id; raises ScaleError when it has ended."""
        if self.process is None or self.process.poll() is not None:
            raise ScaleError(f"the broker has ended: {self.log.read_text()[-2000:] if self.log.exists() else ''}")
        return self.process.pid

    def add(self, name: str, requires: str = "", start: float = 0.0, cleanup: float = 0.0) -> None:
        """Put a light plugin into the plugin folder; it takes so many seconds to start and to clean up."""
        folder = self.home / "plugins" / name
        folder.mkdir()
        shutil.copy(str(light.__file__), folder / "main.py")
        lines = [f"name: {name}", 'version: "1.0"', f"config: {{start: {start}, cleanup: {cleanup}}}"]
        lines += [f"requires: [{requires}]"] if requires else []
        (folder / "plugin.yaml").write_text("\n".join(lines) + "\n")

    def run(self) -> Self:
        """Start it; returns when it listens."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "broker", "run", "--home", str(self.home)]
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self.until((self.home / "run" / "broker.sock").exists, "listens")
        return self

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something holds; raises ScaleError when it does not in time."""
        deadline = time.monotonic() + START_SECS
        while not condition():
            if self.pid and time.monotonic() > deadline:
                raise ScaleError(f"not within {START_SECS:g} s: the broker {what}; {self.log.read_text()[-2000:]}")
            time.sleep(_POLL_SECS)

    def until_started(self, number: int) -> None:
        """Wait until so many light plugins have been started."""
        self.until(lambda: sum("start done" in each for each in self.moments().values()) == number, f"starts {number}")

    def moments(self) -> dict[str, dict[str, float]]:
        """When each step of each plugin's life was, by plugin and step."""
        found = {}
        for notes in self.home.glob(f"data/*/{light.NOTES}"):
            lines = (line.split(" ", 1) for line in notes.read_text().splitlines())
            found[notes.parent.name] = {moment: float(secs) for secs, moment in lines}
        return found

    def stop(self) -> float:
        """Stop it in order; returns the seconds that this took."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        assert self.process is not None
        if status := self.process.wait(STOP_SECS + 10):
            raise ScaleError(f"the broker ended with status {status}: {self.log.read_text()[-2000:]}")
        return time.monotonic() - began


@contextmanager
def fresh_broker() -> Iterator[Broker]:
    """A broker that is not started yet; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as place:
        broker = Broker(Path(place) / "home")
        try:
            yield broker
        finally:
            if broker.process is not None and broker.process.poll() is None:
                broker.process.kill()
                broker.process.wait()

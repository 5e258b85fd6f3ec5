"""Whether the database can be used, and why not, for all threads to see."""

import logging
import threading

from broker.store.records import Status

log = logging.getLogger("broker.store")


class Health:
    """The condition of the database; each change is logged once."""

    def __init__(self, shown_url: str) -> None:
        self._shown_url = shown_url
        # One tuple, so that a reader never sees a status with the reason of another.
        self._now: tuple[Status, str] = ("opening", "")
        self._decided = threading.Event()
        self._changing = threading.Lock()

    def now(self) -> tuple[Status, str]:
        """Return status and reason; never blocks."""
        return self._now

    def wait_decided(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the first attempt to open the database to end."""
        self._decided.wait(timeout)

    def up(self) -> None:
        """The database works."""
        before, _ = self._change("up", "")
        if before != "up":
            log.info("database %s is up", self._shown_url)

    def down(self, reason: str) -> None:
        """The database does not work because of `reason`."""
        if self._change("down", reason) != ("down", reason):
            log.warning("%s", reason)

    def closed(self, left: int) -> None:
        """The store will not touch the database again; `left` writes did not land."""
        _, reason = self._now
        self._change("closed", f"{left} writes did not land: {reason}" if left else "")

    def _change(self, status: Status, reason: str) -> tuple[Status, str]:
        with self._changing:
            before = self._now
            if before[0] != "closed":
                self._now = (status, reason)
        self._decided.set()
        return before

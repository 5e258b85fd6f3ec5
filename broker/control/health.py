"""Link, loop and handler of a plugin told apart (PLG-13): alive is not the same as getting on."""

from __future__ import annotations

from dataclasses import dataclass

from broker.core.snapshot import SessionView

SILENT_BEATS = 3  # heartbeats without a word after which the loop of a plugin is taken for blocked
STUCK_BEATS = 6  # heartbeats after which a handler that still runs is called stuck


@dataclass(frozen=True, slots=True)
class Health:
    """How a plugin gets on.

    Args:
        link: whether it has a session.
        silent: seconds that its loop has said nothing, though asked; 0 while it answers.
        handler: the handler that has been running longest, when that is remarkable.
        busy: for how many seconds it has.
        stuck: whether that is too long.
    """

    link: bool
    silent: float = 0.0
    handler: str = ""
    busy: float = 0.0
    stuck: bool = False

    @property
    def text(self) -> str:
        """In words; empty when all is well."""
        if not self.link:
            return "no link"
        if self.silent:
            return f"unresponsive, silent for {_span(self.silent)}"
        if self.stuck:
            return f"stuck in handler {self.handler} for {_span(self.busy)}"
        return f"busy in handler {self.handler} for {_span(self.busy)}" if self.handler else ""


NO_LINK = Health(link=False)


def judge(session: SessionView | None, heartbeat: float) -> Health:
    """How a plugin gets on, by its session and what it said with its last heartbeat.

    Args:
        heartbeat: seconds between two heartbeats.
    """
    if session is None:
        return NO_LINK
    if session.silent > SILENT_BEATS * heartbeat:
        return Health(link=True, silent=session.silent)
    busy, handler = session.stats.get("busy_secs"), session.stats.get("busy_in")
    if not isinstance(busy, int | float) or not isinstance(handler, str) or not handler or busy < heartbeat:
        return Health(link=True)
    return Health(link=True, handler=_bare(handler), busy=busy, stuck=busy >= STUCK_BEATS * heartbeat)


def _bare(handler: str) -> str:
    return handler.removeprefix("service ").removeprefix("subscription ")[:300]


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"

"""Who takes part in a run: which processes there are, and what each of them does."""

from __future__ import annotations

from dataclasses import dataclass

# Events of these subjects are for subscribers that make publishers wait, and for those that lose events.
FIRM, LOOSE = "firm", "loose"
TEAM = "team"
SERVERS = ("worker", "helper")


@dataclass(frozen=True, slots=True)
class Member:
    """One party.

    Args:
        label: what it is called in ledgers and reports.
        role: `publisher`, `subscriber`, `server` or `caller`.
        managed: whether the broker starts it; the others are started by hand and outlive the broker.
        instance: tells it apart from others with the same plugin name.
        plugin: the name of the plugin, when that is not its label.
        topic: what it publishes or subscribes to.
        group: its queue group.
        overflow: what happens to its events when it is slow.
        pause: the seconds that it takes for an event.
    """

    label: str
    role: str
    managed: bool = True
    instance: str = ""
    plugin: str = ""
    topic: str = FIRM
    group: str | None = None
    overflow: str = "block"
    pause: float = 0.0

    @property
    def name(self) -> str:
        """The name of its plugin."""
        return self.plugin or self.label


CAST = (
    Member("firm-a", "publisher"),
    Member("firm-b", "publisher", managed=False),
    Member("loose-a", "publisher", topic=LOOSE),
    Member("loose-b", "publisher", managed=False, topic=LOOSE),
    Member("keen-a", "subscriber"),
    Member("keen-b", "subscriber", managed=False),
    Member("team-a", "subscriber", group=TEAM),
    Member("team-b", "subscriber", managed=False, group=TEAM),
    Member("team-c", "subscriber", managed=False, group=TEAM),
    Member("old-a", "subscriber", topic=LOOSE, overflow="drop_oldest", pause=0.004),
    Member("new-b", "subscriber", managed=False, topic=LOOSE, overflow="drop_newest", pause=0.004),
    Member("worker", "server"),
    Member("helper-a", "server", managed=False, plugin="helper", instance="a"),
    Member("helper-b", "server", managed=False, plugin="helper", instance="b"),
    Member("caller-a", "caller"),
    Member("caller-b", "caller", managed=False),
)
MEMBERS = {member.label: member for member in CAST}
MAX_PENDING = 64  # of the subscribers that lose events: small, so that they do

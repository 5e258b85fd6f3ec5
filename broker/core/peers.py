"""Who is registered: every open session by address and by number, and which of them holds which plugin name."""

from __future__ import annotations

from collections.abc import Iterator

from broker.core.sessions import Session
from plugin_sdk.wire.outbox import Outbox

# Name and instance.
Key = tuple[str, str]


class Peers:
    """The open sessions; `by_address` and `by_number` are for reading.

    A plugin's name and instance are held by one session that is routed, and besides by one that stands by for it or
    has stood back.
    """

    def __init__(self) -> None:
        self.by_address: dict[bytes, Session] = {}
        self.by_number: dict[int, Session] = {}
        self._plugins: dict[Key, Session] = {}
        self._standby: dict[Key, Session] = {}

    def add(self, session: Session) -> None:
        """A session has begun."""
        self.by_address[session.peer] = self.by_number[session.number] = session
        if session.role == "plugin":
            table = self._plugins if session.routed else self._standby
            table[session.name, session.instance] = session

    def remove(self, session: Session) -> None:
        """A session has ended."""
        del self.by_address[session.peer]
        del self.by_number[session.number]
        for table in (self._plugins, self._standby):
            if table.get((session.name, session.instance)) is session:
                del table[session.name, session.instance]

    def plugin(self, name: str) -> Session | None:
        """The session that is routed as plugin `name`, of any instance."""
        return next((each for (plugin, _), each in self._plugins.items() if plugin == name), None)

    def holder(self, name: str, instance: str, *, routed: bool) -> Session | None:
        """The session because of which no other one can be this plugin, routed or standing by."""
        return (self._plugins if routed else self._standby).get((name, instance))

    def same_process(self, name: str, instance: str, nonce: str) -> Iterator[Session]:
        """The sessions of this plugin that the process with this nonce has opened before."""
        for routed in (True, False):
            holder = self.holder(name, instance, routed=routed)
            if holder is not None and holder.nonce == nonce:
                yield holder

    def hand_over(self, new: Session, old: Session | None) -> None:
        """Give a session that stood by the name for which it did; who held it stands back."""
        key = (new.name, new.instance)
        if self._standby.get(key) is not new:
            return
        del self._standby[key]
        if old is not None and self._plugins.get(key) is old:
            self._standby[key] = old
        self._plugins[key] = new

    def behind(self, outbox: Outbox) -> Session | None:
        """The session that an outbox belongs to, unless it has ended."""
        session = self.by_address.get(outbox.peer)
        return session if session is not None and session.outbox is outbox else None

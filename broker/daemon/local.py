"""The broker's own session on its bus: the SDK's session logic over the edge's in-process port."""

from __future__ import annotations

from broker.edge.server import Edge, LocalPort
from plugin_sdk.client import Bus
from plugin_sdk.entry import make_bus
from plugin_sdk.link import Listener
from plugin_sdk.peer import Peer
from plugin_sdk.registration import Profile

NAME = "$broker"


class LocalLink:
    """A Link to the router of this very process."""

    def __init__(self, edge: Edge, name: str) -> None:
        self._edge = edge
        self._name = name
        self._port: LocalPort | None = None

    def open(self, listener: Listener) -> None:
        """Attach; the connection stands at once."""
        self._port = self._edge.attach(self._name, lambda frame: listener.on_frames([frame]))
        listener.on_up()

    def send(self, frame: bytes) -> bool:
        """Hand a frame to the router's next turn."""
        if self._port is None:
            return False
        self._port.send(frame)
        return True

    def close(self) -> None:
        """Nothing is sent any more."""
        self._port = None


def local_bus(edge: Edge, version: str) -> Bus:
    """The bus as the broker itself uses it, not yet opened."""
    peer = Peer(LocalLink(edge, NAME), Profile("client", NAME, version), "", "the broker itself")
    return make_bus(peer)

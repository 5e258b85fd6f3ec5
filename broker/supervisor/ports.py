"""What the supervisor needs of the rest of the broker; the daemon provides it."""

from typing import Protocol

from broker.supervisor.access import Access


class Mesh(Protocol):
    """The bus, as far as the life of plugins is concerned."""

    def expect(
        self,
        plugin_id: str,
        token: str,
        pid: int,
        asked: Access | None,
        *,
        mount: str = "",
        routed: bool = True,
        version: str = "",
    ) -> None:
        """Admit this token at REGISTER, under this name and from this process only, until forget().

        Args:
            asked: the permissions that the plugin asks for.
            mount: the name under which it serves, when that is not its own.
            routed: False for a process that stands by: its services and subscriptions come into force with switch().
            version: what its manifest says, which goes before what it says itself.
        """

    def forget(self, token: str) -> None:
        """Admit nobody by this token any more."""

    async def registered(self, plugin_id: str, token: str) -> int:
        """Wait until the process with this token has a live session; returns its number."""

    def refusals(self, plugin_id: str) -> list[str]:
        """Why registrations under this name were refused since expect()."""

    async def command(self, session: int, name: str, body: object, timeout: float) -> object:
        """Call a life-cycle service of one session.

        Raises:
            CommandError: it answered with an error, or not within `timeout` seconds, or is gone.
        """

    def switch(self, joining: int | None, leaving: int | None) -> None:
        """Put one session into routing and take another one out, in one step; None stands for none."""

    async def drained(self, session: int, timeout: float) -> bool:
        """Wait until a session has answered all requests and taken all events it was given; False when it has not."""

    def session_of(self, plugin_id: str) -> int | None:
        """The session that is registered under this name, if any."""


class Records(Protocol):
    """Where the state of plugins is written down; every method returns at once and none raises."""

    def registration(self, plugin_id: str, status: int, error: str | None) -> None:
        """How far the registration got (PLG-4)."""

    def described(
        self, plugin_id: str, *, name: str, version: str, description: str, enabled: bool, desired: str
    ) -> None:
        """What the manifest says, and what the operator wants."""

    def quarantined(self, plugin_id: str, digest: str, version: str, reason: str, *, released: bool) -> None:
        """Content that must not be started again, and why; or that may be after all, when `released`."""

    def exceeded(self, plugin_id: str, limit: str, result: str, text: str) -> None:
        """What the kernel did in a run because of a limit, and how that has ended."""

    def exited(self, plugin_id: str, text: str, restarts: int) -> None:
        """How a run ended."""

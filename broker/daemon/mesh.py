"""What the supervisor needs of the bus: admitting the processes it starts, commanding them, learning of their end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from broker.core.grants import Permissions
from broker.core.notices import RegistrationRefused, SessionOpened
from broker.core.router import Router
from broker.core.sessions import Session
from broker.supervisor.access import Access
from broker.supervisor.errors import CommandError
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError

HEALTH_SECS = 1.0  # what a plugin may take to say how it is, when a person waits for it
MAX_REFUSALS = 10  # texts kept per plugin: what a start has to explain, not a log


class MeshPort:
    """The supervisor's view of router and bus.

    Args:
        router: where tokens are admitted.
        bus: the broker's own session, for commands.
        wake: has the edge send what the router has to say.
        until: waits until a condition holds after some turn of the edge, or so many seconds are over.
        granted: what a plugin may do, by its name and by what it asks for.
    """

    def __init__(
        self,
        router: Router,
        bus: Bus,
        wake: Callable[[], None],
        until: Callable[[Callable[[], bool], float], Awaitable[bool]],
        granted: Callable[[str, Access | None], Permissions],
    ) -> None:
        self._router = router
        self._bus = bus
        self._wake = wake
        self._until = until
        self._granted = granted
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._registered: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self._refusals: dict[str, deque[str]] = {}

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
        """Admit the process `pid`, or one of its group, as `plugin_id` when it shows `token`."""
        self._refusals[plugin_id] = deque(maxlen=MAX_REFUSALS)
        self._owners[token] = plugin_id
        permissions = self._granted(plugin_id, asked)
        self._router.admission.expect(token, plugin_id, pid, permissions, mount=mount, routed=routed, version=version)

    def forget(self, token: str) -> None:
        """Admit nobody by this token any more, and end the session that it opened.

        The supervisor says so when the process has ended, which it knows long before the transport does: a session that
        outlived its process would refuse the next one as a duplicate, and let its callers wait.
        """
        self._router.admission.forget(token)
        self._owners.pop(token, None)
        session = self._router.session(self._registered.pop(token, 0))
        if session is not None:
            self._router.peer_lost(session.peer, time.monotonic(), "its process has ended")
            self._wake()

    async def registered(self, plugin_id: str, token: str) -> int:
        """Wait until the process with this token is registered; returns its session."""
        known = self._registered.get(token)
        if known is not None and self._router.session(known) is not None:
            return known
        waiter = self._waiting.get(token)
        if waiter is None:
            waiter = self._waiting[token] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.shield(waiter)
        finally:
            self._waiting.pop(token, None)

    def refusals(self, plugin_id: str) -> list[str]:
        """Why registrations under this name were refused since expect()."""
        return list(self._refusals.get(plugin_id, ()))

    async def command(self, session: int, name: str, body: object, timeout: float) -> Any:
        """Call a life-cycle service of one session; raises CommandError."""
        try:
            return await self._bus.call(name, body, timeout=timeout, to=session)
        except BusError as error:
            raise CommandError(error.code, error.text) from None

    async def ask_health(self, session: int) -> dict[str, Any]:
        """What a plugin says of itself right now; `ok` is False when it does not answer, too."""
        try:
            answer = await self.command(session, "$plugin.health", {}, HEALTH_SECS)
        except CommandError as error:
            return {"ok": False, "reason": f"asked how it is, it answered: {error.text}"}
        return answer if isinstance(answer, dict) else {}

    def switch(self, joining: int | None, leaving: int | None) -> None:
        """Put one session into routing and take another one out, in one step; None stands for none."""
        self._router.switch(joining, leaving, time.monotonic())
        self._wake()

    async def drained(self, session: int, timeout: float) -> bool:
        """Wait until a session has answered all requests and taken all events it was given; False when it has not."""
        return await self._until(lambda: _is_idle(self._router.session(session)), timeout)

    def session_of(self, plugin_id: str) -> int | None:
        """The session registered as this plugin, if any."""
        return self._router.plugin_session(plugin_id)

    def on_opened(self, notice: SessionOpened) -> None:
        """A managed plugin is registered."""
        self._registered[notice.token] = notice.session
        waiter = self._waiting.pop(notice.token, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(notice.session)

    def on_refused(self, notice: RegistrationRefused) -> None:
        """Remember why, for the plugin that was meant: by its token, or else by the name that was claimed."""
        refusals = self._refusals.get(self._owners.get(notice.token, notice.name))
        if refusals is not None:
            refusals.append(f"{notice.code}: {notice.text}")


def _is_idle(session: Session | None) -> bool:
    return session is None or not (session.serving or session.waiting)

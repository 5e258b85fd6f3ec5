"""One attempt to register: wait for the connection, say REGISTER, wait for the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from plugin_sdk.registration import AttemptFailed, AttemptMayBeRepeated
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.session import Session, Side, State

ATTEMPT_SECS = 2.0


class Handshake:
    """The registrations of one session, one after the other.

    Args:
        session: the automaton, which this moves up to OPEN.
        ask: sends a REGISTER; False when the transport did not take it.
        endpoint: where to, for texts.
    """

    def __init__(self, session: Session, ask: Callable[[], bool], endpoint: str) -> None:
        self.reason = f"not connected to {endpoint} yet"
        self._session = session
        self._ask = ask
        self._connected = asyncio.Event()
        self._verdict: asyncio.Future[None] | None = None

    async def connected(self) -> None:
        """Return once the link stands."""
        await self._connected.wait()

    async def attempt(self) -> None:
        """Try once; raises AttemptFailed, or AttemptMayBeRepeated when another try may do better."""
        if self._session.state is State.OPEN:
            return  # the answer to an earlier attempt came after all
        try:
            async with asyncio.timeout(ATTEMPT_SECS):
                await self._connected.wait()
                await self._register()
        except TimeoutError:
            if self._connected.is_set():
                text = f"the broker did not answer within {ATTEMPT_SECS:g} s"
                raise AttemptMayBeRepeated("timeout", text) from None
            raise AttemptMayBeRepeated("unavailable", self.reason) from None

    def up(self) -> None:
        """The link stands."""
        self.reason = ""
        self._connected.set()

    def down(self, reason: str) -> None:
        """The link is gone: an answer cannot come any more."""
        self._connected.clear()
        self.fail(AttemptMayBeRepeated("lost", reason))
        self.reason = reason

    def admitted(self) -> None:
        """The broker said REGISTERED."""
        self._session.said(Side.BROKER, p.Registered)
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(None)

    def refused(self, packet: p.Refused) -> None:
        """The broker said REFUSED."""
        kind = AttemptMayBeRepeated if packet.retry else AttemptFailed
        self.fail(kind(packet.code, packet.text))

    def fail(self, error: AttemptFailed) -> None:
        """End the attempt that runs, if there is one."""
        if self._session.state is State.REGISTERING:
            self._session.reset()
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_exception(error)

    async def _register(self) -> None:
        self._session.reset()
        self._session.said(Side.PEER, p.Register)
        self._verdict = asyncio.get_running_loop().create_future()
        try:
            if not self._ask():
                raise AttemptMayBeRepeated("lost", self.reason or "the transport takes nothing")
            await self._verdict
        finally:
            self._verdict = None

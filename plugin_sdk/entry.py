"""The ways onto the bus: connect() for programs, make_bus() for everything that has a peer already."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plugin_sdk import exporting
from plugin_sdk.client import Bus
from plugin_sdk.discovery import find_broker
from plugin_sdk.handlers import THREADS
from plugin_sdk.link import DealerLink
from plugin_sdk.peer import Peer
from plugin_sdk.registration import Profile
from plugin_sdk.wire.errors import ConnectionLost


def make_bus(peer: Peer, threads: int = THREADS, service: str = "") -> Bus:
    """A bus; one that leaves traces when the OTEL_* variables or the program itself ask for them.

    Args:
        peer: its session.
        threads: how many plain handlers may run at once.
        service: what traces call this process; by default as its peer is called.
    """
    profile, export = peer.profile, exporting.current()
    if export is None and not _has_provider():
        export = exporting.set_up(service or profile.name, profile.version) if exporting.asked() else None
        if export is None:
            return Bus(peer, threads)
    from plugin_sdk.tracing import TracedBus

    return TracedBus(peer, threads, export.heads if export else None)


@asynccontextmanager
async def connect(
    endpoint: str | None = None,
    key: str | Path | None = None,
    home: str | Path | None = None,
    name: str = "",
    timeout: float | None = None,
) -> AsyncIterator[Bus]:
    """Connect to a broker as a client, by default to the one of this user's home.

    Args:
        endpoint: default: BROKER_ENDPOINT, else the local socket in the home.
        key: a key or the path of a key file; default: BROKER_KEY, else the operator's key in the home.
        home: default: BROKER_HOME, else ~/.plugmesh.
        name: how the broker shows this client; default: `client`, or inside of a managed plugin its name, as its token
            admits no other.
        timeout: seconds to try at most; default: three attempts, about 7 s.

    Raises:
        ConnectionLost: no key was found, or `timeout` is over.
        RegistrationError: nobody listens there, or the broker refused us; lists what every attempt met.
    """
    address = find_broker(endpoint, key, home)
    profile = Profile("client", name or address.admits or "client")
    bus = make_bus(Peer(DealerLink(address), profile, address.token, address.endpoint))
    try:
        async with asyncio.timeout(timeout) as limit:
            await bus.open()
    except TimeoutError:
        if not limit.expired():
            raise
        raise ConnectionLost(f"no session with {address.endpoint} within {timeout:g} s", "unavailable") from None
    try:
        yield bus
    finally:
        await bus.close()


def _has_provider() -> bool:
    """Whether the program has set up OpenTelemetry itself."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)

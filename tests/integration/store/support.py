"""What the tests of the store share."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from broker.store import PluginRecord, RegisterStatus, Store

T = TypeVar("T")
# How long anything here may take; nothing takes that long when it works.
BOUND_SECS = 15.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds; fail naming `what` was waited for."""
    deadline = time.monotonic() + BOUND_SECS
    while not condition():
        assert time.monotonic() < deadline, f"waited {BOUND_SECS:g} s in vain: {what}"
        time.sleep(0.01)


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns."""
    return asyncio.run(work)


def land(store: Store) -> None:
    """Wait until everything submitted has landed."""
    left = finished(store.flush(BOUND_SECS))
    assert left == 0, store.state()


def describe(store: Store, plugin_id: str, **changes: Any) -> None:
    """Describe a plugin of which only `changes` matter."""
    facts: dict[str, Any] = {
        "name": plugin_id,
        "version": "1.0.0",
        "description": "",
        "enabled": True,
        "desired_state": "running",
    }
    store.plugins.upsert(plugin_id, **(facts | changes))


def plugin(store: Store, plugin_id: str) -> PluginRecord:
    """Return a plugin that must exist, after all writes have landed."""
    land(store)
    found = finished(store.plugins.get(plugin_id))
    assert found is not None, f"no plugin {plugin_id!r}"
    return found


def statuses(store: Store) -> dict[str, RegisterStatus]:
    """Return the registration of every plugin, after all writes have landed."""
    land(store)
    return {record.plugin_id: record.register_status for record in finished(store.plugins.list())}


def actions(store: Store) -> list[str]:
    """Return the actions in the audit log, oldest first, after all writes have landed."""
    land(store)
    return [record.action for record in reversed(finished(store.audit.newest(limit=100_000)))]


def down(store: Store) -> str:
    """Wait until the store is down and return the reason."""
    wait_for(lambda: store.state().status == "down", f"store to be down, it is {store.state()}")
    return store.state().reason


def up(store: Store) -> None:
    """Wait until the store is up."""
    wait_for(lambda: store.state().status == "up", f"store to be up, it is {store.state()}")

"""The handlers of `$broker.*`, one a verb: snapshot in, command out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from broker.control.ports import Facts, Plugins
from broker.control.slow import slow_as_map
from broker.control.status import describe_plugins
from plugin_sdk.wire.errors import BusError


class Control:
    """Answers the operator.

    Args:
        plugins: the supervisor.
        facts: the rest of the broker.
        heartbeat: seconds between two heartbeats of a plugin.
    """

    def __init__(self, plugins: Plugins, facts: Facts, heartbeat: float) -> None:
        self._plugins = plugins
        self._facts = facts
        self._heartbeat = heartbeat

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """By service name."""
        return {
            "$broker.ping": self.ping,
            "$broker.status": self.status,
            "$broker.start": self.start,
            "$broker.stop": self.stop,
            "$broker.services": self.services,
            "$broker.sessions": self.sessions,
            "$broker.keys": self.keys,
            "$broker.reload_config": self.reload_config,
        }

    async def ping(self) -> None:
        """A sign of life: the answer has been through the router, and through the loop."""

    async def status(self, name: str | None = None) -> dict[str, Any]:
        """The broker and all plugins, or the plugin `name` alone; raises BusError `unavailable` for an unknown one."""
        snapshot = self._facts.router()
        rows = describe_plugins(self._plugins.snapshot(), snapshot, self._heartbeat)
        if name is not None:
            rows = [row for row in rows if row["name"] == name] or self._unknown(name)
        broker = {
            **self._facts.broker(),
            "sessions": len(snapshot.sessions),
            "waiting_bytes": snapshot.waiting_bytes,
            "max_waiting_bytes": snapshot.max_waiting_bytes,
            "counters": snapshot.counters,
        }
        slow = [slow_as_map(each) for each in snapshot.slow if name in (None, each.name)]
        return {"broker": broker, "plugins": rows, "slow_consumers": slow}

    async def start(self, name: str, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Start a plugin after those it needs; returns how it stands then."""
        await self._audited(caller, "start", name, self._plugins.start(name))
        rows = (await self.status(name))["plugins"]
        return {"name": name, "state": rows[0]["state"], "pid": rows[0]["pid"], "error": rows[0]["error"]}

    async def stop(self, name: str, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Stop a plugin, before it those that need it; returns their names in the order of stopping."""
        return {"stopped": list(await self._audited(caller, "stop", name, self._plugins.stop(name)))}

    async def services(self) -> list[dict[str, Any]]:
        """The service registry: which plugin serves what, with what load."""
        return [
            {
                "service": service.name,
                "plugin": session.name,
                "instance": session.instance,
                "session": session.number,
                "outstanding": service.outstanding,
                "served": service.served,
                "limit": service.limit,
            }
            for session in self._facts.router().sessions
            for service in session.services
        ]

    async def sessions(self) -> list[dict[str, Any]]:
        """Every peer that is registered, clients among them."""
        return [
            {
                "session": each.number,
                "name": each.name,
                "role": each.role,
                "proof": each.proof,
                "transport": each.transport,
                "pid": each.pid or None,
                "claimed_pid": each.claimed_pid or None,
                "age_secs": each.age,
                "silent_secs": each.silent,
                "published": each.published,
                "pending_bytes": each.pending_bytes,
                "waiting": each.waiting,
                "dropped": sum(subscription.dropped for subscription in each.subscriptions),
            }
            for each in self._facts.router().sessions
        ]

    async def keys(self, *, caller: dict[str, Any]) -> dict[str, int]:
        """Read the keys in the home anew."""
        number = self._facts.read_keys()
        self._facts.audit(_who(caller), "read keys", "broker", "done", f"{number} keys")
        return {"keys": number}

    async def reload_config(self, *, caller: dict[str, Any]) -> Mapping[str, Any]:
        """Read the configuration and the plugin folders anew; returns the report."""
        report = await self._facts.reload_config()
        result = "refused" if report["problems"] else "done"
        self._facts.audit(_who(caller), "reload config", "broker", result, "; ".join(report["problems"]))
        return report

    async def _audited(self, caller: dict[str, Any], action: str, name: str, work: Any) -> Any:
        try:
            result = await work
        except BusError as error:
            self._facts.audit(_who(caller), action, name, "refused", error.text)
            raise
        self._facts.audit(_who(caller), action, name, "done")
        return result

    def _unknown(self, name: str) -> list[dict[str, Any]]:
        known = [each.name for each in self._plugins.snapshot()]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"
        raise BusError("unavailable", f"there is no plugin {name!r}: {hint}")


def _who(caller: dict[str, Any]) -> str:
    return f"{caller.get('name', 'unknown')} (process {caller.get('pid') or 'unknown'})"

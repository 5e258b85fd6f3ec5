"""The handlers of `$broker.*`, one a verb: snapshot in, command out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from broker.control.figures import Pace, add_usage, local_pids, totals
from broker.control.graph import describe_graph
from broker.control.health import judge
from broker.control.orders import Orders, who
from broker.control.ports import Facts, Plugins
from broker.control.slow import slow_as_map
from broker.control.status import describe_plugins
from broker.control.why import Case, explain
from plugin_sdk.wire.errors import BusError

MOST_AUDITS = 1000
MOST_LINES = 1000
LONGEST_LINE = 4000  # characters; with the most lines a reply stays below the size of a frame
OBSERVE_SECS = 600.0


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
        self._orders = Orders(plugins, facts)
        self._pace = Pace()

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """By service name."""
        return {
            "$broker.ping": self.ping,
            "$broker.status": self.status,
            "$broker.graph": self.graph,
            "$broker.services": self.services,
            "$broker.sessions": self.sessions,
            "$broker.keys": self.keys,
            "$broker.reload_config": self.reload_config,
            "$broker.why": self.why,
            "$broker.audit": self.audit,
            "$broker.logs": self.logs,
            **self._orders.handlers(),
        }

    async def ping(self) -> None:
        """A sign of life: the answer has been through the router, and through the loop."""

    def document(self) -> dict[str, Any]:
        """The broker and all plugins at this moment, but for what their processes use."""
        snapshot = self._facts.router()
        plugins = self._plugins.snapshot()
        rows = describe_plugins(plugins, snapshot, self._heartbeat)
        packages = self._facts.packages()
        for row in rows:
            row["package"] = packages.get(row["name"], {})
        broker = {**self._facts.broker(), **totals(snapshot, rows, self._plugins.figures())}
        broker["heartbeat_secs"] = self._heartbeat
        broker["events_per_sec"] = self._pace.per_second(snapshot.counters["events_published"], time.monotonic())
        return {"broker": broker, "plugins": rows, "slow_consumers": list(map(slow_as_map, snapshot.slow))}

    async def status(self, name: str | None = None) -> dict[str, Any]:
        """The broker and all plugins, or the plugin `name` alone; raises BusError `unavailable` for an unknown one."""
        document = self.document()
        if name is not None:
            document["plugins"] = [row for row in document["plugins"] if row["name"] == name] or self._unknown(name)
            document["slow_consumers"] = [each for each in document["slow_consumers"] if each["name"] == name]
        add_usage(document, await self._facts.usage(local_pids(document)))
        return document

    async def graph(self) -> dict[str, Any]:
        """Who publishes, subscribes, serves and calls what; see `describe_graph`.

        Who publishes and calls is learnt from traffic, from the first time that this is asked for until ten minutes
        after the last time.
        """
        self._facts.observe(OBSERVE_SECS)
        return describe_graph(self._facts.router(), self._facts.observed())

    async def why(self, name: str) -> dict[str, str]:
        """Why the plugin `name` is not reachable: one answer, and the next step to take."""
        views = self._plugins.snapshot()
        plugin = next((each for each in views if each.name == name), None)
        number = plugin.session if plugin else None
        session = next((each for each in self._facts.router().sessions if each.number == number), None)
        health = judge(session, self._heartbeat)
        # A wrapper may stand between the process that was started and the one that registered.
        pid = (session.pid if session else 0) or (plugin.pid if plugin else None)
        case = Case(
            name,
            plugin,
            session,
            health,
            self._facts.lately(name),
            await self._facts.ask_health(session.number) if session and not health.silent else {},
            self._facts.process_state(pid) if pid else "",
            [each.name for each in views],
            self._facts.plugin_dir(),
            self._facts.refused_packages(name),
        )
        answer = explain(case)
        return {"name": name, "cause": answer.cause, "text": answer.text, "next": answer.step}

    async def audit(self, plugin: str | None = None, n: int = 50) -> list[dict[str, str]]:
        """The newest `n` entries of the audit log, about one plugin if given, oldest first."""
        if type(n) is not int or not 1 <= n <= MOST_AUDITS:
            raise BusError("bad_request", f"n is {n!r:.80}: use 1 to {MOST_AUDITS}")
        return list(await self._facts.read_audit(n, plugin))

    async def logs(self, name: str, n: int = 50, level: str = "debug") -> list[dict[str, str]]:
        """The last `n` lines that a plugin wrote, of a level or graver ones, oldest first."""
        if type(n) is not int or not 1 <= n <= MOST_LINES:
            raise BusError("bad_request", f"n is {n!r:.80}: use 1 to {MOST_LINES}")
        lines = await self._plugins.logs(name, n, level)
        return [{"at": line.at, "level": line.level, "text": line.text[:LONGEST_LINE]} for line in lines]

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
                "dropped": each.dropped,
                "pending_bytes": each.pending_bytes,
                "waiting": each.waiting,
            }
            for each in self._facts.router().sessions
        ]

    async def keys(self, *, caller: dict[str, Any]) -> dict[str, int]:
        """Read the keys in the home anew."""
        number = self._facts.read_keys()
        self._facts.audit(who(caller), "read keys", "broker", "done", f"{number} keys")
        return {"keys": number}

    async def reload_config(self, *, caller: dict[str, Any]) -> Mapping[str, Any]:
        """Read the configuration and the plugin folders anew; returns the report."""
        report = await self._facts.reload_config()
        result = "refused" if report["problems"] else "done"
        self._facts.audit(who(caller), "reload config", "broker", result, "; ".join(report["problems"]))
        return report

    def _unknown(self, name: str) -> list[dict[str, Any]]:
        known = [each.name for each in self._plugins.snapshot()]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"
        raise BusError("unavailable", f"there is no plugin {name!r}: {hint}")

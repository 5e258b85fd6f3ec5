"""What the operator orders of plugins, each order a service of `$broker.*`.

An order goes on when the one who gave it goes away, and is written into the audit log when it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from broker.control.ports import Facts, Plugins, RenewalFacts
from plugin_sdk.wire.errors import BusError

T = TypeVar("T")


class Orders:
    """Carries out orders; several at a time.

    Args:
        plugins: the supervisor.
        facts: the rest of the broker.
    """

    def __init__(self, plugins: Plugins, facts: Facts) -> None:
        self._plugins = plugins
        self._facts = facts
        self._tasks: set[asyncio.Task[Any]] = set()

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """By service name."""
        return {
            "$broker.start": self.start,
            "$broker.stop": self.stop,
            "$broker.reload": self.reload,
            "$broker.upgrade": self.upgrade,
            "$broker.enable": self.enable,
            "$broker.disable": self.disable,
            "$broker.drain": self.drain,
            "$broker.undrain": self.undrain,
        }

    async def start(self, name: str, force: bool = False, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Start a plugin after those it needs, with `force` also what is quarantined; returns how it stands then."""
        await self._audited(caller, "start", name, self._plugins.start(name, force=force))
        return self._standing(name)

    async def stop(self, name: str, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Stop a plugin, before it those that need it; returns their names in the order of stopping."""
        return {"stopped": await self._take_down(caller, "stop", name, self._plugins.stop(name))}

    async def reload(
        self, names: list[str] | None = None, name: str | None = None, *, caller: dict[str, Any]
    ) -> dict[str, Any]:
        """Reload one, several or (without any name) all plugins; returns a result for each of them."""
        wanted = [name] if name is not None else names
        results = await self._own(self._reload(wanted, caller))
        return {
            "results": [
                {
                    "name": each.plugin_id,
                    "result": "failed" if each.error else "reloaded",
                    "attempts": each.attempts,
                    "error": each.error,
                }
                for each in results
            ]
        }

    async def upgrade(
        self, name: str, path: str | None = None, force: bool = False, *, caller: dict[str, Any]
    ) -> dict[str, Any]:
        """Put a new version of a plugin in the place of the old one, once it is proven.

        Args:
            name: the plugin.
            path: absolute path of the folder with the new version; its own folder when not given.
            force: also what is quarantined.

        Raises:
            BusError: it was not upgraded; the text says why, and whether the old version goes on.
        """
        folder = None if path is None else Path(path)
        if folder is not None and not folder.is_absolute():
            raise BusError("bad_request", f"path is {path!r:.200}: use an absolute path")
        done = await self._audited(caller, "upgrade", name, self._plugins.upgrade(name, folder, force=force))
        return {
            "name": name,
            "before": done.before,
            "after": done.after,
            "digest": done.digest,
            "running": done.running,
        }

    async def enable(self, name: str, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Let a plugin run again and start it; returns how it stands then."""
        await self._audited(caller, "enable", name, self._plugins.enable(name))
        return self._standing(name)

    async def disable(self, name: str, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Stop a plugin, before it those that need it, and keep it from running; returns the names of the stopped."""
        return {"stopped": await self._take_down(caller, "disable", name, self._plugins.disable(name))}

    async def drain(self, name: str, timeout: float = 30.0, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Give a plugin nothing new and wait until it has finished what it has, for `timeout` seconds at most."""
        return {"finished": await self._audited(caller, "drain", name, self._plugins.drain(name, timeout))}

    async def undrain(self, name: str, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Put a plugin back that was drained."""

        async def work() -> None:
            self._plugins.undrain(name)

        await self._audited(caller, "undrain", name, work())
        return self._standing(name)

    async def _take_down(
        self, caller: dict[str, Any], action: str, name: str, work: Coroutine[Any, Any, Sequence[str]]
    ) -> list[str]:
        async def audited() -> list[str]:
            stopped = list(await self._audit(caller, action, name, work))
            for other in stopped:
                if other != name:
                    self._facts.audit(who(caller), "stop", other, "done", f"with {name}, which it needs")
            return stopped

        return await self._own(audited())

    async def _reload(self, names: Sequence[str] | None, caller: dict[str, Any]) -> Sequence[RenewalFacts]:
        results = await self._plugins.renew(names)
        for each in results:
            result = "failed" if each.error else "done"
            self._facts.audit(who(caller), "reload", each.plugin_id, result, each.error)
        return results

    def _standing(self, name: str) -> dict[str, Any]:
        view = next(each for each in self._plugins.snapshot() if each.name == name)
        return {"name": name, "state": view.state, "pid": view.pid, "error": view.error}

    async def _audited(self, caller: dict[str, Any], action: str, name: str, work: Coroutine[Any, Any, T]) -> T:
        return await self._own(self._audit(caller, action, name, work))

    async def _audit(self, caller: dict[str, Any], action: str, name: str, work: Coroutine[Any, Any, T]) -> T:
        try:
            result = await work
        except BusError as error:
            self._facts.audit(who(caller), action, name, "refused", error.text)
            raise
        self._facts.audit(who(caller), action, name, "done")
        return result

    async def _own(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for work that goes on even when nobody waits for it any more."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # When nobody waits, nobody takes what it raised; that has been logged and audited.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)


def who(caller: dict[str, Any]) -> str:
    """Who asks, for the audit log."""
    return f"{caller.get('name', 'unknown')} (process {caller.get('pid') or 'unknown'})"

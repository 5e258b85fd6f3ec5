"""What the supervisor and the daemon write down, put into the store."""

from __future__ import annotations

from broker.store import Store, StoreDown
from plugin_sdk.wire.errors import BusError


class Records:
    """Writes of the supervisor; all return at once and none raises for a broken database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def registration(self, plugin_id: str, status: int, error: str | None) -> None:
        """How far the registration of a plugin got (PLG-4)."""
        self._store.plugins.update_registration_status(plugin_id, status, error)

    def described(
        self, plugin_id: str, *, name: str, version: str, description: str, enabled: bool, desired: str
    ) -> None:
        """What a plugin's manifest and its operator say."""
        self._store.plugins.upsert(
            plugin_id,
            name=name,
            version=version,
            description=description,
            enabled=enabled,
            desired_state=desired,
        )

    def quarantined(self, plugin_id: str, digest: str, version: str, reason: str, *, released: bool) -> None:
        """Content that must not be started again, and why; or that may be after all, when `released`."""
        self._store.plugins.record_quarantine(plugin_id, digest, version, reason, released=released)

    def exceeded(self, plugin_id: str, limit: str, result: str, text: str) -> None:
        """What the kernel did to a plugin because of a limit, and how its run has ended."""
        self.audit("broker", "over limit", plugin_id, result, f"{limit}: it {text}")

    def exited(self, plugin_id: str, text: str, restarts: int) -> None:
        """How the process of a plugin ended."""
        self._store.plugins.record_exit(plugin_id, text, restarts)

    async def newest_audits(self, limit: int, target: str | None) -> list[dict[str, str]]:
        """The newest entries of the audit log, about one plugin if given, oldest first.

        Raises:
            BusError: the database cannot be asked.
        """
        try:
            found = await self._store.audit.newest(limit, target)
        except StoreDown as error:
            raise BusError("unavailable", f"the audit log cannot be read: {error}") from None
        return [
            {
                "at": each.happened_at.isoformat(timespec="milliseconds"),
                "actor": each.actor,
                "action": each.action,
                "target": each.target,
                "result": each.result,
                "detail": each.detail,
            }
            for each in reversed(found)
        ]

    def audit(self, actor: str, action: str, target: str, result: str, detail: str) -> None:
        """Who did what to which plugin, with what result (SEC-5)."""
        self._store.audit.record(actor, action, target, result, detail)

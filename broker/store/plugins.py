"""What the broker keeps about its plugins: table `t_plugin`."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from broker.store import writes
from broker.store.reading import Reader
from broker.store.records import PluginRecord, QuarantineRecord, RegisterStatus
from broker.store.writes import Write

if TYPE_CHECKING:
    from sqlalchemy import Connection


class PluginRepository:
    """The plugins of one node. Writes only queue: they return at once, whatever the database does."""

    def __init__(
        self, node: str, submit: Callable[[Write], None], reader: Reader, clock: Callable[[], datetime]
    ) -> None:
        self._node = node
        self._submit = submit
        self._reader = reader
        self._clock = clock

    def upsert(
        self, plugin_id: str, *, name: str, version: str, description: str, enabled: bool, desired_state: str
    ) -> None:
        """Describe a plugin as its manifest and the operator have it; its registration stays as it is."""
        self._submit(
            writes.described(
                self._node,
                plugin_id,
                self._clock(),
                name=name,
                version=version,
                description=description,
                enabled=enabled,
                desired_state=desired_state,
            )
        )

    def update_registration_status(self, plugin_id: str, status: int, error: str | None = None) -> None:
        """Set how far the registration of a plugin got, and why it failed (PLG-4).

        Raises ValueError when `status` is no RegisterStatus.
        """
        self._submit(writes.status(self._node, plugin_id, self._clock(), RegisterStatus(status), error))

    def record_exit(self, plugin_id: str, exit_text: str, restarts: int) -> None:
        """Set how the process of a plugin ended last and how often it was restarted."""
        self._submit(writes.exited(self._node, plugin_id, self._clock(), exit_text, restarts))

    def record_quarantine(self, plugin_id: str, digest: str, version: str, reason: str, *, released: bool) -> None:
        """Keep content of a plugin from being started, for this reason; or let it be again (PLG-8)."""
        self._submit(
            writes.quarantined(self._node, plugin_id, self._clock(), digest, version, reason, released=released)
        )

    async def quarantine(self, plugin_id: str | None = None) -> Sequence[QuarantineRecord]:
        """Return what is or was kept from being started, of one plugin if given, newest first; raises StoreDown."""

        def query(connection: "Connection") -> Sequence[QuarantineRecord]:
            from broker.store import statements

            return statements.quarantine_of(connection, self._node, plugin_id)

        return await self._reader.read(query)

    async def list(self) -> Sequence[PluginRecord]:
        """Return the plugins of this node in the order of their ids; raises StoreDown."""

        def query(connection: "Connection") -> Sequence[PluginRecord]:
            from broker.store import statements

            return statements.all_plugins(connection, self._node)

        return await self._reader.read(query)

    async def get(self, plugin_id: str) -> PluginRecord | None:
        """Return one plugin of this node, None when the database does not know it; raises StoreDown."""

        def query(connection: "Connection") -> PluginRecord | None:
            from broker.store import statements

            return statements.one_plugin(connection, self._node, plugin_id)

        return await self._reader.read(query)

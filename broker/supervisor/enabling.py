"""Whether plugins may run at all, as the operator says by command: it holds until he says otherwise."""

from broker.supervisor.errors import SupervisorError
from broker.supervisor.lives import Lives
from broker.supervisor.roster import Roster
from broker.supervisor.standing import Standing
from broker.supervisor.unit import Unit


class Enabling:
    """Enables and disables plugins that have a folder."""

    def __init__(self, roster: Roster, lives: Lives, standing: Standing) -> None:
        self._roster = roster
        self._lives = lives
        self._standing = standing

    def note(self, plugin_id: str) -> str:
        """By what a plugin is disabled, if it is by command."""
        return "disabled with `broker disable`" if self._standing.enabled.get(plugin_id) is False else ""

    async def enable(self, name: str) -> None:
        """Lets a plugin run again; it is not started by this.

        Raises:
            SupervisorError: the name is unknown, or it has no folder.
        """
        unit = self._find(name)
        await self._standing.enable(name, None if await self._roster.enabled_by_itself(unit) else True)
        await self._roster.rescan()

    async def disable(self, name: str) -> tuple[str, ...]:
        """Keeps a plugin from running, now and in the next broker, too.

        Returns:
            The plugins that were stopped for that, in the order of stopping.

        Raises:
            SupervisorError: the name is unknown, or it has no folder.
        """
        unit = self._find(name)
        await self._standing.enable(name, False)
        stopped = await self._lives.stop(unit) if unit.active else ()
        await self._roster.rescan()
        return stopped

    def _find(self, name: str) -> Unit:
        unit = self._roster.get(name)
        if unit.installed is None or (unit.active and not unit.managed):
            text = f"plugin {name!r} was started by hand: stop that process, or take its key with `broker key remove`"
            raise SupervisorError("unavailable", text)
        return unit

"""What has changed in the plugin folders since they were read, and what that means for each plugin."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from broker.supervisor.discovery import Catalog, Installed
from broker.supervisor.states import Desired, State
from broker.supervisor.unit import Unit

# A change of these takes effect at once; anything else the process must be started anew for.
_AT_ONCE = frozenset({"name", "description", "restart", "on_dependency_restart", "timeouts"})
_FIELDS = (
    "name",
    "version",
    "description",
    "enabled",
    "requires",
    "parent",
    "after",
    "conflicts",
    "services",
    "command",
    "env",
    "config",
    "restart",
    "on_dependency_restart",
    "timeouts",
    "permissions",
    "limits",
    "sandbox",
)


class Verb(StrEnum):
    """What is to be done with a plugin."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    UPDATE = "update"
    KEEP = "keep"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done with one plugin, and why."""

    plugin_id: str
    verb: Verb
    reason: str


def compare(units: Iterable[Unit], catalog: Catalog) -> list[Change]:
    """What to do so that the plugins are what the folders say now, by name."""
    known = {unit.plugin_id: unit for unit in units}
    found = {each.plugin_id: each for each in catalog.plugins}
    changes = [_judge(known.get(name), installed) for name, installed in found.items()]
    changes += _gone(known[name] for name in known.keys() - found.keys())
    return sorted(changes, key=lambda change: change.plugin_id)


def _judge(unit: Unit | None, found: Installed) -> Change:
    if unit is None or (unit.installed is None and not unit.active):
        return Change(found.plugin_id, *_newcomer(found))
    if not unit.managed and unit.active:
        what = Verb.NOTHING if unit.installed == found else Verb.KEEP
        return Change(found.plugin_id, what, "it was started by hand: start that process anew")
    if unit.installed == found or unit.installed is None:
        return Change(found.plugin_id, Verb.NOTHING, "")
    judge = _while_active if unit.active else _at_rest
    return Change(found.plugin_id, *judge(unit, unit.installed, found))


def _newcomer(found: Installed) -> tuple[Verb, str]:
    return (Verb.START, "it is new") if _enabled(found) else (Verb.UPDATE, "it is new and disabled")


def _while_active(unit: Unit, old: Installed, new: Installed) -> tuple[Verb, str]:
    if new.fault:
        return Verb.KEEP, f"goes on as it was started, because {new.fault}"
    if not _enabled(new):
        return Verb.STOP, "it is disabled"
    changed = _changed(old, new)
    verb = Verb.UPDATE if set(changed) <= _AT_ONCE and old.folder == new.folder else Verb.RESTART
    return verb, f"new {', '.join(changed) or 'folder'}"


def _at_rest(unit: Unit, old: Installed, new: Installed) -> tuple[Verb, str]:
    if not new.fault and not _enabled(new):
        return Verb.UPDATE, "it is disabled" if _enabled(old) else "it is still disabled"
    if unit.state is State.DISABLED:
        return Verb.START, "it is enabled"
    if unit.desired is Desired.RUNNING:
        return Verb.START, f"new {', '.join(_changed(old, new)) or 'manifest'}"
    return Verb.UPDATE, "it stays stopped, as it was told to"


def _gone(units: Iterable[Unit]) -> Iterator[Change]:
    for unit in units:
        if unit.installed is not None and not (unit.active and not unit.managed):
            yield Change(unit.plugin_id, Verb.STOP, "its folder is gone")


def _enabled(installed: Installed) -> bool:
    return installed.manifest is None or installed.manifest.enabled


def _changed(old: Installed, new: Installed) -> list[str]:
    if old.manifest is None or new.manifest is None:
        return []
    names = [name for name in _FIELDS if getattr(old.manifest, name) != getattr(new.manifest, name)]
    # In the manifest the operator's word on these is not merged into that of the plugin, as it weighs more.
    names += [name for name in ("limits", "sandbox") if getattr(old.orders, name) != getattr(new.orders, name)]
    return names if names or old.command == new.command else ["command"]

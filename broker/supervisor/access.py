"""The permissions that a plugin asks for, and those that its operator grants (SEC-1).

Both are written the same way: what a `permissions` section does not name is not granted. Only a plugin without
such a section, in `plugin.yaml` and in the operator's file, is free.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from broker.core.grants import UNRESTRICTED, Permissions
from broker.supervisor.document import BadDocument, Document, read_document
from broker.supervisor.section import Section, read_as
from broker.supervisor.values import Before
from plugin_sdk.wire.limits import MAX_PATTERNS
from plugin_sdk.wire.subjects import BadSubject, check_pattern

FILE = "grants.yaml"
EVERYBODY = "*"  # the entry for plugins that have none of their own
NOTHING = Permissions(publish=(), subscribe=(), call=())

_LOG_SUBJECTS, _LOG_SERVICE = "log.>", "logger.write"


def _pattern(value: str) -> str:
    try:
        return check_pattern(value)
    except BadSubject as error:
        raise ValueError(error.text) from None


def _bounded(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > MAX_PATTERNS:
        raise ValueError(f"{len(value)} patterns; expects {MAX_PATTERNS} at most: wildcards say it shorter")
    return value


def _whole_verbs(value: object) -> object:
    """The short form: a list of verbs means every subject."""
    if isinstance(value, list) and all(verb in ("publish", "subscribe") for verb in value):
        return {verb: [">"] for verb in value}
    return value


Pattern = Annotated[str, _pattern]
Patterns = Annotated[
    tuple[Pattern, ...], Meta(description="a list of names and patterns such as ['user.login', 'order.*']"), _bounded
]


class EventBus(Section, frozen=True):
    """Subjects that a plugin may publish to and subscribe to."""

    publish: Patterns = ()
    subscribe: Patterns = ()


class ServiceUse(Section, frozen=True):
    """Services that a plugin may call, and which of those under its own name it may offer; all, when not said."""

    call: Patterns = ()
    offer: Patterns | UnsetType = UNSET


class Access(Section, frozen=True):
    """A `permissions` section."""

    event_bus: Annotated[
        EventBus, Meta(description="'publish' and 'subscribe' with lists of subjects"), Before(_whole_verbs)
    ] = EventBus()
    services: Annotated[ServiceUse, Meta(description="'call' and 'offer' with lists of services")] = ServiceUse()
    logger: Annotated[tuple[Literal["write"], ...], Meta(description="a list: [write], or nothing")] = ()


class Grant(Access, frozen=True):
    """What the operator grants to one plugin: that of its roles, and more."""

    roles: Annotated[tuple[str, ...], Meta(description="a list of roles that this file describes")] = ()


ByRole = Annotated[dict[str, Access], Meta(description="permissions by the name of a role")]
ByPlugin = Annotated[dict[str, Grant], Meta(description="permissions and roles by plugin, '*' for all others")]


class Grants(Section, frozen=True):
    """The operator's file. A plugin that it names has what it says, whatever the plugin asks for."""

    roles: Annotated[dict[str, Access], Meta(description="permissions by the name of a role")] = msgspec.field(
        default_factory=dict
    )
    plugins: Annotated[dict[str, Grant], Meta(description="permissions and roles by plugin, '*' for all others")] = (
        msgspec.field(default_factory=dict)
    )

    def of(self, plugin_id: str, asked: Access | None, *, as_declared: bool) -> Permissions:
        """What a plugin may do.

        Args:
            plugin_id: its proven name.
            asked: what its `plugin.yaml` asks for, if that is known and says anything.
            as_declared: whether a plugin that this file does not name has what it asks for, and everything when it
                asks for nothing in particular; otherwise it has nothing.
        """
        grant = self.plugins.get(plugin_id) or self.plugins.get(EVERYBODY)
        if grant is not None:
            return _permissions([*(self.roles[role] for role in grant.roles), grant])
        if not as_declared:
            return NOTHING
        return UNRESTRICTED if asked is None else _permissions([asked])


def read_grants(home: Path) -> Grants:
    """The operator's file in a broker's home; empty when there is none.

    Raises:
        BadDocument: it cannot be used. Nobody may be started then, as nobody knows what was meant to be denied.
    """
    path = home / FILE
    if not path.exists():
        return Grants()
    document = read_document(path)
    grants = read_as(Grants, document)
    problems = list(_unknown_roles(grants, document))
    if problems:
        raise BadDocument("\n".join(problems))
    return grants


def _unknown_roles(grants: Grants, document: Document) -> Iterable[str]:
    for plugin, grant in grants.plugins.items():
        for role in grant.roles:
            if role not in grants.roles:
                where = document.at(("plugins", plugin, "roles"))
                known = ", ".join(sorted(grants.roles)) or "none"
                yield f"{where}: role {role!r} of {plugin!r} is not described; there are {known}"


def _permissions(parts: list[Access]) -> Permissions:
    offers = [part.services.offer for part in parts if part.services.offer is not UNSET]
    writes = any(part.logger for part in parts)
    return Permissions(
        publish=_joined((part.event_bus.publish for part in parts), _LOG_SUBJECTS if writes else ""),
        subscribe=_joined(part.event_bus.subscribe for part in parts),
        call=_joined((part.services.call for part in parts), _LOG_SERVICE if writes else ""),
        offer=_joined(offers) if offers else None,
    )


def _joined(patterns: Iterable[tuple[str, ...]], further: str = "") -> tuple[str, ...]:
    every = [each for part in patterns for each in part]
    return tuple(dict.fromkeys([*every, further] if further else every))

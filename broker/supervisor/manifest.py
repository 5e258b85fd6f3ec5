"""What a plugin says about itself in `plugin.yaml`, and what its operator says about it in `config_dir/NAME.yaml`."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from broker.supervisor.access import Access
from broker.supervisor.confinement import AskedSandbox, ResourceLimits, Sandbox
from broker.supervisor.restart import OnRestart, RestartPolicy
from broker.supervisor.section import Section
from broker.supervisor.values import (
    FLAG,
    POLICY,
    STRATEGY,
    TEXT,
    Command,
    Environment,
    FreeConfig,
    Parent,
    PluginId,
    PluginVersion,
    Requirement,
    Secs,
)


class Timeouts(Section, frozen=True):
    """Seconds that each step may take; what is not said here is the supervisor's to decide."""

    register_: Secs = msgspec.field(default=None, name="register")
    initialize: Secs = None
    start: Secs = None
    cleanup: Secs = None
    stop: Secs = None
    drain: Secs = None
    min_uptime: Secs = None

    def over(self, base: "Timeouts") -> "Timeouts":
        """These, and those of `base` where these say nothing."""
        return structs.replace(base, **{name: secs for name, secs in structs.asdict(self).items() if secs is not None})


SANDBOX = Meta(description="'mode', 'bubblewrap', 'read' and 'write'")
AskedLimits = Annotated[ResourceLimits, Meta(description="limits by name, such as 'memory: 256M'")]
StepTimeouts = Annotated[Timeouts, Meta(description="seconds by step, such as 'register: 20'")]


class Manifest(Section, frozen=True):
    """A plugin's description of itself."""

    id: Annotated[PluginId, Meta(description="a name of letters, digits, '_' and '-' that begins with a letter")]
    name: Annotated[str, TEXT]
    version: PluginVersion
    description: Annotated[str, TEXT] = ""
    enabled: Annotated[bool, FLAG] = True
    requires: Annotated[tuple[Requirement, ...], Meta(description="a list such as ['logger>=1.0']")] = ()
    parent: Parent = None
    after: Annotated[tuple[PluginId, ...], Meta(description="a list of plugin names")] = ()
    conflicts: Annotated[tuple[Requirement, ...], Meta(description="a list such as ['old-logger<2']")] = ()
    services: Annotated[tuple[str, ...], Meta(description="a list of service names")] = ()
    permissions: Access | None = None
    limits: AskedLimits = ResourceLimits()
    sandbox: Annotated[AskedSandbox, SANDBOX] = AskedSandbox()
    command: Command = ()
    env: Environment = msgspec.field(default_factory=dict)
    config: FreeConfig = msgspec.field(default_factory=dict)
    restart: Annotated[RestartPolicy, POLICY] = RestartPolicy.ALWAYS
    # None: a sub-plugin restarts with its parent, and everything else keeps running.
    on_dependency_restart: Annotated[OnRestart | None, STRATEGY] = None
    timeouts: StepTimeouts = Timeouts()

    @classmethod
    def completed(cls, data: dict[str, Any]) -> dict[str, Any]:
        """One name will do for both."""
        if "id" in data:
            return {"name": data["id"], **data}
        return {**data, "id": data["name"]} if "name" in data else {**data, "name": ""}

    def overridden(self, overrides: "Overrides") -> "Manifest":
        """The manifest as the operator wants it."""
        return structs.replace(
            self,
            enabled=_first(overrides.enabled, self.enabled),
            restart=_first(overrides.restart, self.restart),
            on_dependency_restart=_first(overrides.on_dependency_restart, self.on_dependency_restart),
            env={**self.env, **overrides.env},
            config=_merged(self.config, overrides.config),
            timeouts=overrides.timeouts.over(self.timeouts),
        )


class Overrides(Section, frozen=True):
    """What the operator's file of one plugin may change."""

    enabled: Annotated[bool | UnsetType, FLAG] = UNSET
    env: Environment = msgspec.field(default_factory=dict)
    config: FreeConfig = msgspec.field(default_factory=dict)
    restart: Annotated[RestartPolicy | UnsetType, POLICY] = UNSET
    on_dependency_restart: Annotated[OnRestart | UnsetType, STRATEGY] = UNSET
    limits: AskedLimits = ResourceLimits()
    sandbox: Annotated[Sandbox, SANDBOX] = Sandbox()
    timeouts: StepTimeouts = Timeouts()


NO_ORDERS = Overrides()


_Value = TypeVar("_Value")


def _first(over: _Value | UnsetType, base: _Value) -> _Value:
    return base if isinstance(over, UnsetType) else over


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged name by name; anything else, lists too, is replaced."""
    both = {name for name in base.keys() & over.keys() if isinstance(base[name], dict) and isinstance(over[name], dict)}
    return {**base, **over, **{name: _merged(base[name], over[name]) for name in both}}

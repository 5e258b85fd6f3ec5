"""Kinds of values in a plugin's description, each with the words that tell a person what is expected.

A function among the annotations of a kind is a step: once the value is of that kind, it gives the value in force or
raises ValueError; so does `Before`, but with whatever the file has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any

from msgspec import Meta
from packaging.version import InvalidVersion, Version

from broker.supervisor.needs import Need, parse_need
from plugin_sdk.wire.subjects import BadSubject, check_name

_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Before:
    """A step that is taken before the value is checked against its kind."""

    step: Callable[[object], object]


def _plugin_id(value: str) -> str:
    try:
        return check_name(value)
    except BadSubject as error:
        raise ValueError(error.text) from None


def _version(value: object) -> Version:
    if not isinstance(value, str):
        raise ValueError('expects a version in quotes, such as "1.0": unquoted, 1.10 would be read as 1.1')
    try:
        return Version(value)
    except InvalidVersion:
        raise ValueError('expects a version such as "1.0" or "2.1.0rc1"') from None


def _number_as_text(value: object) -> object:
    return str(value) if type(value) in (int, float) else value


def _environment(value: Mapping[Any, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is not a text: put it in quotes")
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"{name!r} cannot be an environment variable: no '=' in its name, no zero bytes")
        if name.startswith("BROKER_"):
            raise ValueError(f"{name!r} is set by the broker itself; choose a name that does not begin with BROKER_")
    return value


def _config(value: object) -> object:
    return _plain(value, "config")


def _plain(value: object, name: str) -> object:
    """Lets through what every language and both JSON and msgpack can carry."""
    if isinstance(value, dict):
        if any(not isinstance(key, str) for key in value):
            raise ValueError(f"{name} has a name that is not a text: put it in quotes")
        return {key: _plain(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, f"{name}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise ValueError(f"{name} is a number of more than 64 bits: put it in quotes")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{name} is not a finite number")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{name} is read as {type(value).__name__}: put it in quotes")


TEXT = Meta(description="a text")
FLAG = Meta(description="true or false")
POLICY = Meta(description="always, on-failure or never")
STRATEGY = Meta(description="keep, restart or stop")

Secs = Annotated[
    Annotated[float, Meta(gt=0, le=3600)] | None, Meta(description="a number of seconds above 0, at most 3600")
]
Requirement = Annotated[Need, Before(parse_need)]
Parent = Annotated[
    Need | None, Meta(description="a plugin's name and versions, such as 'users' or 'users>=1.0'"), Before(parse_need)
]
PluginId = Annotated[str, _plugin_id]
PluginVersion = Annotated[Version, Meta(description='a version in quotes, such as "1.0"'), Before(_version)]
Command = Annotated[
    tuple[Annotated[str, Meta(min_length=1)], ...],
    Meta(description="a list: the program and its arguments, such as ['node', 'main.js']"),
]
Environment = Annotated[
    dict[str, Annotated[str, Before(_number_as_text)]],
    Meta(description="lines of the form 'NAME: \"text\"'"),
    _environment,
]
FreeConfig = Annotated[dict[str, Any], Meta(description="the plugin's own settings as 'name: value'"), _config]

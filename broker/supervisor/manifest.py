"""What a plugin says about itself in `plugin.yaml`, and what its operator says about it in `config_dir/NAME.yaml`."""

from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Annotated, Any, TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from broker.supervisor.document import BadDocument, Document
from broker.supervisor.needs import Need, parse_need
from broker.supervisor.restart import RestartPolicy
from plugin_sdk.wire.subjects import BadSubject, check_name

_INT64 = 1 << 63


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


def _environment(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"{name!r} cannot be an environment variable: no '=' in its name, no zero bytes")
        if name.startswith("BROKER_"):
            raise ValueError(f"{name!r} is set by the broker itself; choose a name that does not begin with BROKER_")
    return value


def _number_as_text(value: object) -> object:
    return str(value) if type(value) in (int, float) else value


def _plain(value: Any, name: str = "config") -> Any:
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


Secs = Annotated[
    Annotated[float, Field(gt=0, le=3600)] | None, Field(description="a number of seconds above 0, at most 3600")
]
Requirement = Annotated[Need, PlainValidator(parse_need)]
PluginId = Annotated[str, AfterValidator(_plugin_id)]
Environment = Annotated[
    dict[str, Annotated[str, BeforeValidator(_number_as_text)]],
    AfterValidator(_environment),
    Field(description="lines of the form 'NAME: \"text\"'"),
]
FreeConfig = Annotated[
    dict[str, Any], BeforeValidator(_plain), Field(description="the plugin's own settings as 'name: value'")
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)


class Timeouts(_Section):
    """Seconds that each step may take; what is not said here is the supervisor's to decide."""

    register_: Secs = Field(None, alias="register")
    initialize: Secs = None
    start: Secs = None
    cleanup: Secs = None
    stop: Secs = None

    def over(self, base: "Timeouts") -> "Timeouts":
        """These, and those of `base` where these say nothing."""
        return base.model_copy(update=self.model_dump(exclude_none=True))


class Manifest(_Section):
    """A plugin's description of itself."""

    id: PluginId = Field(description="a name of letters, digits, '_' and '-' that begins with a letter")
    name: str = Field(description="a text")
    version: Annotated[Version, PlainValidator(_version)] = Field(description='a version in quotes, such as "1.0"')
    description: str = Field("", description="a text")
    enabled: bool = Field(True, description="true or false")
    requires: tuple[Requirement, ...] = Field((), description="a list such as ['logger>=1.0']")
    after: tuple[PluginId, ...] = Field((), description="a list of plugin names")
    conflicts: tuple[Requirement, ...] = Field((), description="a list such as ['old-logger<2']")
    services: tuple[str, ...] = Field((), description="a list of service names")
    command: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="a list: the program and its arguments, such as ['node', 'main.js']"
    )
    env: Environment = {}
    config: FreeConfig = {}
    restart: RestartPolicy = Field(RestartPolicy.ALWAYS, description="always, on-failure or never")
    timeouts: Timeouts = Field(Timeouts(), description="seconds by step, such as 'register: 20'")

    @model_validator(mode="before")
    @classmethod
    def _one_name_will_do(cls, data: dict[str, Any]) -> dict[str, Any]:
        if "id" in data:
            return {"name": data["id"], **data}
        return {**data, "id": data["name"]} if "name" in data else {**data, "name": ""}

    def overridden(self, overrides: "Overrides") -> "Manifest":
        """The manifest as the operator wants it."""
        said = overrides.model_fields_set
        return self.model_copy(
            update={
                "enabled": overrides.enabled if "enabled" in said else self.enabled,
                "restart": overrides.restart if "restart" in said else self.restart,
                "env": {**self.env, **overrides.env},
                "config": _merged(self.config, overrides.config),
                "timeouts": overrides.timeouts.over(self.timeouts),
            }
        )


class Overrides(_Section):
    """What the operator's file of one plugin may change."""

    enabled: bool = Field(True, description="true or false")
    env: Environment = {}
    config: FreeConfig = {}
    restart: RestartPolicy = Field(RestartPolicy.ALWAYS, description="always, on-failure or never")
    timeouts: Timeouts = Field(Timeouts(), description="seconds by step, such as 'register: 20'")


_Model = TypeVar("_Model", bound=_Section)


def read_as(model: type[_Model], document: Document) -> _Model:
    """Checks a document against a model.

    Raises:
        BadDocument: with every problem on a line of its own: file, line, field, value and what is expected.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems: dict[str, str] = {}
        for found in error.errors():
            # One name stands for two fields, so one mistake in it is found twice.
            problems.setdefault(_where(document, found), _trouble(model, found))
        raise BadDocument("\n".join(f"{where}: {what}" for where, what in problems.items())) from None


def _where(document: Document, found: ErrorDetails) -> str:
    place = found["loc"]
    if place == ("id",) and "id" not in document.data:
        place = ("name",)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return f"{document.at(place)}: {name}"


def _trouble(model: type[BaseModel], found: ErrorDetails) -> str:
    kind, value = found["type"], found["input"]
    if kind == "extra_forbidden":
        return f"is not a field; {_fields(model, found['loc'])}"
    if kind == "missing":
        return f"is missing; expects {_expected(model, found['loc'])}"
    if kind == "value_error":
        return f"is {_short(value)}: {found['ctx']['error']}"
    return f"is {_short(value)}; expects {_expected(model, found['loc'])}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _fields(model: type[BaseModel], place: tuple[str | int, ...]) -> str:
    for part in place[:-1]:
        inner = model.model_fields[str(part)].annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model
    names = [field.alias or name for name, field in model.model_fields.items()]
    near = get_close_matches(str(place[-1]), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def _expected(model: type[BaseModel], place: tuple[str | int, ...]) -> str:
    expected = "something else"
    for part in place:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        field = fields.get(str(part))
        if field is None:
            break
        expected = field.description or expected
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return expected


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged name by name; anything else, lists too, is replaced."""
    both = {name for name in base.keys() & over.keys() if isinstance(base[name], dict) and isinstance(over[name], dict)}
    return {**base, **over, **{name: _merged(base[name], over[name]) for name in both}}

"""Settings that come as text from outside the file: environment variables and options of the command line."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_origin

from broker.config.problems import Problem, suggest
from broker.config.schema import Sections, settings
from broker.config.values import bare

PREFIX = "BROKER_"

# Read by the broker's clients and set for its plugins: they share the prefix and are no settings.
NOT_SETTINGS = frozenset(
    PREFIX + name for name in ("HOME", "ENDPOINT", "TOKEN", "PLUGIN", "DATA_DIR", "GENERATION", "TRACES_PER_SEC")
)

_KINDS = {name: bare(kind) for name, kind in settings()}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Override:
    """A setting by full name, its value, and where it was said."""

    name: str
    value: object
    source: str


def variable(name: str) -> str:
    """The environment variable of a setting or the common beginning of those of a section."""
    return PREFIX + name.replace(".", "_").upper()


def overrides(environ: Mapping[str, str], options: Mapping[str, str]) -> tuple[list[Override], list[Problem]]:
    """What the environment and, stronger, the options set, and what is wrong with them.

    Args:
        options: texts by the full name of the setting.
    """
    found: list[Override] = []
    problems = list(_strangers(environ))
    texts = [
        (name, environ[variable(name)], f"environment {variable(name)}") for name in _KINDS if variable(name) in environ
    ]
    for name, text, source in [*texts, *((name, text, "command line") for name, text in options.items())]:
        try:
            found.append(Override(name, _value(name, text), source))
        except ValueError as error:
            problems.append(Problem(name, str(error), source))
    return found, problems


def _strangers(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Variables that look like a setting and are none; others that share the prefix are none of our business.

    Kubernetes, for one, sets BROKER_PORT and BROKER_SERVICE_HOST when a service is called broker.
    """
    known = {variable(name) for name in _KINDS} | NOT_SETTINGS
    sections = tuple(f"{variable(section)}_" for section in Sections.__struct_fields__)
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known:
            continue
        of_section = [variable(each) for each in _KINDS if variable(each).startswith(f"{name}_")]
        hint = suggest(name.removeprefix(PREFIX).lower(), _KINDS, variable)
        if f"{name}_" in sections:
            hint = f" but a section of them: {', '.join(of_section)}"
        if hint or name.startswith(sections):
            yield Problem("", f"{name} is no setting{hint}", "environment")


def _value(name: str, text: str) -> object:
    kind = _KINDS[name]
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError(f"expects true or false, got {text!r}")
        return text.lower() in _TRUE
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is int or kind is float:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"expects a {'whole ' if kind is int else ''}number, got {text!r}") from None
    return text

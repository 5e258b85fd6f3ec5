"""How the body of a request becomes the arguments of its handler."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from plugin_sdk.handlers import Handler
from plugin_sdk.wire.errors import BusError

Binding = tuple[tuple[Any, ...], dict[str, Any]]
CALLER = "caller"

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def wants_caller(handler: Handler) -> bool:
    """Whether it has a keyword-only parameter `caller`, which the SDK fills."""
    caller = signature(handler).parameters.get(CALLER)
    return caller is not None and caller.kind is Parameter.KEYWORD_ONLY


def binder(handler: Handler, name: str) -> Callable[[Any], Binding]:
    """Makes a function from body to positional and named arguments.

    No body (nil) calls the handler without arguments; a map is passed by name where its keys are parameters of the
    handler; anything else is the handler's one positional argument. What does not fit is refused, with what is missing.

    Args:
        handler: whose signature decides.
        name: the service, for texts.
    """
    skip = CALLER if wants_caller(handler) else None
    parameters = [each for each in signature(handler).parameters.values() if each.name != skip]
    named = {each.name for each in parameters if each.kind in _BY_NAME}
    required = [each.name for each in parameters if each.default is Parameter.empty and "VAR" not in each.kind.name]
    positional = [each for each in parameters if each.kind in _BY_POSITION]
    any_name = any(each.kind is Parameter.VAR_KEYWORD for each in parameters)
    takes_one = bool(positional) and required in ([], [positional[0].name])
    # With several parameters a map can only be meant by name: half of it must not end up in the first of them.
    takes_map = takes_one and (len(positional) == 1 or positional[0].kind is Parameter.POSITIONAL_ONLY)

    def bind(body: Any) -> Binding:
        if isinstance(body, dict):
            if (any_name or body.keys() <= named) and all(each in body for each in required):
                return (), body
            if takes_map:
                return (body,), {}
        elif body is None:
            if not required:
                return (), {}
        elif takes_one:
            return (body,), {}
        raise BusError("bad_request", _explain(name, parameters, required, body))

    return bind


def _explain(name: str, parameters: list[Parameter], required: list[str], body: Any) -> str:
    given = body if isinstance(body, dict) else {}
    names = [each.name for each in parameters]
    problems = [f"{each!r} is missing" for each in required if each not in given]
    problems += [f"{each!r:.60} is unknown" for each in given if each not in names]
    if not isinstance(body, dict) and body is not None:
        problems = ["a map of named arguments is needed" if names else "it takes no arguments"]
    takes = ", ".join(sorted(names)) or "no arguments"
    return f"the arguments do not fit {name}: {', '.join(problems)} (it takes {takes})"

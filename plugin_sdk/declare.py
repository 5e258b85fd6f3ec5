"""The decorators of a plugin: on an instance they register a function, in a subclass they mark a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from plugin_sdk.handlers import Handler
from plugin_sdk.options import ServiceOptions, SubscribeOptions
from plugin_sdk.wire.subjects import check_pattern, check_subject

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__plugmesh__"


@dataclass(frozen=True, slots=True)
class Declaration:
    """One handler that was declared: a subscription, a service, or a hook."""

    what: str
    name: str
    options: Any = None


class Decorator:
    """Works as `@plugin.subscribe(…)` on an instance and as `@Plugin.subscribe(…)` inside a subclass."""

    def __init__(self, declare: Callable[..., Declaration]) -> None:
        self._declare = declare
        self.__doc__ = declare.__doc__

    def __get__(self, plugin: Any, owner: type[Any]) -> Callable[..., Callable[[F], F]]:
        def decorator(*args: Any, **named: Any) -> Callable[[F], F]:
            if args and callable(args[0]):
                name = getattr(args[0], "__name__", "a function")
                raise TypeError(
                    f"the decorator of {name!r} lacks its parentheses: write @plugin.on_start() and the like"
                )
            declaration = self._declare(*args, **named)

            def remember(handler: F) -> F:
                if plugin is not None:
                    plugin.declare(declaration, handler)
                else:
                    setattr(handler, _MARK, (*getattr(handler, _MARK, ()), declaration))
                return handler

            return remember

        return decorator


def subscription(pattern: str, **how: Any) -> Declaration:
    """Handle events of a pattern; options as the fields of SubscribeOptions."""
    return Declaration("subscription", check_pattern(pattern), SubscribeOptions(**how))


def service(name: str, **how: Any) -> Declaration:
    """Answer requests, callable as `<plugin>.<name>`; options as the fields of ServiceOptions."""
    return Declaration("service", check_subject(name), ServiceOptions(**how))


def hook(name: str) -> Callable[[], Declaration]:
    """Declare a function as the hook `name`."""

    def declare() -> Declaration:
        return Declaration("hook", name)

    return declare


def marked_methods(plugin: object) -> Iterator[tuple[Declaration, Handler]]:
    """Declarations on the methods of a subclass, base classes first, bound to the instance.

    A method that overrides a declared one is declared as well, as everywhere in Python.
    """
    seen: dict[str, tuple[Declaration, ...]] = {}
    for owner in reversed(type(plugin).__mro__):
        for name, member in vars(owner).items():
            marks = getattr(member, _MARK, ())
            if marks or name not in seen:
                seen[name] = marks
    for name, marks in seen.items():
        for declaration in marks:
            yield declaration, getattr(plugin, name)

"""How the body of a request becomes the arguments of its handler."""

from collections.abc import Callable
from typing import Any

import pytest

from plugin_sdk import BusError
from plugin_sdk.binding import binder, wants_caller


def none() -> None: ...
def one(request: Any) -> None: ...
def optional(limit: int = 10) -> None: ...
def two(a: Any, b: Any = 2) -> None: ...
def both(a: Any, b: Any) -> None: ...
def only_by_name(*, a: Any, b: Any = 2) -> None: ...
def with_option(request: Any, *, verbose: bool = False) -> None: ...
def anything(**fields: Any) -> None: ...
def many(*items: Any) -> None: ...
def positional(a: Any, /) -> None: ...
def asked_by(user: Any, *, caller: Any) -> None: ...
def own_caller(caller: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "body", "args", "named"),
    [
        (none, None, (), {}),
        (none, {}, (), {}),
        (one, {"request": 1}, (), {"request": 1}),
        (one, {"user_id": 1}, ({"user_id": 1},), {}),
        (one, {}, ({},), {}),
        (one, [1, 2], ([1, 2],), {}),
        (one, 0, (0,), {}),
        (optional, None, (), {}),
        (optional, {"limit": 5}, (), {"limit": 5}),
        (optional, 5, (5,), {}),
        (two, {"a": 1}, (), {"a": 1}),
        (two, {"a": 1, "b": 3}, (), {"a": 1, "b": 3}),
        (two, 7, (7,), {}),
        (only_by_name, {"a": 1}, (), {"a": 1}),
        (with_option, {"request": 1, "verbose": True}, (), {"request": 1, "verbose": True}),
        (with_option, {"user": 1}, ({"user": 1},), {}),
        (anything, {"x": 1, "y": 2}, (), {"x": 1, "y": 2}),
        (anything, None, (), {}),
        (many, 3, (3,), {}),
        (many, None, (), {}),
        (positional, {"a": 1}, ({"a": 1},), {}),
        (asked_by, {"user": 1}, (), {"user": 1}),
        (asked_by, "ada", ("ada",), {}),
        (own_caller, {"caller": 1}, (), {"caller": 1}),
        (one, {1: "a number as key"}, ({1: "a number as key"},), {}),
    ],
)
def test_a_body_that_fits_is_passed(handler: Callable[..., Any], body: Any, args: Any, named: Any) -> None:
    assert binder(handler, "x.y")(body) == (args, named)


@pytest.mark.parametrize(
    ("handler", "body", "complaint"),
    [
        (none, 5, "it takes no arguments"),
        (none, {"a": 1}, "'a' is unknown"),
        (one, None, "'request' is missing"),
        (two, None, "'a' is missing"),
        (two, {"zz": 1}, "'a' is missing, 'zz' is unknown .it takes a, b."),
        (two, {"a": 1, "zz": 1}, "'zz' is unknown"),
        (both, 5, "a map of named arguments is needed .it takes a, b."),
        (both, {"a": 1}, "'b' is missing"),
        (only_by_name, 5, "a map of named arguments is needed"),
        (asked_by, {"user": 1, "caller": "somebody else"}, None),
        (asked_by, None, "'user' is missing .it takes user."),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_what_is_wrong(
    handler: Callable[..., Any], body: Any, complaint: str | None
) -> None:
    bind = binder(handler, "x.y")
    if complaint is None:
        # Whoever asks cannot say who asks: the map is no fit by name, so it is the one argument.
        assert bind(body) == ((body,), {})
        return
    with pytest.raises(BusError, match=rf"the arguments do not fit x\.y: .*{complaint}") as caught:
        bind(body)
    assert caught.value.code == "bad_request"


def test_only_a_keyword_only_caller_is_filled_by_the_sdk() -> None:
    assert wants_caller(asked_by)
    assert not wants_caller(own_caller)

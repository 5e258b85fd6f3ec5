"""`broker tap --where`: which events a condition lets through."""

from typing import Any

import click
import pytest

from broker.cli.conditions import parse_condition

DATA = {
    "priority": "high",
    "user_id": "12345",
    "order": {"total": 120.5, "items": ["pen", "ink"], "paid": True},
    "a.b": 1,
    "none": None,
}
HEADERS = {"message-id": "7", "traceparent": "00-abc"}


@pytest.mark.parametrize(
    "text",
    [
        "priority=high",
        'priority="high"',
        "priority!=low",
        "priority~ig",
        "user_id=12345",
        "order.total>100",
        "order.total >= 120.5",
        "order.total<200",
        "order.paid=true",
        "order.items.1=ink",
        "order.items~pen",
        "a.b=1",
        "none=null",
        "missing!=1",
        "headers.message-id=7",
        "headers.traceparent~abc",
    ],
)
def test_a_condition_that_holds(text: str) -> None:
    assert parse_condition(text).holds(DATA, HEADERS)


@pytest.mark.parametrize(
    "text",
    [
        "priority=low",
        "priority>100",
        "user_id>high",
        "order.total<=100",
        "order.paid=false",
        "order.items.7=ink",
        "missing=1",
        "missing~",
        "headers.nothing=7",
        "headers.message-id=8",
        "order.total.more=1",
    ],
)
def test_a_condition_that_does_not_hold(text: str) -> None:
    assert not parse_condition(text).holds(DATA, HEADERS)


@pytest.mark.parametrize("data", [None, 5, "text", [1, 2], b"\xff"])
def test_data_of_any_kind_can_be_asked(data: Any) -> None:
    assert not parse_condition("priority=high").holds(data, {})


@pytest.mark.parametrize("text", ["", "priority", "=high"])
def test_wrong_usage_says_what_is_right(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write FIELD=VALUE"):
        parse_condition(text)

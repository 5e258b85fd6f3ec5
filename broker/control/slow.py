"""Slow consumers, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from broker.core.slow import SLOW_SECS
from broker.core.snapshot import SlowView

_SHOWN = 3  # patterns and publishers in a line for people


def is_slow(consumer: SlowView) -> bool:
    """Whether it is slow, and not one that its publishers wait for at this moment only."""
    return bool(consumer.dropped) or consumer.secs >= SLOW_SECS


def slow_as_map(consumer: SlowView) -> dict[str, Any]:
    """One of them as a map for JSON; docs/PROTOCOL.md describes it."""
    return asdict(consumer)


def describe_slow(facts: Mapping[str, Any]) -> str:
    """The same map as a line for people, without the name."""
    text = f"{_list(facts['patterns'])} ({facts['overflow']}) for {facts['secs']:.0f} s:"
    text += f" {_size(facts['unread_bytes'])} sent and not handled"
    if facts["waiting"]:
        text += f", {facts['waiting']} more waiting ({_size(facts['waiting_bytes'])})"
    if facts["dropped"]:
        text += f", {facts['dropped']} were dropped"
    return f"{text}; holds up {_list(facts['publishers'])}" if facts["publishers"] else text


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and more" if len(names) > _SHOWN else shown


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"

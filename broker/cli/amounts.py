"""Sizes and numbers as people write and read them."""

from __future__ import annotations

import re

import click

LEAST_BYTES = 4096
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def read_size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """For an option that takes bytes; k, M, G and T stand for multiples of 1024."""
    if value is None:
        return None
    found = _SIZE.fullmatch(value.strip())
    if not found:
        raise click.BadParameter(f"{value!r} is not a size: write a number with k, M or G, such as 100M")
    size = int(float(found[1]) * _UNITS[found[2].lower()])
    if size < LEAST_BYTES:
        raise click.BadParameter(f"{value} is too small: use {LEAST_BYTES} bytes or more")
    return size


def read_speed(context: click.Context, parameter: click.Parameter, value: str) -> float | None:
    """For an option that takes `original`, `max`, or a factor such as 2x; None stands for `max`."""
    text = value.strip().lower()
    if text in ("original", "max"):
        return 1.0 if text == "original" else None
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0.001 <= factor <= 100_000:
        raise click.BadParameter(f"{value!r} is no speed: use original, max, or a factor such as 2x or 0.5x")
    return factor


def size_text(size: float) -> str:
    """Bytes for people."""
    if size < 1024:
        return f"{size:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def events_text(number: int) -> str:
    """So many events, for people."""
    return f"{number:,} event{'' if number == 1 else 's'}"

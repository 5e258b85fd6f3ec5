"""How figures are written for people, in a few characters."""

from __future__ import annotations

_SPANS = (("d", 86_400), ("h", 3600), ("min", 60))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def span(seconds: float | None) -> str:
    """A time that has passed, such as `4.2 h`."""
    if seconds is None:
        return "-"
    for unit, size in _SPANS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def size(number: float | None) -> str:
    """Bytes, such as `31.4 MiB`."""
    if number is None:
        return "-"
    for unit in _SIZES[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {_SIZES[-1]}"


def amount(number: float | None) -> str:
    """How many, such as `12.3k`."""
    if number is None:
        return "-"
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if not unit or number >= 99.95 else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}G"


def counted(number: int, thing: str) -> str:
    """So many things, such as `1 plugin`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def several(number: float, thing: str) -> str:
    """The same of what may be very many, such as `1 event` or `12.3k events`."""
    return f"{amount(number)} {thing if number == 1 else thing + 's'}"


def rate(number: float | None) -> str:
    """How often a second, such as `0.3` or `12.3k`."""
    if number is None:
        return "-"
    return f"{number:.1f}" if 0 < number < 9.95 else amount(number)


def duration(seconds: float | None) -> str:
    """A short time, such as `1.2 ms`."""
    if seconds is None:
        return "-"
    if seconds >= 100:
        return span(seconds)
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 0.995 or unit == "µs":
            number = seconds * factor
            return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    return "0"


def share(part: float) -> str:
    """A part of a whole, such as `0.4 %`."""
    return f"{100 * part:.1f} %"

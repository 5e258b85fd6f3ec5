"""Decisions that are taken from bytes, so that a fuzzer which changes bytes changes decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Feed:
    """Reads bytes one after the other; zeros when they are used up.

    Args:
        data: any.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def byte(self) -> int:
        """The next byte."""
        position, self._position = self._position, self._position + 1
        return self._data[position] if position < len(self._data) else 0

    def choose(self, items: Sequence[T]) -> T:
        """One of some items, by the next byte."""
        return items[self.byte() % len(items)]

    def chunk(self) -> bytes:
        """Some bytes, as many as the next two bytes say."""
        length = self.byte() << 8 | self.byte()
        begin, self._position = self._position, self._position + length
        return self._data[begin : begin + length]


def chunk(data: bytes) -> bytes:
    """What Feed.chunk reads as `data`."""
    return len(data).to_bytes(2, "big") + data

"""The broker's own log: every entry begins a line, and nothing else does."""

import io
import logging
from collections.abc import Iterator

import pytest

from broker.telemetry.logs import set_up_logging


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_further_lines_of_an_entry_are_indented(out: io.StringIO) -> None:
    logging.getLogger("broker").error("plugin hello failed: it did not start\n  attempt 1: no\n  attempt 2: no")
    first, *further = out.getvalue().splitlines()
    assert first.endswith("Z ERROR   broker: plugin hello failed: it did not start")
    assert further == ["      attempt 1: no", "      attempt 2: no"]


def test_a_trace_is_a_part_of_its_entry(out: io.StringIO) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("broker").exception("it failed")
    assert all(line.startswith("    ") for line in out.getvalue().splitlines()[1:])
    assert "    ValueError: first\n    second\n" in out.getvalue()


def test_what_a_peer_says_cannot_forge_an_entry_or_move_the_cursor(out: io.StringIO) -> None:
    logging.getLogger("broker").warning("from %s", "evil\r2026-01-01T00:00:00.000Z INFO broker: \x1b[2J\x9b\tfine")
    assert out.getvalue().count("\n") == 1
    assert "evil\\x0d2026-01-01T00:00:00.000Z INFO broker: \\x1b[2J\\x9b\tfine" in out.getvalue()

"""The broker's own log: entries that nobody can forge, JSON where nobody reads them, and the trace of each in it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from broker.telemetry.logs import set_up_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    return stream


def logged(form: str, stream: io.StringIO, **extra: str) -> str:
    set_up_logging("info", form, stream)
    logging.getLogger("broker").info("plugin %s runs", "hello", extra=extra)
    return stream.getvalue()


def test_further_lines_of_an_entry_are_indented(out: io.StringIO) -> None:
    logging.getLogger("broker").error("plugin hello failed: it did not start\n  attempt 1: no\n  attempt 2: no")
    first, *further = out.getvalue().splitlines()
    assert first.endswith("Z ERROR   broker: plugin hello failed: it did not start")
    assert further == ["      attempt 1: no", "      attempt 2: no"]


def test_a_traceback_is_a_part_of_its_entry(out: io.StringIO) -> None:
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


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    assert logged("auto", Terminal()).endswith("Z INFO    broker: plugin hello runs\n")
    line = json.loads(logged("auto", io.StringIO()))
    assert (line["level"], line["logger"], line["message"]) == ("info", "broker", "plugin hello runs")
    assert "trace_id" not in line


def test_the_form_can_be_chosen() -> None:
    assert logged("json", Terminal()).startswith("{")
    assert not logged("text", io.StringIO()).startswith("{")


def test_the_trace_of_a_line_is_in_it() -> None:
    ids = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}
    trace = " trace_id=0af7651916cd43dd8448eb211c80319c span_id=b7ad6b7169203331"
    line = json.loads(logged("json", io.StringIO(), **ids, trace=trace))
    assert {name: line[name] for name in ids} == ids
    assert logged("text", io.StringIO(), **ids, trace=trace).endswith(f"plugin hello runs{trace}\n")


def test_an_exception_is_one_line_of_json() -> None:
    stream = io.StringIO()
    set_up_logging("info", "json", stream)
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        logging.getLogger("broker").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: broken\nin two" in json.loads(line)["exception"]

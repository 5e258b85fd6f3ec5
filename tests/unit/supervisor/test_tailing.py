"""Logs read back: the last lines, what is added, and the level of each."""

from pathlib import Path

import pytest

from broker.supervisor.levels import level_of
from broker.supervisor.logs import LogLimits, LogWriter
from broker.supervisor.tailing import Tail


def write(directory: Path, *texts: str, limits: LogLimits | None = None) -> None:
    """Lets a plugin write, as the supervisor would."""
    for text in texts:
        writer = LogWriter(directory, limits)
        assert writer.log_of("hello").write(text.encode(), 0.0)
        assert writer.close(5.0)


def texts(directory: Path, number: int, least: str = "debug") -> list[str]:
    with Tail(directory, "hello", least) as tail:
        return [line.text for line in tail.last(number)]


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("INFO hello: it runs", "info"),
        ("2026-01-01 12:00:00,000 - hello - WARNING - low", "warning"),
        ("[ERROR] no disk", "error"),
        ('{"time": 1, "level": "warn", "msg": "ERROR is only a word here"}', "warning"),
        ("ts=1 level=debug msg=x", "debug"),
        ("Traceback (most recent call last):", "error"),
        ("ValueError: no", "error"),
        ("my.module.OddException", "error"),
        ("panic: runtime error", "error"),
        ("FATAL out of memory", "critical"),
        ("it prints what it likes", "info"),
        ("information about ERRORS", "info"),
        ("x" * 100 + " ERROR", "info"),
        ("level=unheard-of", "info"),
    ],
)
def test_the_level_is_found_however_it_is_written(line: str, level: str) -> None:
    assert level_of(line) == level


def test_an_indented_line_belongs_to_the_one_before() -> None:
    assert level_of('  File "x.py"', "error") == "error"


def test_the_last_lines_come_from_files_that_were_put_aside_too(tmp_path: Path) -> None:
    limits = LogLimits(file_bytes=100, backups=2, burst_bytes=10_000)
    write(tmp_path, *(f"{number:050d}\n" for number in range(9)), limits=limits)
    assert [int(text) for text in texts(tmp_path, 2)] == [7, 8]
    assert [int(text) for text in texts(tmp_path, 1)] == [8]
    assert [int(text) for text in texts(tmp_path, 50)] == [6, 7, 8]


def test_of_a_large_file_the_end_is_enough(tmp_path: Path) -> None:
    line = b"2026-01-02T03:04:05.678Z "
    (tmp_path / "hello.log").write_bytes(b"".join(line + b"%d\n" % number for number in range(100_000)))
    assert texts(tmp_path, 3) == ["99997", "99998", "99999"]
    assert len(texts(tmp_path, 70_000)) == 70_000


def test_only_lines_that_are_grave_enough_are_shown_with_what_belongs_to_them(tmp_path: Path) -> None:
    write(tmp_path, "INFO a\nERROR b\n  c\nINFO d\nWARNING e\n")
    assert texts(tmp_path, 50, "warning") == ["ERROR b", "  c", "WARNING e"]
    assert texts(tmp_path, 1, "error") == ["  c"]


def test_what_is_added_is_followed_through_a_file_that_is_put_aside(tmp_path: Path) -> None:
    limits = LogLimits(file_bytes=100, backups=2, burst_bytes=10_000)
    with Tail(tmp_path, "hello") as tail:
        assert tail.last(5) == []
        assert tail.added() == []
        write(tmp_path, "one\n", limits=limits)
        assert [line.text for line in tail.added()] == ["one"]
        write(tmp_path, "two\n", "x" * 60 + "\n", limits=limits)
        assert [line.text for line in tail.added()] == ["two"]
        assert [line.text for line in tail.added()] == ["x" * 60]


def test_a_line_that_was_not_complete_comes_again_when_it_is(tmp_path: Path) -> None:
    log = tmp_path / "hello.log"
    log.write_text("2026-01-02T03:04:05.678Z half")
    with Tail(tmp_path, "hello") as tail:
        assert [line.text for line in tail.last(5)] == ["half"]
        with log.open("a") as file:
            file.write(" of it\n")
        assert [line.text for line in tail.added()] == ["half of it"]


def test_bytes_that_are_no_text_are_shown_as_well_as_can_be(tmp_path: Path) -> None:
    (tmp_path / "hello.log").write_bytes(b"2026-01-02T03:04:05.678Z \xff\xfe\n")
    assert texts(tmp_path, 1) == ["\ufffd\ufffd"]

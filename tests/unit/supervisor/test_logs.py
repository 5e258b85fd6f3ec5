"""The logs of plugins: lines with their time, bounded files, and what happens when too much is written."""

import logging
import re
from pathlib import Path

import pytest

from broker.supervisor.logs import LogLimits, LogWriter

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


def lines_of(path: Path) -> list[str]:
    """The lines of a log without their times, each of which must be there."""
    lines = path.read_text().splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line) for line in lines]


def test_every_line_begins_with_its_time_however_it_comes_in(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    log = writer.log_of("hello")
    for piece in (b"one\ntw", b"o\n", b"\n", b"unfin"):
        assert log.write(piece, 0.0)
    log.end_line()
    log.write(b"next run\n", 1.0)
    assert writer.close(5.0)
    assert lines_of(tmp_path / "hello.log") == ["one", "two", "", "unfin", "next run"]


def test_plugins_have_a_file_each_and_an_old_file_is_continued(tmp_path: Path) -> None:
    for _ in range(2):
        writer = LogWriter(tmp_path / "logs")
        writer.log_of("a").write(b"from a\n", 0.0)
        writer.log_of("b").write(b"from b\n", 0.0)
        assert writer.close(5.0)
    assert lines_of(tmp_path / "logs" / "a.log") == ["from a", "from a"]
    assert lines_of(tmp_path / "logs" / "b.log") == ["from b", "from b"]


def test_what_comes_faster_than_allowed_is_dropped_counted_and_noted_in_the_file(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, LogLimits(burst_bytes=20, bytes_per_sec=10))
    log = writer.log_of("hello")
    assert log.write(b"0123456789", 0.0)
    assert log.write(b"abcdefghi\n", 0.0)
    assert not log.write(b"lost 1\nlost 2\n", 0.0)
    assert not log.write(b"lost 3\n", 0.5)
    assert log.write(b"again\n", 1.0)
    assert (log.written, log.dropped, log.dropped_lines) == (26, 21, 3)
    assert writer.close(5.0)
    assert lines_of(tmp_path / "hello.log") == [
        "0123456789abcdefghi",
        "[21 bytes dropped: written faster than they are kept]",
        "again",
    ]


def test_an_unfinished_line_is_ended_before_the_note_of_what_was_dropped(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, LogLimits(burst_bytes=10, bytes_per_sec=10))
    log = writer.log_of("hello")
    log.write(b"unfinished", 0.0)
    log.write(b"dropped", 0.0)
    log.write(b"new\n", 1.0)
    assert writer.close(5.0)
    assert lines_of(tmp_path / "hello.log")[0] == "unfinished"
    assert lines_of(tmp_path / "hello.log")[-1] == "new"


def test_what_was_dropped_last_is_noted_when_the_plugin_ends(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, LogLimits(burst_bytes=10, bytes_per_sec=10))
    log = writer.log_of("hello")
    log.write(b"unfinished", 0.0)
    log.write(b"the reason why\n", 0.0)
    log.end_line()
    log.end_line()
    assert writer.close(5.0)
    assert lines_of(tmp_path / "hello.log") == ["unfinished", "[15 bytes dropped: written faster than they are kept]"]


def test_a_full_file_is_put_aside_and_only_so_many_are_kept(tmp_path: Path) -> None:
    limits = LogLimits(file_bytes=100, backups=2, burst_bytes=10_000)
    for number in range(9):
        writer = LogWriter(tmp_path, limits)
        writer.log_of("hello").write(b"%050d\n" % number, 0.0)
        assert writer.close(5.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hello.log", "hello.log.1", "hello.log.2"]
    kept = [int(lines_of(tmp_path / name)[0]) for name in ("hello.log.2", "hello.log.1", "hello.log")]
    assert kept == [6, 7, 8]


def test_without_backups_a_full_file_begins_anew(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, LogLimits(file_bytes=100, backups=0, burst_bytes=10_000))
    log = writer.log_of("hello")
    for _ in range(5):
        log.write(b"x" * 60 + b"\n", 0.0)
    assert writer.close(5.0)
    assert [path.name for path in tmp_path.iterdir()] == ["hello.log"]
    assert (tmp_path / "hello.log").stat().st_size <= 100


def test_a_disk_that_takes_nothing_is_complained_of_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    writer = LogWriter(tmp_path / "file")
    log = writer.log_of("hello")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert log.write(b"line\n", 0.0)
        assert writer.close(5.0)
    assert len(caplog.messages) == 1
    assert "hello.log cannot be written and loses lines" in caplog.messages[0]


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, LogLimits(pending_bytes=10))
    log = writer.log_of("hello")
    assert not log.write(b"more than ten bytes\n", 0.0)
    assert log.dropped == 20


def test_nothing_is_taken_after_the_close(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    assert writer.close(1.0)
    assert not writer.log_of("hello").write(b"late\n", 0.0)

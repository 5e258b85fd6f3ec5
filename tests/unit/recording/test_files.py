"""Files of recordings: what is written is read, whatever became of the writer or the file."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.recording import RecordingError
from broker.recording.layout import note, pack, whole
from broker.recording.reader import Reader
from broker.recording.source import Source
from broker.recording.writer import END_BYTES, Writer
from plugin_sdk.events import Event
from tests.unit.recording.files import HEADER, encoded, event, make, read


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk looks like to a process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_events_come_back_in_order_with_headers_bodies_and_times(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.rec", HEADER)
    sizes = (0, 1, 200, 255, 256, 65_535, 65_536, 200_000)
    events = [event(f"size.{size}", "x" * size, {"message-id": str(size)} if size % 2 else None) for size in sizes]
    writer.write(encoded(events, 7), len(events))
    writer.close("done", {"dropped": 0})
    records, reader = read(tmp_path / "a.rec")
    assert [record.subject for record in records] == [f"size.{size}" for size in sizes]
    assert [record.content() for record in records] == [(each.headers, each.body) for each in events]
    assert {record.time_us for record in records} == {7}
    assert reader.header == HEADER
    assert reader.end == {"end": "done", "events": len(sizes), "dropped": 0}
    assert reader.damage == ""


def test_a_second_implementation_needs_nothing_but_messagepack(tmp_path: Path) -> None:
    with make(tmp_path / "a.rec", [1, 2]).open("rb") as file:
        header, first, second, end = msgpack.Unpacker(file)
    assert (header["format"], header["version"]) == ("plugmesh-recording", 1)
    assert first[:2] == [1_000_000, "n.1"]
    assert msgpack.unpackb(second[2]) == [{}, msgpack.packb(2)]
    assert end["events"] == 2


def test_a_file_that_exists_is_not_written_to(tmp_path: Path) -> None:
    path = make(tmp_path / "a.rec", [1])
    before = path.read_bytes()
    with pytest.raises(RecordingError, match="exists: choose another name, or remove it first"):
        Writer(path, HEADER)
    assert path.read_bytes() == before


def test_a_recording_is_for_its_owner_only(tmp_path: Path) -> None:
    assert make(tmp_path / "a.rec", []).stat().st_mode & 0o077 == 0


@settings(deadline=None)  # every example waits for the disk
@given(cut=st.integers(min_value=0))
def test_wherever_a_file_is_cut_everything_before_is_read(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole_file = make(folder / "a.rec", range(20)).read_bytes()
    header, _ = whole(whole_file, len(whole_file), 1)
    cut = header + cut % (len(whole_file) - header)
    _, objects = whole(whole_file[:cut], cut)
    torn = folder / "b.rec"
    torn.write_bytes(whole_file[:cut])
    records, reader = read(torn)
    assert [record.subject for record in records] == [f"n.{number}" for number in range(objects - 1)]
    assert "cut off" in reader.damage


@settings(deadline=None)  # every example waits for the disk
@given(position=st.integers(min_value=0), garbage=st.binary(min_size=1, max_size=40))
def test_garbage_in_a_file_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, position: int, garbage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    data = bytearray(make(folder / "a.rec", range(10)).read_bytes())
    position %= len(data)
    data[position : position + len(garbage)] = garbage
    bad = folder / "b.rec"
    bad.write_bytes(data)
    with suppress(RecordingError):
        read(bad)


def test_pages_of_zeros_after_a_power_failure_are_told_as_damage(tmp_path: Path) -> None:
    path = make(tmp_path / "a.rec", [1, 2])
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(4096))
    records, reader = read(path)
    assert len(records) == 2
    assert f"damaged at byte {size}, so that 4096 bytes cannot be read" in reader.damage


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x80", msgpack.packb({"format": "other"}), bytes(100)])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(RecordingError, match="is not a recording of plugmesh"):
        Reader(tmp_path / "a")


def test_a_later_version_is_refused_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack({"format": "plugmesh-recording", "version": 2}))
    with pytest.raises(RecordingError, match="has version 2 of the format, this broker reads 1"):
        Reader(tmp_path / "a")


def test_what_a_later_minor_change_adds_is_passed_over(tmp_path: Path) -> None:
    path = make(tmp_path / "a.rec", [])
    more = [9, "n.9", b"\x92\x80\xc4\x00", "something new"]
    path.write_bytes(path.read_bytes() + msgpack.packb(more) + pack({"index": [1, 2]}))
    records, reader = read(path)
    assert [record.subject for record in records] == ["n.9"]
    assert reader.damage == ""


def test_a_payload_that_breaks_the_format_does_not_break_the_file(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.rec", HEADER)
    writer.write(encoded([Event("bad", b"\x81\xc0\xc1"), event("good", 1)]), 2)
    writer.close("done", {})
    records, _ = read(tmp_path / "a.rec")
    assert [record.subject for record in records] == ["bad", "good"]


def test_parts_stay_below_their_size_and_lose_nothing(tmp_path: Path) -> None:
    limit = 4096
    writer = Writer(tmp_path / "a.rec", HEADER, part_bytes=limit)
    for start in range(0, 300, 30):
        writer.write(encoded([event(f"n.{number}", "x" * 50) for number in range(start, start + 30)]), 30)
    writer.close("done", {})
    assert [path.name for path in writer.files] == [f"a-{part:04}.rec" for part in range(1, len(writer.files) + 1)]
    assert len(writer.files) > 5
    assert max(path.stat().st_size for path in writer.files) <= limit
    source = Source(list(reversed(writer.files)))
    assert [record.subject for record in source] == [f"n.{number}" for number in range(300)]
    assert source.problems == []


def test_an_event_larger_than_a_part_has_a_part_for_itself(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.rec", HEADER, part_bytes=4096)
    writer.write(encoded([event("n.0", 0), event("n.1", "x" * 10_000), event("n.2", 2)]), 3)
    writer.close("done", {})
    assert [[record.subject for record in read(path)[0]] for path in writer.files] == [["n.0"], ["n.1"], ["n.2"]]


def test_the_size_of_everything_is_a_bound_and_all_events_below_it_are_there(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.rec", HEADER, max_bytes=8192)
    for start in range(0, 1000, 100):
        writer.write(encoded([event(f"n.{number}", "x" * 50) for number in range(start, start + 100)]), 100)
    writer.close("full", {})
    assert writer.full
    assert 8192 - END_BYTES - 100 < (tmp_path / "a.rec").stat().st_size <= 8192
    records, reader = read(tmp_path / "a.rec")
    assert len(records) == writer.events == (reader.end or {})["events"]


def test_a_full_disk_keeps_every_event_that_it_took_and_ends_with_a_whole_one(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.rec", HEADER)
    with disk_of(3000), pytest.raises(RecordingError, match=f"cannot write to .*a.rec: {os.strerror(errno.EFBIG)}"):
        writer.write(encoded([event(f"n.{number}", "x" * 50) for number in range(100)]), 100)
    records, reader = read(tmp_path / "a.rec")
    assert len(records) == writer.events > 20
    assert "has no end" in reader.damage


def test_different_recordings_are_merged_by_time(tmp_path: Path) -> None:
    even = make(tmp_path / "even.rec", [0, 2, 4])
    odd = make(tmp_path / "odd.rec", [1, 3, 5], replace(HEADER, id="other", started_us=900_000))
    assert [record.subject for record in Source([even, odd])] == [f"n.{number}" for number in range(6)]


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    paths = [make(tmp_path / f"{part}.rec", [part], replace(HEADER, part=part)) for part in (1, 3)]
    source = Source(paths)
    assert len(list(source)) == 2
    assert ["parts are missing" in problem for problem in source.problems] == [True]


def test_notes_are_told(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.rec", HEADER)
    writer.remark(note("the connection was lost", 7))
    writer.close("done", {})
    assert read(tmp_path / "a.rec")[1].notes == ["the connection was lost"]


def test_reading_holds_little_more_than_the_event_in_hand(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.rec", HEADER)
    block = encoded([event("n", "x" * 1000) for _ in range(1000)])
    for _ in range(100):
        writer.write(block, 1000)
    writer.close("done", {})
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom broker.recording.reader import Reader\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(1 for _ in Reader(Path(sys.argv[1]))))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.rec")]
    events, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(events) == 100_000
    assert int(grown) < 20_000, f"{grown} KiB more for a file of 100 MB"

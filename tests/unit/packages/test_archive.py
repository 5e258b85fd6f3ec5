"""The zip reader: what is refused, with the word and the sentence that a person reads."""

import io
import stat
import zipfile

import pytest

from broker.packages.archive import Archive, open_archive
from broker.packages.bounds import Bounds
from broker.packages.build import write_zip
from broker.packages.errors import PackageError, State
from tests.unit.packages.making import Raw, raw_zip

GOOD = write_zip([("a", b"one"), ("b/c", b"two" * 1000), ("empty", b"")])


def refusal(data: bytes, bounds: Bounds | None = None) -> tuple[State, str]:
    with pytest.raises(PackageError) as caught:
        read_all(open_archive(data, bounds or Bounds()))
    return caught.value.state, caught.value.text


def read_all(archive: Archive) -> dict[str, bytes]:
    return {name: b"".join(archive.chunks(entry)) for name, entry in archive.entries.items()}


def test_what_was_written_is_read_again() -> None:
    assert read_all(open_archive(GOOD)) == {"a": b"one", "b/c": b"two" * 1000, "empty": b""}


def test_the_standard_library_reads_what_is_written_here() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as other:
        assert other.testzip() is None
        assert other.read("b/c") == b"two" * 1000


def test_what_the_standard_library_writes_is_read_here() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as other:
        other.writestr("a", b"one" * 999)
    assert read_all(open_archive(buffer.getvalue())) == {"a": b"one" * 999}


def test_an_archive_that_was_cut_off_anywhere_is_truncated() -> None:
    for length in range(len(GOOD)):
        state, text = refusal(GOOD[:length])
        assert state is State.TRUNCATED, (length, text)
        assert "cut off" in text


def test_an_archive_that_lacks_a_piece_in_the_middle_is_truncated() -> None:
    assert refusal(GOOD[:20] + GOOD[25:]) == (State.TRUNCATED, "5 bytes are missing in the middle: copy it again")


def test_space_that_was_reserved_and_not_written_yet_is_truncated() -> None:
    assert refusal(GOOD[:40] + bytes(len(GOOD) - 40))[0] is State.TRUNCATED


@pytest.mark.parametrize(
    ("data", "state", "text"),
    [
        (b"#!/bin/sh\n" * 9, State.MALFORMED, "it is not a package"),
        (GOOD + b"more", State.MALFORMED, "something behind its end"),
        (b"#!/bin/sh\n" + GOOD, State.MALFORMED, "something before its files"),
        (raw_zip(Raw(b"a"), Raw(b"a")), State.UNSAFE, "'a' is there twice"),
        (raw_zip(Raw(b"l", b"/etc/passwd", stat.S_IFLNK | 0o777)), State.UNSAFE, "'l' is a symbolic link"),
        (raw_zip(Raw(b"d", mode=stat.S_IFCHR | 0o666)), State.UNSAFE, "'d' is a device, pipe or socket"),
        (raw_zip(Raw(b"p", mode=stat.S_IFIFO | 0o666)), State.UNSAFE, "'p' is a device, pipe or socket"),
        (raw_zip(Raw(b"folder/", b"")), State.MALFORMED, "'folder/' is a folder"),
        (raw_zip(Raw(b"a", flags=1)), State.MALFORMED, "packed in a way that is not used here"),
        (raw_zip(Raw(b"a", flags=8)), State.MALFORMED, "packed in a way that is not used here"),
        (raw_zip(Raw(b"a", method=12)), State.MALFORMED, "packed in a way that is not used here"),
        (raw_zip(Raw(b"\xff\xfe")), State.UNSAFE, "is not UTF-8 text"),
        (raw_zip(Raw("ä".encode(), flags=0)), State.UNSAFE, "is not UTF-8 text"),
        (raw_zip(Raw(b"a"), Raw(b"b", offset=0)), State.UNSAFE, "'b' overlaps the one before"),
        (raw_zip(Raw(b"a"), Raw(b"b", offset=60)), State.UNSAFE, "'b' does not follow the one before"),
        (raw_zip(Raw(b"good", own_name=b"evil")), State.MALFORMED, "the directory say different things"),
        (raw_zip(Raw(b"a", method=0, size=2)), State.MALFORMED, "says two different sizes"),
        (raw_zip(Raw(b"a", crc=1)), State.MODIFIED, "the content of 'a' is not what the package says"),
        (raw_zip(Raw(b"a", b"x" * 99, size=98)), State.UNSAFE, "more than the 98 bytes that it declares: a bomb"),
        (raw_zip(Raw(b"a", b"x" * 99, size=100)), State.MODIFIED, "the content of 'a' is not what the package says"),
    ],
)
def test_what_no_package_needs_is_refused_by_name(data: bytes, state: State, text: str) -> None:
    found = refusal(data)
    assert found[0] is state
    assert text in found[1]


def test_deflate_that_ends_before_its_data_does_is_not_taken() -> None:
    packed = Raw(b"a", b"x" * 99).packed() + b"hidden"
    data = raw_zip(Raw(b"a", packed, method=0, size=99))
    hidden = data.replace(b"\x00\x00\x00\x00\x21\x00", b"\x08\x00\x00\x00\x21\x00")
    assert hidden != data
    assert refusal(hidden)[0] is State.MODIFIED


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (Bounds(package=100), "the file has"),
        (Bounds(files=2), "it holds 3 files, at most 2"),
        (Bounds(file=2999), "'b/c' unpacks to 3000 bytes, at most 2999"),
        (Bounds(unpacked=3000), "it unpacks to 3003 bytes, at most 3000 are allowed: a bomb"),
        (Bounds(ratio=10, slack=100), "more than 10 to one: a bomb"),
    ],
)
def test_every_bound_is_kept(bounds: Bounds, text: str) -> None:
    state, found = refusal(GOOD, bounds)
    assert state is State.UNSAFE
    assert text in found


def test_a_bomb_that_lies_about_its_size_gives_no_more_than_it_says() -> None:
    archive = open_archive(raw_zip(Raw(b"a", bytes(50_000_000), size=1000)))
    seen = 0
    with pytest.raises(PackageError, match="a bomb"):
        for piece in archive.chunks(archive.entries["a"]):
            seen += len(piece)
    assert seen <= 1000

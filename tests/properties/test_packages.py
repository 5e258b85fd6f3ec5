"""Whatever bytes a stranger sends as a package: it is read, or refused with a word and a sentence, and nothing else."""

import stat

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.packages.build import write_zip
from broker.packages.contents import MANIFEST_ENTRY, read_archive
from broker.packages.names import file_name, parse_file_name
from tests.fuzzing.package import GOOD, read_through
from tests.unit.packages.making import Raw, package_of, raw_zip


@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    read_through(data)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data[start:end] = draw(st.binary(max_size=40))
    return bytes(data)


@settings(max_examples=400)
@given(damaged())
def test_a_good_package_that_was_damaged_anywhere(data: bytes) -> None:
    found = read_through(data)
    if found is not None:
        good = read_archive(GOOD)
        assert [each.sha256 for each in found.manifest.files] == [each.sha256 for each in good.manifest.files]


names = st.one_of(st.sampled_from([b"MANIFEST.json", b"SIGNATURE.json", b"files/plugin.yaml"]), st.binary(max_size=30))
raws = st.builds(
    Raw,
    name=names,
    content=st.one_of(st.binary(max_size=200), st.integers(0, 90_000).map(bytes)),
    mode=st.one_of(st.sampled_from([0, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777]), st.integers(0, 0xFFFF)),
    flags=st.one_of(st.sampled_from([0, 1 << 11]), st.integers(0, 0xFFFF)),
    method=st.sampled_from([0, 8, 8, 8, 99]),
    size=st.one_of(st.none(), st.integers(0, 0xFFFFFFFF)),
    offset=st.one_of(st.none(), st.integers(0, 0xFFFFFFFF)),
    own_name=st.one_of(st.none(), names),
    crc=st.one_of(st.none(), st.integers(0, 0xFFFFFFFF)),
)


@settings(max_examples=300)
@given(st.lists(raws, max_size=5))
def test_any_zip_file(entries: list[Raw]) -> None:
    read_through(raw_zip(*entries))


@given(st.one_of(st.binary(max_size=500), st.text(max_size=300).map(str.encode)))
def test_any_manifest(raw: bytes) -> None:
    read_through(write_zip([(MANIFEST_ENTRY, raw), ("files/plugin.yaml", b"")]))


@given(st.dictionaries(st.text(max_size=40), st.binary(max_size=50), max_size=6))
def test_any_names_in_a_manifest(files: dict[str, bytes]) -> None:
    read_through(package_of({**files, "plugin.yaml": b""}))


@given(st.text(max_size=40))
def test_any_file_name(name: str) -> None:
    parsed = parse_file_name(name)
    assert parsed is None or file_name(*parsed) == name

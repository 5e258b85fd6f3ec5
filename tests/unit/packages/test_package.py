"""Packages as a whole: built, signed, encrypted, and what is found when somebody changed them."""

import os
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from packaging.version import Version

from broker.packages.archive import open_archive
from broker.packages.build import add_signature, build, write_zip
from broker.packages.contents import MANIFEST_ENTRY, read_archive
from broker.packages.errors import KeyFileError, PackageError, State
from broker.packages.keys import (
    make_recipient_pair,
    make_signing_pair,
    read_public,
    read_recipient,
    read_recipient_public,
    read_signing,
    read_trusted,
    trust,
)
from broker.packages.opened import Opened, Rules, look
from tests.unit.packages.making import FILES_OF_SMALL, Raw, make_folder, manifest_of, package_of, raw_zip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two RSA pairs; making them takes a while."""
    place = tmp_path_factory.mktemp("keys")
    make_recipient_pair(place / "broker.key")
    make_recipient_pair(place / "other.key")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "small")


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    make_signing_pair(tmp_path, "acme")
    trust(tmp_path / "trusted", "acme", tmp_path / "acme.pub")
    return Rules(tmp_path / "trusted", tmp_path / "broker.key")


def signed(folder: Path, by: str = "acme", **options: object) -> bytes:
    built = build(folder, "small", Version("1.0.0"), **options)  # type: ignore[arg-type]
    return add_signature(built, read_signing(folder.parent / f"{by}.key"))


def opened(data: bytes, rules: Rules) -> Opened:
    file = rules.trusted.parent / "file"
    file.write_bytes(data)
    return look(file, rules.keys())


def refusal(data: bytes, rules: Rules) -> tuple[State, str]:
    with pytest.raises(PackageError) as caught:
        opened(data, rules).admit(rules)
    return caught.value.state, caught.value.text


def changed(data: bytes, name: str, content: bytes | None) -> bytes:
    """The package with one entry replaced, added, or taken out."""
    archive = open_archive(data)
    entries = {each: b"".join(archive.chunks(entry)) for each, entry in archive.entries.items()}
    if content is None:
        del entries[name]
    else:
        entries[name] = content
    return write_zip(entries.items())


def test_a_signed_package_of_a_trusted_maker_is_valid(folder: Path, rules: Rules) -> None:
    package = opened(signed(folder), rules)
    package.admit(rules)
    assert (package.state, package.verdict.signer) == (State.VALID, "acme")
    assert [each.path for each in package.manifest.files] == ["main.py", "plugin.yaml"]


def test_the_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path, rules: Rules) -> None:
    other = make_folder(tmp_path / "other", dict(reversed(FILES_OF_SMALL.items())))
    os.utime(other / "main.py", (1, 1))
    (other / "main.py").chmod(0o600)
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"cache")
    (other / ".git").mkdir()
    (other / ".git" / "config").write_bytes(b"git")
    assert build(folder, "small", Version("1.0.0")) == build(other, "small", Version("1.0.0"))
    assert signed(folder) == signed(folder)


def test_a_package_is_an_ordinary_zip_file(folder: Path, rules: Rules, tmp_path: Path) -> None:
    file = tmp_path / "small-1.0.0.spk"
    file.write_bytes(signed(folder))
    with zipfile.ZipFile(file) as other:
        assert other.namelist() == ["MANIFEST.json", "SIGNATURE.json", "files/main.py", "files/plugin.yaml"]
        listed = msgspec.json.decode(other.read("MANIFEST.json"))["files"][0]
    assert listed["path"] == "main.py"
    assert listed["mode"] == "0644"


def test_a_large_file_of_one_byte_is_packed_so_that_it_is_no_bomb(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "zeros", {**FILES_OF_SMALL, "zeros": bytes(3_000_000)})
    contents = read_archive(build(folder, "small", Version("1.0.0")))
    assert sum(len(piece) for piece in contents.chunks(contents.manifest.files[2])) == 3_000_000


@pytest.mark.parametrize("what", ["link", "linked folder", "pipe", "no manifest"])
def test_a_folder_that_cannot_be_packed_is_refused(folder: Path, what: str) -> None:
    if what == "link":
        (folder / "link").symlink_to("/etc/passwd")
    elif what == "linked folder":
        (folder / "link").symlink_to("/etc")
    elif what == "pipe":
        os.mkfifo(folder / "pipe")
    else:
        (folder / "plugin.yaml").unlink()
    with pytest.raises(PackageError, match=r"symbolic link|plain file|lists no plugin\.yaml"):
        build(folder, "small", Version("1.0.0"))


def test_an_unsigned_package_is_refused_but_for_plugins_that_the_operator_names(folder: Path, rules: Rules) -> None:
    data = build(folder, "small", Version("1.0.0"))
    state, text = refusal(data, rules)
    assert state is State.UNSIGNED
    assert 'allow it with plugin_manager.allow_unsigned = ["small"]' in text
    allowed = Rules(rules.trusted, rules.recipient, frozenset({"small"}))
    opened(data, allowed).admit(allowed)
    assert refusal(data, Rules(rules.trusted, rules.recipient, frozenset({"other"})))[0] is State.UNSIGNED


def test_a_package_of_a_stranger_is_refused_with_the_key(folder: Path, rules: Rules, tmp_path: Path) -> None:
    make_signing_pair(tmp_path, "stranger")
    state, text = refusal(signed(folder, "stranger"), rules)
    assert state is State.UNKNOWN_KEY
    assert "trusted are acme (" in text
    assert "broker package trust" in text
    allowed = Rules(rules.trusted, rules.recipient, frozenset({"small"}))
    assert refusal(signed(folder, "stranger"), allowed)[0] is State.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("files/main.py", b"print('small!')", "'main.py' is not the file that the manifest lists"),
        ("files/main.py", b"other", "'main.py' has 5 bytes, its manifest says 15"),
        ("files/more.py", b"more", "it holds 'files/more.py', which its manifest does not list"),
        ("more.py", b"more", "it holds 'more.py', which its manifest does not list"),
        ("files/main.py", None, "its manifest lists 'files/main.py', which it does not hold"),
    ],
)
def test_a_changed_file_is_named_whoever_signed_it(
    folder: Path, rules: Rules, name: str, content: bytes | None, text: str
) -> None:
    data = changed(signed(folder), name, content)
    assert refusal(data, rules)[0] is State.MODIFIED
    assert text in refusal(data, rules)[1]
    unsigned = changed(changed(signed(folder), name, content), "SIGNATURE.json", None)
    assert refusal(unsigned, Rules(rules.trusted, rules.recipient, frozenset({"small"})))[0] is State.MODIFIED


def test_a_manifest_that_is_not_the_signed_one_is_modified(folder: Path, rules: Rules) -> None:
    files = {**FILES_OF_SMALL, "main.py": b"print('small!')"}
    data = changed(changed(signed(folder), MANIFEST_ENTRY, manifest_of(files)), "files/main.py", files["main.py"])
    state, text = refusal(data, rules)
    assert state is State.MODIFIED
    assert "its manifest is not the one that acme (" in text


def test_one_more_space_in_the_manifest_breaks_the_signature(folder: Path, rules: Rules) -> None:
    data = signed(folder)
    raw = read_archive(data).raw
    assert refusal(changed(data, MANIFEST_ENTRY, raw + b" "), rules)[0] is State.MODIFIED


def test_every_flipped_byte_is_noticed(folder: Path, rules: Rules) -> None:
    data = signed(folder)
    for position in range(0, len(data), 7):
        spoilt = bytearray(data)
        spoilt[position] ^= 0x10
        try:
            package = opened(bytes(spoilt), rules)
            package.admit(rules)
        except PackageError:
            continue
        # Dates and the version of the tool that packed it say nothing about the content.
        assert package.contents.raw == read_archive(data).raw


def test_an_expired_package_is_refused_with_the_date(folder: Path, rules: Rules) -> None:
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    state, text = refusal(signed(folder, expires=past), rules)
    assert state is State.EXPIRED
    assert str(past) in text
    opened(signed(folder, expires=past + timedelta(days=2)), rules).admit(rules)


def test_a_signature_that_is_none_is_malformed(folder: Path, rules: Rules) -> None:
    assert refusal(changed(signed(folder), "SIGNATURE.json", b"{}"), rules)[0] is State.MALFORMED


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "it is not of format 1"),
        (b"[" * 5000, "it is not of format 1"),
        (b'{"format": 2, "new": 1}', "it is of format 2, this broker knows 1: upgrade the broker"),
        (manifest_of({**FILES_OF_SMALL, "../up": b""}), "leads out of the package"),
        (manifest_of({"main.py": b""}), "it lists no plugin.yaml"),
        (manifest_of(FILES_OF_SMALL).replace(b"1.0.0", b"01.0"), "'01.0' is not written in its normal form, '1.0'"),
        (manifest_of(FILES_OF_SMALL).replace(b'"small"', b'"../x"'), "name '../x' is not allowed"),
        (manifest_of(FILES_OF_SMALL).replace(b'"0644"', b'"4755"'), "it is not of format 1"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(raw: bytes, text: str) -> None:
    with pytest.raises(PackageError) as caught:
        read_archive(write_zip([(MANIFEST_ENTRY, raw), ("files/plugin.yaml", b"")]))
    assert text in caught.value.text


def test_a_zip_slip_is_refused_by_name() -> None:
    evil = {"plugin.yaml": b"", "../../.bashrc": b"evil"}
    with pytest.raises(PackageError, match=r"unsafe: the file name '../../.bashrc' leads out of the package"):
        read_archive(package_of(evil))
    with pytest.raises(PackageError, match="which its manifest does not list"):
        read_archive(package_of(evil, {"plugin.yaml": b""}))


def test_an_ordinary_zip_file_is_no_package() -> None:
    with pytest.raises(PackageError, match=r"malformed: it has no MANIFEST\.json"):
        read_archive(raw_zip(Raw(b"plugin.yaml")))


class TestEncrypted:
    @pytest.fixture
    def locked(self, folder: Path, rules: Rules, keys: Path) -> bytes:
        return signed(folder, recipient=read_recipient_public(keys / "broker.pub"))

    def test_the_recipient_gets_the_files(self, locked: bytes, rules: Rules, keys: Path, tmp_path: Path) -> None:
        assert b"print" not in locked
        opened(locked, rules).unpack(tmp_path / "out", read_recipient(keys / "broker.key"))
        assert (tmp_path / "out" / "main.py").read_bytes() == FILES_OF_SMALL["main.py"]

    def test_a_signature_can_be_checked_without_the_key(self, locked: bytes, rules: Rules) -> None:
        assert opened(locked, rules).state is State.VALID

    def test_somebody_else_is_told_whose_it_is(self, locked: bytes, rules: Rules, keys: Path, tmp_path: Path) -> None:
        package = opened(locked, rules)
        with pytest.raises(
            PackageError, match=r"wrong recipient: it is encrypted to the key \w{16}, and the key of this"
        ):
            package.unpack(tmp_path / "out", read_recipient(keys / "other.key"))
        with pytest.raises(PackageError, match=r"and this broker has none: make one with 'broker package keygen --rec"):
            package.unpack(tmp_path / "out", None)

    def test_files_cannot_change_places(self, tmp_path: Path, rules: Rules, keys: Path) -> None:
        folder = make_folder(tmp_path / "two", {"plugin.yaml": b"", "a": b"12345", "b": b"67890"})
        locked = build(folder, "small", Version("1.0.0"), recipient=read_recipient_public(keys / "broker.pub"))
        contents = read_archive(locked)
        a, b, third = contents.manifest.files
        swapped = (
            msgspec.structs.replace(a, sha256=b.sha256),
            msgspec.structs.replace(b, sha256=a.sha256),
            third,
        )
        raw = msgspec.json.encode(msgspec.structs.replace(contents.manifest, files=swapped))
        one, two = (b"".join(contents.chunks(each)) for each in (a, b))
        evil = changed(changed(changed(locked, MANIFEST_ENTRY, raw), "files/a", two), "files/b", one)
        package = opened(evil, rules)
        with pytest.raises(PackageError, match="modified: 'a' is not what was encrypted"):
            package.unpack(tmp_path / "out", read_recipient(keys / "broker.key"))

    def test_two_packages_of_one_folder_have_nothing_in_common(self, locked: bytes, folder: Path, keys: Path) -> None:
        again = signed(folder, recipient=read_recipient_public(keys / "broker.pub"))
        first, second = read_archive(locked).manifest.files, read_archive(again).manifest.files
        assert not {each.sha256 for each in first} & {each.sha256 for each in second}


class TestKeys:
    def test_a_private_key_is_for_its_owner_only_and_is_never_replaced(self, tmp_path: Path) -> None:
        secret, public = make_signing_pair(tmp_path, "acme")
        assert (secret.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644)
        with pytest.raises(KeyFileError, match="exists already"):
            make_signing_pair(tmp_path, "acme")

    def test_a_file_that_is_no_key_admits_nobody_and_is_named(self, tmp_path: Path) -> None:
        make_signing_pair(tmp_path, "acme")
        trust(tmp_path / "trusted", "acme", tmp_path / "acme.pub")
        (tmp_path / "trusted" / "broken.pub").write_text("nothing")
        (tmp_path / "trusted" / "private.pub").write_bytes((tmp_path / "acme.key").read_bytes())
        keys, problems = read_trusted(tmp_path / "trusted")
        assert [key.name for key in keys.values()] == ["acme"]
        assert [problem.split()[0] for problem in problems] == [
            str(tmp_path / "trusted" / name) for name in ("broken.pub", "private.pub")
        ]

    @pytest.mark.parametrize(
        "content", [b"", b"x" * 99, b"-----BEGIN PUBLIC KEY-----\nAAA\n-----END PUBLIC KEY-----\n"]
    )
    def test_the_wrong_file_is_told_by_every_reader(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "file"
        file.write_bytes(content)
        for reader in (read_public, read_signing, read_recipient, read_recipient_public):
            with pytest.raises(KeyFileError, match=str(file)):
                reader(file)

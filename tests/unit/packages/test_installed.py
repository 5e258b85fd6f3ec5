"""Folders of installed packages: what is in force, what is swept away, what is noticed (PKG-4)."""

import os
from pathlib import Path

import pytest
from packaging.version import Version

from broker.packages.build import add_signature, build
from broker.packages.errors import PackageError, State
from broker.packages.installed import InstalledPackages, Mark, Record
from broker.packages.keys import make_signing_pair, read_signing, trust
from broker.packages.opened import Rules
from broker.packages.unpacking import unpack_file
from tests.unit.packages.making import FILES_OF_SMALL, make_folder


@pytest.fixture
def installed(tmp_path: Path) -> InstalledPackages:
    return InstalledPackages(tmp_path / "installed")


def unpacked(installed: InstalledPackages, version: str = "1.0.0") -> Record:
    """A signed package, checked and unpacked."""
    place = installed.root.parent
    if not (place / "acme.key").exists():
        make_signing_pair(place, "acme")
        trust(place / "trusted", "acme", place / "acme.pub")
    folder = make_folder(place / version, {**FILES_OF_SMALL, "bin/run": version.encode()})
    (folder / "bin" / "run").chmod(0o755)
    file = place / f"small-{version}.spk"
    file.write_bytes(add_signature(build(folder, "small", Version(version)), read_signing(place / "acme.key")))
    return unpack_file(installed, file, Rules(place / "trusted", place / "none"))


def test_a_package_is_unpacked_for_its_owner_only_and_only_what_is_a_program_can_be_run(
    installed: InstalledPackages,
) -> None:
    folder = installed.folder(unpacked(installed))
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {"main.py": 0o400, "plugin.yaml": 0o400, "bin/run": 0o500}
    assert folder.stat().st_mode & 0o077 == 0
    assert list((installed.root / ".staging").iterdir()) == []


def test_what_is_unpacked_is_not_in_force_before_it_is_put_so(installed: InstalledPackages) -> None:
    first = unpacked(installed)
    assert installed.active("small") is None
    installed.activate(first)
    second = unpacked(installed, "2.0.0")
    assert installed.active("small") == first
    installed.activate(second)
    assert installed.active("small") == second
    assert (installed.links / "small").resolve() == installed.folder(second)
    assert installed.all_active() == {"small": second}
    installed.deactivate("small")
    assert installed.all_active() == {}


def test_the_next_start_sweeps_away_what_no_link_leads_to(installed: InstalledPackages) -> None:
    first, second = unpacked(installed), unpacked(installed, "2.0.0")
    installed.activate(first)
    (installed.root / ".staging" / "half").mkdir()
    (installed.root / ".staging" / "half" / "file").write_text("half")
    (installed.root / "other" / "1.0.0-0123456789abcdef").mkdir(parents=True)
    (installed.root / "small" / "small-0.9.0.spk").write_text("put aside")
    installed.sweep()
    assert installed.active("small") == first
    assert installed.damage(first) == ""
    assert not installed.folder(second).exists()
    assert list((installed.root / ".staging").iterdir()) == []
    left = sorted(path.name for path in (installed.root / "small").iterdir())
    assert left == [first.folder_name, f"{first.folder_name}.json", "small-0.9.0.spk"]
    assert not (installed.root / "other" / "1.0.0-0123456789abcdef").exists()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda file: file.write_text("evil"), "main.py was changed after it was installed"),
        (lambda file: file.unlink(), "main.py cannot be read: No such file or directory"),
    ],
)
def test_damage_is_named_and_unpacking_anew_mends_it(installed: InstalledPackages, spoil: object, text: str) -> None:
    record = unpacked(installed)
    file = installed.folder(record) / "main.py"
    file.chmod(0o600)
    assert callable(spoil)
    spoil(file)
    assert installed.damage(record) == text
    assert installed.damage(unpacked(installed)) == ""


def test_a_link_that_leads_nowhere_puts_nothing_in_force(installed: InstalledPackages) -> None:
    record = unpacked(installed)
    installed.activate(record)
    (installed.folder(record).with_name(f"{record.folder_name}.json")).write_text("{")
    assert installed.active("small") is None
    assert installed.all_active() == {}


def test_what_is_in_force_is_never_discarded(installed: InstalledPackages) -> None:
    record = unpacked(installed)
    installed.activate(record)
    installed.discard(record)
    assert installed.active("small") == record
    installed.deactivate("small")
    installed.discard(record)
    assert not (installed.root / "small").exists()


def test_quarantine_holds_until_a_person_says_otherwise(installed: InstalledPackages) -> None:
    record = unpacked(installed)
    installed.quarantine(record, "it did not come up")
    assert InstalledPackages(installed.root).quarantined("small") == {record.digest: "it did not come up"}
    installed.pardon("small", record.digest)
    assert installed.quarantined("small") == {}


def test_a_refused_package_leaves_nothing(installed: InstalledPackages, tmp_path: Path) -> None:
    file = tmp_path / "small-1.0.0.spk"
    file.write_bytes(build(make_folder(tmp_path / "folder"), "small", Version("1.0.0")))
    with pytest.raises(PackageError) as caught:
        unpack_file(installed, file, Rules(tmp_path / "trusted", tmp_path / "none"))
    assert caught.value.state is State.UNSIGNED
    assert sorted(path.name for path in installed.root.rglob("*")) == [".active", ".staging"]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "missing"])
def test_what_is_no_file_is_refused(installed: InstalledPackages, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "small-1.0.0.spk"
    if kind == "link":
        place.symlink_to("/etc/passwd")
    elif kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    with pytest.raises(PackageError, match=r"is a symbolic link|is no plain file|cannot be read: No such file"):
        unpack_file(installed, place, Rules(tmp_path / "trusted", tmp_path / "none"))


def test_the_mark_of_a_file_tells_its_replacement(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("same")
    other.write_text("same")
    os.utime(file, ns=(5, 5))
    os.utime(other, ns=(5, 5))
    before = Mark.of(file.stat())
    other.rename(file)
    assert Mark.of(file.stat()) != before

"""The installer with real files and the real process that unpacks: which version of a plugin is to be in force."""

import time
from pathlib import Path

import pytest
from packaging.version import Version

from broker.packages.build import build
from broker.packages.installed import InstalledPackages
from broker.packages.installer import Description, Installer
from broker.packages.opened import Rules
from broker.packages.workshop import Workshop
from tests.unit.packages.making import make_folder


class Bench:
    """An installer, and packages for it."""

    def __init__(self, place: Path, *allowed: str) -> None:
        self.place = place
        self.plugins = place / "plugins"
        self.plugins.mkdir()
        rules = Rules(place / "trusted", place / "none", frozenset(allowed))
        self.installed = InstalledPackages(place / "installed")
        self.installer = Installer(self.installed, Workshop(place / "installed", rules), self.plugins, self.describe)
        self.installer.start()

    def describe(self, folder: Path) -> Description:
        name, version = (folder / "plugin.yaml").read_text().split()
        return Description(name, version)

    def put(self, name: str, version: str, content: str = "") -> Path:
        folder = make_folder(
            self.place / f"{name}-{version}{content}",
            {"plugin.yaml": f"{name} {version}".encode(), "content": content.encode()},
        )
        file = self.plugins / f"{name}-{version}.spk"
        file.write_bytes(build(folder, name, Version(version)))
        return file

    def fetch(self) -> tuple[dict[str, str], dict[str, str]]:
        """What is to be in force, by name, after it has been put so; and why files are refused."""
        offers, strays = self.installer.survey()
        fetched = self.installer.fetch(offers)
        for record in fetched.records.values():
            if record:
                self.installed.activate(record)
        versions = {name: record.version for name, record in fetched.records.items() if record}
        return versions, {name: str(error) for name, error in {**strays, **fetched.refusals}.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, "a", "b", "c")


def test_the_highest_version_that_may_be_installed_counts(bench: Bench) -> None:
    for version in ("1.9.0", "1.10.0", "2.0.0"):
        bench.put("a", version)
    (bench.plugins / "a-2.0.0.spk").write_bytes(b"garbage")
    versions, refusals = bench.fetch()
    assert versions == {"a": "1.10.0"}
    assert list(refusals) == ["a-2.0.0.spk"]


def test_what_runs_goes_on_when_its_file_is_spoilt(bench: Bench) -> None:
    file = bench.put("a", "1.0.0")
    assert bench.fetch()[0] == {"a": "1.0.0"}
    file.write_bytes(b"garbage")
    versions, refusals = bench.fetch()
    assert versions == {"a": "1.0.0"}
    assert refusals["a-1.0.0.spk"].startswith("malformed")


def test_other_content_under_the_same_version_is_refused(bench: Bench) -> None:
    bench.put("a", "1.0.0")
    bench.fetch()
    bench.put("a", "1.0.0", "changed")
    versions, refusals = bench.fetch()
    assert versions == {"a": "1.0.0"}
    assert "is installed with another content" in refusals["a-1.0.0.spk"]
    assert len(list((bench.installed.root / "a").glob("*/"))) == 1


def test_a_lower_version_counts_when_the_higher_one_is_taken_away(bench: Bench) -> None:
    bench.put("a", "1.0.0")
    higher = bench.put("a", "2.0.0")
    assert bench.fetch()[0] == {"a": "2.0.0"}
    higher.unlink()
    assert bench.fetch()[0] == {"a": "1.0.0"}


def test_names_that_tell_nothing_or_something_else_are_refused(bench: Bench) -> None:
    (bench.plugins / "noversion.spk").write_bytes(b"x")
    bench.put("a", "1.0.0").rename(bench.plugins / "b-3.0.0.spk")
    versions, refusals = bench.fetch()
    assert versions == {}
    assert refusals == {
        "noversion.spk": "is not named ID-VERSION.spk, such as hello-1.0.0.spk",
        "b-3.0.0.spk": "holds a 1.0.0: rename it to a-1.0.0.spk",
    }
    assert not (bench.installed.root / "a").exists()


def test_one_bad_package_keeps_no_other_from_being_installed(bench: Bench) -> None:
    for name in "abc":
        bench.put(name, "1.0.0")
    (bench.plugins / "b-1.0.0.spk").write_bytes(b"")
    versions, refusals = bench.fetch()
    assert versions == {"a": "1.0.0", "c": "1.0.0"}
    assert refusals["b-1.0.0.spk"].startswith("truncated: the file is empty")


def test_a_workshop_that_is_closed_refuses_and_says_so(bench: Bench) -> None:
    bench.put("a", "1.0.0")
    bench.installer.workshop.close()
    versions, refusals = bench.fetch()
    assert versions == {}
    assert "the broker is stopping" in refusals["a-1.0.0.spk"]


def test_500_installed_packages_are_surveyed_in_less_than_a_second(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(500)]
    bench = Bench(tmp_path, *names)
    for name in names:
        bench.put(name, "1.0.0")
    began = time.monotonic()
    assert len(bench.fetch()[0]) == 500
    first = time.monotonic() - began
    began = time.monotonic()
    fetched = bench.installer.fetch(bench.installer.survey()[0])
    took = time.monotonic() - began
    print(f"500 packages: unpacked in {first:.2f} s, unchanged in {took * 1000:.0f} ms")
    assert len(fetched.records) == 500
    assert took < 1.0

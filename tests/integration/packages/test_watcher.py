"""The watcher on a real folder, with a real clock: however files come, each is reported once, and when it is whole."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from broker.packages.watcher import Watcher
from broker.packages.watching import Change, Seen, decide, scan

SECS = 10.0


class Reports:
    """What a watcher has reported."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, changes: Sequence[Change]) -> None:
        with self._changed:
            self.found += [f"{change.name} {change.what}" for change in changes]
            self._changed.notify_all()

    def wait_for(self, *expected: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(expected) <= set(self.found), SECS), self.found


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture(params=["events", "no events"])
def plugins(
    request: pytest.FixtureRequest, tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A watched folder; on some file systems there are no events, so everything must work without."""
    if request.param == "no events":
        monkeypatch.setattr("broker.packages.watcher._Trigger._open", lambda self: None)
    folder = tmp_path / "plugins"
    folder.mkdir()
    watcher = Watcher(folder, reports, 0.2 if request.param == "no events" else 30.0, scan(folder))
    watcher.start()
    try:
        yield folder
    finally:
        watcher.stop(5)
        assert "broker-watcher" not in {thread.name for thread in threading.enumerate()}


def slowly(write: Callable[[bytes], object], pieces: int) -> None:
    """Writes with pauses that are shorter than what counts as quiet, and longer together."""
    # No condition to wait for: that it takes its time is what this copy is for.
    for _ in range(pieces):
        write(b"x" * 1000)
        time.sleep(0.2)


def test_a_file_that_is_copied_slowly_is_reported_when_it_is_whole(plugins: Path, reports: Reports) -> None:
    with (plugins / "a-1.spk").open("wb", buffering=0) as file:
        slowly(file.write, 6)
        assert reports.found == []
    reports.wait_for("a-1.spk added")
    assert (plugins / "a-1.spk").stat().st_size == 6000


def test_a_file_that_is_renamed_into_place_is_reported_once(plugins: Path, reports: Reports) -> None:
    draft = plugins / ".a-1.spk.part"
    draft.write_bytes(b"x" * 5000)
    draft.rename(plugins / "a-1.spk")
    (plugins / "b-1.spk").write_bytes(b"y")
    reports.wait_for("a-1.spk added", "b-1.spk added")
    assert len(reports.found) == 2


def test_what_is_replaced_is_changed_and_what_is_removed_is_removed(plugins: Path, reports: Reports) -> None:
    (plugins / "a-1.spk").write_bytes(b"old")
    (plugins / "b-1.spk").write_bytes(b"old")
    reports.wait_for("a-1.spk added", "b-1.spk added")
    (plugins / "draft").write_bytes(b"new")
    (plugins / "draft").rename(plugins / "a-1.spk")
    (plugins / "b-1.spk").unlink()
    reports.wait_for("a-1.spk changed", "b-1.spk removed")
    assert len(reports.found) == 4


def test_many_at_once_are_all_reported(plugins: Path, reports: Reports) -> None:
    names = [f"p{number}-1.spk" for number in range(200)]
    for name in names:
        (plugins / name).write_bytes(b"x")
    reports.wait_for(*(f"{name} added" for name in names))
    assert len(reports.found) == 200


def test_a_change_deep_in_a_plugin_folder_is_reported(plugins: Path, reports: Reports) -> None:
    (plugins / "small" / "lib").mkdir(parents=True)
    (plugins / "small" / "plugin.yaml").write_text("name: small")
    reports.wait_for("small added")
    (plugins / "small" / "lib" / "code.py").write_text("a = 1")
    reports.wait_for("small changed")
    shutil.rmtree(plugins / "small")
    reports.wait_for("small removed")


def test_a_folder_that_is_exchanged_as_a_whole_is_watched_on(tmp_path: Path, reports: Reports) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    watcher = Watcher(folder, reports, 0.2, {})
    watcher.start()
    (folder / "a-1.spk").write_bytes(b"x")
    reports.wait_for("a-1.spk added")
    folder.rename(tmp_path / "old")
    folder.mkdir()
    (folder / "b-1.spk").write_bytes(b"x")
    reports.wait_for("a-1.spk removed", "b-1.spk added")
    (folder / "c-1.spk").write_bytes(b"x")
    reports.wait_for("c-1.spk added")
    watcher.stop(5)


def test_a_folder_that_vanishes_unloads_nothing(
    tmp_path: Path, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(tmp_path / "nowhere", reports, 7.0, {})
    assert watcher.look() == 7.0
    assert watcher.look() == 7.0
    assert reports.found == []
    assert caplog.text.count("nothing is loaded or unloaded") == 1


def test_500_packages_are_looked_at_in_less_than_a_second(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    for number in range(500):
        (tmp_path / f"p{number}-1.0.spk").write_bytes(b"x" * 1000)
    known = scan(tmp_path)
    began = time.monotonic()
    decision = decide(Seen(known), scan(tmp_path), began)
    took = time.monotonic() - began
    print(f"500 unchanged packages: {took * 1000:.1f} ms")
    assert decision.changes == ()
    assert took < 1.0

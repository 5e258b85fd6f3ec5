"""What passed on the bus passes again: recorded by one process, replayed by another, whatever happens in between."""

import asyncio
import json
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import Event, connect
from tests.e2e.mesh import Mesh, eventually


@contextmanager
def recording(mesh: Mesh, file: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A recorder whose subscription is in force."""
    recorder = mesh.start_cli("record", str(file), *options)
    assert recorder.stderr is not None
    try:
        assert "recording " in recorder.stderr.readline()
        yield recorder
    finally:
        recorder.kill()
        recorder.communicate()


def ended(recorder: "subprocess.Popen[str]", number: int = signal.SIGINT) -> dict[str, Any]:
    """The summary of a recorder that is told to end."""
    recorder.send_signal(number)
    out, errors = recorder.communicate(timeout=15)
    assert recorder.returncode == 0, errors
    summary: dict[str, Any] = json.loads(out)
    return summary


def publish(mesh: Mesh, subjects: list[str], data: Any = None) -> None:
    """Publish to these subjects; all of it has reached the broker when this returns."""

    async def work() -> None:
        async with connect(home=mesh.home, name="test") as bus:
            for number, subject in enumerate(subjects):
                await bus.publish(subject, number if data is None else data, headers={"message-id": str(number)})
            await bus.call("$broker.ping")

    asyncio.run(work())


def replayed(mesh: Mesh, count: int, *args: str) -> tuple[list[Event], "subprocess.CompletedProcess[str]"]:
    """What a subscriber hears of a replay, and how the replay ended."""

    async def work() -> tuple[list[Event], "subprocess.CompletedProcess[str]"]:
        heard: list[Event] = []
        complete = asyncio.Event()

        async def keep(event: Event) -> None:
            heard.append(event)
            if len(heard) == count:
                complete.set()

        async with connect(home=mesh.home, name="test") as bus:
            await bus.subscribe(">", keep)
            done = await asyncio.to_thread(mesh.cli, "replay", *args)
            await asyncio.wait_for(complete.wait(), 10)
        return heard, done

    return asyncio.run(work())


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def test_what_was_recorded_is_replayed_in_order_with_its_headers_and_marked(mesh: Mesh, tmp_path: Path) -> None:
    mesh.run()
    subjects = [f"n.{number}" for number in range(5000)]
    with recording(mesh, tmp_path / "a.rec", "--json") as recorder:
        publish(mesh, subjects)
        summary = ended(recorder)
    assert (summary["events"], summary["dropped"], summary["ended"]) == (5000, 0, "stopped by SIGINT")
    heard, done = replayed(mesh, 5000, str(tmp_path / "a.rec"), "--speed", "max")
    assert done.returncode == 0
    assert "replayed 5,000 events" in done.stdout
    assert [event.subject for event in heard] == subjects
    assert [event.data for event in heard] == list(range(5000))
    assert [event.id for event in heard] == [str(number) for number in range(5000)]
    times = [event.headers["recorded-at"] for event in heard]
    assert times == sorted(times)
    assert times[0].startswith("20")


def test_only_what_is_asked_for_is_recorded_and_replayed(mesh: Mesh, tmp_path: Path) -> None:
    mesh.run()
    file = str(tmp_path / "a.rec")
    with recording(mesh, tmp_path / "a.rec", "--json", "-p", "user.*", "-p", "order.>") as recorder:
        publish(mesh, ["user.a", "order.a.b", "other", "user.a.b", "order.c"])
        assert ended(recorder)["events"] == 3
    heard, done = replayed(mesh, 2, file, "--speed", "max", "--pattern", "order.>")
    assert [event.subject for event in heard] == ["order.a.b", "order.c"]
    assert "1 event passed over" in done.stdout
    shown = json.loads(mesh.cli("recording", file, "--json").stdout)
    assert shown["subjects"] == {"user.a": 1, "order.a.b": 1, "order.c": 1}


def test_the_original_pace_is_kept_and_may_be_multiplied(mesh: Mesh, tmp_path: Path) -> None:
    mesh.run()
    file = tmp_path / "a.rec"
    with recording(mesh, file, "--json") as recorder:
        publish(mesh, ["first"])
        eventually(lambda: b"first" in file.read_bytes())
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 1.0)
        publish(mesh, ["second"])
        eventually(lambda: b"second" in file.read_bytes())
        ended(recorder)
    secs = {
        speed: json.loads(mesh.cli("replay", str(file), "--speed", speed, "--json").stdout)["secs"]
        for speed in ("original", "4x", "max")
    }
    assert secs["original"] > 1.0
    assert 0.25 < secs["4x"] < secs["original"]
    assert secs["max"] < secs["original"] - 0.5


def test_kill_9_of_the_recorder_costs_nothing_that_it_had_written(mesh: Mesh, tmp_path: Path) -> None:
    mesh.run()
    file = tmp_path / "a.rec"
    with recording(mesh, file) as recorder:
        publish(mesh, ["before"])
        eventually(lambda: b"before" in file.read_bytes())
        recorder.kill()
        recorder.wait()
    with file.open("ab") as torn:
        torn.write(b"\x93\xcf\x00")
    heard, done = replayed(mesh, 1, str(file), "--speed", "max")
    assert [event.subject for event in heard] == ["before"]
    assert done.returncode == 0
    assert "the last 3 bytes are not a whole event: the recording was cut off there" in done.stderr


def test_a_recording_rides_out_a_restart_of_the_broker_and_tells_of_the_gap(mesh: Mesh, tmp_path: Path) -> None:
    mesh.run()
    file = tmp_path / "a.rec"
    with recording(mesh, file, "--json") as recorder:
        publish(mesh, ["before"])
        eventually(lambda: b"before" in file.read_bytes())
        assert mesh.stop() == 0
        mesh.run()
        eventually(lambda: b"connection" in file.read_bytes(), what="the recorder is back")
        publish(mesh, ["after"])
        eventually(lambda: b"after" in file.read_bytes())
        assert ended(recorder)["interruptions"] == 1
    shown = mesh.cli("recording", str(file))
    assert "the connection to the broker was lost" in shown.stdout
    assert [line.split()[0] for line in shown.stdout.splitlines()[2:4]] == ["before", "after"]


def test_a_disk_that_takes_no_more_ends_the_recording_with_the_reason_and_what_is_saved(
    mesh: Mesh, tmp_path: Path
) -> None:
    mesh.run()
    file = tmp_path / "a.rec"
    with recording(mesh, file) as recorder:
        resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (8192, 8192))
        publish(mesh, ["x"] * 100, "y" * 200)
        out, errors = recorder.communicate(timeout=15)
    assert recorder.returncode == 1
    assert f"cannot write to {file}: File too large" in errors
    saved = json.loads(mesh.cli("recording", str(file), "--json").stdout)["events"]
    assert f"recorded {saved} events" in out
    assert saved > 20


def test_the_bus_goes_on_while_a_recorder_hangs_that_may_lose_events_and_each_is_counted(
    mesh: Mesh, tmp_path: Path
) -> None:
    mesh.run()
    with recording(mesh, tmp_path / "a.rec", "--json", "--overflow", "drop_newest") as recorder:
        recorder.send_signal(signal.SIGSTOP)
        publish(mesh, ["flood"] * 100_000, "x" * 200)
        recorder.send_signal(signal.SIGCONT)
        summary = ended(recorder)
    assert summary["dropped"] > 0
    assert summary["events"] + summary["dropped"] == 100_000


def test_a_replay_that_is_interrupted_says_how_far_it_came(mesh: Mesh, tmp_path: Path) -> None:
    mesh.run()
    file = tmp_path / "a.rec"
    with recording(mesh, file, "--json") as recorder:
        publish(mesh, ["x"] * 100)
        assert ended(recorder, signal.SIGTERM)["events"] == 100
    with recording(mesh, tmp_path / "b.rec"):
        replay = mesh.start_cli("replay", str(file), "--rate", "10")
        eventually(lambda: size_of(tmp_path / "b.rec") > 300, what="the replay has begun")
        replay.send_signal(signal.SIGINT)
        out, _ = replay.communicate(timeout=15)
    assert replay.returncode == 130
    assert "interrupted" in out
    assert 0 < int(out.split()[1]) < 100


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("record", "a.rec", "--rotate", "many"), "'many' is not a size"),
        (("record", "a.rec", "--max-bytes", "10"), "10 is too small"),
        (("record", "a.rec", "--pattern", "a..b"), "a token is empty"),
        (("replay", "a.rec"), "does not exist"),
        (("record", "nowhere/a.rec"), "Is a broker running"),
    ],
)
def test_wrong_usage_is_told_and_leaves_no_file(mesh: Mesh, args: tuple[str, ...], text: str) -> None:
    done = mesh.cli(*args)
    assert done.returncode != 0
    assert text in done.stderr
    assert not Path("a.rec").exists()

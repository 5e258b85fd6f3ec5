"""Bad input of every kind: a clear error, nothing lost, and the broker lives on."""

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest
import zmq

from plugin_sdk import BusError, connect
from tests.e2e.mesh import Mesh, eventually, gone

MIB = 1 << 20


@contextmanager
def dealer(mesh: Mesh) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.rcvtimeo = 5000
        peer.connect(f"ipc://{mesh.home}/run/broker.sock")
        yield peer


def exchange(peer: "zmq.Socket[bytes]", frame: object) -> list[object]:
    peer.send(frame if isinstance(frame, bytes) else msgpack.packb(frame))
    answer: list[object] = msgpack.unpackb(peer.recv())
    return answer


def register(mesh: Mesh, peer: "zmq.Socket[bytes]", role: str = "client") -> int:
    key = (mesh.home / "keys" / "client.key").read_text()
    answer = exchange(peer, [0, [1, [1], role, "x", "1", "", "n", key]])
    packet = answer[1]
    assert isinstance(packet, list)
    assert packet[0] == 2, packet
    session = packet[2]
    assert isinstance(session, int)
    return session


def sessions(mesh: Mesh) -> list[str]:
    return [each["name"] for each in mesh.ask("$broker.sessions")]


def test_garbage_of_every_kind_is_answered_and_the_broker_goes_on(mesh: Mesh) -> None:
    mesh.run()
    with dealer(mesh) as peer:
        assert exchange(peer, b"\xc1 garbage")[1][1] == "bad_frame"  # type: ignore[index]
        assert exchange(peer, [1, [4, 1]])[1][1] == "unknown_session"  # type: ignore[index]
        key = (mesh.home / "keys" / "client.key").read_text()
        unknown = exchange(peer, [0, [1, [99], "plugin", "x", "1", "", "n", key]])
        assert unknown[1][1] == "bad_version"  # type: ignore[index]
        session = register(mesh, peer)
        assert exchange(peer, [session, [99, 1]])[1][2] == "unsupported"  # type: ignore[index]
        assert exchange(peer, [session, [10, 7, "a..b", None, {}]])[1][:3] == [26, 7, "bad_subject"]  # type: ignore[index]
        assert exchange(peer, [session + 1, [4, 1]])[1][1] == "unknown_session"  # type: ignore[index]
        again = exchange(peer, [0, [1, [1], "plugin", "other", "1", "", "m", key]])
        assert again[1][1] == "already_registered"  # type: ignore[index]
        peer.send_multipart([b"two", b"frames"])
        assert msgpack.unpackb(peer.recv())[1][2] == "bad_frame"
        assert exchange(peer, [session, [4, 5]])[1] == [5, 5]
    assert mesh.cli("status").returncode == 0
    assert mesh.stop() == 0


def test_an_oversized_frame_is_refused_and_a_huge_one_ends_the_connection(mesh: Mesh) -> None:
    # That the connection has gone is known when heartbeats are missing.
    mesh.environ |= {"BROKER_BUS_MAX_FRAME_BYTES": str(64 * 1024), "BROKER_BUS_HEARTBEAT_SECS": "1"}
    mesh.run()
    with dealer(mesh) as peer:
        session = register(mesh, peer)
        assert exchange(peer, [session, [12, 0, "a", [{}, b"x" * 70_000]]])[1][2] == "too_large"  # type: ignore[index]
        assert "x" in sessions(mesh)
        peer.send(b"x" * 1_000_000)
        eventually(lambda: "x" not in sessions(mesh), what="its session has ended")
    assert mesh.cli("status").returncode == 0


def test_a_body_that_is_not_msgpack_hurts_only_its_reader(mesh: Mesh) -> None:
    mesh.run()
    tap = mesh.start_cli("tap", "a", "--count", "2", "--json")
    assert tap.stderr is not None
    tap.stderr.readline()
    with dealer(mesh) as peer:
        session = register(mesh, peer)
        peer.send(msgpack.packb([session, [12, 0, "a", [{}, b"\xc1"]], [12, 0, "a", [{}, msgpack.packb("fine")]]]))
        seen, _ = tap.communicate(timeout=10)
    assert '"data": "fine"' in seen.splitlines()[1]


def test_a_second_process_under_a_name_is_told_the_first_ones_pid(mesh: Mesh) -> None:
    mesh.run()
    script = 'from plugin_sdk import Plugin\nPlugin("twin").run()\n'
    first = subprocess.Popen([sys.executable, "-c", script], env=mesh.environ)
    try:
        mesh.wait_for("twin")
        second = subprocess.run(
            [sys.executable, "-c", script], env=mesh.environ, capture_output=True, text=True, timeout=30
        )
        assert second.returncode != 0
        assert f"registered already by process {first.pid}" in second.stderr
        assert "3 attempts: duplicate_name" in second.stderr
        assert mesh.plugin("twin")["pid"] == first.pid
    finally:
        first.terminate()
        assert first.wait(10) == 0


def test_two_brokers_on_one_home_the_second_says_who_holds_it(mesh: Mesh) -> None:
    first = mesh.run()
    second = mesh.cli("run")
    assert second.returncode == 1
    assert f"another broker runs on {mesh.home}: process {first.pid}" in second.stderr
    assert mesh.cli("status").returncode == 0


def test_a_home_that_is_too_long_or_unusable_is_refused_with_the_way_out(mesh: Mesh) -> None:
    long = mesh.cli("--home", str(mesh.home / ("x" * 100)), "run")
    assert long.returncode == 1
    assert "107" in long.stderr
    assert "shorter" in long.stderr
    file = mesh.home / "file"
    file.write_text("")
    unusable = mesh.cli("--home", str(file / "below"), "run")
    assert unusable.returncode in (1, 2)
    assert str(file) in unusable.stderr


def test_a_tcp_port_in_use_is_named(mesh: Mesh) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mesh.environ["BROKER_BUS_TCP"] = f"tcp://127.0.0.1:{port}"
        done = mesh.cli("run")
    assert done.returncode == 1
    assert f"tcp://127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr


def test_a_wrong_database_url_is_refused_and_an_unreachable_database_only_reported(mesh: Mesh) -> None:
    wrong = mesh.cli("run", "--database", "oracle://x")
    assert wrong.returncode == 1
    assert "database.url" in wrong.stderr
    mesh.add_plugin("small")
    mesh.run("--database", "mysql+pymysql://nobody:secret@127.0.0.1:1/none")
    mesh.wait_for("small")
    database = eventually(lambda: (now := mesh.status()["broker"]["database"])["status"] == "down" and now)
    assert "127.0.0.1" in database["reason"]
    assert "secret" not in mesh.cli("status").stdout + mesh.text()
    assert mesh.cli("call", "nobody.there").returncode == 1


def test_the_command_line_tells_its_failures_apart(mesh: Mesh) -> None:
    unreachable = mesh.cli("status")
    assert unreachable.returncode == 69
    assert "broker run" in unreachable.stderr
    mesh.run()
    assert mesh.cli("pub", "a", "{not json").returncode == 2
    assert mesh.cli("nonsense").returncode == 2
    assert mesh.cli("pub", "a..b", "1").returncode == 1
    unknown = mesh.cli("start", "nobody")
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr
    served = mesh.cli("call", "nobody.there", "null", "--timeout", "1")
    assert served.returncode == 1
    assert "unavailable" in served.stderr


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ('requires: ["ghost"]\n', "ghost"),
        ('requires: ["good>=2.0"]\n', "good>=2.0 but good 1.0.0"),
        ('requires: ["bad"]\n', "bad"),
        ("nonsense: 1\n", "nonsense"),
        ("config: [1\n", "plugin.yaml"),
    ],
)
def test_a_broken_plugin_is_failed_with_its_reason_and_blocks_no_other(mesh: Mesh, manifest: str, reason: str) -> None:
    mesh.add_plugin("good")
    mesh.add_plugin("bad", manifest=manifest)
    mesh.run()
    mesh.wait_for("good")
    assert reason in mesh.wait_for("bad", "failed")["error"]
    eventually(lambda: mesh.rows().get("bad", (0, ""))[0] == 3)
    assert reason in str(mesh.rows()["bad"][1])
    assert mesh.stop() == 0


def test_a_plugin_that_never_registers_fails_with_what_it_wrote(mesh: Mesh) -> None:
    folder = mesh.add_plugin("mute", manifest="timeouts: {register: 0.5}\n")
    folder.joinpath("main.py").write_text('print("I am busy", flush=True)\nimport time\ntime.sleep(600)\n')
    mesh.run()
    error = mesh.wait_for("mute", "failed", 20)["error"]
    assert "I am busy" in error
    assert "in 3 attempts" in error


def test_a_plugin_that_exits_at_once_fails_with_its_traceback(mesh: Mesh) -> None:
    folder = mesh.add_plugin("crash")
    folder.joinpath("main.py").write_text('raise RuntimeError("no database here")\n')
    mesh.run()
    assert "no database here" in mesh.wait_for("crash", "failed", 20)["error"]
    eventually(lambda: "no database here" in str(mesh.rows().get("crash")))


def test_a_plugin_that_prints_megabytes_neither_blocks_nor_grows_the_broker(mesh: Mesh) -> None:
    """64 MiB, of which about 4 MiB at once and 1 MiB a second are kept: the first lines, and how much is missing."""
    flood = "import sys\nfor number in range(65536):\n    sys.stdout.write(f'{number:08}' + 'x' * 1015 + '\\n')\n"
    mesh.add_plugin("noisy", flood)
    began = time.monotonic()
    mesh.run()
    row = mesh.wait_for("noisy")
    took = time.monotonic() - began
    assert mesh.family()[0].memory_info().rss < 100 * MIB
    assert mesh.stop() == 0
    files = list((mesh.home / "logs").glob("noisy*"))
    kept = b"".join(file.read_bytes() for file in sorted(files, reverse=True))
    assert b" 00000000xxx" in kept[:100]
    assert 3 * MIB < len(kept) < (5 + took) * MIB
    assert row["log_lines_dropped"] > 30_000
    missing = re.findall(rb"\[(\d+) bytes dropped: written faster than they are kept\]", kept)
    assert 30 * MIB < sum(map(int, missing)) < 64 * MIB


def test_a_plugin_that_ignores_sigterm_and_forks_is_killed_with_all_it_started(mesh: Mesh) -> None:
    body = (
        "import signal, subprocess, time\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        # In a hook, because run() sets a handler of its own.
        "@plugin.on_start()\nasync def ignore():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "@plugin.on_cleanup()\nasync def hang():\n    time.sleep(600)\n"
    )
    mesh.add_plugin("stubborn", body, "timeouts: {cleanup: 0.5, stop: 1.5}\n")
    mesh.run()
    mesh.wait_for("stubborn")
    family = mesh.family()
    assert any("sleep" in each.name() for each in family)
    assert mesh.stop(signal.SIGTERM, 30) == 0
    eventually(lambda: gone(family), 2.0, "nothing of it is left")
    told = r"plugin stubborn was ended by SIGKILL.* it did not end within \S+ s of SIGTERM; .*the last step was SIGKILL"
    assert re.search(told, mesh.text()), mesh.text()
    with sqlite3.connect(mesh.home / "broker.db") as database:
        ((last_exit,),) = database.execute("SELECT last_exit FROM t_plugin WHERE plugin_id = 'stubborn'").fetchall()
    assert last_exit.startswith("was ended by SIGKILL")


def test_a_second_signal_forces_the_end(mesh: Mesh) -> None:
    mesh.add_plugin(
        "slow",
        "@plugin.on_cleanup()\nasync def hang():\n    import asyncio\n    await asyncio.sleep(600)\n",
        "timeouts: {cleanup: 60}\n",
    )
    mesh.run()
    mesh.wait_for("slow")
    family = mesh.family()
    assert mesh.process is not None
    mesh.process.send_signal(signal.SIGTERM)
    eventually(lambda: "SIGTERM: stopping" in mesh.text())
    assert mesh.stop(signal.SIGTERM, 5) != 0
    assert "forced" in mesh.text()
    eventually(lambda: gone(family), 2.0, "nothing is left")


def test_a_plugin_refusing_its_configuration_fails_with_that_reason_and_is_not_retried(mesh: Mesh) -> None:
    body = "@plugin.on_initialize()\nasync def check(config):\n    raise ValueError('port is missing')\n"
    mesh.add_plugin("picky", body)
    mesh.run()
    error = mesh.wait_for("picky", "failed")["error"]
    assert "port is missing" in error
    assert "attempt 2" not in error


def test_start_and_stop_by_name_follow_the_dependencies(mesh: Mesh) -> None:
    mesh.add_plugin("base")
    mesh.add_plugin("top", manifest='requires: ["base"]\n')
    mesh.run()
    mesh.wait_for("top")
    stopped = mesh.cli("stop", "base")
    assert stopped.stdout.splitlines() == ["top is stopped", "base is stopped"]
    eventually(lambda: {status for status, _ in mesh.rows().values()} == {0})
    assert mesh.cli("start", "top").returncode == 0
    assert mesh.plugin("base")["state"] == "running"
    with sqlite3.connect(mesh.home / "broker.db") as database:
        (count,) = database.execute("SELECT count(*) FROM t_audit WHERE action IN ('start', 'stop')").fetchone()
    assert count >= 2


def test_a_plugin_key_admits_that_plugin_and_no_other(mesh: Mesh) -> None:
    mesh.run()
    made = mesh.cli("key", "add", "guest")
    assert made.returncode == 0, made.stderr
    environ = {**mesh.environ, "BROKER_KEY": made.stdout.strip()}
    script = "import sys\nfrom plugin_sdk import Plugin\nPlugin(sys.argv[1]).run()\n"
    other = subprocess.run(
        [sys.executable, "-c", script, "other"], env=environ, capture_output=True, text=True, timeout=20
    )
    assert other.returncode == 77
    assert "admits 'guest'" in other.stderr
    guest = subprocess.Popen([sys.executable, "-c", script, "guest"], env=environ)
    try:
        mesh.wait_for("guest")
    finally:
        guest.terminate()
        guest.wait(10)


def test_tcp_admits_known_keys_and_refuses_unknown_ones(mesh: Mesh) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mesh.environ["BROKER_BUS_TCP"] = f"tcp://127.0.0.1:{port}"
    mesh.run()
    made = mesh.cli("key", "add", "remote", "--tcp")
    assert made.returncode == 0, made.stderr
    script = 'from plugin_sdk import Plugin\nPlugin("remote").run()\n'
    environ = {**mesh.environ, "BROKER_ENDPOINT": f"tcp://127.0.0.1:{port}", "BROKER_KEY": made.stdout.strip()}
    remote = subprocess.Popen([sys.executable, "-c", script], env=environ)
    try:
        row = mesh.wait_for("remote")
        assert (row["transport"], row["proof"]) == ("tcp", "curve")
        assert (row["pid"], row["claimed_pid"]) == (None, remote.pid)
    finally:
        remote.terminate()
        remote.wait(10)
    mesh.cli("key", "remove", "remote")
    refused = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=30)
    assert refused.returncode != 0
    assert os.path.exists(mesh.home / "keys" / "client.key")


def test_no_key_command_reaches_the_operators_own_key(mesh: Mesh) -> None:
    mesh.run()
    assert mesh.cli("key", "remove", "../client").returncode == 1
    assert (mesh.home / "keys" / "client.key").exists()
    assert mesh.cli("key", "add", "operator").returncode == 1
    assert mesh.cli("status").returncode == 0


def test_publishing_on_a_reserved_subject_is_refused_to_the_publisher(mesh: Mesh) -> None:
    mesh.run()
    done = mesh.cli("pub", "$broker.fake", "1")
    assert done.returncode == 1
    assert "denied" in done.stderr


def test_a_peer_that_is_denied_again_and_again_does_not_fill_the_audit_log(mesh: Mesh) -> None:
    """SEC-5: the first denial is an entry, all others of the minute are another one with their number."""
    mesh.run()
    asyncio.run(_call_reserved(mesh.home, 500))
    assert mesh.stop() == 0
    with sqlite3.connect(mesh.home / "broker.db") as database:
        rows = database.execute("SELECT detail FROM t_audit WHERE action = 'denied' ORDER BY id").fetchall()
    assert len(rows) == 2
    assert "499 more" in rows[1][0]


async def _call_reserved(home: Path, times: int) -> None:
    async with connect(home=home, name="evil") as bus:
        for _ in range(times):
            with pytest.raises(BusError, match="denied"):
                await bus.call("$plugin.stop", {})

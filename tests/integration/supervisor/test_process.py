"""Real processes through launcher and guards: how they begin, what they write, and that nothing of them is left."""

import asyncio
import os
import select
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from broker.supervisor.discovery import Installed, read_folder
from broker.supervisor.logs import LogLimits, LogWriter
from broker.supervisor.process import Process, Surroundings
from broker.supervisor.processes import children, descendants, stat
from broker.supervisor.spawner import Exit, Spawner

PLUGINS = Path(__file__).parents[2] / "plugins"
PATIENCE = 10.0


class Bench:
    """Starts test plugins the way the supervisor does, without one."""

    def __init__(self, tmp_path: Path) -> None:
        self.around = Surroundings(tmp_path, "ipc://nowhere", tmp_path / "data", os.environ)
        self.spawner = Spawner()
        self.logs = LogWriter(tmp_path / "logs")
        self.log_dir = tmp_path / "logs"

    def start(self, plugin: str | Installed, go: bool = True) -> Process:
        installed = read_folder(PLUGINS / plugin, PLUGINS / "no-config") if isinstance(plugin, str) else plugin
        log = self.logs.log_of(installed.plugin_id)
        process = Process(installed, 1, self.around, self.spawner, log, installed.plugin_id)
        if go:
            process.go()
        return process

    def log(self, name: str) -> str:
        assert self.logs.close(PATIENCE)
        return (self.log_dir / f"{name}.log").read_text()


def run(tmp_path: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = Bench(tmp_path)
        try:
            async with asyncio.timeout(4 * PATIENCE):
                await scenario(bench)
        finally:
            await bench.spawner.close()
            bench.logs.close(PATIENCE)

    asyncio.run(whole())


async def until(condition: Callable[[], object]) -> None:
    """Waits for what no event announces, with a bound."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what /proc shows and what a plugin prints wakes nobody
            await asyncio.sleep(0.01)


async def wrote(process: Process, text: str) -> list[str]:
    await until(lambda: text in "\n".join(process.tail()))
    return process.tail()


def printed_pids(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("child ")]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def script(tmp_path: Path, text: str, *, env: str = "{}") -> Installed:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "plugin.yaml").write_text(f'name: scripted\nversion: "1"\nenv: {env}\n')
    (folder / "main.py").write_text(text)
    return read_folder(folder, tmp_path)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = set(descendants(os.getpid()))
    yield
    assert not set(descendants(os.getpid())) - before
    assert not [pid for pid in children(os.getpid()) if pid not in before], "a zombie of ours"


def test_a_program_runs_in_its_folder_with_the_environment_of_a_plugin(tmp_path: Path) -> None:
    text = "import os\nprint(os.getcwd())\nprint('\\n'.join(f'{k}={v}' for k, v in sorted(os.environ.items())))"

    async def scenario(bench: Bench) -> None:
        os.environ |= {"BROKER_DATABASE_URL": "secret", "NOTIFY_SOCKET": "/run/notify", "VISIBLE": "yes"}
        process = bench.start(script(tmp_path, text, env="{GREETING: hi}"))
        assert await process.exited == Exit(status=0)
        lines = (await asyncio.to_thread(bench.log, "scripted")).splitlines()
        said = [line.split(" ", 1)[1] for line in lines]
        assert said[0] == str(tmp_path / "scripted")
        assert {"VISIBLE=yes", "GREETING=hi", "BROKER_PLUGIN=scripted", "BROKER_GENERATION=1"} <= set(said)
        assert {f"BROKER_TOKEN={process.token}", f"BROKER_DATA_DIR={tmp_path}/data/scripted"} <= set(said)
        assert not [line for line in said if line.startswith(("BROKER_DATABASE_URL", "NOTIFY_SOCKET"))]

    environ = dict(os.environ)
    try:
        run(tmp_path, scenario)
    finally:
        os.environ.clear()
        os.environ |= environ


def test_a_program_starts_with_default_signals_its_own_session_and_no_foreign_descriptors(tmp_path: Path) -> None:
    text = """
import os, signal
odd = [s.name for s in signal.Signals if signal.getsignal(s) not in (signal.SIG_DFL, signal.default_int_handler)]
print("signals", [name for name in odd if name not in ("SIGPIPE", "SIGXFSZ")], signal.pthread_sigmask(0, []))
print("leader", os.getpid() == os.getpgrp() == os.getsid(0))
print("descriptors", sorted(os.listdir("/proc/self/fd")))
print("stdin", os.readlink("/proc/self/fd/0"))
"""

    async def scenario(bench: Bench) -> None:
        process = bench.start(script(tmp_path, text))
        await process.exited
        assert process.tail() == [
            "signals [] set()",
            "leader True",
            "descriptors ['0', '1', '2', '3']",
            "stdin /dev/null",
        ]

    run(tmp_path, scenario)


def test_the_program_waits_until_it_may_go(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("returns_at_once", go=False)
        pid = await asyncio.shield(process.spawned)
        assert process.pid == pid
        assert name_of(pid) == "plugmesh-guard"
        process.go()
        assert await process.exited == Exit(status=0)

    run(tmp_path, scenario)


def test_a_process_that_is_not_wanted_any_more_never_runs_its_program(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("exits_at_once", go=False)
        process.stop(PATIENCE)
        assert not (await process.exited).clean
        assert process.tail() == []

    run(tmp_path, scenario)


def test_the_last_lines_of_a_plugin_that_failed_are_at_hand(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("exits_at_once")
        assert str(await process.exited) == "exited with status 1"
        assert process.tail()[0] == "about to fail"
        assert process.tail()[-1] == "RuntimeError: the flux capacitor is missing"

    run(tmp_path, scenario)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("cannot_run")
        how = await process.exited
        assert str(how) == "cannot run ./no-such-program: No such file or directory"
        assert not how.clean

    run(tmp_path, scenario)


def test_a_flood_of_output_is_drained_bounded_and_counted(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.logs = LogWriter(bench.log_dir, LogLimits(file_bytes=1 << 20, backups=1))
        process = bench.start("floods_stdout")
        await wrote(process, "the flood is over")
        log = bench.logs.log_of("floods_stdout")
        assert log.written + log.dropped == (64 << 20) + len("the flood is over\n")
        assert log.dropped > 32 << 20
        process.stop(0)
        await process.exited
        assert await asyncio.to_thread(bench.logs.close, PATIENCE)
        sizes = [path.stat().st_size for path in bench.log_dir.iterdir()]
        assert len(sizes) == 2
        assert sum(sizes) < 3 << 20

    run(tmp_path, scenario)


def test_a_flood_of_output_leaves_the_event_loop_to_others(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        worst = 0.0
        process = bench.start("floods_stdout")
        while "the flood is over" not in process.tail():
            # What the loop itself worked between two turns; the clock would also show what other processes did.
            before = time.thread_time()
            await asyncio.sleep(0.001)
            worst = max(worst, time.thread_time() - before)
        assert worst < 0.25
        process.stop(0)
        await process.exited

    run(tmp_path, scenario)


def test_sigterm_ends_a_plugin_that_does_not_mind(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("never_registers")
        await wrote(process, "alive")
        process.stop(PATIENCE)
        assert str(await process.exited) == "was ended by SIGTERM"

    run(tmp_path, scenario)


def test_a_plugin_that_ignores_sigterm_is_killed_when_its_grace_is_over(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("ignores_sigterm")
        await wrote(process, "deaf")
        process.stop(0.2)
        assert str(await process.exited) == "was ended by SIGKILL"

    run(tmp_path, scenario)


@pytest.mark.parametrize(("plugin", "left"), [("leaves_children", 2), ("double_forks", 1)])
def test_what_a_plugin_leaves_behind_is_killed_before_it_counts_as_ended(
    tmp_path: Path, plugin: str, left: int
) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start(plugin)
        how = await process.exited
        assert how.status == 0
        assert (how.killed, how.alive) == (left, ())
        assert f"{left} of the processes it left behind had to be killed" in str(how)
        assert not [pid for pid in printed_pids(process.tail()) if stat(pid)]

    run(tmp_path, scenario)


def test_a_child_in_a_group_of_its_own_is_stopped_with_its_plugin(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("changes_group")
        (child,) = printed_pids(await wrote(process, "child"))
        process.stop(PATIENCE)
        assert await process.exited == Exit(signal=signal.SIGTERM)
        assert stat(child) is None

    run(tmp_path, scenario)


def test_children_that_end_politely_get_the_rest_of_the_grace(tmp_path: Path) -> None:
    text = """
import os, signal
parent_gone, held_by_parent = os.pipe()
def leave(*_):
    os.read(parent_gone, 1)
    print("child tidied up", flush=True)
    os._exit(0)
if os.fork() == 0:
    os.close(held_by_parent)
    signal.signal(signal.SIGTERM, leave)
    print("ready", flush=True)
    while True:
        signal.pause()
signal.pause()
"""

    async def scenario(bench: Bench) -> None:
        process = bench.start(script(tmp_path, text))
        await wrote(process, "ready")
        process.stop(PATIENCE)
        assert await process.exited == Exit(signal=signal.SIGTERM)
        assert process.tail()[-1] == "child tidied up"

    run(tmp_path, scenario)


def test_orphans_of_a_running_plugin_leave_no_zombies(tmp_path: Path) -> None:
    text = """
import os, signal
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
print("done", flush=True)
signal.pause()
"""

    async def scenario(bench: Bench) -> None:
        process = bench.start(script(tmp_path, text))
        await wrote(process, "done")
        guard = stat(process.pid or 0)
        assert guard
        await until(lambda: children(guard.parent) == [process.pid])
        process.stop(0)
        await process.exited

    run(tmp_path, scenario)


def test_when_a_guard_is_killed_its_plugin_and_what_it_left_are_too(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("changes_group")
        (child,) = printed_pids(await wrote(process, "child"))
        guard = stat(process.pid or 0)
        assert guard
        os.kill(guard.parent, signal.SIGKILL)
        assert str(await process.exited) == "was ended because the process that guards it died"
        await until(lambda: not _alive(process.pid or 0) and not _alive(child))

    run(tmp_path, scenario)


def parent(pid: int | None) -> int:
    assert pid is not None
    found = stat(pid)
    assert found is not None
    return int(found.parent)


def test_when_the_launcher_is_killed_plugins_run_on_and_others_can_be_started(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        first = bench.start("never_registers")
        await wrote(first, "alive")
        launcher = parent(parent(first.pid))
        os.kill(launcher, signal.SIGKILL)
        await until(lambda: launcher not in children(os.getpid()))
        second = bench.start("never_registers")
        await wrote(second, "alive")
        assert not first.exited.done()
        for process in (first, second):
            process.stop(PATIENCE)
            assert str(await process.exited) == "was ended by SIGTERM"

    run(tmp_path, scenario)


def test_closing_the_spawner_ends_what_still_runs(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        process = bench.start("ignores_sigterm")
        await wrote(process, "deaf")
        await bench.spawner.close()
        assert str(await process.exited) == "was ended with the broker"
        assert not _alive(process.pid or 0)

    run(tmp_path, scenario)


def test_kill_9_of_the_host_leaves_no_child_and_no_grandchild(tmp_path: Path) -> None:
    host = """
import asyncio, os, sys
from pathlib import Path
from tests.integration.supervisor.test_process import Bench, script, wrote

TREE = '''
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for new_session in (False, True):
    if os.fork() == 0:
        if new_session:
            os.setsid()
            if os.fork():
                os._exit(0)
        os.write(1, b"child %d\\\\n" % os.getpid())
        while True:
            signal.pause()
os.write(1, b"child %d\\\\n" % os.getpid())
while True:
    signal.pause()
'''

async def main():
    bench = Bench(Path(sys.argv[1]))
    process = bench.start(script(Path(sys.argv[1]), TREE))
    while len(process.tail()) < 3:
        await asyncio.sleep(0.01)
    print(*(line.split()[1] for line in process.tail()), flush=True)
    await process.exited

asyncio.run(main())
"""

    async def whole() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", host, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=PLUGINS.parents[1]
        )
        assert process.stdout
        async with asyncio.timeout(PATIENCE):
            pids = [int(pid) for pid in (await process.stdout.readline()).split()]
        assert len(pids) == 3
        handles = [os.pidfd_open(pid) for pid in pids]
        process.kill()
        await process.wait()
        # A pidfd becomes readable when its process has ended, zombie or not.
        for handle in handles:
            assert select.select([handle], [], [], 2.0)[0]
            os.close(handle)

    asyncio.run(whole())


def _alive(pid: int) -> bool:
    now = stat(pid)
    return now is not None and now.state not in b"ZX"

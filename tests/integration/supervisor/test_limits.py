"""Plugins over their limits, on real processes: found by what /proc says, and treated as their policy says (SEC-3)."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.daemon.limits import LimitWatch
from broker.supervisor.cgroups import Groups
from broker.supervisor.restart import RestartLimits
from tests.integration.supervisor.stage import QUICK, Stage, play, until

LOOK_SECS = 0.05
ONE_SECOND = replace(QUICK, cpu_window=1.0)
ONE_RESTART = replace(QUICK, restart=RestartLimits(shortest=0.01, longest=0.02, budget=1, slow_retry=3600.0))


class Watched:
    """The watch of a stage, and what it wrote into the audit log."""

    def __init__(self, stage: Stage) -> None:
        self.audits: list[tuple[str, ...]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.watch = LimitWatch(stage.supervisor.limiter, self._record, self._own, LOOK_SECS)

    def _record(self, actor: str, action: str, target: str, result: str, detail: str) -> None:
        self.audits.append((actor, action, target, result, detail))

    def _own(self, work: Any) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def end(self) -> None:
        """Cancels what looks, as the daemon does in the end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def looks(self) -> bool:
        """Whether it is looking."""
        return any(not task.done() for task in self._tasks)


def watched(tmp_path: Path, scenario: Callable[[Stage, Watched], Awaitable[None]], **settings: Any) -> Watched:
    """Plays a scenario with a watch over its plugins, which is told of every start as the daemon would."""
    kept: list[Watched] = []

    async def with_watch(stage: Stage) -> None:
        watch = Watched(stage)
        kept.append(watch)

        def begin_soon() -> None:
            asyncio.get_running_loop().call_soon(watch.watch.begin)

        # The process is expected just before it may register; there is no session that could tell of itself here.
        stage.mesh.on_expect = begin_soon
        try:
            await scenario(stage, watch)
        finally:
            await watch.end()

    play(tmp_path, with_watch, **settings)
    return kept[0]


def test_too_much_memory_is_reported_once_and_the_plugin_goes_on(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", peer={"takes": "memory"}, limits={"memory": "64M"})
        await stage.supervisor.start_all()
        await until(lambda: stage.view("hello").over)
        view = stage.view("hello")
        assert (view.state, view.restarts, view.exceeded) == ("running", 0, {"memory": 1})
        assert view.over[0].startswith("uses 1")
        assert view.over[0].endswith(" MiB of memory, its limit is 64 MiB")
        assert view.asked["memory"] == 64 << 20
        assert view.in_force is not None
        assert view.in_force["watched"] == "memory"

    (audit,) = watched(tmp_path, scenario).audits
    assert audit[:4] == ("broker", "over limit", "hello", "report")
    assert audit[4].startswith("memory: it uses 1")


def test_over_restart_it_is_started_again_with_that_reason_within_its_budget(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", peer={"takes": "memory"}, limits={"memory": "64M", "over": "restart"}, restart="on-failure")
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", "failed")
        assert (view.restarts, view.cause, view.exceeded) == (1, "crashes", {"memory": 2})
        summary = view.error.splitlines()[0]
        assert summary.endswith("its limit is 64 MiB (over: restart) (more than 1 restarts in 60 s)")
        assert len(stage.records.exits) == 2
        assert all(text.endswith("its limit is 64 MiB (over: restart)") for _, text, _ in stage.records.exits)

    assert [audit[3] for audit in watched(tmp_path, scenario, timing=ONE_RESTART).audits] == ["restart", "restart"]


def test_over_stop_it_stays_down_with_the_reason_until_it_is_started(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", peer={"takes": "memory"}, limits={"memory": "64M", "over": "stop"})
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", "failed")
        assert (view.restarts, view.cause, view.retry_in) == (0, "limit", None)
        assert "of memory, its limit is 64 MiB (over: stop)" in view.last_exit
        assert stage.records.status["hello"] == (3, view.error)
        stage.add("hello")
        await stage.supervisor.start("hello")
        assert stage.states() == {"hello": "running"}

    watched(tmp_path, scenario)


def test_a_plugin_that_is_deaf_to_sigterm_is_killed_for_its_excess(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", peer={"takes": "memory", "deaf": True}, limits={"memory": "64M", "over": "stop"})
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", "failed")
        assert view.last_exit.startswith("was ended by SIGKILL: it uses 1")

    watched(tmp_path, scenario)


def test_too_many_processes_are_found_and_all_of_them_are_gone_with_the_plugin(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", peer={"takes": "processes"}, limits={"processes": 10, "over": "stop"})
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", "failed")
        assert "processes and threads, its limit is 10 (over: stop)" in view.last_exit

    watched(tmp_path, scenario)


def test_a_core_that_is_kept_busy_is_found_by_the_mean_of_a_window(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("busy", peer={"takes": "cpu"}, limits={"cpu": 0.2})
        stage.add("idle", limits={"cpu": 0.2})
        await stage.supervisor.start_all()
        await until(lambda: stage.view("busy").over)
        (told,) = stage.view("busy").over
        assert told.startswith("used ")
        assert told.endswith(" s, its limit is 0.2")
        assert stage.view("idle").exceeded == {}

    watched(tmp_path, scenario, timing=ONE_SECOND)


def test_nobody_looks_while_no_plugin_with_a_limit_runs(tmp_path: Path) -> None:
    async def scenario(stage: Stage, watch: Watched) -> None:
        stage.add("free")
        stage.add("bound", limits={"memory": "1G"})
        await stage.supervisor.start("free")
        assert not watch.looks
        await stage.supervisor.start("bound")
        await until(lambda: watch.looks)
        await stage.supervisor.stop("bound")
        await until(lambda: not watch.looks)
        await stage.supervisor.start("bound")
        await until(lambda: watch.looks)

    watched(tmp_path, scenario)


@pytest.mark.parametrize("over", ["restart", "stop"])
def test_an_order_to_stop_goes_before_what_a_policy_had_begun(tmp_path: Path, over: str) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", peer={"takes": "memory", "deaf": True}, limits={"memory": "64M", "over": over})
        await stage.supervisor.start_all()
        await until(lambda: stage.view("hello").exceeded)
        await stage.supervisor.stop("hello")
        assert stage.view("hello").state == "stopped"
        assert (stage.view("hello").pid, stage.view("hello").retry_in) == (None, None)

    watched(tmp_path, scenario)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of files where the kernel's control groups would be."""
    own = tmp_path / "tree" / "service"
    own.mkdir(parents=True)
    for folder in (own.parent, own):
        for file, text in (("controllers", "cpu memory pids"), ("procs", ""), ("subtree_control", "")):
            (folder / f"cgroup.{file}").write_text(text)
    (tmp_path / "own").write_text("0::/service\n")
    return own


def groups(tree: Path) -> Groups:
    return Groups(tree.parent, tree.parents[1] / "own")


async def kill_in_its_start(stage: Stage, tree: Path) -> None:
    """Does to a plugin that is starting what the kernel does to one without memory, and takes its group away."""
    killed, group = await stage.reaches("hello", "starting"), only_group(tree)
    (group / "memory.events").write_text("oom_kill 1\n")
    os.kill(killed.pid or 0, signal.SIGKILL)
    await until(lambda: stage.view("hello").pid != killed.pid)
    shutil.rmtree(group)


def only_group(tree: Path) -> Path:
    (group,) = tree.glob("plugin-hello-*")
    return group


def test_where_groups_were_delegated_a_plugin_joins_one_with_its_limits_and_nobody_watches(
    tmp_path: Path, tree: Path
) -> None:
    async def scenario(stage: Stage, watch: Watched) -> None:
        stage.add("hello", peer={"takes": "memory"}, limits={"memory": "64M", "processes": 8})
        await stage.supervisor.start_all()
        group = only_group(tree)
        assert (group / "cgroup.procs").read_text() == "0", "it has joined by itself"
        assert (group / "memory.max").read_text() == str(64 << 20)
        shown = stage.view("hello").in_force
        assert shown == {"cgroup": str(group), "memory": 64 << 20, "processes": 8, "missing": []}
        assert not stage.supervisor.limiter.pids()

    assert watched(tmp_path, scenario, groups=groups(tree)).audits == []


@pytest.mark.parametrize(("over", "state", "cause"), [(None, "running", ""), ("stop", "failed", "limit")])
def test_what_the_kernel_killed_for_its_memory_is_told_counted_and_treated_by_policy(
    tmp_path: Path, tree: Path, over: str | None, state: str, cause: str
) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", limits={"memory": "64M", **({"over": over} if over else {})})
        await stage.supervisor.start_all()
        group = only_group(tree)
        (group / "memory.events").write_text("max 3\noom 1\noom_kill 1\n")
        os.kill(stage.view("hello").pid or 0, signal.SIGKILL)
        await until(lambda: stage.view("hello").exceeded)
        view = await stage.reaches("hello", state)
        told = "was ended by SIGKILL: the kernel killed it, as it exceeded its memory limit"
        assert (view.last_exit, view.cause, view.exceeded) == (told, cause, {"memory": 1})
        assert stage.records.kept == [("hello", "memory", "killed", told)]

    watched(tmp_path, scenario, groups=groups(tree))


@pytest.mark.parametrize(("over", "attempts", "retries"), [("stop", 1, False), ("restart", 3, True)])
def test_what_the_kernel_kills_in_its_start_is_told_counted_and_treated_by_policy_too(
    tmp_path: Path, tree: Path, over: str, attempts: int, retries: bool
) -> None:
    async def scenario(stage: Stage, __: Watched) -> None:
        limits = {"memory": "64M", "over": over}
        stage.add("hello", peer={"answers": {"start": "hang"}}, limits=limits)
        starting = asyncio.create_task(stage.supervisor.start_all())
        for _ in range(attempts):
            await kill_in_its_start(stage, tree)
        await starting
        view = stage.view("hello")
        assert (view.state, view.cause, view.exceeded) == ("failed", "limit", {"memory": attempts})
        assert (view.retry_in is not None) is retries
        assert "start: the process was ended by SIGKILL after" in view.error
        assert "the kernel killed it, as it exceeded its memory limit" in view.error
        assert [result for _, _, result, _ in stage.records.kept] == ["killed"] * attempts

    watched(tmp_path, scenario, groups=groups(tree))


def test_a_plugin_that_is_found_over_its_limit_in_its_start_is_ended_at_once(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        peer = {"takes": "memory", "early": True, "answers": {"start": "hang"}}
        stage.add("hello", peer=peer, limits={"memory": "64M", "over": "stop"})
        await stage.supervisor.start_all()
        view = stage.view("hello")
        assert (view.state, view.cause, view.retry_in) == ("failed", "limit", None)
        told = r"plugin 'hello' did not start: \w+: it uses \d+ MiB of memory, its limit is 64 MiB \(over: stop\)"
        assert re.match(told, view.error)

    watched(tmp_path, scenario)


def test_a_plugin_that_ended_after_the_kernel_had_refused_it_processes_is_told_so(tmp_path: Path, tree: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", limits={"processes": 8}, restart="never")
        await stage.supervisor.start_all()
        (only_group(tree) / "pids.events").write_text("max 3\n")
        os.kill(stage.view("hello").pid or 0, signal.SIGKILL)
        view = await stage.reaches("hello", "failed")
        told = "was ended by SIGKILL: the kernel had refused it processes and threads beyond its limit"
        assert (view.last_exit, view.cause, view.exceeded) == (told, "ended", {"processes": 1})
        assert stage.records.kept == [("hello", "processes", "refused", told)]

    watched(tmp_path, scenario, groups=groups(tree))


def test_what_the_kernel_refuses_a_plugin_that_goes_on_is_counted_and_audited_while_it_runs(
    tmp_path: Path, tree: Path
) -> None:
    async def scenario(stage: Stage, watch: Watched) -> None:
        stage.add("hello", limits={"processes": 8})
        await stage.supervisor.start_all()
        group = only_group(tree)
        (group / "pids.events").write_text("max 3\n")
        await until(lambda: stage.view("hello").exceeded == {"processes": 1})
        (group / "pids.events").write_text("max 4\n")
        await until(lambda: stage.view("hello").exceeded == {"processes": 2})
        await stage.supervisor.stop("hello")
        assert stage.records.kept == [], "it was told before"
        await until(lambda: not watch.looks)

    (audit,) = watched(tmp_path, scenario, groups=groups(tree)).audits
    text = "processes: it wanted more processes and threads than its limit of 8, which were refused"
    assert audit == ("broker", "over limit", "hello", "report", text)


@pytest.fixture
def real() -> Groups:
    """Those of the kernel, for a run of the tests that has a delegated control group to itself."""
    made = Groups()
    if made.missing:
        pytest.xfail(made.missing)
    return made


def test_on_a_delegated_tree_the_kernel_kills_what_takes_too_much_memory(tmp_path: Path, real: Groups) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("hello", peer={"takes": "memory"}, limits={"memory": "64M", "over": "stop"})
        await stage.supervisor.start_all()
        view = await stage.reaches("hello", "failed")
        assert view.last_exit == "was ended by SIGKILL: the kernel killed it, as it exceeded its memory limit"
        assert (view.cause, view.exceeded, len(stage.records.kept)) == ("limit", {"memory": 1}, 1)

    watched(tmp_path, scenario, groups=real)


def test_on_a_delegated_tree_the_kernel_keeps_processes_and_cpu_and_no_group_is_left(
    tmp_path: Path, real: Groups
) -> None:
    found: list[Path] = []

    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("many", peer={"takes": "processes"}, limits={"processes": 10}, restart="never")
        stage.add("busy", peer={"takes": "cpu"}, limits={"cpu": 0.5})
        await stage.supervisor.start_all()
        view = await stage.reaches("many", "failed")
        assert "the kernel had refused it processes and threads beyond its limit" in view.last_exit
        assert view.exceeded == {"processes": 1}
        shown = stage.view("busy").in_force or {}
        found.append(Path(shown["cgroup"]))
        await until(lambda: "\nnr_throttled 0\n" not in (found[0] / "cpu.stat").read_text())

    watched(tmp_path, scenario, groups=real)
    assert not found[0].exists()


def test_without_groups_status_says_why_the_kernel_does_not_keep_a_limit(tmp_path: Path) -> None:
    async def scenario(stage: Stage, _: Watched) -> None:
        stage.add("bound", limits={"cpu": 0.5, "processes": 30, "open_files": 99})
        stage.add("files", limits={"open_files": 99})
        await stage.supervisor.start_all()
        shown = stage.view("bound").in_force or {}
        why = f"cgroup v2: {tmp_path}/nothing is no tree of version 2"
        assert shown["missing"] == [f"cpu, processes: not kept by the kernel, only watched: {why}"]
        assert (shown["watched"], shown["open_files"]) == ("cpu, processes", 99)
        assert stage.view("files").in_force == {"open_files": 99, "missing": []}

    watched(tmp_path, scenario, groups=Groups(tmp_path / "nothing", tmp_path / "own"))

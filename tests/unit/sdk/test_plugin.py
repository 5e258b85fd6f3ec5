"""Plugins and their life: declarations, hooks, commands, figures."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import BusError, CallError, ConnectionLost, Event, Plugin
from plugin_sdk.life import assemble
from plugin_sdk.testing import Mesh
from plugin_sdk.testing.broker import MemoryLink, Origin
from plugin_sdk.testing.mesh import KEY


async def registered(mesh: Mesh, plugin: Plugin) -> None:
    """Let a plugin register, without a command so far."""
    await mesh.open()
    link = MemoryLink(mesh.broker, Origin("memory"))
    bus, _ = assemble(plugin, link, KEY, "memory")
    await bus.open()
    mesh._links[bus], mesh._plugins[plugin] = link, bus


class Shop(Plugin):
    """Every kind of declaration on methods."""

    def __init__(self) -> None:
        super().__init__("shop")
        self.steps: list[str] = []

    async def initialize(self, config: dict[str, Any]) -> None:
        if config.get("port", 1) != 1:
            raise ValueError(f"port is {config['port']}; expects 1")
        self.steps.append("initialize")

    async def start(self) -> None:
        self.steps.append("start")

    async def stop(self) -> None:
        self.steps.append("stop")

    async def cleanup(self) -> None:
        self.steps.append("cleanup")

    async def health(self) -> dict[str, Any]:
        return {"ok": False, "reason": "sold out"}

    @Plugin.service("get")
    async def get(self) -> str:
        return "from the base class"

    @Plugin.subscribe("user.*")
    @Plugin.subscribe("order.*")
    async def on_event(self, event: Event) -> None:
        self.steps.append(event.subject)


async def test_a_subclass_is_led_through_its_life_by_the_commands_of_the_broker(mesh: Mesh) -> None:
    shop, bus = Shop(), await mesh.client()
    await mesh.start(shop, {"port": 1})
    assert shop.config == {"port": 1}
    assert await bus.call("shop.get") == "from the base class"
    await bus.publish("user.login")
    await bus.publish("order.created")
    await mesh.settle()
    assert await mesh.command(shop, "health") == {"ok": False, "reason": "sold out"}
    await mesh.stop(shop)
    assert shop.steps == ["initialize", "start", "user.login", "order.created", "stop", "cleanup"]


async def test_a_method_that_overrides_a_declared_one_serves_in_its_place(mesh: Mesh) -> None:
    class Bakery(Shop):
        async def get(self) -> str:
            return "from the subclass"

    bus = await mesh.client()
    await mesh.start(Bakery())
    assert await bus.call("shop.get") == "from the subclass"


async def test_hooks_may_be_functions_plain_or_not(mesh: Mesh) -> None:
    plugin = Plugin("hello")
    steps: list[object] = []

    @plugin.on_initialize()
    def on_initialize(config: dict[str, Any]) -> None:
        steps.append(("initialize", config["a"], threading.current_thread() is threading.main_thread()))

    @plugin.on_start()
    async def on_start() -> None:
        steps.append("start")

    @plugin.on_health()
    async def on_health() -> dict[str, Any]:
        return {"ok": True, "queue": 7}

    await mesh.start(plugin, {"a": 1})
    assert steps == [("initialize", 1, False), "start"]
    assert await mesh.command(plugin, "health") == {"ok": True, "queue": 7}


async def test_a_configuration_that_is_refused_fails_the_start_with_that_very_reason(mesh: Mesh) -> None:
    with pytest.raises(CallError) as caught:
        await mesh.start(Shop(), {"port": 2})
    assert (caught.value.code, caught.value.text) == ("bad_config", "initialize: ValueError: port is 2; expects 1")
    assert [session.name for session in mesh.snapshot().sessions] == ["broker"]


async def test_a_disabled_plugin_fails_with_that_very_reason(mesh: Mesh) -> None:
    shop = Shop()
    with pytest.raises(CallError, match="disabled: plugin 'shop' is disabled by its configuration"):
        await mesh.start(shop, enabled=False)
    assert shop.steps == []


async def test_a_start_that_fails_half_way_leaves_nothing_in_force(mesh: Mesh) -> None:
    plugin = Plugin("hello")
    plugin.subscribe("a.b")(lambda event: None)
    plugin.service("get")(lambda: None)
    plugin.subscribe("$broker.up", max_pending=10**9)(lambda event: None)
    await registered(mesh, plugin)
    await mesh.command(plugin, "initialize", {"config": {}, "enabled": True})
    with pytest.raises(CallError, match="max_pending"):
        await mesh.command(plugin, "start")
    (session,) = [each for each in mesh.snapshot().sessions if each.name == "hello"]
    assert (session.subscriptions, session.services) == ((), ())


async def test_commands_may_come_twice_and_a_running_plugin_goes_on_undisturbed(mesh: Mesh) -> None:
    shop = Shop()
    await mesh.start(shop)
    assert await mesh.command(shop, "initialize", {"config": {"port": 5}, "enabled": True}) == "running"
    assert await mesh.command(shop, "start", {"some": "later argument"}) == "running"
    assert await mesh.command(shop, "stop") == "stopped"
    assert await mesh.command(shop, "stop") == "stopped"
    assert await mesh.command(shop, "cleanup") == "cleaned"
    assert await mesh.command(shop, "cleanup") == "cleaned"
    assert shop.steps == ["initialize", "start", "stop", "cleanup"]
    assert shop.config == {}


async def test_a_plugin_that_was_stopped_can_be_started_again(mesh: Mesh) -> None:
    shop, bus = Shop(), await mesh.client()
    await mesh.start(shop)
    await mesh.command(shop, "stop")
    await mesh.command(shop, "start")
    assert await bus.call("shop.get") == "from the base class"


async def test_a_start_without_initialize_is_refused(mesh: Mesh) -> None:
    shop = Shop()
    await registered(mesh, shop)
    with pytest.raises(CallError, match="bad_request: plugin 'shop' must be initialized before it can start"):
        await mesh.command(shop, "start")


async def test_commands_are_carried_out_one_after_the_other(mesh: Mesh) -> None:
    gate, order = asyncio.Event(), []

    class Slow(Plugin):
        async def start(self) -> None:
            await gate.wait()
            order.append("started")

        async def cleanup(self) -> None:
            order.append("cleaned up")

    plugin = Slow("slow")
    await registered(mesh, plugin)
    await mesh.command(plugin, "initialize")
    starting = asyncio.create_task(mesh.command(plugin, "start"))
    await mesh.settle()
    cleaning = asyncio.create_task(mesh.command(plugin, "cleanup"))
    await mesh.settle()
    gate.set()
    assert (await starting, await cleaning) == ("running", "cleaned")
    assert order == ["started", "cleaned up"]


async def test_the_cleanup_runs_although_a_handler_is_stuck(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()

    @shop.subscribe("stuck.now")
    async def stuck(event: Event) -> None:
        await asyncio.Event().wait()

    bus = await mesh.client()
    await mesh.start(shop)
    await bus.publish("stuck.now")
    await mesh.settle()
    cleaning = asyncio.create_task(mesh.command(shop, "cleanup"))
    await mesh.advance(3.1)
    assert await cleaning == "cleaned"
    assert shop.steps[-2:] == ["stop", "cleanup"]
    assert "stopping shop failed: not done after 3 s" in caplog.text


async def test_a_cleanup_that_raises_is_answered_with_its_reason(mesh: Mesh) -> None:
    class Broken(Plugin):
        async def cleanup(self) -> None:
            raise OSError("the disk is full")

    plugin = Broken("broken")
    await mesh.start(plugin)
    with pytest.raises(CallError, match="failed: OSError: the disk is full"):
        await mesh.stop(plugin)


async def test_a_declaration_that_comes_too_late_is_refused_with_the_way_out(mesh: Mesh) -> None:
    plugin = Plugin("hello")
    await mesh.start(plugin)
    with pytest.raises(RuntimeError, match=r"subscription 'a\.b' comes too late.*use plugin\.bus\.subscribe"):
        plugin.subscribe("a.b")(lambda event: None)


async def test_what_a_start_hook_declares_is_in_force(mesh: Mesh) -> None:
    plugin = Plugin("hello")

    @plugin.on_start()
    async def on_start() -> None:
        plugin.service("late")(lambda: "served")

    bus = await mesh.client()
    await mesh.start(plugin)
    assert await bus.call("hello.late") == "served"


async def test_the_figures_count_what_handlers_did(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("plugin_sdk.workers.perf_counter", lambda: now)
    plugin, gate = Plugin("shop"), asyncio.Event()

    @plugin.subscribe("a.b", concurrency=5)
    async def on_event(event: Event) -> None:
        if event.data == "bad":
            raise ValueError
        if event.data == "slow":
            await gate.wait()

    @plugin.service("get")
    async def get() -> None:
        pass

    bus = await mesh.client()
    await mesh.start(plugin)
    for data in ("good", "bad", "slow"):
        await bus.publish("a.b", data)
    await bus.call("shop.get")
    await mesh.settle()
    now = 130.0
    await bus.publish("a.b", "good")
    await mesh.settle()
    stats = await mesh.command(plugin, "stats")
    assert (stats["events_handled"], stats["events_failed"], stats["requests_handled"]) == (2, 1, 1)
    assert (stats["busy_secs"], stats["busy_in"]) == (30.0, "subscription a.b")
    gate.set()
    await mesh.settle()
    stats = plugin.stats()
    assert (stats["busy_secs"], stats["busy_in"], stats["longest_secs"]) == (0.0, "", 30.0)
    assert stats["mean_secs"] == 30.0 / 5


async def test_the_figures_of_handlers_that_have_ended_still_count(mesh: Mesh) -> None:
    plugin = Plugin("shop")

    @plugin.service("get")
    async def get() -> None:
        pass

    async def on_event(event: Event) -> None:
        if event.data == "bad":
            raise ValueError

    bus = await mesh.client()
    await mesh.start(plugin)
    for _ in range(3):
        async with plugin.bus.subscribe("a", on_event):
            await bus.publish("a", "good")
            await bus.publish("a", "bad")
            await mesh.settle()
        async with plugin.bus.subscribe("a", filter={"priority": "high"}) as events:
            await bus.publish("a", {"priority": "low"})
            await bus.publish("a", {"priority": "high"})
            assert (await anext(aiter(events))).data == {"priority": "high"}
    await bus.call("shop.get")
    await plugin.bus.withdraw("shop.get")
    stats = plugin.stats()
    assert (stats["events_handled"], stats["events_failed"], stats["events_filtered"]) == (6, 3, 3)
    assert stats["requests_handled"] == 1
    assert stats["handling_secs"] > 0


async def test_events_that_wait_inside_of_a_plugin_are_told(mesh: Mesh) -> None:
    plugin, gate = Plugin("shop"), asyncio.Event()

    @plugin.subscribe("a")
    async def on_event(event: Event) -> None:
        await gate.wait()

    bus = await mesh.client()
    await mesh.start(plugin)
    for number in range(5):
        await bus.publish("a", number)
    await mesh.settle()
    assert plugin.stats()["events_waiting"] == 4
    gate.set()
    await mesh.settle()
    assert plugin.stats()["events_waiting"] == 0


async def test_the_broker_is_told_the_figures_with_every_heartbeat(mesh: Mesh) -> None:
    plugin = Plugin("shop")

    @plugin.service("stuck")
    async def stuck() -> None:
        await asyncio.Event().wait()

    bus = await mesh.client()
    await mesh.start(plugin)
    call = asyncio.create_task(bus.call("shop.stuck", timeout=60))
    await mesh.advance(6)
    (session,) = [each for each in mesh.snapshot().sessions if each.name == "shop"]
    assert session.stats["busy_in"] == "service shop.stuck"
    call.cancel()


async def test_the_broker_learns_version_services_and_description(mesh: Mesh) -> None:
    plugin = Plugin("shop", version="2.1", description="Sells things", requires=["logger>=1.0"])
    plugin.service("get")(lambda: None)
    await mesh.start(plugin)
    router: Any = mesh.broker.router
    (session,) = [each for each in router._sessions.values() if each.name == "shop"]
    assert (session.version, session.declared) == ("2.1", ("shop.get",))
    assert session.info["description"] == "Sells things"
    assert session.info["requires"] == ["logger>=1.0"]


def test_a_plugin_that_does_not_run_says_so() -> None:
    plugin = Plugin("hello")
    assert plugin.stats() == {}
    for use in ("bus", "blocking"):
        with pytest.raises(ConnectionLost, match="plugin 'hello' is not running: call run"):
            getattr(plugin, use)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Plugin("no name"), "name 'no name' is not allowed"),
        (lambda: Plugin("hello").subscribe("a..b")(print), "pattern 'a..b' is not allowed"),
        (lambda: Plugin("hello").service("get it")(print), "subject 'get it' is not allowed"),
        (lambda: Plugin("hello").subscribe("a.b", grup="g")(print), "grup"),
        (lambda: Plugin("hello").service("get", timeout=0)(print), "timeout is 0 s"),
    ],
)
def test_mistakes_are_found_where_they_are_written(make: Any, complaint: str) -> None:
    with pytest.raises((BusError, TypeError, ValueError), match=complaint):
        make()


def test_the_data_directory_is_private_and_lies_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKER_DATA_DIR", raising=False)
    monkeypatch.setenv("BROKER_HOME", str(tmp_path))
    path = Plugin("hello").data_dir
    assert path == tmp_path / "data" / "hello"
    assert path.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("BROKER_DATA_DIR", str(tmp_path / "elsewhere"))
    assert Plugin("hello").data_dir == tmp_path / "elsewhere"


def test_services_are_named_after_the_place_that_the_broker_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PLUGIN", "audit")
    monkeypatch.setenv("BROKER_MOUNT", "users.audit")
    plugin, other = Plugin("audit"), Plugin("other")
    for each in (plugin, other):
        each.service("last")(lambda: None)
    assert plugin.service_names() == ["users.audit.last"]
    assert other.service_names() == ["other.last"], "it only inherited this environment"

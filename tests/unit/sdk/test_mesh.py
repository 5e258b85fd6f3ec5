"""The mesh in memory itself: what a plugin author relies on."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from broker.core.sessions import Origin as RealOrigin
from plugin_sdk import CallError, Event, Plugin, RegistrationError
from plugin_sdk.testing import Mesh, RouterMissing, mesh
from plugin_sdk.testing.broker import Origin


def make_hello() -> Plugin:
    plugin = Plugin("hello")

    @plugin.service("greet")
    async def greet(name: str) -> str:
        return f"{plugin.config['greeting']}, {name}!"

    @plugin.subscribe("user.login")
    async def on_login(event: Event) -> None:
        await plugin.publish("user.welcome", event.data)

    return plugin


async def test_the_example_of_the_documentation_works() -> None:
    plugin = make_hello()
    async with mesh() as m:
        bus = await m.client()
        await m.start(plugin, config={"greeting": "Hi"})
        assert await bus.call("hello.greet", "Ada") == "Hi, Ada!"
        await bus.publish("user.login", {"user_id": "1"})
        assert (await m.published.wait("user.welcome")).data == {"user_id": "1"}


def test_a_plain_function_can_test_a_plugin(mesh: Mesh) -> None:
    async def scenario() -> Any:
        await mesh.start(make_hello(), config={"greeting": "Hi"})
        return await (await mesh.client()).call("hello.greet", "Ada")

    assert mesh.run(scenario()) == "Hi, Ada!"


async def test_what_was_published_can_be_looked_at_by_pattern_and_in_order(mesh: Mesh) -> None:
    bus = await mesh.client()
    for number, subject in enumerate(["a.b", "a.c", "x.y", "a.b"]):
        await bus.publish(subject, number)
    await mesh.settle()
    assert [event.subject for event in mesh.published] == ["a.b", "a.c", "x.y", "a.b"]
    assert mesh.published.data("a.*") == [0, 1, 3]
    assert (await mesh.published.wait("a.b", count=2)).data == 3
    mesh.published.clear()
    assert len(mesh.published) == 0


async def test_an_event_that_does_not_come_fails_with_what_came_instead(mesh: Mesh) -> None:
    await (await mesh.client()).publish("a.b")
    with pytest.raises(AssertionError, match=r"0 of 1 events on 'x\.y' were published; in all: a\.b"):
        await mesh.published.wait("x.y", timeout=0.05)


async def test_deadlines_of_the_broker_come_exactly_when_the_clock_says_so(mesh: Mesh) -> None:
    bus = await mesh.client()
    call = asyncio.create_task(bus.call("nobody.there", timeout=60, wait_ready=10))
    await mesh.advance(9.99)
    assert not call.done()
    await mesh.advance(0.02)
    with pytest.raises(CallError, match="unavailable"):
        await call


async def test_an_hour_of_sleep_takes_no_time(mesh: Mesh) -> None:
    await mesh.open()
    sleeping = asyncio.create_task(asyncio.sleep(600))
    await mesh.advance(599)
    assert not sleeping.done()
    await mesh.advance(2)
    assert sleeping.done()


async def test_timers_of_plugin_and_broker_fire_in_their_order(mesh: Mesh) -> None:
    plugin = Plugin("shop")
    order: list[float] = []

    @plugin.service("slow")
    async def slow() -> None:
        await asyncio.sleep(60)

    async def tick() -> None:
        for second in (1, 2, 3):
            await asyncio.sleep(1)
            order.append(second)

    async def call(timeout: float) -> None:
        with pytest.raises(CallError, match="timeout"):
            await bus.call("shop.slow", timeout=timeout)
        order.append(timeout)

    bus = await mesh.client()
    await mesh.start(plugin)
    tasks = [asyncio.create_task(each) for each in (tick(), call(1.5), call(2.5))]
    await mesh.advance(4)
    await asyncio.gather(*tasks)
    assert order == [1, 1.5, 2, 2.5, 3]


async def test_settle_waits_for_plain_handlers_in_their_threads(mesh: Mesh) -> None:
    plugin, done = Plugin("shop"), []

    @plugin.subscribe("a.b")
    def on_event(event: Event) -> None:
        threading.Event().wait(0.05)
        done.append(event.data)

    bus = await mesh.client()
    await mesh.start(plugin)
    await bus.publish("a.b", 1)
    await mesh.settle()
    assert done == [1]


async def test_a_key_that_admits_nobody_is_refused_as_by_a_broker(mesh: Mesh) -> None:
    with pytest.raises(RegistrationError, match="bad_token"):
        await mesh.client(key="wrong")


async def test_two_plugins_of_one_name_are_refused_as_by_a_broker(mesh: Mesh) -> None:
    await mesh.start(Plugin("hello"))
    starting = asyncio.ensure_future(mesh.start(Plugin("hello")))
    await mesh.advance(5)
    with pytest.raises(RegistrationError, match="plugin 'hello' is registered already by a peer over memory"):
        await starting


async def test_plugins_that_still_run_are_stopped_at_the_end() -> None:
    steps: list[str] = []

    class Careful(Plugin):
        async def cleanup(self) -> None:
            steps.append(self.name)

    async with mesh() as m:
        await m.start(Careful("first"))
        await m.start(Careful("second"))
    assert steps == ["second", "first"]


async def test_a_cleanup_that_fails_at_the_end_is_not_hidden_but_hides_no_other_failure() -> None:
    class Broken(Plugin):
        async def cleanup(self) -> None:
            raise OSError("the disk is full")

    with pytest.raises(CallError, match="the disk is full"):
        async with mesh() as m:
            await m.start(Broken("broken"))
    with pytest.raises(ZeroDivisionError):
        async with mesh() as m:
            await m.start(Broken("broken"))
            _ = 1 / 0


async def test_each_plugin_has_a_data_directory_that_is_gone_afterwards() -> None:
    plugin = Plugin("hello")
    async with mesh() as m:
        await m.start(plugin)
        (plugin.data_dir / "file").write_text("x")
    assert not plugin._data_dir or not plugin._data_dir.exists()


def test_without_the_broker_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin_sdk.testing.broker.entry_points", lambda group: [])
    with pytest.raises(
        RouterMissing, match=r"no entry point of the group 'plugmesh\.router' is installed.*pip install"
    ):
        mesh()


def test_the_origin_looks_as_the_router_expects_it() -> None:
    fields = {name: getattr(RealOrigin("x"), name) for name in RealOrigin.__dataclass_fields__}
    assert {name: getattr(Origin("x"), name) for name in Origin.__dataclass_fields__} == fields


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("plugin_sdk", ("pytest", "plugin_sdk.testing", "broker", "concurrent.futures.thread", "importlib.metadata")),
        ("plugin_sdk.testing", ("pytest", "broker")),
    ],
)
def test_what_is_not_needed_is_not_imported(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    root = Path(__file__).parents[3]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"

"""plugin.run() in a process of its own: signals, order of the end, exit codes."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sdk.processes import BrokerProcess, PluginProcess

HEAD = """
import asyncio, threading, plugin_sdk.handshake, plugin_sdk.life
from plugin_sdk import Plugin

plugin_sdk.handshake.ATTEMPT_SECS = plugin_sdk.life.DRAIN_SECS = 0.2
plugin = Plugin("hand")

@plugin.on_start()
async def on_start():
    print("started")

@plugin.on_stop()
async def on_stop():
    print("stopped")

@plugin.on_cleanup()
async def on_cleanup():
    print("cleaned up")
"""

Start = Callable[..., PluginProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the plugin with more lines in front of `plugin.run()`; the home is that of no broker unless given."""
    started: list[PluginProcess] = []

    def run(more: str = "", broker: BrokerProcess | None = None) -> PluginProcess:
        home = broker.home if broker is not None else tmp_path / "nobody"
        started.append(PluginProcess(tmp_path, home, f"{HEAD}\n{more}\nplugin.run()\n"))
        return started[-1]

    yield run
    for process in started:
        process.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_and_cleans_up_and_ends_with_0(shared_broker: BrokerProcess, start: Start, number: int) -> None:
    plugin = start(broker=shared_broker)
    plugin.wait_for("started")
    plugin.signal(number)
    assert plugin.ended() == 0
    assert plugin.output.split() == ["started", "stopped", "cleaned", "up"]


def test_a_second_signal_ends_it_at_once(shared_broker: BrokerProcess, start: Start) -> None:
    plugin = start(
        """
@plugin.on_stop()
async def hang():
    print("hanging")
    await asyncio.Event().wait()
""",
        shared_broker,
    )
    plugin.wait_for("started")
    plugin.signal(signal.SIGTERM)
    plugin.wait_for("hanging")
    plugin.signal(signal.SIGTERM)
    assert plugin.ended() == 128 + signal.SIGTERM


def test_a_signal_while_it_registers_ends_it_without_waiting_for_the_attempts(start: Start, tmp_path: Path) -> None:
    (tmp_path / "nobody" / "keys").mkdir(parents=True)
    (tmp_path / "nobody" / "keys" / "client.key").write_text("key")
    plugin = start(
        """
import plugin_sdk.runner
plugin_sdk.handshake.ATTEMPT_SECS = 60.0
find_broker = plugin_sdk.runner.find_broker

def find(**given):
    print("registers now")
    return find_broker(**given)

plugin_sdk.runner.find_broker = find
"""
    )
    plugin.wait_for("registers now")
    plugin.signal(signal.SIGTERM)
    assert plugin.ended() == 0
    assert "started" not in plugin.output


def test_no_broker_ends_it_with_69_and_the_cause(start: Start, tmp_path: Path) -> None:
    (tmp_path / "nobody" / "keys").mkdir(parents=True)
    (tmp_path / "nobody" / "keys" / "client.key").write_text("key")
    plugin = start()
    assert plugin.ended() == 69
    assert "ERROR 'hand' could not register at ipc://" in plugin.output
    assert "3 attempts: unavailable: " in plugin.output
    assert plugin.output.count("nobody listens there") == 1
    assert "Traceback" not in plugin.output


def test_no_home_ends_it_with_69_and_the_place_that_was_searched(start: Start, tmp_path: Path) -> None:
    plugin = start()
    assert plugin.ended() == 69
    assert f"no key found at {tmp_path}/nobody/keys/plugins/hand.key" in plugin.output


def test_a_wrong_key_ends_it_with_77(broker: BrokerProcess, start: Start) -> None:
    (broker.home / "keys" / "plugins").mkdir(exist_ok=True)
    (broker.home / "keys" / "plugins" / "hand.key").write_text("made up")
    plugin = start(broker=broker)
    assert plugin.ended() == 77
    assert "attempt 1: bad_token: this token or key is unknown" in plugin.output
    assert "attempt 2" not in plugin.output


def test_a_name_that_is_taken_ends_it_with_77_and_the_process_that_has_it(
    shared_broker: BrokerProcess, start: Start
) -> None:
    first = start(broker=shared_broker)
    first.wait_for("started")
    second = start(broker=shared_broker)
    assert second.ended() == 77
    assert "3 attempts: duplicate_name: " in second.output
    assert f"process {first.pid}" in second.output


def test_a_cleanup_that_fails_ends_it_with_70_and_the_reason(shared_broker: BrokerProcess, start: Start) -> None:
    plugin = start(
        """
@plugin.on_cleanup()
async def fail():
    raise OSError("the disk is full")
""",
        shared_broker,
    )
    plugin.wait_for("started")
    plugin.signal(signal.SIGTERM)
    assert plugin.ended() == 70
    assert "cleanup failed: the disk is full" in plugin.output


def test_a_handler_that_is_stuck_in_a_thread_is_named_and_left_behind(
    shared_broker: BrokerProcess, start: Start
) -> None:
    plugin = start(
        """
@plugin.subscribe("hand.stuck")
def never_returns(event):
    print("stuck")
    threading.Event().wait()

@plugin.subscribe("hand.go")
async def go(event):
    pass

@plugin.service("poke")
async def poke():
    await plugin.publish("hand.stuck")

async def poke_itself():
    await plugin.call("hand.poke", wait_ready=5)

@plugin.on_start()
async def later():
    plugin.poking = asyncio.ensure_future(poke_itself())
""",
        shared_broker,
    )
    plugin.wait_for("stuck")
    plugin.signal(signal.SIGTERM)
    assert plugin.ended() == 70
    assert "stopping hand failed: not done after 0.2 s" in plugin.output
    assert "cleaned up" in plugin.output
    assert "leaving never_returns behind, still running in threads" in plugin.output


def test_a_level_of_logs_that_does_not_exist_is_mentioned_and_harms_nothing(
    shared_broker: BrokerProcess, start: Start
) -> None:
    plugin = start("import os\nos.environ['BROKER_PLUGIN_LOG_LEVEL'] = 'loud'", shared_broker)
    plugin.wait_for("started")
    assert "BROKER_PLUGIN_LOG_LEVEL is 'LOUD', which is no level: using INFO" in plugin.output


def test_the_end_of_the_session_for_good_is_the_end_of_the_process(broker: BrokerProcess, start: Start) -> None:
    plugin = start(broker=broker)
    plugin.wait_for("started")
    broker.kill()
    (broker.home / "keys" / "client.key").write_text("another key\n")
    broker.start()
    assert plugin.ended() == 77
    assert plugin.output.count("cleaned up") == 1
    assert "bad_token" in plugin.output


def test_a_script_without_an_event_loop_talks_to_the_mesh(shared_broker: BrokerProcess, start: Start) -> None:
    from plugin_sdk import connect_blocking

    plugin = start("@plugin.service('double')\nasync def double(n): return 2 * n", shared_broker)
    plugin.wait_for("started")
    with connect_blocking(home=shared_broker.home) as bus:
        assert bus.call("hand.double", 21, wait_ready=5) == 42
        with bus.subscribe("a.*", timeout=5) as events:
            bus.publish("a.b", {"n": 1})
            event: Any = next(events)
        assert (event.subject, event.data) == ("a.b", {"n": 1})

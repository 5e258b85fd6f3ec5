"""Traces across real processes, received by OTLP; and collectors that are dead or hang, which nobody notices."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgpack
import pytest
import zmq

from plugin_sdk import connect
from tests.bad_collectors import bad_collector
from tests.e2e.mesh import DEMO, Mesh, eventually
from tools.tracing.receiver import Receiver, Span
from tools.tracing.tree import children, render

__all__ = ["bad_collector"]

LOGIN = '{"user_id": "12345"}'
PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RELAY = """
@plugin.subscribe("first")
async def on_first(event):
    await plugin.publish("second", await plugin.call("relay.double", event.data))

@plugin.service("double")
async def double(number):
    return 2 * number
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def traced(mesh: Mesh, receiver: Receiver) -> Mesh:
    """A mesh whose processes, and commands, send their spans to the receiver."""
    mesh.environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return mesh


def start_demo(mesh: Mesh) -> None:
    mesh.run("--demo")
    for name in DEMO:
        mesh.wait_for(name)


def below(span: Span, spans: Sequence[Span]) -> dict[tuple[str, str, str], Span]:
    """The children of a span by name, service and kind."""
    return {(each.name, each.service, each.kind): each for each in children(span, spans)}


def served(span: Span) -> bool:
    return (span.name, span.service, span.kind) == ("users.get", "users", "server")


def check_login(process: Span, spans: Sequence[Span]) -> None:
    """What follows from a login is below the one span: welcome, notification, users."""
    welcome = below(process, spans)["send user.welcome", "hello", "producer"]
    notify = below(welcome, spans)["process user.welcome", "notification", "consumer"]
    assert ("route user.welcome", "plugmesh", "internal") in below(welcome, spans)
    call = below(notify, spans)["users.get", "notification", "client"]
    answers = below(call, spans)
    assert answers.keys() == {("route users.get", "plugmesh", "internal"), ("users.get", "users", "server")}
    assert answers["route users.get", "plugmesh", "internal"].attributes["plugmesh.callee"] == "users"


def test_a_login_is_one_tree_across_all_processes(traced: Mesh, receiver: Receiver) -> None:
    start_demo(traced)
    assert traced.cli("pub", "user.login", LOGIN).returncode == 0
    receiver.wait(lambda spans: any(map(served, spans)), 10)
    assert traced.stop() == 0, traced.text()
    (root,) = [span for span in receiver.spans() if span.name == "send user.login"]
    spans = [span for span in receiver.spans() if span.trace_id == root.trace_id]
    assert (root.service, root.kind, root.parent_id) == ("cli", "producer", "")
    found = below(root, spans)
    process = found["process user.login", "hello", "consumer"]
    assert process.links == [(root.trace_id, root.span_id)]
    route = found["route user.login", "plugmesh", "internal"]
    assert route.attributes["plugmesh.deliveries"] == 2
    check_login(process, spans)
    assert not [span for span in spans if span.failed]
    assert render(spans).splitlines()[0].startswith("send user.login ")


def test_a_client_that_only_knows_traceparent_joins(traced: Mesh, receiver: Receiver) -> None:
    start_demo(traced)
    publish_as_a_stranger(traced.home, f"00-{PARENT[0]}-{PARENT[1]}-01")
    receiver.wait(lambda spans: any(map(served, spans)), 10)
    assert traced.stop() == 0, traced.text()
    spans = [span for span in receiver.spans() if span.trace_id == PARENT[0]]
    roots = {(span.name, span.service): span for span in spans if span.parent_id == PARENT[1]}
    assert roots.keys() >= {("route user.login", "plugmesh"), ("process user.login", "hello")}
    check_login(roots["process user.login", "hello"], spans)


def test_a_client_in_javascript_that_only_knows_traceparent_joins(traced: Mesh, receiver: Receiver) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    start_demo(traced)
    script = [node, "tools/tracing/stranger.mjs", str(traced.home), "user.login", LOGIN]
    subprocess.run([*script, f"00-{PARENT[0]}-{PARENT[1]}-01"], check=True, timeout=20)
    receiver.wait(lambda spans: any(map(served, spans)), 10)
    assert traced.stop() == 0, traced.text()
    spans = [span for span in receiver.spans() if span.trace_id == PARENT[0]]
    roots = {(span.name, span.service): span for span in spans if span.parent_id == PARENT[1]}
    check_login(roots["process user.login", "hello"], spans)


def publish_as_a_stranger(home: Path, traceparent: str) -> None:
    """Publish a login with pyzmq and msgpack alone, by docs/PROTOCOL.md."""
    register, registered, publish = 1, 2, 12
    with zmq.Context() as context, context.socket(zmq.DEALER) as link:
        link.connect(f"ipc://{home}/run/broker.sock")
        key = (home / "keys" / "client.key").read_text().strip()
        link.send(msgpack.packb([0, [register, [1], "client", "stranger", "1.0", "", "0123456789abcdef", key]]))
        assert link.poll(5000)
        session, (kind, *_) = msgpack.unpackb(link.recv())
        assert kind == registered
        payload = [{"traceparent": traceparent}, msgpack.packb(json.loads(LOGIN))]
        link.send(msgpack.packb([session, [publish, 0, "user.login", payload]]))
        link.linger = 1000


def test_the_start_of_a_plugin_is_a_trace_down_into_its_process(traced: Mesh, receiver: Receiver) -> None:
    traced.add_plugin("small")
    traced.run()
    traced.wait_for("small")
    assert traced.cli("stop", "small").returncode == 0
    assert traced.cli("start", "small").returncode == 0
    assert traced.stop() == 0, traced.text()
    (call,) = [span for span in receiver.spans() if (span.name, span.service) == ("$broker.start", "cli")]
    spans = [span for span in receiver.spans() if span.trace_id == call.trace_id]
    served = below(call, spans)["$broker.start", "plugmesh", "server"]
    start = below(served, spans)["plugin.start", "plugmesh", "internal"]
    assert start.attributes["plugmesh.plugin"] == "small"
    attempt = below(start, spans)["attempt", "plugmesh", "internal"]
    steps = {(span.name, span.service) for span in children(attempt, spans)}
    assert steps == {(name, "plugmesh") for name in ("spawn", "register", "initialize", "start")} | {
        ("register", "small")
    }
    initialize = below(attempt, spans)["initialize", "plugmesh", "internal"]
    command = below(initialize, spans)["$plugin.initialize", "plugmesh", "client"]
    assert ("$plugin.initialize", "small", "server") in below(command, spans)


def test_a_failed_start_says_so_in_its_trace(traced: Mesh, receiver: Receiver) -> None:
    traced.add_plugin("broken", "raise SystemExit(3)")
    traced.run()
    traced.wait_for("broken", "failed", 30)
    assert traced.stop() == 0, traced.text()
    (start,) = [span for span in receiver.spans() if span.name == "plugin.start"]
    attempts = [span for span in receiver.spans() if span.name == "attempt" and span.parent_id == start.span_id]
    assert [span.attributes["plugmesh.attempt"] for span in attempts] == [1, 2, 3]
    assert all(span.failed for span in (start, *attempts))


def test_the_phases_of_a_shutdown_and_a_migration_are_spans(traced: Mesh, receiver: Receiver) -> None:
    traced.database = None
    traced.add_plugin("small")
    traced.run()
    traced.wait_for("small")
    eventually(lambda: any(span.name == "database.migrate" for span in receiver.spans()))
    assert traced.stop() == 0, traced.text()
    spans = receiver.spans()
    (stop,) = [span for span in spans if span.name == "broker.stop"]
    phases = ["finish requests", "stop plugins", "flush the database", "close the bus", "close the database"]
    assert [span.name for span in children(stop, spans)] == phases
    (plugin,) = children(children(stop, spans)[1], spans)
    assert (plugin.name, plugin.attributes["plugmesh.plugin"]) == ("plugin.stop", "small")


def test_a_reload_is_a_span(traced: Mesh, receiver: Receiver) -> None:
    traced.add_plugin("old")
    traced.run()
    # The folders have been read for the first time then.
    traced.wait_for("old")
    traced.add_plugin("new")
    assert traced.cli("reload-config").returncode == 0
    assert traced.stop() == 0, traced.text()
    spans = receiver.spans()
    (reload,) = [span for span in spans if span.name == "plugins.reload"]
    (start,) = [span for span in spans if span.name == "plugin.start" and span.attributes["plugmesh.plugin"] == "new"]
    assert start.parent_id == reload.span_id


def test_a_request_that_nobody_answers_is_seen_at_the_broker(traced: Mesh, receiver: Receiver) -> None:
    traced.run()
    assert traced.cli("call", "nobody.home").returncode == 1
    assert traced.stop() == 0, traced.text()
    (route,) = [span for span in receiver.spans() if span.name == "route nobody.home"]
    (call,) = [span for span in receiver.spans() if span.name == "nobody.home"]
    assert route.parent_id == call.span_id
    assert [span.attributes["error.type"] for span in (route, call)] == ["unavailable", "unavailable"]


async def send(home: Path, number: int, headers: dict[str, str] | None = None) -> list[str]:
    """Publish so many events that a relay answers; returns the traceparents of its answers."""
    async with connect(home=home) as bus, bus.subscribe("second") as events:
        for each in range(number):
            await bus.publish("first", each, headers=headers)
        async with asyncio.timeout(30):
            return [(await anext(events)).headers.get("traceparent", "") for _ in range(number)]


def sampled(mesh: Mesh, sampler: str, ratio: str = "") -> None:
    """Start a mesh with a relay and that sampler."""
    mesh.environ |= {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": ratio}
    mesh.add_plugin("relay", RELAY)
    mesh.run()
    mesh.wait_for("relay")


WHOLE = [
    "process first",
    "relay.double",
    "relay.double",
    "route first",
    "route relay.double",
    "route second",
    "send second",
]


def check_whole(spans: Sequence[Span], recorded: Sequence[str], more: Sequence[str] = ()) -> None:
    """Exactly these traces are there, each with all of its spans."""
    by_trace: dict[str, list[str]] = {}
    for span in spans:
        if "$" not in span.name:
            by_trace.setdefault(span.trace_id, []).append(span.name)
    # The start of the mesh has left spans, too.
    flows = {trace_id: sorted(names) for trace_id, names in by_trace.items() if "process first" in names}
    assert flows.keys() == set(recorded)
    assert all(names == sorted([*WHOLE, *more]) for names in flows.values()), flows


@pytest.mark.parametrize(
    "sampler", [("parentbased_traceidratio", "0"), ("parentbased_always_off", ""), ("always_off", "")]
)
def test_what_is_not_recorded_leaves_nothing(traced: Mesh, receiver: Receiver, sampler: tuple[str, str]) -> None:
    sampled(traced, *sampler)
    parents = asyncio.run(send(traced.home, 50))
    assert traced.cli("pub", "first", "1").returncode == 0
    assert traced.cli("call", "relay.double", "1").returncode == 0
    assert traced.stop() == 0, traced.text()
    assert not any(parent.endswith("1") for parent in parents)
    assert receiver.spans() == []


def test_what_comes_unrecorded_stays_so_and_keeps_its_name(traced: Mesh, receiver: Receiver) -> None:
    sampled(traced, "parentbased_traceidratio", "0.9")
    parent = f"00-{PARENT[0]}-{PARENT[1]}-00"
    assert set(asyncio.run(send(traced.home, 50, {"traceparent": parent}))) == {parent}
    assert traced.stop() == 0, traced.text()
    assert [span.name for span in receiver.spans() if span.trace_id == PARENT[0]] == []
    check_whole(receiver.spans(), [])


def test_a_trace_of_a_client_that_leaves_none_is_whole_or_not_there(traced: Mesh, receiver: Receiver) -> None:
    sampled(traced, "parentbased_traceidratio", "0.01")
    parents = asyncio.run(send(traced.home, 4000))
    assert traced.stop() == 0, traced.text()
    recorded = [parent.split("-")[1] for parent in parents if parent]
    # Ten sigma around forty.
    assert 1 < len(recorded) < 103
    check_whole(receiver.spans(), recorded)


def test_half_of_the_traces_across_three_processes_are_whole_and_the_others_not_there(
    traced: Mesh, receiver: Receiver
) -> None:
    sampled(traced, "parentbased_traceidratio", "0.5")
    script = "import asyncio, json\nfrom pathlib import Path\nfrom tests.e2e.test_tracing import send\n"
    script += f"print(json.dumps(asyncio.run(send(Path({str(traced.home)!r}), 64))))"
    done = subprocess.run([sys.executable, "-c", script], env=traced.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert traced.stop() == 0, traced.text()
    recorded = [parent.split("-")[1] for parent in json.loads(done.stdout) if parent]
    # Five sigma around 32.
    assert 12 <= len(recorded) <= 52
    check_whole(receiver.spans(), recorded, ["send first", "receive second"])


def test_a_bad_collector_neither_slows_the_mesh_nor_its_end(
    mesh: Mesh, other: Mesh, receiver: Receiver, bad_collector: str
) -> None:
    for each, collector in ((mesh, bad_collector), (other, receiver.endpoint)):
        each.environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_BSP_SCHEDULE_DELAY": "10"}
        each.add_plugin("relay", RELAY)
        each.run()
        each.wait_for("relay")
    # In turns, so that whatever else the machine does hits both alike.
    times = [[seconds(each, 500) for each in (mesh, other)] for _ in range(4)]
    assert sum(bad for bad, _ in times) < 2 * sum(good for _, good in times), times
    # How long an end is delayed is measured in tests/integration/tracing, without the time that a broker takes to stop.
    assert mesh.stop() == 0
    complaints = [line for line in mesh.text().splitlines() if "export" in line]
    assert len(complaints) <= 3, complaints
    assert "SIGKILL" not in mesh.text()


def seconds(mesh: Mesh, number: int) -> float:
    """How long so many events and their answers take."""
    began = time.monotonic()
    asyncio.run(send(mesh.home, number))
    return time.monotonic() - began


def test_log_lines_carry_the_trace_of_what_they_are_about(traced: Mesh, receiver: Receiver) -> None:
    body = '@plugin.subscribe("first")\nasync def on_first(event):\n    plugin.log.warning("seen")\n'
    body += '    await plugin.publish("log.shop", "merged")\n'
    traced.add_plugin("small", body)
    shutil.copytree("services/logger", traced.home / "plugins" / "logger")
    traced.run()
    for name in ("small", "logger"):
        traced.wait_for(name)
    assert traced.cli("pub", "first").returncode == 0
    log = traced.home / "logs" / "small.log"
    eventually(lambda: log.exists() and "seen" in log.read_text())
    merged = traced.home / "data" / "logger" / "mesh.log"
    eventually(lambda: merged.exists() and "merged" in merged.read_text() and "seen" in merged.read_text())
    assert traced.cli("stop", "small").returncode == 0
    os.kill(traced.plugin("logger")["pid"], signal.SIGKILL)
    eventually(lambda: "restart 1 in" in traced.text())
    assert traced.stop() == 0, traced.text()
    spans = {span.name: span for span in receiver.spans() if span.service in ("small", "cli")}
    process, send_log = spans["process first"], spans["send log.shop"]
    assert f"small: seen trace_id={process.trace_id} span_id={process.span_id}\n" in log.read_text()
    assert f"shop: merged trace_id={send_log.trace_id} span_id={send_log.span_id}\n" in merged.read_text()
    printed = f"small: WARNING small: seen trace_id={process.trace_id} span_id={process.span_id}\n"
    assert printed in merged.read_text()
    assert not [span for span in receiver.spans() if span.name == "send $log.small"]
    lines = [json.loads(line) for line in traced.text().splitlines()]
    stopping = next(line for line in lines if "finish requests (1 of 5), within" in line["message"])
    (phase,) = [span for span in receiver.spans() if span.name == "finish requests"]
    assert (stopping["trace_id"], stopping["span_id"]) == (phase.trace_id, phase.span_id)


CHATTY = """
import asyncio

async def chat():
    while True:
        await plugin.publish("chat", 1)
        await asyncio.sleep(0.001)

@plugin.on_start()
async def start():
    plugin.chatting = asyncio.create_task(chat())
"""


def test_what_is_not_recorded_because_it_would_be_too_much_is_counted(traced: Mesh, receiver: Receiver) -> None:
    began = time.monotonic()
    traced.environ |= {"BROKER_TRACES_PER_SEC": "2", "BROKER_BUS_HEARTBEAT_SECS": "0.2"}
    traced.add_plugin("chatty", CHATTY)
    sampled(traced, "parentbased_traceidratio", "0.5")
    traced.wait_for("chatty")
    asyncio.run(send(traced.home, 200))
    assert traced.status()["broker"]["counters"]["traces_withheld"] > 0
    eventually(lambda: traced.plugin("chatty")["figures"]["traces_withheld"] > 0)
    assert "not recorded that should be: beyond BROKER_TRACES_PER_SEC" in traced.cli("status", "chatty").stdout
    assert traced.stop() == 0, traced.text()
    chats = [span for span in receiver.spans() if span.name == "send chat"]
    assert len(chats) <= 2 + 2 * (time.monotonic() - began)


def test_a_bound_that_makes_no_sense_is_told_and_the_usual_one_holds(traced: Mesh) -> None:
    traced.environ |= {"BROKER_TRACES_PER_SEC": "many"}
    sampled(traced, "parentbased_traceidratio", "0.5")
    asyncio.run(send(traced.home, 10))
    assert traced.stop() == 0, traced.text()
    assert "BROKER_TRACES_PER_SEC is 'many': use a number of traces, or `inf` for no bound; 50 is used" in traced.text()


TELLING = """
import asyncio

async def tell(text):
    plugin.log.warning(text)

@plugin.subscribe("first")
async def on_first(event):
    plugin.log.warning("seen %d", event.data)
    await asyncio.gather(tell(f"told {event.data}"))
    await plugin.publish("second", event.data)

@plugin.subscribe("second")
async def on_second(event):
    plugin.log.warning("heard %d", event.data)
    await plugin.call("telling.note", event.data)

@plugin.service("note")
def note(number):
    plugin.log.warning("noted %d", number)
"""


def test_log_lines_of_what_is_not_recorded_belong_together_too(traced: Mesh, receiver: Receiver) -> None:
    traced.environ |= {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    traced.add_plugin("telling", TELLING)
    traced.run()
    traced.wait_for("telling")
    for number in ("1", "2"):
        assert traced.cli("pub", "first", number).returncode == 0
    log = traced.home / "logs" / "telling.log"
    eventually(lambda: log.exists() and all(f"noted {number}" in log.read_text() for number in (1, 2)))
    assert traced.stop() == 0, traced.text()
    found = re.findall(
        r"(seen|told|heard|noted) (\d) trace_id=([0-9a-f]{32}) span_id=[0-9a-f]{16}$", log.read_text(), re.M
    )
    assert len(found) == 8, log.read_text()
    traces = {number: {trace for _, of, trace in found if of == number} for number in ("1", "2")}
    assert [len(each) for each in traces.values()] == [1, 1]
    assert traces["1"] != traces["2"]
    assert receiver.spans() == []

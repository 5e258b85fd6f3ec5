"""However a request ends, it ends once: by a deadline, a cancel, or the death of either side."""

from collections.abc import Callable
from typing import Any

import pytest

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.deadlines import RESOLUTION
from tests.core_driver import Mesh, Peer, body, payload


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(heartbeat=1e6)


@pytest.fixture
def caller(mesh: Mesh) -> Peer:
    return mesh.client("caller")


def server(mesh: Mesh, instance: str = "", **options: Any) -> Peer:
    """A plugin that serves `server.x`."""
    peer = mesh.plugin("server", instance=instance)
    peer.serve("server.x", **options)
    return peer


def assert_nothing_pends(mesh: Mesh) -> None:
    assert len(mesh.router.requests) == 0
    for session in mesh.router.snapshot(mesh.now).sessions:
        assert (session.calls, session.serving) == (0, 0)
        assert all(service.outstanding == 0 for service in session.services)


def test_past_its_deadline_a_request_ends_as_timeout_and_the_callee_is_told_to_stop(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    ref = caller.call("server.x", timeout=2.0)
    request = callee.only(p.Request)
    mesh.advance(1.999)
    assert caller.take() == []
    mesh.advance(RESOLUTION + 0.002)
    error = caller.only(p.Error)
    assert (error.ref, error.code, error.text) == (ref, "timeout", "server did not answer 'server.x' in time")
    assert callee.only(p.Cancel).ref == request.request
    assert_nothing_pends(mesh)


def test_requests_end_in_the_order_of_their_deadlines(mesh: Mesh, caller: Peer) -> None:
    server(mesh)
    refs = {timeout: caller.call("server.x", timeout=timeout) for timeout in (3.0, 1.0, 2.0)}
    mesh.advance(10)
    assert [error.ref for error in caller.all_of(p.Error)] == [refs[1.0], refs[2.0], refs[3.0]]


def test_a_request_whose_time_is_over_is_not_handed_out_because_another_one_ended(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    for _ in range(5):
        caller.call("server.x", timeout=2.0)
    mesh.advance(2.1)
    assert [error.code for error in caller.all_of(p.Error)] == ["timeout"] * 5
    assert [type(packet) for packet in callee.take()] == [p.Request, p.Cancel]
    assert_nothing_pends(mesh)


def test_the_router_wants_to_be_called_when_the_next_deadline_passes(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    heartbeat = mesh.router.next_deadline()
    caller.call("server.x", timeout=7.0)
    caller.call("server.x", timeout=2.0)
    due = mesh.router.next_deadline()
    assert due is not None
    assert mesh.now + 2.0 <= due <= mesh.now + 2.0 + RESOLUTION + 1e-6
    mesh.router.tick(due)
    mesh.deliver()
    assert len(caller.all_of(p.Error)) == 1
    callee.reply(callee.requests()[0])
    assert mesh.router.next_deadline() == heartbeat


def test_a_tick_before_the_deadline_changes_nothing(mesh: Mesh, caller: Peer) -> None:
    server(mesh)
    caller.call("server.x", timeout=2.0)
    due = mesh.router.next_deadline()
    for _ in range(10):
        mesh.advance(0.1)
    assert caller.take() == []
    assert mesh.router.next_deadline() == due


ANSWERS: dict[str, Callable[[int], p.Packet]] = {
    "reply": lambda number: p.Reply(number, payload()),
    "chunk": lambda number: p.Chunk(number, payload()),
    "error": lambda number: p.Error(number, "failed", "no"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_comes_too_late_is_counted_and_nothing_else(
    mesh: Mesh, caller: Peer, answer: Callable[[int], p.Packet]
) -> None:
    callee = server(mesh)
    caller.call("server.x", timeout=1.0)
    number = callee.only(p.Request).request
    mesh.advance(2)
    caller.take()
    callee.take()
    callee.send(answer(number))
    assert caller.take() == []
    assert callee.take() == []
    assert mesh.counters()["late_replies"] == 1


def test_a_cancelled_request_ends_for_the_caller_and_the_callee_is_told(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    ref = caller.call("server.x")
    request = callee.only(p.Request)
    caller.send(p.Cancel(ref))
    error = caller.only(p.Error)
    assert (error.ref, error.code) == (ref, "cancelled")
    assert callee.only(p.Cancel).ref == request.request
    callee.reply(request)
    assert caller.take() == []
    assert_nothing_pends(mesh)


def test_a_request_cancelled_while_it_waits_never_reaches_an_instance(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    caller.call("server.x", b"runs")
    waits = caller.call("server.x", b"waits")
    last = caller.call("server.x", b"last")
    caller.send(p.Cancel(waits))
    assert caller.only(p.Error).ref == waits
    callee.reply(callee.requests()[0])
    (request,) = callee.requests()
    assert body(request) == b"last"
    callee.reply(request)
    assert caller.take()[-1].ref == last
    assert_nothing_pends(mesh)


def test_a_cancel_of_nothing_is_ignored(mesh: Mesh, caller: Peer) -> None:
    other = mesh.client()
    server(mesh)
    theirs = other.call("server.x")
    caller.send(p.Cancel(theirs), p.Cancel(99))
    assert caller.take() == []
    assert len(mesh.router.requests) == 1


def test_when_the_caller_is_lost_the_callee_is_told_to_stop(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    caller.call("server.x")
    caller.call("server.x")
    request = callee.only(p.Request)
    caller.vanish()
    assert callee.only(p.Cancel).ref == request.request
    callee.reply(request)
    assert mesh.counters()["late_replies"] == 1
    assert mesh.counters()["requests_caller_lost"] == 2
    assert_nothing_pends(mesh)


def test_the_room_that_a_lost_caller_leaves_goes_to_the_next_who_waits(mesh: Mesh, caller: Peer) -> None:
    callee, other = server(mesh, concurrency=1), mesh.client()
    caller.call("server.x", b"first")
    other.call("server.x", b"second")
    caller.vanish()
    assert [body(request) for request in callee.requests()] == [b"first", b"second"]


def test_when_the_callee_is_lost_the_caller_learns_that_it_may_have_run(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    ref = caller.call("server.x")
    callee.vanish()
    error = caller.only(p.Error)
    assert (error.ref, error.code) == (ref, "lost")
    assert error.text == "server went away before it answered: the connection is gone"
    assert_nothing_pends(mesh)


def test_what_waits_goes_to_the_instance_that_is_left(mesh: Mesh, caller: Peer) -> None:
    first, second = server(mesh, "a", concurrency=1), server(mesh, "b", concurrency=1)
    for number in range(4):
        caller.call("server.x", b"%d" % number)
    first.vanish()
    assert [error.code for error in caller.all_of(p.Error)] == ["lost"]
    second.reply(second.requests()[0])
    assert [body(request) for request in second.requests()] == [b"2"]


def test_what_waits_is_never_handed_to_an_instance_that_is_being_removed(mesh: Mesh, caller: Peer) -> None:
    selfish = server(mesh, concurrency=1)
    selfish.call("server.x", b"to itself")
    waiting = caller.call("server.x", b"waits")
    selfish.vanish()
    error = caller.only(p.Error)
    assert (error.ref, error.code) == (waiting, "unavailable")
    assert_nothing_pends(mesh)


def test_a_plugin_that_called_itself_and_died_leaves_nothing(mesh: Mesh) -> None:
    selfish = server(mesh)
    for _ in range(3):
        selfish.call("server.x")
    selfish.vanish()
    assert_nothing_pends(mesh)
    assert list(mesh.router.requests.services) == []


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_to_the_request_of_somebody_else_changes_nothing(
    mesh: Mesh, caller: Peer, answer: Callable[[int], p.Packet]
) -> None:
    callee, thief = server(mesh), mesh.plugin("thief")
    ref = caller.call("server.x")
    request = callee.only(p.Request)
    thief.send(answer(request.request))
    assert caller.take() == []
    assert thief.take() == []
    callee.reply(request, b"true")
    reply = caller.only(p.Reply)
    assert (reply.ref, body(reply)) == (ref, b"true")


def test_the_second_answer_to_a_request_is_a_late_one(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    caller.call("server.x")
    request = callee.only(p.Request)
    callee.reply(request)
    callee.reply(request)
    assert isinstance(caller.only(p.Reply), p.Reply)
    assert mesh.counters()["late_replies"] == 1


def test_every_outcome_is_counted_by_its_kind(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=9)
    for _ in range(3):
        caller.call("server.x", timeout=1.0)
    done, failed, _ = callee.requests()
    callee.reply(done)
    callee.send(p.Error(failed.request, "a code of its own", "no"))
    mesh.advance(2)
    caller.call("nobody.x")
    counters = {name: value for name, value in mesh.counters().items() if name.startswith("requests_")}
    assert counters == {
        "requests_reply": 1,
        "requests_failed": 1,
        "requests_timeout": 1,
        "requests_unavailable": 1,
    }


def test_while_draining_new_requests_are_refused_and_running_ones_finish(mesh: Mesh, caller: Peer) -> None:
    callee, plugin = server(mesh), mesh.managed("hello", "secret", pid=9)
    ref = plugin.call("server.x")
    mesh.router.drain()
    refused = plugin.call("server.x")
    error = plugin.only(p.Error)
    assert (error.ref, error.code) == (refused, "shutting_down")
    assert mesh.router.in_flight() == 1
    callee.reply(callee.requests()[0])
    assert plugin.only(p.Reply).ref == ref
    assert mesh.router.in_flight() == 0


def test_while_draining_a_handler_that_is_at_work_may_still_call_others(mesh: Mesh) -> None:
    users, hello = mesh.managed("users", "one", pid=7), mesh.managed("hello", "two", pid=8)
    outer = mesh.managed("outer", "three", pid=9)
    users.serve("users.get")
    hello.serve("hello.greet")
    outer.call("hello.greet")
    mesh.router.drain()
    hello.call("users.get")
    users.reply(users.requests()[0])
    _, reply = hello.take()
    assert isinstance(reply, p.Reply)
    hello.reply(mesh_request(hello))
    assert isinstance(outer.only(p.Reply), p.Reply)
    hello.call("users.get")
    assert hello.only(p.Error).code == "shutting_down"


def mesh_request(callee: Peer) -> p.Request:
    """The one request that this peer is serving, from the router's own table."""
    (pending,) = callee.session.serving.values()
    return p.Request(pending.id, pending.service, payload(), 1)


def test_while_draining_the_operator_may_still_ask_the_broker_and_nobody_else(mesh: Mesh, caller: Peer) -> None:
    broker, callee = mesh.local(), server(mesh)
    broker.serve("$broker.status")
    mesh.router.drain()
    caller.call("$broker.status")
    assert len(broker.requests()) == 1
    caller.call("server.x")
    assert caller.only(p.Error).code == "shutting_down"
    assert callee.requests() == []


def test_requests_that_are_abandoned_end_as_shutting_down_and_their_handlers_are_told(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    first, second = caller.call("server.x"), caller.call("server.x")
    mesh.router.drain()
    mesh.router.end_requests("the broker stops", mesh.now)
    mesh.deliver()
    errors = caller.all_of(p.Error)
    assert {error.ref: error.code for error in errors} == {first: "shutting_down", second: "shutting_down"}
    assert [type(packet) for packet in callee.take()] == [p.Request, p.Cancel]
    assert_nothing_pends(mesh)


def test_requests_in_flight_are_told_by_service(mesh: Mesh, caller: Peer) -> None:
    server(mesh, concurrency=1)
    caller.call("server.x")
    caller.call("server.x")
    assert mesh.router.requests.running() == {"server.x": 2}


def test_commands_of_the_broker_do_not_count_as_traffic_in_flight(mesh: Mesh, caller: Peer) -> None:
    broker, plugin = mesh.local(), server(mesh)
    broker.serve("$broker.status")
    broker.call("$plugin.health", to=plugin.number)
    caller.call("$broker.status")
    assert mesh.router.in_flight() == 0
    caller.call("server.x")
    assert mesh.router.in_flight() == 1

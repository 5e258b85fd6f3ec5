"""Requests: who answers them, in which order they wait, and when they are refused."""

from typing import Any

import pytest

from broker.core.notices import PeerMisbehaved
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import MAX_INFO_ITEMS, Limits
from tests.core_driver import Mesh, Peer, body, payload


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
def caller(mesh: Mesh) -> Peer:
    return mesh.client("caller")


def server(mesh: Mesh, instance: str = "", **options: Any) -> Peer:
    """A plugin that serves `server.x`."""
    peer = mesh.plugin("server", instance=instance)
    peer.serve("server.x", **options)
    return peer


def refusal(peer: Peer, packet: p.Packet) -> p.Error:
    peer.send(packet)
    return peer.only(p.Error)


def failure(caller: Peer, ref: int) -> str:
    """The code under which this request has ended, and it alone."""
    error = caller.only(p.Error)
    assert error.ref == ref
    return error.code


def test_a_request_reaches_the_instance_and_its_reply_the_caller(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    sent = payload(b"question", {"traceparent": "00-1-2-01"})
    caller.send(p.Call(9, "server.x", sent, 1500, {"stream": False, "new": 1}))
    request = callee.only(p.Request)
    assert (request.service, request.timeout_ms, request.options) == ("server.x", 1500, {"stream": False, "new": 1})
    assert bytes(request.payload) == bytes(sent)
    callee.send(p.Reply(request.request, payload(b"answer")))
    reply = caller.only(p.Reply)
    assert (reply.ref, body(reply)) == (9, b"answer")
    assert len(mesh.router.requests) == 0


def test_an_error_of_the_callee_reaches_the_caller_with_its_details(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    ref = caller.call("server.x")
    callee.send(p.Error(callee.requests()[0].request, "no_such_user", "there is no user 7", {"id": 7}))
    assert caller.only(p.Error) == p.Error(ref, "no_such_user", "there is no user 7", {"id": 7})


def test_a_plugin_may_call_its_own_service(mesh: Mesh) -> None:
    peer = server(mesh)
    ref = peer.call("server.x")
    peer.reply(peer.requests()[0])
    assert peer.only(p.Reply).ref == ref


def test_two_callers_may_use_the_same_ref(mesh: Mesh) -> None:
    callee, callers = server(mesh), [mesh.client(), mesh.client()]
    for number, peer in enumerate(callers):
        peer.send(p.Call(1, "server.x", payload(b"%d" % number), 1000))
    for request in reversed(callee.requests()):
        callee.reply(request, body(request))
    assert [body(peer.only(p.Reply)) for peer in callers] == [b"0", b"1"]


def test_a_service_of_nobody_is_unavailable_at_once(mesh: Mesh, caller: Peer) -> None:
    ref = caller.call("server.x")
    error = caller.only(p.Error)
    assert (error.ref, error.code, error.text) == (ref, "unavailable", "no plugin serves 'server.x'")


def test_a_withdrawn_service_takes_no_new_request_and_may_still_answer_old_ones(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    ref = caller.call("server.x")
    callee.withdraw("server.x")
    assert failure(caller, caller.call("server.x")) == "unavailable"
    callee.reply(callee.requests()[0])
    assert caller.only(p.Reply).ref == ref


def test_what_still_runs_counts_when_a_withdrawn_service_is_offered_again(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    caller.call("server.x")
    (running,) = callee.requests()
    callee.withdraw("server.x")
    callee.serve("server.x", concurrency=1)
    caller.call("server.x")
    assert callee.requests() == []
    callee.reply(running)
    assert len(callee.requests()) == 1


def test_services_withdrawn_with_nothing_running_are_forgotten(mesh: Mesh, caller: Peer) -> None:
    callee = mesh.plugin("server")
    for number in range(100):
        callee.serve(f"server.{number}")
        caller.call(f"server.{number}")
        callee.reply(callee.requests()[0])
        callee.withdraw(f"server.{number}")
    assert not callee.session.withdrawn


def test_the_least_busy_instance_is_chosen(mesh: Mesh, caller: Peer) -> None:
    first, second, third = (server(mesh, instance) for instance in "abc")
    for _ in range(6):
        caller.call("server.x")
    assert [len(peer.inbox) for peer in (first, second, third)] == [2, 2, 2]
    second.reply(second.requests()[0])
    caller.call("server.x")
    assert len(second.requests()) == 1


def test_among_equally_busy_instances_the_least_used_is_chosen(mesh: Mesh, caller: Peer) -> None:
    instances = [server(mesh, instance) for instance in "abc"]
    for _ in range(9):
        caller.call("server.x")
        for peer in instances:
            for request in peer.requests():
                peer.reply(request)
    served = {view.instance: view.services[0].served for view in mesh.router.snapshot(mesh.now).sessions[1:]}
    assert served == {"a": 3, "b": 3, "c": 3}


def test_an_instance_gets_no_more_than_its_limit_and_the_rest_waits_in_order(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=2)
    for number in range(5):
        caller.call("server.x", b"%d" % number)
    requests = callee.requests()
    assert [body(request) for request in requests] == [b"0", b"1"]
    callee.reply(requests[1])
    callee.reply(requests[0])
    assert [body(request) for request in callee.requests()] == [b"2", b"3"]


def test_a_new_instance_takes_over_what_waits(mesh: Mesh, caller: Peer) -> None:
    server(mesh, "a", concurrency=1)
    for number in range(3):
        caller.call("server.x", b"%d" % number)
    second = mesh.plugin("server", instance="b")
    second.send(p.Serve(1, "server.x", {"concurrency": 1}))
    ok, request = second.take()
    assert ok == p.Ok(1)
    assert body(request) == b"1"


def test_the_time_left_is_what_the_callee_is_told_after_waiting(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    caller.call("server.x", timeout=5.0)
    caller.call("server.x", timeout=5.0)
    first = callee.only(p.Request)
    mesh.advance(1.5)
    callee.reply(first)
    assert callee.only(p.Request).timeout_ms == 3500


def test_a_request_that_waits_for_room_in_vain_ends_with_its_deadline(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    caller.call("server.x", timeout=60.0)
    ref = caller.call("server.x", timeout=1.0)
    mesh.advance(0.99)
    assert caller.take() == []
    mesh.advance(0.02)
    error = caller.only(p.Error)
    assert (error.ref, error.code, error.text) == (ref, "timeout", "no instance of 'server.x' had room in time")
    callee.reply(callee.requests()[0])
    assert callee.take() == []


def test_a_queue_that_is_full_answers_busy() -> None:
    mesh = Mesh(Limits(queued_requests=3))
    caller, callee = mesh.client(), server(mesh, concurrency=1)
    for _ in range(4):
        caller.call("server.x")
    assert failure(caller, caller.call("server.x")) == "busy"
    assert len(callee.requests()) == 1


def test_what_waits_for_one_caller_is_bounded_in_bytes() -> None:
    mesh = Mesh(Limits(backlog_bytes=10_000))
    caller, other, callee = mesh.client(), mesh.client(), server(mesh, concurrency=1)
    for _ in range(4):
        caller.call("server.x", b"x" * 4_000)
    assert failure(caller, caller.call("server.x", b"x" * 4_000)) == "busy"
    other.call("server.x", b"x" * 4_000)
    assert other.take() == []
    for _ in range(5):
        callee.reply(callee.requests()[0])
    assert len(caller.all_of(p.Reply)) == 4
    assert len(other.all_of(p.Reply)) == 1
    for _ in range(4):
        caller.call("server.x", b"x" * 4_000)
    assert caller.take() == []


def test_the_bytes_of_requests_that_ended_while_they_waited_are_free_again() -> None:
    mesh = Mesh(Limits(backlog_bytes=10_000))
    caller = mesh.client()
    server(mesh, concurrency=1)
    caller.call("server.x", timeout=1000)
    for _ in range(5):
        refs = [caller.call("server.x", b"x" * 4_000, timeout=1.0) for _ in range(3)]
        assert caller.take() == []
        caller.send(p.Cancel(refs[0]))
        mesh.advance(2)
        assert len(caller.all_of(p.Error)) == 3


def test_wait_ready_waits_for_an_instance_and_gets_its_answer(mesh: Mesh, caller: Peer) -> None:
    ref = caller.call("server.x", timeout=5.0, wait_ready_ms=1000)
    mesh.advance(0.5)
    assert caller.take() == []
    callee = mesh.plugin("server")
    callee.send(p.Serve(1, "server.x"))
    _, request = callee.take()
    assert request.timeout_ms == 4500
    mesh.advance(1.0)
    callee.reply(request)
    assert caller.only(p.Reply).ref == ref


def test_wait_ready_in_vain_ends_as_unavailable_when_that_time_is_over(mesh: Mesh, caller: Peer) -> None:
    ref = caller.call("server.x", timeout=5.0, wait_ready_ms=1000)
    mesh.advance(0.99)
    assert caller.take() == []
    mesh.advance(0.03)
    assert failure(caller, ref) == "unavailable"
    assert list(mesh.router.requests.services) == []


def test_wait_ready_is_no_longer_than_the_deadline(mesh: Mesh, caller: Peer) -> None:
    ref = caller.call("server.x", timeout=1.0, wait_ready_ms=60_000)
    mesh.advance(1.02)
    assert failure(caller, ref) == "unavailable"


def test_once_there_is_an_instance_only_the_deadline_counts(mesh: Mesh, caller: Peer) -> None:
    server(mesh, concurrency=1)
    caller.call("server.x", timeout=60.0)
    ref = caller.call("server.x", timeout=3.0, wait_ready_ms=1000)
    mesh.advance(2.0)
    assert caller.take() == []
    mesh.advance(1.02)
    assert failure(caller, ref) == "timeout"


def test_what_waits_without_wait_ready_ends_when_the_last_instance_goes(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh, concurrency=1)
    running = caller.call("server.x")
    waiting = caller.call("server.x")
    patient = caller.call("server.x", wait_ready_ms=3000)
    callee.vanish()
    ended = {error.ref: error.code for error in caller.all_of(p.Error)}
    assert ended == {running: "lost", waiting: "unavailable"}
    again = server(mesh)
    assert again.is_registered()
    assert len(caller.session.calls) == 1
    assert patient in caller.session.calls


def test_a_ref_in_use_is_refused_and_the_running_request_still_ends_once(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    caller.send(p.Call(5, "server.x", payload(), 1000))
    error = refusal(caller, p.Call(5, "server.x", payload(), 1000))
    # An ERROR under ref 5 would end the request that is running.
    assert (error.ref, error.code) == (0, "bad_packet")
    assert "request 5" in error.text
    callee.reply(callee.requests()[0])
    assert caller.only(p.Reply).ref == 5
    caller.send(p.Call(5, "server.x", payload(), 1000))
    assert len(callee.requests()) == 1


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (p.Call(0, "server.x", payload(), 1000), "bad_packet"),
        (p.Call(1, "server.x", payload(), 0), "bad_packet"),
        (p.Call(1, "server.x", payload(), 24 * 3600 * 1000 + 1), "bad_packet"),
        (p.Call(1, "server.x", payload(), 1000, {"wait_ready_ms": -1}), "bad_packet"),
        (p.Call(1, "server.x", payload(), 1000, {"wait_ready_ms": "1"}), "bad_packet"),
        (p.Call(1, "server.x", payload(), 1000, {str(n): n for n in range(MAX_INFO_ITEMS)}), "bad_packet"),
        (p.Call(1, "server.*", payload(), 1000), "bad_subject"),
        (p.Call(1, "", payload(), 1000), "bad_subject"),
        (p.Call(1, "server.x", payload(), 1000, {"to": 12345}), "unavailable"),
        (p.Call(1, "server.x", payload(), 1000, {"to": "server"}), "unavailable"),
        (p.Serve(1, "client.x"), "denied"),
        (p.Withdraw(1, "server.x"), "bad_packet"),
    ],
)
def test_a_packet_with_a_value_out_of_range_is_refused_and_changes_nothing(
    mesh: Mesh, packet: p.Call | p.Serve | p.Withdraw, code: str
) -> None:
    callee, client = server(mesh), mesh.client()
    error = refusal(client, packet)
    assert (error.ref, error.code) == (packet.ref, code)
    assert callee.take() == []
    assert len(mesh.router.requests) == 0


@pytest.mark.parametrize(
    ("service", "options", "code"),
    [
        ("server.x", {}, "bad_packet"),
        ("server", {}, "denied"),
        ("serverx.y", {}, "denied"),
        ("other.x", {}, "denied"),
        ("$broker.status", {}, "denied"),
        ("server..x", {}, "bad_subject"),
        ("server.*", {}, "bad_subject"),
        ("server.y", {"concurrency": 0}, "bad_packet"),
        ("server.y", {"concurrency": True}, "bad_packet"),
        ("server.y", {"concurrency": 1.5}, "bad_packet"),
    ],
)
def test_a_service_that_may_not_be_offered_is_refused(
    mesh: Mesh, service: str, options: dict[str, Any], code: str
) -> None:
    callee = server(mesh)
    error = refusal(callee, p.Serve(77, service, options))
    assert (error.ref, error.code) == (77, code)
    assert list(callee.session.instances) == ["server.x"]


def test_the_broker_may_offer_reserved_services_and_only_the_operator_may_call_them(mesh: Mesh) -> None:
    broker, operator = mesh.local(), mesh.client()
    plugin = mesh.managed("hello", "secret", pid=9)
    broker.serve("$broker.status")
    error = refusal(plugin, p.Call(1, "$broker.status", payload(), 1000))
    assert (error.code, error.text) == ("denied", "calling '$broker.status' needs the operator key")
    assert len(mesh.notices(PeerMisbehaved)) == 1
    ref = operator.call("$broker.status")
    broker.reply(broker.requests()[0])
    assert operator.only(p.Reply).ref == ref


def test_life_cycle_commands_are_for_the_broker_alone(mesh: Mesh) -> None:
    broker, operator, plugin = mesh.local(), mesh.client(), mesh.plugin("hello")
    command = p.Call(1, "$plugin.stop", payload(), 1000, {"to": plugin.number})
    error = refusal(operator, command)
    assert (error.code, error.text) == ("denied", "calling '$plugin.stop' is for the broker only")
    broker.send(command)
    plugin.reply(plugin.requests()[0], b"stopped")
    assert body(broker.only(p.Reply)) == b"stopped"


def test_an_addressed_request_goes_to_that_session_and_to_no_other(mesh: Mesh) -> None:
    operator = mesh.client()
    first, second = server(mesh, "a"), server(mesh, "b")
    for _ in range(3):
        operator.call("server.x", to=second.number)
    assert (len(first.requests()), len(second.requests())) == (0, 3)
    assert [view.outstanding for view in mesh.router.snapshot(0).sessions[2].services] == [3]


def test_a_plugin_may_not_address_a_session(mesh: Mesh) -> None:
    plugin, callee = mesh.managed("hello", "secret", pid=9), server(mesh)
    error = refusal(plugin, p.Call(1, "server.x", payload(), 1000, {"to": callee.number}))
    assert error.code == "unavailable"


def test_a_service_that_asks_for_it_is_told_who_calls(mesh: Mesh) -> None:
    callee, plugin = server(mesh, caller=True), mesh.managed("hello", "secret", pid=9)
    plugin.call("server.x", caller={"name": "somebody else"})
    options = callee.only(p.Request).options
    assert options is not None
    assert options["caller"] == {"name": "hello", "session": plugin.number, "pid": 9, "role": "plugin"}


def test_a_service_that_does_not_ask_is_told_no_invented_caller(mesh: Mesh, caller: Peer) -> None:
    callee = server(mesh)
    caller.call("server.x", caller={"name": "operator"}, other=1)
    assert callee.only(p.Request).options == {"other": 1}

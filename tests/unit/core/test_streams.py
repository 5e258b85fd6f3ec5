"""Streamed replies: chunks in order, at the pace of the caller."""

import pytest

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, body, payload

FIRST = 4


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(Limits(chunk_credit=FIRST))


@pytest.fixture
def caller(mesh: Mesh) -> Peer:
    return mesh.client("caller")


@pytest.fixture
def callee(mesh: Mesh) -> Peer:
    peer = mesh.plugin("server")
    peer.serve("server.lines")
    return peer


def begin(caller: Peer, callee: Peer) -> tuple[int, p.Request]:
    ref = caller.call("server.lines", stream=True)
    return ref, callee.only(p.Request)


def stream(callee: Peer, request: p.Request, numbers: range) -> None:
    for number in numbers:
        callee.send(p.Chunk(request.request, payload(b"%d" % number)))


def test_chunks_arrive_in_order_and_the_reply_ends_the_stream(caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    assert request.options == {"stream": True}
    stream(callee, request, range(FIRST))
    callee.reply(request, b"end")
    *chunks, reply = caller.take()
    assert [(chunk.ref, body(chunk)) for chunk in chunks] == [(ref, b"%d" % number) for number in range(FIRST)]
    assert (reply.ref, body(reply)) == (ref, b"end")


def test_a_callee_that_keeps_to_its_credit_may_stream_for_ever(caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    stream(callee, request, range(FIRST))
    for round_ in range(1, 50):
        caller.grant(FIRST, stream=ref)
        assert callee.only(p.Credit) == p.Credit(request.request, FIRST)
        stream(callee, request, range(round_ * FIRST, (round_ + 1) * FIRST))
    assert [int(body(chunk)) for chunk in caller.all_of(p.Chunk)] == list(range(50 * FIRST))


def test_a_callee_that_exceeds_its_credit_ends_the_request_and_keeps_its_session(caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    stream(callee, request, range(FIRST + 2))
    *chunks, error = caller.take()
    assert len(chunks) == FIRST
    assert (error.ref, error.code) == (ref, "limit")
    assert "more chunks than its credit" in error.text
    assert callee.only(p.Cancel).ref == request.request
    assert callee.is_registered()


def test_a_chunk_where_none_was_asked_for_ends_the_request(caller: Peer, callee: Peer) -> None:
    ref = caller.call("server.lines")
    stream(callee, callee.requests()[0], range(1))
    error = caller.only(p.Error)
    assert (error.ref, error.code) == (ref, "limit")


def test_a_caller_cannot_make_the_broker_hold_an_endless_stream(caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    for _ in range(3):
        caller.grant(2**63 - 1, stream=ref)
    granted = sum(packet.amount for packet in callee.all_of(p.Credit))
    assert granted == 3 * FIRST
    stream(callee, request, range(4 * FIRST))
    assert len(caller.all_of(p.Chunk)) == 4 * FIRST


def test_credit_for_a_request_that_has_ended_is_ignored(caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    callee.reply(request)
    caller.take()
    caller.grant(5, stream=ref)
    assert callee.take() == []
    assert caller.take() == []


def test_a_stream_that_fails_half_way_ends_with_its_error(caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    stream(callee, request, range(2))
    callee.send(p.Error(request.request, "failed", "the disk is full"))
    assert [type(packet) for packet in caller.inbox] == [p.Chunk, p.Chunk, p.Error]
    assert caller.take()[-1].ref == ref


def test_a_stream_whose_caller_cancels_is_cancelled_at_the_callee(mesh: Mesh, caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    stream(callee, request, range(1))
    caller.send(p.Cancel(ref))
    assert callee.only(p.Cancel).ref == request.request
    stream(callee, request, range(1, 2))
    assert [type(packet) for packet in caller.take()] == [p.Chunk, p.Error]
    assert mesh.counters()["late_replies"] == 1


def test_a_stream_whose_callee_dies_ends_as_lost(caller: Peer, callee: Peer) -> None:
    ref, request = begin(caller, callee)
    stream(callee, request, range(2))
    callee.vanish()
    error = caller.take()[-1]
    assert (error.ref, error.code) == (ref, "lost")

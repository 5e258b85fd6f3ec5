"""No bytes from any peer end the router, harm another peer, or leave something behind."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode, encode_frame, encode_payload, join_frame
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, body
from tests.unit.wire.strategies import msgpack_values
from tests.unit.wire.strategies import packets as wild_packets

LIMITS = Limits(
    event_credit=2_000, publish_credit=2_000, backlog_bytes=500, chunk_credit=2, queued_requests=2, retained_bytes=300
)

# Few numbers and names, so that packets often meet what earlier ones have made.
refs = st.integers(0, 4)
amounts = st.sampled_from((0, 1, 100, 2_000, 2**63 - 1))
subjects = st.sampled_from(("a", "a.b", "evil.x", "other.x", "calm.x", "$a", "a b", ""))
patterns = st.sampled_from(("a", "a.*", ">", "*.b", "$a", "$a.>", "a.>.b", "*"))
payloads = st.builds(encode_payload, st.binary(max_size=200)).map(Raw)
options = st.fixed_dictionaries(
    {},
    optional={
        "overflow": st.sampled_from(("block", "drop_oldest", "drop_newest", "disconnect", "explode", None)),
        "max_pending": st.sampled_from((1, 2, 0, -1, "2", 2**63)),
        "last": st.booleans(),
        "concurrency": st.sampled_from((1, 2, 0, True)),
        "caller": st.booleans(),
        "stream": st.booleans(),
        "wait_ready_ms": st.sampled_from((0, 1, 50, -1, 2**63 - 1, None)),
        "to": st.sampled_from((0, -1, 2**64 - 1, "x", None)),
    },
)
tame_packets = st.one_of(
    st.builds(p.Subscribe, refs, patterns, st.none() | st.sampled_from(("g", "", "a b")), options),
    st.builds(p.Unsubscribe, refs, refs),
    st.builds(p.Publish, st.integers(0, 3), subjects, payloads),
    st.builds(p.Credit, refs, amounts),
    st.builds(p.Serve, refs, subjects, options),
    st.builds(p.Withdraw, refs, subjects),
    st.builds(p.Call, refs, subjects, payloads, st.sampled_from((0, 1, 50, 2**63 - 1)), st.none() | options),
    st.builds(p.Reply, refs, payloads),
    st.builds(p.Chunk, refs, payloads),
    st.builds(p.Error, refs, st.sampled_from(("failed", "x")), st.just("text")),
    st.builds(p.Cancel, refs),
    st.builds(p.Ping, refs),
)
packets = st.one_of(tame_packets, tame_packets, tame_packets, wild_packets, st.just(p.Goodbye("done")))
frames = st.one_of(
    st.lists(packets.map(encode), max_size=6),
    st.lists(msgpack_values.map(msgspec.msgpack.encode), max_size=3),
    st.binary(max_size=40),
)
steps = st.lists(st.tuples(st.sampled_from(("evil", "other")), frames, st.sampled_from((0.0, 0.0, 0.03, 6.0))))


def play(mesh: Mesh, peer: Peer, frame: list[bytes] | bytes, elapsed: float) -> None:
    raw = frame if isinstance(frame, bytes) else join_frame(encode(peer.number), frame, len(frame))
    peer.send_raw(raw)
    mesh.advance(elapsed)
    if not peer.is_registered():
        peer.ask(name="evil" if peer.origin.pid % 2 else "other", nonce=str(mesh.now))


@settings(max_examples=250, deadline=None)
@given(steps)
def test_nothing_that_two_peers_say_harms_a_third(script: list[tuple[str, list[bytes] | bytes, float]]) -> None:
    mesh = Mesh(LIMITS)
    evil, other, calm = mesh.plugin("evil"), mesh.plugin("other"), mesh.plugin("calm")
    watcher = mesh.client()
    calm.serve("calm.y")
    watcher.subscribe("quiet.*")
    for name, frame, elapsed in script:
        play(mesh, evil if name == "evil" else other, frame, elapsed)
    calm.publish("quiet.a", b"still here")
    assert b"still here" in watcher.bodies()
    calm.take()
    ref = watcher.call("calm.y", b"works")
    (request,) = calm.requests()
    calm.reply(request, body(request))
    (reply,) = watcher.all_of(p.Reply)
    assert (reply.ref, body(reply)) == (ref, b"works")
    leave_and_check(mesh)


def leave_and_check(mesh: Mesh) -> None:
    """When all have gone nothing of them is left."""
    for peer in mesh.peers.values():
        peer.vanish()
    router = mesh.router
    assert len(router.requests) == 0
    assert list(router.requests.services) == []
    assert router.events._tree._root.is_empty()
    assert not router.events._indebted
    assert router.snapshot(mesh.now).sessions == ()
    mesh.advance(25 * 3600)
    assert router.next_deadline() is None


@given(
    st.binary(max_size=60)
    | msgpack_values.map(msgspec.msgpack.encode)
    | st.lists(wild_packets).map(lambda each: encode_frame(0, each))
)
def test_nothing_that_a_stranger_says_ends_the_router(frame: bytes) -> None:
    mesh = Mesh()
    stranger = mesh.connect()
    stranger.send_raw(frame)
    assert [type(packet) for packet in stranger.take()] == [p.Refused]
    assert stranger.register().is_registered()

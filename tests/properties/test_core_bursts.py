"""How publishers pack their events into frames changes nothing for anybody."""

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, payload

LIMITS = Limits(event_credit=2_000, publish_credit=1_000, backlog_bytes=800, frame_bytes=100_000)
COUNTS = ("events_dropped", "retained_evicted")

# Mostly one subject, so that runs of it come out, interrupted now and then.
subjects = st.sampled_from(("a", "a", "a", "a", "a", "a.b", "$a", "a b"))
events = st.tuples(subjects, st.sampled_from((0, 0, 0, p.RETAIN)), st.sampled_from((0, 0, 0, 100)))
readers = st.tuples(
    st.sampled_from(("a", "a", ">", "a.>", "none")),
    st.sampled_from((None, None, "g")),
    st.sampled_from(("block", "block", "drop_oldest", "drop_newest")),  # "disconnect" acts at the end of a frame
    st.integers(1, 3),
    st.sampled_from((0, 300, 1_100, 2_000, 8_000)),
)


def play(
    wanted: list[tuple[str, str | None, str, int, int]], frames: list[list[tuple[str, int, int]]], *, together: bool
) -> list[object]:
    """Everything that anybody can see of these events, sent frame by frame or one by one."""
    mesh = Mesh(LIMITS)
    peers, publisher = [mesh.client(f"reader{number}") for number in range(3)], mesh.client("publisher")
    for number, (pattern, group, policy, bound, credit) in enumerate(wanted):
        peer = peers[number % 3]
        peer.subscribe(pattern, group, overflow=policy, max_pending=bound)
        peer.spend_credit(credit)
    sent = 0
    for frame in frames:
        packets = []
        for subject, flags, size in frame:
            packets.append(p.Publish(flags, subject, payload(b"%d " % sent + b"x" * size)))
            sent += 1
        for each in [packets] if together else [[packet] for packet in packets]:
            publisher.send(*each)
    outbox = publisher.session.outbox
    seen: list[object] = [outbox.allowance + outbox.consumed, publisher.session.published]
    seen += [mesh.counters().get(name) for name in COUNTS]
    seen.append([(error.code, error.text) for error in publisher.all_of(p.Error)])
    seen += [what_it_saw(peer) for peer in peers]
    late = mesh.client("late")
    late.subscribe(">", last=True)
    return [*seen, late.events()]


def what_it_saw(peer: Peer) -> object:
    if not peer.is_registered():
        return "ended"
    lanes = [(key, len(lane.waiting), lane.size) for key, lane in peer.session.lanes.items()]
    return peer.events(), peer.session.outbox.credit, lanes


@settings(max_examples=200, deadline=None)
@given(st.lists(readers, max_size=5), st.lists(st.lists(events, min_size=1, max_size=12), min_size=1, max_size=3))
def test_events_packed_into_frames_are_treated_as_events_sent_one_by_one(
    wanted: list[tuple[str, str | None, str, int, int]], frames: list[list[tuple[str, int, int]]]
) -> None:
    assert play(wanted, frames, together=True) == play(wanted, frames, together=False)

"""An outbox gathers packets into frames and loses or reorders none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, encode, encode_payload
from plugin_sdk.wire.limits import DEFAULT_LIMITS, FRAME_TARGET
from plugin_sdk.wire.outbox import Outbox

SESSION = 77


def outbox() -> tuple[Outbox, list[Outbox]]:
    listing: list[Outbox] = []
    return Outbox(b"peer", SESSION, 1000, 1000, listing), listing


def taken(box: Outbox) -> list[bytes]:
    """Every frame that is to be sent."""
    frames = []
    while (frame := box.take()) is not None:
        frames.append(frame)
    return frames


def test_packets_of_one_turn_leave_as_one_frame_in_order() -> None:
    box, _ = outbox()
    for number in range(3):
        box.add(encode(p.Ping(number)))
    (frame,) = taken(box)
    assert decode_frame(frame) == (SESSION, [p.Ping(0), p.Ping(1), p.Ping(2)])


def test_an_empty_outbox_has_nothing_to_say() -> None:
    box, listing = outbox()
    box.seal()
    assert box.take() is None
    assert listing == []


def test_an_outbox_asks_to_be_flushed_once_until_somebody_did() -> None:
    box, listing = outbox()
    box.add(encode(p.Ping(1)))
    box.add(encode(p.Ping(2)))
    assert listing == [box]
    listing.clear()
    box.listed = False
    box.add(encode(p.Ping(3)))
    assert listing == [box]


def test_a_frame_that_could_not_be_sent_stays_the_first() -> None:
    box, _ = outbox()
    box.add(encode(p.Ping(1)))
    frame = box.take()
    assert frame is not None
    box.add(encode(p.Ping(2)))
    box.put_back(frame)
    assert [decode_frame(each)[1] for each in taken(box)] == [[p.Ping(1)], [p.Ping(2)]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, FRAME_TARGET), max_size=30))
def test_frames_are_closed_at_their_target_and_hold_every_packet_once(sizes: list[int]) -> None:
    box, _ = outbox()
    sent = [p.Goodbye(f"c{number}", "t" * min(size, 16_384)) for number, size in enumerate(sizes)]
    for packet in sent:
        box.add(encode(packet))
    waiting = box.pending_bytes
    frames = taken(box)
    assert [packet for frame in frames for packet in decode_frame(frame)[1]] == sent
    assert all(len(frame) <= FRAME_TARGET + 16 for frame in frames)
    assert sum(map(len, frames)) - 16 * len(frames) <= waiting <= sum(map(len, frames))
    assert box.pending_bytes == 0


def test_a_packet_just_under_the_limit_of_a_frame_does_not_share_its_frame() -> None:
    box, _ = outbox()
    body = bytes(DEFAULT_LIMITS.frame_bytes - 64)
    box.add(encode(p.Ping(1)))
    box.add(encode(p.Reply(2, Raw(encode_payload(body)))))
    box.add(encode(p.Ping(3)))
    assert [len(decode_frame(frame)[1]) for frame in taken(box)] == [1, 1, 1]

"""Frames: what one side packs the other unpacks, and no bytes whatever lead to anything but packets or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import (
    array_head,
    decode_frame,
    decode_payload,
    encode,
    encode_frame,
    encode_payload,
    event_head,
    join_frame,
    publish_head,
)
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.limits import Limits
from tests import second
from tests.second import as_message, pack, unpack
from tests.unit.wire.strategies import headers, msgpack_values, packets, session_numbers

quick = settings(max_examples=200, deadline=None)
DEEP = b"\x91" * 100_000 + b"\x01"


def refusal(data: bytes, decode: Callable[[bytes], object] = decode_frame) -> str | None:
    """The code that refuses some bytes, or None when they are what they should be."""
    try:
        decode(data)
    except RemoteProtocolError as error:
        return error.code
    return None


@quick
@given(session_numbers, st.lists(packets, max_size=8))
def test_what_is_packed_into_a_frame_comes_out_again(session: int, sent: list[Any]) -> None:
    assert decode_frame(encode_frame(session, sent)) == (session, sent)


@quick
@given(session_numbers, st.lists(packets, max_size=8))
def test_a_second_implementation_packs_the_same_bytes(session: int, sent: list[Any]) -> None:
    assert encode_frame(session, sent) == pack([session, *map(as_message, sent)])


@quick
@given(session_numbers, st.lists(packets, max_size=8))
def test_a_second_implementation_reads_the_same_values(session: int, sent: list[Any]) -> None:
    assert unpack(encode_frame(session, sent)) == [session, *map(as_message, sent)]


@quick
@given(packets, st.lists(msgpack_values, min_size=1, max_size=3))
def test_elements_that_a_later_version_added_are_ignored(packet: Any, added: list[Any]) -> None:
    assert decode_frame(pack([1, as_message(packet) + added])) == (1, [packet])


@quick
@given(st.binary(max_size=200))
def test_any_bytes_are_packets_or_a_refusal(frame: bytes) -> None:
    assert refusal(frame) in (None, "bad_frame", "limit")


@quick
@given(st.lists(packets, min_size=1, max_size=4), st.data())
def test_a_frame_with_a_flipped_bit_is_packets_or_a_refusal(sent: list[Any], data: st.DataObject) -> None:
    frame = bytearray(encode_frame(1, sent))
    position = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[position // 8] ^= 1 << position % 8
    assert refusal(bytes(frame)) in (None, "bad_frame", "limit")


@quick
@given(st.lists(packets, min_size=1, max_size=4), st.data())
def test_a_frame_that_was_cut_is_refused(sent: list[Any], data: st.DataObject) -> None:
    frame = encode_frame(1, sent)
    assert refusal(frame[: data.draw(st.integers(0, len(frame) - 1))]) == "bad_frame"


@quick
@given(st.lists(msgpack_values, max_size=6))
@example([1, [99, 1], [4]])
@example([1, ["a"]])
def test_any_well_formed_array_is_packets_or_a_refusal(values: list[Any]) -> None:
    assert refusal(pack(values)) in (None, "bad_frame")


@pytest.mark.parametrize(
    "packet",
    [
        b"\x94\x0c\x00\xa1a" + DEEP,
        b"\x95\x1a\x01\xa1a\xa1b" + DEEP,
        b"\x93\x04\x01\x81\xa1a" + DEEP,
        b"\x92\x63" + DEEP,
    ],
    ids=["payload", "details", "stats", "unknown kind"],
)
def test_nesting_without_end_is_refused_and_not_recursed_into(packet: bytes) -> None:
    assert refusal(b"\x92\x01" + packet) == "bad_frame"


@pytest.mark.parametrize("depth", range(900, 1010, 2))
def test_what_was_decoded_can_be_encoded_from_a_deeper_stack(depth: int) -> None:
    """Values nested to just under the recursion limit used to decode and then overflow the stack of the sender."""
    call = b"\x96\x16\x01\xa1a\x92\x80\xc4\x00\x64\x81\xa1a" + b"\x91" * depth + b"\x01"
    assert refusal(b"\x92\x01" + call) == "bad_frame"


def test_values_of_maps_nest_four_levels_and_no_more() -> None:
    def ping(depth: int) -> bytes:
        return b"\x92\x01\x93\x04\x01\x81\xa1a" + b"\x91" * depth + b"\x01"

    assert decode_frame(ping(4)) == (1, [p.Ping(1, {"a": [[[[1]]]]})])
    assert refusal(ping(5)) == "bad_frame"


def test_an_unknown_kind_among_known_ones_is_told_and_the_rest_is_kept() -> None:
    frame = pack([7, [4, 1], [99, "later", {"x": 1}], [7, 2]])
    assert decode_frame(frame) == (7, [p.Ping(1), p.Unknown(99), p.Ok(2)])


def test_a_malformed_packet_beside_an_unknown_kind_is_still_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="packet of kind 4"):
        decode_frame(pack([7, [99], [4]]))


def test_a_frame_over_the_size_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(RemoteProtocolError, match="too_large: frame of 11 bytes, the limit is 10"):
        decode_frame(b"\xc1" * 11, Limits(frame_bytes=10))


@pytest.mark.parametrize("head", [b"\xdc\x00\x05", b"\xdd\x00\x00\x00\x05", b"\xdd\xff\xff\xff\xff"])
def test_a_frame_over_the_packet_limit_is_refused_by_its_head_alone(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="limit: "):
        decode_frame(head + b"\xc1", Limits(packets_per_frame=3))


@pytest.mark.parametrize("length", [0, 1, 15, 16, 65_535, 65_536])
def test_array_heads_are_those_of_msgpack(length: int) -> None:
    assert array_head(length) == second.array_head(length)


@quick
@given(headers, st.one_of(st.binary(max_size=300), st.sampled_from([bytes(255), bytes(256), bytes(65_536)])))
def test_a_payload_comes_out_as_it_went_in(given_headers: dict[str, str], body: bytes) -> None:
    payload = encode_payload(body, given_headers)
    assert payload == pack([given_headers, body])
    assert decode_payload(payload) == decode_payload(Raw(payload)) == (given_headers, body)


@quick
@given(st.one_of(st.binary(max_size=60), msgpack_values.map(pack)))
@example(b"\x92\x80" + DEEP)
@example(b"\x92\x81\xa1\xff\xa0\xc4\x00")
def test_any_bytes_are_a_payload_or_a_refusal(payload: bytes) -> None:
    assert refusal(payload, decode_payload) in (None, "bad_packet")


@quick
@given(st.integers(0, 2**63 - 1), st.text(max_size=20), st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_ready_made_heads_equal_whole_packets(flags: int, subject: str, subscriptions: list[int]) -> None:
    payload = encode_payload(b"x" * 40)
    assert publish_head(subject, flags) + payload == encode(p.Publish(flags, subject, Raw(payload)))
    assert event_head(subscriptions, subject) + payload == encode(p.Event(subscriptions, subject, Raw(payload)))


def test_a_packet_may_be_joined_from_several_pieces() -> None:
    payload = encode_payload(b"x")
    frame = join_frame(encode(9), [publish_head("a.b"), Raw(payload), encode(p.Ping(1))], 2)
    assert decode_frame(frame) == (9, [p.Publish(0, "a.b", Raw(payload)), p.Ping(1)])


def test_every_kind_has_its_own_number() -> None:
    tags = [kind.__struct_config__.tag for kind in p.Packet.__args__]
    assert len(set(tags)) == len(tags)


def test_numbers_take_the_same_bytes_in_both_implementations() -> None:
    """Both codecs must take the other's output for numbers at the edges of every integer format."""
    for bits in (0, 5, 7, 8, 15, 16, 31, 32, 62, 63):
        for number in {0, 2**bits - 1, min(2**bits, 2**63 - 1)}:
            assert encode(p.Ping(number)) == pack([4, number, {}])
            assert decode_frame(pack([number])) == (number, [])

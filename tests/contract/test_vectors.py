"""The test vectors hold for both implementations of msgpack that are here: our codec and the msgpack package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from plugin_sdk.wire.codec import decode_frame, decode_payload, encode, encode_frame, encode_payload
from plugin_sdk.wire.errors import RemoteProtocolError
from plugin_sdk.wire.packets import Packet, Unknown
from plugin_sdk.wire.subjects import BadSubject, check_name, check_pattern, check_subject, matches
from tests.second import as_message, pack, unpack

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "plugin_sdk" / "wire" / "vectors.json").read_text())
LAYOUTS = {layout["kind"]: layout for layout in VECTORS["packets"]}
GRAMMARS = {"subjects": check_subject, "patterns": check_pattern, "names": check_name}


def value(shown: Any) -> Any:
    """What a value of the vectors stands for."""
    if isinstance(shown, list):
        return [value(each) for each in shown]
    if isinstance(shown, dict):
        if shown.keys() == {"$bin"}:
            return bytes.fromhex(shown["$bin"])
        if shown.keys() == {"$int"}:
            return int(shown["$int"])
        return {key: value(inner) for key, inner in shown.items()}
    return shown


def data(vector: dict[str, Any]) -> bytes:
    """The bytes of a vector."""
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    return b"".join(bytes.fromhex(piece) * times for piece, times in vector["parts"])


def expected(message: list[Any]) -> list[Any]:
    """A packet with the defaults of what it leaves out and without what it has too much; unknown kinds as they are."""
    layout = LAYOUTS.get(message[0])
    if layout is None:
        return [message[0]]
    defaults = [value(layout["defaults"].get(name)) for name in layout["elements"]]
    given = message[1 : len(defaults) + 1]
    return [message[0], *given, *defaults[len(given) :]]


def told(packet: Any) -> list[Any]:
    """A decoded packet in the same form."""
    return [packet.kind] if isinstance(packet, Unknown) else as_message(packet)


def named(*path: str) -> pytest.MarkDecorator:
    """A parametrization over the vectors at a place of the file, each under its own name."""
    vectors: Any = VECTORS
    for step in path:
        vectors = vectors[step]
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


@named("frames", "good")
def test_a_good_frame_decodes_to_its_meaning(vector: dict[str, Any]) -> None:
    session, packets = decode_frame(data(vector))
    if "count" in vector:
        assert len(packets) == vector["count"]
        return
    number, *messages = value(vector["frame"])
    assert session == number
    assert [told(packet) for packet in packets] == [expected(message) for message in messages]


@named("frames", "good")
def test_a_good_frame_means_the_same_to_the_second_implementation(vector: dict[str, Any]) -> None:
    read = unpack(data(vector))
    assert len(read) - 1 == vector["count"] if "count" in vector else read == value(vector["frame"])


@named("frames", "good")
def test_a_good_frame_encodes_so_that_the_second_implementation_reads_the_same(vector: dict[str, Any]) -> None:
    session, decoded = decode_frame(data(vector))
    packets = [packet for packet in decoded if not isinstance(packet, Unknown)]
    frame = encode_frame(session, packets)
    assert unpack(frame) == [session, *map(as_message, packets)]


@named("frames", "bad")
def test_a_bad_frame_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        decode_frame(data(vector))
    assert refusal.value.code == vector["code"]


@named("payloads", "good")
def test_a_good_payload_decodes_to_headers_and_body(vector: dict[str, Any]) -> None:
    payload = data(vector)
    assert decode_payload(payload) == (vector["headers"], bytes.fromhex(vector["body"]))
    assert unpack(payload) == list(decode_payload(payload))


@named("payloads", "good")
def test_a_payload_encodes_to_the_same_bytes_in_both_implementations(vector: dict[str, Any]) -> None:
    headers, body = vector["headers"], bytes.fromhex(vector["body"])
    assert encode_payload(body, headers) == pack([headers, body])


@named("payloads", "bad")
def test_a_bad_payload_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        decode_payload(data(vector))
    assert refusal.value.code == vector["code"]


@pytest.mark.parametrize(("what", "text"), [(what, text) for what in GRAMMARS for text in VECTORS[what]["good"]])
def test_the_grammar_admits(what: str, text: str) -> None:
    assert GRAMMARS[what](text) == text


@pytest.mark.parametrize(("what", "text"), [(what, text) for what in GRAMMARS for text in VECTORS[what]["bad"]])
def test_the_grammar_refuses(what: str, text: str) -> None:
    with pytest.raises(BadSubject) as refusal:
        GRAMMARS[what](text)
    assert refusal.value.code == ("bad_name" if what == "names" else "bad_subject")


@pytest.mark.parametrize(("pattern", "subject", "covered"), VECTORS["matches"])
def test_a_pattern_covers_what_the_vectors_say(pattern: str, subject: str, covered: bool) -> None:
    assert matches(check_pattern(pattern), check_subject(subject)) is covered


@pytest.mark.parametrize("line", VECTORS["dialogue"], ids=lambda line: f"{line['from']} to {line['to']}")
def test_the_dialogue_is_made_of_frames(line: dict[str, Any]) -> None:
    assert unpack(data(line)) == value(line["frame"])


def test_the_layouts_are_those_of_the_packets() -> None:
    assert len(LAYOUTS) == len(Packet.__args__)
    for kind in Packet.__args__:
        layout = LAYOUTS[kind.__struct_config__.tag]
        assert (layout["name"], layout["elements"]) == (kind.__name__.upper(), list(kind.__struct_fields__))


def test_every_kind_is_in_the_good_and_in_the_bad_frames() -> None:
    for layout in LAYOUTS.values():
        for verdict in ("good", "bad"):
            assert any(vector["name"].startswith(f"{layout['name']} ") for vector in VECTORS["frames"][verdict])


def test_the_names_of_vectors_are_unique() -> None:
    for verdict in ("good", "bad"):
        names = [vector["name"] for vector in VECTORS["frames"][verdict]]
        assert len(set(names)) == len(names)


def test_a_raw_payload_passes_through_untouched() -> None:
    """The broker sends payloads on as they came, in the longer formats of msgpack too."""
    payload = b"\x92\xdf\x00\x00\x00\x00\xc6\x00\x00\x00\x01x"
    _, (event,) = decode_frame(b"\x92\x01\x94\x0c\x00\xa1a" + payload)
    assert bytes(event.payload) == payload
    assert encode(event).endswith(payload)
    assert isinstance(event.payload, Raw)

"""docs/PROTOCOL.md says what the code does: every number, layout, code and transition in its tables."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from broker.core.events import IDS_PER_EVENT
from broker.core.flow import MAX_LANES
from broker.core.notices import SlowConsumer
from broker.core.slow import CALM_SECS, LOOK_SECS, SHOWN, SLOW_SECS, TOLD_PER_LOOK
from broker.core.snapshot import SlowView
from broker.supervisor.discovery import Installed
from broker.supervisor.errors import FINAL_CODES
from broker.supervisor.process import Surroundings
from broker.telemetry.routing import FRAME_HEAD_BYTES, HEAD_BYTES
from plugin_sdk.handshake import ATTEMPT_SECS
from plugin_sdk.registration import ATTEMPTS, FIRST_WAIT
from plugin_sdk.wire import limits
from plugin_sdk.wire.deadlines import RESOLUTION
from plugin_sdk.wire.errors import REGISTRY
from plugin_sdk.wire.packets import Packet, Unknown
from plugin_sdk.wire.session import SAYS, Side, State
from tests.core_driver import Mesh

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "PROTOCOL.md").read_text()
JSON = msgspec.json.Encoder(order="deterministic")


def table(*columns: str) -> list[list[str]]:
    """The rows of the one table with this head, code marks removed."""
    head = f"| {' | '.join(columns)} |\n"
    assert TEXT.count(head) == 1, f"{TEXT.count(head)} tables have the head {head.strip()}"
    rows = TEXT.partition(head)[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows]


def layout(kind: Any) -> str:
    """A packet's layout as the text writes it."""
    elements = [str(kind.__struct_config__.tag)]
    for field in msgspec.structs.fields(kind):
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        shown = JSON.encode(default).decode().replace("null", "nil")
        elements.append(field.name if field.required else f"{field.name}={shown}")
    return f"[{', '.join(elements)}]"


def test_every_limit_is_told_and_right() -> None:
    constants = {
        name: getattr(limits, name)
        for name in vars(limits)
        if name.startswith("MAX_") or name in ("EVENT_OVERHEAD", "FRAME_TARGET")
    }
    told = {name: int(value) for name, value, _ in table("limit", "value", "what it bounds; what happens beyond it")}
    assert told == {**constants, **asdict(limits.DEFAULT_LIMITS)}


def test_the_array_limits_of_registration_are_told() -> None:
    assert "A versions array in REGISTER has at most 16 entries." in TEXT
    for name, most in (("Versions", 16), ("Services", limits.DEFAULT_LIMITS.services)):
        alias = getattr(sys.modules["plugin_sdk.wire.packets"], name)
        assert alias.__metadata__[0].max_length == most


def test_the_bounds_that_the_core_has_beside_the_limits_are_told() -> None:
    text = " ".join(TEXT.split())
    assert f"more than {MAX_LANES} different pairs of `overflow` and `max_pending`" in text
    assert f"at most {limits.MAX_INFO_ITEMS - 1} entries" in text
    assert f"named in the array, {IDS_PER_EVENT} at most" in text
    assert f"deadlines are kept to {RESOLUTION * 1000:g} ms" in text


def test_the_limits_that_registered_gives_are_told() -> None:
    told = re.search(r"in its map `limits` what holds for (.*?), and in `credit`", " ".join(TEXT.split()))
    assert told is not None
    peer = Mesh().connect()
    assert set(re.findall(r"`(\w+)`", told[1])) == set(peer.ask().limits)


def test_the_times_of_a_registration_are_told() -> None:
    text = " ".join(TEXT.split())
    assert f"Try up to {ATTEMPTS} times: wait up to {ATTEMPT_SECS:g} s for an answer" in text
    assert f"then {FIRST_WAIT:g} s, then {2 * FIRST_WAIT:g} s, with random jitter" in text


def test_the_event_of_a_slow_consumer_is_told() -> None:
    keys = {name for row in table("key", "type", "meaning") for name in re.findall(r"\w+", row[0])}
    assert keys == {"state", *SlowView.__dataclass_fields__}
    assert SlowConsumer.__doc__ is not None
    text = " ".join(TEXT.split())
    assert f"has not caught up for {SLOW_SECS:g} s" in text
    assert f"the subscriber has kept up for {CALM_SECS:g} s" in text
    assert text.count(f"the first {SHOWN}") == 2
    assert f"At most {TOLD_PER_LOOK / LOOK_SECS:g} of them are published a second" in text


def test_the_environment_of_a_managed_plugin_is_told() -> None:
    around = Surroundings(Path("/home"), "ipc://socket", Path("/data"), {})
    given = around.program(Installed("hello", Path("/plugins/hello")), 1, "token", "hello").env
    told = {name for (name, _) in table("variable", "meaning")}
    assert told == {name for name in given if name.startswith("BROKER_")}


def test_the_codes_that_end_a_start_are_told() -> None:
    told = re.search(r"is tried again unless the code is (.*?)\.", " ".join(TEXT.split()))
    assert told is not None
    assert set(re.findall(r"`(\w+)`", told[1])) == FINAL_CODES


def test_every_packet_is_told_with_its_layout() -> None:
    told = [(int(kind), name, shape) for kind, name, shape in table("kind", "packet", "layout")]
    kinds = sorted(Packet.__args__, key=lambda kind: kind.__struct_config__.tag)
    assert told == [(kind.__struct_config__.tag, kind.__name__.upper(), layout(kind)) for kind in kinds]


def test_the_sections_use_the_same_layouts() -> None:
    layouts = {
        shape.partition(",")[0]: re.sub("=[^,\\]]*]?", "", shape[:-1]) + "]"
        for _, _, shape in table("kind", "packet", "layout")
    }
    shown = re.findall(r"^    [A-Z]+ +(\[\d+, .*\])$", TEXT, re.MULTILINE)
    assert {each.partition(",")[0] for each in shown} == layouts.keys() - {"[7"}
    assert all(each == layouts[each.partition(",")[0]] for each in shown)


def test_every_error_code_is_told_with_its_retry_flag_and_meaning() -> None:
    told = [(code, retry, meaning) for code, retry, meaning in table("code", "retry", "meaning")]
    assert told == [(row.code, "yes" if row.retry else "no", row.meaning) for row in REGISTRY.values()]


def test_the_refusals_of_a_registration_carry_the_retry_flag_of_their_code() -> None:
    for codes, retry, _ in table("REFUSED code", "retry", "why"):
        for code in re.findall(r"[a-z_]+", codes):
            assert REGISTRY[code].retry == (retry == "true"), code


def test_the_outcomes_of_a_request_are_codes_of_the_registry() -> None:
    codes = {code for row in table("code", "when")[:-1] for code in re.findall(r"[a-z_]+", row[0])}
    assert codes
    assert codes <= REGISTRY.keys()


def test_every_transition_of_a_session_is_told() -> None:
    speakers = [(side, state) for side in (Side.PEER, Side.BROKER) for state in State if state is not State.CLOSED]
    rows = table("packet", *(f"{side.value} in {state.value}" for side, state in speakers))
    told = {name: cells for name, *cells in rows}
    for kind in (*Packet.__args__, Unknown):
        following = [SAYS[side][state].get(kind) for side, state in speakers]
        name = "unknown kinds" if kind is Unknown else kind.__name__.upper()
        assert told.pop(name) == [state.value if state else "–" for state in following], name
    assert not told
    assert SAYS[Side.PEER][State.CLOSED] == SAYS[Side.BROKER][State.CLOSED] == {}


def test_the_protocol_version_is_the_one_of_the_title() -> None:
    assert TEXT.startswith(f"# The plugmesh wire protocol, version {limits.PROTOCOL_VERSION}\n")
    assert limits.SUPPORTED_VERSIONS == (limits.PROTOCOL_VERSION,)


def test_dialogue_and_vectors_are_what_the_code_gives() -> None:
    command = [sys.executable, "-m", "tools.protocol", "--check"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_where_the_broker_looks_for_what_is_recorded_is_told() -> None:
    assert f"in the first {HEAD_BYTES:,} bytes of its payload" in TEXT
    assert f"in the first {FRAME_HEAD_BYTES:,} bytes of a frame" in TEXT

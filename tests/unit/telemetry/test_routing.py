"""Which events and requests a router that leaves traces finds to be recorded, in whatever frame they come."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker.telemetry.routing import TracedRouter
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.limits import MAX_SUBJECT_BYTES, Limits
from tests.core_driver import OPERATOR_KEY, Mesh, Peer, payload

RECORDED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LONGEST = ".".join(["s" * 63] * 4) + "s"
Found = Callable[[], list[str]]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """The names of the spans that have ended since the last look."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)

    def look() -> list[str]:
        names = [span.name for span in exporter.get_finished_spans()]
        exporter.clear()
        return names

    return look


@pytest.fixture
def mesh(found: Found) -> Mesh:
    made = Mesh()
    made.router = TracedRouter(None, limits=Limits())
    made.router.admission.set_keys({OPERATOR_KEY: "operator"})
    return made


def sender(mesh: Mesh, traces: Any) -> Peer:
    """A client that says this of its traces."""
    return mesh.client(info={"traces": traces})


def event(subject: str, body: bytes = b"", **headers: str) -> p.Publish:
    return p.Publish(0, subject, payload(body, headers))


def test_the_longest_that_stands_before_the_first_payload_leaves_room_for_its_headers(mesh: Mesh, found: Found) -> None:
    first, number = sender(mesh, "first"), 2**63 - 1
    others = {"other": "x" * 930}
    assert len(LONGEST) == MAX_SUBJECT_BYTES
    recorded = payload(b"", {**others, "traceparent": RECORDED})
    more = [event("other")] * 300
    first.send(p.Publish(p.RETAIN, LONGEST, recorded), *more)
    first.send(p.Call(number, LONGEST, recorded, 1000), *more)
    assert found() == [f"route {LONGEST}"] * 2


def test_who_begins_a_frame_with_what_is_recorded_is_searched_there_only(mesh: Mesh, found: Found) -> None:
    bare, recorded = event("bare", bytes(2000)), event("recorded", traceparent=RECORDED)
    sender(mesh, "first").send(bare, recorded)
    assert found() == []
    for traces in (None, True):
        sender(mesh, traces).send(bare, recorded)
        assert found() == ["route recorded"]


def test_all_that_are_recorded_are_found_whatever_else_names_a_trace(mesh: Mesh, found: Found) -> None:
    unrecorded = event("unrecorded", traceparent=f"{RECORDED[:-2]}00")
    named = event("named", f"traceparent {RECORDED} traceparent".encode())
    twice = event("twice", b"traceparent", traceparent=RECORDED)
    once = event("once", traceparent=RECORDED)
    client = sender(mesh, True)
    client.send(named, unrecorded, twice, unrecorded, once, named)
    assert found() == ["route twice", "route once"]
    client.send(once, event("bare"), once, once)
    assert found() == ["route once"] * 3

"""Which traces are recorded is decided once, at the ratio that was asked for, in a form that everybody understands."""

import asyncio
import math
from itertools import islice

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from plugin_sdk import heads as module
from plugin_sdk.heads import RATE, Hand, Heads
from plugin_sdk.spans import in_hand, unrecorded
from plugin_sdk.wire.conventions import read_traceparent


def freeze(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stop the clock; what is put into the list is the time."""
    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_at_1_every_trace_is_recorded_and_at_0_none() -> None:
    everything, nothing = Heads(1.0), Heads(0.0)
    assert all(everything.begin() for _ in range(2000))
    assert everything.among(2000) == list(range(2000))
    assert not any(nothing.begin() for _ in range(2000))
    assert nothing.among(2000) == []


def test_about_as_many_are_recorded_as_the_ratio_says() -> None:
    heads = Heads(0.25, rate=math.inf)
    # Ten sigma.
    assert abs(sum(heads.begin() for _ in range(10_000)) - 2500) < 440
    assert abs(sum(len(heads.among(7)) for _ in range(10_000)) - 17_500) < 1150


def test_a_gate_ends_before_each_trace_that_is_drawn() -> None:
    heads, passed = Heads(0.25), 0
    for _ in range(10_000):
        passed += sum(1 for _ in heads.gate(lambda _: None))
    # Ten sigma around three for each.
    assert abs(passed - 30_000) < 3500
    assert list(Heads(1.0).gate(lambda _: None)) == []


@pytest.mark.parametrize("ratio", [0.0, 5e-324, 1e-300, 1e-19, 1e-12])
def test_a_gate_of_a_tiny_ratio_is_as_good_as_endless(ratio: float) -> None:
    heads = Heads(ratio)
    assert list(islice(heads.gate(lambda _: None), 1000)) == [None] * 1000
    assert not any(heads.begin() for _ in range(1000))


def test_each_place_of_a_frame_is_as_likely_as_the_others() -> None:
    heads, places = Heads(0.5, rate=math.inf), [0] * 4
    for _ in range(10_000):
        for at in heads.among(4):
            places[at] += 1
    assert all(abs(times - 5000) < 500 for times in places)


def test_a_flood_begins_no_more_traces_than_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = freeze(monkeypatch)
    heads = Heads(0.5)
    assert sum(heads.begin() for _ in range(10_000)) == RATE
    now[0] = 0.5
    assert len(heads.among(10_000)) == RATE // 2
    now[0] = 60.0
    assert sum(heads.begin() for _ in range(10_000)) == RATE


def test_what_was_not_begun_because_of_the_rate_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    bounded, unbounded = Heads(0.5, rate=10), Heads(0.5, rate=math.inf)
    assert sum(bounded.begin() for _ in range(1000)) == 10
    # Ten sigma around 490.
    assert 330 < bounded.withheld < 650
    assert len(bounded.among(1000)) == 0
    assert 660 < bounded.withheld < 1300
    assert sum(unbounded.begin() for _ in range(1000)) > 330
    assert unbounded.withheld == 0


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.001])
def test_opentelemetry_decides_the_same_by_the_trace_id(ratio: float) -> None:
    heads, sampler = Heads(ratio), TraceIdRatioBased(ratio)

    def records(trace_id: int) -> bool:
        return sampler.should_sample(None, trace_id, "any").decision is Decision.RECORD_AND_SAMPLE

    assert all(records(heads.trace_id()) for _ in range(500))
    if ratio < 1:
        parents = [read_traceparent(heads.unrecorded_parent()) for _ in range(500)]
        assert not any(records(int(parent.trace_id, 16)) for parent in parents if parent)


def test_what_is_not_recorded_can_say_so_under_an_id_of_its_own() -> None:
    heads = Heads(0.01)
    parents = [read_traceparent(heads.unrecorded_parent()) for _ in range(1000)]
    assert all(parent is not None and not parent.sampled for parent in parents)
    assert len({parent.trace_id for parent in parents if parent}) == 1000
    assert len({parent.span_id for parent in parents if parent}) == 1000


def test_tasks_of_a_worker_are_part_of_what_it_works_on_until_that_is_over() -> None:
    async def part(over: asyncio.Event) -> list[bool]:
        before = unrecorded() is not None
        await over.wait()
        return [before, unrecorded() is not None]

    async def work(running: dict[object, float]) -> list[bool]:
        over, worker = asyncio.Event(), asyncio.current_task()
        running[worker] = 1.0
        begun = asyncio.create_task(part(over))
        await asyncio.sleep(0)
        own = [unrecorded() is not None]
        running[worker] = 2.0
        own.append(unrecorded() is not None)
        over.set()
        own += await begun
        running.clear()
        return [*own, unrecorded() is not None]

    async def worker() -> list[bool]:
        running: dict[object, float] = {}
        hand = Hand(running)
        hand.task = asyncio.create_task(work(running), context=in_hand(hand))
        own: list[bool] = await hand.task
        return own

    assert asyncio.run(worker()) == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", True),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings", True),
    ],
)
def test_a_traceparent_is_read_by_w3c(value: str, sampled: bool) -> None:
    assert read_traceparent(value) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
    ],
)
def test_what_is_no_traceparent_is_none(value: str | None) -> None:
    assert read_traceparent(value) is None

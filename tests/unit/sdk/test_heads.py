"""Which traces are recorded is decided once, at the ratio that was asked for, in a form that everybody understands."""

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from plugin_sdk.heads import Heads
from plugin_sdk.wire.conventions import read_traceparent


def test_at_1_every_trace_is_recorded_and_at_0_none() -> None:
    assert all(Heads(1.0).begin() is None for _ in range(200))
    nothing = Heads(0.0)
    assert all(nothing.begin() is not None for _ in range(200))


def test_what_is_not_recorded_says_so_under_an_id_of_its_own() -> None:
    heads = Heads(0.0)
    parents = [read_traceparent(heads.begin()) for _ in range(1000)]
    assert all(parent is not None and not parent.sampled for parent in parents)
    assert len({parent.trace_id for parent in parents if parent}) == 1000
    assert len({parent.span_id for parent in parents if parent}) == 1000


def test_about_as_many_are_recorded_as_the_ratio_says() -> None:
    heads = Heads(0.25)
    recorded = sum(heads.begin() is None for _ in range(10_000))
    # Ten sigma.
    assert abs(recorded - 2500) < 440


def test_opentelemetry_would_have_decided_the_same_by_the_trace_id() -> None:
    heads, sampler = Heads(0.5), TraceIdRatioBased(0.5)
    for _ in range(500):
        parent = read_traceparent(heads.begin())
        if parent is not None:
            assert not sampler.should_sample(None, int(parent.trace_id, 16), "any").decision.is_sampled()


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

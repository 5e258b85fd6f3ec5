"""The backlog keeps its bound and its order, and never loses the last word about a plugin."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from broker.store.backlog import Backlog
from broker.store.records import RegisterStatus
from broker.store.writes import Kind, Write, audited, exited, status

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def named(number: int) -> Write:
    return audited("here", NOON, "test", f"a{number}", "hello", "ok", "")


def registered(plugin_id: str, error: str = "") -> Write:
    return status("here", plugin_id, NOON, RegisterStatus.FAILED, error)


def drained(backlog: Backlog) -> list[Write]:
    out: list[Write] = []
    while batch := backlog.take(3):
        out.extend(batch)
        backlog.settle(len(batch))
    return out


def test_writes_come_out_in_the_order_they_went_in() -> None:
    backlog = Backlog(10)
    writes = [named(0), registered("a"), named(1), registered("b"), registered("a")]
    for write in writes:
        assert backlog.put(write) == []
    assert drained(backlog) == writes


def test_what_was_put_back_comes_out_first_and_in_order() -> None:
    backlog = Backlog(10)
    writes = [named(number) for number in range(5)]
    for write in writes:
        backlog.put(write)
    assert backlog.take(3) == writes[:3]
    backlog.settle(1)
    backlog.put_back()
    assert len(backlog) == 4
    assert drained(backlog) == writes[1:]


def test_at_the_bound_a_status_that_a_later_one_supersedes_goes_before_any_audit_entry() -> None:
    backlog = Backlog(3)
    old, new = registered("a", "old"), registered("a", "new")
    kept = [named(0), new, named(1)]
    for write in (old, *kept):
        assert backlog.put(write) == []
    assert backlog.merged == 1
    assert drained(backlog) == kept


def test_without_anything_to_merge_the_oldest_audit_entry_goes_and_is_named() -> None:
    backlog = Backlog(2)
    first, second = named(0), named(1)
    backlog.put(first)
    backlog.put(second)
    assert backlog.put(registered("a")) == [first]
    assert backlog.put(registered("b")) == [second]
    assert backlog.merged == 0


def test_an_audit_entry_finds_no_room_among_the_last_words_about_plugins() -> None:
    backlog = Backlog(2)
    statuses = [registered("a"), registered("b"), registered("c")]
    for write in statuses:
        assert backlog.put(write) == []
    late = named(0)
    assert backlog.put(late) == [late]
    assert drained(backlog) == statuses


def test_different_facts_about_one_plugin_do_not_supersede_each_other() -> None:
    backlog = Backlog(1)
    writes = [registered("a"), exited("here", "a", NOON, "exit status 1", 1)]
    for write in writes:
        assert backlog.put(write) == []
    assert drained(backlog) == writes


def test_a_write_on_its_way_to_the_database_is_neither_merged_nor_dropped() -> None:
    backlog = Backlog(2)
    writes = [registered("a", "old"), named(0)]
    for write in writes:
        backlog.put(write)
    assert backlog.take(2) == writes
    late = named(1)
    assert backlog.put(registered("a", "new")) == []
    assert backlog.put(late) == [late]


def test_one_that_failed_and_is_superseded_meanwhile_can_be_merged_again() -> None:
    backlog = Backlog(2)
    backlog.put(registered("a", "old"))
    backlog.take(1)
    new = registered("a", "new")
    backlog.put(new)
    backlog.put_back()
    entry = named(0)
    assert backlog.put(entry) == []
    assert drained(backlog) == [new, entry]


def test_the_bound_counts_bytes_too() -> None:
    backlog = Backlog(1_000, max_bytes=100_000)
    for number in range(1_000):
        backlog.put(registered("a", f"{number} {'x' * 10_000}"))
    assert len(backlog) < 10
    assert drained(backlog)[-1].values["register_error"] == f"999 {'x' * 10_000}"


def test_a_mark_is_passed_when_all_from_before_it_are_gone_whatever_comes_after() -> None:
    backlog = Backlog(10)
    backlog.put(named(0))
    backlog.put(named(1))
    mark = backlog.mark()
    backlog.put(named(2))
    assert (backlog.before(mark), backlog.passed(mark)) == (2, False)
    backlog.take(3)
    backlog.settle(1)
    assert (backlog.before(mark), backlog.passed(mark)) == (1, False)
    backlog.settle(1)
    assert (backlog.before(mark), backlog.passed(mark)) == (0, True)


PUTS = st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([Kind.STATUS, Kind.EXIT]))
STEPS = st.lists(st.one_of(PUTS, st.tuples(st.sampled_from(["take", "settle", "fail"]), st.integers(1, 4))))


@given(STEPS, st.integers(1, 6))
def test_whatever_happens_order_bound_and_last_words_are_kept(
    steps: list[tuple[str | None, Kind | int]], limit: int
) -> None:
    backlog = Backlog(limit)
    put: list[Write] = []
    dropped: list[Write] = []
    landed: list[Write] = []
    taken: list[Write] = []
    for what, detail in steps:
        if isinstance(detail, Kind):
            values = {"number": len(put)}
            put.append(Write(Kind.AUDIT, "x", values) if what is None else Write(detail, what, values))
            dropped.extend(backlog.put(put[-1]))
        elif what == "take" and not taken:
            taken = list(backlog.take(detail))
        elif what == "settle":
            backlog.settle(min(detail, len(taken)))
            landed.extend(taken[:detail])
            del taken[:detail]
        elif what == "fail":
            backlog.put_back()
            taken.clear()
        # Three plugins with two kinds of facts each can be over the bound, beside what is on its way.
        assert len(backlog) <= limit + 6 + len(taken)
        assert len(put) == len(landed) + len(dropped) + backlog.merged + len(backlog)
    backlog.put_back()
    landed.extend(drained(backlog))

    places = [put.index(write) for write in landed]
    assert places == sorted(set(places))
    assert all(write.kind is Kind.AUDIT for write in dropped)
    last_words = {write.key: write for write in put if write.key}
    assert {write.key: write for write in landed if write.key} == last_words

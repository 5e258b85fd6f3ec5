"""`broker top`: a frame never is larger than its screen, shows rates, sorts and scrolls."""

import io
from typing import Any

import pytest
from rich.console import Console

from broker.cli.board import SORT_KEYS, Wishes, board
from broker.cli.pace import Paces
from broker.cli.top import _split_keys
from tests.unit.cli.answers import failed, running


def drawn(answer: dict[str, Any], wishes: Wishes, width: int, height: int | None, paces: Paces | None = None) -> str:
    if paces is None:
        paces = Paces(10.0)
        paces.add(0.0, answer)
    file = io.StringIO()
    Console(file=file, width=width, height=height or 1000).print(board(answer, paces, wishes, width, height))
    return file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (40, 10), (120, 5)])
@pytest.mark.parametrize("number", [0, 6, 60])
def test_a_frame_fills_its_screen_and_no_more(number: int, width: int, height: int) -> None:
    lines = drawn(running(number, failed()), Wishes(), width, height).splitlines()
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert "run" in lines[0]


def test_without_a_screen_everything_is_printed() -> None:
    shown = drawn(running(60, failed()), Wishes(), 160, None)
    assert "plugin59" in shown
    assert "did not start in 3 attempts" in shown
    assert "quit" not in shown


def test_a_narrow_screen_still_says_why() -> None:
    assert "bad: plugin 'bad' did not start" in drawn(running(2, failed()), Wishes(), 80, 24)


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("number", [6, 60])
def test_no_key_is_cut_off(number: int, width: int) -> None:
    shown = drawn(running(number), Wishes(), width, 24).splitlines()
    heads = {column.head for column in SORT_KEYS.values()} & set(shown[2].replace("▲", "").split())
    assert "…" not in shown[-1]
    for column in SORT_KEYS.values():
        offered = f" {column.key}:" in shown[-1] or column.key in shown[-1].partition("sort by:")[2].split()
        assert offered == (column.head in heads)


def test_scrolling_ends_at_the_last_plugin() -> None:
    wishes = Wishes(top=1000)
    shown = drawn(running(60), wishes, 80, 24)
    assert "plugin59" in shown
    assert "plugin00" not in shown
    assert "41–60 of 60" in shown
    assert wishes.top == 40


@pytest.mark.parametrize("key", SORT_KEYS)
def test_every_column_sorts_both_ways(key: str) -> None:
    answer = running(5, failed())
    names = [name_column(drawn(answer, Wishes(sort=key, turned=turned), 200, 24)) for turned in (False, True)]
    assert sorted(names[0]) == sorted(names[1])
    assert len(names[0]) == 6


def test_the_busiest_stand_first_and_what_is_unknown_last() -> None:
    answer = running(4, failed())
    for index, row in enumerate(answer["plugins"]):
        row["memory_bytes"] = None if row["name"] == "bad" else index << 20
    assert name_column(drawn(answer, Wishes(sort="m"), 200, 24))[0] == "plugin03"
    assert name_column(drawn(answer, Wishes(sort="m"), 200, 24))[-1] == "bad"
    assert name_column(drawn(answer, Wishes(sort="m", turned=True), 200, 24))[-1] == "bad"


def name_column(shown: str) -> list[str]:
    return [
        line.split()[0] for line in shown.splitlines() if line.startswith(("plugin", "bad ")) and "mesh" not in line
    ]


def test_rates_are_what_happened_between_two_looks() -> None:
    before, after = running(1, events_handled=10, handling_secs=1.0), running(1, events_handled=30, handling_secs=1.4)
    before["plugins"][0]["published"], after["plugins"][0]["published"] = 100, 500
    before["plugins"][0]["cpu_secs"], after["plugins"][0]["cpu_secs"] = 1.0, 3.0
    paces = Paces(10.0)
    paces.add(0.0, before)
    paces.add(10.0, after)
    (pace,) = paces.plugins().values()
    assert (pace.published, pace.events, pace.cpu) == (40.0, 2.0, 0.2)
    assert pace.mean_secs == pytest.approx(0.02)


def test_a_plugin_that_was_restarted_has_no_rate_at_first() -> None:
    before, after = running(1, events_handled=10), running(1, events_handled=2)
    paces = Paces(10.0)
    paces.add(0.0, before)
    paces.add(10.0, after)
    (pace,) = paces.plugins().values()
    assert pace.events is None


def test_what_is_older_than_the_window_does_not_count() -> None:
    paces = Paces(10.0)
    for second in range(0, 60, 5):
        paces.add(float(second), running(1, events_handled=second if second < 30 else 30))
    assert paces.secs == 10.0
    (pace,) = paces.plugins().values()
    assert pace.events == 0.0


def test_keys_that_come_together_are_told_apart() -> None:
    assert list(_split_keys("m\x1b[Aq\x1b[6~\x1b")) == ["m", "\x1b[A", "q", "\x1b[6~", "\x1b"]

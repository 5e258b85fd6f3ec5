"""What `broker top` shows: one frame, from a status, the rates and what its user wants to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker.cli.details import COLOURS, reason
from broker.cli.figures import amount, counted, duration, rate, several, size, span
from broker.cli.pace import Pace, Paces, Row, key_of

Cell = Callable[[Row, Pace], str]
Value = Callable[[Row, Pace], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        key: the key that sorts by it.
        head: its title.
        width: characters that it needs.
        rank: columns of a high rank are left out first when the screen is narrow.
        text: what stands in a cell.
        value: what is sorted by; numbers from high to low, texts from a to z.
    """

    key: str
    head: str
    width: int
    rank: int
    text: Cell
    value: Value


COLUMNS = (
    Column("n", "NAME", 15, 0, lambda row, pace: _name(row), lambda row, pace: _name(row)),
    Column("s", "STATE", 8, 0, lambda row, pace: row["state"], lambda row, pace: row["state"]),
    Column("p", "PUB/s", 6, 1, lambda row, pace: rate(pace.published), lambda row, pace: pace.published),
    Column("e", "EVT/s", 6, 1, lambda row, pace: rate(pace.events), lambda row, pace: pace.events),
    Column("r", "REQ/s", 6, 1, lambda row, pace: rate(pace.requests), lambda row, pace: pace.requests),
    Column("f", "ERR/s", 5, 1, lambda row, pace: rate(pace.failed), lambda row, pace: pace.failed),
    Column("l", "MEAN", 6, 1, lambda row, pace: duration(pace.mean_secs), lambda row, pace: pace.mean_secs),
    Column("w", "WAIT", 5, 1, lambda row, pace: amount(_waiting(row)), lambda row, pace: _waiting(row)),
    Column("m", "MEM", 8, 1, lambda row, pace: size(row["memory_bytes"]), lambda row, pace: row["memory_bytes"]),
    Column("c", "CPU%", 5, 2, lambda row, pace: _percent(pace.cpu), lambda row, pace: pace.cpu),
    Column("x", "LONGEST", 7, 3, lambda row, pace: _longest(row), lambda row, pace: row["figures"]["longest_secs"]),
    Column("d", "DROPPED", 7, 3, lambda row, pace: amount(row["dropped"]), lambda row, pace: row["dropped"]),
    Column("t", "THREADS", 7, 4, lambda row, pace: _number(row["threads"]), lambda row, pace: row["threads"]),
    Column("b", "RESTARTS", 8, 4, lambda row, pace: str(row["restarts"]), lambda row, pace: row["restarts"]),
    Column("u", "UP", 8, 5, lambda row, pace: span(row["uptime_secs"]), lambda row, pace: row["uptime_secs"]),
)
SORT_KEYS = {column.key: column for column in COLUMNS}
_TEXTS = ("n", "s")
_GAP = 1
_COMMANDS = "q:quit i:turn "
_NOTE_WIDTH = 40  # what must be left for the reason behind the columns, or it is not shown


@dataclass(slots=True)
class Wishes:
    """What the user has chosen: the column that sorts, the other way round, and how far it is scrolled."""

    sort: str = "n"
    turned: bool = False
    top: int = 0


def board(
    answer: dict[str, Any], paces: Paces, wishes: Wishes, width: int, height: int | None, trouble: str = ""
) -> RenderableType:
    """One frame.

    Args:
        answer: of `$broker.status`.
        paces: that have seen it.
        wishes: of the user; `top` is corrected when it is beyond the end.
        width: columns of the screen.
        height: lines of the screen; None shows every plugin and no keys.
        trouble: why the broker does not answer, if it does not.
    """
    head = _head(answer["broker"], paces, width, trouble)
    rows = _sorted(answer["plugins"], paces.plugins(), wishes)
    if height is None:
        return Group(*head, _table(rows, wishes, width), *_notes(rows, len(rows), width))
    room = max(1, height - len(head) - 2)
    wishes.top = max(0, min(wishes.top, len(rows) - room))
    shown = rows[wishes.top : wishes.top + room]
    body: list[RenderableType] = [Text("no plugins: put one into the plugin folder, or start one by hand", style="dim")]
    used = len(head) + 1
    if rows:
        notes = _notes(shown, room - len(shown), width)
        body = [_table(shown, wishes, width), *notes]
        used = len(head) + 1 + len(shown) + len(notes)
    blank = [Text("")] * (height - used - 1)
    return Group(*head, *body, *blank, _keys(len(rows), len(shown), wishes, width))


def _head(broker: dict[str, Any], paces: Paces, width: int, trouble: str) -> list[Text]:
    queues, plugins = broker["queues"], broker["plugins"]
    first = Text(no_wrap=True, overflow="ellipsis")
    first.append("plugmesh ", style="bold")
    first.append(f"{broker['node']}, up {span(broker['uptime_secs'])}, {plugins['running']}/{plugins['total']} run")
    if plugins["failed"]:
        first.append(f", {plugins['failed']} failed", style="red")
    first.append(f", {counted(broker['sessions'], 'session')}, {size(broker['total']['memory_bytes'])}")
    second = Text(no_wrap=True, overflow="ellipsis")
    second.append(
        f"{rate(paces.broker('events_published'))} events/s, {rate(paces.broker('requests_reply'))} replies/s;"
        f" waiting {several(queues['events'], 'event')}, {several(queues['requests_waiting'], 'request')};"
        f" dropped {amount(broker['counters']['events_dropped'])}"
    )
    if trouble:
        second = Text(trouble, style="bold red", no_wrap=True, overflow="ellipsis")
    for line in (first, second):
        line.truncate(width, overflow="ellipsis")
    return [first, second]


def _sorted(rows: list[Row], paces: dict[Any, Pace], wishes: Wishes) -> list[tuple[Row, Pace]]:
    column = SORT_KEYS[wishes.sort]
    pairs = [(row, paces.get(key_of(row), Pace())) for row in rows]
    pairs.sort(key=lambda pair: _name(pair[0]))
    known = [pair for pair in pairs if column.value(*pair) is not None]
    unknown = [pair for pair in pairs if column.value(*pair) is None]
    # A stable sort: equal ones stay in the order of their names.
    known.sort(key=lambda pair: column.value(*pair), reverse=_downwards(column, wishes))
    return known + unknown


def _downwards(column: Column, wishes: Wishes) -> bool:
    return (column.key not in _TEXTS) != wishes.turned


def _table(rows: list[tuple[Row, Pace]], wishes: Wishes, width: int) -> Table:
    columns, name_width, note_width = _fitting(rows, width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        mark = "▼" if _downwards(column, wishes) else "▲"
        head = Text(column.head, style="underline") if column.key == wishes.sort else Text(column.head)
        if column.key == wishes.sort and len(column.head) < column.width:
            head.append(mark)
        cells = name_width if column.key == "n" else column.width
        justify = "left" if column.key in _TEXTS else "right"
        table.add_column(head, width=cells, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    if note_width:
        table.add_column("", width=note_width, no_wrap=True, overflow="ellipsis", style="yellow")
    for row, pace in rows:
        cells_of_row = [Text(column.text(row, pace), style=_style(column, row)) for column in columns]
        table.add_row(*cells_of_row, *([Text(reason(row))] if note_width else []))
    return table


def _fitting(rows: list[tuple[Row, Pace]], width: int) -> tuple[list[Column], int, int]:
    """The columns that there is room for, and the widths of the name and of the note behind them."""
    columns = list(COLUMNS)
    while _needed(columns) > width and columns[-1].rank > 0:
        columns.remove(max(columns, key=lambda column: (column.rank, COLUMNS.index(column))))
    left = width - _needed(columns)
    longest = max((len(_name(row)) for row, _ in rows), default=0)
    more = max(0, min(left, longest - COLUMNS[0].width))
    left -= more + _GAP
    return columns, COLUMNS[0].width + more, left if left >= _NOTE_WIDTH else 0


def _needed(columns: list[Column]) -> int:
    return sum(column.width + _GAP for column in columns)


def _notes(rows: list[tuple[Row, Pace]], room: int, width: int) -> list[Text]:
    """What is wrong with plugins, below a table that is too narrow for it."""
    if _fitting(rows, width)[2]:
        return []
    notes = [Text(f"{_name(row)}: {reason(row)}", style="yellow", no_wrap=True) for row, _ in rows if reason(row)]
    for note in notes:
        note.truncate(width, overflow="ellipsis")
    return [Text(""), *notes][: max(0, room)] if notes else []


def _keys(total: int, shown: int, wishes: Wishes, width: int) -> Text:
    where = f"{wishes.top + 1}–{wishes.top + shown} of {total} ↑↓ " if shown < total else ""
    columns, _, _ = _fitting([], width)
    keys = " ".join(f"{column.key}:{column.head.lower().removesuffix('/s').removesuffix('%')}" for column in columns)
    if len(where) + len(keys) + len(_COMMANDS) > width:
        keys = f"sort by:{' '.join(column.key for column in columns)}"
    line = Text(f"{where}{_COMMANDS}{keys}", style="reverse", no_wrap=True)
    line.truncate(width, overflow="ellipsis", pad=True)
    return line


def _style(column: Column, row: Row) -> str:
    if column.key == "s":
        return COLOURS.get(row["state"], "")
    if column.key == "w" and _waiting(row):
        return "yellow"
    return "" if row["state"] == "running" else "dim"


def _name(row: Row) -> str:
    return f"{row['name']}/{row['instance']}" if row["instance"] else str(row["name"])


def _waiting(row: Row) -> int:
    return int(row["waiting"]) + int(row["figures"]["events_waiting"])


def _longest(row: Row) -> str:
    return duration(row["figures"]["longest_secs"] or None)


def _percent(part: float | None) -> str:
    if part is None:
        return "-"
    return f"{100 * part:.1f}" if part < 10 else f"{100 * part:.0f}"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)

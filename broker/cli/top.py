"""`broker top`: rates, latencies, queues and memory of all plugins, live."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.session import printable, talk
from plugin_sdk.client import Bus
from plugin_sdk.wire.errors import BusError

if TYPE_CHECKING:
    from rich.live import Live

    from broker.cli.board import Wishes
    from broker.cli.pace import Paces

ANSWER_SECS = 5.0
HEARTBEATS = 2  # of plugins, that a rate is taken over: they tell their figures with these
_SORTS = {
    "name": "n", "state": "s", "published": "p", "events": "e", "requests": "r", "errors": "f", "latency": "l",
    "waiting": "w", "memory": "m", "cpu": "c", "longest": "x", "dropped": "d", "threads": "t", "restarts": "b",
    "uptime": "u",
}  # fmt: skip


@click.command()
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds.")
@click.option("--sort", type=click.Choice(list(_SORTS)), default="name", show_default=True, help="What to sort by.")
@click.option("--once", is_flag=True, help="Two looks, one table, and end; so also when this is no terminal.")
@click.pass_obj
def top(home: Path, interval: float, sort: str, once: bool) -> None:
    """Watch the plugins live: rates, latencies, queues, memory.

    Keys: a letter sorts by its column (the last line names them), i turns the order, arrows scroll, q quits. PUB/s are
    events published, EVT/s events and REQ/s requests handled, ERR/s what failed; MEAN is how long a handler took, WAIT
    how many events wait for it.
    """
    from broker.cli.board import Wishes

    wishes = Wishes(sort=_SORTS[sort])
    if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        talk(home, lambda bus: _print_once(bus, wishes, interval))
    else:
        talk(home, lambda bus: _Screen(bus, wishes, interval).run())


async def _print_once(bus: Bus, wishes: Wishes, interval: float) -> None:
    from rich.console import Console

    from broker.cli.board import board
    from broker.cli.pace import Paces

    answer = await _look(bus)
    paces = Paces(_window(answer))
    paces.add(time.monotonic(), answer)
    await asyncio.sleep(max(interval, _window(answer)))
    answer = await _look(bus)
    paces.add(time.monotonic(), answer)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(board(answer, paces, wishes, width, None))


class _Screen:
    """The live view, until its user has seen enough."""

    def __init__(self, bus: Bus, wishes: Wishes, interval: float) -> None:
        self._bus = bus
        self._wishes = wishes
        self._interval = interval
        self._ended = asyncio.Event()
        self._answer: dict[str, Any] | None = None
        self._paces: Paces | None = None
        self._trouble = ""
        self._live: Live | None = None

    async def run(self) -> None:
        """Show it."""
        from rich.console import Console
        from rich.live import Live

        loop = asyncio.get_running_loop()
        with (
            Live(console=Console(highlight=False), screen=True, auto_refresh=False) as self._live,
            _keys(self._on_keys),
        ):
            loop.add_signal_handler(signal.SIGWINCH, self._draw)
            # Ended by it the usual way, the terminal would be left in the state of this view.
            loop.add_signal_handler(signal.SIGTERM, self._ended.set)
            watching = asyncio.create_task(self._watch())
            ended = asyncio.create_task(self._ended.wait())
            try:
                await asyncio.wait({watching, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                loop.remove_signal_handler(signal.SIGWINCH)
                loop.remove_signal_handler(signal.SIGTERM)
                watching.cancel()
                ended.cancel()
        if watching.done() and not watching.cancelled():
            watching.result()

    async def _watch(self) -> None:
        while True:
            try:
                self._take(await _look(self._bus))
            except BusError as error:
                if self._bus.ended.done():
                    raise
                # A broker that is restarted comes back, and this with it.
                self._trouble = f"no answer from the broker: {error.text}"
            self._draw()
            await asyncio.sleep(self._interval)

    def _take(self, answer: dict[str, Any]) -> None:
        from broker.cli.pace import Paces

        if self._paces is None:
            self._paces = Paces(max(_window(answer), 2 * self._interval))
        self._answer, self._trouble = answer, ""
        self._paces.add(time.monotonic(), answer)

    def _draw(self) -> None:
        from broker.cli.board import board

        if self._live is None or self._answer is None or self._paces is None:
            return
        size = shutil.get_terminal_size()
        frame = board(self._answer, self._paces, self._wishes, size.columns, size.lines, self._trouble)
        self._live.update(frame, refresh=True)

    def _on_keys(self, text: str) -> None:
        for key in _split_keys(text):
            self._on_key(key)
        self._draw()

    def _on_key(self, key: str) -> None:
        from broker.cli.board import SORT_KEYS

        wishes = self._wishes
        page = max(1, shutil.get_terminal_size().lines - 6)
        steps = {"\x1b[A": -1, "\x1b[B": 1, "k": -1, "j": 1, "\x1b[5~": -page, "\x1b[6~": page, " ": page}
        if key in ("q", "\x1b", "\x03", "\x04"):
            self._ended.set()
        elif key == "i":
            wishes.turned = not wishes.turned
        elif key in steps:
            wishes.top = max(0, wishes.top + steps[key])
        elif key in SORT_KEYS:
            wishes.turned = not wishes.turned if key == wishes.sort else False
            wishes.sort, wishes.top = key, 0


async def _look(bus: Bus) -> dict[str, Any]:
    answer: dict[str, Any] = await bus.call("$broker.status", {}, timeout=ANSWER_SECS, wait_ready=2.0)
    shown: dict[str, Any] = printable(answer)
    return shown


def _window(answer: dict[str, Any]) -> float:
    return float(HEARTBEATS * answer["broker"]["heartbeat_secs"])


def _split_keys(text: str) -> Iterator[str]:
    """Keys that came at once; those that are not letters are sequences that begin with escape."""
    while text:
        end = 1
        if text.startswith("\x1b["):
            end = next((i for i, char in enumerate(text[2:], 3) if char.isalpha() or char == "~"), len(text))
        yield text[:end]
        text = text[end:]


@contextmanager
def _keys(on_keys: Callable[[str], None]) -> Iterator[None]:
    """Hear single keys, without echo; the terminal is as it was afterwards."""
    import os
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = os.read(file, 1024)
        # An empty read: the terminal is gone.
        on_keys(data.decode(errors="replace") if data else "q")

    tty.setcbreak(file)
    loop.add_reader(file, read)
    try:
        yield
    finally:
        loop.remove_reader(file)
        with suppress(termios.error):
            termios.tcsetattr(file, termios.TCSADRAIN, before)

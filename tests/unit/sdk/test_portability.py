"""What differs between systems: loops that cannot watch sockets, and loops that cannot watch signals."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import ConnectionLost, connect
from plugin_sdk.runner import _watch_signals


def cannot(*args: Any) -> Any:
    raise NotImplementedError


async def test_a_loop_that_cannot_watch_sockets_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", cannot)
    with pytest.raises(ConnectionLost, match=r"on Windows use asyncio\.SelectorEventLoop"):
        async with connect(f"ipc://{tmp_path}/x", "key"):
            pass


async def test_where_the_loop_cannot_watch_signals_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", cannot)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        asked = _watch_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asked.wait(), 1)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])

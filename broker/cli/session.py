"""What the commands that talk to a running broker share: the session, the exit codes, the way to print."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from plugin_sdk.client import Bus, connect
from plugin_sdk.discovery import find_broker
from plugin_sdk.wire.errors import BusError, ConnectionLost, RegistrationError

EX_FAILED, EX_USAGE, EX_UNREACHABLE, EX_INTERRUPTED = 1, 2, 69, 130

_UNREACHABLE = ("unavailable", "timeout", "lost", "shutting_down")


def talk(home: Path, work: Callable[[Bus], Awaitable[None]]) -> None:
    """Run `work` with a session to the broker of `home`; ends the process with the right exit code on errors."""
    try:
        reach(home, work)
    except (RegistrationError, ConnectionLost) as error:
        code = EX_UNREACHABLE if is_unreachable(error) else EX_FAILED
        hint = f"\nIs a broker running on {home}? Start one with: broker run --home {home}"
        fail(error.text + (hint if code == EX_UNREACHABLE else ""), code)
    except BusError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(EX_INTERRUPTED) from None


def reach(home: Path, work: Callable[[Bus], Awaitable[None]]) -> None:
    """Run `work` with a session to the broker of `home`; raises BusError."""

    async def session() -> None:
        async with connect(home=home, name="cli") as bus:
            await work(bus)

    _check_listening(find_broker(home=home).endpoint)
    asyncio.run(session())


def is_unreachable(error: BusError) -> bool:
    """Whether it says that there is no broker, not that a broker refused something."""
    return isinstance(error, (RegistrationError, ConnectionLost)) and error.code in _UNREACHABLE


def ask(home: Path, service: str, args: dict[str, Any], timeout: float) -> Any:
    """Call one of the broker's own services and return its answer."""
    answers: list[Any] = []

    async def work(bus: Bus) -> None:
        # A broker that has just begun to listen registers its own services a moment later.
        answers.append(await bus.call(service, args, timeout=timeout, wait_ready=min(2.0, timeout)))

    talk(home, work)
    return answers[0]


def _check_listening(endpoint: str) -> None:
    """Raise ConnectionLost at once where the SDK would try three times: a person at a prompt can try again."""
    if not endpoint.startswith("ipc://"):
        return
    path = endpoint.removeprefix("ipc://")
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError as error:
        raise ConnectionLost(f"no broker listens at {path}: {error.strerror or error}", "unavailable") from None


def fail(text: str, code: int = EX_FAILED) -> NoReturn:
    """Say what went wrong and end with `code`."""
    click.echo(f"broker: {text}", err=True)
    raise SystemExit(code)


def parse_json(text: str) -> Any:
    """Data given on the command line; `-` reads it from standard input. Wrong usage when it is not JSON."""
    source: str = sys.stdin.read() if text == "-" else text
    try:
        return json.loads(source)
    except json.JSONDecodeError as error:
        raise click.BadParameter(
            f"{source[:60]!r} is not JSON ({error.msg} at character {error.pos + 1}); quote it for the shell,"
            ' for example: \'{"user_id": "1"}\''
        ) from None


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """JSON for people and programs; what JSON cannot express is shown as text."""
    return json.dumps(value, ensure_ascii=False, default=_as_text, indent=indent)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)

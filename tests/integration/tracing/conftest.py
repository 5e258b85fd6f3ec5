"""A real OTLP receiver, and programs that send their spans to it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bad_collectors import bad_collector
from tools.tracing.receiver import Receiver, Span

__all__ = ["bad_collector"]

_BEGIN = """
import asyncio, contextvars, json, os, sys, time
from plugin_sdk import CallError, Event, Plugin, exporting
from plugin_sdk.testing import mesh
"""


class Program:
    """Runs a script as a process of its own, since OpenTelemetry is set up once in a process."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BROKER_"))}
        self.environ = kept | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "PYTHONPATH": os.getcwd()}

    def run(self, script: str, **environ: str) -> Any:
        """What the script printed as its last line, in JSON; None when it printed nothing."""
        command = [sys.executable, "-c", _BEGIN + script]
        done = subprocess.run(command, env=self.environ | environ, capture_output=True, text=True, timeout=40)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return json.loads(lines[-1]) if lines else None

    def spans(self, name: str = "") -> list[Span]:
        """What came from the scripts, which have ended: of that name, or all."""
        return [span for span in self.receiver.spans() if name in ("", span.name)]

    def span(self, name: str, kind: str = "") -> Span:
        """The one span of that name and kind."""
        (found,) = [span for span in self.spans(name) if kind in ("", span.kind)]
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def program(receiver: Receiver) -> Program:
    return Program(receiver)

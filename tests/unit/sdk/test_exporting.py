"""Traces are sent when a standard variable asks for them; else nothing of OpenTelemetry is even imported."""

import os
import subprocess
import sys

import pytest

from plugin_sdk.exporting import asked

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "answer"),
    [
        ({}, False),
        ({ENDPOINT: "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://localhost:4318"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", ENDPOINT: "http://localhost:4318"}, False),
        ({"OTEL_SDK_DISABLED": "false", ENDPOINT: "http://localhost:4318"}, True),
        ({ENDPOINT: " "}, False),
        ({"OTEL_SERVICE_NAME": "shop", "OTEL_TRACES_SAMPLER": "always_on"}, False),
    ],
)
def test_the_environment_decides(environ: dict[str, str], answer: bool) -> None:
    assert asked(environ) is answer


def python(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=kept | environ, capture_output=True, text=True, timeout=40, check=False)


ROUND_TRIP = """
import asyncio, sys
import broker.daemon
from plugin_sdk import Plugin
from plugin_sdk.testing import mesh
plugin = Plugin("some")

@plugin.service("thing")
async def thing():
    return 1

async def main():
    async with mesh() as m:
        await m.start(plugin)
        client = await m.client()
        await client.call("some.thing")
        print(type(client).__name__, type(plugin.bus).__name__)

asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "requests", "google"))))
"""


def test_without_a_variable_the_plain_bus_is_used_and_nothing_imported() -> None:
    for environ in ({}, {"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://127.0.0.1:9"}):
        done = python(ROUND_TRIP, **environ)
        assert done.stdout.splitlines() == ["Bus Bus", "[]"], done.stderr


def test_an_exporter_that_nobody_has_installed_is_told_and_everything_goes_on() -> None:
    done = python(ROUND_TRIP, OTEL_TRACES_EXPORTER="pigeon")
    assert done.stdout.startswith("Bus Bus")
    assert "no exporter 'pigeon' is installed: OTEL_TRACES_EXPORTER=otlp (http/protobuf) and console are" in done.stderr


def test_without_the_opentelemetry_sdk_everything_goes_on() -> None:
    done = python(
        f'import sys\nsys.modules["opentelemetry.sdk"] = None\n{ROUND_TRIP}', **{ENDPOINT: "http://127.0.0.1:9"}
    )
    assert done.stdout.startswith("Bus Bus")
    assert "install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http" in done.stderr


def test_the_console_exporter_works_as_for_any_other_program() -> None:
    done = python(ROUND_TRIP, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine")
    assert '"name": "some.thing"' in done.stdout
    assert '"service.name": "mine"' in done.stdout


def test_the_garbage_of_a_traced_program_is_still_collected() -> None:
    done = python(f"{ROUND_TRIP}import gc\nprint(gc.get_freeze_count())", **{ENDPOINT: "http://127.0.0.1:9"})
    assert done.stdout.startswith("TracedBus TracedBus"), done.stderr
    assert done.stdout.splitlines()[-1] == "0"

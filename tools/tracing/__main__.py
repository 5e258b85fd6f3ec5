"""Shows one trace: a receiver, a broker with the shipped plugins, one login, and the tree of what followed.

tools/trace [--traceparent VALUE | --stranger]
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import click

from tools.tracing.receiver import Receiver, Span
from tools.tracing.tree import render

_START_SECS, _FLOW_SECS, _STOP_SECS, _POLL_SECS = 20.0, 15.0, 15.0, 0.1
_EVENT = ("user.login", '{"user_id": "12345"}')
_STRANGER = Path(__file__).with_name("stranger.mjs")
_LAST = ("users", "users.get")


@click.command()
@click.option("--traceparent", help="Continue this trace, as a client that only knows W3C trace context does.")
@click.option(
    "--stranger", is_flag=True, help="Publish with a client in JavaScript that knows nothing but traceparent."
)
def main(traceparent: str | None, stranger: bool) -> None:
    """Show how user.login travels through the shipped plugins, as one tree."""
    with Receiver() as receiver, tempfile.TemporaryDirectory(prefix="trace-") as folder:
        click.echo(f"$ export OTEL_EXPORTER_OTLP_ENDPOINT={receiver.endpoint}\n$ broker run --demo &", err=True)
        environment = _environment(receiver.endpoint, Path(folder))
        with _broker(environment):
            if stranger:
                _publish_as_a_stranger(folder, traceparent or f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01")
            else:
                _publish(environment, traceparent)
            receiver.wait(_has_arrived, _FLOW_SECS)
        # When they stop, all have sent what they had.
        spans = receiver.spans()
    trace_id = _trace_of(spans)
    click.echo(f"\ntrace {trace_id}, received by OTLP over HTTP:\n", err=True)
    click.echo(render([span for span in spans if span.trace_id == trace_id]))


def _publish(environment: Mapping[str, str], traceparent: str | None) -> None:
    header = ("--header", f"traceparent={traceparent}") if traceparent else ()
    click.echo(f"$ broker pub {' '.join(_EVENT)} {' '.join(header)}", err=True)
    subprocess.run(_command("pub", *_EVENT, *header), env=environment, check=True, stdout=sys.stderr)


def _publish_as_a_stranger(home: str, traceparent: str) -> None:
    node = which("node")
    if node is None:
        raise click.ClickException("--stranger needs Node.js: install it so that `node` is found")
    click.echo(f"$ node stranger.mjs {home} {' '.join(_EVENT)} {traceparent}", err=True)
    subprocess.run([node, str(_STRANGER), home, *_EVENT, traceparent], check=True)


def _has_arrived(spans: Sequence[Span]) -> bool:
    return any((span.service, span.name) == _LAST and span.kind == "server" for span in spans)


def _trace_of(spans: Sequence[Span]) -> str:
    return next(span.trace_id for span in spans if span.name == f"process {_EVENT[0]}")


def _environment(endpoint: str, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BROKER_", "OTEL_"))}
    own = {"BROKER_HOME": str(home), "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    return {**kept, **own}


@contextmanager
def _broker(environment: dict[str, str]) -> Iterator[None]:
    """A broker with the shipped plugins, all of them up."""
    log = Path(environment["BROKER_HOME"]) / "broker.log"
    with log.open("wb") as file:
        process = subprocess.Popen(_command("run", "--demo"), env=environment, stdout=file, stderr=file)
    try:
        _await_plugins(process, environment, log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_plugins(process: "subprocess.Popen[bytes]", environment: dict[str, str], log: Path) -> None:
    deadline = time.monotonic() + _START_SECS
    # What is asked meanwhile is nothing that anybody wants a trace of.
    quiet = {**environment, "OTEL_SDK_DISABLED": "true"}
    while time.monotonic() < deadline and process.poll() is None:
        answer = subprocess.run(_command("status", "--json"), env=quiet, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            plugins = json.loads(answer.stdout)["plugins"]
            if plugins and all(each["state"] == "running" for each in plugins):
                return
        time.sleep(_POLL_SECS)
    raise click.ClickException(f"the plugins did not come up within {_START_SECS:g} s:\n{log.read_text()}")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "broker", *arguments]


if __name__ == "__main__":
    main()

"""Endpoints on plugin_sdk, used as its guide does: handlers for events, a service and calls for requests."""

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic_ns
from typing import Any

from plugin_sdk import Bus, Event, Plugin, connect
from tools.benchmark.ledger import Ledger, RequestLedger
from tools.benchmark.payload import END, PROBE, SERVICE, SUBJECT, make_event, numbers
from tools.benchmark.roles import pipe

# A plugin serves names under its own.
_SERVER, _SERVICE = SERVICE.split(".")


def _connect(task: pipe.Task) -> AbstractAsyncContextManager[Bus]:
    return connect(home=task.address, name=f"bench-{task.role}-{task.index}")


async def publish(task: pipe.Task) -> pipe.Report:
    """Send this publisher's events."""
    async with _connect(task) as bus:
        while not pipe.told():
            await bus.publish(SUBJECT, make_event(task.index, PROBE))
            await asyncio.sleep(pipe.PROBE_SECS)
        began = monotonic_ns()
        for number in numbers(task.count, task.warmup):
            await bus.publish(SUBJECT, make_event(task.index, number))
        ended = monotonic_ns()
    return pipe.Report(began_ns=began, ended_ns=ended)


async def subscribe(task: pipe.Task) -> pipe.Report:
    """Receive and check the events of all publishers in a handler."""
    complete = asyncio.Event()
    ledger = Ledger(task.publishers, task.count, on_ready=pipe.ready, on_complete=complete.set)

    async def on_event(event: Event) -> None:
        data = event.data
        ledger.take(data["publisher"], data["id"])

    async with _connect(task) as bus:
        await bus.subscribe(SUBJECT, on_event)
        await pipe.completion(complete, ledger.progress)
    return pipe.Report(began_ns=ledger.began_ns, ended_ns=ledger.ended_ns, faults=ledger.faults())


def serve(task: pipe.Task) -> pipe.Report:
    """Answer every request with its own body, as a plugin that was started by hand."""
    ledger = RequestLedger(task.count)
    plugin = Plugin(_SERVER)

    @plugin.service(_SERVICE)
    async def echo(request: dict[str, Any]) -> dict[str, Any]:
        ledger.take(request["id"])
        if request["id"] == END:
            signal.raise_signal(signal.SIGTERM)
        return request

    @plugin.on_start()
    async def on_start() -> None:
        pipe.ready()

    os.environ["BROKER_HOME"] = task.address
    with suppress(SystemExit):
        plugin.run()
    return pipe.Report(faults=ledger.faults())


async def call(task: pipe.Task) -> pipe.Report:
    """Make the calls with `in_flight` callers that each wait for their answer before they ask again."""
    async with _connect(task) as bus:
        # The service comes into force a moment after its plugin has said that it starts.
        await bus.call(SERVICE, make_event(0, PROBE), timeout=10, wait_ready=10)

        async def ask(number: int) -> None:
            answer = (await bus.call(SERVICE, make_event(0, number), timeout=10))["id"]
            if answer != number:
                raise RuntimeError(f"request {number} was given the answer of request {answer}")

        return await pipe.calls(task, ask)


if __name__ == "__main__":
    asynchronous = {"publish": publish, "subscribe": subscribe, "call": call}
    pipe.run({"serve": serve, **{name: pipe.blocking(role) for name, role in asynchronous.items()}})

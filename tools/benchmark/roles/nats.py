"""Endpoints on nats-py as its documentation shows it: callbacks for events, `request` and `respond`."""

import asyncio
from time import monotonic_ns

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from tools.benchmark.ledger import Ledger, RequestLedger
from tools.benchmark.payload import END, PROBE, SERVICE, SUBJECT, decode, encode, make_event, numbers
from tools.benchmark.roles import pipe

# nats-py writes only when its loop turns, and publish does not turn it: without this, 2 MiB leave at a time.
_TURN_EVERY = 256


async def _fail(error: Exception) -> None:
    """Make an error that nats-py would only log (a slow consumer dropping messages) end the process."""
    asyncio.get_running_loop().stop()
    raise error


async def _connect(task: pipe.Task) -> Client:
    return await nats.connect(task.address, error_cb=_fail, allow_reconnect=False)


async def publish(task: pipe.Task) -> pipe.Report:
    """Send this publisher's events."""
    client = await _connect(task)
    while not pipe.told():
        await client.publish(SUBJECT, encode(make_event(task.index, PROBE)))
        await asyncio.sleep(pipe.PROBE_SECS)
    began = monotonic_ns()
    for number in numbers(task.count, task.warmup):
        await client.publish(SUBJECT, encode(make_event(task.index, number)))
        if not number % _TURN_EVERY:
            await asyncio.sleep(0)
    ended = monotonic_ns()
    await client.close()
    return pipe.Report(began_ns=began, ended_ns=ended)


async def subscribe(task: pipe.Task) -> pipe.Report:
    """Receive and check the events of all publishers."""
    complete = asyncio.Event()
    ledger = Ledger(task.publishers, task.count, on_ready=pipe.ready, on_complete=complete.set)

    async def on_message(message: Msg) -> None:
        event = decode(message.data)
        ledger.take(event["publisher"], event["id"])

    client = await _connect(task)
    # Zero lifts the limits: past them nats-py drops, and what is dropped would not be measured but missing.
    await client.subscribe(SUBJECT, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0)
    await pipe.completion(complete, ledger.progress)
    await client.close()
    return pipe.Report(began_ns=ledger.began_ns, ended_ns=ledger.ended_ns, faults=ledger.faults())


async def serve(task: pipe.Task) -> pipe.Report:
    """Answer every request with its own body."""
    complete = asyncio.Event()
    ledger = RequestLedger(task.count)

    async def on_request(message: Msg) -> None:
        request = decode(message.data)
        ledger.take(request["id"])
        await message.respond(encode(request))
        if request["id"] == END:
            complete.set()

    client = await _connect(task)
    await client.subscribe(SERVICE, cb=on_request, pending_msgs_limit=0, pending_bytes_limit=0)
    await client.flush()
    pipe.ready()
    await pipe.completion(complete, ledger.progress)
    await client.drain()
    return pipe.Report(faults=ledger.faults())


async def call(task: pipe.Task) -> pipe.Report:
    """Make the calls with `in_flight` callers that each wait for their answer before they ask again."""
    client = await _connect(task)

    async def ask(number: int) -> None:
        answer = decode((await client.request(SERVICE, encode(make_event(0, number)), timeout=10)).data)["id"]
        if answer != number:
            raise RuntimeError(f"request {number} was given the answer of request {answer}")

    report = await pipe.calls(task, ask)
    await client.close()
    return report


if __name__ == "__main__":
    roles = {"publish": publish, "subscribe": subscribe, "serve": serve, "call": call}
    pipe.run({name: pipe.blocking(role) for name, role in roles.items()})

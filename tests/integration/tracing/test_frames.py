"""In which frames of a publisher that leaves traces its events and requests leave."""

from typing import Any

from tests.integration.tracing.conftest import Program

RECORDED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_RECORDED = f"{RECORDED[:-2]}00"
NONE = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}

FRAMES = """
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, decode_payload

server = Plugin("server")

@server.service("ask")
async def ask():
    pass

async def drain(pieces):
    async for piece in pieces:
        pass

def names(packets):
    said = [each for each in packets if isinstance(each, p.Publish | p.Call)]
    return [each.subject if isinstance(each, p.Publish) else each.service for each in said]

async def run(work):
    async with mesh() as m:
        await m.start(server)
        client, frames = await m.client(), []
        client._peer.traces = True
        transmit = client._out._transmit
        client._out._transmit = lambda frame: frames.append(decode_frame(frame)[1]) or transmit(frame)
        await work(m, client, frames)
"""


def sent(program: Program, work: str, **environ: str) -> Any:
    """Run a piece of work; returns what it printed, or else the names of what each frame carried."""
    show = "\nawait m.settle()\nprint(json.dumps([said for each in frames if (said := names(each))]))"
    body = "\n".join("    " + line for line in (work.strip() + ("" if "print" in work else show)).splitlines())
    return program.run(f"{FRAMES}\nasync def work(m, client, frames):\n{body}\nasyncio.run(run(work))", **environ)


def test_what_is_recorded_begins_a_frame(program: Program) -> None:
    recorded = f'headers={{"traceparent": "{RECORDED}"}}'
    # As if a request were under way: without one the first would leave at once.
    work = f"""
client._peer.calls._replies[0] = asyncio.get_running_loop().create_future(), float("inf")
await client.publish("a")
await client.publish("b", {recorded})
await client.publish("c")
asked = asyncio.create_task(client.call("server.ask", {recorded}))
streamed = asyncio.create_task(drain(client.stream("server.ask", {recorded})))
await asyncio.sleep(0)
await client.publish("d", {recorded}, retain=True)
await client.publish("e", bytes(40_000), {recorded})
await asyncio.gather(asked, streamed)
del client._peer.calls._replies[0]
"""
    assert sent(program, work, **NONE) == [["a"], ["b", "c"], ["server.ask"], ["server.ask"], ["d"], ["e"]]


def test_what_was_decided_not_to_be_recorded_shares_a_frame(program: Program) -> None:
    work = f'for name in "abc":\n    await client.publish(name, headers={{"traceparent": "{NOT_RECORDED}"}})'
    assert sent(program, work, **NONE) == [["a", "b", "c"]]


def test_a_process_that_records_everything_does_not_send_a_frame_for_each_event(program: Program) -> None:
    work = 'for name in "abc":\n    await client.publish(name)'
    for sampler in ("parentbased_always_on", "always_on"):
        assert sent(program, work, OTEL_TRACES_SAMPLER=sampler) == [["a", "b", "c"]]
    assert len({span.trace_id for span in program.spans() if span.name.startswith("send ")}) == 6


def test_a_tight_loop_of_recorded_events_lets_others_have_a_turn(program: Program) -> None:
    work = f"""
async def publish():
    for _ in range(200):
        await client.publish("a", bytes(1000), headers={{"traceparent": "{RECORDED}"}})
turns, publishing = 0, asyncio.create_task(publish())
while not publishing.done():
    turns += 1
    await asyncio.sleep(0)
print(turns)
"""
    # 200 kB, in frames of 32 KiB.
    assert sent(program, work, **NONE) > 5


def test_a_recorded_event_is_as_it_was_when_it_was_published_and_what_is_wrong_is_told_at_once(
    program: Program,
) -> None:
    work = f"""
recorded = {{"traceparent": "{RECORDED}"}}
client._out.outbox.allowance, missing, told = 0, client._out.outbox.allowance, []
data = [1]
waiting = asyncio.create_task(client.publish("a", data, headers=recorded))
await asyncio.sleep(0)
data.append(2)
for subject, what in (("a b", 1), ("a", object()), ("a", bytes(9_000_000))):
    try:
        async with asyncio.timeout(1):
            await client.publish(subject, what, headers=recorded)
    except Exception as error:
        told.append(getattr(error, "code", "timeout"))
client._out.add_credit(missing)
await waiting
print(json.dumps([told, (await m.published.wait("a")).data]))
"""
    assert sent(program, work, **NONE) == [["bad_subject", "bad_request", "too_large"], [1]]


def test_the_trace_comes_before_the_headers_that_the_publisher_gives(program: Program) -> None:
    work = """
await client.publish("a", headers={"long": "x" * 2000, "traceparent": "PARENT", "tracestate": "a=b"})
event = await m.published.wait("a")
print(json.dumps([list(event.headers), event.headers["traceparent"] == "PARENT"]))
"""
    assert sent(program, work.replace("PARENT", RECORDED), **NONE) == [["traceparent", "tracestate", "long"], False]

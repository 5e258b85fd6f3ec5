"""What spans a bus leaves: one process with an in-memory mesh, and a real receiver."""

from typing import Any

from tests.integration.tracing.conftest import Program

PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RECORDED = f"00-{PARENT[0]}-{PARENT[1]}-01"
NOT_RECORDED = f"00-{PARENT[0]}-{PARENT[1]}-00"

SHOP = """
shop = Plugin("shop", version="1.2.0")

@shop.subscribe("order.*", group="sellers")
async def on_order(event: Event) -> None:
    if event.data == "bad":
        raise ValueError("a bad order")
    await shop.publish("parcel.sent", await shop.call("shop.price", event.data))

@shop.service("price")
async def price(order):
    if order == "unknown":
        raise CallError("not_found", "no such order")
    return 12

@shop.service("lines")
async def lines():
    yield 1
    yield 2

async def run(work):
    async with mesh() as m:
        await m.start(shop)
        client = await m.client()
        await work(m, client)
        await m.settle()
"""


def shop(program: Program, work: str, **environ: str) -> Any:
    """Run a piece of work beside the shop; returns what it printed."""
    body = "\n".join("    " + line for line in work.strip().splitlines())
    return program.run(f"{SHOP}\nasync def work(m, client):\n{body}\nasyncio.run(run(work))", **environ)


def test_an_event_is_a_tree_of_what_it_led_to(program: Program) -> None:
    shop(program, 'await client.publish("order.new", 1, headers={"message-id": "m1"})')
    send, process = program.span("send order.new"), program.span("process order.*")
    assert (send.kind, send.parent_id, process.kind) == ("producer", "", "consumer")
    assert process.parent_id == send.span_id
    assert process.links == [(send.trace_id, send.span_id)]
    assert program.span("shop.price", "client").parent_id == process.span_id
    assert program.span("shop.price", "server").parent_id == program.span("shop.price", "client").span_id
    assert program.span("send parcel.sent").parent_id == process.span_id
    # The mesh in memory listens, too.
    flow = [span for span in program.spans() if span.trace_id == send.trace_id and span.name != "process >"]
    assert len(flow) == 5


def test_attributes_follow_the_conventions(program: Program) -> None:
    shop(program, 'await client.publish("order.new", 1, headers={"message-id": "m1"})')
    common = {"messaging.system": "plugmesh", "messaging.destination.name": "order.new", "messaging.message.id": "m1"}
    sent = {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    processed = {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    where = {"messaging.destination.template": "order.*", "messaging.consumer.group.name": "sellers"}
    assert program.span("send order.new").attributes == common | sent
    assert program.span("process order.*").attributes == common | processed | where
    called = {"rpc.system.name": "plugmesh", "rpc.method": "shop.price"}
    assert [span.attributes for span in program.spans("shop.price")] == [called, called]


def test_what_goes_wrong_is_on_the_span(program: Program) -> None:
    work = 'await client.publish("order.new", "bad")\nawait client.publish("order.old", "unknown")'
    shop(program, work)
    failures = {
        (span.kind, span.attributes["error.type"], span.attributes.get("rpc.response.status_code"))
        for span in program.spans()
        if span.failed
    }
    assert failures == {
        ("consumer", "ValueError", None),
        ("client", "not_found", "not_found"),
        ("server", "not_found", "not_found"),
        ("consumer", "not_found", "not_found"),
    }


def test_a_batch_is_one_span_with_a_link_to_each_event(program: Program) -> None:
    work = """
seen = []
async def on_batch(events):
    seen.append(len(events))
    await client.publish("done")
async with client.subscribe("item.*", on_batch, batch=3, batch_wait=5.0):
    for name in "abc":
        await client.publish(f"item.{name}")
    while not seen:
        await asyncio.sleep(0)
"""
    shop(program, work)
    batch = program.span("process item.*")
    sent = [program.span(f"send item.{name}") for name in "abc"]
    assert batch.links == [(span.trace_id, span.span_id) for span in sent]
    assert batch.parent_id == ""
    assert batch.attributes["messaging.batch.message_count"] == 3
    assert program.span("send done").parent_id == batch.span_id


def test_a_stream_is_one_span_until_its_end(program: Program) -> None:
    work = 'async for _ in client.stream("shop.lines"):\n    await client.publish("got.line")'
    shop(program, work)
    call, server = program.span("shop.lines", "client"), program.span("shop.lines", "server")
    assert server.parent_id == call.span_id
    assert call.ended >= max(span.ended for span in program.spans("send got.line"))


def test_an_iterated_event_is_a_receive_span(program: Program) -> None:
    work = """
async with client.subscribe("a.*") as events:
    await client.publish("a.b")
    await anext(events)
"""
    shop(program, work)
    receive, send = program.span("receive a.*"), program.span("send a.b")
    assert (receive.kind, receive.parent_id) == ("client", send.span_id)


def test_a_plain_handler_in_a_thread_stays_in_the_trace(program: Program) -> None:
    work = """
def on_thing(event):
    m.plugin_blocking.publish("thread.said")
m.plugin_blocking = shop.blocking
async with client.subscribe("thing", on_thing):
    await client.publish("thing")
    await m.published.wait("thread.said")
"""
    shop(program, work)
    assert program.span("send thread.said").parent_id == program.span("process thing").span_id


def test_a_task_that_outlives_its_handler_begins_a_trace_of_its_own(program: Program) -> None:
    work = """
async def later():
    await ended.wait()
    await client.publish("much.later")
async def on_thing(event):
    tasks.append(asyncio.create_task(later()))
tasks, ended = [], asyncio.Event()
async with client.subscribe("thing", on_thing):
    await client.publish("thing")
    await m.settle()
    ended.set()
    await tasks[0]
"""
    shop(program, work)
    assert program.span("send much.later").trace_id != program.span("process thing").trace_id


def test_baggage_and_tracestate_travel_with_the_trace(program: Program) -> None:
    for parent in (RECORDED, NOT_RECORDED):
        headers = f'{{"traceparent": "{parent}", "tracestate": "a=b", "baggage": "shop=7"}}'
        answer = program.run(
            SHOP
            + f"""
async def work(m, client):
    await client.publish("order.new", 1, headers={headers})
    event = await m.published.wait("parcel.sent")
    print(json.dumps(event.headers))
asyncio.run(run(work))"""
        )
        assert answer["tracestate"] == "a=b"
        assert answer["baggage"] == "shop=7"
        assert answer["traceparent"].split("-")[1] == PARENT[0]
        assert answer["traceparent"][-1] in ("13" if parent is RECORDED else "02")


def test_a_publisher_who_gives_a_traceparent_himself_is_the_parent(program: Program) -> None:
    shop(program, f'await client.publish("order.new", 1, headers={{"traceparent": "{RECORDED}"}})')
    send = program.span("send order.new")
    assert (send.trace_id, send.parent_id) == PARENT


def test_a_malformed_traceparent_is_as_good_as_none(program: Program) -> None:
    shop(program, 'await client.publish("order.new", 1, headers={"traceparent": "00-nonsense-01"})')
    send = program.span("send order.new")
    assert program.span("process order.*").trace_id == send.trace_id


def test_what_the_sender_does_not_record_nobody_records(program: Program) -> None:
    work = f"""
async def on_parcel(event):
    from opentelemetry import trace
    with trace.get_tracer("own").start_as_current_span("own span"):
        await client.publish("parcel.seen")
async with client.subscribe("parcel.sent", on_parcel):
    await client.publish("order.new", 1, headers={{"traceparent": "{NOT_RECORDED}"}})
    await m.published.wait("parcel.seen")
"""
    shop(program, work)
    assert program.spans("process order.*") == []
    assert program.spans("shop.price") == []
    assert program.spans("process parcel.sent") == []
    assert program.spans("own span") == []


def test_a_batch_with_one_recorded_event_is_recorded_at_any_ratio(program: Program) -> None:
    work = f"""
seen = []
async def on_batch(events):
    seen.append(len(events))
async with client.subscribe("item.*", on_batch, batch=2, batch_wait=5.0):
    await client.publish("item.a")
    await client.publish("item.b", headers={{"traceparent": "{RECORDED}"}})
    while not seen:
        await asyncio.sleep(0)
"""
    shop(program, work, OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0")
    batch = program.span("process item.*")
    assert (program.span("send item.b").trace_id, program.span("send item.b").span_id) in batch.links
    assert program.spans("send item.a") == []


def test_what_is_said_within_a_trace_changes_nothing_of_how_many_begin(program: Program) -> None:
    work = """
from opentelemetry.context import attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
within = set_span_in_context(NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(0))))
client._peer.traces = True
for _ in range(1000):
    await client.publish("root")
    token = attach(within)
    for _ in range(3):
        await client.publish("within")
    detach(token)
"""
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    shop(program, work, **ratio, BROKER_TRACES_PER_SEC="inf", OTEL_BSP_MAX_QUEUE_SIZE="5000")
    # Ten sigma.
    assert abs(len(program.spans("send root")) - 500) < 160
    assert not program.spans("send within")


def test_a_task_on_its_own_account_begins_as_many_traces_as_everybody(program: Program) -> None:
    work = """
client._peer.traces = True
ended, tasks = asyncio.Event(), []
async def on_thing(event):
    tasks.append(asyncio.create_task(later(f"after.{event.subject}")))
async def later(subject):
    await ended.wait()
    for _ in range(1000):
        await client.publish(subject)
async with client.subscribe("*", on_thing):
    await client.publish("recorded", headers={"traceparent": PARENT})
    await client.publish("bare")
    while len(tasks) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    ended.set()
    await asyncio.gather(*tasks)
"""
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.2"}
    unbounded = {"BROKER_TRACES_PER_SEC": "inf", "OTEL_BSP_MAX_QUEUE_SIZE": "5000"}
    shop(program, work.replace("PARENT", repr(RECORDED)), **ratio, **unbounded)
    # Ten sigma.
    assert abs(len(program.spans("send after.recorded")) - 200) < 130
    assert abs(len(program.spans("send after.bare")) - 200) < 130


def test_under_a_broker_that_traces_no_more_every_event_says_again_that_it_is_not_recorded(program: Program) -> None:
    work = """
seen = []
async with client.subscribe("item", lambda event: seen.append("traceparent" in event.headers)):
    for traces, number in ((True, 20), (False, 40)):
        client._peer.traces = traces
        client._peer.reconnect("for the test")
        await client.ready()
        client._peer.traces = traces
        for _ in range(20):
            await client.publish("item")
        while len(seen) < number:
            await asyncio.sleep(0)
print(json.dumps(seen))
"""
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    assert shop(program, work, **ratio) == [False] * 20 + [True] * 20


def test_what_is_published_while_the_broker_is_away_says_what_the_next_broker_must_know(program: Program) -> None:
    work = """
seen = []
async with client.subscribe("item", lambda event: seen.append("traceparent" in event.headers)):
    client._peer.traces = True
    client._peer.reconnect("for the test")
    for _ in range(20):
        await client.publish("item")
    while len(seen) < 20:
        await asyncio.sleep(0)
print(json.dumps(seen))
"""
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    assert shop(program, work, **ratio) == [True] * 20


def test_a_sampler_that_only_opentelemetry_knows_decides_each_span(program: Program) -> None:
    shop(
        program,
        f'await client.publish("order.new", 1, headers={{"traceparent": "{NOT_RECORDED}"}})',
        OTEL_TRACES_SAMPLER="always_on",
    )
    assert program.span("process order.*").trace_id == PARENT[0]


def test_a_program_that_sets_up_opentelemetry_itself_is_traced_without_variables(program: Program) -> None:
    setting = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter("{program.receiver.endpoint}/v1/traces")))
trace.set_tracer_provider(provider)
"""
    script = (
        f'{setting}{SHOP}\nasync def work(m, client):\n    await client.publish("order.new", 1)\nasyncio.run(run(work))'
    )
    program.run(script, OTEL_EXPORTER_OTLP_ENDPOINT="")
    assert program.span("process order.*").parent_id == program.span("send order.new").span_id


def test_log_lines_name_the_trace_that_they_belong_to(program: Program) -> None:
    work = """
import logging
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record)
logging.getLogger().addHandler(Keep())
async def on_thing(event):
    logging.getLogger("mine").warning("seen")
async with client.subscribe("thing", on_thing):
    await client.publish("thing")
    await client.publish("thing", headers={"traceparent": PARENT})
    await m.settle()
logging.getLogger("mine").warning("outside")
print(json.dumps([getattr(each, "trace", "") for each in records if each.name == "mine"]))
"""
    inside, unrecorded, outside = shop(program, work.replace("PARENT", repr(NOT_RECORDED)))
    (process,) = program.spans("process thing")
    assert inside == f" trace_id={process.trace_id} span_id={process.span_id}"
    assert unrecorded.startswith(f" trace_id={PARENT[0]} span_id=")
    assert outside == ""


def test_a_bad_collector_delays_neither_the_work_nor_the_end(program: Program, bad_collector: str) -> None:
    work = """
for number in range(3000):
    await client.publish("many", number)
"""
    timed = """
began = time.perf_counter()
asyncio.run(run(work))
worked = time.perf_counter()
exporting.finish()
print(json.dumps([worked - began, time.perf_counter() - worked]))
"""
    body = "\n".join("    " + line for line in work.strip().splitlines())
    script = f"{SHOP}\nasync def work(m, client):\n{body}\n{timed}"
    runs = [(program.run(script, OTEL_EXPORTER_OTLP_ENDPOINT=bad_collector), program.run(script)) for _ in range(3)]
    assert min(worked for (worked, _), _ in runs) < 2 * min(worked for _, (worked, _) in runs), runs
    assert min(ended for (_, ended), _ in runs) < 1.0, runs

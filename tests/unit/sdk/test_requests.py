"""Calls and services: every request ends once, for the right caller, with the right cause."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugin_sdk import Bus, BusError, CallError, ConnectionLost, Plugin, ServiceOptions
from plugin_sdk.testing import Mesh


@pytest.fixture
def plugin() -> Plugin:
    return Plugin("shop")


async def outcome(call: Any) -> tuple[str, str]:
    with pytest.raises(CallError) as caught:
        await call
    return caught.value.code, caught.value.text


async def test_coroutines_plain_functions_and_generators_serve(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("coroutine")
    async def coroutine(a: int, b: int = 2) -> int:
        return a + b

    @plugin.service("plain")
    def plain(a: int) -> str:
        return f"{a} in {threading.current_thread().name.split('_')[0]}"

    @plugin.service("stream")
    async def stream(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    bus = await mesh.client()
    await mesh.start(plugin)
    assert await bus.call("shop.coroutine", {"a": 1}) == 3
    assert await bus.call("shop.plain", 5) == "5 in plugin-handler"
    assert [piece async for piece in bus.stream("shop.stream", 500)] == list(range(500))


async def test_arguments_that_do_not_fit_are_a_bad_request_that_names_them(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("add")
    async def add(a: int, b: int) -> int:
        return a + b

    bus = await mesh.client()
    await mesh.start(plugin)
    code, text = await outcome(bus.call("shop.add", {"a": 1, "c": 3}))
    assert code == "bad_request"
    assert text == "the arguments do not fit shop.add: 'b' is missing, 'c' is unknown (it takes a, b)"


async def test_a_type_error_inside_a_handler_is_its_failure_and_not_the_callers(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("add")
    async def add(a: Any) -> int:
        return 1 + int(a["number"])

    bus = await mesh.client()
    await mesh.start(plugin)
    code, text = await outcome(bus.call("shop.add", 5))
    assert (code, text.split(":")[0]) == ("failed", "TypeError")


async def test_only_a_fault_of_the_handler_is_logged_with_its_traceback(
    mesh: Mesh, plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    @plugin.service("get")
    async def get(user: str) -> None:
        raise CallError("failed", f"there is no room for {user}") if user else LookupError("a fault")

    bus = await mesh.client()
    await mesh.start(plugin)
    assert await outcome(bus.call("shop.get", "anna")) == ("failed", "there is no room for anna")
    assert not caplog.records
    assert await outcome(bus.call("shop.get", "")) == ("failed", "LookupError: a fault")
    assert [str(record.exc_info and record.exc_info[1]) for record in caplog.records] == ["a fault"]


async def test_a_handler_answers_with_a_code_text_and_details_of_its_own(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("get")
    async def get(user: str) -> None:
        raise CallError("not_found", f"there is no user {user}", {"user": user})

    bus = await mesh.client()
    await mesh.start(plugin)
    with pytest.raises(CallError) as caught:
        await bus.call("shop.get", "ada")
    assert (caught.value.code, caught.value.text) == ("not_found", "there is no user ada")
    assert caught.value.details == {"user": "ada"}


async def test_what_a_handler_met_when_it_called_others_is_not_passed_off_as_its_own(
    mesh: Mesh, plugin: Plugin
) -> None:
    """`unavailable` promises that nothing has run, and says that another try may help."""

    @plugin.service("order")
    async def order() -> None:
        await plugin.call("warehouse.reserve")

    bus = await mesh.client()
    await mesh.start(plugin)
    code, text = await outcome(bus.call("shop.order"))
    assert code == "failed"
    assert "unavailable: no plugin serves 'warehouse.reserve'" in text


@pytest.mark.parametrize(
    "error",
    [
        BusError("x" * 65, "a code that is too long"),
        BusError("long", "x" * 20_000),
        CallError("odd", "details that cannot travel", {"when": object()}),
        CallError("odd", "details that the wire forbids", {"bytes": b"\x00"}),
        CallError("odd", "details that are nested too deep", [[[[[[[1]]]]]]]),
        CallError("odd", "details that are larger than a frame", "x" * 9_000_000),
        BusError(404, "a code that is no text"),  # type: ignore[arg-type]
    ],
)
async def test_an_error_that_breaks_a_limit_of_the_wire_still_ends_the_request(
    mesh: Mesh, plugin: Plugin, error: BusError
) -> None:
    @plugin.service("odd")
    async def odd() -> None:
        raise error

    @plugin.service("well")
    async def well() -> str:
        return "well"

    bus = await mesh.client()
    await mesh.start(plugin)
    answers = await asyncio.gather(bus.call("shop.odd"), bus.call("shop.well"), return_exceptions=True)
    assert isinstance(answers[0], CallError)
    assert answers[0].code in ("failed", "odd", "long")
    assert answers[1] == "well"


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [(bytes(9_000_000), "too_large", "stream it"), (object(), "failed", "unsupported"), ({1, "a"}, None, "")],
)
async def test_a_result_that_cannot_travel_ends_the_request_with_the_reason(
    mesh: Mesh, plugin: Plugin, result: Any, code: str | None, words: str
) -> None:
    @plugin.service("big")
    async def big() -> Any:
        return result

    bus = await mesh.client()
    await mesh.start(plugin)
    if code is None:
        assert set(await bus.call("shop.big")) == result
        return
    got, text = await outcome(bus.call("shop.big"))
    assert got == code
    assert words in text


async def test_a_handler_that_overruns_its_own_limit_fails_and_the_next_request_is_served(
    mesh: Mesh, plugin: Plugin
) -> None:
    @plugin.service("slow", timeout=3.0, concurrency=1)
    async def slow(wait: bool) -> str:
        if wait:
            await asyncio.Event().wait()
        return "done"

    bus = await mesh.client()
    await mesh.start(plugin)
    stuck = asyncio.create_task(bus.call("shop.slow", True, timeout=60))
    following = asyncio.create_task(bus.call("shop.slow", False, timeout=60))
    await mesh.advance(3.1)
    assert await outcome(stuck) == ("failed", "Overrun: it exceeded its time limit of 3 s")
    assert await following == "done"


async def test_the_deadline_ends_the_request_at_its_time_and_cancels_the_handler(mesh: Mesh, plugin: Plugin) -> None:
    cancelled = []

    @plugin.service("slow")
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("slow")
            raise

    bus = await mesh.client()
    await mesh.start(plugin)
    call = asyncio.create_task(bus.call("shop.slow", timeout=30))
    await mesh.advance(29.9)
    assert not call.done()
    await mesh.advance(0.2)
    assert (await outcome(call))[0] == "timeout"
    assert cancelled == ["slow"]
    assert plugin.stats()["requests_failed"] == 0


async def test_a_call_that_is_cancelled_cancels_its_handler(mesh: Mesh, plugin: Plugin) -> None:
    cancelled = asyncio.Event()

    @plugin.service("slow")
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bus = await mesh.client()
    await mesh.start(plugin)
    call = asyncio.create_task(bus.call("shop.slow"))
    await mesh.settle()
    call.cancel()
    await asyncio.wait_for(cancelled.wait(), 1)
    await mesh.settle()
    assert mesh.snapshot().counters["requests_cancelled"] == 1


async def test_the_worker_of_a_cancelled_request_serves_the_next_one_with_its_limits_intact(
    mesh: Mesh, plugin: Plugin
) -> None:
    @plugin.service("slow", concurrency=1)
    async def slow(swallow: bool) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not swallow:
                raise
        return "too late for anybody"

    @plugin.service("limited", concurrency=1)
    async def limited() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "its own limit works"
        return "?"

    bus = await mesh.client()
    await mesh.start(plugin)
    for swallow in (True, False, True):
        call = asyncio.create_task(bus.call("shop.slow", swallow))
        await mesh.settle()
        call.cancel()
        await mesh.settle()
    assert await bus.call("shop.limited") == "its own limit works"
    assert plugin.stats()["busy_secs"] == 0.0


async def test_a_stream_that_nobody_reads_any_more_closes_its_generator_at_once(mesh: Mesh, plugin: Plugin) -> None:
    closed = asyncio.Event()

    @plugin.service("endless")
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    bus = await mesh.client()
    await mesh.start(plugin)
    stream = bus.stream("shop.endless")
    assert await anext(stream) == 1
    await stream.aclose()
    await asyncio.wait_for(closed.wait(), 1)


async def test_a_stream_waits_for_a_reader_who_takes_his_time(mesh: Mesh, plugin: Plugin) -> None:
    sent = 0

    @plugin.service("endless")
    async def endless() -> AsyncIterator[int]:
        nonlocal sent
        while True:
            sent += 1
            yield sent

    bus = await mesh.client()
    await mesh.start(plugin)
    stream = bus.stream("shop.endless")
    assert await anext(stream) == 1
    await mesh.settle()
    assert sent <= 65
    assert [await anext(stream) for _ in range(200)][-1] == 201
    await stream.aclose()


async def test_the_time_limit_of_a_stream_does_not_cancel_what_its_reader_does(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("two")
    async def two() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    bus = await mesh.client()
    await mesh.start(plugin)
    stream = bus.stream("shop.two", timeout=2.0)
    assert await anext(stream) == 1
    # The reader's own waiting, far beyond the limit of the stream.
    waiting = asyncio.create_task(asyncio.sleep(10))
    await mesh.advance(10.1)
    await waiting
    with pytest.raises(CallError, match="timeout"):
        await anext(stream)


async def test_an_error_in_the_middle_of_a_stream_comes_after_what_was_sent(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("broken")
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise CallError("broken", "no more")

    bus = await mesh.client()
    await mesh.start(plugin)
    stream = bus.stream("shop.broken")
    assert await anext(stream) == 1
    with pytest.raises(CallError, match="broken: no more"):
        await anext(stream)


async def test_streaming_and_not_streaming_can_be_told_apart(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("one")
    async def one() -> int:
        return 1

    @plugin.service("many")
    async def many() -> AsyncIterator[int]:
        yield 1

    bus = await mesh.client()
    await mesh.start(plugin)
    assert [piece async for piece in bus.stream("shop.one")] == [1]
    assert (await outcome(bus.call("shop.many")))[0] == "bad_request"


async def test_a_handler_can_ask_who_calls(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("who")
    async def who(greeting: str, *, caller: dict[str, Any]) -> str:
        return f"{greeting}, {caller['role']} {caller['name']}"

    bus = await mesh.client("ada")
    await mesh.start(plugin)
    assert await bus.call("shop.who", "Hello") == "Hello, client ada"


async def test_no_more_requests_than_its_concurrency_are_in_a_handler(mesh: Mesh, plugin: Plugin) -> None:
    inside, gate = [], asyncio.Event()

    @plugin.service("slow", concurrency=2)
    async def slow(number: int) -> None:
        inside.append(number)
        await gate.wait()

    bus = await mesh.client()
    await mesh.start(plugin)
    calls = [asyncio.create_task(bus.call("shop.slow", number)) for number in range(6)]
    await mesh.settle()
    assert inside == [0, 1]
    gate.set()
    await asyncio.gather(*calls)
    assert inside == list(range(6))


async def test_a_service_that_stops_answers_what_it_has_in_hand(mesh: Mesh, plugin: Plugin) -> None:
    gate = asyncio.Event()

    @plugin.service("slow")
    async def slow() -> str:
        await gate.wait()
        return "done"

    bus = await mesh.client()
    await mesh.start(plugin)
    call = asyncio.create_task(bus.call("shop.slow"))
    await mesh.settle()
    stopping = asyncio.create_task(mesh.command(plugin, "stop"))
    await mesh.settle()
    assert (await outcome(bus.call("shop.slow")))[0] == "unavailable"
    gate.set()
    assert await call == "done"
    assert await stopping == "stopped"


async def test_a_name_is_served_once_and_a_second_try_leaves_the_first_alone(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("get")
    async def get() -> str:
        return "first"

    bus = await mesh.client()
    await mesh.start(plugin)
    with pytest.raises(BusError, match=r"service 'shop\.get' is served by this session already"):
        await plugin.bus.serve("shop.get", lambda: "second")
    assert await bus.call("shop.get") == "first"


async def test_a_refused_service_says_why_and_is_gone(mesh: Mesh, plugin: Plugin) -> None:
    await mesh.start(plugin)
    with pytest.raises(CallError, match=r"denied: .* may not serve 'other\.get'"):
        await plugin.bus.serve("other.get", lambda: None)
    assert [service.name for service in plugin.bus.services() if service.announced] == []


@pytest.mark.parametrize(
    ("times", "complaint"),
    [({"timeout": -1}, "timeout is -1 s"), ({"timeout": float("nan")}, "nan"), ({"timeout": 1e9}, "use 0 to 86400")],
)
async def test_times_that_make_no_sense_are_refused_where_they_are_written(
    mesh: Mesh, times: dict[str, Any], complaint: str
) -> None:
    bus = await mesh.client()
    with pytest.raises(ValueError, match=complaint):
        await bus.call("shop.get", **times)
    with pytest.raises(ValueError, match=r"concurrency is 0|timeout is"):
        ServiceOptions(concurrency=0)


async def test_a_bad_name_in_one_call_costs_no_other_call_of_the_same_frame(mesh: Mesh, plugin: Plugin) -> None:
    @plugin.service("get")
    async def get() -> str:
        return "well"

    bus = await mesh.client()
    await mesh.start(plugin)
    names = ["shop.get", "x" * 300, "not a subject", "shop.get"]
    answers: list[Any] = await asyncio.gather(*(bus.call(name) for name in names), return_exceptions=True)
    assert [answers[0], answers[1].code, answers[2].code, answers[3]] == ["well", "bad_subject", "bad_subject", "well"]


async def test_a_closed_bus_refuses_everything_at_once(mesh: Mesh) -> None:
    bus: Bus = await mesh.client()
    await bus.close()
    for attempt in (bus.publish("a.b"), bus.call("a.b"), bus.subscribe("a.b").start(), anext(bus.stream("a.b"))):
        with pytest.raises(ConnectionLost, match="this side closed the session"):
            await attempt


async def test_what_a_withdrawn_service_has_in_hand_is_answered_first(mesh: Mesh, plugin: Plugin) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    @plugin.service("get")
    async def get() -> str:
        begun.set()
        await gate.wait()
        return "here"

    bus = await mesh.client()
    await mesh.start(plugin)
    asking = asyncio.create_task(bus.call("shop.get"))
    await begun.wait()
    withdrawing = asyncio.create_task(plugin.bus.withdraw("shop.get"))
    await mesh.settle()
    with pytest.raises(CallError, match="unavailable"):
        await bus.call("shop.get")
    assert not withdrawing.done()
    gate.set()
    assert await asking == "here"
    await withdrawing

"""One measurement of one system: its endpoint processes, their synchronised start, their checked reports."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import msgspec

from tools.benchmark.child import BenchmarkError, Child, module_command
from tools.benchmark.figures import percentile
from tools.benchmark.meter import Meter
from tools.benchmark.roles.pipe import GO, PATIENCE_SECS, READY, Report, Task
from tools.benchmark.scenarios import Events, Requests, Size
from tools.benchmark.systems.base import System

_READY_SECS = 30.0
# An endpoint gives up by itself after PATIENCE_SECS of silence and then says what is missing: let it speak.
_REPORT_SECS = 60.0 + PATIENCE_SECS

# By unit.
Values = Mapping[str, float]


def measure_events(system: System, scenario: Events, size: Size, meter: Meter | None = None) -> Values:
    """Measure throughput from the first delivery to the last, in the receivers' clocks.

    Returns `events/s` (published) and, for more than one subscriber, `deliveries/s` (to all of them together).
    Raises BenchmarkError when any event was lost, doubled or reordered at any subscriber.
    """
    with ExitStack() as stack:

        def spawn(role: str, index: int) -> Child:
            task = _task(system, role, size, index=index, publishers=scenario.publishers)
            return _spawn(stack, system, task)

        subscribers = [spawn("subscribe", index) for index in range(scenario.subscribers)]
        publishers = [spawn("publish", index) for index in range(scenario.publishers)]
        _await_ready(subscribers)
        for publisher in publishers:
            publisher.tell(GO)
        reports = _reports(subscribers)
        _note(meter, [*reports, *_reports(publishers)])
    seconds = _seconds(reports)
    events = scenario.publishers * size.count / seconds
    if scenario.subscribers == 1:
        return {"events/s": events}
    return {"deliveries/s": events * scenario.subscribers, "events/s": events}


def measure_requests(system: System, scenario: Requests, size: Size, meter: Meter | None = None) -> Values:
    """Measure calls of one caller process to one server process.

    Returns `µs p50` and `µs p99` of single calls for one in flight, `calls/s` for more.
    Raises BenchmarkError when an answer belongs to another call or a request did not run exactly once.
    """
    with ExitStack() as stack:
        server = _spawn(stack, system, _task(system, "serve", size))
        _await_ready([server])
        caller = _spawn(stack, system, _task(system, "call", size, in_flight=scenario.in_flight))
        _await_ready([caller])
        caller.tell(GO)
        reports = _reports([caller, server])
        _note(meter, reports)
    report = reports[0]
    if scenario.in_flight == 1:
        return {
            "µs p50": percentile(report.latencies_ns, 0.50) / 1000,
            "µs p99": percentile(report.latencies_ns, 0.99) / 1000,
        }
    return {"calls/s": size.count / _seconds([report])}


def _note(meter: Meter | None, reports: Sequence[Report]) -> None:
    if meter is not None:
        meter.note(reports)


def _task(system: System, role: str, size: Size, **more: int) -> Task:
    return Task(role=role, address=system.address(), count=size.count, warmup=size.warmup, **more)


def _spawn(stack: ExitStack, system: System, task: Task) -> Child:
    command = module_command(system.roles, msgspec.json.encode(task).decode())
    name = f"{system.name}: {task.role} {task.index}"
    return stack.enter_context(Child(name, command, system.environment()))


def _await_ready(endpoints: Sequence[Child]) -> None:
    for endpoint in endpoints:
        line = endpoint.hear(_READY_SECS) + b"\n"
        if line != READY:
            raise endpoint.failure(f"said {line!r} where it should have said {READY!r}")


def _reports(endpoints: Sequence[Child]) -> list[Report]:
    reports = [msgspec.json.decode(endpoint.hear(_REPORT_SECS), type=Report) for endpoint in endpoints]
    for endpoint, report in zip(endpoints, reports, strict=True):
        if report.faults:
            raise BenchmarkError(f"{endpoint.name}: " + "; ".join(report.faults))
    return reports


def _seconds(reports: Sequence[Report]) -> float:
    return (max(report.ended_ns for report in reports) - min(report.began_ns for report in reports)) / 1e9

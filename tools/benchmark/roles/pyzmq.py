"""Endpoints on bare ZeroMQ: blocking loops, one frame a message, nothing in between that is not needed."""

from contextlib import suppress
from itertools import islice, pairwise
from time import monotonic_ns

import zmq

from tools.benchmark.ledger import Ledger, RequestLedger
from tools.benchmark.payload import END, PROBE, decode, encode, make_event, numbers
from tools.benchmark.roles import pipe

_PATIENCE_MS = int(pipe.PATIENCE_SECS * 1000)
_SETTLE_MS = int(pipe.SETTLE_SECS * 1000)


def _connect(kind: int, task: pipe.Task, door: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    # Without a mark PUB and SUB keep everything: what is lost here would not be measured but missing.
    socket.set_hwm(0)
    socket.rcvtimeo = _PATIENCE_MS
    socket.connect(f"{task.address}/{door}")
    return socket


def publish(task: pipe.Task) -> pipe.Report:
    """Send this publisher's events."""
    socket = _connect(zmq.PUB, task, "publishers")
    while not pipe.told(pipe.PROBE_SECS):
        socket.send(encode(make_event(task.index, PROBE)))
    began = monotonic_ns()
    for number in numbers(task.count, task.warmup):
        socket.send(encode(make_event(task.index, number)))
    ended = monotonic_ns()
    zmq.Context.instance().destroy(linger=_PATIENCE_MS)
    return pipe.Report(began_ns=began, ended_ns=ended)


def subscribe(task: pipe.Task) -> pipe.Report:
    """Receive and check the events of all publishers."""
    ledger = Ledger(task.publishers, task.count, on_ready=pipe.ready)
    socket = _connect(zmq.SUB, task, "subscribers")
    socket.subscribe(b"")
    with suppress(zmq.Again):
        while not ledger.complete:
            _take(ledger, socket)
    while socket.poll(_SETTLE_MS):
        _take(ledger, socket)
    return pipe.Report(began_ns=ledger.began_ns, ended_ns=ledger.ended_ns, faults=ledger.faults())


def _take(ledger: Ledger, socket: zmq.Socket[bytes]) -> None:
    event = decode(socket.recv())
    ledger.take(event["publisher"], event["id"])


def serve(task: pipe.Task) -> pipe.Report:
    """Answer every request with its own body."""
    ledger = RequestLedger(task.count)
    socket = _connect(zmq.REP, task, "servers")
    pipe.ready()
    number = 0
    while number != END:
        request = decode(socket.recv())
        number = request["id"]
        ledger.take(number)
        socket.send(encode(request))
    socket.close(linger=_PATIENCE_MS)
    return pipe.Report(faults=ledger.faults())


def call(task: pipe.Task) -> pipe.Report:
    """Make the calls one at a time over REQ, or `in_flight` at once over DEALER."""
    socket = _connect(zmq.REQ, task, "callers")
    for _ in range(task.warmup):
        _call(socket, PROBE)
    pipe.ready()
    pipe.told(pipe.PATIENCE_SECS)
    report = _call_in_turn(socket, task) if task.in_flight == 1 else _call_at_once(task)
    _call(socket, END)
    return report


def _call(socket: zmq.Socket[bytes], number: int) -> None:
    socket.send(encode(make_event(0, number)))
    answer = decode(socket.recv())["id"]
    if answer != number:
        raise RuntimeError(f"request {number} was given the answer of request {answer}")


def _call_in_turn(socket: zmq.Socket[bytes], task: pipe.Task) -> pipe.Report:
    stamps = [monotonic_ns()]
    for number in range(task.count):
        _call(socket, number)
        stamps.append(monotonic_ns())
    latencies = [later - earlier for earlier, later in pairwise(stamps)]
    return pipe.Report(began_ns=stamps[0], ended_ns=stamps[-1], latencies_ns=latencies)


def _call_at_once(task: pipe.Task) -> pipe.Report:
    socket = _connect(zmq.DEALER, task, "callers")
    pending: set[int] = set()
    waiting = iter(range(task.count))
    began = monotonic_ns()
    for number in islice(waiting, task.in_flight):
        _send(socket, pending, number)
    while pending:
        # A number that is not pending raises KeyError: an answer came twice or belongs to nobody.
        pending.remove(decode(socket.recv_multipart()[1])["id"])
        for number in waiting:
            _send(socket, pending, number)
            break
    return pipe.Report(began_ns=began, ended_ns=monotonic_ns())


def _send(socket: zmq.Socket[bytes], pending: set[int], number: int) -> None:
    pending.add(number)
    # The empty frame is the envelope that REP at the other end demands.
    socket.send_multipart((b"", encode(make_event(0, number))))


if __name__ == "__main__":
    pipe.run({"publish": publish, "subscribe": subscribe, "serve": serve, "call": call})

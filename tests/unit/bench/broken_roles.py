"""Endpoints for the tests: bare ZeroMQ, damaged in the way that the environment variable DAMAGE says."""

import os
from collections.abc import Callable, Iterator

from tools.benchmark.payload import encode, make_event, numbers
from tools.benchmark.roles import pipe, pyzmq

_PUBLISHING: dict[str, Callable[[list[int]], None]] = {
    "lose": lambda sent: sent.remove(7),
    "double": lambda sent: sent.insert(sent.index(7), 7),
    "swap": lambda sent: sent.insert(sent.index(7), sent.pop(sent.index(8))),
}


def publish(task: pipe.Task) -> pipe.Report:
    """Publish like the real role, with one event lost, doubled or swapped with the next."""

    def damaged(count: int, warmup: int) -> Iterator[int]:
        sent = list(numbers(count, warmup))
        _PUBLISHING[os.environ["DAMAGE"]](sent)
        return iter(sent)

    vars(pyzmq)["numbers"] = damaged
    return pyzmq.publish(task)


def serve(task: pipe.Task) -> pipe.Report:
    """Serve like the real role, but give request 7 the answer of request 6."""

    def confused(request: dict[str, object]) -> bytes:
        return encode(make_event(0, 6)) if request["id"] == 7 else encode(request)

    vars(pyzmq)["encode"] = confused
    return pyzmq.serve(task)


def call(task: pipe.Task) -> pipe.Report:
    """Call like the real role, or die before the first call."""
    if os.environ["DAMAGE"] == "die":
        raise SystemExit("the caller was killed")
    return pyzmq.call(task)


if __name__ == "__main__":
    pipe.run({"publish": publish, "subscribe": pyzmq.subscribe, "serve": serve, "call": call})

"""Plugins that need each other in chains, started and stopped: in order, and in what time beside one chain alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from tools.scaling.figures import Figure, ScaleError
from tools.scaling.mesh import fresh_broker

SLOTS = 10
SLACK = 1.2

Moments = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Shape:
    """How many plugins need each other, and how long each of them takes.

    Args:
        start: seconds that a plugin waits in its start, such as for a database; `cleanup` likewise. Long enough that
            the CPU time of a hundred interpreters, which is not the supervisor's, is not what is measured on few cores.
    """

    chains: int = 10
    depth: int = 10
    start: float = 2.0
    cleanup: float = 0.5


def measure(progress: Callable[[str], None], shape: Shape = Shape()) -> list[Figure]:
    """Starts and stops one chain, then all of them; raises ScaleError when the order was not kept."""
    lone_start, lone_stop = _trial(replace(shape, chains=1))
    progress(f"one chain of {shape.depth}: up in {lone_start:.2f} s, down in {lone_stop:.2f} s")
    start, stop = _trial(shape)
    detail = "that of one chain alone and 20 %"
    number = shape.chains * shape.depth
    return [
        Figure(f"start of {number} plugins", start, SLACK * lone_start, "s", detail),
        Figure(f"stop of {number} plugins", stop, SLACK * lone_stop, "s", detail),
    ]


def _trial(shape: Shape) -> tuple[float, float]:
    with fresh_broker() as broker:
        for chain in range(shape.chains):
            for depth in range(shape.depth):
                below = _name(chain, depth - 1) if depth else ""
                broker.add(_name(chain, depth), below, shape.start, shape.cleanup)
        broker.run()
        broker.until_started(shape.chains * shape.depth)
        started = broker.moments()
        check_start(started)
        stop = broker.stop()
        _check_stop(broker.moments())
    first, last = (
        pick(each[what] for each in started.values()) for pick, what in ((min, "began"), (max, "start done"))
    )
    return last - first, stop


def _name(chain: int, depth: int) -> str:
    return f"chain{chain}-{depth}"


def _links(moments: Moments) -> Iterator[tuple[str, str]]:
    """Each plugin with the one that it requires."""
    for name in moments:
        chain, _, depth = name.rpartition("-")
        if depth != "0":
            yield name, f"{chain}-{int(depth) - 1}"


def check_start(moments: Moments) -> None:
    """Raises ScaleError when the order of dependency or the number of slots was not kept."""
    for name, below in _links(moments):
        if moments[name]["began"] < moments[below]["start done"]:
            raise ScaleError(f"{name} began before {below}, which it requires, was started")
    steps = [(each["began"], 1) for each in moments.values()] + [(each["start done"], -1) for each in moments.values()]
    under_way = most = 0
    for _, step in sorted(steps):
        under_way += step
        most = max(most, under_way)
    if most > SLOTS:
        raise ScaleError(f"{most} plugins were on their way up at the same time, {SLOTS} are allowed")


def _check_stop(moments: Moments) -> None:
    for name, below in _links(moments):
        if "cleanup done" not in moments[name]:
            raise ScaleError(f"{name} was not cleaned up")
        if moments[below]["cleanup"] < moments[name]["cleanup done"]:
            raise ScaleError(f"{below} was cleaned up before {name}, which requires it")

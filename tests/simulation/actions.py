"""What may happen, by chance: traffic, slowness, and every failure of network, processes and broker."""

from __future__ import annotations

from collections.abc import Callable

from plugin_sdk.keeper import SILENT_BEATS
from tests.simulation.broker import HEARTBEAT, WIDE
from tests.simulation.caller import Order, make
from tests.simulation.process import Process
from tests.simulation.reader import Plan, Reader
from tests.simulation.world import World

SUBJECTS = ("a.b", "a.c", "a.b.c", "d")
PATTERNS = ("a.*", "a.b", "a.>", ">", "d", "*.c")
SERVICES = ("front.echo", "back.echo", "back.echo", "front.lines", "back.lines", "nobody.echo")
MAX_READERS = 6  # of one process
NOTICED_SECS = (SILENT_BEATS + 2) * HEARTBEAT  # after which a session cannot be over without its process knowing

Action = Callable[[World], None]


def act(world: World) -> None:
    """Do one thing."""
    world.chance.choices(_ACTIONS, _WEIGHTS)[0](world)


def _some(world: World) -> Process | None:
    able = world.open_processes()
    return world.chance.choice(able) if able else None


def _publish(world: World) -> None:
    process = _some(world)
    if process is None:
        return
    chance = world.chance
    subject, size = chance.choice(SUBJECTS), chance.choice((0, 0, 10, 200, 1900))
    count, retain = chance.choice((1, 1, 3, 10, 25)), chance.random() < 0.1
    if world.broker.router.limits is WIDE:
        count *= 4  # several full frames
    world.note(f"{process.who} publishes {count} events of {size} bytes to {subject}{' retained' if retain else ''}")
    process.publisher.order(subject, size, count, retain)


def _subscribe(world: World) -> None:
    process = _some(world)
    chance = world.chance
    if process is None or sum(not each.ending for each in process.readers.values()) >= MAX_READERS:
        return
    iterate = chance.random() < 0.2
    options = {"overflow": chance.choice(("block", "block", "drop_oldest", "drop_newest", "disconnect"))}
    more = {
        "group": chance.choice((None, None, "g", "h")),
        "max_pending": chance.choice((None, None, 1, 3)),
        "batch": 0 if iterate else chance.choice((0, 0, 4)),
        "concurrency": 1 if iterate else chance.choice((1, 1, 3)),
        "filtered": chance.random() < 0.2,
    }
    if more["batch"]:
        more["concurrency"] = 1  # batches that are gathered side by side have no order between them
    if more["group"] is None:
        more["last"] = chance.random() < 0.3
    secs, fails_on = chance.choice((0.0, 0.0, 0.0, 0.02, 0.2)), chance.choice((0, 0, 3))
    plan = Plan(chance.choice(PATTERNS), {**options, **more}, iterate, secs, fails_on)
    world.note(f"{process.who} subscribes to {plan}")
    process.spawn("subscribing", Reader(process, plan).start)


def _unsubscribe(world: World) -> None:
    process = _some(world)
    readers = [each for each in process.readers.values() if not each.ending] if process is not None else []
    if process is None or not readers:
        return
    reader = world.chance.choice(readers)
    if reader.in_force:
        world.note(f"{process.who} unsubscribes from {reader.subscription.pattern}")
        process.spawn("unsubscribing", reader.stop)


def _call(world: World) -> None:
    process = _some(world)
    if process is None:
        return
    chance = world.chance
    for _ in range(chance.choice((1, 1, 2, 7))):
        service = chance.choice(SERVICES)
        order = Order(
            world.next_call(),
            service,
            mode=chance.choice(("ok", "ok", "ok", "fail", "nest")),
            secs=chance.choice((0.0, 0.0, 0.01, 0.3)),
            timeout=chance.choice((0.05, 0.5, 3.0)),
            wait_ready=chance.choice((0.0, 0.0, 0.4)),
            pieces=chance.choice((1, 7, 15)) if service.endswith("lines") else 0,
            take=chance.choice((2, 99, 99)),
        )
        world.note(f"{process.who} calls {order}")
        task = process.spawn("calling", make, world, process, order)
        if chance.random() < 0.15:
            world.loop.call_later(chance.choice((0.0, 0.002, 0.1)), task.cancel)


def _serve(world: World) -> None:
    process = _some(world)
    if process is None or not process.offers:
        return
    name, concurrency = world.chance.choice(sorted(process.offers)), world.chance.choice((1, 2, 64))
    world.note(f"{process.who} serves {name}, {concurrency} at a time")
    process.spawn("serving", process.serve, name, concurrency)


def _withdraw(world: World) -> None:
    process = _some(world)
    if process is None or not process.offers:
        return
    name = world.chance.choice(sorted(process.offers))
    world.note(f"{process.who} withdraws {name}")
    process.spawn("withdrawing", process.withdraw, name)


def _drop(world: World) -> None:
    process = _some(world)
    if process is None or process.link is None:
        return
    unnoticed = world.chance.choice((0.0, 0.1, 3.0))
    world.note(f"the connection of {process.who} breaks, which the broker notices within {unnoticed} s")
    process.link.drop(unnoticed)


def _stop_reading(world: World) -> None:
    process = _some(world)
    if process is None or process.link is None:
        return
    secs = world.chance.choice((0.05, 0.5, 2.0))
    world.note(f"{process.who} reads nothing for {secs} s")
    process.link.stop_reading()
    world.loop.call_later(secs, process.link.go_on_reading)


def _partition(world: World) -> None:
    process = _some(world)
    if process is None or process.link is None:
        return
    secs = world.chance.choice((0.05, 1.0, 4.0))
    world.note(f"{process.who} cannot be reached for {secs} s")
    process.link.cut_off()
    world.loop.call_later(secs, process.link.reconnect)


def _lose_silently(world: World) -> None:
    process = _some(world)
    if process is None or process.link is None or process.peer is None:
        return
    world.note(f"the connection of {process.who} is gone, and it is not told")
    process.link.lose_silently()
    world.loop.call_later(NOTICED_SECS, process.check_noticed, process.peer.number, process.link.connection)


def _kill(world: World) -> None:
    process = _some(world)
    if process is not None:
        world.note(f"{process.who} is killed")
        process.kill(world.chance.choice((0.0, 0.0, 3.0)))


def _leave(world: World) -> None:
    process = _some(world)
    if process is not None:
        world.note(f"{process.who} leaves")
        process.leave()


def _return(world: World) -> None:
    gone = [slot for slot, process in enumerate(world.slots) if not process.alive]
    if gone:
        slot = world.chance.choice(gone)
        world.replace(slot)
        world.note(f"{world.slots[slot].who} starts")


def _kill_broker(world: World) -> None:
    if not world.broker.is_up:
        return
    secs = world.chance.choice((0.0, 0.2, 3.0))
    world.note(f"the broker is killed, and started again after {secs} s")
    world.broker.kill()
    for process in world.slots:
        if process.alive and process.link is not None:
            process.link.drop(0.0)
    world.loop.call_later(secs, world.broker.start)


_ODDS: dict[Action, int] = {
    _publish: 30,
    _subscribe: 16,
    _unsubscribe: 6,
    _call: 20,
    _serve: 5,
    _withdraw: 4,
    _drop: 4,
    _stop_reading: 4,
    _partition: 3,
    _lose_silently: 2,
    _kill: 3,
    _leave: 1,
    _return: 7,
    _kill_broker: 1,
}
_ACTIONS, _WEIGHTS = list(_ODDS), list(_ODDS.values())

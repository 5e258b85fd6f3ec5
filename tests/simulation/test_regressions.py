"""What the simulation has found, as the shortest stories that show it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from plugin_sdk.client import Bus
from plugin_sdk.link import Listener
from plugin_sdk.peer import Peer
from plugin_sdk.registration import Profile
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import decode_frame, encode_frame
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process
from tests.simulation.reader import Plan, Reader
from tests.simulation.run import simulate
from tests.simulation.world import World

WIDE, BACK = 4, 2  # a seed whose broker grants much credit; the slot of a plugin


def in_order(*story: Callable[[World, Process], None]) -> Callable[[World], None]:
    """An `act` for `simulate` that does one thing after the other, all with the process in slot BACK."""
    steps: Iterator[Callable[[World, Process], None]] = iter(story)
    return lambda world: next(steps)(world, world.slots[BACK])


def cut_off(world: World, process: Process, secs: float) -> None:
    """Nothing gets through for some time."""
    assert process.link is not None
    process.link.cut_off()
    world.loop.call_later(secs, process.link.reconnect)


class LinkThatBreaksAtOnce:
    """A link to a broker that admits everybody, whose first connection ends together with the answer."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.registrations = 0
        self._loop = loop
        self._listener: Listener | None = None

    def open(self, listener: Listener) -> None:
        self._listener = listener
        self._loop.call_soon(listener.on_up)

    def send(self, frame: bytes) -> bool:
        if type(decode_frame(frame)[1][0]) is p.Register:
            self.registrations += 1
            self._loop.call_soon(self._admit, self.registrations)
        return True

    def close(self) -> None:
        self._listener = None

    def _admit(self, number: int) -> None:
        assert self._listener is not None
        self._listener.on_frames([encode_frame(number, [p.Registered(1, number, 5000, 1000, "some")])])
        if number == 1:
            self._listener.on_down("the connection broke")
            self._listener.on_up()


def test_a_session_that_is_lost_in_the_turn_in_which_it_was_won_is_registered_again() -> None:
    async def story() -> None:
        link = LinkThatBreaksAtOnce(loop)
        bus = Bus(Peer(link, Profile("client", "some"), "key", "simulated"))
        await bus.open()
        await bus.ready(timeout=5.0)
        assert link.registrations == 2
        await bus.close()

    loop = VirtualLoop()
    loop.run_until_complete(asyncio.wait_for(story(), 10.0))
    loop.close()


def test_a_service_that_is_withdrawn_before_the_broker_has_answered_its_serve_is_gone_on_both_sides() -> None:
    def withdraw(world: World, process: Process) -> None:
        process.spawn("withdrawing", process.withdraw, "back.echo")

    def serve_while_cut_off(world: World, process: Process) -> None:
        cut_off(world, process, 0.05)
        process.spawn("serving", process.serve, "back.echo", 1)
        world.loop.call_later(0.01, withdraw, world, process)

    def wait(world: World, process: Process) -> None:
        """The broker has answered by then."""

    outcome = simulate(1, 8, in_order(withdraw, *[wait] * 6, serve_while_cut_off))
    assert not outcome.faults, outcome


def test_what_the_broker_grants_after_nobody_waits_for_it_any_more_is_given_back() -> None:
    async def answer() -> None:
        """Nobody asks."""

    def ask_while_cut_off(world: World, process: Process) -> None:
        # Long enough for the SDK to give up waiting, too short for it to give up the session.
        cut_off(world, process, 7.0)
        process.offers["back.more"] = answer
        process.spawn("serving", process.serve, "back.more", 1)
        process.spawn("subscribing", Reader(process, Plan("a.b", {})).start)

    outcome = simulate(1, 1, in_order(ask_while_cut_off))
    assert not outcome.faults, outcome


def test_what_is_published_while_nothing_gets_through_goes_out_in_frames_that_the_broker_accepts() -> None:
    def publish_while_cut_off(world: World, process: Process) -> None:
        world.network.capacity = 1
        cut_off(world, process, 0.5)
        process.publisher.order("a.b", 1900, 110, retain=False)

    outcome = simulate(WIDE, 1, in_order(publish_while_cut_off))
    assert not outcome.faults, outcome

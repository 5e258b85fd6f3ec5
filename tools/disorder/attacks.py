"""What a hostile peer may try beside the bounds: pretend to be another, never speak, come and go."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from broker.edge.transit import TRANSIT_BYTES
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import DEFAULT_LIMITS
from tools.disorder.guest import (
    CALL,
    CANCEL,
    CHUNK,
    CREDIT,
    ERROR,
    GOODBYE,
    OK,
    PING,
    PUBLISH,
    REFUSED,
    REPLY,
    SERVE,
    SUBSCRIBE,
    UNSUBSCRIBE,
    WITHDRAW,
    payload,
)
from tools.disorder.ring import SUBJECT, Harm, Ring, not_admitted, refused, wait_for

CROWD = 200  # connections at once
CHEST_BYTES = 4 * 1024 * 1024
GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL"  # the beginning of ZMTP's, without its end


def stay_unregistered(ring: Ring) -> None:
    """Many peers speak without ever registering: each is told so, and none has a session."""
    before = len(ring.sessions())
    guests = [ring.guest() for _ in range(CROWD)]
    try:
        for guest in guests:
            guest.send([PING, 1])
        for guest in guests:
            if guest.expect(REFUSED)[1] != "unknown_session":
                raise Harm("a frame without a session was not refused as unknown_session")
        if (after := len(ring.sessions())) > before:
            raise Harm(f"there are {after - before} sessions more, and nobody has registered")
    finally:
        for guest in guests:
            guest.close()


def never_speak(ring: Ring) -> None:
    """Many connections that say nothing, or only half of the transport's greeting."""
    mute = []
    try:
        for number in range(CROWD):
            raw = socket.socket(socket.AF_UNIX)
            raw.settimeout(5)
            mute.append(raw)
            raw.connect(str(ring.home.path / "run" / "broker.sock"))
            if number % 2:
                raw.sendall(GREETING)
        ring.victims.check()
        with ring.guest("late") as late:
            if not late.is_heard():
                raise Harm("nobody is heard beside connections that do not speak")
    finally:
        for raw in mute:
            raw.close()


def come_and_go(ring: Ring, cycles: int = 300) -> None:
    """Peers that register, subscribe and serve, and vanish without a word, again and again."""
    for _ in range(cycles):
        name = f"brief-{time.monotonic_ns()}"
        with ring.guest(name, "plugin") as guest:
            guest.send([SUBSCRIBE, 1, "brief.>"], [SERVE, 2, f"{name}.x"], [CALL, 3, "echo.back", payload(), 9999])


def answer_for_others(ring: Ring) -> None:
    """A peer answers requests that are not its own: replies, errors and chunks for every number there may be."""
    with ring.guest("liar", "plugin") as liar:
        for begin in range(1, 20_000, 500):
            numbers = range(begin, begin + 500)
            liar.send(*([REPLY, number, payload(b"\xa3lie")] for number in numbers))
            liar.send(*([ERROR, number, "failed", "a lie"] for number in numbers))
            liar.send(*([CHUNK, number, payload(b"\xa3lie")] for number in numbers), *([CANCEL, n] for n in numbers))
            liar.send(*([CREDIT, number, 1] for number in numbers))
        ring.victims.check()
        if not liar.is_heard():
            raise Harm("answers to requests that have ended are to be ignored, and cost a session")


def forge_session(ring: Ring) -> None:
    """A registered peer speaks under the session numbers of all others."""
    others = ring.sessions()
    with ring.guest("forger") as forger:
        for number in others:
            forger.send([GOODBYE, "goodbye", "forged"], session=number)
            forger.send([UNSUBSCRIBE, 1, 1], [WITHDRAW, 2, "echo.back"], session=number)
            for _ in range(2):
                if forger.expect(REFUSED)[1] != "unknown_session":
                    raise Harm("a forged session number was not refused as unknown_session")
        if not forger.is_heard():
            raise Harm("its own session does not stand any more")
    victims = {number for number, each in others.items() if each["name"] in ("victim", "echo")}
    if victims - ring.sessions().keys():
        raise Harm("a session ended by a frame that somebody else had sent")


def choose_routing_id(ring: Ring) -> None:
    """A routing id of one's own choice: whoever took the same one later would hear what was for the first."""
    for routing_id in (b"mine", bytes(200), b"\x00minor", b"zero!"):
        with ring.guest(routing_id=routing_id) as guest:
            not_admitted(guest.register, "bad_packet")


def take_routing_id(ring: Ring) -> None:
    """Routing ids like those that the ROUTER gives, all over the range: none is that of another."""
    with ring.guest("source") as source:
        guests = [ring.guest(routing_id=b"\x00" + (step << 24).to_bytes(4, "big")) for step in range(CROWD)]
        try:
            for guest in guests:
                guest.send([PING, 1])
            source.send([PUBLISH, 0, "secret.event", payload()])
            for guest in guests:
                if any(packet[0] != REFUSED for packet in guest.listen(0.01)):
                    raise Harm("a peer without a session was told something that was not for it")
        finally:
            for guest in guests:
                guest.close()


def take_a_name(ring: Ring) -> None:
    """Names that others have: of a plugin that runs, of the broker itself, and services of others."""
    with ring.guest() as guest:
        not_admitted(lambda: guest.register("echo", "plugin"), "duplicate_name")
        not_admitted(lambda: guest.register("$broker", "plugin"), "bad_name")
        not_admitted(lambda: guest.register("echo", "plugin", token="guessed"), "bad_token")
        guest.register("thief", "plugin")
        guest.send([SERVE, 1, "echo.back"])
        refused(guest, "denied", 1)
        guest.send([SERVE, 2, "$broker.status"])
        refused(guest, "denied", 2)
        guest.send([PUBLISH, 0, "$broker.up", payload()])
        refused(guest, "denied")


def ask_too_early(ring: Ring) -> None:
    """REFs that are in use, or none: the request that runs under it is not harmed."""
    with ring.guest("slow", "plugin") as server, ring.guest("hasty") as caller:
        server.send([SERVE, 1, "slow.one"])
        server.expect(OK, ref=1)
        caller.send([CALL, 1, "slow.one", payload(), 10_000])
        request = server.asked("slow.one")
        caller.send([CALL, 1, "slow.one", payload(), 10_000])
        refused(caller, "bad_packet")
        caller.send([CALL, 0, "slow.one", payload(), 10_000])
        refused(caller, "bad_packet")
        server.send([REPLY, request, payload(b"\x01")])
        if (answer := caller.expect(REPLY, ERROR, ref=1))[0] != REPLY:
            raise Harm(f"the request that ran all the while was answered with {answer}")


def use_every_policy(ring: Ring) -> None:
    """Subscriptions with more pairs of policy and bound than a session may have."""
    with ring.guest("choosy") as guest:
        options = ({"overflow": "drop_oldest", "max_pending": bound} for bound in range(1, 18))
        guest.send(*([SUBSCRIBE, ref, SUBJECT, None, each] for ref, each in enumerate(options, 1)))
        refused(guest, "limit", 17)


def register_again_and_again(ring: Ring) -> None:
    """A thousand registrations over one connection: the session stays the same, and is not harmed by other names."""
    with ring.guest() as guest:
        first = guest.register("again", nonce="mine")
        for _ in range(1000):
            if guest.register("again", nonce="mine") != first:
                raise Harm("a repeated registration made another session")
        try:
            guest.register("other", nonce="mine")
        except BusError as error:
            if error.code != "already_registered":
                raise Harm(f"a registration over a connection that has one was refused with {error}") from None
        guest.session = first
        if not guest.is_heard():
            raise Harm("a refused registration ended the session")


def deafen(ring: Ring) -> None:
    """A subscriber that makes publishers wait goes away in the middle: they go on."""
    with ring.guest("source") as source:
        with ring.guest("deaf") as deaf:
            deaf.send([SUBSCRIBE, 1, SUBJECT])
            deaf.expect(OK, ref=1)
            time.sleep(0.5)
        wait_for(lambda: not any(each["name"] == "deaf" for each in ring.sessions().values()), "it is given up")
        ring.victims.check()
        if not source.is_heard():
            raise Harm("a bystander is not heard any more")


def hoard_large_answers(ring: Ring) -> None:
    """A peer lets itself be answered with megabytes and reads none: ZeroMQ must not hold them beside all bounds."""
    room = DEFAULT_LIMITS.outbox_bytes + TRANSIT_BYTES + 2 * CHEST_BYTES
    with ring.guest("giving", "plugin") as server, ring.guest("hoarding", queue=1) as caller:
        server.send([SERVE, 1, "giving.chest"])
        server.expect(OK, ref=1)
        number = room // CHEST_BYTES + 4  # and what is in the kernel and in its own ZeroMQ
        caller.send(*([CALL, ref, "giving.chest", payload(), 60_000] for ref in range(1, number + 1)))
        for _ in range(number):
            server.send([REPLY, server.asked("giving.chest"), payload(bytes(CHEST_BYTES))])
        wait_for(lambda: caller.session not in ring.sessions(), "the session that does not read has ended")


ATTACKS: tuple[Callable[[Ring], None], ...] = (
    stay_unregistered,
    never_speak,
    come_and_go,
    answer_for_others,
    forge_session,
    choose_routing_id,
    take_routing_id,
    take_a_name,
    ask_too_early,
    use_every_policy,
    register_again_and_again,
    deafen,
    hoard_large_answers,
)

"""Every bound of plugin_sdk/wire/limits.py, reached on purpose: a typed error for who does it, nothing for others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from broker.edge.server import QUEUED_FRAMES
from plugin_sdk.wire.limits import (
    DEFAULT_LIMITS,
    EVENT_OVERHEAD,
    MAX_INFO_ITEMS,
    MAX_INFO_NESTING,
    MAX_NAME_BYTES,
    MAX_SUBJECT_BYTES,
    MAX_SUBJECT_TOKENS,
    MAX_TEXT_BYTES,
    MAX_TOKEN_BYTES,
)
from tools.disorder.guest import (
    CALL,
    CANCEL,
    CHUNK,
    CREDIT,
    ERROR,
    EVENT,
    GOODBYE,
    OK,
    PING,
    PUBLISH,
    REPLY,
    SERVE,
    SUBSCRIBE,
    Guest,
    payload,
)
from tools.disorder.ring import Harm, Ring, not_admitted, refused, wait_for

MIB = 1 << 20
PORTION = 500  # packets of one frame, where many are needed
REPLY_BYTES = MIB // 16  # more than a frame takes beside others


def send_many(guest: Guest, packets: Iterable[list[Any]]) -> None:
    """Send any number of packets in frames of a moderate size."""
    portion: list[list[Any]] = []
    for packet in packets:
        portion.append(packet)
        if len(portion) == PORTION:
            guest.send(*portion)
            portion = []
    guest.send(*portion)


def versions(ring: Ring) -> None:
    """A protocol version that does not exist."""
    with ring.guest() as guest:
        not_admitted(lambda: guest.register(versions=[2, 99]), "bad_version")
        not_admitted(lambda: guest.register(versions=list(range(2, 40))), "bad_frame")


def subject_bytes(ring: Ring) -> None:
    """A subject of 257 bytes."""
    with ring.guest("long") as guest:
        guest.send([SUBSCRIBE, 1, "a" * MAX_SUBJECT_BYTES])
        guest.expect(OK, ref=1)
        guest.send([SUBSCRIBE, 2, "a" * (MAX_SUBJECT_BYTES + 1)])
        refused(guest, "bad_frame")
        guest.send([PUBLISH, 0, "a" * (MAX_SUBJECT_BYTES + 1), payload()])
        refused(guest, "bad_frame")


def subject_tokens(ring: Ring) -> None:
    """A subject of 17 tokens."""
    with ring.guest("deep") as guest:
        guest.send([SUBSCRIBE, 1, ".".join("a" * MAX_SUBJECT_TOKENS)])
        guest.expect(OK, ref=1)
        guest.send([SUBSCRIBE, 2, ".".join("a" * (MAX_SUBJECT_TOKENS + 1))])
        refused(guest, "bad_subject", 2)


def name_bytes(ring: Ring) -> None:
    """Names of 65 characters."""
    with ring.guest() as guest:
        not_admitted(lambda: guest.register("n" * (MAX_NAME_BYTES + 1)), "bad_frame")
        guest.register("n" * MAX_NAME_BYTES)
        guest.send([SUBSCRIBE, 1, "a", "g" * (MAX_NAME_BYTES + 1)])
        refused(guest, "bad_frame")


def text_bytes(ring: Ring) -> None:
    """A text of 16 KiB and one."""
    with ring.guest("wordy") as guest:
        guest.send([ERROR, 0, "failed", "t" * (MAX_TEXT_BYTES + 1)])
        refused(guest, "bad_frame")


def token_bytes(ring: Ring) -> None:
    """A token of 513 characters."""
    with ring.guest() as guest:
        not_admitted(lambda: guest.register(token="t" * (MAX_TOKEN_BYTES + 1)), "bad_frame")
        not_admitted(lambda: guest.register(token="t" * MAX_TOKEN_BYTES), "bad_token")


def info_items(ring: Ring) -> None:
    """Maps of 65 entries."""
    with ring.guest("many") as guest:
        guest.send([PING, 1, {str(number): 1 for number in range(MAX_INFO_ITEMS + 1)}])
        refused(guest, "bad_frame")
        options = {str(number): 1 for number in range(MAX_INFO_ITEMS)}
        guest.send([CALL, 1, "echo.back", payload(), 1000, options])
        refused(guest, "bad_packet", 1)


def info_nesting(ring: Ring) -> None:
    """Maps nested deeper than four levels, and so deep that a decoder without a bound overflows its stack."""
    with ring.guest("nested") as guest:
        nested: Any = 1
        for _ in range(MAX_INFO_NESTING):
            nested = [nested]
        guest.send([PING, 1, {"a": nested}])
        if not guest.is_heard():
            raise Harm(f"{MAX_INFO_NESTING} levels are allowed, and were refused")
        guest.send([PING, 1, {"a": [nested]}])
        refused(guest, "bad_frame")
        guest.send_raw(b"\x91" * 100_000)
        refused(guest, "bad_frame")


def frame_bytes(ring: Ring) -> None:
    """A frame over 8 MiB is answered, one over twice that ends the connection."""
    with ring.guest("fat") as guest:
        guest.send([PUBLISH, 0, "a", payload(bytes(DEFAULT_LIMITS.frame_bytes))])
        refused(guest, "too_large")
        guest.send_raw(bytes(2 * DEFAULT_LIMITS.frame_bytes + 1))
        wait_for(lambda: guest.session not in ring.sessions(), "the session of the huge frame has ended")


def packets_per_frame(ring: Ring) -> None:
    """A frame of 16,385 packets."""
    with ring.guest("small") as guest:
        guest.send(*([PING, number] for number in range(DEFAULT_LIMITS.packets_per_frame + 1)))
        refused(guest, "limit")


def subscriptions(ring: Ring) -> None:
    """One subscription more than 10,000."""
    most = DEFAULT_LIMITS.subscriptions
    with ring.guest("eager") as guest:
        send_many(guest, ([SUBSCRIBE, ref, f"eager.{ref}.>"] for ref in range(1, most + 2)))
        refused(guest, "limit", most + 1)
        guest.send([PUBLISH, 0, f"eager.{most}.x", payload(b"!")])
        if guest.expect(EVENT)[1] != [most]:
            raise Harm("the last subscription that was allowed got nothing")


def services(ring: Ring) -> None:
    """One service more than 1,024, put into force or announced."""
    most = DEFAULT_LIMITS.services
    with ring.guest() as guest:
        names = [f"busy.s{number}" for number in range(most + 1)]
        not_admitted(lambda: guest.register("busy", "plugin", services=names), "bad_frame")
        guest.register("busy", "plugin")
        send_many(guest, ([SERVE, ref, name] for ref, name in enumerate(names, 1)))
        refused(guest, "limit", most + 1)


def pending_requests(ring: Ring) -> None:
    """One request more than 4,096 that has not ended."""
    most = DEFAULT_LIMITS.pending_requests
    with ring.guest("asker") as guest:
        send_many(guest, waiting_calls(most + 1))
        refused(guest, "limit", most + 1)


def queued_requests(ring: Ring) -> None:
    """One request more than 4,096 that wait for the same service."""
    most = DEFAULT_LIMITS.queued_requests
    with ring.guest("first") as first, ring.guest("second") as second:
        send_many(first, waiting_calls(most))
        if not first.is_heard():
            raise Harm("the first caller was not heard any more")
        second.send(*waiting_calls(1))
        refused(second, "busy", 1)


def waiting_calls(number: int) -> Iterable[list[Any]]:
    """Calls that wait for a service that does not come."""
    return ([CALL, ref, "nobody.home", payload(), 60_000, {"wait_ready_ms": 60_000}] for ref in range(1, number + 1))


def timeout_ms(ring: Ring) -> None:
    """A timeout of more than a day, and none at all."""
    with ring.guest("patient") as guest:
        for ref, timeout in enumerate((DEFAULT_LIMITS.timeout_ms + 1, 0), 1):
            guest.send([CALL, ref, "echo.back", payload(), timeout])
            refused(guest, "bad_packet", ref)


def publish_credit(ring: Ring) -> None:
    """A publisher that goes on without credit, while a subscriber does not read."""
    overrun(ring, bytes(60_000))


def event_overhead(ring: Ring) -> None:
    """The same with empty events: they cost as well."""
    overrun(ring, b"")


def overrun(ring: Ring, body: bytes) -> None:
    """Publish until the session ends, which it must within windows, credit and a frame."""
    bound = DEFAULT_LIMITS.event_credit + DEFAULT_LIMITS.publish_credit + DEFAULT_LIMITS.frame_bytes
    number = 2 * bound // (len(body) + EVENT_OVERHEAD)
    portion = 1 if body else PORTION
    with ring.guest("deaf") as deaf, ring.guest("loud") as loud:
        deaf.send([SUBSCRIBE, 1, "loud.event"])
        deaf.expect(OK, ref=1)
        for _ in range(number // portion):
            loud.send(*([PUBLISH, 0, "loud.event", payload(body)] for _ in range(portion)))
        goodbye = loud.expect(GOODBYE)
        if goodbye[1] != "slow_consumer":
            raise Harm(f"the publisher without credit was sent off with {goodbye}")


def event_credit(ring: Ring) -> None:
    """A subscriber that claims endless credit and does not read: it gets four windows at most."""
    most = 4 * DEFAULT_LIMITS.event_credit
    with ring.guest("greedy", queue=1) as guest, ring.guest("source") as source:
        guest.send([CREDIT, 0, 2**63])
        refused(guest, "bad_frame")
        guest.send([SUBSCRIBE, 1, "greedy.event", None, {"overflow": "drop_oldest"}])
        guest.expect(OK, ref=1)
        guest.send(*([CREDIT, 0, 2**63 - 1] for _ in range(100)))
        publish_bytes(source, "greedy.event", 3 * most)
        if not source.is_heard():
            raise Harm("the publisher was not heard any more, though all its events may be dropped")
        if (waits := ring.sessions()[guest.session]["pending_bytes"]) > most + MIB:
            raise Harm(f"{waits} bytes are on their way to a peer that does not read")


def publish_bytes(guest: Guest, subject: str, total: int, size: int = 60_000) -> None:
    """Publish so many bytes, in events of this size."""
    for _ in range(total // size):
        guest.send([PUBLISH, 0, subject, payload(bytes(size))])


def chunk_credit(ring: Ring) -> None:
    """A service that sends one chunk more than it has credit for: its caller is told, and it is told to stop."""
    with ring.guest("gushing", "plugin") as server, ring.guest("thirsty") as caller:
        server.send([SERVE, 1, "gushing.all"])
        server.expect(OK, ref=1)
        caller.send([CALL, 1, "gushing.all", payload(), 10_000, {"stream": True}])
        request = server.asked("gushing.all")
        server.send(*([CHUNK, request, payload()] for _ in range(DEFAULT_LIMITS.chunk_credit + 1)))
        refused(caller, "limit", 1)
        server.expect(CANCEL, ref=request)


def backlog_bytes(ring: Ring) -> None:
    """More events than may wait for a subscriber: dropped and counted, or the end of its session, as it had asked."""
    before = ring.counters()["events_dropped"]
    with ring.guest("dropping") as dropping, ring.guest("leaving") as leaving, ring.guest("source") as source:
        dropping.send([SUBSCRIBE, 1, "much.event", None, {"overflow": "drop_newest"}])
        leaving.send([SUBSCRIBE, 1, "much.event", None, {"overflow": "disconnect"}])
        dropping.expect(OK, ref=1)
        leaving.expect(OK, ref=1)
        publish_bytes(source, "much.event", DEFAULT_LIMITS.event_credit + DEFAULT_LIMITS.backlog_bytes + 2 * MIB)
        if (goodbye := leaving.expect(GOODBYE))[1] != "slow_consumer":
            raise Harm(f"the subscriber that wanted to be disconnected was sent off with {goodbye}")
        if not dropping.is_heard() or not source.is_heard():
            raise Harm("a session ended that should not have")
        wait_for(lambda: ring.counters()["events_dropped"] > before, "the drops are counted")


def backlog_events(ring: Ring) -> None:
    """More empty events than may wait, and a bound beyond the bound."""
    most = DEFAULT_LIMITS.backlog_events
    before = ring.counters()["events_dropped"]
    with ring.guest("dropping") as guest, ring.guest("source") as source:
        guest.send([SUBSCRIBE, 1, "tiny.event", None, {"overflow": "drop_oldest", "max_pending": most + 1}])
        refused(guest, "bad_packet", 1)
        guest.send([SUBSCRIBE, 2, "tiny.event", None, {"overflow": "drop_oldest", "max_pending": most}])
        guest.expect(OK, ref=2)
        window = DEFAULT_LIMITS.event_credit // EVENT_OVERHEAD
        send_many(source, ([PUBLISH, 0, "tiny.event", payload()] for _ in range(window + most + PORTION)))
        wait_for(lambda: ring.counters()["events_dropped"] > before, "the drops are counted")


def outbox_bytes(ring: Ring) -> None:
    """A peer that lets others answer it and does not read at all: its session ends."""
    with ring.guest("answering", "plugin") as server, ring.guest("asking", queue=1) as caller:
        server.send([SERVE, 1, "answering.big"])
        server.expect(OK, ref=1)
        pile_up(server, caller, "answering.big", DEFAULT_LIMITS.outbox_bytes + 8 * MIB)
        wait_for(lambda: caller.session not in ring.sessions(), "the session that does not read has ended")


def total_bytes(ring: Ring) -> None:
    """Five such peers, each of them under its own bound: one of them has to go, and the others stay."""
    with ring.guest("replying", "plugin") as server, ExitStack() as stack:
        server.send([SERVE, 1, "replying.big"])
        server.expect(OK, ref=1)
        callers = [stack.enter_context(ring.guest(f"asking-{number}", queue=1)) for number in range(5)]
        for caller in callers:
            pile_up(server, caller, "replying.big", DEFAULT_LIMITS.total_bytes // 5 + 4 * MIB)
        sessions = {caller.session for caller in callers}
        wait_for(lambda: len(sessions & ring.sessions().keys()) == 4, "one of the sessions that do not read has ended")
        if (waits := ring.ask("$broker.status")["broker"]["waiting_bytes"]) > DEFAULT_LIMITS.total_bytes:
            raise Harm(f"{waits} bytes wait at the broker, after it has made room")
        if not server.is_heard():
            raise Harm("whoever answered those who do not read is not heard any more")


def pile_up(server: Guest, caller: Guest, service: str, total: int) -> None:
    """Have answers of so many bytes wait at the broker, beside those that are in the queues of the transport."""
    number = total // REPLY_BYTES + QUEUED_FRAMES
    caller.send(*([CALL, ref, service, payload(), 60_000] for ref in range(1, number + 1)))
    for _ in range(number):
        server.send([REPLY, server.asked(service), payload(bytes(REPLY_BYTES))])


def retained_subjects(ring: Ring) -> None:
    """One last value more than 10,000: the oldest is forgotten."""
    most = DEFAULT_LIMITS.retained_subjects
    before = ring.counters()["retained_evicted"]
    with ring.guest("memorable") as guest:
        send_many(guest, ([PUBLISH, 1, f"kept.{number}", payload()] for number in range(most + 1)))
        wait_for(lambda: ring.counters()["retained_evicted"] > before, "the oldest is forgotten")
        guest.send([SUBSCRIBE, 1, "kept.0", None, {"last": True}], [SUBSCRIBE, 2, f"kept.{most}", None, {"last": True}])
        if guest.expect(EVENT)[1] != [2]:
            raise Harm("the last value that was set longest ago is still there")


def retained_bytes(ring: Ring) -> None:
    """Last values of more than 16 MiB: the oldest are forgotten."""
    before = ring.counters()["retained_evicted"]
    with ring.guest("heavy") as guest:
        for number in range(DEFAULT_LIMITS.retained_bytes // MIB + 2):
            guest.send([PUBLISH, 1, f"heavy.{number}", payload(bytes(MIB))])
        wait_for(lambda: ring.counters()["retained_evicted"] > before, "the oldest are forgotten")


def cached_subjects(ring: Ring) -> None:
    """More subjects than the broker remembers routes for: it forgets them, and routes all the same."""
    most = DEFAULT_LIMITS.cached_subjects
    with ring.guest("inventive") as guest:
        guest.send([SUBSCRIBE, 1, f"new.{most + 1}"])
        send_many(guest, ([PUBLISH, 0, f"new.{number}", payload()] for number in range(most + 2)))
        guest.expect(EVENT, patience=30)


# By the name of the bound. FRAME_TARGET is no bound, but the size at which senders close a frame.
BOUNDS: dict[str, Callable[[Ring], None]] = {
    "PROTOCOL_VERSION": versions,
    "MAX_SUBJECT_BYTES": subject_bytes,
    "MAX_SUBJECT_TOKENS": subject_tokens,
    "MAX_NAME_BYTES": name_bytes,
    "MAX_TEXT_BYTES": text_bytes,
    "MAX_TOKEN_BYTES": token_bytes,
    "MAX_INFO_ITEMS": info_items,
    "MAX_INFO_NESTING": info_nesting,
    "EVENT_OVERHEAD": event_overhead,
    "frame_bytes": frame_bytes,
    "packets_per_frame": packets_per_frame,
    "subscriptions": subscriptions,
    "services": services,
    "pending_requests": pending_requests,
    "queued_requests": queued_requests,
    "publish_credit": publish_credit,
    "event_credit": event_credit,
    "chunk_credit": chunk_credit,
    "backlog_bytes": backlog_bytes,
    "backlog_events": backlog_events,
    "outbox_bytes": outbox_bytes,
    "total_bytes": total_bytes,
    "retained_subjects": retained_subjects,
    "retained_bytes": retained_bytes,
    "cached_subjects": cached_subjects,
    "timeout_ms": timeout_ms,
}

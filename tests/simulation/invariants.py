"""What must hold, in every run, whatever happens in it.

While it goes on (audit.py at the broker, publisher.py, reader.py and caller.py in the processes):
 1. Events of one publisher reach the broker, each subscription and its handler in the order of their publication.
 2. No event is handled twice, and no event of a queue group is sent to two members; what one was sent before the end
    of its subscription was confirmed, it takes.
 3. No event is lost in silence: from one session none is missing between two that arrived, and a subscription misses
    only what the broker has counted as dropped for it; nothing is dropped under `block` and `disconnect`. What waits
    under a policy that drops keeps to the bound, and who publishes to somebody that lags under `block` waits for it.
 4. Nobody gets what was not asked for: other subjects, unknown subscriptions, chunks of requests that have ended.
 5. A request ends once for its caller, is handed out and run once at most, and is answered by its own handler: no
    result is ever delivered to another call, and the pieces of a stream are complete and in order.
 6. A request ends at its deadline, never before, and after it within the resolution of deadlines; for the caller at
    the latest when it has waited in vain for a silent broker. It ends with the session of its caller or callee, and is
    cancelled by nobody else. It waits no longer for a service than it was told to, and not while an instance has room;
    no instance is handed more than it takes.
 7. The broker finds no fault with a peer that runs the SDK, and no session ends for good but for slowness. No process
    is kept out by a session of its own, or believes for long in one that is gone.
 8. No exception escapes, no task survives its cancellation, nothing waits without anything that could wake it.
 9. What waits at the broker for all peers together is counted right, and is never more than there is room for; who has
    to go is the one because of which most waits.
10. Who does not keep up is told of in time and once, and once more when that is over.
Once everything works again and nobody is given anything to do (this file):
11. All processes are registered, and both sides know the same subscriptions and services.
12. What was due was sent, or was counted as dropped, or was lost with a session that has ended; the broker has
    answered every request.
13. Credit is conserved. Of a publisher: allowance and what is still to be returned are the whole window, and both sides
    agree. Of a subscriber: what it gave and what it still owes are the whole window.
14. Nothing is outstanding: no request, no reply, no job, no waiting event, no debt.
When one process then asks of all services what they can do, and gives up more (exam.py):
15. Each answers, in full; what is given up ends at once on all sides; then 11 to 14 hold again.
When everybody has left in good order:
16. Their last words have reached the broker, and its tables are empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized

from tests.simulation.process import Process, probe_inlets
from tests.simulation.world import World


def unsettled(world: World) -> Iterator[str]:
    """What is not at rest yet; empty at quiescence."""
    if not world.broker.is_up:
        yield "the broker is down"
        return
    router = world.broker.router
    alive = [process for process in world.slots if process.alive]
    for process in alive:
        yield from _unsettled(world, process)
    if len(router._sessions) != len(alive):
        yield f"the broker has {len(router._sessions)} sessions of {len(alive)} processes"
    if len(router.requests):
        yield f"{len(router.requests)} requests are pending"
    if any(lane.waiting for session in router._sessions.values() for lane in session.lanes.values()):
        yield "events wait at the broker"
    port = world.network.port
    if port is not None and (port.inbox or any(len(c.up) or len(c.down) for c in port.connections.values())):
        yield "frames are on their way"


def _unsettled(world: World, process: Process) -> Iterator[str]:
    peer, bus = process.peer, process.bus
    if process.link is None or not process.link.is_well:
        yield f"{process.who} has no connection"
        return
    if peer is None or bus is None or not peer.is_open:
        yield f"{process.who} has no session"
        return
    session = world.broker.router.session(peer.number)
    if session is None:
        yield f"the broker does not know the session of {process.who}"
        return
    if peer.out.outbox.pending_bytes or session.outbox.pending_bytes:
        yield f"between {process.who} and the broker something is still to be said"
    if busy := process.busy():
        yield f"{process.who} is still {busy[0]}"
    if any(each.working or (each.arrived and not each.ending) for each in process.readers.values()):
        yield f"{process.who} has not handled all of its events"
    if missing := probe_inlets(process).keys() ^ session.subscriptions.keys():
        yield f"subscriptions {sorted(missing)} of {process.who} are known to one side only"
    if missing_services := {each.name for each in bus.services()} ^ session.instances.keys():
        yield f"services {sorted(missing_services)} of {process.who} are known to one side only"


def check_quiet(world: World) -> None:
    """Books, credit and counts at quiescence."""
    world.audit.check_books()
    for process in world.slots:
        if process.alive:
            _check_credit(world, process)
            _check_counts(world, process)
    router = world.broker.router
    if router.events._indebted or router.events.slow:
        world.fault("the broker remembers debts or slow peers, though nothing waits")


def _check_credit(world: World, process: Process) -> None:
    assert process.peer is not None, "it has registered"
    assert process.bus is not None, "it has registered"
    session = world.broker.router.session(process.peer.number)
    assert session is not None, "it has been looked for before"
    outbox, own = session.outbox, process.peer.out.outbox
    limits = world.broker.router.limits
    if outbox.allowance + outbox.consumed != limits.publish_credit:
        lost = limits.publish_credit - outbox.allowance - outbox.consumed
        world.fault(f"{process.who} lacks {lost} bytes of credit to publish, though nothing withholds any")
    if own.allowance != outbox.allowance:
        world.fault(f"{process.who} believes to have {own.allowance} bytes of credit, and has {outbox.allowance}")
    window = limits.event_credit
    owed = process.bus._inlets._owed
    if outbox.credit + owed != window:
        world.fault(f"{process.who} gave {outbox.credit} bytes of credit, owes {owed}, and the window is {window}")
    if lacking := process.publisher.lacking(process.peer.number):
        world.fault(f"events {lacking} of {process.who} never reached the broker")


def _check_counts(world: World, process: Process) -> None:
    assert process.peer is not None, "it has registered"
    assert process.bus is not None, "it has registered"
    session = world.broker.router.session(process.peer.number)
    assert session is not None, "it has been looked for before"
    outstanding = sum(each.outstanding for each in session.instances.values())
    counts = {
        "requests outstanding": outstanding,
        "calls": len(session.calls),
        "requests served": len(session.serving),
        "bytes of waiting requests": session.held,
        "replies awaited": len(process.peer.calls),
        "jobs in hand": len(process.bus._servers._jobs),
    }
    for what, count in counts.items():
        if count:
            world.fault(f"{process.who} has {count} {what}, though nothing goes on")


def leftovers(world: World) -> Iterator[str]:
    """What the broker still holds after everybody has left."""
    router = world.broker.router
    tables: dict[str, Sized] = {
        "sessions": router._sessions,
        "session numbers": router._peers.by_number,
        "plugins": router._peers._plugins,
        "standbys": router._peers._standby,
        "requests": router.requests._pending,
        "services": list(router.requests.services),
        "debts": router.events._indebted,
        "slow peers": router.events.slow,
        "strained lanes": router.events.strained,
        "strained lanes that are looked at": router.slow._strains,
        "slow consumers that were told of": world.audit.slow,
        "bytes that wait": range(router.backlog.size),
        "outboxes to flush": router.dirty,
        "connections": world.network.port.connections if world.network.port is not None else {},
    }
    for what, table in tables.items():
        if table:
            yield f"{len(table)} {what}"
    if not router.events._tree._root.is_empty():
        yield "subscriptions in the tree"

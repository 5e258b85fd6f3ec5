"""All that hostile peers may try, one after the other, against one broker, and what it costs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from plugin_sdk.wire.errors import BusError
from tools.disorder.attacks import ATTACKS, CROWD
from tools.disorder.bounds import BOUNDS
from tools.disorder.guest import Guest, NoAnswer
from tools.disorder.ring import Harm, Ring, wait_for

MIB = 1 << 20
HANDSHAKE_SECS = 30.0  # ZeroMQ closes a connection that has not introduced itself by then
SETTLE_SECS = 20.0
LEGS = 10  # parts of the cycles, after each of which the broker is measured
# Between the first and the last leg: the allocator may need a little more, and a connection is just being closed.
MORE_MEMORY, MORE_DESCRIPTORS = 2 * MIB, 1


@dataclass(slots=True)
class Findings:
    """What was found: `lines` for the report, `faults` for the exit status."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = [f"VIOLATED: {fault}" for fault in self.faults] or ["nobody else was harmed"]
        return "\n".join([*self.lines, *verdict])


def run_hostile(cycles: int) -> Findings:
    """Try everything.

    Args:
        cycles: how often to connect and disconnect.
    """
    findings = Findings(["chaos hostile"])
    with Ring() as ring:
        for name, attack in [*BOUNDS.items(), *((each.__name__, each) for each in ATTACKS)]:
            _try(findings, ring, name, lambda attack=attack: attack(ring))  # type: ignore[misc]
        findings.lines.append(f"  {len(BOUNDS)} bounds reached on purpose, {len(ATTACKS)} other attacks")
        _try(findings, ring, "connections that never speak", lambda: _outlast_the_mute(findings, ring))
        _try(findings, ring, f"{cycles} cycles", lambda: _come_and_go(findings, ring, cycles))
        victims = ring.victims
        slowest = f"the slowest call took {victims.slowest * 1000:.0f} ms"
        findings.lines.append(
            f"  meanwhile others made {victims.calls} calls and got {victims.events} events; {slowest}"
        )
    return findings


def _try(findings: Findings, ring: Ring, name: str, attack: Callable[[], None]) -> None:
    try:
        attack()
        ring.victims.check()
    except (Harm, NoAnswer, BusError) as error:
        findings.faults.append(f"{name}: {error}")


def _outlast_the_mute(findings: Findings, ring: Ring) -> None:
    """Connections that say nothing cost a descriptor each, until the transport's own time for a handshake is over."""
    before = ring.home.size()[1]
    mute = [socket.socket(socket.AF_UNIX) for _ in range(CROWD)]
    began = time.monotonic()
    for raw in mute:
        raw.settimeout(5)
        raw.connect(str(ring.home.path / "run" / "broker.sock"))
    wait_for(lambda: ring.home.size()[1] >= before + CROWD, "the connections stand")
    wait_for(lambda: ring.home.size()[1] <= before, "they are closed", HANDSHAKE_SECS + SETTLE_SECS)
    findings.lines.append(f"  {CROWD} connections that never spoke were closed after {time.monotonic() - began:.0f} s")
    for raw in mute:
        raw.close()


def _come_and_go(findings: Findings, ring: Ring, cycles: int) -> None:
    sizes = come_and_vanish(ring, cycles)
    (first, opened), (last, left) = sizes[0], sizes[-1]
    findings.lines.append(
        f"  {cycles} cycles of connecting, registering and vanishing: {first / MIB:.1f} MiB and {opened} descriptors"
        f" after the first tenth, {last / MIB:.1f} MiB and {left} after the last"
    )
    if grown(sizes[0], sizes[-1]):
        raise Harm(f"the broker grew from {first} to {last} bytes, from {opened} to {left} descriptors")


def come_and_vanish(ring: Ring, cycles: int, legs: int = LEGS) -> list[tuple[int, int]]:
    """Connect, register and vanish so often; the size of the broker after each leg."""
    sizes = []
    for leg in range(legs):
        for number in range(cycles // legs):
            with Guest(ring.home.endpoint, ring.home.key) as guest:
                guest.register(f"brief-{leg}-{number}")
        # Those who vanished without a word are found out at the next heartbeat.
        wait_for(lambda: not _brief(ring), "sessions of those who have gone end", SETTLE_SECS)
        sizes.append(ring.home.size())
    return sizes


def grown(first: tuple[int, int], last: tuple[int, int]) -> bool:
    """Whether the broker has become larger than it may."""
    return last[0] > first[0] + MORE_MEMORY or last[1] > first[1] + MORE_DESCRIPTORS


def _brief(ring: Ring) -> bool:
    return any(each["name"].startswith("brief-") for each in ring.sessions().values())

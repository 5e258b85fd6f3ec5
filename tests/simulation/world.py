"""Everything of one run: clock, network, broker, processes, and the record of what was done and what is wrong."""

from __future__ import annotations

from random import Random

from broker.core.notices import Notice, PeerMisbehaved, SessionLost, SlowConsumer
from tests.simulation.audit import Audit
from tests.simulation.broker import Broker
from tests.simulation.caller import Desk
from tests.simulation.content import Key
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network
from tests.simulation.process import Process

SLOTS = (
    ("plugin", "front", ""),
    ("plugin", "back", "a"),
    ("plugin", "back", "b"),
    ("client", "looker", ""),
)
MAX_FAULTS = 5


class World:
    """One run.

    Args:
        loop: its clock.
        seed: everything that happens by chance follows from it.
    """

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        # Two sources, or a change of the traffic would change what is done next.
        self.chance = Random(f"actions {seed}")
        self.network = Network(loop, Random(f"network {seed}"))
        self.audit = Audit(self.fault, loop.time, self._on_routed)
        self.broker = Broker(loop, self.network, self.audit, self._on_notices, seed)
        self.processes: dict[str, Process] = {}
        self.slots: list[Process] = []
        self.trace: list[tuple[float, str]] = []
        self.faults: list[str] = []
        self.run_calls: set[int] = set()
        self.thrown_out: set[int] = set()
        self._calls = 0

    def start(self) -> None:
        """Begin: the broker, and one process in every slot."""
        self.broker.start()
        self.slots = [self._launch(slot) for slot in range(len(SLOTS))]

    def note(self, text: str) -> None:
        """Something is done."""
        self.trace.append((self.loop.time(), text))

    def fault(self, text: str) -> None:
        """An invariant does not hold."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)
            self.note(f"FAULT {text}")

    def is_owned(self, session: int, subscription: int, key: Key) -> bool:
        """Whether the broker sent an event before it confirmed the end of the subscription."""
        account = self.audit.accounts.get(session)
        interest = account.interest(subscription) if account is not None else None
        return interest is not None and key in interest.owned

    def next_call(self) -> int:
        """A number for a call."""
        self._calls += 1
        return self._calls

    def replace(self, slot: int) -> None:
        """Start a new process in the place of one that has ended."""
        self.slots[slot] = self._launch(slot)

    def open_processes(self) -> list[Process]:
        """Those that can be given something to do."""
        return [each for each in self.slots if each.is_open]

    def _launch(self, slot: int) -> Process:
        role, name, instance = SLOTS[slot]
        process = Process(self, role, name, instance, len(self.processes) + 1)
        self.processes[process.who] = process
        if role == "plugin":
            desk = Desk(self, process)
            process.offers = {f"{name}.echo": desk.echo, f"{name}.lines": desk.lines}
            process.spawn("serving", process.serve_all, self.chance.choice((1, 2, 64)))
        return process

    def _on_routed(self, key: Key, session: int) -> None:
        who, number = key
        self.processes[who].publisher.on_routed(number, session)

    def _on_notices(self, notices: list[Notice]) -> None:
        for notice in notices:
            if type(notice) is PeerMisbehaved:
                self.fault(f"the broker finds fault with {notice.name}: {notice.code}: {notice.text}")
            elif type(notice) is SessionLost and notice.code == "slow_consumer":
                self.thrown_out.add(notice.session)
            elif type(notice) is SlowConsumer:
                self.audit.told(notice)

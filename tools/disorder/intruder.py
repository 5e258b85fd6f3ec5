"""Peers that behave badly while a run goes on: none of what they do may show in anybody's ledger."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from random import Random

from plugin_sdk.wire.errors import BusError
from tools.disorder.cast import FIRM, LOOSE
from tools.disorder.guest import CALL, CREDIT, PING, PUBLISH, REPLY, SERVE, SUBSCRIBE, Guest, NoAnswer, payload

PATIENCE = 2.0
FLOOD = 100  # connections at once


class Intruder:
    """Everything bad that a process with the operator's key, or with none, may do.

    Args:
        home: of the broker.
        chance: decides what.
    """

    def __init__(self, home: Path, chance: Random) -> None:
        self._endpoint = f"ipc://{home}/run/broker.sock"
        self._path = str(home / "run" / "broker.sock")
        self._key = (home / "keys" / "client.key").read_text().strip()
        self._chance = chance

    def send_garbage(self) -> None:
        """Bytes of every kind, by a stranger and by a peer that is registered."""
        chance = self._chance
        with Guest(self._endpoint, self._key) as guest:
            self._try_register(guest, "noise")
            for _ in range(chance.randint(5, 50)):
                match chance.randint(0, 6):
                    case 0:
                        guest.send_raw(chance.randbytes(chance.randint(0, 2000)))
                    case 1:
                        guest.send_raw(b"two", chance.randbytes(5))
                    case 2:
                        guest.send(
                            [chance.randint(0, 40), *(chance.choice((1, "x", b"y", None, {})) for _ in range(4))]
                        )
                    case 3:
                        guest.send([PUBLISH, 0, "noise.a", chance.randint(0, 9)])
                    case 4:
                        guest.send([REPLY, chance.randint(1, 5000), payload()])
                    case 5:
                        guest.send([PING, 1], session=chance.getrandbits(60))
                    case _:
                        guest.send_raw(bytes(chance.choice((1_000, 100_000, 9_000_000))))
            guest.is_heard(PATIENCE)
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(PATIENCE)
            raw.connect(self._path)
            raw.sendall(chance.randbytes(100))

    def read_slowly(self) -> None:
        """Subscribers that do not read, under every policy; those that make publishers wait go away after a while."""
        chance = self._chance
        with Guest(self._endpoint, self._key) as guest:
            if not self._try_register(guest, "deaf"):
                return
            policy = chance.choice(("block", "drop_oldest", "drop_newest", "disconnect"))
            pattern = chance.choice((f"{FIRM}.*", f"{LOOSE}.*", ">"))
            options = {"overflow": policy} if policy == "block" else {"overflow": policy, "max_pending": 50}
            guest.send([SUBSCRIBE, 1, pattern, None, options])
            time.sleep(chance.uniform(0.1, 1.5))
            guest.send([CREDIT, 0, chance.choice((1, 10**6, 2**63 - 1))])
            time.sleep(chance.uniform(0.0, 1.0))

    def flood(self) -> None:
        """Many connections at once: silent ones, half registered ones, and ones that ask and do not wait."""
        chance = self._chance
        guests = [Guest(self._endpoint, self._key) for _ in range(FLOOD)]
        try:
            for number, guest in enumerate(guests):
                match number % 4:
                    case 0:
                        guest.send([PING, 1])
                    case 1:
                        self._try_register(guest, f"flood-{number}")
                        guest.send(*([CALL, ref, "worker.count", payload(), 5000] for ref in range(1, 20)))
                    case 2:
                        self._try_register(guest, f"flood-{number}", "plugin")
                        guest.send([SERVE, 1, f"flood-{number}.x"], [SUBSCRIBE, 2, f"nothing.{chance.random()}"])
        finally:
            for guest in guests:
                guest.close()

    def _try_register(self, guest: Guest, name: str, role: str = "client") -> bool:
        """Register if the broker is there."""
        try:
            guest.register(name, role, patience=PATIENCE)
        except (BusError, NoAnswer):
            return False
        return True

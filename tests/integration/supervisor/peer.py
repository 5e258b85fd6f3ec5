"""A plugin of the standard library alone, for the mesh in mesh.py: JSON lines on a Unix socket instead of the bus.

The variable PEER holds a JSON object that says how it misbehaves:
    deaf        ignores SIGTERM
    stays       does not end after the cleanup command
    forks       leaves a child that ignores SIGTERM
    answers     by command: {"code": …, "text": …} to answer with an error, "hang" for no answer, "die" to end
    crashes     ends with this status once it has started
    reconnects  registers again when its connection is closed
    loses       closes its connection once, as soon as it has started
    takes       once it has started: "memory", 128 MiB; "cpu", a core; "processes", 20 children that do nothing
    early       takes that as soon as it runs
"""

import itertools
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

KEPT: list[Any] = []
PLAN: dict[str, Any] = json.loads(os.environ.get("PEER", "{}"))


def connect() -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ["BROKER_ENDPOINT"].removeprefix("ipc://"))
    hello = {"register": os.environ["BROKER_PLUGIN"], "token": os.environ.get("BROKER_TOKEN"), "pid": os.getpid()}
    link.sendall(json.dumps(hello).encode() + b"\n")
    return link


def answer(command: str) -> dict[str, Any]:
    planned = PLAN.get("answers", {}).get(command)
    if planned == "die":
        sys.exit(f"dying in {command}")
    if planned == "hang":
        signal.pause()
    return planned or {"ok": command}


def take(what: str) -> None:
    if what == "memory":
        KEPT.append(b"x" * (128 << 20))
    elif what == "cpu":
        threading.Thread(target=lambda: sum(itertools.count()), daemon=True).start()
    else:
        KEPT.extend(os.fork() or idle() for _ in range(20))


def idle() -> int:
    while True:
        signal.pause()


def serve(link: socket.socket) -> bool:
    """Answers commands; returns whether to connect again."""
    for line in link.makefile():
        order = json.loads(line)
        if "refused" in order:
            print("refused:", order["refused"], flush=True)
            return False
        command = order["command"].removeprefix("$plugin.")
        link.sendall(json.dumps({"ref": order["ref"], **answer(command)}).encode() + b"\n")
        if command == "start" and "crashes" in PLAN:
            print("crashing", flush=True)
            os._exit(PLAN["crashes"])
        if command == "start" and "takes" in PLAN:
            take(PLAN["takes"])
        if command == "start" and PLAN.pop("loses", False):
            break
        if command == "cleanup" and not PLAN.get("stays"):
            return False
    return bool(PLAN.get("reconnects"))


def main() -> None:
    if PLAN.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if PLAN.get("early"):
        take(PLAN.pop("takes"))
    if PLAN.get("forks") and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    while True:
        with connect() as link:
            if not serve(link):
                break
    if PLAN.get("stays"):
        while True:
            signal.pause()


main()

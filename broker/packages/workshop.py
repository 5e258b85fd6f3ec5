"""Has package files checked and unpacked by a process of its own, and takes its answer."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from broker.packages.errors import PackageError, State
from broker.packages.installed import Record
from broker.packages.opened import Rules
from broker.packages.unpacking import Answer, Request

# A package of the largest size takes some ten seconds on a slow disk.
SECS_PER_FILE = 120.0


class Workshop:
    """Where packages are unpacked. May be used from several threads.

    Args:
        root: folder of installed packages.
        rules: what the operator says of packages.
    """

    def __init__(self, root: Path, rules: Rules) -> None:
        self.rules = rules
        self._root = root
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def unpack(self, files: Sequence[Path]) -> list[Record | PackageError]:
        """Unpacks package files; returns for each what it is now, or why it is refused. Blocks."""
        if not files:
            return []
        allowed = tuple(sorted(self.rules.allow_unsigned))
        request = Request(
            str(self._root),
            str(self.rules.trusted),
            str(self.rules.recipient),
            allowed,
            tuple(map(str, files)),
        )
        answers = self._ask(request)
        return [each.record or PackageError(each.state, each.text) for each in answers]

    def close(self) -> None:
        """Ends what is going on; from then on everything is refused."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()

    def _ask(self, request: Request) -> list[Answer]:
        try:
            child = self._start()
        except OSError as error:
            return _all_refused(request, f"no process can be started to look at it: {error.strerror}")
        limit = threading.Timer(SECS_PER_FILE * len(request.files), child.kill)
        limit.start()
        try:
            return msgspec.json.decode(_exchange(child, msgspec.json.encode(request) + b"\n"), type=list[Answer])
        except msgspec.MsgspecError:
            return _all_refused(request, f"the process that looked at it ended with status {child.wait()}")
        finally:
            limit.cancel()
            self._end(child)

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._closed:
                raise OSError(0, "the broker is stopping")
            child = subprocess.Popen(
                [sys.executable, "-m", "broker.packages.unpacking"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self._children.add(child)
            return child

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        child.kill()
        child.wait()
        with self._lock:
            self._children.discard(child)


def _exchange(child: "subprocess.Popen[bytes]", request: bytes) -> bytes:
    # The pipe to the child stays open as long as it should live.
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin as pipe, child.stdout as answer:
        with suppress(BrokenPipeError):
            pipe.write(request)
            pipe.flush()
        return answer.read()


def _all_refused(request: Request, why: str) -> list[Answer]:
    return [Answer(None, State.REFUSED, why) for _ in request.files]

"""Checks and unpacks package files, in a process of its own:

    python -m broker.packages.unpacking < request

What a stranger made is read there and not in the broker, and the memory of it and of the cryptography goes with it.
The request is one line of JSON, so is the answer; the process ends when its standard input does.
"""

import os
import sys
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.packages.errors import KeyFileError, PackageError, State
from broker.packages.installed import InstalledPackages, Mark, Record
from broker.packages.opened import Rules, look, own_key, private_copy


class Request(Struct, frozen=True):
    """What to do.

    Args:
        root: folder of installed packages.
        files: package files, looked at one after the other.
    """

    root: str
    trusted: str
    recipient: str
    allow_unsigned: tuple[str, ...]
    files: tuple[str, ...]


class Answer(Struct, frozen=True):
    """What became of one file: a record, or why not."""

    record: Record | None = None
    state: State = State.VALID
    text: str = ""


def unpack_file(installed: InstalledPackages, file: Path, rules: Rules) -> Record:
    """Brings a package to where it only need be put in force.

    Raises:
        PackageError: it is refused, and nothing of it is left.
    """
    with installed.staging() as place:
        copy = place / "package"
        status = private_copy(file, copy)
        package = look(copy, rules.keys())
        package.admit(rules)
        try:
            private = own_key(rules) if package.manifest.encryption else None
        except KeyFileError as error:
            raise PackageError(State.REFUSED, str(error)) from None
        hashes = package.unpack(place / "files", private)
        return installed.put(package, place / "files", hashes, Mark.of(status))


def _answer(installed: InstalledPackages, file: str, rules: Rules) -> Answer:
    try:
        return Answer(unpack_file(installed, Path(file), rules))
    except PackageError as error:
        return Answer(None, error.state, error.text)
    except MemoryError:
        return Answer(None, State.REFUSED, "there is not enough memory to look at it")


def _end_with_parent() -> None:
    # Not sys.stdin: its lock would be held when the interpreter wants to finish.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


def main() -> int:
    """Read a request, do it, answer; the answer has one element for each file."""
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    rules = Rules(Path(request.trusted), Path(request.recipient), frozenset(request.allow_unsigned))
    installed = InstalledPackages(Path(request.root))
    answers = [_answer(installed, file, rules) for file in request.files]
    sys.stdout.buffer.write(msgspec.json.encode(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())

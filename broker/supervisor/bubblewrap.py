"""Bubblewrap as the sandbox of a plugin, bwrap(1): what it may not reach is not even there (SEC-4).

Instead of Landlock, not beside it: who is under Landlock may mount nothing. What it gives beyond that is a process
table of the plugin's own. Imported by launcher and guards, so it imports little itself.
"""

import os
from collections.abc import Iterable, Sequence

NAME = "bwrap"

_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL", "--dev", "/dev", "--proc", "/proc")
_MADE = ("/dev", "/proc")


def find() -> str:
    """Where the program is; an empty text when it is not installed."""
    paths = (os.path.join(folder, NAME) for folder in os.get_exec_path())
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def trouble() -> str:
    """Why nothing can be wrapped here, found by wrapping a program that does nothing; an empty text when it can."""
    program = find()
    if not program:
        return f"{NAME} is not installed"
    status, said = _tried([program, "--ro-bind", "/", "/", *_NAMESPACES, "--", "/bin/sh", "-c", ":"])
    return "" if status == 0 else said.rpartition("\n")[2] or f"{program} ended with status {status}"


def _tried(trial: list[str]) -> tuple[int, str]:
    """Runs a program; returns its status, and what it wrote on standard error or why it did not run."""
    read, write = os.pipe2(os.O_CLOEXEC)
    with open(read, "rb") as said:
        try:
            pid = os.posix_spawn(trial[0], trial, {}, file_actions=[(os.POSIX_SPAWN_DUP2, write, 2)])
        except OSError as error:
            return -1, f"{trial[0]}: {error.strerror}"
        finally:
            os.close(write)
        text = said.read().decode("utf-8", "replace").strip()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def wrapped(command: Sequence[str], folder: str, read: Iterable[str], write: Iterable[str]) -> list[str]:
    """A command with bubblewrap in front of it. A path that does not exist is left out.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        read: files and folders that may be read and run, with what is in them.
        write: those that may be written as well.
    """
    binds: list[str] = []
    for path in read:
        if path not in _MADE:
            binds += ("--ro-bind-try", path, path)
    for path in write:
        binds += ("--dev-bind-try" if path.startswith("/dev/") else "--bind-try", path, path)
    return [find(), *_NAMESPACES, *binds, "--remount-ro", "/", "--chdir", folder, "--", *command]

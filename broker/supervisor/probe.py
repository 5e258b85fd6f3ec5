"""What of limits and sandbox this machine can do, found by looking, without changing anything (SEC-3, SEC-4)."""

import sys
from collections.abc import Iterator
from pathlib import Path

from broker.supervisor import bubblewrap, landlock
from broker.supervisor.cgroups import find_base


def probe() -> Iterator[str]:
    """A line for each, for a person.

    Control groups are those of the process that asks: a service may have been given more than a shell.
    """
    if sys.platform != "linux":
        yield "limits and sandbox need Linux"
        return
    version = landlock.version()
    yield f"Landlock: version {version}" if version else "Landlock: not in this kernel, or not switched on"
    known = "NoNewPrivs:" in Path("/proc/self/status").read_text()
    yield f"no_new_privs: {'yes' if known else 'not in this kernel'}"
    try:
        yield f"cgroup v2: {find_base()} can hold groups of plugins: the kernel keeps their limits"
    except OSError as error:
        yield f"cgroup v2: no: {error.strerror or error}; limits of memory, CPU and processes are watched"
    trouble = bubblewrap.trouble()
    yield (
        f"bubblewrap: no: {trouble}" if trouble else f"bubblewrap: {bubblewrap.find()} can wrap plugins that ask for it"
    )

"""A plugin that does nothing but note how old its process was when the broker's first command came."""

import os
import time
from pathlib import Path
from typing import Any

from plugin_sdk import Plugin

NOTE = "registered"
# proc(5): the start time, in clock ticks since boot, is field 22 of stat; the fields after the name begin with 3.
_START_FIELD = 22 - 3


class Idle(Plugin):
    """Takes its first command, which follows its registration at once, as the proof that it is registered."""

    async def initialize(self, config: dict[str, Any]) -> None:
        """Write the note."""
        _note_age(self.data_dir)


def _note_age(directory: Path) -> None:
    """Write the seconds since the spawn of this process, which the kernel counts in hundredths."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    spawned = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    unfinished = directory / f"{NOTE}.new"
    unfinished.write_text(str(time.clock_gettime(time.CLOCK_BOOTTIME) - spawned))
    unfinished.rename(directory / NOTE)


if __name__ == "__main__":
    Idle(os.environ["BROKER_PLUGIN"], version="1.0.0").run()

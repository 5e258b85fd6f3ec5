"""The pipe that a plugin's standard output and error share, emptied whatever happens so that it never blocks.

One pipe for both keeps their lines in the order in which they were written.
"""

import asyncio
import fcntl
import os
from contextlib import suppress

from broker.supervisor.logs import PluginLog

# Enough for any traceback, and for what led to it.
TAIL_BYTES = 16 << 10
TAIL_LINES = 20

_CHUNK = 64 << 10
# More than the default of 64 KiB, so that a flood wakes the loop less often; the kernel may refuse.
_PIPE_BYTES = 256 << 10
# A plugin that writes faster than its log takes is read in doses: the loop has other things to do. Its pipe is
# still emptied some two hundred times a second, so it is slowed to tens of megabytes a second but never stopped.
_FLOOD_PAUSE = 0.005


class Output:
    """What one process of a plugin writes, from its start until `finish`."""

    def __init__(self, log: PluginLog) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._tail = bytearray()
        self._pause: asyncio.TimerHandle | None = None
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        with suppress(OSError):
            fcntl.fcntl(self._read_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._loop.add_reader(self._read_end, self._readable)

    def handed_over(self) -> None:
        """Closes the end that writes, once the process has it."""
        os.close(self.write_end)

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines it wrote."""
        return self._tail.decode(errors="replace").splitlines()[-lines:]

    def finish(self) -> None:
        """Takes what is still in the pipe and closes it; for when the process has ended."""
        if self._read_end < 0:
            return
        self._take(_PIPE_BYTES)
        self._stop_reading()
        os.close(self._read_end)
        self._read_end = -1
        self._log.end_line()

    def _readable(self) -> None:
        open_still, flood = self._take(_PIPE_BYTES)
        if not open_still:
            self._stop_reading()
        elif flood:
            self._loop.remove_reader(self._read_end)
            self._pause = self._loop.call_later(_FLOOD_PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._read_end, self._readable)

    def _take(self, most: int) -> tuple[bool, bool]:
        """Reads up to `most` bytes; returns whether the pipe is still open, and whether any were dropped."""
        flood = False
        while most > 0:
            try:
                data = os.read(self._read_end, _CHUNK)
            except BlockingIOError:
                return True, flood
            if not data:
                return False, flood
            most -= len(data)
            self._tail += data[-TAIL_BYTES:]
            del self._tail[:-TAIL_BYTES]
            flood |= not self._log.write(data, self._loop.time())
        return True, flood

    def _stop_reading(self) -> None:
        self._loop.remove_reader(self._read_end)
        if self._pause:
            self._pause.cancel()
            self._pause = None

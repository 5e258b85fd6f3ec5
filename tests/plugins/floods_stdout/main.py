"""Writes 64 MiB as fast as it can, then says so and goes on running."""

import os
import signal

line = b"x" * 1023 + b"\n"
for _ in range(1024):
    os.write(1, line * 64)
os.write(2, b"the flood is over\n")
signal.pause()

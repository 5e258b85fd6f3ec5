"""Forks a child that moves into a process group of its own, then waits for it for ever."""

import os
import signal

if os.fork() == 0:
    os.setpgid(0, 0)
    os.write(1, b"child %d\n" % os.getpid())
    while True:
        signal.pause()
os.wait()

"""Leaves a daemon behind: forked twice, a session of its own, an empty environment, deaf to SIGTERM."""

import os
import sys

DAEMON = r"""
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"child %d\n" % os.getpid())
while True:
    signal.pause()
"""

os.environ.pop("BROKER_TOKEN", None)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", DAEMON])
    os._exit(0)
os.wait()

"""Forks two children, one deaf to SIGTERM, that stay in its group, and ends without them."""

import os
import signal

for deaf in (False, True):
    if os.fork() == 0:
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"child %d\n" % os.getpid())
        while True:
            signal.pause()

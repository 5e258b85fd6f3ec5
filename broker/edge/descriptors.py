"""How many descriptors the broker may have: every connection is one, and libzmq ends the process when none is left."""

from __future__ import annotations

import resource


def raise_limit() -> None:
    """Allow this process as many descriptors as the system lets it have.

    The usual limit of 1,024 is there for programs that use select(2), which cannot look at more (0pointer.net/blog/
    file-descriptor-limits.html). What the broker starts must get the usual one back.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

"""Collectors of traces that are of no use to anybody."""

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture(params=["refuses", "hangs", "is not there"])
def bad_collector(request: pytest.FixtureRequest) -> Iterator[str]:
    """The endpoint of one."""
    if request.param == "is not there":
        yield "http://192.0.2.1:4318"  # RFC 5737: nobody's address, so that packets get lost
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "hangs":
            listener.listen(100)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"

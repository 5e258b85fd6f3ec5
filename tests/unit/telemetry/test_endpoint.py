"""The metrics over HTTP: real sockets, rude clients."""

import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from broker.telemetry import endpoint as module
from broker.telemetry.endpoint import Endpoint, EndpointUnusable


def page(accept: str) -> tuple[bytes, str]:
    if accept == "boom":
        raise ValueError("no")
    return f"accepts {accept}\n".encode(), "text/plain; version=0.0.4"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint("127.0.0.1", 0, page)
    yield made
    made.close()


def port_of(endpoint: Endpoint) -> int:
    return int(endpoint.url.rpartition(":")[2].removesuffix("/metrics"))


def get(endpoint: Endpoint, path: str = "/metrics", accept: str = "x", method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(endpoint), timeout=10)
    connection.request(method, path, headers={"Accept": accept})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.getheader("Content-Type", ""), body


def test_the_page_is_served_and_nothing_else(endpoint: Endpoint) -> None:
    assert get(endpoint) == (200, "text/plain; version=0.0.4", "accepts x\n")
    assert get(endpoint, "/metrics?name=a")[0] == 200
    assert get(endpoint, method="HEAD") == (200, "text/plain; version=0.0.4", "")
    assert get(endpoint, "/")[0] == 404
    assert get(endpoint, "/metrics/../etc/passwd")[0] == 404
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(urllib.request.Request(endpoint.url, data=b"x"), timeout=10)


def test_a_page_that_cannot_be_made_is_an_answer_too(endpoint: Endpoint) -> None:
    assert get(endpoint, accept="boom")[0] == 500
    assert get(endpoint)[0] == 200


def test_a_port_in_use_is_named(endpoint: Endpoint) -> None:
    port = port_of(endpoint)
    with pytest.raises(EndpointUnusable, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
        Endpoint("127.0.0.1", port, page)


def test_the_port_is_free_once_it_is_closed(endpoint: Endpoint) -> None:
    port = port_of(endpoint)
    assert get(endpoint)[0] == 200
    endpoint.close()
    again = Endpoint("127.0.0.1", port, page)
    assert get(again)[0] == 200
    again.close()


def test_clients_that_say_nothing_do_not_pile_up(endpoint: Endpoint) -> None:
    silent = [socket.create_connection(("127.0.0.1", port_of(endpoint))) for _ in range(module.MOST_AT_ONCE)]
    before = threading.active_count()
    late = [socket.create_connection(("127.0.0.1", port_of(endpoint)), timeout=10) for _ in range(20)]
    assert [each.recv(1) for each in late] == [b""] * 20, "turned away"
    assert threading.active_count() <= max(before, module.MOST_AT_ONCE + 8)
    for each in (*silent, *late):
        each.close()


def test_garbage_and_broken_connections_do_not_end_it(endpoint: Endpoint) -> None:
    for garbage in (b"\0\xff\n\n", b"GET /metrics", b"GET /metrics HTTP/1.1\r\nA: " + b"x" * 100_000):
        with socket.create_connection(("127.0.0.1", port_of(endpoint))) as rude:
            rude.sendall(garbage)
    assert get(endpoint)[0] == 200


def test_it_listens_on_ipv6_too() -> None:
    try:
        made = Endpoint("::1", 0, page)
    except EndpointUnusable as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert made.url.startswith("http://[::1]:")
    made.close()

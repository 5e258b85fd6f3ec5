"""The metrics over HTTP: GET /metrics, on threads of its own."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOST_AT_ONCE = 8  # requests; whoever comes then is turned away, so that slow readers cannot pile up threads
PATIENCE_SECS = 10.0  # so long a client may take to say what it wants, or to read a part of the answer
CLOSE_SECS = 1.0  # so long the port may take to be free again

log = logging.getLogger("broker.metrics")

Page = Callable[[str], tuple[bytes, str]]


class EndpointUnusable(Exception):
    """The address cannot be listened on; the text says why."""


class Endpoint:
    """Serves one page.

    Args:
        address: where to listen, an IP address.
        port: the TCP port.
        page: given the header Accept, returns the body and its content type; called on threads.

    Raises:
        EndpointUnusable: somebody else has the port, or the address is not ours.
    """

    def __init__(self, address: str, port: int, page: Page) -> None:
        try:
            self._server = _Server(address, port, page)
        except OSError as error:
            raise EndpointUnusable(f"cannot listen on {_shown(address, port)}: {error.strerror or error}") from None
        self.url = f"http://{_shown(address, self._server.server_port)}/metrics"
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="broker-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more; answers that are under way are still given."""
        self._closed = True
        with suppress(OSError):
            # A thread that waits for a connection does not notice that its socket was closed; this it does.
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(CLOSE_SECS)

    def _serve(self) -> None:
        while not self._closed:
            self._server.handle_request()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Without it the port would be taken for a minute after each restart of the broker.
    allow_reuse_address = True

    def __init__(self, address: str, port: int, page: Page) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.page = page
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        # Not that of HTTPServer: it asks the name service for the host's name, which may take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_port = self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request for the metrics ended early: %s", sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_SECS

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"the metrics are at /metrics\n", "text/plain; charset=utf-8")
            return
        try:
            body, kind = self.server.page(self.headers.get("Accept", ""))
        except Exception:
            log.exception("the metrics could not be made")
            self._answer(500, b"the metrics could not be made: see the log of the broker\n", "text/plain")
            return
        self._answer(200, body, kind)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "plugmesh"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        log.debug(format, *args)


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

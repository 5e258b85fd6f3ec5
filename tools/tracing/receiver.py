"""A receiver of OTLP over HTTP, as a collector is one: protobuf in, spans out."""

import gzip
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.proto.trace.v1.trace_pb2 import Status

PATH = "/v1/traces"
_POLL_SECS = 0.05


@dataclass(frozen=True, slots=True)
class Span:
    """One span; ids as hexadecimal digits, times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    began: int
    ended: int
    failed: bool
    attributes: Mapping[str, Any]
    links: Sequence[tuple[str, str]] = ()
    resource: Mapping[str, Any] = field(default_factory=dict)


class Sink:
    """A collector that takes everything and keeps nothing, on a free port of this machine."""

    def __init__(self) -> None:
        self._server: ThreadingHTTPServer | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> str:
        """Listen, if that is not so already; returns what OTEL_EXPORTER_OTLP_ENDPOINT must say."""
        if self._server is None:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.take))
            self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def take(self, body: bytes) -> None:
        """An ExportTraceServiceRequest has come."""

    def _serve(self) -> None:
        assert self._server is not None
        self._server.serve_forever(_POLL_SECS)


class Receiver(Sink):
    """A collector that keeps the spans, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self._spans: list[Span] = []
        self._arrived = threading.Condition()

    @property
    def endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT must say."""
        return self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spans(self) -> list[Span]:
        """Everything that has come so far."""
        with self._arrived:
            return list(self._spans)

    def wait(self, condition: Callable[[list[Span]], bool], timeout: float) -> list[Span]:
        """Return what has come as soon as that satisfies `condition`.

        Raises TimeoutError with what has come when it does not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._arrived:
            while not condition(self._spans):
                if not self._arrived.wait(deadline - time.monotonic()):
                    names = sorted({f"{span.service}: {span.name}" for span in self._spans})
                    raise TimeoutError(f"within {timeout:g} s only these spans came: {', '.join(names) or 'none'}")
            return list(self._spans)

    def take(self, body: bytes) -> None:
        """Keep what is in it."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._arrived:
            for each in request.resource_spans:
                resource = _attributes(each.resource.attributes)
                self._spans += [_span(span, resource) for scope in each.scope_spans for span in scope.spans]
            self._arrived.notify_all()


def _handler(take: Callable[[bytes], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            known = self.path == PATH and self.headers["Content-Type"] == "application/x-protobuf"
            if known:
                take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Not to standard error, where other things are told."""

    return Handler


def _span(span: Wire, resource: Mapping[str, Any]) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=str(resource.get("service.name", "")),
        name=span.name,
        kind=Wire.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}

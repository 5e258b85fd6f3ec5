"""Sends the spans of this process to where the standard OTEL_* variables say, if they say so.

The only module that imports the OpenTelemetry SDK, and only then: a process that nobody wants traces of does not pay
for it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from plugin_sdk.heads import RATE, Heads, chosen

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler

# So long at most the end of a process waits for a collector, and not at all for one that has been silent for longer.
EXIT_SECS = 0.4
SHARE = 0.1  # of the time of one core
REPEAT_SECS = 60.0
RATE_VARIABLE = "BROKER_TRACES_PER_SEC"
_WHERE = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_ROOTS = {"always_on": 1.0, "always_off": 0.0}
_NOISY = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
)

log = logging.getLogger("plugin_sdk")


def asked(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment wants the spans of this process."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    found = next((value for name in _WHERE if (value := environ.get(name, "").strip())), "")
    return found.lower() not in ("", "none")


class Export:
    """The exporter of this process.

    `heads` decides quickly about new traces; None when only the OpenTelemetry SDK can.
    """

    def __init__(
        self, provider: TracerProvider, heads: Heads | None, collectors: Sequence[_Collector], over: threading.Event
    ) -> None:
        self.heads = heads
        self._provider = provider
        self._collectors = collectors
        self._over = over
        # Made now, as a process that ends can start no thread; not by the SDK, which would wait for half a minute.
        self._last = threading.Thread(target=self._finish, name="plugmesh-traces", daemon=True)
        self._last.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Send what is left, within EXIT_SECS."""
        self._over.set()
        if all(collector.answers() for collector in self._collectors):
            self._last.join(EXIT_SECS)

    def _finish(self) -> None:
        self._over.wait()
        self._provider.shutdown()


class _Collector:
    """An exporter as the SDK sees it, which knows whether anybody listens.

    Exporting must not keep the process from its work: of a flood of spans the SDK drops what would take more than its
    SHARE of the time.

    Args:
        exporter: does the work.
        over: set when the process ends.
    """

    def __init__(self, exporter: SpanExporter, over: threading.Event) -> None:
        self._exporter = exporter
        self._over = over
        self._began = 0.0
        self._failed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; returns what became of them."""
        self._began, busy = time.monotonic(), time.thread_time()
        result = self._exporter.export(spans)
        self._failed, self._began = result.value != 0, 0.0
        self._over.wait((time.thread_time() - busy) * (1 / SHARE - 1))
        return result

    def answers(self) -> bool:
        """Whether the last export went well and none has been under way for long."""
        return not self._failed and (not self._began or time.monotonic() - self._began < EXIT_SECS)

    def shutdown(self) -> None:
        """Nothing more will come."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter has kept."""
        return self._exporter.force_flush(timeout_millis)


class _Sparing(logging.Filter):
    """Passes a complaint about a collector once a minute: it is made at every attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._told.get(record.msg, -REPEAT_SECS) < REPEAT_SECS:
            return False
        self._told[record.msg] = now
        return True


_lock = threading.Lock()
_export: Export | None = None


def current() -> Export | None:
    """The exporter of this process, None before set_up or when there is none."""
    return _export


def set_up(service: str, version: str) -> Export | None:
    """Begin to export, once in a process; None when that is impossible, with the reason in the log.

    Args:
        service: what this process is called where OTEL_SERVICE_NAME does not say it.
        version: its version.
    """
    global _export
    with _lock:
        if _export is None:
            try:
                _export = _begin(service, version)
            except ImportError as error:
                need = "install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http"
                log.warning("no traces are sent, although OTEL_* variables ask for them: %s; %s", error, need)
            except Exception as error:
                log.warning("no traces are sent, although OTEL_* variables ask for them: %s", error, exc_info=error)
        return _export


def finish() -> None:
    """Send what is left: for a process that ends without the interpreter's farewell."""
    if _export is not None:
        _export.close()


def _begin(service: str, version: str) -> Export:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    sampler, heads = _head()
    provider = TracerProvider(sampler, _resource(service, version), shutdown_on_exit=False, id_generator=_ids(heads))
    names = {name.strip().lower() or "otlp" for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")}
    over = threading.Event()
    collectors = [_Collector(_exporter(name), over) for name in sorted(names - {"none"})]
    for collector in collectors:
        provider.add_span_processor(BatchSpanProcessor(cast("SpanExporter", collector)))
    sparing = _Sparing()
    for name in _NOISY:
        logging.getLogger(name).addFilter(sparing)
    trace.set_tracer_provider(provider)
    return Export(provider, heads, collectors, over)


def _exporter(name: str) -> SpanExporter:
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol in (None, "", "http/protobuf"):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter()
        name = f"otlp_proto_{protocol}"
    from importlib.metadata import entry_points

    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        made: SpanExporter = found.load()()
        return made
    raise ValueError(f"no exporter {name!r} is installed: OTEL_TRACES_EXPORTER=otlp (http/protobuf) and console are")


def _resource(service: str, version: str) -> Any:
    from uuid import uuid4

    from opentelemetry.sdk.resources import Resource

    given = {pair.partition("=")[0].strip() for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")}
    if os.environ.get("OTEL_SERVICE_NAME"):
        given.add("service.name")
    own = {"service.name": service, "service.version": version, "service.instance.id": str(uuid4())}
    return Resource.create({name: value for name, value in own.items() if name not in given})


def _head() -> tuple[Sampler | None, Heads | None]:
    """The sampler that the environment names, and how to get ahead of it; None for what only the SDK knows."""
    from opentelemetry.sdk.trace import sampling

    from plugin_sdk.spans import unrecorded

    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    root = name.removeprefix("parentbased_")
    ratio = _ratio() if root == "traceidratio" else _ROOTS.get(root)
    propagators = os.environ.get("OTEL_PROPAGATORS", "tracecontext")
    if ratio is None or name == "always_on" or "tracecontext" not in propagators:
        # Everything is recorded, or nothing is known.
        return None, None
    if name == "always_off":
        return sampling.ALWAYS_OFF, Heads(0.0)

    class Decided(sampling.TraceIdRatioBased):
        """What has been decided in heads.py stands, also for the spans that a handler begins itself."""

        def should_sample(self, *args: Any, **named: Any) -> sampling.SamplingResult:
            if chosen.get():
                return sampling.ALWAYS_ON.should_sample(*args, **named)
            if unrecorded() is not None:
                return sampling.ALWAYS_OFF.should_sample(*args, **named)
            return super().should_sample(*args, **named)

    rate = _rate()
    if name == root:
        return Decided(ratio), Heads(ratio, obedient=False, rate=rate)
    return sampling.ParentBased(Decided(ratio)), Heads(ratio, rate=rate)


def _ids(heads: Heads | None) -> IdGenerator:
    """Makes ids at random; of a trace that `heads` has chosen, one for which the sampler comes to the same decision."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return heads.trace_id() if heads is not None and chosen.get() else super().generate_trace_id()

    return Ids()


def _ratio() -> float | None:
    """OTEL_TRACES_SAMPLER_ARG; None when it is no ratio, which the SDK then complains of."""
    try:
        ratio = float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", ""))
    except ValueError:
        return None
    return ratio if 0 <= ratio <= 1 else None


def _rate() -> float:
    """How many traces a second may begin here at a ratio below 1."""
    text = os.environ.get(RATE_VARIABLE, "").strip()
    try:
        rate = float(text) if text else RATE
    except ValueError:
        rate = -1.0
    if not rate >= 0:
        log.warning("%s is %r: use a number of traces, or `inf` for no bound; %g is used", RATE_VARIABLE, text, RATE)
        return RATE
    return rate

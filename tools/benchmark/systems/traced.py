"""Plugmesh with the variables of OpenTelemetry: what it costs to leave no traces, and some."""

from collections.abc import Mapping
from typing import ClassVar

from tools.benchmark.systems.plugmesh import Plugmesh
from tools.tracing.receiver import Sink

RATIO = 0.01


class TracingOff(Plugmesh):
    """Traces are set up for everything, and switched off."""

    name: ClassVar[str] = "tracing off"

    def environment(self) -> Mapping[str, str]:
        """Every variable, and the one that makes them void."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}


class TracingSome(Plugmesh):
    """Of the traces one in a hundred is recorded and sent to a collector on this machine, which reads and forgets."""

    name: ClassVar[str] = "tracing 1 %"

    def __init__(self) -> None:
        super().__init__()
        self._sink = Sink()

    def environment(self) -> Mapping[str, str]:
        """The usual sampler."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._sink.start(),
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(RATIO),
        }

    def stop(self) -> None:
        """Stop the broker, then the collector."""
        super().stop()
        self._sink.close()

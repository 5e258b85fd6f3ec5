"""What `$broker.status` tells, as Prometheus metrics (OBS-2, OBS-3, OBS-4).

Every label has a bound: names of plugins are cut off at MAX_PLUGINS, everything else comes from a closed list. There is
no label for a subject: whoever publishes makes those up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MAX_PLUGINS = 500
PLUGIN_LABELS = ("plugin", "process")  # not `instance`: Prometheus sets that one itself
LIMITS = ("memory", "cpu", "processes")  # those that hold for all processes of a plugin together

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: where its value is found in a status, None for no sample. A counter's name ends with `_total`."""

    name: str
    text: str
    value: Callable[[Row], float | None]

    @property
    def counts(self) -> bool:
        """Whether it is a counter."""
        return self.name.endswith("_total")


def _of(*path: str) -> Callable[[Row], float | None]:
    def find(row: Row) -> float | None:
        value: Any = row
        for name in path:
            value = value.get(name)
        return None if value is None else float(value)

    return find


def _success(row: Row) -> float:
    done, failed = row["cleanups"]["done"], row["cleanups"]["failed"]
    return done / (done + failed) if done + failed else 1.0


def _withheld(row: Row) -> float:
    # A broker that leaves no traces withholds none.
    return float(row["counters"].get("traces_withheld", 0))


BROKER = (
    Family("plugmesh_uptime_seconds", "Seconds since the broker started.", _of("uptime_secs")),
    Family("plugmesh_plugins", "Plugins that are known.", _of("plugins", "total")),
    Family("plugmesh_plugins_running", "Plugins that run.", _of("plugins", "running")),
    Family("plugmesh_plugins_failed", "Plugins that have failed.", _of("plugins", "failed")),
    Family("plugmesh_sessions", "Peers that are registered, clients too.", _of("sessions")),
    Family("plugmesh_events_per_second", "Events published, on average of late.", _of("events_per_sec")),
    Family("plugmesh_events_published_total", "Events published.", _of("counters", "events_published")),
    Family("plugmesh_events_dropped_total", "Events dropped, whatever the reason.", _of("counters", "events_dropped")),
    Family("plugmesh_events_waiting", "Events that wait for slow subscribers.", _of("queues", "events")),
    Family("plugmesh_events_waiting_bytes", "Bytes of these events.", _of("queues", "event_bytes")),
    Family("plugmesh_slow_consumers", "Peers that do not keep up with their events.", _of("slow")),
    Family("plugmesh_slow_consumers_found_total", "How often one became slow.", _of("counters", "slow_consumers")),
    Family("plugmesh_waiting_bytes", "Bytes of all that waits at the broker.", _of("waiting_bytes")),
    Family("plugmesh_waiting_bytes_limit", "The setting bus.max_waiting_bytes.", _of("max_waiting_bytes")),
    Family("plugmesh_outbox_bytes", "Bytes that wait for the transport.", _of("queues", "outbox_bytes")),
    Family("plugmesh_requests_running", "Requests that somebody works on.", _of("queues", "requests_running")),
    Family("plugmesh_requests_waiting", "Requests that wait for an instance.", _of("queues", "requests_waiting")),
    Family("plugmesh_late_replies_total", "Answers to requests that had ended.", _of("counters", "late_replies")),
    Family("plugmesh_retained_values", "Last values that are kept.", _of("queues", "retained")),
    Family("plugmesh_traces_withheld_total", "Traces beyond the broker's rate.", _withheld),
    Family("plugmesh_frames_received_total", "Frames received.", _of("counters", "frames")),
    Family("plugmesh_packets_received_total", "Packets received.", _of("counters", "packets")),
    Family("plugmesh_frames_refused_total", "Frames that were not valid.", _of("counters", "garbage")),
    Family("plugmesh_registrations_refused_total", "Registrations refused.", _of("counters", "refused")),
    Family("plugmesh_memory_bytes", "Resident memory of broker and plugins.", _of("total", "memory_bytes")),
    Family("plugmesh_cpu_seconds_total", "CPU time of broker and plugins.", _of("total", "cpu_secs")),
    Family("plugmesh_threads", "Threads of broker and plugins.", _of("total", "threads")),
    Family("plugmesh_processes", "Processes of broker and plugins.", _of("total", "processes")),
    Family("plugmesh_broker_memory_bytes", "Resident memory of the broker alone.", _of("memory_bytes")),
    Family("plugmesh_broker_cpu_seconds_total", "CPU time of the broker alone.", _of("cpu_secs")),
    Family("plugmesh_broker_threads", "Threads of the broker alone.", _of("threads")),
    Family("plugmesh_dependency_unmet", "Plugins with an unmet requirement.", _of("dependencies", "unmet")),
    Family("plugmesh_dependency_conflicts", "Plugins in conflict with another.", _of("dependencies", "conflicts")),
    Family("plugmesh_dependency_cycles", "Rounds of plugins that need each other.", _of("dependencies", "cycles")),
    Family("plugmesh_cleanups_done_total", "Plugins that cleaned up when told to.", _of("cleanups", "done")),
    Family("plugmesh_cleanups_failed_total", "Plugins that failed to.", _of("cleanups", "failed")),
    Family("plugmesh_cleanup_success_ratio", "Part of the cleanups that succeeded.", _success),
    Family("plugmesh_database_up", "1 while the database works.", lambda row: row["database"]["status"] == "up"),
    Family("plugmesh_database_writes_waiting", "Writes that wait for the database.", _of("database", "pending")),
    Family("plugmesh_database_writes_total", "Writes that landed.", _of("database", "written")),
    Family("plugmesh_database_writes_lost_total", "Writes that were given up.", _of("database", "dropped")),
)

# These need no event loop: they are what tells of one that hangs.
ALWAYS = (
    Family("plugmesh_responding", "1 if the event loop of the broker answered in time.", _of("responding")),
    Family("plugmesh_shutdown_seconds", "Seconds since the shutdown began, 0 before.", _of("shutdown_secs")),
    Family("plugmesh_shutdown_limit_seconds", "The setting shutdown.timeout_secs.", _of("shutdown_limit_secs")),
)

PLUGIN = (
    Family("plugmesh_plugin_up", "1 while it runs.", lambda row: row["state"] == "running"),
    Family("plugmesh_plugin_wanted", "1 if it should run.", lambda row: row["desired"] == "running"),
    Family("plugmesh_plugin_registration", "0 none, 1 under way, 2 registered, 3 failed.", _of("register_status")),
    Family("plugmesh_plugin_uptime_seconds", "Seconds that it has run, 0 if not.", lambda row: row["uptime_secs"] or 0),
    Family("plugmesh_plugin_restarts_total", "Restarts that nobody asked for.", _of("restarts")),
    Family("plugmesh_plugin_memory_bytes", "Resident memory of its processes.", _of("memory_bytes")),
    Family("plugmesh_plugin_cpu_seconds_total", "CPU time of its processes.", _of("cpu_secs")),
    Family("plugmesh_plugin_threads", "Threads of its processes.", _of("threads")),
    Family("plugmesh_plugin_processes", "Its processes.", _of("processes")),
    Family("plugmesh_plugin_events_published_total", "Events that it published.", _of("published")),
    Family("plugmesh_plugin_events_received_total", "Events that it took.", _of("figures", "events_received")),
    Family("plugmesh_plugin_events_handled_total", "Events handled well.", _of("figures", "events_handled")),
    Family("plugmesh_plugin_events_failed_total", "Events whose handler raised.", _of("figures", "events_failed")),
    Family("plugmesh_plugin_events_dropped_total", "Events dropped for it by policy.", _of("dropped")),
    Family("plugmesh_plugin_events_waiting", "Events that wait for it at the broker.", _of("waiting")),
    Family("plugmesh_plugin_events_unhandled", "Events that wait inside of it.", _of("figures", "events_waiting")),
    Family("plugmesh_plugin_requests_handled_total", "Requests answered.", _of("figures", "requests_handled")),
    Family("plugmesh_plugin_requests_failed_total", "Requests that failed.", _of("figures", "requests_failed")),
    Family("plugmesh_plugin_handling_seconds_total", "Time its handlers took.", _of("figures", "handling_secs")),
    Family("plugmesh_plugin_handling_mean_seconds", "Time a handler took on average.", _of("figures", "mean_secs")),
    Family("plugmesh_plugin_handling_longest_seconds", "Time one took at most.", _of("figures", "longest_secs")),
    Family("plugmesh_plugin_error_ratio", "Part of what it handled that failed.", _of("figures", "error_rate")),
    Family("plugmesh_plugin_busy_seconds", "Age of its oldest running handler.", _of("figures", "busy_secs")),
    Family("plugmesh_plugin_traces_withheld_total", "Traces beyond its rate.", _of("figures", "traces_withheld")),
    Family("plugmesh_plugin_silent_seconds", "Seconds since it was last heard.", _of("silent_secs")),
    Family("plugmesh_plugin_packets_refused_total", "Packets the broker refused it.", _of("refused")),
    Family("plugmesh_plugin_log_lines_dropped_total", "Lines it wrote too fast.", _of("log_lines_dropped")),
)

OTHERS = (
    "plugmesh_build_info",
    "plugmesh_requests_total",
    "plugmesh_plugin_state",
    "plugmesh_plugin_limit_exceeded_total",
    "plugmesh_plugins_not_shown",
)


def names() -> set[str]:
    """Every metric there is."""
    return {each.name for each in (*ALWAYS, *BROKER, *PLUGIN)}.union(OTHERS)


def encode(status: Row, accept: str) -> tuple[bytes, str]:
    """A status as text for Prometheus, and its content type.

    Args:
        status: what `$broker.status` answers with the figures of ALWAYS beside it; without `broker` and `plugins` when
            the event loop did not answer.
        accept: the header of the request, which chooses between the two text formats.
    """
    # Not at the top: most brokers are never asked for metrics.
    from prometheus_client.exposition import choose_encoder

    encoder, kind = choose_encoder(accept)
    return encoder(_Collected(status)), kind


class _Collected:
    """A status in the form of a registry of prometheus_client."""

    def __init__(self, status: Row) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield from _plain(ALWAYS, status)
        if "broker" in status:
            yield from _plain(BROKER, status["broker"])
            yield from _labelled(status["broker"])
            yield from _plugins(status["plugins"])


def _plain(families: Iterable[Family], row: Row) -> Iterator[Metric]:
    for family in families:
        yield _metric(family, (), [((), row)])


def _plugins(rows: Sequence[Row]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    shown = [((row["name"], row["instance"]), row) for row in rows[:MAX_PLUGINS]]
    for family in PLUGIN:
        yield _metric(family, PLUGIN_LABELS, shown)
    state = GaugeMetricFamily("plugmesh_plugin_state", "1 for the state it is in.", labels=(*PLUGIN_LABELS, "state"))
    for labels, row in shown:
        state.add_metric((*labels, row["state"]), 1)
    yield state
    yield _excesses(shown)
    left = max(0, len(rows) - MAX_PLUGINS)
    yield GaugeMetricFamily("plugmesh_plugins_not_shown", "Plugins beyond what is told here.", value=left)


def _excesses(shown: Iterable[tuple[Sequence[str], Row]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    text = "How often it began to exceed a limit."
    excesses = CounterMetricFamily("plugmesh_plugin_limit_exceeded", text, labels=(*PLUGIN_LABELS, "limit"))
    for labels, row in shown:
        for limit in LIMITS:
            # From zero for a plugin that has such a limit, so that a rate sees the first time.
            if limit in row["exceeded"] or limit in row["confinement"]["asked"]:
                excesses.add_metric((*labels, limit), row["exceeded"].get(limit, 0))
    return excesses


def _labelled(broker: Row) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    build = GaugeMetricFamily("plugmesh_build_info", "Always 1.", labels=("version", "node"))
    build.add_metric((broker["version"], broker["node"]), 1)
    yield build
    requests = CounterMetricFamily("plugmesh_requests", "Requests that ended, by outcome.", labels=("outcome",))
    for name, number in sorted(broker["counters"].items()):
        if name.startswith("requests_"):
            requests.add_metric((name.removeprefix("requests_"),), number)
    yield requests


def _metric(family: Family, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], Row]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    metric: CounterMetricFamily | GaugeMetricFamily
    if family.counts:
        metric = CounterMetricFamily(family.name.removesuffix("_total"), family.text, labels=labels)
    else:
        metric = GaugeMetricFamily(family.name, family.text, labels=labels)
    for values, row in rows:
        number = family.value(row)
        if number is not None:
            metric.add_metric(values, float(number))
    return metric

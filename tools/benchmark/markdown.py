"""The results as Markdown tables, as they stand in the README."""

from collections.abc import Iterable, Sequence

from tools.benchmark.figures import Figure
from tools.benchmark.results import OURS, Measure, Results

_READING = (
    "Median (lowest–highest) of {rounds} interleaved rounds. A ratio is how many times better plugmesh is: "
    "above 1 it is faster, for times as for rates."
)

_TRACING = (
    "Median (lowest–highest) of {rounds} interleaved rounds; × is the median of the ratios of each round to plugmesh. "
    "plugmesh: no OTEL_* variable is set. Tracing off: they are set, with OTEL_SDK_DISABLED=true. Tracing 1 %: with "
    "OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG=0.01, to a collector on this machine."
)


def render(results: Results, baseline: Results | None = None) -> str:
    """Everything a reader needs, with a comparison of the ratios when there is a `baseline`."""
    parts = [_facts(results)]
    if results.traffic:
        parts += [_traffic(results.traffic), _READING.format(rounds=results.rounds)]
    if results.footprint:
        parts.append(_footprint(results.footprint))
    if results.tracing:
        parts += [_tracing(results.tracing), _TRACING.format(rounds=results.rounds)]
    if baseline is not None:
        parts.append(_comparison(results, baseline))
    return "\n\n".join(parts)


def _facts(results: Results) -> str:
    facts = [f"{name} {value}" for name, value in (*results.machine.items(), *results.versions.items())]
    return " · ".join([*facts, "quick run: indicative only"] if results.quick else facts)


def _traffic(measures: Sequence[Measure]) -> str:
    systems = list(dict.fromkeys(name for measure in measures for name in measure.systems))
    others = [name for name in systems if name != OURS] if OURS in systems else []
    rows = []
    for measure in measures:
        figures = [_figure(measure.systems.get(name)) for name in systems]
        ratios = [_ratio(measure.ratio(name)) for name in others]
        rows.append([f"{measure.title}, {measure.unit}", *figures, *ratios])
    return _table(["", *systems, *(f"vs {name}" for name in others)], rows)


def _tracing(measures: Sequence[Measure]) -> str:
    systems = list(measures[0].systems)
    others = [name for name in systems if name != OURS]
    rows = []
    for measure in measures:
        figures = [_figure(measure.systems[name]) for name in systems]
        ratios = [f"{measure.paired(name).median:.2f}" for name in others]
        rows.append([f"{measure.title}, {measure.unit}", *figures, *ratios])
    return _table(["", *systems, *(f"{name}, ×" for name in others)], rows)


def _footprint(measures: Iterable[Measure]) -> str:
    rows = [[f"{measure.title}, {measure.unit}", _figure(measure.systems[OURS])] for measure in measures]
    return _table(["", OURS], rows)


def _comparison(results: Results, baseline: Results) -> str:
    rows = []
    for measure in results.traffic:
        before = baseline.find(measure.title, measure.unit)
        for other in measure.systems:
            now, then = measure.ratio(other), before.ratio(other) if before else None
            if other != OURS and now is not None and then is not None:
                change = f"{(now / then - 1) * 100:+.0f} %"
                rows.append([f"{measure.title}, {measure.unit}", other, _ratio(then), _ratio(now), change])
    return _table(["ratio", "to", "baseline", "now", "change"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if len(figure.rounds) == 1:
        return _number(figure.median)
    return f"{_number(figure.median)} ({_number(figure.low)}–{_number(figure.high)})"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}x"


def _number(value: float) -> str:
    """Three significant digits, thousands separated: what the spread of such measurements carries."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}".replace(",", " ")
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"

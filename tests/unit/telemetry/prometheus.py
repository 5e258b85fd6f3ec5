"""Reads what the metrics endpoint answers as strictly as can be: nothing may be there twice or untold."""

import re

from prometheus_client import parser
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as strict

NAME = re.compile(r"plugmesh_[a-z][a-z0-9_]*")

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Series:
    """Every sample of the Prometheus text format, by name and labels."""
    assert text.endswith("\n")
    return _collect(list(parser.text_string_to_metric_families(text)))


def read_openmetrics(text: str) -> Series:
    """The same of OpenMetrics, whose parser refuses whatever the standard forbids."""
    return _collect(list(strict.text_string_to_metric_families(text)))  # type: ignore[no-untyped-call]


def _collect(families: list[Metric]) -> Series:
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family stands there twice"
    series: Series = {}
    for family in families:
        assert family.documentation
        assert family.type in ("gauge", "counter"), family
        for sample in family.samples:
            assert NAME.fullmatch(sample.name)
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in series, f"{key} stands there twice"
            series[key] = sample.value
    return series

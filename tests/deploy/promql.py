"""What a PromQL expression reads, compared with the metrics that fubd exports."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import promql_parser
from prometheus_client import CollectorRegistry

from fubd.metrics import Metrics

# Labels that Prometheus adds to each series, and series that it makes for each target.
_ADDED = frozenset({"job", "instance"})
_OF_THE_TARGET = {"up": frozenset[str]()}
# Labels with any value; for all others every value is exported from the start.
_OPEN = frozenset({"version", "commit", "status", "context", "le"})


@dataclass(frozen=True, slots=True)
class Exported:
    """The series of one name: its labels, each with the values that are exported from the start."""

    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)


@cache
def exported() -> Mapping[str, Exported]:
    """Return every series name with its labels, as `/metrics` shows them."""
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels("0.0.0", "0123456789ab").set(1)
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for family in metrics.registry.collect():
        for sample in family.samples:
            labels = values[sample.name]
            for name, value in sample.labels.items():
                labels[name].add(value)
    return {series: Exported({name: frozenset(present) for name, present in labels.items()}) for series, labels in values.items()} | {
        name: Exported() for name in _OF_THE_TARGET
    }


def errors_in(expression: str, *, recorded: Mapping[str, frozenset[str]] | None = None) -> list[str]:
    """Return what in an expression is not a series, a label or a value of ours. `recorded`: other names, with their labels.

    Raises ValueError when it is not PromQL.
    """
    found: list[str] = []
    selectors: list[promql_parser.VectorSelector] = []
    named: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            named.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            named.update(node.modifier.matching.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    labels: set[str] = set(_ADDED)
    for selector in selectors:
        name = selector.name or ""
        if recorded is not None and name in recorded:
            labels |= recorded[name]
            continue
        series = exported().get(name)
        if series is None:
            found.append(f"{name} is not exported")
            continue
        labels |= set(series.labels)
        found += _matcher_errors(name, series, selector)
    found += [f"no series here has the label {name}" for name in sorted(named - labels)]
    return found


def _matcher_errors(name: str, series: Exported, selector: promql_parser.VectorSelector) -> list[str]:
    errors = []
    for matcher in selector.matchers.matchers:
        if matcher.name in _ADDED:
            continue
        if matcher.name not in series.labels:
            errors.append(f"{name} has no label {matcher.name}")
        elif matcher.name not in _OPEN:
            known = series.labels[matcher.name]
            errors += [f'{name} has no {matcher.name}="{value}"' for value in re.split(r"\|", matcher.value) if value not in known]
    return errors


def metrics_in(expression: str) -> frozenset[str]:
    """Return the series names that an expression reads."""
    names: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            names.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return frozenset(names)

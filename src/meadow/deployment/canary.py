"""Whether the pods of a new version do as well as those beside them, by what both count."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import chi2_contingency

Counts = Counter[tuple[str, frozenset[tuple[str, str]]]]  # by the name and the labels of a series

ENOUGH = 30  # answers of each side: with fewer nothing is compared
SURE = 1e-3  # a difference that chance makes less often than this is one
SLOWER = 2.0  # times as long as the others


def counts(exposition: str) -> Counts:
    """Read what a pod's /metrics says."""
    return Counter(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(exposition)
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }
    )


def differences(stable: Counts, canary: Counts) -> list[str]:
    """Say in what a new version does worse than, or otherwise than, the one beside it.

    Args:
        stable: what the pods of the version before have counted, in some time.
        canary: what those of the new one have counted in the same time.

    Returns:
        A sentence for each difference; none where either side has answered too few requests.

    """
    statuses = [
        _by(side, "meadow_requests_total", "status", "/predict") for side in (stable, canary)
    ]
    failed = [sum(n for status, n in side.items() if status >= "5") for side in statuses]
    answered = [side["200"] for side in statuses]
    if min(map(sum, zip(failed, answered, strict=True))) < ENOUGH:
        return []
    lines = []
    if failed[1] * answered[0] > failed[0] * answered[1] and _differ(failed, answered):
        lines.append(
            f"{failed[1]:.0f} requests failed and {answered[1]:.0f} did not; of the version before"
            f" {failed[0]:.0f} and {answered[0]:.0f}"
        )
    seconds = [
        _by(side, "meadow_request_seconds_sum", "route")["/predict"]
        / _by(side, "meadow_request_seconds_count", "route")["/predict"]
        for side in (stable, canary)
    ]
    if seconds[1] > SLOWER * seconds[0]:
        lines.append(f"an answer takes {seconds[1]:.3f} s, before {seconds[0]:.3f} s")
    labels = [_by(side, "meadow_predictions_total", "label") for side in (stable, canary)]
    names = sorted({*labels[0], *labels[1]})
    if _differ(*([side[name] for name in names] for side in labels)):
        lines.append("it predicts the classes in other shares")
    edges = [_by(side, "meadow_distance_bucket", "le") for side in (stable, canary)]
    bounds = sorted({*edges[0], *edges[1]}, key=float)
    if _differ(*(np.diff([0, *(side[bound] for bound in bounds)]) for side in edges)):
        lines.append("the photos' distances are others")
    return lines


def _by(counted: Counts, name: str, label: str, route: str | None = None) -> Counter[str]:
    """Sum a metric by one label, of one route or all."""
    sums: Counter[str] = Counter()
    for (series, labels), value in counted.items():
        values = dict(labels)
        if series == name and route in (None, values.get("route")):
            sums[values[label]] += value
    return sums


def _differ(
    first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]
) -> bool:
    """Test by chi-squared whether two rows of counts have other shares."""
    table = np.array([first, second], float)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2 or not table.sum(1).all():
        return False
    return bool(chi2_contingency(table).pvalue < SURE)

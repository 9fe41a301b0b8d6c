"""Whether a new version does as well as the one beside it."""

import pytest

from meadow.deployment import canary


def counted(
    *,
    answers: int = 200,
    errors: int = 0,
    seconds: float = 0.01,
    grass: float = 0.5,
    far: float = 0.1,
) -> canary.Counts:
    """Return what a pod counts; `grass` and `far` are shares of its answers."""
    total = answers + errors
    near = round(answers * (1 - far))
    return canary.counts(
        f"""
# TYPE meadow_requests_total counter
meadow_requests_total{{route="/predict",status="200"}} {answers}
meadow_requests_total{{route="/predict",status="500"}} {errors}
meadow_requests_total{{route="/readyz",status="200"}} 10000
# TYPE meadow_request_seconds histogram
meadow_request_seconds_count{{route="/predict"}} {total}
meadow_request_seconds_sum{{route="/predict"}} {total * seconds}
meadow_request_seconds_sum{{route="/readyz"}} 1
# TYPE meadow_predictions_total counter
meadow_predictions_total{{label="grass"}} {round(answers * grass)}
meadow_predictions_total{{label="dandelion"}} {answers - round(answers * grass)}
# TYPE meadow_distance histogram
meadow_distance_bucket{{le="1.0"}} {near}
meadow_distance_bucket{{le="2.0"}} {answers}
meadow_distance_bucket{{le="+Inf"}} {answers}
"""
    )


def test_the_same_is_no_difference() -> None:
    """Nor is less of the same, or what chance makes of it."""
    assert canary.differences(counted(answers=600), counted()) == []
    assert (
        canary.differences(counted(), counted(errors=1, seconds=0.015, grass=0.55, far=0.13)) == []
    )


@pytest.mark.parametrize(
    ("canarys", "text"),
    [
        (counted(errors=20), "20 requests failed and 200 did not; of the version before 0 and 200"),
        (counted(seconds=0.05), "an answer takes 0.050 s, before 0.010 s"),
        (counted(grass=0.9), "it predicts the classes in other shares"),
        (counted(far=0.6), "the photos' distances are others"),
    ],
)
def test_each_figure_can_tell_them_apart(canarys: canary.Counts, text: str) -> None:
    """Error rate, latency, predicted classes, distances."""
    assert canary.differences(counted(), canarys) == [text]


def test_a_version_that_fails_less_and_answers_faster_is_welcome() -> None:
    assert canary.differences(counted(errors=20, seconds=0.05), counted()) == []


def test_a_version_that_only_fails_is_seen() -> None:
    """It has no answer that could be compared."""
    lines = canary.differences(counted(), counted(answers=0, errors=100))

    assert lines == ["100 requests failed and 0 did not; of the version before 0 and 200"]


def test_of_few_requests_nothing_is_concluded() -> None:
    assert canary.differences(counted(), counted(answers=20, grass=1)) == []
    assert canary.differences(canary.Counts(), canary.Counts()) == []


def test_what_was_counted_before_is_left_out() -> None:
    """Two readings of a pod are subtracted."""
    before, after = counted(answers=100), counted(answers=300)

    assert canary.differences(after - before, counted()) == []

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import fisher_exact, ks_2samp

from meadow.drift import comparison
from meadow.drift.comparison import Finding
from meadow.drift.tally import Tally
from meadow.inference.reference import Reference
from meadow.inference.signals import SIGNALS

BRIGHTNESS = SIGNALS.index("brightness")
Floats = NDArray[np.float64]


def photos(
    n: int, random: np.random.Generator, first: float = 0.5
) -> tuple[Floats, NDArray[np.int64]]:
    """Draw signals, (n, signals), of photos of two classes, the first of which has this share."""
    signals = random.normal(100, 20, size=(n, len(SIGNALS)))
    signals[:, 0] = random.beta(9, 1, size=n)  # confidence
    return signals, (random.random(n) >= first).astype(np.int64)


def reference(m: int = 320, seed: int = 0) -> Reference:
    random = np.random.default_rng([seed, 1])
    signals, actual = photos(m, random)
    predicted = np.where(random.random(m) < 0.1, 1 - actual, actual)
    return Reference(dict(zip(SIGNALS, signals.T, strict=True)), actual, predicted)


def counted(parts: list[tuple[Floats, NDArray[np.int64]]], known: Reference) -> Tally:
    """Count days, one after the other."""
    tally, time = Tally(known, 2), 0
    for signals, predicted in parts:
        at = 0
        while at < len(signals):
            end = min(at + tally.room, len(signals))
            times = [f"{time + i:06}" for i in range(at, end)]
            tally.add(times, signals[at:end], predicted[at:end])
            at = end
        time += len(signals)
    return tally


def compared(*parts: tuple[Floats, NDArray[np.int64]], known: Reference) -> dict[str, Finding]:
    return {found.name: found for found in comparison.compare(counted([*parts], known), known)}


@pytest.mark.parametrize("n", [40, 3000])
def test_the_test_of_a_signal_is_scipys(n: int) -> None:
    """From counts alone, with ties."""
    random = np.random.default_rng(n)
    known, seen = random.normal(size=200).round(1), random.normal(0.1, size=n).round(1)
    signals = dict.fromkeys(SIGNALS, known)
    tally = Tally(Reference(signals, np.zeros(200, int), np.zeros(200, int)), 2)
    counts = [tally.cells("distance", values) for values in (known, seen)]
    oracle = ks_2samp(known, seen, method="asymp")

    assert comparison.ks_test(*counts) == pytest.approx((oracle.statistic, oracle.pvalue))


def test_a_few_far_photos_are_found_by_their_share() -> None:
    """SciPy's exact test of the share beyond the reference's last tenth; nearer is no alarm."""
    random = np.random.default_rng(7)
    known, (signals, actual) = reference(m=400), photos(200, random)
    distances = known.signals["distance"]
    at = SIGNALS.index("distance")
    signals[:40, at] = 1000
    found = compared((signals, actual), known=known)["far"]
    limit = np.sort(distances)[-41]
    far = [int((values > limit).sum()) for values in (signals[:, at], distances)]
    table = [[far[0], 200 - far[0]], [far[1], 400 - far[1]]]

    assert far[1] == 40
    assert (found.before, found.after) == (40 / 400, far[0] / 200)
    raw = fisher_exact(table, alternative="greater").pvalue
    assert raw <= found.p <= 10 * raw * (1 + 1e-9)
    assert found.alarm
    signals[:, at] = 0
    assert compared((signals, actual), known=known)["far"].p == 1


@pytest.mark.slow
def test_in_ordinary_days_an_alarm_is_as_rare_as_promised() -> None:
    """At most 1 in 100; 200 days of 30 to 1,000 photos, each against a reference of its own."""
    alarms = 0
    for seed in range(200):
        random = np.random.default_rng([seed, 2])
        known = reference(seed=seed)
        n = int(random.integers(30, 1000))
        signals, actual = photos(n, random)
        predicted = np.where(random.random(n) < 0.1, 1 - actual, actual)
        alarms += any(f.changed for f in compared((signals, predicted), known=known).values())

    assert alarms <= 6  # 2 are expected; 7 or more have a chance of 0.4 %


def test_smaller_files_of_the_same_photos_are_told_and_are_no_alarm() -> None:
    """By their own test alone: the joint test does not see them."""
    random = np.random.default_rng(5)
    signals, actual = photos(400, random)
    signals[:, SIGNALS.index("bytes")] /= 4
    findings = compared((signals, actual), known=reference())

    assert findings["bytes"].changed
    assert not any(finding.alarm for finding in findings.values())


def test_an_alarm_does_not_depend_on_the_hours_of_the_photos() -> None:
    """The same photos from dawn to dusk, or mixed: only since when it is may differ."""
    known, random = reference(), np.random.default_rng(6)
    signals, actual = photos(400, random)
    signals[:, BRIGHTNESS] *= 0.8
    risen = np.argsort(signals[:, BRIGHTNESS])
    both = [
        compared((signals[order], actual[order]), known=known) for order in (np.arange(400), risen)
    ]

    assert {name: found.alarm for name, found in both[0].items()} == {
        name: found.alarm for name, found in both[1].items()
    }
    for name in (*SIGNALS, "predicted"):
        assert both[0][name].p == both[1][name].p


def test_a_change_is_found_named_and_dated() -> None:
    """Darker photos from the 500th of 1,000 on: the signal, by how much, and when."""
    known, random = reference(), np.random.default_rng(3)
    before, after = photos(500, random), photos(500, random)
    after[0][:, BRIGHTNESS] -= 30
    found = compared(before, after, known=known)
    brightness = found["brightness"]

    assert brightness.changed
    assert found["together"].changed
    assert brightness.before == pytest.approx(100, abs=4)
    assert brightness.after == pytest.approx(85, abs=6)
    assert abs(int(brightness.since) - 500) <= 32
    assert not found["contrast"].changed
    assert not found["contrast"].since


def test_what_only_all_signals_together_show_is_found() -> None:
    """Signals that went apart go together now; each by itself is as it was."""
    known, random = reference(1000), np.random.default_rng(4)
    signals, predicted = photos(500, random)
    signals[:, BRIGHTNESS + 1] = signals[:, BRIGHTNESS + 2] = signals[:, BRIGHTNESS]
    found = compared((signals, predicted), known=known)

    assert [name for name, finding in found.items() if finding.changed] == ["together"]


def test_labels_in_other_proportions_are_found_and_estimated() -> None:
    """80 % instead of 50 %; what the model takes for each other is corrected for."""
    known, random = reference(1000), np.random.default_rng(5)
    signals, actual = photos(600, random, first=0.8)
    predicted = np.where(random.random(600) < 0.1, 1 - actual, actual)
    tally = counted([(signals, predicted)], known)
    found = {finding.name: finding for finding in comparison.compare(tally, known)}
    first, second = comparison.shares(tally, known)

    assert found["predicted"].changed
    assert (predicted == 0).mean() < 0.76
    assert first.before == pytest.approx(0.5, abs=0.05)
    assert first.low < 0.8 < first.high
    assert first.high - first.low < 0.15
    assert first.after + second.after == pytest.approx(1)


def test_few_answers_say_nothing() -> None:
    """And a class that is hardly ever the answer does not break the test of classes."""
    known = reference()
    assert compared(photos(comparison.LEAST - 1, np.random.default_rng(6)), known=known) == {}
    signals, predicted = photos(comparison.LEAST, np.random.default_rng(6))
    assert 0 <= compared((signals, 0 * predicted), known=known)["predicted"].p <= 1

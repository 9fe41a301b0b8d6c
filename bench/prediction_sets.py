"""Prediction sets by 1 - p (LAC, as served) against adaptive ones (APS, RAPS), by MAPIE.

Half of the cross-validated photos sets the threshold, the other half is judged; 20 random halves.
Run in a project in which `dvc repro train` has run with a probe:

    python bench/prediction_sets.py
"""

import warnings

import numpy as np
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from meadow import params
from meadow.inference import classifier
from meadow.pipeline import manifest

HALVES = 20
SCORES = {  # of MAPIE, and what it does with the class that passes the threshold
    "LAC": ("lac", {}),
    "APS, by chance": ("aps", {"include_last_label": "randomized"}),
    "APS": ("aps", {"include_last_label": True}),
    "RAPS, by chance": ("raps", {"include_last_label": "randomized"}),
    "RAPS": ("raps", {"include_last_label": True}),
}
UNSURE = 0.2  # share of the photos of which the classifier is least sure


class Answers(ClassifierMixin, BaseEstimator):
    """A classifier whose input is its answer, as MAPIE wants one."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)
        self.is_fitted_ = True

    def fit(self, _x: NDArray[np.float64], _y: NDArray[np.int64]) -> "Answers":
        """Learn nothing."""
        return self

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the likeliest class of each row."""
        return np.asarray(x.argmax(axis=1))

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rows."""
        return x


def compare(probabilities: NDArray[np.float64], targets: NDArray[np.int64], level: float) -> None:
    """Print a row for each score: means over the halves."""
    n, classes = probabilities.shape
    columns = "sets hold the class | of the unsure fifth | size | none | one | one, and right"
    print(f"| score | {columns} |\n|---|{'--:|' * 6}")
    # Of two classes MAPIE has LAC alone.
    for name, (score, options) in list(SCORES.items())[: None if classes > 2 else 1]:
        rows = []
        for seed in range(HALVES):
            order = np.random.default_rng(seed).permutation(n)
            known, new = order[: n // 2], order[n // 2 :]
            sets = SplitConformalClassifier(
                Answers(classes), confidence_level=level, conformity_score=score, prefit=True,
                random_state=seed,
            )  # fmt: skip
            sets.conformalize(probabilities[known], targets[known])
            _, held = sets.predict_set(probabilities[new], conformity_score_params=options)
            held = held[:, :, 0]
            truth, size = held[np.arange(len(new)), targets[new]], held.sum(axis=1)
            sure = probabilities[new].max(axis=1)
            unsure = sure <= np.quantile(sure, UNSURE)
            one = size == 1
            rows.append(
                [truth.mean(), truth[unsure].mean(), size.mean(), (size == 0).mean(), one.mean(),
                 truth[one].mean()]
            )  # fmt: skip
        print(f"| {name} | {' | '.join(f'{v:.3f}' for v in np.nanmean(rows, axis=0))} |")


def main() -> None:
    """Compare the scores on the photos that the project's probe was cross-validated on."""
    warnings.simplefilter("ignore")  # MAPIE warns of what is meant here
    ready = manifest.load()
    rows = [*ready.split("train"), *ready.split("val")]
    log_p = np.load(classifier.FOLDER / classifier.HELD_OUT).astype(np.float64)
    p = np.exp(log_p)
    level = params.load().train.coverage
    compare(p / p.sum(axis=1, keepdims=True), ready.targets(rows), level)


if __name__ == "__main__":
    main()

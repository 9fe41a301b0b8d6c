"""CPU seconds and peak memory of a probe's head on drawn features: what train and evaluate compute.

Features have the spectrum of EfficientNet-Lite's, heavy tails, and 1,400 numbers, as those of the
recipe `probe`. Each size is a process of its own. Memory is the process's own; files that it has
mapped, which the system may drop, stand beside it. Up to 5,000 photos scikit-learn's logistic
regression, five folds and five penalties, is run too. `--short` gives two penalties and a step a
fit, for the memory of what takes hours:

    python bench/heads.py [--short] [PHOTOSxCLASSES ...]
"""

import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.evaluation import label_issues, metrics
from meadow.inference import conformal
from meadow.pipeline import probabilities
from meadow.pipeline.probabilities import Rows, likeliest
from meadow.training import out_of_distribution, probe, scratch, softmax_regression
from meadow.training.probe import Examples

SIZES = ["400x2", "4300x5", "50000x10", "50000x100"]
FEATURES, TEXTURE = 1400, 88
COVERAGE = 0.95
PENALTIES = (0.03, 0.01, 0.003, 0.001, 0.0003)  # of scikit-learn; ours goes on to the best
BESIDE = 5000  # photos up to which it is run
BETWEEN = 0.01  # variance between classes as a share of all


def draw(photos: int, classes: int) -> Examples:
    """Draw class means and noise, each with a power law along the axes of one random rotation."""
    chance = np.random.default_rng(0)
    axis = np.arange(FEATURES)
    noise, means = ((axis + knee) ** -1.4 for knee in (4.0, 20.0))
    turn, _ = np.linalg.qr(chance.standard_normal((FEATURES, FEATURES)))
    single = turn.astype(np.float32)
    targets = chance.integers(0, classes, photos)
    spread = np.sqrt(noise * FEATURES / noise.sum()).astype(np.float32)
    between = BETWEEN * means * FEATURES / means.sum()
    centres = chance.standard_normal((classes, FEATURES)) * np.sqrt(between)
    features = scratch.empty((photos, FEATURES))
    for i in range(0, photos, 4096):
        block = targets[i : i + 4096]
        rows = chance.standard_normal((len(block), FEATURES), np.float32) * spread
        rows /= np.sqrt(chance.chisquare(6, (len(block), 1)) / 6).astype(np.float32)
        features[i : i + 4096] = (rows + centres[block].astype(np.float32)) @ single
    return Examples(features, targets, [f"{i:08x}" for i in range(photos)], classes)


def ours(examples: Examples) -> Rows:
    """Do what train does with features, and evaluate with the cross-validation."""
    texture = np.random.default_rng(1).standard_normal((len(examples.targets), TEXTURE), np.float32)
    head = probe.fit(examples)
    out_of_distribution.fit(examples.features, texture, examples.groups, COVERAGE)
    held_out = probabilities.stored(head.held_out, examples.classes)
    conformal.threshold(held_out, examples.targets, COVERAGE)
    metrics.summary(held_out, examples.targets)
    label_issues.quality(held_out, examples.targets)
    label_issues.issues(held_out, examples.targets)
    return held_out


def scikit_learn(examples: Examples) -> NDArray[np.float64]:
    """Choose the penalty by five folds, and return the best penalty's probabilities out of fold."""
    from sklearn.linear_model import LogisticRegression  # takes longer than a small head

    warnings.simplefilter("ignore")  # of fits that end at their last iteration
    y, fold = examples.targets, probe.folds(examples.groups, examples.targets, probe.FOLDS)
    x = examples.features - examples.features.mean(axis=0)
    x /= np.sqrt((x**2).mean())
    tried = []
    for l2 in PENALTIES:
        p = np.empty((len(y), examples.classes))
        for part in range(probe.FOLDS):
            known, new = fold != part, fold == part
            model = LogisticRegression(C=1 / (l2 * known.sum()), max_iter=1000)
            p[new] = model.fit(x[known], y[known]).predict_proba(x[new])
        tried.append(p)
    best: NDArray[np.float64] = min(tried, key=lambda p: metrics.log_loss(p, y))
    return best


def watch(peak: dict[str, int]) -> None:
    """Go on noting the most memory of each kind that this process has had, KB."""
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peak:
                peak[name] = max(peak[name], int(value.split()[0]))
        time.sleep(0.1)


def measure(learner: Callable[[Examples], Rows], photos: int, classes: int, *, short: bool) -> None:
    """Print a line of the table."""
    if short:
        probe.L2_PATH, softmax_regression.TOLERANCE = (0.1, 0.03), 1
    peak = {"RssAnon": 0, "RssFile": 0}
    threading.Thread(target=watch, args=[peak], daemon=True).start()
    examples = draw(photos, classes)
    started, since = time.process_time(), time.perf_counter()
    p = learner(examples)
    seconds, elapsed = time.process_time() - started, time.perf_counter() - since
    accuracy = (likeliest(p)[0] == examples.targets).mean()
    own, mapped = (peak[kind] / 1024 for kind in ("RssAnon", "RssFile"))
    print(
        f"| {photos:,} x {classes:,} | {learner.__name__} | {seconds:.1f} | {elapsed:.1f}"
        f" | {own:,.0f} | {mapped:,.0f}"
        f" | {accuracy:.4f} | {metrics.log_loss(p, examples.targets):.4f} |",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    """Print a table."""
    sizes = [argument for argument in arguments if argument != "--short"] or SIZES
    options = {"short": "--short" in arguments}
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    print("| photos x classes | | CPU s | s | peak MB | mapped | accuracy | log-loss |")
    print(f"|---|---|{'--:|' * 6}", flush=True)
    alone = multiprocessing.get_context("spawn")
    for size in sizes:
        photos, classes = map(int, size.split("x"))
        for learner in (ours, scikit_learn) if photos <= BESIDE else (ours,):
            child = alone.Process(target=measure, args=(learner, photos, classes), kwargs=options)
            child.start()
            child.join()


if __name__ == "__main__":
    main(sys.argv[1:])

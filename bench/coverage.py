"""How often prediction sets hold the true class, and how many photos are "in", over many splits.

Both are promised by `train.coverage`, on average over splits; one split of 84 test photos cannot
tell 0.93 from 0.97. Run in a copy of a project, whose params.yaml and outs it changes:

    python bench/coverage.py
"""

import json

import numpy as np

from meadow.evaluate import evaluate
from meadow.experiments import recipes
from meadow.pipeline import provenance
from meadow.prepare import prepare
from meadow.train import train

SEEDS = 20


def main() -> None:
    """Print the figures of each split, and their mean with its standard error."""
    splits = []
    for seed in range(SEEDS):
        recipes.set_params({"prepare": {"seed": seed}})
        prepare()
        train()
        evaluate()
        splits.append(json.loads(provenance.FIGURES.read_text("utf-8")))
    for name in ("set_coverage", "in_distribution", "set_size", "answered_share"):
        values = [split[name] for split in splits]
        error = np.std(values, ddof=1) / np.sqrt(SEEDS)
        print(f"{name:16} {np.mean(values):.4f} +- {error:.4f}")


if __name__ == "__main__":
    main()

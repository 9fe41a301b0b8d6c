"""The probe recipe's accuracy over all photos of a set, by nested cross-validation.

Five folds by groups of near-duplicates; the penalty and the temperature are chosen anew within
each. Five seeds deal the folds. Run in a project whose params.yaml is the recipe to measure:

    python bench/nested_cv.py
"""

from pathlib import Path

import numpy as np

from meadow import params
from meadow.evaluation import metrics
from meadow.pipeline import manifest
from meadow.pipeline.manifest import Photos
from meadow.pipeline.parallel import Machines
from meadow.training import features
from meadow.training.probe import Examples, fit
from meadow.training.weights import Weights

SEEDS = 5


def main() -> None:
    """Print the figures of each seed, and mean and standard deviation."""
    p = params.load().train
    ready = manifest.load()
    network, digest = features.backbone(p, Weights.of(p.weights, p.arch), ready)
    photos = everything(ready)
    vectors, _ = features.frozen(network, digest, [photos], machines=Machines())
    deals = []
    for seed in range(SEEDS):
        groups = [f"{seed} {row.group}" for row in photos.rows]
        examples = Examples(vectors, photos.targets, groups, len(ready.classes))
        probabilities = np.exp(fit(examples).held_out, dtype=np.float64)
        deals.append(metrics.summary(probabilities, photos.targets))
        print(seed, {name: round(value, 4) for name, value in deals[-1].items()}, flush=True)
    for name in ("accuracy", "log_loss", "brier", "ece", "share_at_99"):
        values = [deal[name] for deal in deals]
        print(f"{name:12} {np.mean(values):.4f} +- {np.std(values, ddof=1):.4f}")


def everything(ready: manifest.Prepared) -> Photos:
    """Return the photos of all three splits; a benchmark may look at the test photos."""
    folder = Path(params.load().data.dir)
    pixels = [ready.preprocessing((folder / row.path).read_bytes()) for row in ready.rows]
    return Photos(ready.rows, np.stack(pixels), ready.targets(ready.rows))


if __name__ == "__main__":
    main()

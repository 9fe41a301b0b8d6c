"""Rival: fastai on a set of a few hundred photos, as chapter 2 of its book has it.

Its `fine_tune` trains a new head for one epoch, then all layers for four. Run by `learners.py`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from fastai.vision.all import (
    ImageDataLoaders,
    RandomResizedCrop,
    aug_transforms,
    set_seed,
    vision_learner,
)

deal, weights, out = sys.argv[1:]
task = json.loads(Path(deal).read_text("utf-8"))
set_seed(0, reproducible=True)
loaders = ImageDataLoaders.from_lists(
    Path(),
    task["files"],
    task["labels"],
    valid_pct=0.2,
    seed=42,
    item_tfms=RandomResizedCrop(task["size"], min_scale=0.5),
    batch_tfms=aug_transforms(),
)
learner = vision_learner(loaders, task["arch"], pretrained_cfg_overlay={"file": weights})
learner.fine_tune(4)
probabilities, _ = learner.get_preds(dl=loaders.test_dl(task["asked"]))
order = [list(loaders.vocab).index(name) for name in task["classes"]]
np.save(out, probabilities.numpy()[:, order])

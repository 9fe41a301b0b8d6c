"""Rival: scikit-learn's logistic regression on the last features of a frozen network of timm.

Standardised, the penalty by five folds. Run by `learners.py`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.data import create_transform, resolve_data_config

deal, weights, out = sys.argv[1:]
task = json.loads(Path(deal).read_text("utf-8"))
network = timm.create_model(
    task["arch"], pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": weights}
).eval()
expected = resolve_data_config(model=network) | {
    "input_size": (3, task["size"], task["size"]), "crop_pct": 1.0
}  # fmt: skip
transform = create_transform(**expected)


def features(files: list[str]) -> np.ndarray:
    """Return what the last layer would see, (n, d)."""
    with torch.no_grad():
        rows = [network(transform(Image.open(file).convert("RGB"))[None]) for file in files]
    return torch.cat(rows).numpy()


head = make_pipeline(StandardScaler(), LogisticRegressionCV(scoring="neg_log_loss", max_iter=1000))
head.fit(features(task["files"]), task["labels"])
order = [list(head.classes_).index(name) for name in task["classes"]]
np.save(out, head.predict_proba(features(task["asked"]))[:, order])

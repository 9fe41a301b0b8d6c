"""Meadow's recipes beside what others do with the same packaged weights: right, sure, and seconds.

Each learner trains in a process of its own on four fifths of the photos, never parting
near-duplicates, and answers the last fifth; so each photo is answered once a deal of the folds.
Seconds are CPU time from files to answers, imports included, nothing cached. Run in a project in
which `dvc repro prepare` has run; what FOLDER holds of an earlier run is not computed again:

    python bench/learners.py FOLDER [DEALS [LEARNER ...]]
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from packages import installed

from meadow import params
from meadow.evaluation import metrics
from meadow.experiments import recipes
from meadow.inference.classifier import Classifier
from meadow.pipeline import atomic, manifest
from meadow.prepare import prepare
from meadow.train import train
from meadow.training.probe import FOLDS, folds
from meadow.training.weights import Weights

RIVALS = Path(__file__).parent / "rivals"
LITE0 = {"arch": "timm/tf_efficientnet_lite0", "size": 224}
LITE2 = {"arch": "timm/tf_efficientnet_lite2", "size": 288}
LEARNERS = {  # what is run, and with which network
    "probe": ("probe", LITE2),
    "finetune": ("finetune", LITE2),
    "probe-lite0": ("probe", LITE0),
    "finetune-lite0": ("finetune", LITE0),
    "fastai-lite0": ("fastai_tutorial.py", LITE0),
    "timm-lite0": ("timm_finetune.py", LITE0),
    "sklearn-lite0": ("frozen_sklearn.py", LITE0),
    "sklearn-lite2": ("frozen_sklearn.py", LITE2),
}


def main(folder: Path, deals: int, names: list[str]) -> None:
    """Run what is missing, and print a table."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = manifest.load()
    targets = ready.targets(ready.rows)
    raw = Path(params.load().data.dir).resolve()
    print("| learner | accuracy | log-loss | CPU seconds |\n|---|--:|--:|--:|")
    for name in names:
        figures, seconds = [], []
        for deal in range(deals):
            fold = folds([f"{deal} {row.group}" for row in ready.rows], targets, FOLDS)
            answers = np.empty((len(targets), len(ready.classes)))
            for part in range(FOLDS):
                learned, asked = (
                    [ready.rows[i] for i in np.flatnonzero(chosen)]
                    for chosen in (fold != part, fold == part)
                )
                task = {
                    "files": [str(raw / row.path) for row in learned],
                    "labels": [row.label for row in learned],
                    "asked": [str(raw / row.path) for row in asked],
                    "classes": ready.classes,
                }
                file = folder / f"{name}-{deal}-{part}.npz"
                if not file.exists():
                    run(name, task, file)
                done = np.load(file)
                answers[fold == part] = done["probabilities"]
                seconds.append(float(done["seconds"]))
            figures.append(metrics.summary(answers, targets))
        columns = [[deal[key] for deal in figures] for key in ("accuracy", "log_loss")]
        spread = [
            f"{np.mean(c):.4f} +- {np.std(c, ddof=1) if deals > 1 else 0:.4f}" for c in columns
        ]
        print(f"| {name} | {' | '.join(spread)} | {np.mean(seconds):.0f} |", flush=True)


def run(name: str, task: Mapping[str, object], file: Path) -> None:
    """Run one learner, and write its answers and its CPU seconds."""
    program, network = LEARNERS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        deal, weights, out = folder / "deal.json", folder / "weights.pth", folder / "p.npy"
        ours = not program.endswith(".py")
        arch = str(network["arch"])
        names = network if ours else network | {"arch": arch.removeprefix("timm/")}
        deal.write_text(json.dumps({**task, **names}), "utf-8")
        paths = [str(path) for path in (deal, weights, out)]
        command = [sys.executable, str(RIVALS / program), *paths]
        path = os.environ.get("PYTHONPATH", "")
        if ours:
            command = [sys.executable, str(Path(__file__).resolve()), "--ours", program, *paths]
        else:
            save_renamed(arch, weights)
            path = f"{installed(RIVALS / 'learners.txt')}:{path}"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command, check=True, cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "MEADOW_CACHE": str(folder / "cache")},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        with atomic.whole(file) as part, part.open("wb") as opened:
            np.savez(opened, probabilities=np.load(out), seconds=seconds)


def ours(recipe: str, deal: Path, out: Path) -> None:
    """Make a project of the photos to learn from, train, and answer, as its user would."""
    task = json.loads(deal.read_text("utf-8"))
    for file, label in zip(task["files"], task["labels"], strict=True):
        link = Path("data/raw", label, Path(file).name)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, link)
    Path("params.yaml").write_bytes((Path(__file__).parents[1] / "params.yaml").read_bytes())
    recipes.apply(recipe)
    # The photos to be asked are elsewhere: one of each class has to be a test photo all the same.
    size = {"size": task["size"], "test": 0.001}
    recipes.set_params({"prepare": size, "train": {"arch": task["arch"]}})
    prepare()
    train()
    classifier = Classifier.load()
    answers = [classifier.predict(Path(file).read_bytes()).probabilities for file in task["asked"]]
    np.save(out, answers)


def save_renamed(arch: str, file: Path) -> None:
    """Save the packaged weights under timm's names, which is all that others need of them."""
    import timm  # they take seconds to import, which a learner of ours does not need
    import torch

    packaged = Weights.of("packaged", arch).file
    assert packaged is not None
    tensors = torch.load(packaged, weights_only=True)
    names = timm.create_model(arch.removeprefix("timm/")).state_dict()
    torch.save(dict(zip(names, tensors.values(), strict=True)), file)


if __name__ == "__main__":
    if sys.argv[1] == "--ours":
        ours(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[5]))
    else:
        main(Path(sys.argv[1]), int((sys.argv[2:3] or ["5"])[0]), sys.argv[3:] or list(LEARNERS))

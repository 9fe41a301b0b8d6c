"""From nothing to an answer: draw photos, run the pipeline, start the service, ask it."""

import json
from pathlib import Path

from meadow.commands import synthetic
from meadow.pipeline import atomic, manifest
from meadow.serving import server
from meadow.serving.client import Client
from meadow.storage import dvc_git

NEXT = """
Next
  make serve                               the service on http://localhost:3000, its docs at /docs
  dvc exp run -S train.finetune.lr=1e-3    try another value; `dvc exp show` compares
  meadow data import DIR                   your own photos, one folder per class; then
  meadow recipe probe && dvc repro         a pretrained network on them"""


def draw(folder: Path, count: int = 400) -> None:
    """Draw the demo's photos into a folder; what it held is replaced."""
    with atomic.whole(folder) as out:
        synthetic.draw_demo(out, count)


def demo(folder: Path) -> None:
    """Run everything once, and say what came out."""
    if not folder.exists():
        draw(folder)
        dvc_git.track(folder)
    dvc_git.dvc("repro")
    figures = json.loads(Path("metrics/evaluate.json").read_text("utf-8"))
    print(
        f"\n{figures['accuracy']:.1%} of {figures['n_test']} test photos are classified correctly"
        f" (95 % interval of the accuracy: {figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%})."
    )
    row = manifest.load().split("test")[0]
    photo = folder / row.path
    print(f"\nThe service is asked about {photo}:")
    with server.serving(server.BENTO) as url, Client(url) as client:
        print(json.dumps(client.ask(photo.read_bytes()), indent=2))
    print(NEXT)

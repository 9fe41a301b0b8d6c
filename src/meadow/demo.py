"""From nothing to an answer: draw photos, run the pipeline, start the service, ask it."""

import json
from pathlib import Path

from meadow import drawn, outputs, prepared, serving, tracking
from meadow.client import Client

NEXT = """
Next
  make serve                               the service on http://localhost:3000, its docs at /docs
  dvc exp run -S train.lr=1e-3             try another value; `dvc exp show` compares
  meadow data import DIR                   your own photos, one folder per class; then
  meadow recipe probe && dvc repro         a pretrained network on them"""


def draw(folder: Path, count: int = 400) -> None:
    """Draw the demo's photos into a folder; what it held is replaced."""
    with outputs.whole(folder) as out:
        drawn.draw_demo(out, count)


def demo(folder: Path) -> None:
    """Run everything once, and say what came out."""
    if not folder.exists():
        draw(folder)
        tracking.track(folder)
    tracking.dvc("repro")
    figures = json.loads(Path("metrics/evaluate.json").read_text("utf-8"))
    print(
        f"\n{figures['accuracy']:.1%} of {figures['n_test']} test photos are labelled rightly;"
        f" of many more it would be {figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%} (95 % interval)."
    )
    row = prepared.load().split("test")[0]
    photo = folder / row.path
    print(f"\nThe service is asked about {photo}:")
    with serving.serving(serving.BENTO) as url, Client(url) as client:
        print(json.dumps(client.ask(photo.read_bytes()), indent=2))
    print(NEXT)

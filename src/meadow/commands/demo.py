"""From nothing to an answer: draw photos, run the pipeline, start the service, ask it."""

import json
from pathlib import Path

import yaml

from meadow.commands import synthetic
from meadow.errors import MeadowError
from meadow.pipeline import atomic, manifest
from meadow.serving import server
from meadow.serving.client import Client
from meadow.storage import dvc_git

NEXT = """
Next
  make serve                           the service on http://localhost:3000, its docs at /docs
  dvc exp run -S train.probe.l2=0.1    try another value; `dvc exp show` compares
  meadow data import DIR               your own photos, one folder per class; then
  dvc repro                            the same pipeline on them"""

ROUNDED = """
Other last digits than the committed ones: another processor rounds differently, and so may other
versions of the packages. Changed for that: {changed}.
  git commit -am "The demo, as this machine makes it"    keeps yours
  git checkout dvc.lock metrics                          takes back the committed ones"""


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
    if rounded_otherwise():
        changed = dvc_git.git("diff", "--name-only", "HEAD", "--", "dvc.lock", "metrics").split()
        print(ROUNDED.format(changed=", ".join(changed)))


def rounded_otherwise() -> bool:
    """Tell whether a stage made other outs than the committed ones, of the same dependencies."""
    try:
        committed = yaml.safe_load(dvc_git.git("show", "HEAD:./dvc.lock"))["stages"]
    except MeadowError:  # there is no commit, or it has no run
        return False
    here = yaml.safe_load(Path("dvc.lock").read_text("utf-8"))["stages"]
    return any(
        stage != here[name] and {**stage, "outs": here[name]["outs"]} == here[name]
        for name, stage in committed.items()
        if name in here
    )

"""Release the model of the workspace: from then on the gate compares others with it."""

import csv
import json
import math
from pathlib import Path

from meadow.errors import MeadowError
from meadow.evaluation import gate
from meadow.pipeline import manifest
from meadow.storage import dvc_git

VERDICT = Path("metrics/gate.json")
PREDICTIONS = Path("reports/predictions.csv")


def release() -> None:
    """Write the released model's losses to metrics/released.csv, and say how to tag it.

    Raises:
        MeadowError: the pipeline is not up to date, or the gate did not pass.

    """
    if json.loads(dvc_git.dvc("status", "--json", quiet=True)):
        raise MeadowError("the pipeline is not up to date. Run `dvc repro`, then `git commit -a`.")
    if dvc_git.git("status", "--porcelain", "--untracked-files=no"):
        raise MeadowError("there are changes that are not committed. Run `git commit -a`.")
    verdict = json.loads(VERDICT.read_text("utf-8"))
    if not verdict["passed"]:
        failed = "; ".join(why for why in verdict["why"] if why.startswith("failed"))
        raise MeadowError(f"the gate did not pass: {failed}. See {VERDICT}.")
    with PREDICTIONS.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    losses = (
        {
            "sha256": each["sha256"],
            "log_loss": round(-math.log(max(float(each[f"p({each['label']})"]), 1e-12)), 6),
        }
        for each in records
    )
    manifest.write_csv(gate.RELEASED, ["sha256", "log_loss"], losses)
    print(
        f"{gate.RELEASED} has the losses of this model. Next: `dvc repro`, `git commit -a -m"
        " release`, `git tag v1`, `make share`."
    )

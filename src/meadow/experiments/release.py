"""Release the model of the workspace: from then on the gate compares others with it."""

import json

import numpy as np

from meadow.errors import MeadowError
from meadow.evaluation import gate, metrics, predictions
from meadow.pipeline import manifest, provenance
from meadow.storage import dvc_git


def release() -> None:
    """Write the released model's labels and losses to metrics/released.csv, and say how to tag it.

    Raises:
        MeadowError: the pipeline is not up to date, or the gate did not pass.

    """
    if json.loads(dvc_git.dvc("status", "--json", quiet=True)):
        raise MeadowError("the pipeline is not up to date. Run `dvc repro`, then `git commit -a`.")
    if dvc_git.git("status", "--porcelain", "--untracked-files=no"):
        raise MeadowError("there are changes that are not committed. Run `git commit -a`.")
    verdict = json.loads(provenance.VERDICT.read_text("utf-8"))
    if not verdict["passed"]:
        failed = "; ".join(why for why in verdict["why"] if why.startswith("failed"))
        raise MeadowError(f"the gate did not pass: {failed}. See {provenance.VERDICT}.")
    tested = predictions.load(predictions.TEST)
    losses = metrics.clipped_log_loss(np.array([answer.p_label for answer in tested])).round(6)
    records = (
        {"sha256": answer.sha256, "label": answer.label, "log_loss": loss}
        for answer, loss in zip(tested, losses, strict=True)
    )
    manifest.write_csv(gate.RELEASED, ["sha256", "label", "log_loss"], records)
    print(
        f"{gate.RELEASED} has the losses of this model. Next: `dvc repro`, `git commit -a -m"
        " release`, `git tag v1`, `make share`."
    )

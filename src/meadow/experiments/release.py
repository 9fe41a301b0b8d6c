"""Release the model of HEAD: a version of it in the registry, and the one that the gate knows."""

import json
from typing import Any

import gto.api
import numpy as np

from meadow.errors import MeadowError
from meadow.evaluation import gate, metrics, predictions
from meadow.experiments import registry
from meadow.pipeline import manifest, provenance
from meadow.storage import dvc_git, sharing

FIRST = "v1.0.0"


def release(bump: str = "patch", override: str | None = None) -> None:
    """Register the model of HEAD as a version, then write what the gate compares others with.

    The tag comes first: it names the commit that was checked, with the verdict of the gate against
    the release before. metrics/released.csv, which evaluate reads, belongs to the next commit.

    Args:
        bump: the part of the version before that goes up: patch, minor or major.
        override: why a model that the gate refused is released all the same; the tag keeps it.

    Raises:
        MeadowError: HEAD is not what lies here, a colleague cannot get it, the gate refused it, it
            has a version already, or the tag could not be pushed.

    """
    if json.loads(dvc_git.dvc("status", "--json", quiet=True)):
        raise MeadowError("the pipeline is not up to date. Run `dvc repro`, then `git commit -a`.")
    if dvc_git.git("status", "--porcelain", "--untracked-files=no"):
        raise MeadowError("there are changes that are not committed. Run `git commit -a`.")
    verdict = json.loads(provenance.VERDICT.read_text("utf-8"))
    if not verdict["passed"] and not override:
        failed = "; ".join(why for why in verdict["why"] if why.startswith("failed"))
        raise MeadowError(
            f"the gate did not pass: {failed}. See {provenance.VERDICT}. If the model is to be"
            ' released all the same, add --override "why".'
        )
    sharing.refuse_unshared()
    registry.fetch()
    tested = predictions.load(predictions.TEST)
    losses = metrics.clipped_log_loss(np.array([answer.p_label for answer in tested])).round(6)
    records = [
        {"sha256": answer.sha256, "label": answer.label, "log_loss": loss}
        for answer, loss in zip(tested, losses, strict=True)
    ]
    number: dict[str, Any] = {f"bump_{bump}": True} if registry.versions() else {"version": FIRST}
    text = registry.message("\n".join(["Release", "", *verdict["why"]]), override)
    with registry.errors():
        version = gto.api.register(".", registry.ARTIFACT, "HEAD", message=text, **number)
    registry.publish(version.tag)
    manifest.write_csv(gate.RELEASED, ["sha256", "label", "log_loss"], records)
    print(
        f"HEAD is {version.tag}. Next: `meadow promote {version.version} --to STAGE`.\n"
        f"{gate.RELEASED} has its losses, which the gate compares later models with. Next for that:"
        " `dvc repro`, `git commit -am released`, `make share`, `git push`."
    )

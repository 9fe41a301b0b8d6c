"""Release the model of HEAD: a version of it in the registry, and the one that the gate knows."""

import json

import gto.api
import numpy as np

from meadow.errors import MeadowError
from meadow.evaluation import gate, metrics, predictions
from meadow.experiments import registry
from meadow.pipeline import manifest, provenance
from meadow.storage import dvc_git, sharing


def release(bump: str = "patch", override: str | None = None, candidate: bool = False) -> None:
    """Register the model of HEAD as a version, then write what the gate compares others with.

    The tag comes first: it names the commit that was checked, with the verdict of the gate against
    the release before. metrics/released.csv, which evaluate reads, belongs to the next commit.

    Args:
        bump: the part of the version before that goes up: patch, minor or major.
        override: why a model that the gate refused is released all the same; the tag keeps it.
        candidate: of the next version, for people to judge: the gate goes on comparing with the
            last release. A version that HEAD has stays the only one.

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
    if candidate and (name := registry.of(dvc_git.git("rev-parse", "HEAD"))):
        registry.publish(f"{registry.ARTIFACT}@{name}")  # unless it was killed before
        print(f"HEAD is {registry.ARTIFACT}@{name} already.")
        return
    tested = predictions.load(predictions.TEST)
    losses = metrics.clipped_log_loss(np.array([answer.p_label for answer in tested])).round(6)
    records = [
        {"sha256": answer.sha256, "label": answer.label, "log_loss": loss}
        for answer, loss in zip(tested, losses, strict=True)
    ]
    text = registry.message("\n".join(["Release", "", *verdict["why"]]), override)
    number = registry.following(bump, candidate=candidate)
    with registry.errors():
        version = gto.api.register(".", registry.ARTIFACT, "HEAD", message=text, version=number)
    registry.publish(version.tag)
    print(f"HEAD is {version.tag}. Next: `meadow promote {number} --to STAGE`.")
    if candidate:
        return
    manifest.write_csv(gate.RELEASED, ["sha256", "label", "log_loss"], records)
    print(
        f"{gate.RELEASED} has its losses, which the gate compares later models with. Next for that:"
        " `dvc repro`, `git commit -am released`, `make share`, `git push`."
    )

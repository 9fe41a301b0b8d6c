"""A version of the project as Git and DVC keep it: parameters, figures, answers and photos."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from dvc.api import DVCFileSystem
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from meadow import params
from meadow.errors import MeadowError, did_you_mean
from meadow.evaluation import predictions
from meadow.evaluation.predictions import Prediction
from meadow.pipeline import places
from meadow.storage import dvc_git

WORKSPACE = "workspace"
METRICS = "metrics"
LOCK = "dvc.lock"
# DVC keeps an experiment as refs/exps/BASELINE/NAME; Git does not find it by its name alone.
NAMED = re.compile(r"(\w+) refs/(?:heads|tags|exps/[0-9a-f]{2}/[0-9a-f]{38})/(.+)")


@dataclass(frozen=True)
class Revision:
    """A commit, or what lies in the workspace.

    Attributes:
        name: as the user wrote it.
        commit: its hash; "" for the workspace.

    """

    name: str
    commit: str

    @classmethod
    def find(cls, name: str) -> "Revision":
        """Find a commit, tag, branch or experiment, or the workspace.

        Raises:
            MeadowError: there is none of this name, or there are several experiments of it.

        """
        if name == WORKSPACE:
            return cls(name, "")
        if not name.startswith("-"):  # Git would read an option
            with suppress(MeadowError):
                arguments = ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
                return cls(name, dvc_git.git(*arguments))
        lines = dvc_git.git("for-each-ref", "--format=%(objectname) %(refname)").splitlines()
        refs = [(ref[2], ref[1]) for line in lines if (ref := NAMED.fullmatch(line))]
        commits = {commit for known, commit in refs if known == name}
        if len(commits) == 1:
            return cls(name, commits.pop())
        if commits:
            listed = ", ".join(sorted(commit[:7] for commit in commits))
            raise MeadowError(f"{name!r} names several experiments: {listed}. Write one of these.")
        known = [WORKSPACE, "HEAD", *sorted({known for known, _ in refs})]
        raise MeadowError(
            f"{name!r} is no commit, tag, branch or experiment.{did_you_mean(name, known, most=3)}"
            " `git log --oneline`, `git tag` and `dvc exp list --all-commits` list them; the files"
            f" as they lie here are {WORKSPACE!r}."
        )

    @property
    def title(self) -> str:
        """The name, and the commit that it stands for."""
        short = self.commit[:7]
        return (
            self.name if not short or self.commit.startswith(self.name) else f"{self.name} {short}"
        )

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """All values of params.yaml, by dotted key."""
        return _flat(self._yaml(str(params.PARAMS)))

    @cached_property
    def figures(self) -> dict[str, Any]:
        """All figures in the JSON files that the stages wrote, by stage and name.

        Texts are left out, and DVCLive's `step`, which only counts.
        """
        figures: dict[str, Any] = {}
        paths = (out["path"] for stage in self._stages for out in stage.get("outs", []))
        for path in sorted(map(PurePosixPath, paths)):
            if path.parts[0] == METRICS and path.suffix == ".json":
                stage = path.relative_to(METRICS).with_suffix("").parts[0]
                figures |= _flat(json.loads(self._text(str(path)) or "{}"), f"{stage}.")
        return {
            key: value
            for key, value in figures.items()
            if not isinstance(value, str | list) and not key.endswith(".step")
        }

    @cached_property
    def outdated(self) -> list[str]:
        """The keys of params.yaml that have changed since the run that the figures are of."""
        used: dict[str, Any] = {}
        for stage in self._stages:
            used |= _flat(stage.get("params", {}).get(str(params.PARAMS), {}))
        return sorted(key for key, value in used.items() if self.parameters.get(key) != value)

    @cached_property
    def _stages(self) -> list[dict[str, Any]]:
        """What dvc.lock says of the last run of each stage."""
        return list((self._yaml(LOCK).get("stages") or {}).values())

    @cached_property
    def outs(self) -> dict[str, str]:
        """The MD5 of each file and folder that the stages wrote, by path."""
        outs = (out for stage in self._stages for out in stage.get("outs", []))
        return {out["path"]: out["md5"] for out in outs}

    @property
    def data(self) -> str:
        """The MD5 of the photos that prepare read, or ""."""
        folder = self.parameters.get("data.dir")
        deps = (dep for stage in self._stages for dep in stage.get("deps", []))
        return next((str(dep["md5"]) for dep in deps if dep["path"] == folder), "")

    @cached_property
    def answers(self) -> dict[str, Prediction]:
        """What the model said of each test photo, by SHA-256.

        Raises:
            MeadowError: the table is in no cache, is none, or is not that of the figures.

        """
        return self._answers(predictions.TEST, "evaluate.n_test", "evaluate.accuracy")

    @cached_property
    def cross_validated(self) -> dict[str, Prediction]:
        """What heads said of the train and val photos that they did not see, by SHA-256.

        Empty where the method is not cross-validated.

        Raises:
            MeadowError: as `answers`.

        """
        if "evaluate.cv_n" not in self.figures:
            return {}
        return self._answers(predictions.OUT_OF_FOLD, "evaluate.cv_n", "evaluate.cv_accuracy")

    def _answers(self, path: Path, number: str, accuracy: str) -> dict[str, Prediction]:
        text = self._tracked(path.as_posix()).decode()
        try:
            answers = {
                photo.sha256: photo for photo in predictions.read(io.StringIO(text, newline=""))
            }
        except KeyError:
            raise MeadowError(
                f"{path} of {self.name} does not name its photos by their content. Run"
                " `dvc repro` there to write it again."
            ) from None
        correct = sum(answer.correct for answer in answers.values()) / max(1, len(answers))
        figures = self.figures
        if figures.get(number) != len(answers) or abs(figures.get(accuracy, -1) - correct) > 1e-5:
            raise MeadowError(
                f"{path} of {self.name} is not of the run that its metrics are of. Run"
                " `dvc checkout evaluate` or `dvc repro`."
            )
        return answers

    def photo(self, answer: Prediction) -> bytes | None:
        """Return the file of a photo, from DVC's cache, its remote or the set's bucket, or None."""
        if self._unreachable:
            return None
        try:
            where = places.place(str(self.parameters.get("data.dir")))
            if isinstance(where, Path):
                data = self._tracked(f"{where}/{answer.path}")
            else:
                data = places.read(where, answer.path)
        except MeadowError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                self._unreachable.append(answer.path)
            return None
        return data if hashlib.sha256(data).hexdigest() == answer.sha256 else None

    @cached_property
    def _unreachable(self) -> list[str]:
        """What a server did not answer for: one that is down is asked once, not for each photo."""
        return []

    def _yaml(self, path: str) -> dict[str, Any]:
        try:
            content = YAML(typ="safe").load(self._text(path))
        except YAMLError as error:
            raise MeadowError(f"{path} of {self.name} is not valid YAML: {error}") from None
        return content if isinstance(content, dict) else {}

    def _text(self, path: str) -> str:
        """Read a file that Git keeps; "" where there is none."""
        try:
            if self.commit:
                return dvc_git.git("show", f"{self.commit}:{path}")
            return Path(path).read_text("utf-8")
        except (FileNotFoundError, MeadowError):
            return ""

    def _tracked(self, path: str) -> bytes:
        """Read a file that DVC keeps."""
        try:
            content: bytes = self._files.read_bytes(path)
        except Exception as error:  # each kind of remote raises its own
            commits = " --all-commits" if self.commit else ""
            raise MeadowError(
                f"{path} of {self.name} is neither in DVC's cache nor to be had from the remote"
                f" ({type(error).__name__}). Get it: `dvc fetch{commits} evaluate`, or `dvc exp"
                " pull origin NAME` for an experiment; or `make share` where it was made."
            ) from error
        return content

    @cached_property
    def _files(self) -> DVCFileSystem:
        return DVCFileSystem(".", rev=self.commit or None)


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= (
            _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {before + key: value}
        )
    return flat

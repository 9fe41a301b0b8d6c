"""What a run shows of a commit: parameters, figures, steps, pages, tables and the model."""

import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from meadow.errors import MeadowError
from meadow.experiments.revision import Revision
from meadow.inference import classifier
from meadow.storage import dvc_git, dvc_objects
from meadow.tracking import model_folder

STEPS = "metrics/train/plots/metrics"  # DVCLive's tables
PLOTS = "metrics/plots"  # Git keeps them
REPORT = re.compile(r"reports/.*\.(html|md|png|csv)")
CLASSIFIER = classifier.FOLDER.as_posix()
MODEL_FOLDER = "model"  # among the artifacts
Point = tuple[str, float, int]  # name, value, step


@dataclass(frozen=True)
class Content:
    """What is to be had of a commit, here or from the remote.

    Attributes:
        revision: the commit.
        cache: DVC's.
        lost: MD5s of outs that neither the cache nor the remote has.

    """

    revision: Revision
    cache: Path
    lost: Set[str]

    @cached_property
    def _outs(self) -> dict[str, str]:
        return {path: md5 for path, md5 in shown(self.revision).items() if md5 not in self.lost}

    @cached_property
    def model(self) -> str:
        """SHA-256 of the network, or ""."""
        file = self._files(CLASSIFIER).get("model.json")
        return json.loads(file.read_text("utf-8"))["sha256"] if file else ""

    @cached_property
    def _about(self) -> list[str]:
        return dvc_git.git("show", "-s", "--format=%ct%n%an%n%B", self.revision.commit).split(
            "\n", 2
        )

    @property
    def when(self) -> int:
        """The time of the commit in milliseconds since 1970: the same whenever it is written."""
        return 1000 * int(self._about[0])

    @property
    def tags(self) -> dict[str, str]:
        """Where the run comes from."""
        _, author, message = self._about
        return {
            "mlflow.source.git.commit": self.revision.commit,
            "mlflow.source.name": "dvc repro",
            "mlflow.source.type": "PROJECT",
            "mlflow.user": author,
            "mlflow.note.content": message.strip(),
            "data.path": str(self.revision.parameters.get("data.dir")),
            "data.md5": self.revision.data,
            "model.sha256": self.model,
        }

    @property
    def figures(self) -> dict[str, float]:
        """All figures that are numbers; true is 1."""
        return {
            name: float(value)
            for name, value in self.revision.figures.items()
            if isinstance(value, int | float)
        }

    @property
    def steps(self) -> list[Point]:
        """What DVCLive wrote down of the training, by the names that it was logged with."""
        points: list[Point] = []
        for path, file in self._files(STEPS).items():
            name = path.removesuffix(".tsv")
            with file.open(encoding="utf-8", newline="") as table:
                rows = csv.DictReader(table, delimiter="\t")
                points += [(name, float(row[Path(name).name]), int(row["step"])) for row in rows]
        return points

    def lay_out(self, folder: Path) -> None:
        """Put all that is shown into a folder, as links where it lies in DVC's cache."""
        with suppress(MeadowError):  # a commit without plots
            archive = folder / "metrics.zip"
            dvc_git.git("archive", f"--output={archive}", self.revision.commit, PLOTS)
            shutil.unpack_archive(archive, folder)
            archive.unlink()
        for out in self._outs:
            if REPORT.fullmatch(out):
                (folder / out).parent.mkdir(exist_ok=True)
                (folder / out).symlink_to(self._files(out)[""])
        if self.model:
            try:
                model_folder.write(
                    folder / MODEL_FOLDER, self.revision.commit, self._files(CLASSIFIER)
                )
            except MeadowError as error:
                shutil.rmtree(folder / MODEL_FOLDER)
                print(f"{self.revision.title}: without the model: {error}")

    def _files(self, out: str) -> Mapping[str, Path]:
        return dvc_objects.files(self.cache, self._outs[out]) if out in self._outs else {}


def shown(revision: Revision) -> dict[str, str]:
    """Return the MD5s of what DVC keeps and a run shows, by path."""
    return {
        path: md5
        for path, md5 in revision.outs.items()
        if path in (STEPS, CLASSIFIER) or REPORT.fullmatch(path)
    }


def contents(revisions: Sequence[Revision]) -> list[Content]:
    """Get all that runs of these commits show into DVC's cache; say what is not to be had.

    Raises:
        MeadowError: the remote does not answer.

    """
    if not revisions:
        return []
    outs = [shown(revision) for revision in revisions]
    lost = set(dvc_objects.fetch({md5 for of_one in outs for md5 in of_one.values()}))
    for revision, of_one in zip(revisions, outs, strict=True):
        if paths := [path for path, md5 in of_one.items() if md5 in lost]:
            print(f"{revision.title}: without {', '.join(paths)}: in no cache and on no remote.")
    cache = dvc_objects.cache()
    return [Content(revision, cache, lost) for revision in revisions]

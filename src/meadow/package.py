"""Build the Bento: the service, its modules and the model, with a version made of its content.

Reads:  bentofile.yaml and what it includes (models/classifier/, reports/model-card.md, modules of
        src/meadow, requirements/serving.lock.txt), reports/predictions.csv and the test photos, to
        compare answers.
Writes: models/bento/ and metrics/package.json.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import defaultdict
from contextlib import chdir
from itertools import chain, zip_longest
from operator import itemgetter
from pathlib import Path

import yaml

from meadow import params
from meadow.errors import MeadowError, run
from meadow.pipeline import atomic, places
from meadow.pipeline.places import Place
from meadow.serving import server
from meadow.serving.client import Client
from meadow.serving.settings import without_settings

METRICS = Path("metrics/package.json")
COMPARED = 200  # test photos at most
# Every photo that prepare took is taken, whatever its file's size.
SETTINGS = {"MEADOW_MAX_BODY": str(2**30), "MEADOW_MAX_HELD": str(2**30), "MEADOW_TIMEOUT": "300"}
TOLERANCE = 1e-6  # of a probability


def package() -> None:
    """Run the stage."""
    photos = places.place(params.load().data.dir)
    with tempfile.TemporaryDirectory() as temporary:
        staged = stage(Path(temporary) / "staged")
        version = content_hash(staged)[:12]
        built = build(staged, version, Path(temporary) / "home")
        compared, difference = compare(built, photos)
        with atomic.whole(server.BENTO) as out:
            shutil.copytree(built, out)
            out.chmod(0o755)  # BentoML's home is its owner's alone; a container's user reads this
    size = sum(file.stat().st_size for file in server.BENTO.rglob("*") if file.is_file())
    figures = {
        "version": version,
        "bytes": size,
        "compared": compared,
        "largest_difference": difference,
    }
    atomic.write_json(METRICS, figures)
    print(
        f"{server.BENTO}: version {version}, {size / 1e6:.0f} MB; its answers to {compared} test"
        " photos are evaluate's. Next: `make serve`"
    )


def stage(folder: Path) -> Path:
    """Copy bentofile.yaml and what it includes to an empty folder.

    As files: DVC may link the model into its cache, BentoML copies links as links, and the Bento
    would hold no model.
    """
    recipe = yaml.safe_load(Path("bentofile.yaml").read_text("utf-8"))
    named = ["bentofile.yaml", recipe["python"]["requirements_txt"], *recipe["include"]]
    for source in chain.from_iterable(map(_files, named)):
        if not source.is_file():
            raise MeadowError(
                f"bentofile.yaml includes {source}, which is missing. Run `dvc repro`."
            )
        target = folder / source
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder


def _files(included: str) -> list[Path]:
    """Return the files that an entry of bentofile.yaml means: a file, a pattern, or a folder."""
    if included.endswith("/"):
        files = sorted(path for path in Path(included).rglob("*") if not path.is_dir())
        return [path for path in files if "__pycache__" not in path.parts]
    return sorted(Path().glob(included)) or [Path(included)]


def content_hash(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of all files of a folder."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{digest}  {file.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def build(staged: Path, version: str, home: Path) -> Path:
    """Run `bentoml build`, which imports the service, apart from the shell; return the Bento."""
    for name in os.environ.keys() - without_settings(os.environ).keys():
        del os.environ[name]
    os.environ.update(BENTOML_HOME=str(home), BENTOML_DO_NOT_TRACK="True")
    import bentoml  # it makes its home when it is imported

    with chdir(staged):  # where bentofile.yaml finds the description
        bento = bentoml.bentos.build_bentofile("bentofile.yaml", version=version)
    description = Path(bento.path) / "bento.yaml"
    # The one thing in a Bento that is not made of its content.
    text = re.sub(
        r"^creation_time:.*$",
        "creation_time: '1970-01-01T00:00:00+00:00'",
        description.read_text("utf-8"),
        flags=re.MULTILINE,
    )
    description.write_text(text, "utf-8")
    return Path(bento.path)


def compare(bento: Path, photos: Place) -> tuple[int, float]:
    """Serve the Bento and compare its answers with evaluate's.

    Returns:
        How many photos were compared, and the largest difference of a probability.

    Raises:
        MeadowError: an answer differs by more than `TOLERANCE`.

    """
    with Path("reports/predictions.csv").open(encoding="utf-8", newline="") as file:
        records = sample(list(csv.DictReader(file)))
    largest = 0.0
    with server.serving(bento, **SETTINGS) as url, Client(url) as client:
        for record in records:
            answer = client.ask(places.read_as(photos, record["path"], record["sha256"]))
            for name, expected in probabilities(record).items():
                p = answer["probabilities"][name]
                largest = max(largest, abs(p - expected))
                if abs(p - expected) > TOLERANCE:
                    raise MeadowError(
                        f"the Bento answers {p} for {name} in {record['path']!r}, evaluate says"
                        f" {expected}. Run `dvc repro evaluate package`."
                    )
    return len(records), largest


def probabilities(record: dict[str, str]) -> dict[str, float]:
    """Return what a line of predictions.csv says of each class, of many only the likeliest."""
    if "likeliest" in record:
        return {name: float(p) for name, p in json.loads(record["likeliest"]).items()}
    return {name[2:-1]: float(p) for name, p in record.items() if name.startswith("p(")}


def sample(records: list[dict[str, str]]) -> list[dict[str, str]]:
    """Choose `COMPARED` test photos by their hashes, in turn from each class."""
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for record in sorted(records, key=itemgetter("sha256")):
        by_label[record["label"]].append(record)
    turns = zip_longest(*by_label.values())
    return [record for turn in turns for record in turn if record][:COMPARED]


if __name__ == "__main__":
    run(package)

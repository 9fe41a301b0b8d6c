"""Versions of a set and of its model, by the README's commands, on a real server."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import copied, runner
from servers import BUCKET, Server, meadow, point
from toys import TINTS, encoded, photo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a project with a toy set and one run, and a server as its remote."""
    server = Server(tmp_path_factory.mktemp("minio"))
    server.client().create_bucket(Bucket=BUCKET)
    folder = copied(first_run, tmp_path_factory.mktemp("project"))
    point(folder, server.endpoint)
    yield folder
    server.kill()


def splits(project: Path) -> dict[str, str]:
    with (project / "data/prepared/manifest.csv").open(newline="") as file:
        return {row["pixels"]: row["split"] for row in csv.DictReader(file)}


def test_a_second_version_of_the_data_and_back(project: Path) -> None:
    """Add photos, correct a label, commit, compare, go back; old photos keep their split."""
    run = runner(project)
    run(*meadow("share"))
    first, metrics = splits(project), (project / "metrics/evaluate.json").read_text()

    for i in range(10):
        (project / f"data/raw/gold/new-{i}.jpg").write_bytes(encoded(photo(100 + i, TINTS[0])))
    shutil.move(project / "data/raw/moss/003.jpg", project / "data/raw/gold/was-moss.jpg")
    changed = json.loads(run("dvc", "diff", "--json"))
    run("dvc", "add", "data/raw")
    run("dvc", "repro")
    run("git", "commit", "-qam", "ten more, one label corrected")
    committed = json.loads(run("dvc", "diff", "HEAD~1", "--json"))
    figures = json.loads(run("dvc", "metrics", "diff", "HEAD~1", "--json"))
    second = splits(project)
    run(*meadow("share"))

    for diff in (changed, committed):
        assert {"path": "data/raw/gold/new-7.jpg"} in [{"path": e["path"]} for e in diff["added"]]
        assert [e["path"] for e in diff["renamed"] if "raw" in str(e["path"])] == [
            {"old": "data/raw/moss/003.jpg", "new": "data/raw/gold/was-moss.jpg"}
        ]
    assert figures["metrics/prepare.json"]["kept"] == {"old": 32, "new": 42, "diff": 10}
    corrected = {pixels for pixels in first if second[pixels] != first[pixels]}
    assert len(corrected) <= 1  # another label is another class's split
    assert len(second) == 42

    run("git", "checkout", "-q", "HEAD~1")
    run("dvc", "checkout")
    assert splits(project) == first
    assert (project / "metrics/evaluate.json").read_text() == metrics
    assert len(list((project / "data/raw").glob("*/*.jpg"))) == 32
    assert "up to date" in run("dvc", "status")
    run("git", "checkout", "-q", "main")
    run("dvc", "checkout")

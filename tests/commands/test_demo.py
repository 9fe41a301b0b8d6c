"""The first thing that anybody runs, in a clone of what is committed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from clones import ROOT, attempt, runner
from servers import BUCKET, Server, meadow, point

from meadow.commands.demo import rounded_otherwise

pytestmark = pytest.mark.slow


def outs(lock: Path, stage: str) -> dict[str, str]:
    stages = yaml.safe_load(lock.read_text())["stages"]
    return {out["path"]: out["md5"] for out in stages[stage]["outs"]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the demo in a clone of what is committed, with the source as it stands."""
    clone = tmp_path_factory.mktemp("demo") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    for name in ("src", "params.yaml", "dvc.yaml", "dvc.lock"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, clone / name, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / name, clone / name)
    done = attempt(clone, *meadow("demo"), MEADOW_CACHE=str(clone.with_name("cache")))
    assert done.returncode == 0, done.stdout + done.stderr
    return clone, done.stdout


def test_the_demo_reproduces_the_committed_data(demo: tuple[Path, str]) -> None:
    """On any machine: photos and what prepare makes of them have the committed hashes."""
    clone, output = demo

    assert "test photos are classified correctly" in output
    assert '"label": "dandelion"' in output
    assert (ROOT / "data/raw.dvc").read_text() == (clone / "data/raw.dvc").read_text()
    assert outs(ROOT / "dvc.lock", "prepare") == outs(clone / "dvc.lock", "prepare")
    figures = json.loads((clone / "metrics/evaluate.json").read_text())
    assert figures["accuracy"] >= 0.9  # 0.978 where it was written; +- 0.016 is chance


@pytest.mark.parametrize(
    ("section", "said"), [("outs", True), ("deps", False), (None, False)]
)  # fmt: skip
def test_another_processor_is_said_to_round_otherwise(
    section: str | None, said: bool, project: Path
) -> None:
    """Other outs of the same deps; not after a change of the code, nor of the same outs."""
    run = runner(project)
    stage = {name: [{"path": name, "md5": "1"}] for name in ("deps", "outs")}
    lock = project / "dvc.lock"
    lock.write_text(yaml.safe_dump({"stages": {"train": stage}}))
    run("git", "init", "-q")
    assert not rounded_otherwise()
    run("git", "add", "dvc.lock")
    run("git", "commit", "-qm", "a run")
    stage["outs"][0]["md5"] = "2" if section else "1"
    if section == "deps":
        stage["deps"][0]["md5"] = "2"
    lock.write_text(yaml.safe_dump({"stages": {"train": stage}}))

    assert rounded_otherwise() is said


def test_its_outs_are_shared(demo: tuple[Path, str], tmp_path: Path) -> None:
    """They come back in another clone, where no stage runs."""
    clone, _ = demo
    server = Server(tmp_path / "minio")
    try:
        server.client().create_bucket(Bucket=BUCKET)
        run = runner(clone)
        point(clone, server.endpoint)
        run("git", "commit", "-qam", "the demo, as this machine makes it", "--allow-empty")
        run(*meadow("share"))
        assert "no stage ran, every hash is the committed one" in run(*meadow("verify"))
    finally:
        server.kill()

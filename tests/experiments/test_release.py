"""Releases as docs/operating.md tells, in a clone with a toy set, a real server and an origin."""

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import ROOT, Run, attempt, copied, runner, surroundings
from servers import BUCKET, Server, meadow, point

from meadow.pipeline.ports import answers, free_port
from meadow.serving.parent import kill_with_parent

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs/operating.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
RELEASE, PROMOTE, BESIDE = (
    [line.partition("#")[0] for line in block.splitlines()] for block in BLOCKS[:3]
)


@pytest.fixture(scope="module")
def clone(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a project with one run that the gate refused."""
    server = Server(tmp_path_factory.mktemp("minio"))
    server.client().create_bucket(Bucket=BUCKET)
    folder = copied(first_run, tmp_path_factory.mktemp("clone"))
    point(folder, server.endpoint)
    run = runner(folder)
    origin = tmp_path_factory.mktemp("origin")
    run("git", "init", "-q", "--bare", "-b", "main", str(origin))
    run("git", "remote", "add", "origin", str(origin))
    run("git", "push", "-q", "-u", "origin", "main")
    yield folder
    server.kill()


@pytest.fixture
def run(clone: Path) -> Run:
    """Return a function that runs a command in the clone."""
    return runner(clone)


def test_what_the_gate_refused_is_released_with_a_reason_only(clone: Path, run: Run) -> None:
    """The toy model is bad; the reason is in the tag."""
    run(*meadow("share"))
    refused = attempt(clone, *meadow("release"))
    run(*meadow("release", "--override", "a trial"))

    assert refused.returncode == 1
    assert "the gate did not pass: failed: the test accuracy" in refused.stderr
    assert '--override "why"' in refused.stderr
    assert "overridden: a trial" in run("git", "tag", "-l", "--format=%(contents)", "*@v1.0.0")
    run("git", "checkout", "-q", "metrics/released.csv")


def test_a_release_is_what_the_gate_compares_with(clone: Path, run: Run) -> None:
    """From the next commit on: the released one has the verdict against the release before."""
    text = (clone / "params.yaml").read_text()
    for old, new in (("y: 0.8", "y: 0.0"), ("loss: 0.5", "loss: 9.9"), ("test: 0.25", "test: 0.6")):
        assert old in text
        text = text.replace(old, new)
    (clone / "params.yaml").write_text(text)
    steps = RELEASE[0].split(" && ") + RELEASE[1].split(" && ")
    refused = []
    for step in steps:
        refused.append(attempt(clone, *meadow("release")))
        run("sh", "-c", step)
    output = run("sh", "-c", RELEASE[2])
    again = attempt(clone, *meadow("release"))
    run("sh", "-c", RELEASE[3])
    verdict = json.loads((clone / "metrics/gate.json").read_text())

    whys = ["Run `dvc repro`", "Run `git commit -a`", "remote lacks data/prep", "Run `git push`"]
    for done, why in zip([*refused, again], [*whys, "Run `dvc repro`"], strict=True):
        assert done.returncode == 1
        assert why in done.stderr
    assert "meadow promote v1.1.0 --to STAGE" in output
    assert run("git", "ls-remote", "--tags", "origin", "*@v1.1.0")
    assert "no released model" in run("git", "show", "classifier@v1.1.0:metrics/gate.json")
    same = "both were tested on with the same label, the log-loss differs by +0.000"
    assert same in verdict["why"][2]


def test_a_version_of_this_commit_is_refused(clone: Path, run: Run) -> None:
    """With its name; the file of the gate stays as it is."""
    run(*meadow("release"))
    run("git", "checkout", "-q", "metrics/released.csv")
    done = attempt(clone, *meadow("release"))

    assert done.returncode == 1
    assert "already registered in this commit with version 'v1.1.1'" in done.stderr
    assert run("git", "status", "--porcelain") == ""


def test_candidates_count_up_to_the_next_version(clone: Path, run: Run) -> None:
    """A commit has one; the gate goes on comparing with the release, and notes pass over them."""
    outputs = []
    for number in (1, 2):
        run("git", "commit", "-q", "--allow-empty", "-m", f"candidate {number}")
        run("git", "push", "-q")
        outputs += [run(*meadow("release", "--candidate")) for _ in range(2)]
    run("git", "commit", "-q", "--allow-empty", "-m", "merged")
    run("git", "push", "-q")

    named = [re.findall(r"HEAD is classifier@(\S+?)\.? ", output + " ") for output in outputs]
    assert named == [["v1.1.2-rc.1"], ["v1.1.2-rc.1"], ["v1.1.2-rc.2"], ["v1.1.2-rc.2"]]
    assert run("git", "status", "--porcelain") == ""
    assert len(run("git", "ls-remote", "--tags", "origin", "*-rc.?").splitlines()) == 2
    assert "classifier@v1.1.2." in run(*meadow("release"))
    run("git", "checkout", "-q", "metrics/released.csv")
    assert run(*meadow("versions")).index("v1.1.2 ") < run(*meadow("versions")).index("v1.1.2-rc.2")


def test_dvc_and_gto_get_what_is_in_a_stage(clone: Path, run: Run) -> None:
    """The Bento that was released, from the server; after a rollback the one before."""
    run(*meadow("promote", "v1.0.0", "--to", "prod", "--override", "a trial"))
    run("sh", "-c", PROMOTE[0])
    shutil.rmtree(clone / ".dvc/cache")

    def bento() -> str:
        shutil.rmtree(clone / "bento", ignore_errors=True)
        run("sh", "-c", BESIDE[1])
        text = (clone / "bento/bento.yaml").read_text()
        return str(re.findall(r"^version: (\w+)", text, re.MULTILINE)[0])

    def released(name: str) -> str:
        figures = run("git", "show", f"classifier@{name}:metrics/package.json")
        return str(json.loads(figures)["version"])

    promoted = bento()
    before = run("sh", "-c", PROMOTE[1])
    run("sh", "-c", PROMOTE[2])
    back = bento()

    assert (promoted, back) == (released("v1.1.0"), released("v1.0.0"))
    assert re.findall(r"^(v\d\S+) +(prod)?", before, re.MULTILINE) == [
        ("v1.1.2", ""),
        ("v1.1.2-rc.2", ""),
        ("v1.1.2-rc.1", ""),
        ("v1.1.1", ""),
        ("v1.1.0", "prod"),
        ("v1.0.0", ""),
    ]
    assert re.search(r"classifier .* v1\.1\.2 .* v1\.0\.0 ", run("sh", "-c", BESIDE[0]))

    (get,) = re.findall(r"^dvc artifacts .*/opt/.*", PAGE, re.MULTILINE)
    run("sh", "-c", get.replace("/opt/meadow", str(clone / "opt")))
    assert (clone / "opt/v1.1.0/bento.yaml").exists()
    port = str(free_port())
    command = [*shlex.split(BESIDE[2]), "--port", port]
    with subprocess.Popen(
        command, cwd=clone, env=surroundings(clone), preexec_fn=kill_with_parent
    ) as server:
        try:
            while not answers(f"http://127.0.0.1:{port}/readyz"):
                assert server.poll() is None
                time.sleep(0.1)
        finally:
            server.terminate()

"""Versions compared as a user does, in a repository with two commits and an experiment."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from browser import DESKTOP, PHONE, Browser, invalid, too_wide, violations
from clones import ROOT, Run, attempt, runner
from toys import TINTS, encoded, photo

from meadow.errors import MeadowError
from meadow.experiments import compare
from meadow.experiments.differences import Differences, sentences
from meadow.experiments.revision import Revision
from meadow.pipeline import manifest
from meadow.reporting.html import Picture

pytestmark = pytest.mark.slow
HEADER = ["path", "sha256", "group", "label", "predicted", "p(gold)", 'p(<b>"moss"&)']
HOSTILE = '<b>"moss"&'
DVC_YAML = """\
stages:
  evaluate:
    cmd: "true"
    params: [train]
    outs: OUTS
    metrics: [metrics/evaluate.json: {cache: false}]
"""


def write_run(folder: Path, wrong: set[str], photos: dict[str, bytes], epochs: int) -> None:
    """Write what prepare, train and evaluate would, with these photos misclassified."""
    records = []
    for path, data in photos.items():
        label = path.partition("/")[0]
        other = HOSTILE if label == "gold" else "gold"
        predicted, not_predicted = (other, label) if path in wrong else (label, other)
        sha256 = hashlib.sha256(data).hexdigest()
        known = {
            "path": path,
            "sha256": sha256,
            "group": sha256,
            "label": label,
            "predicted": predicted,
        }
        records.append(known | {f"p({predicted})": 0.9, f"p({not_predicted})": 0.1})
        (folder / "data/raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data/raw" / path).write_bytes(data)
    shutil.rmtree(folder / "reports", ignore_errors=True)
    (folder / "reports").mkdir()
    (folder / "metrics").mkdir(exist_ok=True)
    manifest.write_csv(folder / "reports/predictions.csv", HEADER, records)
    # five photos, classified correctly but for one in the runs of 3 epochs
    reviewed = [
        {
            "path": f"gold/t{i}.png", "label": "gold", "p_label": 0.8, "p_suggested": 0.8,
            "suggested": HOSTILE if epochs == 3 and i == 0 else "gold",
            "sha256": f"t{i}", "group": f"t{i}",
        }
        for i in range(5)
    ]  # fmt: skip
    manifest.write_csv(folder / "reports/review.csv", list(reviewed[0]), reviewed)
    right = 1 - len(wrong & photos.keys()) / len(photos)
    figures = {"accuracy": right, "accuracy_low": right - 0.1, "accuracy_high": 1.0}
    figures |= {"n_test": len(photos), "cv_n": 5, "cv_accuracy": 0.8 if epochs == 3 else 1.0}
    (folder / "metrics/evaluate.json").write_text(json.dumps(figures))
    params = f"data: {{dir: data/raw}}\ntrain: {{epochs: {epochs}, lr: 0.01}}\n"
    (folder / "params.yaml").write_text(params)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository: tag v1, on it the experiment `idea`, then a commit with more photos."""
    folder = tmp_path_factory.mktemp("repository")
    run = runner(folder)
    names = [f"gold/{i}.png" for i in range(8)] + [f"{HOSTILE}/new\nline{i}.png" for i in range(4)]
    photos = {name: encoded(photo(i), "PNG") for i, name in enumerate(names)}
    run("git", "init", "-q", "-b", "main")
    run("dvc", "init", "-q")
    # as in older versions, in which evaluate also rendered; the second commit has the files alone
    (folder / "dvc.yaml").write_text(DVC_YAML.replace("OUTS", "[reports]"))
    (folder / ".gitignore").write_text("/data/raw\n")
    write_run(folder, {"gold/0.png", "gold/1.png"}, photos, epochs=3)
    run("dvc", "add", "-q", "data/raw")
    commit(run, "first")
    run("git", "tag", "v1")
    write_run(folder, {"gold/1.png", names[-1]}, photos, epochs=5)
    run("dvc", "commit", "-q", "-f")
    run("dvc", "exp", "save", "-n", "idea")
    run("git", "reset", "-q", "--hard")
    photos["gold/0.png"], photos["gold/9.png"] = photos["gold/1.png"], photos["gold/0.png"]
    del photos["gold/1.png"]  # another photo has the name of the first, which has another
    photos["gold/8.png"] = encoded(photo(99, TINTS[0]), "PNG")
    write_run(folder, {"gold/8.png"}, photos, epochs=3)
    files = "[reports/predictions.csv, reports/review.csv]"
    (folder / "dvc.yaml").write_text(DVC_YAML.replace("OUTS", files))
    (folder / "data/raw/gold/1.png").unlink()
    run("dvc", "add", "-q", "data/raw")
    commit(run, "second")
    return folder


def commit(run: Run, message: str) -> None:
    run("dvc", "commit", "-q", "-f")
    run("git", "add", "-A")
    run("git", "commit", "-qm", message)


@pytest.fixture
def inside(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Stand in the repository, as it was committed."""
    monkeypatch.chdir(repository)
    run = runner(repository)
    run("git", "reset", "-q", "--hard")
    run("dvc", "checkout", "-q", "--force")
    return run


def differences(*names: str) -> Differences:
    return Differences.between([Revision.find(name) for name in names])


def test_an_experiment_against_its_commit(inside: Run) -> None:
    """The parameter and figures that differ alone, and each photo mended or broken."""
    changes = differences("v1", "idea")
    against, cross_validated = changes.on_photos

    (row,) = changes.parameters
    assert (row.name, *row.cells) == ("train.epochs", "3", "5", "+2")
    assert [row.name for row in changes.figures] == ["evaluate.cv_accuracy"]  # 2 of 12 are wrong
    assert against.comparison
    assert [new.path for _, new in against.comparison.mended] == ["gold/0.png"]
    assert [new.path for _, new in against.comparison.broken] == [f"{HOSTILE}/new\nline3.png"]
    assert "Of 12 photos idea mends 1 and breaks 1." in sentences(against)
    assert "no difference that 12 photos could show" in "".join(sentences(against))
    assert sentences(cross_validated)[0] == "Of 5 photos idea mends 1 and breaks 0."


def test_photos_are_followed_when_they_are_renamed(inside: Run) -> None:
    """On the photos of both test sets; a path may be another photo's now."""
    changes = differences("v1", "main")
    first = sentences(changes.on_photos[0])

    assert first[0] == "v1 was judged on 12 photos, main on 13; both on 12."
    assert first[1] == "Of 12 photos main mends 2 and breaks 0."
    assert changes.figures[0].cells[:2] == ["0.833 (0.733 to 1.000)", "0.923 (0.823 to 1.000)"]


def test_one_name_is_compared_with_the_workspace(
    inside: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it lies there; what was changed since its run is said."""
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("lr: 0.01", "lr: 0.02"))
    compare.compare(["main"], None)
    printed = capsys.readouterr().out

    assert "workspace gives the same answers to all 13 photos." in printed
    assert "train.lr" in printed
    assert "The figures of workspace were made with other values of train.lr" in printed


def test_the_first_of_several_is_the_baseline(
    inside: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """And all intervals hold together."""
    compare.compare(["v1", "idea", "main"], None)
    printed = capsys.readouterr().out

    assert "each interval is of 97.5%" in printed
    assert printed.count("on the test photos") == 2


def test_predictions_of_another_run_than_the_metrics_are_not_compared(inside: Run) -> None:
    """As after `git checkout` without `dvc checkout`."""
    inside("git", "checkout", "-q", "v1", "--", "metrics", "params.yaml", "dvc.lock")
    (on_photos,) = differences("v1", "workspace").on_photos

    assert on_photos.comparison is None
    assert "`dvc checkout evaluate`" in on_photos.problem


@pytest.mark.parametrize(
    ("name", "close"), [("ide", "idea"), ("mian", "main"), ("v2", "v1"), ("--all", "")]
)
def test_an_unknown_version_is_named_with_close_ones(inside: Run, name: str, close: str) -> None:
    """Among branches, tags and experiments; Git never takes it for an option."""
    with pytest.raises(MeadowError, match=f"'{name}' is no commit.*{close}.*git log"):
        Revision.find(name)


def test_markdown_holds_no_markup_of_a_name(
    inside: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that is one, photos folded in, and every name as text."""
    compare.compare(["v1", "idea"], None, "markdown")
    printed = capsys.readouterr().out

    assert "<details><summary>The 2 photos</summary>\n\n" in printed
    assert "|:-------------|" in printed
    assert "<b>" not in printed
    assert "&#60;b&#62;&#34;moss&#34;&#38;/new line3.png" in printed


def test_json_has_what_the_terminal_tells(inside: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Values as they are, with intervals, and each photo that is mended or broken."""
    compare.compare(["v1", "idea"], None, "json")
    printed = json.loads(capsys.readouterr().out)
    on_test, cross_validated = printed["photos"]

    assert printed["parameters"] == {"train.epochs": {"v1": 3, "idea": 5}}
    assert list(printed["figures"]) == ["evaluate.cv_accuracy"]
    assert on_test["compared"] == 12
    assert on_test["mended"] == [
        {"path": "gold/0.png", "label": "gold", "was": HOSTILE, "is": "gold"}
    ]
    assert on_test["broken"][0]["path"] == f"{HOSTILE}/new\nline3.png"
    assert on_test["accuracy"]["low"] <= on_test["accuracy"]["difference"] == 0
    assert cross_validated["mended"]
    assert cross_validated["broken"] == []


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_shows_the_photos_and_hurts_nobody(
    inside: Run, browser: Browser, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    """Valid, accessible, whole in one file; a name with markup in it is shown as it is."""
    page = Path("compare.html")
    compare.compare(["v1", "idea"], page)

    assert invalid(page) == []
    with browser.visit(page, size=size, scheme=scheme) as seen:
        captions = seen.locator("figcaption").all_inner_texts()
        words = seen.get_by_text("the photo is not here").count()
        sizes = seen.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")
        assert violations(seen) == []
        assert not too_wide(seen)
    assert captions[0] == f"gold\nit said {HOSTILE} (90%)\nnow gold (90%)\ngold/0.png"
    assert captions[1].startswith(HOSTILE)
    assert sizes == [72, 72]
    assert words == 1  # the cross-validated one is in no set here


def test_a_photo_that_is_lost_leaves_words(inside: Run) -> None:
    """The comparison is of answers; the pictures are a help."""
    revision = Revision.find("v1")
    answer = replace(next(iter(revision.answers.values())), path="gold/nowhere.png")

    assert revision.photo(answer) is None
    assert Picture.of(revision.photo(answer), answer.label, "").data == ""


def test_without_the_cached_answers_the_figures_are_compared(
    repository: Path, tmp_path: Path
) -> None:
    """In a clone without cache and remote: the figures, and the command that fetches the rest."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(repository), str(clone)], check=True)
    done = attempt(clone, "meadow", "compare", "v1", "main", PYTHONPATH=str(ROOT / "src"))

    assert done.returncode == 0, done.stderr
    assert "0.833 (0.733 to 1.000)" in done.stdout
    assert "`dvc fetch --all-commits evaluate`" in done.stdout


def test_answers_are_got_from_the_remote(repository: Path, tmp_path: Path) -> None:
    """Where the cache lacks them; nothing is run."""
    runner(repository)("dvc", "push", "-q", "--all-commits", "-r", remote(repository, tmp_path))
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(repository), str(clone)], check=True)
    remote(clone, tmp_path)
    done = attempt(clone, "meadow", "compare", "v1", "main", PYTHONPATH=str(ROOT / "src"))

    assert "Of 12 photos main mends 2 and breaks 0." in done.stdout, done.stderr


def remote(folder: Path, tmp_path: Path) -> str:
    """Make a folder beside it the default remote, on this machine only."""
    command = ("dvc", "remote", "add", "-q", "--local", "--force", "--default", "folder")
    runner(folder)(*command, str(tmp_path / "store"))
    return "folder"

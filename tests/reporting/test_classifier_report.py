"""The report: it tells what evaluate found, to anybody, without a network."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from browser import DESKTOP, PHONE, Browser, invalid, too_wide, violations
from PIL import Image
from toys import encoded, photo

from meadow.errors import MeadowError
from meadow.evaluation import metrics, predictions, tables
from meadow.inference.classifier import FOLDER
from meadow.pipeline import atomic, manifest, provenance
from meadow.pipeline.image import Preprocessing
from meadow.pipeline.manifest import Row
from meadow.report import report
from meadow.reporting import charts
from meadow.reporting.charts import Axis, Chart
from meadow.reporting.findings import Findings

PAGE = Path("reports/report.html")
MISTAKES = Path("reports/mistakes.png")


def write_run(classes: int, *, passed: bool = True, epochs: int = 3) -> None:
    """Write what prepare, train and evaluate would: 3 test photos a class, each third wrong."""
    names = [f"class {i:03}" for i in range(classes)]
    file = Path("data/raw/photo.jpg")
    file.parent.mkdir(parents=True)
    file.write_bytes(encoded(photo(1)))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    rows = [
        Row(file.name, name, "test", f"g{i}", sha256, "", 200, 100 + i, 1)
        for i, name in enumerate(np.repeat(names, 3).tolist())
    ]
    manifest.FOLDER.mkdir()
    manifest.write_manifest(manifest.FOLDER, names, Preprocessing(32, "squash"), rows)
    lines = [{"path": f"{i}.jpg", "reason": "damaged", "detail": "<b>"} for i in range(60)]
    manifest.write_csv(manifest.FOLDER / "left_out.csv", list(lines[0]), lines)
    targets = np.arange(classes).repeat(3)
    probabilities = np.full((len(rows), classes), 0.1 / (classes - 1))
    predicted = np.where(np.arange(len(rows)) % 3, targets, (targets + 1) % classes)
    probabilities[np.arange(len(rows)), predicted] = 0.9
    tables.write_plots(probabilities, targets, names)
    tables.write_classes(probabilities, targets, names)
    predictions.write(
        rows,
        names,
        probabilities=probabilities,
        set_sizes=np.ones(len(rows), np.int64),
        distance=np.zeros(len(rows)),
        in_distribution=np.ones(len(rows), bool),
    )
    manifest.write_csv(predictions.OUT_OF_FOLD, ["path", "suggested"], [])
    figures = metrics.summary(probabilities, targets) | {"n_test": len(rows), "set_coverage": 0.9}
    why = "passed: it is good" if passed else "failed: it is <bad>"
    atomic.write_json(Path("metrics/evaluate.json"), figures)
    atomic.write_json(Path("metrics/gate.json"), {"passed": passed, "why": [why]})
    measured = provenance.sha256(provenance.FIGURES, provenance.VERDICT)
    atomic.write_json(provenance.FILE, {provenance.MODEL: "abc", **measured})
    atomic.write_json(FOLDER / "model.json", {"method": "finetune", "sha256": "abc"})
    for part in ("train", "val"):
        curve = Path(f"metrics/train/plots/metrics/{part}/log_loss.tsv")
        curve.parent.mkdir(parents=True)
        points = "".join(f"{step}\t{1 / (step + 1)}\n" for step in range(epochs))
        curve.write_text(f"step\tlog_loss\n{points}")


def test_figures_of_another_model_are_not_reported(project: Path) -> None:
    """After `dvc repro train` alone they are of the model before."""
    write_run(2)
    atomic.write_json(FOLDER / "model.json", {"method": "finetune", "sha256": "another"})

    with pytest.raises(MeadowError, match=r"of another model.*dvc repro evaluate"):
        Findings.read()


def test_the_headline_is_the_interval_in_plain_words(in_built: Path) -> None:
    """Rounded outwards: it never promises more than was measured."""
    figures = json.loads(Path("metrics/evaluate.json").read_text())
    words = re.search(r"Of 100 photos like these, (\d+) to (\d+) are", PAGE.read_text())

    assert words
    assert int(words[1]) <= 100 * figures["accuracy_low"]
    assert int(words[2]) >= 100 * figures["accuracy_high"]


def test_the_same_findings_give_the_same_bytes(in_built: Path) -> None:
    """No time, no path of the machine; and small enough to be mailed."""
    before = PAGE.read_bytes(), MISTAKES.read_bytes()
    report()

    assert before == (PAGE.read_bytes(), MISTAKES.read_bytes())
    assert str(Path.cwd()).encode() not in before[0]
    assert len(before[0]) < 5 * 2**20


def test_nothing_is_measured(in_built: Path, tmp_path: Path) -> None:
    """Without the network and the packed pixels: an edit of a word repeats no inference."""
    taken = [Path("models/classifier/model.onnx"), *Path("data/prepared").glob("*.npy")]
    for file in taken:
        shutil.move(file, tmp_path / file.name)
    try:
        report()
    finally:
        for file in taken:
            shutil.move(tmp_path / file.name, file)


@pytest.mark.parametrize(
    ("classes", "confusion", "shown"), [(12, 12, 12), (13, 13, 13), (51, 50, 50)]
)
@pytest.mark.usefixtures("project")
def test_many_classes_are_shortened(classes: int, confusion: int, shown: int) -> None:
    """A matrix of twelve, then the pairs that are confused most; at most 50 lines of a table."""
    write_run(classes)
    report()
    page = PAGE.read_text()

    matrix, pairs = "label \\ predicted" in page, "Pairs of classes confused most" in page
    assert (matrix, pairs) == (classes <= 12, classes > 12)
    in_tables = page.count('<th scope="row">class ')
    assert in_tables == shown + shown + confusion  # photos, classes, confusion
    assert ("the 50 worst of 51" in page) is (classes == 51)
    assert ('<p class="soft">Photos of each class and split, the 50 largest of 51:' in page) is (
        classes == 51
    )
    assert f"Misclassified: {classes} of {3 * classes} test photos" in page
    assert page.count("<figcaption>labelled class") == min(24, classes)
    assert "Left out: 60; the first 50" in page
    assert "top-5 accuracy" in page


@pytest.mark.usefixtures("project")
def test_a_gate_that_failed_says_why() -> None:
    """In the report, the model card and the terminal, with what is markup in it as text."""
    write_run(2, passed=False)
    report()

    assert "<h2>The gate failed</h2>" in PAGE.read_text()
    assert "<li>failed: it is &lt;bad&gt;</li>" in PAGE.read_text()
    assert (
        "did not pass the gate:\n\n- failed: it is \\<bad\\>"
        in PAGE.with_name("model-card.md").read_text()
    )
    assert Findings.read().summary.endswith("gate failed: it is <bad>")


@pytest.mark.usefixtures("project")
def test_a_curve_of_one_point_is_a_dot() -> None:
    """As after one epoch: a line of one point would show nothing."""
    write_run(2, epochs=1)
    report()
    (chart,) = re.findall(r"<figure>(?:(?!<figure>).)*Learning: log-loss.*?</figure>",
                          PAGE.read_text(), re.DOTALL)  # fmt: skip

    assert chart.count('<circle cx="44.0" cy="24.0"') == 2
    assert "nan" not in chart
    assert "dashed on the train photos" in chart


@pytest.mark.parametrize("classes", [2, 30])
@pytest.mark.usefixtures("project")
def test_the_misclassified_photos_are_on_one_picture(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six in a row, 160 x 194 pixels each, under a title; of many the most confident."""
    monkeypatch.setattr("meadow.reporting.classifier_report.TILES", 20)
    write_run(classes)
    report()

    with Image.open(MISTAKES) as sheet:
        assert sheet.size == (6 * 160, 34 + -(-min(classes, 20) // 6) * 194)
        assert len(sheet.convert("RGB").getcolors(1 << 20) or []) > 1000  # photos, no grey tiles


@pytest.mark.usefixtures("project")
def test_a_photo_that_changed_is_refused() -> None:
    """It is not the one that was measured."""
    write_run(2)
    Path("data/raw/photo.jpg").write_bytes(encoded(photo(2)))

    with pytest.raises(MeadowError, match="has changed since prepare"):
        report()
    assert not PAGE.exists()


@pytest.mark.usefixtures("project")
def test_without_figures_the_command_that_makes_them_is_named() -> None:
    """The stage was run by hand, before evaluate."""
    with pytest.raises(MeadowError, match=r"model\.json is missing. Run `dvc repro evaluate`"):
        report()


def test_of_many_points_the_ends_are_kept() -> None:
    """A curve of 40,000 photos is drawn with a few hundred points, from end to end."""
    chart = Chart("", "", Axis("", 0, 39_999), Axis("", 0, 1))
    places = chart.polyline([(x, 0.5) for x in range(40_000)]).split(" ")

    assert len(places) == charts.POINTS
    assert (places[0], places[-1]) == ("44.0,119.0", "312.0,119.0")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
@pytest.mark.parametrize("classes", [2, 13, 51])
@pytest.mark.usefixtures("project")
def test_the_page_is_valid_accessible_and_whole(
    classes: int,
    browser: Browser,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    """HTML that validates, nothing from elsewhere, no console message, no fault that axe finds."""
    write_run(classes, epochs=1 if classes == 2 else 3)
    report()

    assert invalid(PAGE) == []
    with browser.visit(PAGE, size=size, scheme=scheme) as seen:
        assert violations(seen) == []
        assert not too_wide(seen)

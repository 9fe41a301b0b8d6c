import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torchvision
from toys import draw_set

from meadow import params
from meadow.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def repository(project: Path) -> Path:
    """Stand in a Git repository with DVC and a first commit."""
    shutil.copy(ROOT / ".dvcignore", project)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *identity, "commit", "-qm", "first"], check=True)
    return project


@pytest.mark.parametrize("name", ["demo", "probe", "finetune"])
def test_a_recipe_switches_the_values_and_keeps_the_comments(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Every comment stays, the diff is shown, and the result is valid."""
    comments = [line.partition("#")[2] for line in Path("params.yaml").read_text().splitlines()]
    main(["recipe", "finetune"])
    main(["recipe", name])
    text = Path("params.yaml").read_text()
    chosen = params.load().train

    assert [line.partition("#")[2] for line in text.splitlines()] == comments
    assert "+  arch: mobilenet_v2" in capsys.readouterr().out
    assert chosen.method == ("probe" if name == "probe" else "finetune")


def test_the_demo_recipe_is_what_is_committed(project: Path) -> None:
    """And switching there and back leaves the file as it was."""
    committed = Path("params.yaml").read_text()
    main(["recipe", "demo"])
    assert committed == Path("params.yaml").read_text()
    main(["recipe", "probe"])
    main(["recipe", "demo"])

    assert committed == Path("params.yaml").read_text()


def test_an_unknown_recipe_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the known ones."""
    with pytest.raises(SystemExit):
        main(["recipe", "magic"])

    assert "finetune" in capsys.readouterr().err


@pytest.mark.slow
def test_own_photos_are_taken_and_tracked(repository: Path, tmp_path: Path) -> None:
    """One data/raw.dvc; a second import replaces what DVC can bring back."""
    main(["data", "import", str(draw_set(tmp_path / "one", {"gold": 4, "moss": 4}))])
    first = Path("data/raw.dvc").read_text()
    main(["data", "import", str(draw_set(tmp_path / "two", {"rust": 5, "moss": 4, "sky": 3}))])

    assert first != Path("data/raw.dvc").read_text()
    assert sorted(p.name for p in Path("data/raw").iterdir()) == ["moss", "rust", "sky"]


@pytest.mark.slow
def test_photos_that_dvc_does_not_know_are_not_replaced(repository: Path, tmp_path: Path) -> None:
    """They would be lost."""
    source = draw_set(tmp_path / "set", {"gold": 4, "moss": 4})
    mine = draw_set(repository / "data/raw", {"mine": 2}) / "mine/000.jpg"
    with pytest.raises(SystemExit, match=r"dvc add data/raw"):
        main(["data", "import", str(source)])
    assert mine.exists()

    subprocess.run(["dvc", "add", "-q", "data/raw"], check=True)
    mine.write_bytes(b"changed since")
    with pytest.raises(SystemExit, match=r"dvc add data/raw"):
        main(["data", "import", str(source)])
    assert mine.read_bytes() == b"changed since"


@pytest.mark.slow
def test_weights_are_copied_tracked_and_chosen(repository: Path) -> None:
    """One command: the file in models/pretrained, its .dvc, and train.weights."""
    network = torchvision.models.shufflenet_v2_x0_5()
    torch.save(network.state_dict(), "mine.pth")
    main(["weights", "mine.pth"])
    chosen = Path(params.load().train.weights)

    assert chosen.read_bytes() == Path("mine.pth").read_bytes()
    assert chosen.with_name(chosen.name + ".dvc").exists()


def test_a_mistake_is_one_line_and_status_1(project: Path) -> None:
    """No traceback for what the user can mend."""
    done = subprocess.run(
        ["meadow", "weights", "nowhere.pth"], check=False, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (1, "error: there is no file nowhere.pth.\n")

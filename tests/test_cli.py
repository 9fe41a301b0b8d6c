import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torchvision
from toys import SetParams, draw_set

from meadow import params
from meadow.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def repository(project: Path) -> Path:
    """Stand in a Git repository with DVC and a first commit."""
    shutil.copy(ROOT / ".dvcignore", project)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q", "-f"], ["git", "add", "-A"]):
        subprocess.run(command, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *identity, "commit", "-qm", "first"], check=True)
    return project


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
def test_weights_are_copied_tracked_and_chosen(repository: Path, set_params: SetParams) -> None:
    """One command: the file in models/pretrained, its .dvc, and train.weights."""
    set_params(train={"arch": "shufflenet_v2_x0_5"})
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


@pytest.mark.slow
def test_a_command_in_a_subfolder_works_on_the_project(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set replaces the one of the project; paths are as from the folder of the command."""
    (repository / "docs").mkdir()
    draw_set(repository / "docs/mine", {"gold": 4, "moss": 4})
    monkeypatch.chdir(repository / "docs")
    main(["data", "import", "mine"])
    monkeypatch.chdir(repository / "data/raw/gold")
    main(["review", "000.jpg", "--drop"])

    assert sorted(path.name for path in (repository / "data/raw").iterdir()) == ["gold", "moss"]
    assert (repository / "data/raw.dvc").exists()
    assert not (repository / "docs/data").exists()
    assert "gold/000.jpg,drop," in (repository / "data/overrides.csv").read_text()
    assert Path.cwd() == repository / "data/raw/gold"


@pytest.mark.slow
def test_the_set_is_where_params_yaml_says(
    repository: Path, tmp_path: Path, set_params: SetParams
) -> None:
    """`data.dir`, for import and demo alike."""
    set_params(data={"dir": "photos/mine"})
    main(["data", "import", str(draw_set(tmp_path / "one", {"gold": 4, "moss": 4}))])
    assert sorted(path.name for path in Path("photos/mine").iterdir()) == ["gold", "moss"]
    main(["data", "demo", "--count", "20"])

    assert sorted(path.name for path in Path("photos/mine").iterdir()) == ["dandelion", "grass"]
    assert Path("photos/mine.dvc").exists()
    assert not Path("data/raw").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["data", "demo"], ["data", "import", "x.zip"], ["data", "report"], ["demo"],
        ["recipe", "scratch"], ["sweep", "train.seed=1,2"], ["review", "a.jpg", "--drop"],
        ["weights", "x.pth"], ["compare"], ["release"], ["share"], ["doctor"], ["minio", "start"],
        ["promote", "v1.0.0", "--to", "prod"], ["rollback", "--from", "prod"], ["versions"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_command_outside_of_a_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """With what makes a folder a project; and nothing is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"is in no project.*\.dvc"):
        main(command)

    assert list(tmp_path.iterdir()) == []


def test_a_project_without_params_yaml_is_refused(project: Path) -> None:
    """In one line, as it is read by every command that needs it."""
    Path("params.yaml").unlink()
    for command in (["recipe", "scratch"], ["sweep", "train.seed=1,2"], ["data", "demo"]):
        with pytest.raises(SystemExit, match=r"^error: params\.yaml"):
            main(command)


@pytest.mark.parametrize("command", [[], ["data"], ["minio"]], ids=str)
def test_a_group_of_commands_alone_prints_its_help(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    """Anywhere."""
    monkeypatch.chdir(tmp_path)
    main(command)

    assert capsys.readouterr().out.startswith(" ".join(["usage: meadow", *command]))


def test_a_reader_that_has_seen_enough_ends_any_command(project: Path) -> None:
    """`meadow recipe probe | head -0`: no traceback, and the work is done."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        ["meadow", "recipe", "probe"], check=False, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, b"")
    assert params.load().train.method == "probe"


def test_ctrl_c_ends_any_command_without_a_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the status that shells know."""
    monkeypatch.setattr("meadow.experiments.recipes.set_params", interrupt)
    with pytest.raises(SystemExit) as end:
        main(["recipe", "probe"])

    assert end.value.code == 130
    assert capsys.readouterr().err == "\nStopped.\n"


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_terminal_without_unicode_shows_escapes(repository: Path, tmp_path: Path) -> None:
    """The set is replaced and tracked; its names are printed as they can be."""
    source = draw_set(tmp_path / "set", {"löwenzahn": 4, "moos": 4})
    done = subprocess.run(
        ["meadow", "data", "import", str(source)],
        check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert "'l\\xf6wenzahn'" in done.stdout
    assert Path("data/raw.dvc").exists()

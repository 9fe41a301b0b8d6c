"""Recipes, as `meadow recipe NAME` writes them."""

from pathlib import Path

import pytest
from toys import SetParams

from meadow import params
from meadow.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["scratch", "probe", "finetune"])
def test_a_recipe_switches_the_values_and_keeps_the_comments(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Every comment stays, the diff is shown, and the result is valid."""
    comments = [line.partition("#")[2] for line in Path("params.yaml").read_text().splitlines()]
    main(["recipe", "scratch"])
    main(["recipe", "finetune"])
    main(["recipe", name])
    text = Path("params.yaml").read_text()
    chosen = params.load().train

    assert [line.partition("#")[2] for line in text.splitlines()] == comments
    assert "+  arch: timm/tf_efficientnet_lite2" in capsys.readouterr().out
    assert chosen.method == ("probe" if name == "probe" else "finetune")


def test_the_probe_is_what_is_committed(project: Path) -> None:
    """So own photos need no recipe; and switching there and back leaves the file as it was."""
    committed = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(committed)
    main(["recipe", "probe"])
    assert committed == Path("params.yaml").read_text()
    main(["recipe", "scratch"])
    assert committed != Path("params.yaml").read_text()
    main(["recipe", "finetune"])
    main(["recipe", "probe"])

    assert committed == Path("params.yaml").read_text()


def test_an_unknown_recipe_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the known ones."""
    with pytest.raises(SystemExit):
        main(["recipe", "magic"])

    assert "finetune" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scratch", "probe", "finetune"])
def test_weights_of_ones_own_stay(
    project: Path, set_params: SetParams, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """With the architecture that they are of; whoever has no network has no others."""
    mine = {"weights": "models/pretrained/mine-0123.pth", "arch": "resnet50"}
    set_params(train=mine)
    main(["recipe", name])
    chosen = params.load().train

    assert {"weights": chosen.weights, "arch": chosen.arch} == mine
    assert chosen.method == ("probe" if name == "probe" else "finetune")
    assert "train.weights stays models/pretrained/mine-0123.pth" in capsys.readouterr().out

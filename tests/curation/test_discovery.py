"""What is a class of a set on disk."""

from pathlib import Path

import pytest
from toys import draw_set

from meadow.curation import discovery
from meadow.errors import MeadowError


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("Training_Set", "train"),
        ("seg_train", "train"),
        ("valid", "val"),
        ("validation", "val"),
        ("dev", "val"),
        ("TEST", "test"),
        ("test-images", "test"),
        ("terrain", None),
        ("contest", None),
        ("trains", None),
    ],
)
def test_names_of_splits(folder: str, split: str | None) -> None:
    """Whole names, however they are written."""
    assert discovery.split_of(folder) == split


def test_prepare_takes_no_split_for_a_class(tmp_path: Path) -> None:
    """A set that was put in place by hand is read by the same rule as an import."""
    draw_set(tmp_path, {"train": 1, "test": 1})
    with pytest.raises(MeadowError, match="'test', 'train': splits, not classes"):
        discovery.find(tmp_path)


def test_annotations_are_no_class(tmp_path: Path) -> None:
    """YOLO's folders, in splits or around them, are named as what they are."""
    draw_set(tmp_path, {"images": 1, "labels": 1})
    with pytest.raises(MeadowError, match="'images', 'labels', as sets for object detection"):
        discovery.find(tmp_path)


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    """Without a second split beside it, `train` is what runs on rails."""
    draw_set(tmp_path, {"train": 1, "bus": 1})
    assert [file.label for file in discovery.find(tmp_path)] == ["bus", "train"]

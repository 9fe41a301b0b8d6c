"""Tests of the demo photo set."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from meadow.commands.synthetic import CLASSES, draw_demo, draw_photo


@pytest.fixture(scope="module")
def photos() -> list[tuple[str, Image.Image]]:
    """Label and pixels of the first 200 photos."""
    numbered = [(label, number) for number in range(100) for label in CLASSES]
    return [(label, Image.open(io.BytesIO(draw_photo(label, n)))) for label, n in numbered]


def colours(image: Image.Image) -> NDArray[np.float64]:
    """Mean and histogram of each channel, and the shares of yellow and of white pixels."""
    red, green, blue = pixels = np.asarray(image, np.int16).reshape(-1, 3).T
    counts = [np.histogram(channel, 8, (0, 256))[0] / channel.size for channel in pixels]
    yellow = np.mean((red > 150) & (green > 110) & (blue < 110) & (red > green))
    white = np.mean(pixels.min(axis=0) > 160)
    return np.concatenate([pixels.mean(axis=1), *counts, [yellow, white]])


def test_same_bytes_twice() -> None:
    """A photo depends on its class and number alone."""
    assert [draw_photo(label, 3) for label in CLASSES] == [
        draw_photo(label, 3) for label in CLASSES
    ]


def test_bytes_are_pinned() -> None:
    """The bytes that the committed demo was trained on do not change unnoticed."""
    photos = b"".join(draw_photo(label, number) for number in range(6) for label in CLASSES)
    assert hashlib.sha256(photos).hexdigest().startswith("29740cec20724f66ccad5be4de4a96af")


def test_more_photos_extend_the_set(tmp_path: Path) -> None:
    """Drawing more photos leaves the ones before as they are."""
    draw_demo(tmp_path / "few", 5)
    draw_demo(tmp_path / "more", 8)
    few = {path.relative_to(tmp_path / "few"): path for path in (tmp_path / "few").rglob("*.jpg")}
    assert sorted(map(Path.as_posix, few)) == [
        *("dandelion/00000.jpg", "dandelion/00001.jpg", "dandelion/00002.jpg"),
        *("grass/00000.jpg", "grass/00001.jpg"),
    ]
    for name, path in few.items():
        assert path.read_bytes() == (tmp_path / "more" / name).read_bytes()
    assert len(list((tmp_path / "more").rglob("*.jpg"))) == 8


def test_sizes_vary(photos: list[tuple[str, Image.Image]]) -> None:
    """Photos are thumbnails of many sizes and both orientations, in both classes alike."""
    for label in CLASSES:
        sizes = {image.size for of, image in photos if of == label}
        assert len(sizes) > 80
        assert {width > height for width, height in sizes} == {True, False}
        assert all(160 <= max(size) <= 320 and min(size) >= 85 for size in sizes)


def test_colours_do_not_tell(photos: list[tuple[str, Image.Image]]) -> None:
    """Telling the classes apart takes shapes: colour statistics stay far from the right answer."""
    features = np.array([colours(image) for _, image in photos])
    labels = np.array([label for label, _ in photos])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    assert cross_val_score(model, features, labels, cv=5).mean() <= 0.75
    for share in features[:, -2:].T:  # one threshold on yellow, one on white, the best there is
        right = [np.mean((share > limit) == (labels == CLASSES[0])) for limit in share]
        assert max(*right, 1 - min(right)) <= 0.7


def test_no_two_photos_look_alike(photos: list[tuple[str, Image.Image]]) -> None:
    """No photo passes for a copy of another, so a near-duplicate check has nothing to pair."""
    grey = [image.convert("L").resize((32, 32), Image.Resampling.BOX) for _, image in photos]
    vectors = np.array([np.asarray(image, np.float64).ravel() for image in grey])
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.max(vectors @ vectors.T - 2 * np.eye(len(vectors))) < 0.93

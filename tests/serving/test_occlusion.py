"""What an answer rests on, by networks whose answer is known to rest on the upper left quarter."""

from pathlib import Path

import numpy as np
import pytest
from toys import colour_classifier, encoded, two_colours

from meadow.inference.classifier import Classifier
from meadow.pipeline.image import PhotoError, Preprocessing
from meadow.serving.occlusion import CELLS, explain

RED, GREEN, GREY = (200, 40, 30), (40, 200, 30), (120, 120, 120)
PHOTO = encoded(two_colours(RED, GREY), "PNG")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return Classifier.load(
        colour_classifier(tmp_path_factory.mktemp("model"), ["red", "amber", "green"])
    )


def test_the_heat_is_where_the_network_looks(classifier: Classifier) -> None:
    """And one cell beyond it, which shares squares with it."""
    explanation = explain(classifier, PHOTO)
    half = CELLS // 2

    assert explanation.heat.shape == (CELLS, CELLS)
    assert explanation.heat.max() == 1
    assert explanation.heat[:half, :half].min() > 0.2
    assert np.allclose(explanation.heat[half + 1 :], 0, atol=0.01)
    assert np.allclose(explanation.heat[:, half + 1 :], 0, atol=0.01)


def test_the_class_explained_is_the_one_that_predict_names(classifier: Classifier) -> None:
    """With the same probabilities, and one of them lower when the photo is covered."""
    explanation, answer = explain(classifier, PHOTO), classifier.predict(PHOTO)

    assert np.array_equal(explanation.probabilities, answer.probabilities)
    assert explanation.best == int(np.argmax(answer.probabilities))
    assert explanation.least < explanation.probabilities[explanation.best]


def test_where_nothing_speaks_for_the_class_nothing_is_hot(classifier: Classifier) -> None:
    """Such as a photo of one colour, covered with its mean colour; rounding is not blown up."""
    explanation = explain(classifier, encoded(two_colours(RED, RED), "PNG"))

    assert explanation.heat.max() < 0.01
    assert explanation.least == pytest.approx(explanation.probabilities[explanation.best], abs=1e-4)


def test_the_area_is_the_part_that_the_network_sees(tmp_path: Path) -> None:
    """A crop sees the middle square; the heat map is to lie there."""
    cropping = Classifier.load(
        colour_classifier(tmp_path, ["red", "green"], preprocessing=Preprocessing(32, "crop"))
    )
    wide = encoded(two_colours(RED, GREY, (200, 100)), "PNG")

    assert explain(cropping, wide).area == (0.25, 0, 0.75, 1)


def test_a_bad_photo_is_refused_as_predict_refuses_it(classifier: Classifier) -> None:
    """With the same reason."""
    with pytest.raises(PhotoError, match="damaged"):
        explain(classifier, PHOTO[: len(PHOTO) // 2])
    with pytest.raises(PhotoError, match="80 x 60: more than 4,799 pixels"):
        explain(classifier, PHOTO, 4799)

import numpy as np
import pytest

from meadow.inference.classifier import Answer

CLASSES = ["daisy", "rose", "tulip"]
ANSWER = Answer(np.array([0.2, 0.5, 0.3]), np.array([False, True, True]), 0.4, True)


def test_an_answer_names_the_classes() -> None:
    """The names and values that the API documents, as plain Python types."""
    assert ANSWER.to_dict(CLASSES) == {
        "label": "rose",
        "confidence": 0.5,
        "probabilities": {"daisy": 0.2, "rose": 0.5, "tulip": 0.3},
        "prediction_set": ["rose", "tulip"],
        "in_distribution": True,
    }


@pytest.mark.parametrize(
    ("top_k", "names"), [(None, CLASSES), (2, ["rose", "tulip"]), (9, ["rose", "tulip", "daisy"])]
)
def test_the_highest_probabilities_come_first_when_some_are_asked_for(
    top_k: int | None, names: list[str]
) -> None:
    """More than there are is all."""
    assert list(ANSWER.to_dict(CLASSES, top_k)["probabilities"]) == names

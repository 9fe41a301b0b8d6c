from pathlib import Path

from toys import colour_classifier

from meadow.inference.classifier import FOLDER, Classifier
from meadow.pipeline import atomic, provenance
from meadow.serving import api
from meadow.serving.settings import Settings


def test_a_model_is_described_with_its_own_figures_alone(project: Path) -> None:
    """After `dvc repro train` alone, metrics/evaluate.json is of the model before."""
    colour_classifier(FOLDER, ["gold", "moss"])
    classifier, settings = Classifier.load(), Settings()
    for model, expected in ((classifier.version, {"accuracy": 0.9}), ("another", None)):
        atomic.write_json(provenance.FIGURES, {"accuracy": 0.9})
        measured = provenance.sha256(provenance.FIGURES)
        atomic.write_json(provenance.FILE, {provenance.MODEL: model, **measured})

        assert api._describe(classifier, settings).metrics == expected

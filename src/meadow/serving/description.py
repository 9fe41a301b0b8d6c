"""What `GET /model` says."""

from importlib.metadata import version

from meadow.inference.classifier import Classifier
from meadow.pipeline import provenance
from meadow.pipeline.formats import MEDIA_TYPES, NAMES
from meadow.pipeline.image import MIN_SIDE
from meadow.serving import schema
from meadow.serving.settings import Settings

PACKAGES = ("bentoml", "numpy", "onnxruntime", "pillow")


def describe(name: str, classifier: Classifier, settings: Settings) -> schema.Described:
    """Describe a model: its classes, the limits of a photo, its figures on the test photos."""
    keep = settings.keep
    kept = ("classes", "preprocessing", "sha256")
    project = settings.model.resolve().parent.parent
    return schema.Described(
        name=name,
        version=classifier.version[:12],
        sha256=classifier.version,
        classes=list(classifier.classes),
        input=schema.Input(
            formats=list(NAMES),
            media_types=list(MEDIA_TYPES),
            max_bytes=settings.max_body,
            max_pixels=settings.max_pixels,
            min_side=MIN_SIDE,
            size=classifier.preprocessing.size,
            resize=classifier.preprocessing.resize,
        ),
        about={key: value for key, value in classifier.about.items() if key not in kept},
        metrics=provenance.read(project, provenance.FIGURES, classifier.version),
        kept=keep and {**keep.model_dump(), "days": settings.keep_days},
        versions={package: version(package) for package in PACKAGES},
    )

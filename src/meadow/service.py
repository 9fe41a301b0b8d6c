"""The HTTP service over the trained classifier: `bentoml serve meadow.service:PhotoClassifier`.

It imports neither PyTorch nor DVC nor params.yaml: the model's folder says all it needs. BentoML
starts and watches the processes; each request goes from the server to FastAPI, past BentoML's own
layers (docs/decisions.md).
"""

import gc
from typing import Any

import bentoml
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from meadow.inference.classifier import Classifier
from meadow.inference.reference import FILE, Reference
from meadow.serving import api, front
from meadow.serving.middleware import Guard
from meadow.serving.parent import end_with_parent
from meadow.serving.settings import Settings
from meadow.serving.telemetry import Telemetry

SETTINGS = Settings.read().of_one_worker()
# Relative to the working directory of the import: the project's, or the one inside the Bento.
MODEL = SETTINGS.model.resolve()
SHADOW = SETTINGS.shadow.resolve() if SETTINGS.shadow else None


class Direct(bentoml.Service[Any]):
    """A BentoML service whose requests reach its own application without BentoML's layers."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that a worker runs; BentoML's starts and ends the service."""
        front.install()
        end_with_parent()  # BentoML's is killed: a worker would keep its port
        bento = super().to_asgi(is_main)

        async def direct(scope: Scope, receive: Receive, send: Send) -> None:
            lifespan = scope["type"] == "lifespan"
            app = bento if lifespan else bentoml.get_current_service().app
            await app(scope, receive, send)

        return direct

    def schema(self) -> dict[str, Any]:
        """Return what BentoML's tools show of the service, with FastAPI's routes."""
        return {**super().schema(), "routes": api.CALLABLE}


@bentoml.service(name=api.NAME, workers=SETTINGS.workers, service_class=Direct)
class PhotoClassifier:
    """Labels a photo with one of the classes that the model was trained on."""

    def __init__(self) -> None:
        classifier = Classifier.load(MODEL, device=SETTINGS.device)
        worker = bentoml.server_context.worker_index or 1
        reference = Reference.load(MODEL) if (MODEL / FILE).exists() else None  # of an older train
        self.telemetry = Telemetry(SETTINGS, classifier, worker, reference)
        shadow = Classifier.load(SHADOW, device=SETTINGS.device) if SHADOW else None
        self.routes = api.create(classifier, SETTINGS, self.telemetry, shadow)
        self.app: ASGIApp = Guard(self.routes, SETTINGS, self.telemetry)
        if SETTINGS.cors:
            headers = ["Authorization", "Content-Type", "X-Request-ID", "Traceparent"]
            self.app = CORSMiddleware(
                self.app, SETTINGS.cors, ("GET", "POST"), headers, expose_headers=["X-Request-ID"]
            )
        gc.freeze()  # what is there now stays: no collection looks at it again

    @bentoml.on_shutdown
    def end(self) -> None:
        """Write what is left of the logs."""
        self.telemetry.close()
        self.routes.state.answering.close()

"""The HTTP service over the trained classifier: `bentoml serve meadow.service:PhotoClassifier`.

It imports neither PyTorch nor DVC nor params.yaml: the model's folder says all it needs. BentoML
starts and watches the processes and collects the metrics; the routes are Meadow's own, as BentoML's
cost 0.9 ms more a request and answer most bad photos with 500 (docs/decisions.md).
"""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import bentoml
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from meadow.inference.classifier import Classifier
from meadow.pipeline.image import MIN_SIDE, NAMES, PhotoError
from meadow.serving import schema, upload
from meadow.serving.middleware import Guard, Routes
from meadow.serving.occlusion import Busy as BusyExplaining
from meadow.serving.occlusion import Explainer
from meadow.serving.pool import Busy, Engine, Work
from meadow.serving.refusals import Refused
from meadow.serving.settings import Settings
from meadow.serving.telemetry import Telemetry

NAME = "photo_classifier"
PACKAGES = ("bentoml", "numpy", "onnxruntime", "pillow")
SETTINGS = Settings.read()
# Relative to the working directory of the import: the project's, or the one inside the Bento.
MODEL = SETTINGS.model.resolve()
METRICS = MODEL.parent.parent / "metrics/evaluate.json"  # of the same project as the model
PAGES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/docs": "docs.html"}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEALTH = frozenset(("/health", "/livez", "/readyz"))
T = TypeVar("T")


class Guarded(bentoml.Service[Any]):
    """A BentoML service whose outermost layer is the guard."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that a worker runs."""
        bento = super().to_asgi(is_main)
        app: ASGIApp = Guard(SETTINGS, bento, bentoml.get_current_service, HEALTH | {*PAGES})
        if SETTINGS.cors:
            headers = ["Authorization", "Content-Type", "X-Request-ID"]
            app = CORSMiddleware(
                app, SETTINGS.cors, ("GET", "POST"), headers, expose_headers=["X-Request-ID"]
            )
        return app


@bentoml.service(name=NAME, workers=SETTINGS.workers, service_class=Guarded)
class PhotoClassifier:
    """Labels a photo with one of the classes that the model was trained on."""

    def __init__(self) -> None:
        self.classifier = Classifier.load(MODEL)
        self.engine = Engine(
            self.classifier,
            threads=SETTINGS.threads,
            queue=SETTINGS.queue,
            max_pixels=SETTINGS.max_pixels,
        )
        self.explainer = Explainer(self.classifier, SETTINGS.max_pixels)
        self.telemetry = Telemetry(
            SETTINGS,
            self.classifier.classes,
            self.classifier.version,
            bentoml.server_context.worker_index or 1,
        )
        self.model = schema.Model(name=NAME, version=self.classifier.version[:12])
        self.described = self._describe().model_dump_json()
        self.document = schema.document(self.model.version)
        self.routes: Routes = {
            "/predict": {"POST": self.predict},
            "/predict/batch": {"POST": self.predict_batch},
            "/explain": {"POST": self.explain},
            "/model": {"GET": self.describe},
            "/docs.json": {"GET": self.openapi},
            **{path: {"GET": self.health} for path in HEALTH},
            **{path: {"GET": page(name)} for path, name in PAGES.items()},
        }
        self.engine.warm_up()
        gc.freeze()  # what is there now stays: no collection looks at it again

    @bentoml.on_shutdown
    def end(self) -> None:
        """Write what is left of the logs."""
        self.telemetry.close()

    async def predict(self, request: Request) -> Response:
        """Classify one photo."""
        top_k = self._top_k(request)
        photo = await upload.one(request, SETTINGS.timeout)
        self.telemetry.batch.observe(1)
        work = await _while_connected(request, self._classified(photo))
        return _json(self._prediction(request, photo, work, top_k).model_dump_json())

    async def predict_batch(self, request: Request) -> Response:
        """Classify several photos; a bad one gets an error in its place."""
        top_k = self._top_k(request)
        photos = await upload.several(request, SETTINGS.timeout)
        self.telemetry.batch.observe(len(photos))
        try:
            self.engine.admit(len(photos))
        except Busy as busy:
            raise Refused("busy", str(busy)) from None
        works = await _while_connected(
            request, asyncio.gather(*map(self._classified, photos), return_exceptions=True)
        )
        answers: list[schema.Prediction | schema.Error] = []
        for photo, work in zip(photos, works, strict=True):
            if isinstance(work, Work):
                answers.append(self._prediction(request, photo, work, top_k))
            elif isinstance(work, Refused):
                self.telemetry.rejects[work.reason].inc()
                answers.append(schema.Error.model_validate(work.body(request.state.id)))
            else:
                raise work
        return _json(schema.Batch(predictions=answers).model_dump_json())

    async def explain(self, request: Request) -> Response:
        """Show what the answer to one photo rests on."""
        photo = await upload.one(request, SETTINGS.timeout)
        found = await _while_connected(request, _refusing(self.explainer.explain(photo)))
        explained = schema.Explained(
            label=self.classifier.classes[found.best],
            confidence=float(found.probabilities[found.best]),
            least_confidence=found.least,
            heat=found.heat.round(3).tolist(),
            area=found.area,
            model=self.model,
        )
        return _json(explained.model_dump_json())

    async def describe(self, _: Request) -> Response:
        """Describe the model."""
        return _json(self.described)

    async def openapi(self, _: Request) -> Response:
        """Describe the service."""
        return JSONResponse(self.document)

    async def health(self, _: Request) -> Response:
        """Answer: the model is checked and warm, or BentoML would not listen yet."""
        return JSONResponse({"status": "ok"})

    async def _classified(self, photo: bytes) -> Work:
        return await _refusing(self.engine.classify(photo))

    def _prediction(
        self, request: Request, photo: bytes, work: Work, top_k: int | None
    ) -> schema.Prediction:
        self.telemetry.prediction(work, work.answer.best, request.state.id, len(photo))
        answer = work.answer.to_dict(self.classifier.classes, top_k)
        return schema.Prediction(**answer, model=self.model)

    def _top_k(self, request: Request) -> int | None:
        given = request.query_params.get("top_k")
        if given is None:
            return None
        if not (given.isascii() and given.isdigit() and 0 < int(given[:9]) <= 10**6):
            raise Refused("parameter", f"top_k={given[:20]!r} is not 1 or more")
        return int(given)

    def _describe(self) -> schema.Described:
        kept = ("classes", "preprocessing", "sha256")
        about = self.classifier.about
        try:
            metrics = json.loads(METRICS.read_text("utf-8"))
        except FileNotFoundError:
            metrics = None
        return schema.Described(
            name=NAME,
            version=self.model.version,
            sha256=self.classifier.version,
            classes=list(self.classifier.classes),
            input=schema.Input(
                formats=list(NAMES),
                max_bytes=SETTINGS.max_body,
                max_pixels=SETTINGS.max_pixels,
                min_side=MIN_SIDE,
                size=self.classifier.preprocessing.size,
                resize=self.classifier.preprocessing.resize,
            ),
            about={key: value for key, value in about.items() if key not in kept},
            metrics=metrics,
            versions={name: version(name) for name in PACKAGES},
        )


def page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Serve a file that lies beside this one; it may load nothing from elsewhere."""
    file = Path(__file__).with_name("serving") / "static" / name
    content = file.read_bytes()
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
            " img-src 'self' blob: data:; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        ),
    }

    async def send(_: Request) -> Response:
        return Response(content, headers=headers, media_type=KINDS[file.suffix])

    return send


async def _refusing(work: Awaitable[T]) -> T:
    try:
        return await work
    except PhotoError as error:
        raise Refused(error.reason, str(error)) from None
    except (Busy, BusyExplaining) as busy:
        raise Refused("busy", str(busy)) from None


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await the work, and drop it when its client goes away or time is up."""
    gone = asyncio.ensure_future(request.receive())  # the body is read: only the end can come
    try:
        async with asyncio.timeout(SETTINGS.timeout) as limit:
            gone.add_done_callback(partial(_hung_up, limit))
            return await work
    except TimeoutError:
        if gone.done():
            raise Refused("gone", "the client went away") from None
        raise Refused("timeout", f"no answer within {SETTINGS.timeout:g} s") from None
    finally:
        gone.cancel()


def _hung_up(limit: asyncio.Timeout, gone: asyncio.Future[Any]) -> None:
    if not gone.cancelled():
        with suppress(RuntimeError):  # the work has just ended
            limit.reschedule(0)


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")

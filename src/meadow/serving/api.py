"""The routes of the service, as a FastAPI application; its OpenAPI document and /docs follow.

To add an endpoint, write its function here and the model of its answer in schema.py.
"""

import asyncio
import logging
import threading
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import PlainTextResponse
from starlette.routing import Route

from meadow.inference.batching import MOST
from meadow.inference.classifier import Classifier
from meadow.pipeline.cpu import cores
from meadow.serving import access, occlusion, schema, upload
from meadow.serving.connection import while_connected
from meadow.serving.description import describe
from meadow.serving.exposition import exposition
from meadow.serving.feedback import MAX_BODY, Labels
from meadow.serving.handlers import HANDLERS, refusal
from meadow.serving.keeping import Keeper
from meadow.serving.pages import PAGES, page
from meadow.serving.pool import Classified, Pool, classify
from meadow.serving.refusals import Error, Refused
from meadow.serving.settings import Settings
from meadow.serving.shadow import Shadow
from meadow.serving.telemetry import Telemetry

log = logging.getLogger("meadow")
NAME = "photo_classifier"
BODY = ("malformed", "slow", "too_large", "busy", "memory", "timeout")
PHOTO = ("format", "damaged", "too_small")
TopK = Annotated[
    int | None,
    Query(ge=1, le=10**6, description="so many probabilities, the highest first; else all"),
]


class Answering:
    """What the routes answer with; they find it as `request.app.state.answering`."""

    def __init__(
        self,
        classifier: Classifier,
        settings: Settings,
        telemetry: Telemetry,
        shadow: Classifier | None,
    ) -> None:
        self.classifier = classifier
        self.settings = settings
        self.telemetry = telemetry
        threads = cores(settings.threads)
        decoding = threading.BoundedSemaphore(threads)
        self.classify = Pool(
            lambda photo, came: classify(classifier, photo, settings.max_pixels, came, decoding),
            threads=threads if settings.device == "cpu" else threads + MOST,
            queue=settings.queue,
        )
        self.explain = Pool(
            lambda photo, _: occlusion.explain(classifier, photo, settings.max_pixels),
            threads=1,
            queue=2,  # the last begins within about a second
            niceness=10,
        )
        self.shadow = None
        if shadow:
            self.shadow = Shadow(
                shadow,
                classifier,
                lambda: self.classify.waiting > 0,
                settings.max_pixels,
                telemetry,
            )
        self.keeper = None
        if settings.keep:
            self.keeper = Keeper(settings, classifier.classes, classifier.version[:12], telemetry)
        self.labels = None
        if settings.api_key and settings.events:
            version = classifier.version[:12]
            labels = Labels(settings.events, classifier.classes, version, telemetry)
            self.labels = Pool(lambda body, _: labels.take(body), threads=1, queue=8, niceness=10)
        self.model = schema.Model(name=NAME, version=classifier.version[:12])
        self.described = describe(NAME, classifier, settings)

    def close(self) -> None:
        """Write what is left to be kept."""
        if self.keeper:
            self.keeper.close()

    def prediction(
        self,
        request: Request,
        photo: bytes,
        classified: Classified,
        top_k: int | None,
        place: int = 0,
    ) -> schema.Prediction:
        """Count and return what is sent of an answer."""
        answer = classified.answer
        of = {**request.state.ids, "photo": place}
        if self.shadow:
            self.shadow.offer(photo, answer, of)
        if self.keeper and (kept := self.keeper.offer(photo, answer, of)):
            of["kept"] = kept
        self.telemetry.prediction(classified, of, len(photo))
        request.state.photos.append(classified)
        return schema.Prediction(**answer.to_dict(self.classifier.classes, top_k), model=self.model)


protected = APIRouter()
public = APIRouter(tags=["operations"])  # needs no key


@protected.post(
    "/predict",
    tags=["photos"],
    responses=schema.answers("parameter", *BODY, *PHOTO),
    openapi_extra=schema.body(schema.PhotoForm, raw=True),
)
async def predict(request: Request, top_k: TopK = None) -> schema.Prediction:
    """Classify one photo: the multipart field `file`, or the whole body."""
    answering: Answering = request.app.state.answering
    answering.classify.admit()  # before the body is read: a refusal costs next to nothing
    photo = await upload.one(request, answering.settings.timeout)
    answering.telemetry.batch.observe(1)
    classified = await while_connected(request, answering.classify.run(photo))
    return answering.prediction(request, photo, classified, top_k)


@protected.post(
    "/predict/batch",
    tags=["photos"],
    responses=schema.answers("parameter", *BODY),
    openapi_extra=schema.body(schema.PhotosForm),
)
async def predict_batch(request: Request, top_k: TopK = None) -> schema.Batch:
    """Classify several photos, the fields `files`; a bad one gets an error in its place."""
    answering: Answering = request.app.state.answering
    answering.classify.admit()
    photos = await upload.several(request, answering.settings.timeout)
    answering.telemetry.batch.observe(len(photos))
    answering.classify.admit(len(photos))
    works = [answering.classify.run(photo, admitted=True) for photo in photos]
    results = await while_connected(request, asyncio.gather(*works, return_exceptions=True))
    answers: list[schema.Prediction | Error] = []
    for place, (photo, result) in enumerate(zip(photos, results, strict=True)):
        if isinstance(result, Classified):
            answers.append(answering.prediction(request, photo, result, top_k, place))
        else:
            refused = refusal(request, result)
            if refused.reason == "fault":
                log.error("request %s", request.state.id, exc_info=result)
            answering.telemetry.rejects[refused.reason].inc()
            answers.append(refused.body(request.state.id))
    return schema.Batch(predictions=answers)


@protected.post(
    "/explain",
    tags=["photos"],
    responses=schema.answers(*BODY, *PHOTO),
    openapi_extra=schema.body(schema.PhotoForm, raw=True),
)
async def explain(request: Request) -> schema.Explained:
    """Show what the answer to one photo rests on, by covering one part of it after the other.

    That is fifty times the work of an answer: one is computed at a time, and a few may wait.
    """
    answering: Answering = request.app.state.answering
    answering.explain.admit()
    photo = await upload.one(request, answering.settings.timeout)
    explanation = await while_connected(request, answering.explain.run(photo))
    return schema.Explained(
        label=answering.classifier.classes[explanation.best],
        confidence=float(explanation.probabilities[explanation.best]),
        least_confidence=explanation.least,
        heat=explanation.heat.round(3).tolist(),
        area=explanation.area,
        model=answering.model,
    )


@protected.post(
    "/feedback",
    tags=["photos"],
    responses=schema.answers(
        "malformed",
        "parameter",
        "feedback_off",
        "unknown_id",
        "slow",
        "too_large",
        "busy",
        "timeout",
    ),
    openapi_extra=schema.json_body(schema.Feedback),
)
async def feedback(request: Request) -> schema.Labelled:
    """Take the true label of a photo that was answered: the accuracy is computed from them.

    A later label of the same photo takes the place of the one before.
    """
    answering: Answering = request.app.state.answering
    if not answering.labels:
        raise Refused("feedback_off", "labels are taken where a key and a file of events are set")
    answering.labels.admit()
    body = await upload.small(request, MAX_BODY, answering.settings.timeout)
    return await while_connected(request, answering.labels.run(body))


@protected.get("/model", tags=["photos"], responses=schema.answers())
async def model(request: Request) -> schema.Described:
    """Describe the model that answers: classes, limits of a photo, figures on the test photos."""
    answering: Answering = request.app.state.answering
    return answering.described


@protected.get(
    "/metrics", tags=["operations"], response_class=PlainTextResponse, responses=schema.answers()
)
def metrics(request: Request) -> PlainTextResponse:
    """Return the metrics of all workers, for Prometheus."""
    answering: Answering = request.app.state.answering
    text, kind = exposition(answering.telemetry.exemplars, request.headers.get("accept", ""))
    return PlainTextResponse(text, media_type=kind)


@public.get("/health", responses=schema.answers(), operation_id="health")
@public.get("/livez", responses=schema.answers(), operation_id="livez")
@public.get("/readyz", responses=schema.answers(), operation_id="readyz")
async def health() -> schema.Health:
    """Answer: the model is checked and warm, or nothing would listen yet."""
    return schema.Health()


@public.get("/docs.json", include_in_schema=False)
async def openapi(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    return document


@public.get("/schema.json", include_in_schema=False)
async def for_bentoml() -> dict[str, Any]:
    """Tell BentoML's clients what can be called, and with what."""
    return {"name": NAME, "type": "service", "routes": CALLABLE}


CALLABLE = schema.for_bentoml(protected.routes)
for path, file in PAGES.items():
    public.add_api_route(path, page(file), include_in_schema=False)


def create(
    classifier: Classifier,
    settings: Settings,
    telemetry: Telemetry,
    shadow: Classifier | None = None,
) -> FastAPI:
    """Return the application, warm.

    Raises:
        MeadowError: the second model cannot be compared with the first.
        ArithmeticError: a network's output is not finite.

    """
    answering = Answering(classifier, settings, telemetry, shadow)
    app = FastAPI(
        title="Photo classifier",
        version=answering.model.version,
        description="Labels photos with calibrated probabilities. Built by Meadow.",
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        openapi_url=None,  # its own route has no label for the metrics, and its pages load scripts
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is telemetry.py
        generate_unique_id_function=lambda route: route.name,
        exception_handlers=HANDLERS,
    )
    app.state.answering = answering
    checks = access.checks(settings)
    app.include_router(  # first, as routes are tried in order
        protected, dependencies=list(checks.values()), responses=schema.answers(*checks)
    )
    app.include_router(public)
    routes = (*protected.routes, *public.routes)
    telemetry.expect(route.path for route in routes if isinstance(route, Route))
    classifier.warm()
    return app

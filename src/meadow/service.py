"""The HTTP service over the trained classifier: `bentoml serve meadow.service:PhotoClassifier`.

It imports neither PyTorch nor DVC nor params.yaml: the model's folder says all it needs.
"""

import json
import os
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from PIL import Image
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from meadow.classifier import FOLDER, Classifier
from meadow.explanation import Busy, Explainer
from meadow.photos import PhotoError

MAX_BODY = 20 * 2**20  # bytes
NAME = "photo_classifier"
# Relative to the working directory: that of the project, or the one inside the Bento.
MODEL = Path(os.environ.get("MEADOW_MODEL", FOLDER)).resolve()
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STATUS = {
    "format": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "damaged": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too_small": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


class Model(BaseModel):
    """Which model answered: `version` is the start of the SHA-256 of its network."""

    name: str
    version: str


class Prediction(BaseModel):
    """The answer to one photo; the probabilities are calibrated and sum to 1.

    `prediction_set` holds the true class of 95 % (evaluate.coverage) of photos like those that were
    learned from: one name where the answer is sure, several or none where it is not. A photo that
    is not `in_distribution` shows something else.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    prediction_set: list[str]
    in_distribution: bool
    model: Model


class Explained(BaseModel):
    """What the answer to one photo rests on.

    `heat` divides the photo's `area` (left, top, right, bottom, as shares of its sides) into rows
    from the top: 0 to 1, how much the log-odds of `label` fall when that part is covered, relative
    to the part where they fall most. `least_confidence` is what is left of `confidence` with the
    part covered that matters most.
    """

    label: str
    confidence: float
    least_confidence: float
    heat: list[list[float]]
    area: tuple[float, float, float, float]
    model: Model


class Refused(Exception):  # noqa: N818  # it is an answer, not a fault
    """A request that gets a 4xx answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Upload(bentoml.IODescriptor):
    """One photo: the multipart field `file`, or the whole body.

    BentoML's own image input answers 500 to most bad photos and fetches URLs that a client names;
    this one hands on the bytes, or the reason why there are none. The annotation is for the
    OpenAPI document and BentoML's client.
    """

    file: Image.Image

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> "Upload":  # noqa: ARG003
        """Read the photo's bytes, at most `MAX_BODY`."""
        photo: bytes | Refused
        try:
            photo = await _body(request)
        except Refused as refused:
            photo = refused
        upload: Upload = cls.model_construct(file=photo)
        return upload


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return b"".join([chunk async for chunk in _counted(request)])
    try:
        parser = MultiPartParser(request.headers, _counted(request), max_files=1, max_fields=4)
        form = await parser.parse()
    except (MultiPartException, HTTPException, KeyError, ValueError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"malformed multipart body: {error}") from None
    file = form.get("file")
    if not isinstance(file, UploadFile):
        fields = ", ".join(sorted(form)) or "none"
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"no photo in the multipart field 'file'; fields: {fields}"
        )
    return await file.read()


async def _counted(request: Request) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > MAX_BODY:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY:,} bytes"
            )
        yield chunk


async def health(_: Request) -> Response:
    """Answer 200: the process is up and its model is loaded (BentoML listens only then)."""
    return JSONResponse({"status": "ok"})


def static(name: str) -> Route:
    """Serve a file of the two pages; they load nothing from elsewhere."""

    async def send(_: Request) -> Response:
        headers = {"Content-Security-Policy": CSP, "Cache-Control": "no-cache"}
        return FileResponse(Path(__file__).with_name(name), headers=headers)

    return Route({"page.html": "/", "docs.html": "/docs"}.get(name, f"/{name}"), send)


@bentoml.service(name=NAME, threads=4, traffic={"timeout": 30})
@bentoml.asgi_app(
    Starlette(
        routes=[
            Route("/health", health),
            Route(
                "/model",
                lambda _: JSONResponse(
                    {"classes": json.loads((MODEL / "model.json").read_text())["classes"]}
                ),
            ),
            *map(static, ("page.html", "page.css", "page.js", "docs.html")),
        ]
    )
)
class PhotoClassifier:
    """Labels a photo with one of the classes that the model was trained on."""

    def __init__(self) -> None:
        self.classifier = Classifier.load(MODEL)
        self.explainer = Explainer(self.classifier)
        self.model = Model(name=NAME, version=self.classifier.version[:12])

    @bentoml.api(route="/predict", input_spec=Upload)
    def predict(self, file: Any) -> Prediction:
        """Classify one photo: JPEG, PNG or WebP, as multipart field `file` or as the body."""
        try:
            if isinstance(file, Refused):
                raise file
            answer = self.classifier.predict(file)
        except PhotoError as error:
            return _error(STATUS[error.reason], str(error))  # type: ignore[no-any-return]
        except Refused as refused:
            return _error(refused.status, str(refused))  # type: ignore[no-any-return]
        classes, best = self.classifier.classes, int(np.argmax(answer.probabilities))
        return Prediction(
            label=classes[best],
            confidence=float(answer.probabilities[best]),
            probabilities=dict(zip(classes, answer.probabilities.tolist(), strict=True)),
            prediction_set=[
                name for name, held in zip(classes, answer.prediction_set, strict=True) if held
            ],
            in_distribution=answer.in_distribution,
            model=self.model,
        )

    @bentoml.api(route="/explain", input_spec=Upload)
    async def explain(self, file: Any) -> Explained:
        """Show what the answer to one photo rests on: how much it falls as parts are covered."""
        try:
            if isinstance(file, Refused):
                raise file
            found = await self.explainer.explain(file)
        except PhotoError as error:
            return _error(STATUS[error.reason], str(error))  # type: ignore[no-any-return]
        except Refused as refused:
            return _error(refused.status, str(refused))  # type: ignore[no-any-return]
        except Busy as busy:
            return _error(HTTPStatus.TOO_MANY_REQUESTS, str(busy))  # type: ignore[no-any-return]
        return Explained(
            label=self.classifier.classes[found.best],
            confidence=float(found.probabilities[found.best]),
            least_confidence=found.least,
            heat=found.heat.round(3).tolist(),
            area=found.area,
            model=self.model,
        )


def _error(status: HTTPStatus, message: str) -> Any:
    """Answer with an error; BentoML sends a Response as it is."""
    return JSONResponse(
        {"error": {"code": status.value, "message": message}}, status_code=status.value
    )

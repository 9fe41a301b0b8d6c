"""What the service takes and answers, as pydantic models; the OpenAPI document comes from them."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.routing import BaseRoute

from meadow.pipeline.formats import MEDIA_TYPES
from meadow.serving.refusals import LATER, REASONS, REQUEST_ID, Error
from meadow.serving.upload import FORM, PHOTOS

BINARY = {"type": "string", "format": "binary"}
Binary = Annotated[bytes, WithJsonSchema(BINARY)]
ID_HEADER = {
    "X-Request-ID": {
        "description": "that of the request, if it had one, or a new one",
        "schema": {"type": "string"},
    }
}
RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}


class PhotoForm(BaseModel):
    """One photo."""

    file: Binary


class PhotosForm(BaseModel):
    """Several photos."""

    files: list[Binary] = Field(min_length=1, max_length=PHOTOS)


class Model(BaseModel):
    """Which model answered."""

    name: str
    version: str = Field(description="start of the SHA-256 of the network")


class Prediction(BaseModel):
    """The answer to one photo."""

    label: str = Field(description="the most probable class", examples=["dandelion"])
    confidence: float = Field(ge=0, le=1, description="probability of `label`", examples=[0.97])
    probabilities: dict[str, float] = Field(
        description="calibrated: of many answers with 0.8, about 80 in 100 are right, for photos"
        " like those that the model learned from; they sum to 1",
        examples=[{"dandelion": 0.97, "grass": 0.03}],
    )
    prediction_set: list[str] = Field(
        description="holds the true class of 95 % (or of the share that the model was built with)"
        " of photos like those that it learned from. One name: take it. Several or none: not sure,"
        " have a person look",
        examples=[["dandelion"]],
    )
    in_distribution: bool = Field(
        description="false for a photo unlike those that the model learned from: it probably shows"
        " something else, and the probabilities mean little. 5 % of good photos get it too"
    )
    model: Model


class Batch(BaseModel):
    """An answer or an error for each photo, in the order of the request."""

    predictions: list[Prediction | Error]


class Explained(BaseModel):
    """What the answer to one photo rests on."""

    label: str
    confidence: float
    least_confidence: float = Field(
        description="what is left of `confidence` with the part covered that matters most"
    )
    heat: list[list[float]] = Field(
        description="rows from the top, 0 to 1: how much the log-odds of `label` fall when that"
        " part is covered, relative to the part where they fall most"
    )
    area: tuple[float, float, float, float] = Field(
        description="left, top, right and bottom of what the rows divide, as shares of the sides"
    )
    model: Model


class Input(BaseModel):
    """What a photo may be, and what the network sees of it."""

    formats: list[str]
    media_types: list[str]
    max_bytes: int
    max_pixels: int
    min_side: int
    size: int = Field(description="side of the network's square input, pixels")
    resize: str = Field(description="squash the whole photo into it, or crop its middle")


class Described(BaseModel):
    """The model that answers."""

    name: str
    version: str
    sha256: str
    classes: list[str]
    input: Input
    about: dict[str, Any] = Field(description="how it was trained, and its thresholds")
    metrics: dict[str, Any] | None = Field(
        description="on the test photos; null where they are not known of this very model"
    )
    versions: dict[str, str] = Field(description="of the packages that compute an answer")
    kept: dict[str, Any] | None = Field(
        description="which photos are kept, and for how many days; null where none is"
    )


class Feedback(BaseModel):
    """What a photo really shows."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(
        pattern=f"^{REQUEST_ID}$", description="header X-Request-ID of the answer"
    )
    label: str = Field(max_length=255, description="the true class", examples=["dandelion"])
    photo: int = Field(0, ge=0, lt=PHOTOS, description="place in a batch, from 0")


class Labelled(Feedback):
    """The label is written down."""

    answered: str = Field(description="the class that was answered")
    model: str = Field(description="version of the model that answered")
    replaces: str | None = Field(description="the label that this photo had before")


class Health(BaseModel):
    """The process is up."""

    status: str = "ok"


def body(form: type[BaseModel], *, raw: bool = False) -> dict[str, Any]:
    """Describe a request's body: a form, or also the bytes of a photo file themselves."""
    content = {FORM: {"schema": form.model_json_schema()}}
    if raw:
        kinds = (*MEDIA_TYPES, "application/octet-stream")
        content |= {kind: {"schema": BINARY} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a request's body of JSON."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def for_bentoml(routes: Iterable[BaseRoute]) -> list[dict[str, Any]]:
    """Describe the routes that take a form as `bentoml.SyncHTTPClient` asks for them."""
    described = []
    for route in routes:
        if not isinstance(route, APIRoute) or not route.openapi_extra:
            continue
        content = route.openapi_extra["requestBody"]["content"]
        if FORM in content:
            form = content[FORM]["schema"]
            ((field, kind),) = form["properties"].items()
            file = {"type": "file"}
            kind = {**kind, "items": file} if "items" in kind else file
            described.append(
                {
                    "name": route.name,
                    "route": route.path,
                    "doc": route.description,
                    "input": {**form, "properties": {field: kind}},
                    "output": {"type": "object"},
                }
            )
    return described


def answers(*reasons: str) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of a route: the good one's headers, and its errors by status."""
    meanings = defaultdict(list)
    for reason in (*reasons, "method", "fault"):
        meanings[REASONS[reason].status].append(f"`{reason}`: {REASONS[reason].meaning}")
    errors: dict[int | str, dict[str, Any]] = {
        status: {
            "model": Error,
            "description": ". ".join(texts),
            "headers": ID_HEADER | (RETRY_AFTER if status in LATER else {}),
        }
        for status, texts in sorted(meanings.items())
    }
    return {
        200: {"headers": ID_HEADER},
        **errors,
        "default": {"model": Error, "description": "Another error"},
    }

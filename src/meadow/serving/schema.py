"""What the service takes and answers, as types and as an OpenAPI document."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from meadow.serving.upload import FORM, PHOTOS


class Model(BaseModel):
    """Which model answered: `version` is the start of the SHA-256 of its network."""

    name: str
    version: str


class Prediction(BaseModel):
    """The answer to one photo; the probabilities are calibrated and sum to 1.

    `prediction_set` holds the true class of 95 % (train.coverage) of photos like those that were
    learned from: one name where the answer is sure, several or none where it is not. A photo that
    is not `in_distribution` shows something else.
    """

    label: str
    confidence: float = Field(ge=0, le=1)
    probabilities: dict[str, float]
    prediction_set: list[str]
    in_distribution: bool
    model: Model


class Fault(BaseModel):
    """Why there is no answer: `code` is the status, `reason` one word for programs."""

    code: int
    reason: str
    message: str
    request_id: str


class Error(BaseModel):
    """The body of every answer that is none."""

    error: Fault


class Batch(BaseModel):
    """An answer or an error for each photo, in the order of the request."""

    predictions: list[Prediction | Error]


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


class Input(BaseModel):
    """What a photo may be, and what the network sees of it."""

    formats: list[str]
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
    metrics: dict[str, Any] | None = Field(description="on the test photos, if they are known")
    versions: dict[str, str] = Field(description="of the packages that compute an answer")


class Health(BaseModel):
    """The process is up."""

    status: str


MODELS = (Prediction, Error, Batch, Explained, Described, Health)
MODEL = {"name": "photo_classifier", "version": "7e3b7bb084fd"}
PREDICTION = {
    "label": "dandelion",
    "confidence": 0.97,
    "probabilities": {"dandelion": 0.97, "grass": 0.03},
    "prediction_set": ["dandelion"],
    "in_distribution": True,
    "model": MODEL,
}
EXPLAINED = {
    "label": "dandelion",
    "confidence": 0.97,
    "least_confidence": 0.61,
    "heat": [[0.0, 0.2], [1.0, 0.4]],
    "area": [0, 0, 1, 1],
    "model": MODEL,
}
ERRORS = {
    400: ("malformed", "no photo in the multipart field 'file'; fields: photo"),
    401: ("unauthorized", "a key is needed: `Authorization: Bearer ...`"),
    404: ("not_found", "there is nothing at /predictions; see /docs"),
    405: ("method", "/predict takes POST"),
    408: ("slow", "the body took more than 30 s"),
    413: ("too_large", "the body has more than 20,971,520 bytes"),
    415: ("format", "not a JPEG, PNG, WEBP file"),
    422: ("damaged", "damaged or truncated"),
    429: ("busy", "48 photos wait already"),
    500: ("fault", "a fault of the service"),
    503: ("memory", "too many large photos are under way"),
    504: ("timeout", "no answer within 30 s"),
}
MEANING = {
    400: "Malformed request, no photo in it, or a parameter that is not allowed",
    401: "A key is needed (MEADOW_API_KEY is set)",
    404: "There is nothing at this path",
    405: "Another method is needed",
    408: "The body took too long",
    413: "Too many bytes or pixels",
    415: "Not a JPEG, PNG or WebP file",
    422: "A damaged photo, or one with a side under 8 pixels",
    429: "Too many photos wait, or too many requests from this client; see Retry-After",
    500: "A fault of the service",
    503: "Not ready, or out of memory for bodies; see Retry-After",
    504: "The answer took too long",
}
GUARD = (401, 405, 413, 429, 500)  # what any route but health may answer
BODY = (400, 408, 503, 504)
PHOTO = (415, 422)


def document(version: str) -> dict[str, Any]:
    """Return the OpenAPI document of the service."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in MODELS],
        ref_template="#/components/schemas/{model}",
    )
    top_k = {
        "name": "top_k",
        "in": "query",
        "description": "how many probabilities, the highest first; all, if it is left out",
        "schema": {"type": "integer", "minimum": 1},
    }
    photo = _body({"file": _binary()}, ["file"], raw=True)
    batch = _body(
        {"files": {"type": "array", "items": _binary(), "minItems": 1, "maxItems": PHOTOS}},
        ["files"],
    )
    failed = {"error": {**_error(422)["error"]}}
    many = {"predictions": [PREDICTION, failed]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Photo classifier",
            "version": version,
            "description": "Labels photos with calibrated probabilities. Built by Meadow.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/predict": _post(
                "predict", "Classify one photo", photo, "Prediction", PREDICTION, [top_k],
                (*PHOTO, *BODY),
            ),
            "/predict/batch": _post(
                "predict_batch", f"Classify up to {PHOTOS} photos", batch, "Batch", many, [top_k],
                BODY,
            ),
            "/explain": _post(
                "explain", "Show what the answer to one photo rests on", photo, "Explained",
                EXPLAINED, [], (*PHOTO, *BODY),
            ),
            "/model": _get("model", "The model that answers", "Described"),
            "/health": _get("health", "The process is up", "Health", free=True),
            "/livez": _get("livez", "The process is up", "Health", free=True),
            "/readyz": _get(
                "readyz", "The model is checked and warm", "Health", (503,), free=True
            ),
            "/metrics": _get("metrics", "For Prometheus", "text/plain"),
            "/docs": _get("docs", "This service in words", "text/html", free=True),
            "/docs.json": _get("openapi", "This document", "application/json", free=True),
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }  # fmt: skip


def _binary() -> dict[str, str]:
    return {"type": "string", "format": "binary", "contentMediaType": "image/*"}


def _body(fields: dict[str, Any], required: Sequence[str], *, raw: bool = False) -> dict[str, Any]:
    form = {"type": "object", "properties": fields, "required": list(required)}
    kinds: dict[str, Any] = {FORM: {"schema": form}}
    if raw:
        for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream"):
            kinds[kind] = {"schema": {"type": "string", "format": "binary"}}
    return {"required": True, "content": kinds}


def _post(
    name: str,
    summary: str,
    body: dict[str, Any],
    schema: str,
    example: Any,
    parameters: list[Any],
    statuses: tuple[int, ...],
) -> dict[str, Any]:
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "parameters": parameters,
            "requestBody": body,
            "responses": {
                "200": {
                    "description": "The answer",
                    "headers": _headers(),
                    "content": {"application/json": {"schema": _ref(schema), "example": example}},
                },
                **_errors(sorted({*GUARD, *statuses})),
            },
            "security": [{}, {"key": []}],
        }
    }


def _get(
    name: str, summary: str, schema: str, statuses: tuple[int, ...] = (), *, free: bool = False
) -> dict[str, Any]:
    kind = {"schema": _ref(schema)} if "/" not in schema else {}
    content = {schema if "/" in schema else "application/json": kind}
    guard = (405, 500) if free else GUARD
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "responses": {
                "200": {"description": "The answer", "headers": _headers(), "content": content},
                **_errors(sorted({*guard, *statuses})),
            },
            "security": [] if free else [{}, {"key": []}],
        }
    }


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _headers() -> dict[str, Any]:
    return {
        "X-Request-ID": {
            "description": "that of the request, if it had one, or a new one",
            "schema": {"type": "string"},
        }
    }


def _error(status: int) -> dict[str, Any]:
    reason, message = ERRORS[status]
    return {
        "error": {
            "code": status,
            "reason": reason,
            "message": message,
            "request_id": "5c0a7e1f9b3d2846",
        }
    }


def _errors(statuses: Sequence[int]) -> dict[str, Any]:
    found = {}
    for status in statuses:
        headers = _headers()
        if status in (429, 503, 504):
            headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "seconds"}
        found[str(status)] = {
            "description": MEANING[status],
            "headers": headers,
            "content": {"application/json": {"schema": _ref("Error"), "example": _error(status)}},
        }
    return found

"""The settings of the service: `MEADOW_*` in the environment, read once, at the start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from meadow.errors import MeadowError, did_you_mean
from meadow.pipeline.cpu import cores
from meadow.pipeline.image import MAX_PIXELS

PREFIX = "MEADOW_"
CORES_OF_A_WORKER = 4  # of more, Python's lock would let a process use but a part (docs/serving.md)
OTHERS = {"MEADOW_CACHE", "MEADOW_CACHE_LIMIT"}  # read by other parts of Meadow


class Keep(BaseModel):
    """Which photos are kept: those that the model is unsure of or far from, and a share of all."""

    model_config = ConfigDict(frozen=True)

    unsure: bool = False
    far: bool = False
    random: float = Field(0, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        """Take `unsure,far,random:0.01`, or a part of it."""
        if not isinstance(value, str):
            return value
        chosen: dict[str, object] = {}
        for part in filter(None, map(str.strip, value.split(","))):
            name, colon, share = part.partition(":")
            if name not in cls.model_fields or bool(colon) != (name == "random"):
                raise ValueError(f"{part!r} is none of unsure, far and random:SHARE")
            chosen[name] = share if colon else True
        if not chosen:
            raise ValueError("nothing is named")
        return chosen


class Settings(BaseModel):
    """Limits and switches; the field `max_body` is `MEADOW_MAX_BODY`."""

    model_config = ConfigDict(frozen=True, strict=False)

    model: Path = Field(Path("models/classifier"), description="folder of the model")
    device: Literal["cpu", "cuda"] = Field("cpu", description="what computes the network")
    workers: int = Field(0, ge=0, le=64, description="processes; 0: by the usable cores")
    threads: int = Field(0, ge=0, le=256, description="photos in work at once; 0: by the cores")
    queue: int = Field(48, ge=1, le=10_000, description="photos that may wait; more get 429")
    timeout: float = Field(30, gt=0, le=3600, description="seconds for body, and for answer")
    max_body: int = Field(20 * 2**20, ge=1024, description="bytes of a request's body")
    max_held: int = Field(256 * 2**20, ge=1024, description="bytes of all bodies; more get 503")
    max_pixels: int = Field(MAX_PIXELS, ge=64, le=10**9, description="pixels of a photo")
    api_key: str = Field("", description="what `Authorization: Bearer` must say; empty: open")
    rate: int = Field(0, ge=0, description="requests a minute of one client; 0: no limit")
    cors: tuple[str, ...] = Field((), description="origins that may ask, with commas; none")
    access_log: bool = Field(default=True, description="a JSON line a request on stdout")
    events: Path | None = Field(None, description="file of prediction events; none")
    events_size: int = Field(10 * 2**20, ge=1024, description="bytes of one such file; 5 are kept")
    shadow: Path | None = Field(None, description="folder of a second model; none")
    keep: Keep | None = Field(None, description="photos that are kept: unsure,far,random:0.01")
    keep_dir: Path | None = Field(None, description="folder of the photos that are kept")
    keep_max: int = Field(2**30, ge=2**20, description="bytes of this folder; the oldest go first")
    keep_days: float = Field(30, gt=0, le=3650, description="days after which a photo goes")
    drain: Path | None = Field(None, description="while this file exists, answers end connections")

    @field_validator("cors", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("keep", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return value or None

    @field_validator("cors")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ValueError(f"{origin!r} is no origin such as https://example.org")
        return value

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise ValueError("a header can hold printable ASCII alone, without spaces around it")
        return value

    def of_one_worker(self) -> Self:
        """Return the settings of one process: its share of the cores and of what may wait.

        It has a thread more than cores: while one waits for Python's lock another computes. A
        single body is never too large for the share.
        """
        workers = self.workers or max(1, cores() // CORES_OF_A_WORKER)
        return self.model_copy(
            update={
                "workers": workers,
                "threads": -(-(self.threads or cores() + workers) // workers),
                "queue": -(-self.queue // workers),
                "max_held": min(self.max_held, max(-(-self.max_held // workers), self.max_body)),
            }
        )

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read them.

        Raises:
            MeadowError: a setting is unknown, or its value not allowed; the message says which, and
                what is.

        """
        names = {name: PREFIX + name.upper() for name in cls.model_fields}
        known = {*names.values(), *OTHERS}
        for name in sorted(environment):
            if name.startswith(PREFIX) and name not in known:
                raise MeadowError(
                    f"{name} is no setting.{did_you_mean(name, known)} docs/serving.md lists"
                    " the settings."
                )
        given = {field: environment[name] for field, name in names.items() if name in environment}
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0])
            value = "..." if field == "api_key" else repr(given[field])
            raise MeadowError(
                f"{names[field]}={value}: {first['msg']} ({cls.model_fields[field].description})."
                " docs/serving.md lists the settings."
            ) from None


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without BentoML's names and without settings, known or misspelt."""
    ours = {name for name in environment if name.startswith(PREFIX)} - {*OTHERS}
    return {
        name: value
        for name, value in environment.items()
        if name not in ours and not name.startswith("BENTOML_")
    }

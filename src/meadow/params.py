"""params.yaml as frozen, typed sections: a key is written there and declared in one class."""

from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from meadow.errors import MeadowError
from meadow.pipeline.image import MIN_SIDE

PARAMS = Path("params.yaml")
SECTIONS = ("data", "prepare", "train", "evaluate", "runtime")


class Section(BaseModel):
    """One section of params.yaml. Strict: `epochs: "3"` or `epochs: 2.5` is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    """Where the photos are; also templated into dvc.yaml, so that `-S data.dir=...` swaps them."""

    dir: str


class Prepare(Section):
    """Section `prepare`; params.yaml says what each key means. The data report reads it too."""

    size: int = Field(ge=32, le=1024)
    resize: Literal["squash", "crop"]
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)
    min_side: int = Field(ge=MIN_SIDE)
    near_duplicates: bool
    on_bad_photo: Literal["skip", "fail"]


class Train(Section):
    """Section `train`; params.yaml says what each key means."""

    method: Literal["probe", "finetune"]
    arch: str
    weights: str
    precision: Literal["float32", "int8"]
    seed: int = Field(ge=0, lt=2**32)
    l2: Literal["auto"] | float
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    batch_size: int = Field(ge=16, multiple_of=16)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    augment: float = Field(ge=0, le=1)


class Evaluate(Section):
    """Section `evaluate`; params.yaml says what each key means. Train reads `coverage` of it."""

    folds: int = Field(ge=2, le=20)
    coverage: float = Field(gt=0.5, lt=1)
    min_accuracy: float = Field(ge=0, le=1)
    max_log_loss: float = Field(gt=0)


class Runtime(Section):
    """What cannot change a result: no stage lists it, so changing it reruns nothing."""

    workers: int = Field(ge=0)  # 0: one per core


S = TypeVar("S", bound=Section)


def load(section: str, kind: type[S]) -> S:
    """Read one section of params.yaml in the current folder.

    It is read with ruamel.yaml, as DVC does: YAML 1.2, where `1e-3` is a number.

    Raises:
        MeadowError: the file or section is missing, a key is unknown, or a value is impossible.

    """
    try:
        sections = YAML(typ="safe").load(PARAMS)
    except FileNotFoundError:
        raise MeadowError(
            f"{PARAMS} is not in {Path.cwd()}. Run this from the folder of the project."
        ) from None
    except YAMLError as error:
        raise MeadowError(f"{PARAMS} is not valid YAML: {error}") from None
    for name in sections:
        if name not in SECTIONS:
            raise MeadowError(_unknown(name, SECTIONS))
    if not isinstance(sections.get(section), dict):
        raise MeadowError(
            f"{PARAMS}: section {section!r} is missing; `git diff {PARAMS}` shows what changed."
        )
    try:
        return kind(**sections[section])
    except ValidationError as invalid:
        raise MeadowError(_explain(section, kind, invalid)) from None


def _explain(section: str, kind: type[Section], invalid: ValidationError) -> str:
    lines = []
    for error in invalid.errors():
        key = ".".join([section, *map(str, error["loc"])])
        if error["type"] == "extra_forbidden":
            valid = [f"{section}.{name}" for name in kind.model_fields]
            lines.append(_unknown(key, valid))
        elif error["type"] == "missing":
            lines.append(f"{PARAMS}: {key} is missing.")
        else:
            lines.append(f"{PARAMS}: {key}: {error['input']!r} is refused. {error['msg']}.")
    return "\n".join(lines)


def _unknown(key: str, valid: list[str] | tuple[str, ...]) -> str:
    close = get_close_matches(key, valid, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{PARAMS}: {key} is not a parameter.{hint} Known: {', '.join(valid)}."

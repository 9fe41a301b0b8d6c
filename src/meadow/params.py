"""params.yaml as one frozen, typed model: a key is written there and declared in one class."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from meadow.errors import MeadowError, did_you_mean
from meadow.pipeline.image import MIN_SIDE
from meadow.pipeline.parallel import Machines

PARAMS = Path("params.yaml")


class Section(BaseModel):
    """One section of params.yaml. Strict: `epochs: "3"` or `epochs: 2.5` is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    """Where the photos are; also templated into dvc.yaml, so that `-S data.dir=...` swaps them."""

    dir: str = Field(min_length=1)


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
    on_two_labels: Literal["fail", "drop"]


class Probe(Section):
    """Section `train.probe`: read by this method alone, as each method's section is."""

    l2: Literal["auto"] | Annotated[float, Field(ge=0)]


class Finetune(Section):
    """Section `train.finetune`."""

    epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    batch_size: int = Field(ge=16, multiple_of=16)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    augment: float = Field(ge=0, le=1)
    frozen: float = Field(ge=0, lt=1)
    average: float = Field(ge=0, lt=1)


class Train(Section):
    """Section `train`: what every method reads, and a section for each method."""

    method: Literal["probe", "finetune"]
    arch: str = Field(min_length=1)
    weights: str = Field(min_length=1)
    precision: Literal["float32", "int8"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    autocast: Literal["auto", "float32", "bfloat16"]
    seed: int = Field(ge=0, lt=2**32)
    coverage: float = Field(gt=0.5, lt=1)
    probe: Probe
    finetune: Finetune


class Evaluate(Section):
    """Section `evaluate`; params.yaml says what each key means."""

    min_accuracy: float = Field(ge=0, le=1)
    max_log_loss: float = Field(gt=0)
    min_answered_accuracy: float = Field(ge=0, le=1)


class Runtime(Section):
    """What cannot change a result: no stage lists it, so changing it reruns nothing."""

    workers: int = Field(ge=0)  # 0: one per core
    scheduler: str = Field(pattern=r"^((tcp|tls)://[^/\s]+:\d+)?$")
    processes: int = Field(ge=1)
    nodes: int = Field(ge=1)
    rendezvous: str = Field(pattern=r"^([^:\s]+:\d+)?$")

    @property
    def machines(self) -> Machines:
        """Where photos are worked on."""
        return Machines(self.workers, self.scheduler)


class Params(Section):
    """All of params.yaml."""

    data: Data
    prepare: Prepare
    train: Train
    evaluate: Evaluate
    runtime: Runtime


def all_keys(kind: type[Section] = Params, before: str = "") -> Iterator[str]:
    """List the dotted keys of a section, such as `train.probe.l2`, in their order."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from all_keys(inner, f"{before}{name}.")
        else:
            yield before + name


def load() -> Params:
    """Read and check params.yaml in the current folder.

    Raises:
        MeadowError: the file is missing or is not valid; see `check`.

    """
    return check(read())


def read() -> dict[str, Any]:
    """Read params.yaml unchecked, with ruamel.yaml as DVC does: YAML 1.2, where `1e-3` is a number.

    Raises:
        MeadowError: the file is missing, is not YAML, or has no sections.

    """
    try:
        values = YAML(typ="safe").load(PARAMS)
    except FileNotFoundError:
        raise MeadowError(
            f"{PARAMS} is not in {Path.cwd()}. Run this from the folder of the project."
        ) from None
    except YAMLError as error:
        raise MeadowError(f"{PARAMS} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise MeadowError(
            f"{PARAMS} has no sections: it holds {values!r}. It needs"
            f" {', '.join(Params.model_fields)}; `git checkout {PARAMS}` restores it."
        )
    return values


def check(
    values: Mapping[str, Any], remedy: str = f"`git diff {PARAMS}` shows what changed."
) -> Params:
    """Check values as `read` gives them; `remedy` ends the error.

    Raises:
        MeadowError: naming each key that is unknown or missing, and each value that is refused.

    """
    try:
        return Params.model_validate(values)
    except ValidationError as invalid:
        problems = list(_problems(invalid))
    raise MeadowError("\n".join([*problems[:-1], f"{problems[-1]} {remedy}"]))


def _problems(invalid: ValidationError) -> Iterator[str]:
    refused: dict[str, list[str]] = {}
    for error in invalid.errors():
        # Pydantic goes on below a key that may be of several types, such as train.probe.l2.
        key = ".".join(map(str, error["loc"]))
        key = next((known for known in all_keys() if key.startswith(f"{known}.")), key)
        if error["type"] == "extra_forbidden":
            yield _unknown(key)
        elif error["type"] == "missing":
            yield f"{PARAMS}: {key} is missing."
        else:
            start = f"{PARAMS}: {key}: {error['input']!r} is refused; allowed: "
            allowed = error["msg"].removeprefix("Input should be ")
            refused.setdefault(start, []).append(allowed)
    for start, alternatives in refused.items():
        yield f"{start}{', or '.join(alternatives)}."


def _unknown(key: str) -> str:
    section, _, name = key.rpartition(".")
    siblings = [known for known in all_keys() if known.startswith(f"{section}.")]
    choices = [*Params.model_fields, *all_keys(), *siblings]
    by_name = {choice.rpartition(".")[2]: choice for choice in choices}  # a sibling wins
    valid = ", ".join(siblings or Params.model_fields)
    return f"{PARAMS}: {key} is not a parameter.{did_you_mean(name, by_name)} Known: {valid}."

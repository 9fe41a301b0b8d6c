"""Ranges of parameters that a sweep may try, as one writes them: `train.l2=0.003..3:log`."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from meadow import params
from meadow.errors import MeadowError
from meadow.params import PARAMS

# Other sections decide nothing, or which photos are judged and how: figures of trials that differ
# in them cannot be compared. Likewise these keys of prepare.
SWEPT = ("prepare", "train")
JUDGES = {"prepare.val", "prepare.test", "prepare.seed"}
FORMS = "Write LOW..HIGH, LOW..HIGH:log, or VALUE,VALUE"


@dataclass(frozen=True)
class Ranges:
    """What to try for each key.

    Attributes:
        distributions: Optuna's word for each range.
        current: the sections of params.yaml.

    """

    distributions: dict[str, BaseDistribution]
    current: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, texts: dict[str, str]) -> "Ranges":
        """Read the range of each key, and check it as its stage would.

        Raises:
            MeadowError: no range, an unknown key, or one or a value that is refused.

        """
        if not texts:
            raise MeadowError(f"there is no range. {FORMS}, such as train.l2=0.003..3:log.")
        current = YAML(typ="safe").load(PARAMS)
        known = [f"{name}.{key}" for name in SWEPT for key in current[name]]
        known = [key for key in known if key not in JUDGES]
        found = {}
        for key, text in texts.items():
            if key in JUDGES or key.partition(".")[0] in {*current} - {*SWEPT}:
                raise MeadowError(
                    f"{key} cannot be swept: figures of trials that differ in it cannot be"
                    " compared. Change params.yaml, run `dvc repro`, and commit."
                )
            if key not in known:
                close = get_close_matches(key, known, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise MeadowError(f"{key} is not a parameter.{hint} Known: {', '.join(known)}.")
            found[key] = parse(key, text)
            for value in _samples(found[key]):
                _check(current, key, value)
        return cls(found, current)

    def values(self, key: str) -> set[Any]:
        """Return the values that a key without a wide range may have."""
        section, name = key.split(".")
        choice = self.distributions.get(key)
        return (
            {*choice.choices}
            if isinstance(choice, CategoricalDistribution)
            else {self.current[section][name]}
        )


def from_file(path: Path) -> dict[str, str]:
    """Read ranges from a YAML file: `train.l2: 0.003..3:log` on each line.

    Raises:
        MeadowError: there is no such file, or it is of another form.

    """
    try:
        texts = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        raise MeadowError(f"{path} cannot be read: {error}") from None
    if not isinstance(texts, dict) or any(isinstance(t, dict | list) for t in texts.values()):
        raise MeadowError(f"{path}: write one range a line, such as `train.l2: 0.003..3:log`.")
    return {str(key): str(text) for key, text in texts.items()}


def parse(key: str, text: str) -> BaseDistribution:
    """Read one range; its numbers are integers if both ends are written so.

    Raises:
        MeadowError: it is not of a known form, or its ends are the wrong way round.

    """
    ends = re.fullmatch(r"(.+?)\.\.(.+?)(:log)?", text)
    values = [_value(part) for part in (ends.groups()[:2] if ends else text.split(","))]
    try:
        if ends is None:
            if None in values or not text.isprintable() or ":" in text:
                raise ValueError("a value is empty, or has a colon")
            return CategoricalDistribution(values)
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise ValueError("its ends are no numbers")
        low, high = values
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=bool(ends[3]))
        return FloatDistribution(low, high, log=bool(ends[3]))
    except ValueError as error:
        raise MeadowError(f"{key}: the range {text!r} is refused: {error}. {FORMS}.") from None


def _value(text: str) -> Any:
    """Read a value as params.yaml would: YAML 1.2, where 1e-3 is a number."""
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        return None


def _samples(choice: BaseDistribution) -> list[Any]:
    if isinstance(choice, CategoricalDistribution):
        return list(choice.choices)
    if isinstance(choice, IntDistribution):  # the second shows what must be a multiple
        return [choice.low, min(choice.low + 1, choice.high), choice.high]
    assert isinstance(choice, FloatDistribution)  # noqa: S101
    return [choice.low, choice.high]


def _check(current: dict[str, dict[str, Any]], key: str, value: Any) -> None:
    section, name = key.split(".")
    kind = params.Prepare if section == "prepare" else params.Train
    try:
        kind(**{**current[section], name: value})
    except ValidationError as invalid:
        said = invalid.errors()[0]["msg"]
        raise MeadowError(
            f"{key}: {value!r} is refused. {said}. Choose other ends, or list values."
        ) from None

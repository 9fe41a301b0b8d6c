"""Ranges of parameters that a sweep may try, such as `train.probe.l2=0.003..3:log`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter, getitem
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from meadow import params
from meadow.errors import MeadowError

# Other sections decide nothing, or which photos are judged and how: figures of trials that differ
# in them cannot be compared. Likewise these keys.
UNSWEPT = ("data.", "evaluate.", "runtime.")
JUDGES = {"prepare.val", "prepare.test", "prepare.seed", "train.coverage"}
FORMS = "Write LOW..HIGH, LOW..HIGH:log, or VALUE,VALUE"


@dataclass(frozen=True)
class Ranges:
    """What to try for each key.

    Attributes:
        distributions: Optuna's word for each range.
        current: params.yaml.

    """

    distributions: dict[str, BaseDistribution]
    current: params.Params

    @classmethod
    def read(cls, texts: dict[str, str]) -> "Ranges":
        """Read the range of each key, and check it as its stage would.

        Raises:
            MeadowError: no range, an unknown key, or one or a value that is refused.

        """
        if not texts:
            raise MeadowError(f"there is no range. {FORMS}, such as train.probe.l2=0.003..3:log.")
        current = params.load()
        distributions = {}
        for key, text in texts.items():
            if key in JUDGES or key.startswith(UNSWEPT):
                raise MeadowError(
                    f"{key} cannot be swept: figures of trials that differ in it cannot be"
                    " compared. Change params.yaml, run `dvc repro`, and commit."
                )
            distributions[key] = parse(key, text)
            for value in _samples(distributions[key]):
                _check(current, key, value)
        return cls(distributions, current)

    def values(self, key: str) -> set[Any]:
        """Return the values that a key without a wide range may have."""
        choice = self.distributions.get(key)
        return (
            {*choice.choices}
            if isinstance(choice, CategoricalDistribution)
            else {attrgetter(key)(self.current)}
        )


def from_file(path: Path) -> dict[str, str]:
    """Read ranges from a YAML file: `train.probe.l2: 0.003..3:log` on each line.

    Raises:
        MeadowError: there is no such file, or it is of another form.

    """
    try:
        texts = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        raise MeadowError(f"{path} cannot be read: {error}") from None
    if not isinstance(texts, dict) or any(isinstance(t, dict | list) for t in texts.values()):
        raise MeadowError(
            f"{path}: write one range a line, such as `train.probe.l2: 0.003..3:log`."
        )
    return {str(key): str(text) for key, text in texts.items()}


def from_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Read ranges from a command line.

    Raises:
        MeadowError: one is not `KEY=RANGE`.

    """
    for argument in arguments:
        if "=" not in argument:
            raise MeadowError(f"{argument!r} is no range. {FORMS} behind KEY=.")
    return dict(argument.split("=", 1) for argument in arguments)


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


def _check(current: params.Params, key: str, value: Any) -> None:
    values = current.model_dump()
    *sections, name = key.split(".") if key in params.all_keys() else [key]
    reduce(getitem, sections, values)[name] = value
    params.check(values, "Choose other ends, or list values.")

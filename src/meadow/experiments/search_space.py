"""What a sweep may try for each parameter, such as `train.probe.l2=0.003..3:log`."""

import re
from collections.abc import Sequence
from functools import reduce
from operator import getitem
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

# They decide nothing, or which photos are judged and how: figures of trials that differ in them
# cannot be compared.
FIXED = (
    "data.", "evaluate.", "runtime.", "train.coverage",
    "prepare.val", "prepare.test", "prepare.seed", "prepare.near_duplicates", "prepare.min_side",
    "prepare.on_bad_photo", "prepare.on_two_labels",
)  # fmt: skip
FORMS = "Write LOW..HIGH, LOW..HIGH:log, or VALUE,VALUE"
EXAMPLE = "train.probe.l2=0.003..3:log"


def read(arguments: Sequence[str], file: Path | None) -> dict[str, BaseDistribution]:
    """Read the range of each key, and check it as its stage would.

    Args:
        arguments: `KEY=RANGE`; they take precedence over the file.
        file: YAML with one `KEY: RANGE` a line, or None.

    Raises:
        MeadowError: no range, an unknown key, or a range or value that is refused.

    """
    texts = _from_file(file) if file else {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise MeadowError(f"{argument!r} is no range. {FORMS} behind KEY=.")
        texts[key] = text
    if not texts:
        raise MeadowError(f"there is no range. {FORMS}, such as {EXAMPLE}.")
    current = params.load()
    space = {}
    for key, text in texts.items():
        if key.startswith(FIXED):
            raise MeadowError(
                f"{key} cannot be swept: figures of trials that differ in it cannot be compared."
                " Change params.yaml, run `dvc repro`, and commit."
            )
        space[key] = parse(key, text)
        for value in _samples(space[key]):
            _check(current, key, value)
    return space


def _from_file(path: Path) -> dict[str, str]:
    try:
        texts = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        raise MeadowError(f"{path} cannot be read: {error}") from None
    if not isinstance(texts, dict) or any(isinstance(t, dict | list) for t in texts.values()):
        raise MeadowError(
            f"{path}: write one range a line, such as `{EXAMPLE.replace('=', ': ')}`."
        )
    return {str(key): str(text) for key, text in texts.items()}


def parse(key: str, text: str) -> BaseDistribution:
    """Read one range; its numbers are integers if both ends are written so.

    Raises:
        MeadowError: it is not of a known form, or its ends are the wrong way round.

    """
    ends = re.fullmatch(r"(.+?)\.\.(.+?)(:log)?", text)
    values = [_value(part) for part in (ends.groups()[:2] if ends else text.split(","))]
    try:
        if not ends:
            if None in values or not text.isprintable() or ":" in text:
                raise ValueError("a value is empty, or has a colon")
            return CategoricalDistribution(values)
        if not all(type(value) in (int, float) for value in values):
            raise ValueError("its ends are no numbers")
        (low, high), log = values, bool(ends[3])
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(low, high, log=log)
    except ValueError as error:
        raise MeadowError(f"{key}: the range {text!r} is refused: {error}. {FORMS}.") from None


def _value(text: str) -> Any:
    """Read a value as params.yaml would: YAML 1.2, where 1e-3 is a number."""
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        return None


def _samples(distribution: BaseDistribution) -> Sequence[Any]:
    """Return values whose check is that of all."""
    if isinstance(distribution, IntDistribution):  # the second shows what must be a multiple
        low, high = distribution.low, distribution.high
        return low, min(low + 1, high), high
    if isinstance(distribution, FloatDistribution):
        return distribution.low, distribution.high
    assert isinstance(distribution, CategoricalDistribution)  # noqa: S101
    return distribution.choices


def _check(current: params.Params, key: str, value: Any) -> None:
    values = current.model_dump()
    *sections, name = key.split(".") if key in params.all_keys() else [key]
    reduce(getitem, sections, values)[name] = value
    params.check(values, "Choose other ends, or list values.")

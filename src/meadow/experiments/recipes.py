"""Recipes: sets of values for params.yaml that belong together."""

import difflib
import io
from collections.abc import Mapping, MutableMapping
from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML

from meadow.errors import MeadowError
from meadow.params import PARAMS, load
from meadow.pipeline import atomic
from meadow.training.weights import BY_NAME

FOLDER = files("meadow.experiments") / "recipes"


def names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(file.name[:-5] for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def read(name: str) -> dict[str, Any]:
    """Read a recipe: values as they are nested in params.yaml.

    Raises:
        MeadowError: there is no such recipe.

    """
    if name not in names():
        raise MeadowError(f"there is no recipe {name!r}. There are: {', '.join(names())}.")
    values: dict[str, Any] = YAML(typ="safe").load((FOLDER / f"{name}.yaml").read_text())
    return values


def apply(name: str) -> str:
    """Write a recipe's values into params.yaml; return the diff.

    Weights from a file of one's own stay, and with them the architecture that they are of.

    Raises:
        MeadowError: there is no such recipe.

    """
    values, train = read(name), load().train
    if train.weights not in BY_NAME:
        print(f"train.weights stays {train.weights}, and train.arch {train.arch}.")
        del values["train"]["weights"], values["train"]["arch"]
    return set_params(values)


def set_params(values: Mapping[str, Any]) -> str:
    """Write values into params.yaml, which keeps its comments; return the diff."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    load()  # its errors are clear
    before = PARAMS.read_text("utf-8")
    params = yaml.load(before)
    _merge(params, values)
    text = io.StringIO()
    yaml.dump(params, text)
    after = text.getvalue()
    with atomic.whole(PARAMS) as part:
        part.write_text(after, "utf-8")
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            f"a/{PARAMS}",
            f"b/{PARAMS}",
            n=0,
        )
    )


def _merge(params: MutableMapping[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _merge(params[key], value)
        else:
            params[key] = value

"""Take the parameters of a run into params.yaml: the way back from MLflow to DVC."""

from typing import Any

from ruamel.yaml import YAML

from meadow import params
from meadow.errors import MeadowError, did_you_mean
from meadow.experiments import recipes
from meadow.tracking.server import Server, errors

LOCAL = "runtime."  # of a machine, not of a result


def pull(name: str) -> None:
    """Write the parameters that MLflow has of a run into params.yaml.

    Args:
        name: id or name of the run; of several the latest.

    Raises:
        MeadowError: there is no such run, it has none, or params.yaml would not be valid.

    """
    server = Server.connect()
    with errors():
        runs = server.runs()
    chosen = [run for run in runs if name in (run.info.run_id, run.info.run_name)]
    if not chosen:
        hint = did_you_mean(name, [run.info.run_name for run in runs], most=3)
        raise MeadowError(f"{name!r} is no run of {server.name!r}.{hint} See {server.url}")
    values = {
        key: YAML(typ="safe").load(text)
        for key, text in chosen[-1].data.params.items()
        if not key.startswith(LOCAL)
    }
    if not values:
        raise MeadowError(f"{name!r} has no parameters. Choose another run: {server.url}")
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
    params.check(_merged(params.read(), nested), "That is in the run, which is of other code.")
    print(recipes.set_params(nested) or "params.yaml has these values already.")
    print(f"Next: `dvc exp run --name from-{chosen[-1].info.run_name}`.")


def _merged(values: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return values with new ones in their places."""
    return values | {
        key: _merged(values[key], value) if isinstance(values.get(key), dict) else value
        for key, value in new.items()
    }

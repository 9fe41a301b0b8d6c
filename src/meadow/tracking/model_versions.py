"""Releases and stages of the registry as versions and aliases of a registered model."""

from collections.abc import Mapping
from typing import Any

from meadow.experiments import registry
from meadow.tracking.content import MODEL_FOLDER
from meadow.tracking.server import Server

RELEASE = "release"  # tag of a version: its name in the registry, such as v1.2.0


def sync(server: Server, runs: Mapping[str, str]) -> int:
    """Make versions and aliases those of the registry, of releases whose runs are there.

    Args:
        server: where.
        runs: ids of the runs by commit.

    Returns:
        How many versions there are.

    """
    released = [version for version in reversed(registry.versions()) if version.commit in runs]
    if not released:
        return 0
    model = _model(server)
    known = _once(server, runs)
    lacking = [version for version in released if version.name not in known]
    for version in lacking:
        run = runs[version.commit]
        server.client.create_model_version(
            server.name, f"runs:/{run}/{MODEL_FOLDER}", run, {RELEASE: version.name},
            description=f"{version.name} by {version.author}",
        )  # fmt: skip
    if lacking:
        known = _once(server, runs)
    wanted = {stage: known[version.name] for version in released for stage in version.stages}
    for stage in registry.stages():
        if stage in model.aliases and stage not in wanted:
            server.client.delete_registered_model_alias(server.name, stage)
    for stage, number in wanted.items():
        if model.aliases.get(stage) != number:
            server.client.set_registered_model_alias(server.name, stage, number)
    return len(known)


def _model(server: Server) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return server.client.get_registered_model(server.name)
    except MlflowException:
        return server.client.create_registered_model(server.name)


def _once(server: Server, runs: Mapping[str, str]) -> dict[str, str]:
    """Return the versions by release, and delete those that two pushes made at once but the first.

    Deleted are also those of a run that is no more, as of two that were written at once.
    """
    known: dict[str, str] = {}
    versions = server.client.search_model_versions(f"name='{server.name}'")
    for version in sorted(versions, key=lambda version: int(version.version)):
        release = version.tags.get(RELEASE)
        if release and (release in known or version.run_id not in runs.values()):
            server.client.delete_model_version(server.name, version.version)
        elif release:
            known[release] = str(version.version)
    return known

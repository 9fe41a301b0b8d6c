"""dvc.yaml tells the truth: it is read here as DVC reads it, and compared with the code."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from imports import problems

from meadow import params

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
BENTO = yaml.safe_load((ROOT / "bentofile.yaml").read_text())


# Modules that a declared folder holds beyond the imports: name -> why that does no harm.
EARLIER = "what it decides is decided by the stages before, which run again anyway"
SMALL = "a few lines, never edited"
UNREACHED: dict[str, dict[str, str]] = {
    "prepare": {
        "meadow/pipeline/cache.py": SMALL,
        "meadow/pipeline/intervals.py": SMALL,
        "meadow/pipeline/probabilities.py": SMALL,
        "meadow/pipeline/provenance.py": SMALL,
    },
    "train": {
        "meadow/pipeline/intervals.py": SMALL,
        "meadow/pipeline/provenance.py": SMALL,
    },
    "evaluate": {
        "meadow/inference/reference.py": SMALL,
        "meadow/inference/signals.py": SMALL,
        "meadow/pipeline/cache.py": SMALL,
    },
    "report": {
        "meadow/pipeline/cache.py": EARLIER,
        "meadow/pipeline/intervals.py": SMALL,
        "meadow/reporting/dataset_report.py": "another page; a report takes a second",
        "meadow/reporting/metadata_leakage.py": "part of that page",
        "meadow/reporting/neighbours.py": "likewise",
        "meadow/reporting/photo_set.py": "likewise",
    },
    "package": {
        "meadow/pipeline/cache.py": EARLIER,
        "meadow/pipeline/hashing.py": EARLIER,
        "meadow/pipeline/manifest.py": EARLIER,
        "meadow/pipeline/shards.py": EARLIER,
        "meadow/pipeline/splits.py": EARLIER,
    },
    "service": {
        "meadow/pipeline/atomic.py": "small, and imports nothing else of these",
        "meadow/pipeline/bucket.py": "likewise",
        "meadow/pipeline/cache.py": "likewise",
        "meadow/pipeline/hashing.py": "likewise",
        "meadow/pipeline/litter.py": "likewise",
        "meadow/pipeline/manifest.py": "likewise",
        "meadow/pipeline/dask_map.py": "likewise",
        "meadow/pipeline/parallel.py": "likewise",
        "meadow/pipeline/places.py": "likewise",
        "meadow/pipeline/ports.py": "likewise",
        "meadow/pipeline/s3.py": "likewise",
        "meadow/pipeline/shards.py": "likewise",
        "meadow/pipeline/splits.py": "likewise",
        "meadow/serving/client.py": "asks the service, for package and for `meadow predict`",
        "meadow/serving/server.py": "starts the service, for package and for the demo",
    },
}


def declared(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("src/") for name in names if name.startswith("src/")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_what_it_imports(stage: str) -> None:
    """DVC does not follow imports; too few deps give stale results, too many needless runs."""
    roots = [f"meadow.{stage}"] + ["meadow.service"] * (stage == "package")
    entries = declared(STAGES[stage]["deps"])

    assert problems(roots, entries, SOURCE, UNREACHED[stage]) == []
    assert len(entries) <= 10


def test_the_bento_holds_exactly_what_the_service_imports() -> None:
    """A module that is missing there breaks the service only after it is deployed."""
    entries = declared(BENTO["include"])

    assert problems(["meadow.service"], entries, SOURCE, UNREACHED["service"]) == []
    assert "meadow/__init__.py" in entries


TOY = {
    "__init__": "",
    "stage": "from toy.near import noun\n",
    "near/__init__": "",
    "near/noun": "",
    "far/__init__": "",
    "far/other": "",
}


@pytest.mark.parametrize(
    ("module", "code", "entries", "problem"),
    [
        ("stage", None, ["toy/stage.py", "toy/near"], None),
        ("stage", "import toy.far.other", ["toy/stage.py"], "toy/far/other.py is imported"),
        ("near/noun", "from ..far import other", ["toy/stage.py", "toy/near"], "toy/far/other.py"),
        ("near/noun", "from . import late", ["toy/stage.py"], "toy/near/late.py is imported"),
        ("stage", "def f():\n    from toy.far import other", ["toy/stage.py"], "toy/far/other.py"),
        ("stage", "import_module('toy.far.other')", ["toy/stage.py"], "toy/far/other.py"),
        ("stage", "", ["toy/stage.py", "toy/near"], "toy/near is declared and not reached"),
        ("near/more", "", ["toy/stage.py", "toy/near"], "toy/near/more.py is declared"),
    ],
)
def test_the_comparison_sees_every_kind_of_import(
    tmp_path: Path, module: str, code: str | None, entries: list[str], problem: str | None
) -> None:
    """Undeclared, relative, lazy and named imports, folders and modules that nothing reaches."""
    late = {"near/late": ""} if code and "late" in code else {}
    for name, text in {**TOY, **late, module: TOY[module] if code is None else code}.items():
        path = tmp_path / "toy" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    reported = problems(["toy.stage"], entries, tmp_path, {})

    assert any(text.startswith(problem) for text in reported) if problem else not reported


def test_editing_the_service_reruns_package_alone() -> None:
    """The service is no part of what is learned or measured."""
    users = [name for name, stage in STAGES.items() if "src/meadow/service.py" in stage["deps"]]

    assert users == ["package"]


def test_the_stages_are_the_verbs() -> None:
    """A module that is run is a stage, and a stage is such a module."""
    verbs = [
        path.stem
        for path in (SOURCE / "meadow").glob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    ]

    assert sorted(STAGES) == sorted(verbs)
    assert [f"python -m meadow.{name}" for name in STAGES] == [s["cmd"] for s in STAGES.values()]


def test_params_yaml_lists_the_parameters_in_their_order() -> None:
    """The model's order is that of the file, so that a reader finds one beside the other."""
    assert dotted(PARAMS) == list(params.all_keys())


def dotted(values: dict[str, Any], before: str = "") -> list[str]:
    """Return the dotted keys of nested values."""
    keys: list[str] = []
    for name, value in values.items():
        key = f"{before}{name}"
        keys += dotted(value, f"{key}.") if isinstance(value, dict) else [key]
    return keys


def test_train_depends_on_every_parameter_it_reads() -> None:
    """One that is not listed would change no run; the methods' sections are templated."""
    shared = [f"train.{name}" for name, value in PARAMS["train"].items() if type(value) is not dict]

    assert STAGES["train"]["params"] == [*shared, "train.${train.method}"]


def test_every_parameter_has_a_comment() -> None:
    """params.yaml is where a parameter is explained."""
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if line.startswith("  "):
            assert "#" in line, line


def test_no_stage_lists_the_runtime_section() -> None:
    """The number of threads cannot change a result, so it must not rerun anything."""
    for stage in STAGES.values():
        assert not [name for name in stage.get("params", []) if name.startswith("runtime")]


def test_no_out_switches_the_run_cache_off() -> None:
    """`cache: false` or `persist` on a plain out makes DVC run the stage again each time."""
    for stage in STAGES.values():
        for out in stage["outs"]:
            assert isinstance(out, str)

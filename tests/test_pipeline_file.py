"""dvc.yaml tells the truth: it is read here as DVC reads it, and compared with the code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from meadow.params import SECTIONS, Data, Evaluate, Prepare, Runtime, Train

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
BENTO = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
TYPES = {
    "data": Data,
    "prepare": Prepare,
    "train": Train,
    "evaluate": Evaluate,
    "runtime": Runtime,
}


def imported(module: Path) -> Iterator[Path]:
    """Yield the modules of Meadow that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
            if path.is_file():
                yield path


def closure(*modules: Path) -> set[str]:
    """Return all modules that these need, themselves included, as paths in the project."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += imported(module)
    return {path.relative_to(ROOT).as_posix() for path in found}


def verb(stage: str) -> Path:
    return SOURCE / "meadow" / f"{stage}.py"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_modules_that_it_imports(stage: str) -> None:
    """DVC does not follow imports; too few deps give stale results, too many needless runs."""
    expected = closure(verb(stage))
    if stage == "package":
        expected |= {name for name in BENTO["include"] if name.startswith("src/")}

    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}

    assert sorted(expected) == sorted(declared)


def test_the_bento_holds_exactly_what_the_service_imports() -> None:
    """A module that is missing there breaks the service only after it is deployed."""
    expected = closure(verb("service")) | {"src/meadow/__init__.py"}

    held = {name for name in BENTO["include"] if name.endswith(".py")}

    assert sorted(expected) == sorted(held)


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


def test_no_noun_imports_a_verb() -> None:
    """Verbs import nouns, and nothing imports a verb."""
    verbs = {verb(stage) for stage in STAGES}
    for module in (SOURCE / "meadow").glob("*.py"):
        assert not verbs & set(imported(module)), module.name


def test_serving_imports_no_learning() -> None:
    """PyTorch or DVC in the service would make its image ten times as large."""
    heavy = {"torch", "torchvision", "dvc", "dvclive", "onnx", "scipy", "ruamel"}
    for name in closure(verb("service")):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & heavy, name
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[0] not in heavy, name


@pytest.mark.parametrize("section", SECTIONS)
def test_the_keys_of_a_section_are_the_fields_of_its_type(section: str) -> None:
    """A key that nothing reads, or a field that has no key, is a mistake."""
    assert list(PARAMS[section]) == list(TYPES[section].model_fields)


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

"""Which modules of Meadow a module imports, read from the source; nothing is run."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def modules(source: Path) -> dict[str, Path]:
    """Return all modules below a folder by dotted name, packages included."""
    return {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(source.rglob("*.py"))
    }


def imported(module: str, source: Path) -> set[str]:
    """Return what a module imports of the modules below `source`, with the packages around these.

    At its top, inside functions, relatively, or by a name in a string such as
    `import_module("meadow.storage.sharing")`.
    """
    known = modules(source)
    path = known[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return {each for name in names if name in known for each in _with_packages(name)} - {module}


def closure(roots: Iterable[str], source: Path) -> set[str]:
    """Return all modules that these need, themselves included."""
    reached: set[str] = set()
    waiting = [each for root in roots for each in _with_packages(root)]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imported(module, source)
    return reached


def problems(
    roots: Iterable[str], declared: Iterable[str], source: Path, unreached: Mapping[str, str]
) -> list[str]:
    """Say where declared files and folders differ from what the roots import.

    Args:
        roots: dotted names of the modules that are run.
        declared: files and folders, relative to `source`.
        source: the folder that has the package.
        unreached: the modules that a declared folder may hold beyond the closure, with reasons.

    """
    known = modules(source)
    reached = {known[name] for name in closure(roots, source)}
    reached = {path for path in reached if path.name != "__init__.py"}
    covered: set[Path] = set()
    said = []
    for entry in declared:
        path = source / entry
        held = {path} if path.is_file() else set(path.rglob("*.py"))
        if path.name != "__init__.py" and not held & reached:
            said.append(f"{entry} is declared and not reached")
        covered |= {each for each in held if each.name != "__init__.py"}
    said += [f"{_name(each, source)} is imported, not declared" for each in reached - covered]
    beyond = {_name(each, source) for each in covered - reached}
    said += [f"{name} is declared and not reached" for name in beyond - set(unreached)]
    said += [f"{name} is no exception any more" for name in set(unreached) - beyond]
    return sorted(said)


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def _name(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()

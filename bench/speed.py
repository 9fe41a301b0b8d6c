"""Seconds of the pipeline against the baseline's training, in one run.

Run in a clone with photos, weights and a recipe in place; it works on a copy.

    python bench/speed.py
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from meadow.pipeline import atomic

ROUNDS = 3


def timed(*command: str, cwd: Path, **environment: str) -> float:
    """Run a command; return its seconds."""
    started = time.perf_counter()
    run(*command, cwd=cwd, **environment)
    return time.perf_counter() - started


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a command; return what it prints."""
    env = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=cwd, env=env, check=True, capture_output=True, text=True
    ).stdout


def main() -> None:
    """Print each figure as median over the rounds."""
    here = Path.cwd()
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for i in range(ROUNDS):
            copy, cache = Path(temporary, f"project{i}"), Path(temporary, f"cache{i}")
            shutil.copytree(here, copy, ignore=shutil.ignore_patterns(".venv", "cache"))
            for made in (
                "dvc.lock",
                "data/prepared",
                "models/classifier",
                "models/bento",
                ".dvc/cache/runs",
            ):
                atomic.remove(copy / made)

            def note(name: str, seconds: float) -> None:
                rows.setdefault(name, []).append(seconds)
                print(f"{name}: {seconds:.2f} s", flush=True)

            dvc = (sys.executable, "-m", "dvc", "repro")
            own = {"MEADOW_CACHE": str(cache)}
            said = run(sys.executable, str(here / "bench/baseline.py"), "data/raw", cwd=copy)
            note("training of the baseline", float(re.findall(r"in ([\d.]+) s", said)[0]))
            note("cold repro, prepare to evaluate", timed(*dvc, "evaluate", cwd=copy, **own))
            text = (copy / "params.yaml").read_text()
            (copy / "params.yaml").write_text(re.sub(r"  l2: \S+", "  l2: 0.07", text))
            note("changed parameter, features cached", timed(*dvc, "evaluate", cwd=copy, **own))
            note("package", timed(*dvc, cwd=copy, **own))
            note("nothing to do", timed(*dvc, cwd=copy, **own))
            empty = Path(temporary, f"empty{i}")
            empty.mkdir()
            subprocess.run(["git", "init", "-q"], cwd=empty, check=True)
            subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=empty, check=True)
            for k in range(4):
                (empty / f"in{k}").write_text("x")
            (empty / "dvc.yaml").write_text(
                "stages:\n"
                + "".join(
                    f"  s{k}: {{cmd: touch out{k}, deps: [in{k}], outs: [out{k}]}}\n"
                    for k in range(4)
                )
            )
            timed(*dvc, cwd=empty)
            note("nothing to do, four empty stages", timed(*dvc, cwd=empty))
    print()
    for name, values in rows.items():
        print(f"| {name} | {sorted(values)[len(values) // 2]:.2f} |")


if __name__ == "__main__":
    main()

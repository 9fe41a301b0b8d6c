"""Memory and time per photo of prepare and of a probe at 400, 4,000 and 40,000 drawn photos.

python bench/scale.py [COUNT ...]
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from meadow.commands.synthetic import draw_demo

ROOT = Path(__file__).parents[1]
STAGES = ("prepare", "train")


def measure(stage: str, folder: Path) -> tuple[float, float]:
    """Run a stage; return its seconds and its peak memory in MB."""
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.environ["MEADOW_CACHE"] = str(folder / "cache")
        os.execv(sys.executable, [sys.executable, "-m", f"meadow.{stage}"])  # noqa: S606
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{stage} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Print a table."""
    counts = [int(count) for count in sys.argv[1:]] or [400, 4000, 40_000]
    print("| photos | stage | s | ms a photo | peak MB |\n|--:|:--|--:|--:|--:|")
    for count in counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            yaml = YAML()
            values = yaml.load(ROOT / "params.yaml")
            values["train"].update(
                method="probe", arch="mobilenet_v3_small", weights="none", probe={"l2": 0.1}
            )
            yaml.dump(values, folder / "params.yaml")
            (folder / "models/pretrained").mkdir(parents=True)
            draw_demo(folder / "data/raw", count)
            for stage in STAGES:
                seconds, memory = measure(stage, folder)
                each = seconds / count * 1000
                print(
                    f"| {count:,} | {stage} | {seconds:.1f} | {each:.2f} | {memory:.0f} |",
                    flush=True,
                )
            print(json.loads((folder / "metrics/prepare.json").read_text()), file=sys.stderr)


if __name__ == "__main__":
    main()

"""How many threads to start."""

import os
from pathlib import Path


def cores(workers: int = 0) -> int:
    """Return the number of threads that `runtime.workers` stands for.

    0 is one for each core that this process may use: those of its affinity, and no more than the
    CPU time that its control groups (version 2, as in containers) grant it.
    """
    if workers:
        return workers
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([usable, *_quotas()]))


def _quotas(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Return the cores, rounded up, that this process's control group and those above it allow."""
    try:
        group = membership.read_text("utf-8").strip().rpartition("0::/")[2]
    except OSError:
        group = ""
    quotas = []
    for folder in [root / group, *(root / group).parents]:
        try:
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            quotas.append(-(-int(quota) // int(period)))
        except (OSError, ValueError):  # no such group, or "max"
            pass
        if folder == root:
            break
    return quotas

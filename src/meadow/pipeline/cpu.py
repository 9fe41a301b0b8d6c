"""How many threads to start, and other limits that control groups set."""

import os
from contextlib import suppress
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


def group_settings(
    name: str, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[str]:
    """Return what the files `name`, such as cpu.max, of this process's control groups say.

    The process's own comes first, then those above it; of version 2 alone.
    """
    try:
        group = membership.read_text("utf-8").strip().rpartition("0::/")[2]
    except OSError:
        group = ""
    texts = []
    for folder in [root / group, *(root / group).parents]:
        with suppress(OSError):  # no such group
            texts.append((folder / name).read_text("ascii"))
        if folder == root:
            break
    return texts


def _quotas() -> list[int]:
    """Return the cores, rounded up, that this process's control group and those above it allow."""
    limits = [text.split() for text in group_settings("cpu.max")]
    return [-(-int(quota) // int(period)) for quota, period in limits if quota != "max"]

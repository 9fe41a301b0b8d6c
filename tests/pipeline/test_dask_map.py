"""Workers that die, stop, or run something else; a scheduler that goes: with real ones."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import self_signed
from dask_cluster import DaskCluster
from dask_work import Heavy, Recorder, end_the_worker, fail_at_40
from tools import PREFIX

from meadow.errors import MeadowError
from meadow.pipeline.parallel import Machines, ordered

dask = pytest.importorskip("dask", reason=f"{PREFIX}Dask")
dask_map = pytest.importorskip("meadow.pipeline.dask_map", reason=f"{PREFIX}Dask")
pytestmark = pytest.mark.slow
COUNT = 600
SQUARES = [i * i for i in range(COUNT)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    """Return a scheduler with two workers."""
    with DaskCluster(tmp_path / "dask") as started:
        started.start_workers(2)
        yield started


def workers_of(record: Path) -> dict[int, list[int]]:
    """Return what each process has begun."""
    begun: dict[int, list[int]] = {}
    for line in record.read_text().splitlines():
        process, item = map(int, line.split())
        begun.setdefault(process, []).append(item)
    return begun


def twice(record: Path) -> int:
    """Return how many times an item was begun again."""
    counts = Counter(item for items in workers_of(record).values() for item in items)
    assert set(counts) == set(range(COUNT))
    return counts.total() - len(counts)


def test_results_are_in_order_and_an_error_is_in_its_place(cluster: DaskCluster) -> None:
    """As with threads."""
    machines = Machines(scheduler=cluster.address)
    results = ordered(fail_at_40, iter(range(COUNT)), machines, title="")

    assert [next(results) for _ in range(32)] == list(range(32))
    with pytest.raises(ValueError, match="forty"):
        list(results)


def test_items_are_begun_only_a_window_ahead(cluster: DaskCluster, tmp_path: Path) -> None:
    """Memory is bounded, whatever the number of photos."""
    taken = []
    items = (taken.append(i) or i for i in range(100_000))  # type: ignore[func-returns-value]
    work = Recorder(tmp_path / "record", 0)
    results = ordered(work, items, Machines(scheduler=cluster.address), title="")
    next(results)

    assert len(taken) <= dask_map.BATCH * (1 + 1 + 2 * dask_map.AHEAD)


def test_the_function_goes_to_each_worker_once(tmp_path: Path) -> None:
    """A network has 10 to 300 MB; to a worker that comes late it goes as well.

    Dask's memory manager, which is off here, takes it from a worker that has nothing to do.
    """
    record, unpacked = tmp_path / "record", tmp_path / "unpacked"
    off = {"DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__START": "False"}
    with DaskCluster(tmp_path / "dask", environment=off) as cluster:
        cluster.start_workers(2)
        machines = Machines(scheduler=cluster.address)
        results = ordered(Heavy(record, unpacked), range(COUNT), machines, title="")
        first = [next(results) for _ in range(100)]
        cluster.start_workers(1)

        assert [*first, *results] == SQUARES
        assert cluster.workers[-1].pid in workers_of(record)
        assert sorted(map(int, unpacked.read_text().split())) == sorted(workers_of(record))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
def test_only_what_is_in_work_is_done_twice_when_a_worker_ends(
    cluster: DaskCluster, tmp_path: Path, ending: signal.Signals
) -> None:
    """Killed, or stopped until Dask gives it up: its batch and the one behind it."""
    record = tmp_path / "record"
    work = Recorder(record, 0.005)
    results = ordered(work, range(COUNT), Machines(scheduler=cluster.address), title="")
    first = [next(results) for _ in range(100)]
    item = dask_map.BATCH - 1
    while item % dask_map.BATCH > dask_map.BATCH // 2:  # until one is in the middle of its batch
        first.append(next(results))
        victim, item = map(int, record.read_text().splitlines()[-1].split())
    os.kill(victim, ending)

    assert [*first, *results] == SQUARES
    assert 0 < twice(record) <= 2 * dask_map.BATCH


def test_a_scheduler_that_comes_back_is_given_what_was_in_work(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    """Its memory is lost, and the run goes on: on Kubernetes a pod is replaced."""
    record = tmp_path / "record"
    work = Recorder(record, 0.005)
    results = ordered(work, range(COUNT), Machines(scheduler=cluster.address), title="")
    first = [next(results) for _ in range(100)]
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    cluster.start_scheduler()
    cluster.start_workers(1)

    assert [*first, *results] == SQUARES
    assert twice(record) <= dask_map.BATCH * (1 + 2 * dask_map.AHEAD)


def test_a_scheduler_that_stays_away_is_an_error_that_says_what_to_do(
    cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a wait without end."""
    work = Recorder(tmp_path / "record", 0.005)
    results = ordered(work, range(COUNT), Machines(scheduler=cluster.address), title="")
    next(results)
    monkeypatch.setattr(dask_map, "CONNECT", 2)
    cluster.scheduler.kill()

    with pytest.raises(MeadowError, match=r"no Dask scheduler answers at tcp.*run this again"):
        list(results)


def test_workers_that_finish_nothing_are_an_error(
    cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are stopped or gone, and no other comes."""
    work = Recorder(tmp_path / "record", 0.005)
    results = ordered(work, range(COUNT), Machines(scheduler=cluster.address), title="")
    next(results)
    monkeypatch.setattr(dask_map, "PATIENCE", 3)
    for worker in cluster.workers:
        worker.kill()

    with pytest.raises(MeadowError, match="finished nothing for 3 s"):
        list(results)


def test_an_item_that_ends_each_worker_is_an_error(cluster: DaskCluster) -> None:
    """It is not tried on all workers there are: Dask's `allowed-failures`."""
    cluster.start_workers(4)

    with pytest.raises(MeadowError, match=r"items \d+ to \d+, .* have ended several"):
        list(ordered(end_the_worker, range(64), Machines(scheduler=cluster.address), title=""))


def test_no_worker_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the command that starts one."""
    monkeypatch.setattr(dask_map, "CONNECT", 3)
    with DaskCluster(tmp_path / "dask") as cluster:
        machines = Machines(scheduler=cluster.address)

        with pytest.raises(MeadowError, match=f"has no worker.*dask worker {cluster.address}"):
            list(ordered(abs, range(3), machines, title=""))


def test_a_worker_with_other_code_is_refused_by_name(tmp_path: Path) -> None:
    """It would compute other bytes, and nobody would know why."""
    other = tmp_path / "other"
    shutil.copytree(dask_map.SOURCE, other / "meadow", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "meadow/pipeline/image.py").open("a") as file:
        file.write("# newer\n")
    with DaskCluster(tmp_path / "dask") as cluster:
        cluster.start_workers(1, PYTHONPATH=str(other))
        here = dask_map.identity()["Meadow's code"]

        with pytest.raises(
            MeadowError, match=rf"worker tcp://127.0.0.1:\d+ .*code \w+ instead of {here}\. Start"
        ):
            list(ordered(abs, range(3), Machines(scheduler=cluster.address), title=""))


def test_a_worker_without_meadow_is_refused(tmp_path: Path) -> None:
    """Dask's own error would be one of pickle."""
    (tmp_path / "none/meadow").mkdir(parents=True)
    (tmp_path / "none/meadow/__init__.py").touch()
    environment = {"PYTHONPATH": str(tmp_path / "none")}
    with DaskCluster(tmp_path / "dask", environment=environment) as cluster:
        cluster.start_workers(1)

        with pytest.raises(MeadowError, match=r"cannot load Meadow: .*Start them"):
            list(ordered(abs, range(3), Machines(scheduler=cluster.address), title=""))


def test_the_messages_may_be_encrypted(tmp_path: Path) -> None:
    """By tls:// and Dask's own settings, for scheduler, workers and Meadow alike."""
    certificate = self_signed(tmp_path / "tls")
    key = str(certificate.with_name("private.key"))
    ours = {"ca-file": str(certificate), "client.cert": str(certificate), "client.key": key}
    client = {f"distributed.comm.tls.{name}": value for name, value in ours.items()}
    settings = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate)}
    for role in ("SCHEDULER", "WORKER"):
        start = f"DASK_DISTRIBUTED__COMM__TLS__{role}"
        settings |= {f"{start}__CERT": str(certificate)}
        settings |= {f"{start}__KEY": key}
    with DaskCluster(tmp_path / "dask", protocol="tls", environment=settings) as cluster:
        cluster.start_workers(1)
        machines = Machines(scheduler=cluster.address)

        with pytest.raises(MeadowError, match=r"needs certificates\. Set DASK_DISTRIBUTED"):
            list(ordered(abs, range(3), machines, title=""))
        with dask.config.set(client):
            assert list(ordered(abs, range(3), machines, title="")) == [0, 1, 2]

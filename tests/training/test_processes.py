import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from toys import SetParams, draw_set

from meadow import params
from meadow.errors import MeadowError
from meadow.pipeline.ports import free_port
from meadow.prepare import prepare
from meadow.train import train
from meadow.training import processes
from meadow.training.device import CPU

LONG = 120  # seconds, on a busy machine
STAGE = [sys.executable, "-m", "meadow.train"]


@pytest.fixture
def prepared(project: Path, set_params: SetParams) -> Path:
    """Stand in a project whose steps have four shards, and whose second step has them uneven."""
    set_params(
        prepare={"size": 32, "val": 0.25, "test": 0.25},
        train={"arch": "shufflenet_v2_x0_5", "finetune": {"epochs": 3, "batch_size": 64}},
        runtime={"workers": 2},
    )
    draw_set(project / "data/raw", {"gold": 110, "moss": 110})
    prepare()
    return project


def outs(folder: Path = Path()) -> dict[str, str]:
    """Return the SHA-256 of what the stage writes."""
    files = [*(folder / "models/classifier").iterdir(), *(folder / "metrics").rglob("*.tsv")]
    assert len(files) == 4 + 3
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}


@contextmanager
def stage(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the stage on a "machine", which has its own copy of the project and its own cache."""
    environment = {**os.environ, "MEADOW_CACHE": str(folder.absolute() / "cache")}
    run = subprocess.Popen(STAGE, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    with run:
        try:
            yield run
        finally:
            run.kill()


def workers(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that train."""
    children = psutil.Process(run.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def epochs_of(folder: Path, run: subprocess.Popen[str]) -> None:
    """Wait until an epoch is done."""
    limit = time.monotonic() + LONG
    while not list((folder / "cache/checkpoints").glob("*.pt")):
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(
    prepared: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of model and curves; four have a shard each. Nothing else is left."""
    (prepared / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(prepared / "temporary"))
    train()
    alone = outs()
    for number in (2, 4):
        set_params(runtime={"processes": number})
        train()

        assert outs() == alone
        assert not list(Path("cache/checkpoints").iterdir())
        assert not list(Path("temporary").iterdir())


@pytest.mark.slow
def test_a_killed_process_costs_an_epoch_and_no_byte(prepared: Path, set_params: SetParams) -> None:
    """The run goes on from the last epoch by itself."""
    set_params(train={"finetune": {"epochs": 30, "patience": 30}})
    train()
    undisturbed = outs()
    set_params(runtime={"processes": 2})
    with stage(prepared) as run:
        epochs_of(prepared, run)
        workers(run)[1].kill()
        _, said = run.communicate(timeout=LONG)

    assert run.returncode == 0
    assert "exitcode: -9" in said, "it was killed too late"
    assert outs() == undisturbed


def machine(folder: Path) -> Path:
    """Return a second machine: a copy of the project."""
    return Path(shutil.copytree(folder, folder / "other", ignore=shutil.ignore_patterns("cache")))


@pytest.mark.slow
def test_each_machine_ends_with_the_same_model(prepared: Path, set_params: SetParams) -> None:
    """Also in a folder and a cache of its own; `dvc repro` finds the outs on all of them."""
    train()
    alone = outs()
    set_params(runtime={"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"})
    other = machine(prepared)
    with stage(prepared) as one, stage(other) as two:
        for run in (one, two):
            assert run.wait(LONG) == 0, run.communicate()[1]

    assert outs() == outs(other) == alone


@pytest.mark.slow
def test_a_machine_that_comes_late_joins_from_the_last_epoch(
    prepared: Path, set_params: SetParams
) -> None:
    """It has none of the epochs, and gets them from the other."""
    set_params(train={"finetune": {"epochs": 12, "patience": 12}})
    train()
    alone = outs()
    set_params(runtime={"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"})
    other = machine(prepared)
    with stage(prepared) as one:
        epochs_of(prepared, one)
        for worker in workers(one):
            worker.suspend()  # or it would be done too early; its launcher ends it after 30 s
        with stage(other) as two:
            for run in (one, two):
                _, said = run.communicate(timeout=LONG)
                assert run.returncode == 0, said

    assert outs() == outs(other) == alone


@pytest.mark.slow
def test_without_a_machine_that_died_the_others_go_on(
    prepared: Path, set_params: SetParams
) -> None:
    """Its processes end with it."""
    set_params(train={"finetune": {"epochs": 40, "patience": 40}})
    train()
    alone = outs()
    set_params(runtime={"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"})
    other = machine(prepared)
    with stage(prepared) as one:
        time.sleep(1)  # it is the host of the rendezvous
        with stage(other) as two:
            epochs_of(other, two)
            orphans = workers(two)
            two.kill()
        assert one.wait(LONG) == 0, one.communicate()[1]
        said = one.communicate()[1]

    assert orphans
    assert not psutil.wait_procs(orphans, timeout=LONG)[1]
    assert "Traceback" in said, "it was killed too late"
    assert outs() == alone


@pytest.mark.slow
def test_without_the_machine_of_the_rendezvous_the_others_say_so(
    prepared: Path, set_params: SetParams
) -> None:
    """And how to go on: each has the last epoch in its own cache."""
    set_params(
        train={"finetune": {"epochs": 300, "patience": 300}},
        runtime={"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"},
    )
    other = machine(prepared)
    with stage(prepared) as one:
        time.sleep(1)  # it is the host of the rendezvous
        with stage(other) as two:
            epochs_of(other, two)
            one.kill()
            _, said = two.communicate(timeout=LONG)

    assert two.returncode == 1
    assert re.search(r"error: .*127\.0\.0\.1:\d+ does not answer.*run it again to go on", said)
    assert list((other / "cache/checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_machines_that_train_different_things_are_refused(
    prepared: Path, set_params: SetParams
) -> None:
    """Both say so, and keep nothing."""
    set_params(runtime={"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"})
    other = machine(prepared)
    set_params(train={"seed": 7})
    with stage(prepared) as one, stage(other) as two:
        for run in (one, two):
            _, said = run.communicate(timeout=LONG)
            assert run.returncode == 1
            assert "train different things" in said
    assert not Path("models/classifier").exists()


@pytest.mark.slow
def test_what_fails_in_a_process_fails_the_stage_once(
    prepared: Path, set_params: SetParams
) -> None:
    """Without another try: it would be the same."""
    set_params(train={"finetune": {"lr": 1e30}}, runtime={"processes": 2})

    with pytest.raises(MeadowError, match=r"not finite at train\.finetune\.lr 1e"):
        train()


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(prepared: Path, set_params: SetParams) -> None:
    """With the status and words of a stage that was stopped, and no traceback."""
    set_params(train={"finetune": {"epochs": 500}}, runtime={"processes": 2})
    with stage(prepared) as run:
        epochs_of(prepared, run)
        children = workers(run)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=LONG)

    assert run.returncode == 130
    assert "Traceback" not in said
    assert not psutil.wait_procs(children, timeout=LONG)[1]


def test_several_machines_need_a_place_to_meet(project: Path, set_params: SetParams) -> None:
    """And it must be there."""
    p = params.load()
    runtime = p.runtime.model_copy(update={"nodes": 2})

    with pytest.raises(MeadowError, match=r"runtime\.rendezvous is empty"):
        processes.train(p.train, None, project / "c.pt", CPU, runtime, print)
    nowhere = runtime.model_copy(update={"rendezvous": "no-such-machine.invalid:29400"})
    with pytest.raises(MeadowError, match=r"no-such-machine\.invalid:29400 cannot be reached"):
        processes.train(p.train, None, project / "c.pt", CPU, nowhere, print)

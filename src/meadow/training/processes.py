"""Fine-tuning by several processes, on this machine or several, by PyTorch's elastic launcher.

Each machine runs the stage, and each has the whole result at the end. The stage starts the
processes; they train and write checkpoints. Where a process or a machine ends, the others start
again from the last epoch.
"""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event

import psutil
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from meadow.errors import MeadowError
from meadow.params import Runtime, Train
from meadow.pipeline import manifest
from meadow.pipeline.cpu import cores
from meadow.training import finetune, starting
from meadow.training.device import Device
from meadow.training.starting import Head
from meadow.training.weights import Weights

RESTARTS = 5  # of the processes of a machine, before it gives up
LATE = 15  # seconds that the first machine waits for the others; who comes later restarts an epoch
SILENT = timedelta(minutes=5)  # that a process waits for another, which is as fast
POLL = 0.5  # seconds
HOW_TO_GO_ON = "What was learned up to the last epoch is kept: run it again to go on."


def train(
    p: Train,
    head: Head | None,
    checkpoint: Path,
    device: Device,
    runtime: Runtime,
    log: finetune.Log,
) -> None:
    """Train as `finetune.finetune` does; at the end the checkpoint holds all epochs.

    Args:
        p: section `train`.
        head: that training starts from, if there are weights.
        checkpoint: of the run.
        device: what each process computes on; a GPU is one process's.
        runtime: how many processes, where.
        log: gets the figures of each epoch, as they come.

    Raises:
        MeadowError: there are fewer GPUs than processes; several machines have no rendezvous, or
            train different things; a process fails again and again; the machine of the rendezvous
            cannot be reached.

    """
    if runtime.nodes > 1 and not runtime.rendezvous:
        raise MeadowError(
            f"runtime.nodes is {runtime.nodes}, and runtime.rendezvous is empty. Set it to"
            " host:port of one of the machines, the same on all."
        )
    if device.gpu and (device.kind != "cuda" or runtime.processes > torch.cuda.device_count()):
        raise MeadowError(
            f"runtime.processes: {runtime.processes} on {device.kind}, where one of"
            f" {torch.accelerator.device_count()} GPUs is each process's; set it to that number."
        )
    here = _address(runtime.rendezvous) if runtime.rendezvous else "127.0.0.1"
    # Its machines share a store that those that come in a later round are not told of.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    threads = max(1, cores(runtime.workers) // runtime.processes)
    with tempfile.TemporaryDirectory() as logs, _logged(checkpoint, log), _signals():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=runtime.nodes,
            nproc_per_node=runtime.processes,
            run_id="meadow",
            rdzv_backend="c10d",
            rdzv_endpoint=runtime.rendezvous or "127.0.0.1:0",
            rdzv_configs={"last_call_timeout": LATE},
            local_addr=here,
            max_restarts=RESTARTS,
            logs_specs=DefaultLogsSpecs(logs),
        )
        try:
            errors = elastic_launch(config, _worker)(p, head, checkpoint, device, threads, here)
        except ChildFailedError as failed:
            raise MeadowError(
                f"fine-tuning by runtime.processes {runtime.processes} has failed {RESTARTS + 1}"
                f" times; above is why: {failed.get_first_failure()[1].message}. {HOW_TO_GO_ON}"
            ) from None
        except RendezvousError as lost:
            raise MeadowError(
                f"the machine of runtime.rendezvous {runtime.rendezvous} does not answer: {lost}"
                f" It must run the stage, too. {HOW_TO_GO_ON}"
            ) from None
    if error := next(filter(None, errors.values()), None):
        raise MeadowError(error)


def _worker(
    p: Train, head: Head | None, checkpoint: Path, device: Device, threads: int, here: str
) -> str | None:
    """Train in one of the processes; return what the user can mend, if anything."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # also sent to it when the stage is killed
    addresses = psutil.net_if_addrs().items()
    (interface,) = [name for name, known in addresses if here in (each.address for each in known)]
    # else that of the machine's name, if it has any
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface
    if device.gpu:  # before CUDA looks: the one GPU that threads see is this process's
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(64)))
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.split(",")[int(os.environ["LOCAL_RANK"])]
        Device.of(p)  # sets CUDA up
    dist.init_process_group("nccl" if device.gpu else "gloo", timeout=SILENT)
    try:
        ready, weights = manifest.load(), Weights.of(p.weights, p.arch)
        _, network = starting.network(p, ready, weights, head)
        finetune.finetune(
            network, ready.photos("train"), ready.photos("val"), p.finetune, p.seed,
            checkpoint=checkpoint, threads=threads, log=lambda _: None, device=device,
        )  # fmt: skip
        dist.barrier()  # whoever leaves before closes connections that others still read from
    except MeadowError as error:
        return str(error)
    finally:
        dist.destroy_process_group()
    return None


def _address(rendezvous: str) -> str:
    """Return the address by which this machine reaches the others; nothing is sent."""
    host, _, port = rendezvous.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            address: str = probe.getsockname()[0]
            return address
    except OSError as error:
        raise MeadowError(
            f"runtime.rendezvous: {rendezvous} cannot be reached: {error}. Give host:port of one of"
            " the machines, by a name that all of them know."
        ) from None


@contextmanager
def _logged(checkpoint: Path, log: finetune.Log) -> Iterator[None]:
    """Log the epochs that the checkpoint holds, as they come."""
    done, seen, count = Event(), 0, 0

    def look() -> None:
        nonlocal seen, count
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != seen:
            seen = checkpoint.stat().st_mtime_ns
            history = torch.load(checkpoint, "cpu", weights_only=True, mmap=True)["history"]
            for figures in history[count:]:
                log(figures)
            count = len(history)

    def watch() -> None:
        while not done.wait(POLL):
            look()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            done.set()
        watching.result()
    look()


@contextmanager
def _signals() -> Iterator[None]:
    """Let signals do what they did before: the launcher makes exceptions of them."""
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in names}
    sent = None
    try:
        yield
    except SignalException as stopped:
        sent = stopped.sigval
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if sent:
        signal.raise_signal(sent)

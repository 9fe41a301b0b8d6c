"""The service under load, against what people deploy and against a bare loop: real photos, 2 cores.

Run in a project with the real photos and a trained probe. Each piece alone takes under two minutes
on 2 cores, and writes its table into `bench/RESULTS.md`, with the commit:

    python bench/service.py rates       requests/s at 8 and 32 connections, CPU a request
    python bench/service.py heavy       the same with a network five times as heavy
    python bench/service.py large       photos of 12 megapixels
    python bench/service.py lone        latency of one request at a time
    python bench/service.py overload    twice the load it can carry, open loop
    python bench/service.py start       seconds to ready, memory
    python bench/service.py batch       16 photos in one request
    python bench/service.py folder      `meadow predict` over a folder, against vegeta and the loop
    python bench/service.py soak 1800   growth at 70 % of the load it can carry, for so many seconds

`--note` says on what machine, for the table. The load comes from vegeta, which Go builds once, and
takes its share of the same cores: its CPU a request is stated. CPU seconds a request (user and
system, of the server's processes) do not depend on it. The bare loop runs without it.
Rounds alternate between the servers, so that a change of the machine's speed meets all. Both rivals
run as one process and as two. The service is the code of this checkout, with its default settings.
"""

import argparse
import base64
import csv
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, chdir, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
from numpy.typing import NDArray
from packages import installed
from PIL import Image

from meadow.inference.classifier import FOLDER, NETWORK, Classifier
from meadow.inference.onnx_session import digest
from meadow.pipeline import image
from meadow.serving import server
from meadow.serving.parent import end_with_parent
from meadow.storage import go_tools

RIVALS = Path(__file__).parent / "rivals"
RESULTS = Path(__file__).with_name("RESULTS.md")
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Server:
    """A running server; `process` is the first of its processes."""

    url: str
    process: psutil.Process

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds so far, user and system."""
        times = [each.cpu_times() for each in self._all()]
        return float(sum(each.user + each.system for each in times))

    def files(self) -> int:
        """Open file descriptors, when the connections of the load are gone."""
        time.sleep(6)  # uvicorn keeps an idle connection for 5 s
        return sum(each.num_fds() for each in self._all())

    def rss(self) -> float:
        """Resident memory in MB; pages that processes share are counted in each."""
        return float(sum(each.memory_info().rss for each in self._all())) / 1e6


@dataclass(frozen=True)
class Load:
    """What one run of the load generator met.

    Attributes:
        start: of each request, seconds from the first, (n,).
        latency: seconds, (n,).
        status: 0 where there was no answer, (n,).
        cpu: of the generator, seconds.

    """

    start: NDArray[np.float64]
    latency: NDArray[np.float64]
    status: NDArray[np.int64]
    cpu: float

    @property
    def rate(self) -> float:
        """Requests with answer 200 a second."""
        return float((self.status == 200).sum() / (self.start + self.latency).max())


@contextmanager
def meadow(**settings: str) -> Iterator[Server]:
    """Serve the code of this checkout."""
    before = set(psutil.Process().children())
    with server.serving("meadow.service:PhotoClassifier", **settings) as url:
        (process,) = set(psutil.Process().children()) - before
        yield Server(url, process)


@contextmanager
def rival(app: str, workers: int) -> Iterator[Server]:
    """Serve one of bench/rivals with uvicorn, and wait until it answers."""
    folder = installed(RIVALS / "requirements.txt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", f"{app}:app", "--app-dir", str(RIVALS),
         "--port", port, "--workers", str(workers), "--no-access-log"],
        env={
            **os.environ,
            "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": str(CORES // workers),  # of PyTorch
        },
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent,
    )  # fmt: skip
    server = Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
    try:
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{server.url}/openapi.json")
                break
            except httpx.TransportError:
                assert time.monotonic() < end, f"{app} does not start"
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


Start = Callable[[], AbstractContextManager[Server]]
OURS = "Meadow"
ONNX = {
    f"FastAPI + ONNX Runtime, processes: {n}": partial(rival, "onnx_runtime", n) for n in (1, 2)
}  # fmt: skip
TORCH = {f"FastAPI + PyTorch, processes: {n}": partial(rival, "torch_eager", n) for n in (1, 2)}
SERVERS: dict[str, Start] = {OURS: meadow, **ONNX, **TORCH}


def attack(
    server: Server, bodies: list[bytes], seconds: float, *, connections: int = 0, rate: int = 0
) -> Load:
    """Send photos as the multipart field `file`.

    Args:
        server: who gets them.
        bodies: the photos, in turn.
        seconds: for how long.
        connections: closed loop: so many, each asks again when it has its answer.
        rate: open loop: so many a second, whether or not they are answered.

    """
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'
    with tempfile.TemporaryDirectory() as temporary:
        targets, results = Path(temporary, "targets"), Path(temporary, "results")
        with targets.open("w") as file:
            for body in bodies:
                target = {
                    "method": "POST",
                    "url": f"{server.url}/predict",
                    "header": {"Content-Type": ["multipart/form-data; boundary=b"]},
                    "body": base64.b64encode(start + body + b"\r\n--b--\r\n").decode(),
                }
                file.write(json.dumps(target) + "\n")
        command = [str(go_tools.binary("vegeta")), "attack", "-format=json", f"-targets={targets}",
                   f"-duration={seconds}s", f"-rate={rate}", "-max-body=0", "-timeout=10s",
                   f"-output={results}"]  # fmt: skip
        if connections:
            command += [f"-workers={connections}", f"-max-workers={connections}"]
        before = _children()
        subprocess.run(command, check=True)
        spent = _children() - before
        encode = [str(go_tools.binary("vegeta")), "encode", "-to=csv", str(results)]
        text = subprocess.run(encode, check=True, capture_output=True, text=True).stdout
    rows = sorted((int(row[0]), int(row[2]), int(row[1])) for row in csv.reader(io.StringIO(text)))
    sent, latency, status = np.array(rows).T
    return Load((sent - sent[0]) / 1e9, latency / 1e9, status, spent)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Loop:
    """The limit: one bare Python process a core, each with decode and network and nothing else."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.pool = multiprocessing.get_context("spawn").Pool(CORES, _load, (bodies,))
        self.pool.map(_ready, range(CORES), chunksize=1)

    def rate(self, seconds: float, full: bool = False) -> tuple[float, float]:
        """Return photos a second on all cores, and CPU seconds a photo."""
        runs = self.pool.map(_loop, [(seconds, full)] * CORES, chunksize=1)
        counts, walls, cpus = zip(*runs, strict=True)
        return sum(counts) / max(walls), sum(cpus) / sum(counts)

    def latency(self, seconds: float) -> float:
        """Return the median seconds of a photo, one at a time on one core."""
        return float(np.median(self.pool.apply(_lone, (seconds,))))

    def close(self) -> None:
        """End its processes."""
        self.pool.terminate()
        self.pool.join()


_held: dict[str, Any] = {}  # of a process of the loop


def _load(bodies: list[bytes]) -> None:
    _held.update(bodies=bodies, classifier=Classifier.load())


def _ready(_: int) -> None:
    _lone(1)


def _loop(task: tuple[float, bool]) -> tuple[int, float, float]:
    seconds, full = task
    answer = full_decode if full else Classifier.predict
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        answer(_held["classifier"], _held["bodies"][count % len(_held["bodies"])])
        count += 1
    return count, time.perf_counter() - started, time.process_time() - cpu


def _lone(seconds: float) -> list[float]:
    each: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        _held["classifier"].predict(_held["bodies"][len(each) % len(_held["bodies"])])
        each.append(time.perf_counter() - started)
    return each


def full_decode(classifier: Classifier, body: bytes) -> NDArray[np.float64]:
    """Answer as everybody does: all pixels are decoded, then resized."""
    pixels = classifier.preprocessing.resized(image.decode(body))
    found: NDArray[np.float64] = classifier.classify(pixels[None])[0][0]
    return found


def compare(
    bodies: list[bytes],
    starts: dict[str, Start],
    connections: Sequence[int] = (8, 32),
    rounds: int = 2,
    seconds: float = 4,
    loops: tuple[str, ...] = ("bare loop",),
) -> str:
    """Return a table of requests a second; the second of the loops decodes in full."""
    limits: dict[str, list[tuple[float, float]]] = {}
    runs: dict[tuple[str, int], list[tuple[float, float, float, float]]] = {}
    with ExitStack() as stack:
        loop = Loop(bodies)
        stack.callback(loop.close)
        servers = {name: stack.enter_context(start()) for name, start in starts.items()}
        for server in servers.values():
            attack(server, bodies, 2, connections=8)
        for _ in range(rounds):
            for full, name in enumerate(loops):
                limits.setdefault(name, []).append(loop.rate(seconds, bool(full)))
            for name, server in servers.items():
                for many in connections:
                    cpu = server.cpu()
                    load = attack(server, bodies, seconds, connections=many)
                    n = (load.status == 200).sum()  # an overloaded rival lets some wait too long
                    assert name != OURS or n == len(load.status), set(load.status)
                    runs.setdefault((name, many), []).append(
                        (
                            load.rate,
                            1e3 * (server.cpu() - cpu) / n,
                            1e3 * load.cpu / n,
                            1e3 * float(np.percentile(load.latency, 99)),
                        )
                    )
    rate, bare = np.median(limits[loops[0]], axis=0)
    rows = [
        "| | connections | requests/s | of the loop | CPU ms | over the loop's"
        " | generator's | p99 ms |"
    ]
    rows.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, values in limits.items():
        r, c = np.median(values, axis=0)
        rows.append(
            f"| {name}, {CORES} processes | | {r:.1f} | {r / rate:.0%} | {1e3 * c:.2f} | | | |"
        )
    for (name, many), measured in runs.items():
        r, c, g, p = np.median(measured, axis=0)
        over = c - 1e3 * bare
        rows.append(
            f"| {name} | {many} | {r:.1f} | {r / rate:.0%} | {c:.2f} | {over:.2f} | {g:.2f}"
            f" | {p:.0f} |"
        )
    return "\n".join(rows)


def rates(bodies: list[bytes]) -> str:
    """Measure requests a second of all servers."""
    return compare(bodies, SERVERS, seconds=2.5)


def heavy(bodies: list[bytes]) -> str:
    """Do so with five copies of the network, whose mean is the same answer."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, FOLDER)
        shutil.copytree(FOLDER, folder)
        repeated(folder, 5)
        with chdir(temporary):
            return compare(bodies, {OURS: meadow, **ONNX})


def repeated(folder: Path, times: int) -> None:
    """Make a model's network that many copies side by side, whose outputs are averaged."""
    one = onnx.load(folder / NETWORK)
    outputs = [output.name for output in one.graph.output]
    whole = onnx.ModelProto()
    whole.CopyFrom(one)
    del whole.graph.node[:], whole.graph.initializer[:], whole.graph.value_info[:]
    for i in range(times):
        part = onnx.compose.add_prefix_graph(one.graph, f"{i}.", rename_inputs=False)
        whole.graph.node.extend(part.node)
        whole.graph.initializer.extend(part.initializer)
    whole.graph.node.extend(
        onnx.helper.make_node("Mean", [f"{i}.{name}" for i in range(times)], [name])
        for name in outputs
    )
    onnx.save(whole, folder / NETWORK)
    about = json.loads((folder / "model.json").read_text("utf-8"))
    about["sha256"] = digest(folder / NETWORK)
    (folder / "model.json").write_text(json.dumps(about), "utf-8")


def large(bodies: list[bytes]) -> str:
    """Do so with photos of 4000 x 3000 pixels; say what decoding in reduced size changes."""
    grown = [enlarged(body, i) for i, body in enumerate(bodies[:24])]
    classifier = Classifier.load()
    difference = max(
        np.abs(classifier.predict(body).probabilities - full_decode(classifier, body)).max()
        for body in grown
    )
    loops = ("bare loop, reduced decoding", "bare loop, full decoding")
    table = compare(grown, {OURS: meadow, **ONNX}, connections=(8,), rounds=3, loops=loops)
    size = np.mean([len(body) for body in grown]) / 1e6
    return (
        f"{table}\n\nA file has {size:.1f} MB. Largest difference of a probability between reduced"
        f" and full decoding: {difference:.4f}"
    )


def lone(bodies: list[bytes], rounds: int = 5, seconds: float = 2) -> str:
    """Measure the latency of a request that meets an idle server."""
    medians: dict[str, list[float]] = {}
    with ExitStack() as stack:
        loop = Loop(bodies)
        stack.callback(loop.close)
        servers = {name: stack.enter_context(start()) for name, start in SERVERS.items()}
        for _ in range(rounds):
            medians.setdefault("bare loop", []).append(loop.latency(seconds))
            for name, server in servers.items():
                load = attack(server, bodies, seconds, connections=1)
                medians.setdefault(name, []).append(float(np.median(load.latency)))
    floor = np.median(medians["bare loop"])
    rows = ["| | median ms | over the loop |", "|---|--:|--:|"]
    for name, values in medians.items():
        median = np.median(values)
        rows.append(f"| {name} | {1e3 * median:.1f} | {1e3 * (median - floor):.1f} |")
    return "\n".join(rows)


def enlarged(body: bytes, seed: int) -> bytes:
    """Return a photo at 4000 x 3000 with the grain of a sensor, for a file of a real size."""
    photo = image.decode(body).resize((4000, 3000), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(seed).normal(0, 4, (3000, 4000, 1))
    pixels = np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return file.getvalue()


def overload(bodies: list[bytes], seconds: float = 10) -> str:
    """Measure who gets what at twice the load that a server can carry."""
    rows = [
        "| | capacity/s before, after | sent/s | answered/s | of the capacity | their p99 ms"
        " | refused/s | their p99 ms | other answers | MB before, at most |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, start in ({OURS: meadow} | ONNX).items():
        with start() as server:
            attack(server, bodies, 2, connections=8)
            capacity = [attack(server, bodies, 4, connections=32).rate]
            before = server.rss()
            with sampled(server.rss) as memory:
                load = attack(server, bodies, seconds, rate=int(2 * capacity[0]))
            capacity.append(attack(server, bodies, 4, connections=32).rate)
        served, shed = load.status == 200, np.isin(load.status, (429, 503))
        ended = load.start + load.latency
        goodput = (served & (ended > 1) & (ended <= seconds)).sum() / (seconds - 1)
        p99 = [
            f"{1e3 * np.percentile(load.latency[which], 99):.0f}" if which.any() else ""
            for which in (served, shed)
        ]
        rows.append(
            f"| {name} | {capacity[0]:.0f}, {capacity[1]:.0f} | {len(load.status) / seconds:.0f}"
            f" | {goodput:.0f} | {goodput / np.mean(capacity):.0%} | {p99[0]}"
            f" | {shed.sum() / seconds:.0f} | {p99[1]}"
            f" | {(~served & ~shed).sum()} | {before:.0f}, {max(memory):.0f} |"
        )
    return "\n".join(rows)


def start(bodies: list[bytes], rounds: int = 3) -> str:
    """Measure seconds to ready, and memory."""
    rows = ["| | ready, s | resident, MB | after some load |", "|---|--:|--:|--:|"]
    for name, start in SERVERS.items():
        measured = []
        for _ in range(rounds):
            started = time.perf_counter()
            with start() as server:
                ready, empty = time.perf_counter() - started, server.rss()
                attack(server, bodies, 3, connections=32)
                measured.append((ready, empty, server.rss()))
        ready, empty, used = np.median(measured, axis=0)
        rows.append(f"| {name} | {ready:.1f} | {empty:.0f} | {used:.0f} |")
    return "\n".join(rows)


def batch(bodies: list[bytes], rounds: int = 5, count: int = 16) -> str:
    """Measure how long one client waits for a batch, and the bare loop for as many."""
    files = [("files", ("x.jpg", body)) for body in bodies]
    with ExitStack() as stack:
        server = stack.enter_context(meadow())
        client = stack.enter_context(httpx.Client(base_url=server.url, timeout=60))
        loop = Loop(bodies)
        stack.callback(loop.close)
        bare, asked = [], []
        for _ in range(rounds):
            bare.append(count / loop.rate(2)[0])
            for first in range(0, len(files) - count, 2 * count):
                started = time.perf_counter()
                answer = client.post("/predict/batch", files=files[first : first + count])
                asked.append(time.perf_counter() - started)
                assert len(answer.raise_for_status().json()["predictions"]) == count
    ours, theirs = 1e3 * np.median(asked), 1e3 * np.median(bare)
    return (
        f"A batch of {count} photos in one request takes {ours:.0f} ms, the bare loop"
        f" {theirs:.0f} ms for as many: {ours / theirs:.2f}."
    )


def folder(bodies: list[bytes], rounds: int = 3, times: int = 4) -> str:
    """Measure photos a second of `meadow predict`, its start included."""
    command = [sys.executable, "-c", "from meadow.cli import main; main()", "predict", "--json"]
    photos = ["data/raw"] * times
    speeds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(meadow())
        loop = Loop(bodies)
        stack.callback(loop.close)
        for _ in range(rounds):
            speeds.setdefault("bare loop", []).append(loop.rate(4)[0])
            load = attack(server, bodies, 4, connections=8)
            speeds.setdefault("vegeta, 8 connections", []).append(load.rate)
            for name, options in (("--url", ["--url", server.url]), ("in the workspace", [])):
                started = time.perf_counter()
                done = subprocess.run(
                    [*command, *options, *photos], capture_output=True, check=True
                )
                seconds = time.perf_counter() - started
                count = len(done.stdout.splitlines())
                speeds.setdefault(f"`meadow predict` {name}", []).append(count / seconds)
    rows = [f"| {count} photos | photos/s |", "|---|--:|"]
    rows += [f"| {name} | {np.median(values):.0f} |" for name, values in speeds.items()]
    return "\n".join(rows)


def soak(bodies: list[bytes], seconds: float = 60) -> str:
    """Measure how memory and file descriptors grow at 70 % of what can be carried.

    Raises:
        SystemExit: memory grew by more than 1 % since the second tenth of the time, or what is open
            or counted by one; an answer was neither the photo's nor that the queue is full.

    """
    with meadow() as server:
        rate = int(0.7 * attack(server, bodies, 5, connections=32).rate)
        attack(server, bodies, 20, rate=rate)  # all that is made once has been made
        before = server.files(), _series(server)
        with sampled(server.rss) as memory:
            load = attack(server, bodies, seconds, rate=rate)
        after = server.files(), _series(server)
    tenths = [float(np.median(part)) for part in np.array_split(memory, 10)]
    p50, p99 = 1e3 * np.percentile(load.latency, (50, 99))
    answers = zip(*np.unique(load.status, return_counts=True), strict=True)
    text = (
        f"{rate}/s for {seconds:.0f} s: {len(load.status)} requests, by status"
        f" {', '.join(f'{status}: {count}' for status, count in answers)};"
        f" p50 {p50:.0f} ms, p99 {p99:.0f} ms. Memory by tenths of the time:"
        f" {', '.join(f'{median:.0f}' for median in tenths)} MB. Open files and lines of"
        f" `/metrics`: {before} before, {after} after."
    )
    if tenths[-1] > 1.01 * tenths[1] or after != before:
        raise SystemExit(f"it grew\n{text}")
    if not {*load.status.tolist()} <= {200, 429}:
        raise SystemExit(f"not every request was answered or refused\n{text}")
    return text


def _series(server: Server) -> int:
    return len(httpx.get(f"{server.url}/metrics").text.splitlines())


@contextmanager
def sampled(measure: Callable[[], float]) -> Iterator[list[float]]:
    """Measure every half second meanwhile."""
    values, stop = [measure()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            values.append(measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield values
    finally:
        stop.set()
        thread.join()


PIECES = (rates, heavy, large, lone, overload, start, batch, folder, soak)


def write(piece: str, text: str, note: str) -> None:
    """Put a piece's text and the commit between the two comments that RESULTS.md has for it."""

    def git(*command: str) -> str:
        line = ["git", "-C", str(RIVALS), *command]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    if git("status", "--porcelain", ":(top,exclude)bench/RESULTS.md"):
        commit += ", changed"
    begin, end = f"<!-- service.py {piece} -->\n", f"<!-- end of {piece} -->"
    before, _, rest = RESULTS.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    mark = f"{begin}{text}\n\n({', '.join(part for part in (commit, note) if part)})\n{end}"
    RESULTS.write_text(before + mark + after, "utf-8")


def main() -> None:
    """Run one piece."""
    pieces = {piece.__name__: piece for piece in PIECES}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("piece", choices=pieces)
    parser.add_argument("seconds", nargs="?", type=float, help="of overload and soak")
    parser.add_argument("--note", default="", help="what else the machine did")
    chosen = parser.parse_args()
    files = sorted(Path("data/raw").glob("*/*"))
    random.Random(0).shuffle(files)
    bodies = [file.read_bytes() for file in files]
    extra = {"seconds": chosen.seconds} if chosen.seconds else {}
    text = pieces[chosen.piece](bodies, **extra)
    print(text)
    write(chosen.piece, text, chosen.note)


if __name__ == "__main__":
    main()

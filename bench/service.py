"""The service under load, against what people deploy and against a bare loop: real photos, 2 cores.

Run in a project with the real photos, the probe recipe and a built Bento; each piece alone is
under two minutes on 2 cores.

    python bench/service.py rates       requests/s at 8 and 32 connections, CPU a request
    python bench/service.py lone        latency of one request at a time
    python bench/service.py large       photos of 12 megapixels
    python bench/service.py overload    twice the load it can carry, open loop
    python bench/service.py start       seconds to ready, memory
    python bench/service.py batch       16 photos in one request
    python bench/service.py folder      `meadow predict` over a folder, against vegeta and the loop
    python bench/service.py soak 1800   growth at 70 % of the load it can carry, for so many seconds

The load comes from vegeta, which Go builds once, and takes its share of the same cores: its
CPU a request is stated, and it is the same for all servers. CPU seconds a request (user and system,
of the server's processes) do not depend on it. The bare loop runs without it.
Rounds alternate between the servers, so that a change of the machine's speed meets all.
"""

import argparse
import base64
import csv
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from meadow.inference.classifier import Classifier
from meadow.pipeline import atomic, cache, image
from meadow.serving import server
from meadow.storage import go_tools

RIVALS = Path(__file__).parent / "rivals"
OURS, TORCH, ONNX = "Meadow", "FastAPI + PyTorch", "FastAPI + ONNX Runtime"
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Server:
    """A running server; `process` is the first of its processes."""

    name: str
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
        yield Server(OURS, url, process)


@contextmanager
def rival(name: str, app: str, workers: int = 1) -> Iterator[Server]:
    """Serve one of bench/rivals with uvicorn, and wait until it answers a photo."""
    needs = RIVALS / "requirements.txt"
    folder = cache.folder("rivals") / hashlib.sha256(needs.read_bytes()).hexdigest()[:12]
    if not folder.exists():
        with atomic.whole(folder) as part:
            command = ["uv", "pip", "install", "--no-deps", "--target", str(part)]
            subprocess.run([*command, "-r", str(needs)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", f"{app}:app", "--app-dir", str(RIVALS),
         "--port", port, "--workers", str(workers), "--no-access-log"],
        env={**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    server = Server(name, f"http://127.0.0.1:{port}", psutil.Process(process.pid))
    try:
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{server.url}/openapi.json")
                break
            except httpx.TransportError:
                assert time.monotonic() < end, f"{name} does not start"
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


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
                   f"-duration={seconds}s", f"-rate={rate}", "-max-body=0",
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


def rates(bodies: list[bytes], rounds: int = 2, seconds: float = 4) -> None:
    """Print requests a second of all servers."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(meadow()),
            stack.enter_context(rival(TORCH, "torch_eager")),
            *(
                stack.enter_context(rival(f"{ONNX}, workers: {n}", "onnx_runtime", n))
                for n in (1, 2)
            ),
        ]
        loop = Loop(bodies)
        stack.callback(loop.close)
        for server in servers:
            attack(server, bodies, 2, connections=8)
        found: dict[tuple[str, int], list[tuple[float, float, float, float]]] = {}
        limit = []
        for _ in range(rounds):
            limit.append(loop.rate(seconds))
            for server in servers:
                for connections in (8, 32):
                    cpu = server.cpu()
                    load = attack(server, bodies, seconds, connections=connections)
                    n = (load.status == 200).sum()  # an overloaded rival lets some wait too long
                    assert server.name != OURS or n == len(load.status), set(load.status)
                    found.setdefault((server.name, connections), []).append(
                        (
                            load.rate,
                            1e3 * (server.cpu() - cpu) / n,
                            1e3 * load.cpu / n,
                            1e3 * float(np.percentile(load.latency, 99)),
                        )
                    )
    rate, cpu = np.median(limit, axis=0)
    print("\n| | connections | requests/s | of the loop | CPU ms | generator's | p99 ms |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    print(f"| bare loop, {CORES} processes | | {rate:.0f} | 100 % | {1e3 * cpu:.2f} | | |")
    for (name, connections), values in found.items():
        r, c, g, p = np.median(values, axis=0)
        print(
            f"| {name} | {connections} | {r:.0f} | {r / rate:.0%} | {c:.2f} | {g:.2f} | {p:.0f} |"
        )


def lone(bodies: list[bytes], rounds: int = 5, seconds: float = 3) -> None:
    """Print the latency of a request that meets an idle server."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(meadow()),
            stack.enter_context(rival(TORCH, "torch_eager")),
            stack.enter_context(rival(ONNX, "onnx_runtime")),
        ]
        loop = Loop(bodies)
        stack.callback(loop.close)
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            found.setdefault("bare loop", []).append(loop.latency(seconds))
            for server in servers:
                load = attack(server, bodies, seconds, connections=1)
                found.setdefault(server.name, []).append(float(np.median(load.latency)))
    floor = np.median(found["bare loop"])
    print("\n| | median ms | over the loop |\n|---|--:|--:|")
    for name, values in found.items():
        each = np.median(values)
        print(f"| {name} | {1e3 * each:.1f} | {1e3 * (each - floor):.1f} |")


def large(bodies: list[bytes], rounds: int = 3, seconds: float = 5) -> None:
    """Print photos a second at 4000 x 3000 pixels, and what the scaled decode changes."""
    grown = [enlarged(body, i) for i, body in enumerate(bodies[:24])]
    classifier = Classifier.load()
    difference = [
        np.abs(classifier.predict(body).probabilities - full_decode(classifier, body)).max()
        for body in grown
    ]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(meadow()),
            stack.enter_context(rival(f"{ONNX}, full decode", "onnx_runtime", 2)),
        ]
        loop = Loop(grown)
        stack.callback(loop.close)
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, full in (("bare loop", False), ("bare loop, full decode", True)):
                found.setdefault(name, []).append(loop.rate(seconds, full)[0])
            for server in servers:
                load = attack(server, grown, seconds, connections=8)
                found.setdefault(server.name, []).append(load.rate)
    print(f"\n12 megapixels, {np.mean([len(body) for body in grown]) / 1e6:.1f} MB a file")
    print("| | photos/s |\n|---|--:|")
    for name, values in found.items():
        print(f"| {name} | {np.median(values):.1f} |")
    print(f"\nlargest difference of a probability to full decode: {max(difference):.4f}")


def enlarged(body: bytes, seed: int) -> bytes:
    """Return a photo at 4000 x 3000 with the grain of a sensor, for a file of a real size."""
    photo = image.decode(body).resize((4000, 3000), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(seed).normal(0, 4, (3000, 4000, 1))
    pixels = np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return file.getvalue()


def overload(bodies: list[bytes], seconds: float = 60, objective: float = 0.25) -> None:
    """Print who gets what at twice the load that the service can carry."""
    with meadow() as server:
        attack(server, bodies, 2, connections=8)
        capacity = attack(server, bodies, 5, connections=32).rate
        normal = attack(server, bodies, 5, rate=int(capacity / 2)).latency
        before = server.rss()
        with sampled(server.rss) as memory:
            load = attack(server, bodies, seconds, rate=int(2 * capacity))
        after = attack(server, bodies, 10, rate=int(capacity / 2))
        late = after.start[(after.status != 200) | (after.latency > objective)]
        served, shed = load.status == 200, np.isin(load.status, (429, 503))
        print(f"\ncapacity {capacity:.0f}/s, sent {len(load.status) / seconds:.0f}/s")
        print(f"p99 at half the capacity: {1e3 * np.percentile(normal, 99):.0f} ms")
        for name, which in (("answered", served), ("429 or 503", shed)):
            part = 1e3 * load.latency[which] if which.any() else np.zeros(1)
            p50, p99 = np.percentile(part, (50, 99))
            print(
                f"{name}: {which.sum() / seconds:.0f}/s,"
                f" p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {part.max():.0f} ms"
            )
        other = sorted(set(load.status[~served & ~shed].tolist()))
        print(f"anything else: {(~served & ~shed).sum()} {other}")
        print(f"normal again after {late.max(initial=0):.1f} s")
        print(
            f"memory: {before:.0f} MB before, {max(memory):.0f} at most, {server.rss():.0f} after"
        )
        print(f"the generator took {load.cpu / seconds:.2f} of {CORES} cores")


def start(bodies: list[bytes], rounds: int = 5) -> None:
    """Print seconds to ready, and memory."""
    ready, empty, used = [], [], []
    for _ in range(rounds):
        started = time.perf_counter()
        with meadow() as server:
            ready.append(time.perf_counter() - started)
            empty.append(server.rss())
            attack(server, bodies, 3, connections=32)
            used.append(server.rss())
    print(f"\nready after {np.median(ready):.2f} s ({min(ready):.2f} to {max(ready):.2f})")
    print(f"resident: {np.median(empty):.0f} MB, after some load {np.median(used):.0f} MB")


def batch(bodies: list[bytes], rounds: int = 5, count: int = 16) -> None:
    """Print how long one client waits for a batch, and what the bare loop takes for as many."""
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
    print(
        f"\na batch of {count}: {ours:.0f} ms, the bare loop {theirs:.0f} ms: {ours / theirs:.2f}"
    )


def folder(bodies: list[bytes], rounds: int = 3, times: int = 4) -> None:
    """Print photos a second of `meadow predict`, its start included."""
    command = [sys.executable, "-c", "from meadow.cli import main; main()", "predict", "--json"]
    photos = ["data/raw"] * times
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(meadow())
        loop = Loop(bodies)
        stack.callback(loop.close)
        for _ in range(rounds):
            found.setdefault("bare loop", []).append(loop.rate(4)[0])
            load = attack(server, bodies, 4, connections=8)
            found.setdefault("vegeta, 8 connections", []).append(load.rate)
            for name, options in (("--url", ["--url", server.url]), ("here", [])):
                started = time.perf_counter()
                done = subprocess.run(
                    [*command, *options, *photos], capture_output=True, check=True
                )
                seconds = time.perf_counter() - started
                count = len(done.stdout.splitlines())
                found.setdefault(f"meadow predict {name}", []).append(count / seconds)
    print(f"\n{count} photos\n| | photos/s |\n|---|--:|")
    for name, values in found.items():
        print(f"| {name} | {np.median(values):.0f} |")


def soak(bodies: list[bytes], seconds: float = 60, rate: int = 0) -> None:
    """Print how memory and file descriptors grow, by default at 70 % of what can be carried.

    Raises:
        SystemExit: memory grew by more than 1 % since the second tenth of the time, or what is open
            or counted by one.

    """
    with meadow() as server:
        rate = rate or int(0.7 * attack(server, bodies, 5, connections=32).rate)
        attack(server, bodies, 20, rate=rate)  # all that is made once has been made
        _series(server)
        before = server.files(), _series(server)
        with sampled(server.rss) as memory:
            load = attack(server, bodies, seconds, rate=rate)
        after = server.files(), _series(server)
    tenths = [float(np.median(part)) for part in np.array_split(memory, 10)]
    p50, p99 = 1e3 * np.percentile(load.latency, (50, 99))
    print(f"\n{rate}/s for {seconds:.0f} s: {len(load.status)} requests")
    print(f"other than 200: {(load.status != 200).sum()}; p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print("memory by tenths of the time, MB:", *(f"{median:.1f}" for median in tenths))
    print(f"open files and lines of /metrics: {before} before, {after} after")
    if tenths[-1] > 1.01 * tenths[1] or after != before:
        raise SystemExit("it grew")


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


PIECES = (rates, lone, large, overload, start, batch, folder, soak)


def main() -> None:
    """Run one piece."""
    pieces = {each.__name__: each for each in PIECES}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("piece", choices=pieces)
    parser.add_argument("seconds", nargs="?", type=float, help="of overload and soak")
    parser.add_argument("--rate", type=int, help="of soak: requests a second")
    chosen = parser.parse_args()
    files = sorted(Path("data/raw").glob("*/*"))
    random.Random(0).shuffle(files)
    bodies = [file.read_bytes() for file in files]
    given = {"seconds": chosen.seconds, "rate": chosen.rate}
    extra = {name: value for name, value in given.items() if value is not None}
    pieces[chosen.piece](bodies, **extra)


if __name__ == "__main__":
    main()

"""Shards of features: none is read by half, and what is damaged is not read at all."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clones import attempt, copied, runner, surroundings
from ruamel.yaml import YAML
from servers import BUCKET, Server, meadow, point, small_project

from meadow.pipeline import manifest
from meadow.pipeline.manifest import Row
from meadow.storage import shared_features
from meadow.storage.s3_remote import Remote
from meadow.training import feature_table

NETWORK = "0" * 64


class Store:
    """A remote of objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def sizes(self, below: str) -> dict[str, int]:
        return {name: len(data) for name, data in self.objects.items() if name.startswith(below)}

    def pieces(self, name: str) -> Iterator[bytes]:
        yield self.objects[name]

    def put(self, name: str, content: bytes) -> None:
        self.objects[name] = content

    def forget(self, names: list[str]) -> None:
        for name in names:
            del self.objects[name]


@pytest.fixture
def store() -> Any:
    return Store()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a set of 6 photos, of which "1" to "5" are learned from, and shards of two photos."""
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path))
    monkeypatch.setattr(shared_features, "ROWS", 2)
    rows = [*train("12345"), Row("6", "a", "test", "", "", "6", 1, 1, 1)]
    prepared(monkeypatch, rows)


def train(keys: Iterable[str]) -> list[Row]:
    return [Row(key, "a", "train", "", "", key, 1, 1, 1) for key in keys]


def prepared(monkeypatch: pytest.MonkeyPatch, rows: list[Row]) -> None:
    ready = manifest.Prepared(["a"], None, rows)  # type: ignore[arg-type]
    monkeypatch.setattr(manifest, "load", lambda: ready)


def vectors(key: str) -> tuple[bytes, bytes]:
    """Return features and texture of a photo, numbers that a text would round."""
    numbers = np.random.default_rng(int(key)).normal(size=5).astype(np.float32)
    return numbers[:3].tobytes(), numbers[3:].tobytes()


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, keys: Iterable[str] = "") -> Path:
    """Go to another machine, which knows some photos; return its table."""
    monkeypatch.setenv("MEADOW_CACHE", str(folder))
    file = feature_table.path(NETWORK)
    with feature_table.opened(file) as table, table:
        for key in keys:
            feature_table.add(table, key, *vectors(key))
    return file


def content(file: Path) -> dict[str, tuple[bytes, bytes]]:
    with sqlite3.connect(file) as table:
        return {key: (one, two) for key, one, two in table.execute("SELECT * FROM features")}


def fetch(store: Any, file: Path) -> tuple[int, list[str]]:
    with feature_table.opened(file) as table:
        return shared_features.fetch(store, file.stem, table)


def expected(keys: Iterable[str]) -> dict[str, tuple[bytes, bytes]]:
    return {key: vectors(key) for key in keys}


def test_another_machine_has_the_same_bytes(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the photos that are learned from; a second time nothing moves."""
    machine(monkeypatch, tmp_path / "one", "123456")
    shared_features.push(store)
    first = dict(store.objects)
    shared_features.push(store)
    other = machine(monkeypatch, tmp_path / "two")

    assert fetch(store, other) == (5, [])
    assert content(other) == expected("12345")
    assert fetch(store, other) == (0, [])
    assert store.objects == first
    assert len(first) == 3


def test_a_network_that_knows_a_part_of_the_photos_is_not_shared(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has trained with it on this set."""
    machine(monkeypatch, tmp_path / "one", "124")
    shared_features.push(store)

    assert not store.objects


def test_new_photos_are_new_shards(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others have shared meanwhile is not pushed again."""
    ready = manifest.load()
    machine(monkeypatch, tmp_path / "one", "123")
    monkeypatch.setattr(manifest, "load", lambda: manifest.Prepared(["a"], None, ready.rows[:3]))  # type: ignore[arg-type]
    shared_features.push(store)
    before = set(store.objects)
    machine(monkeypatch, tmp_path / "two", "12345")
    monkeypatch.setattr(manifest, "load", lambda: ready)
    shared_features.push(store)
    other = machine(monkeypatch, tmp_path / "three")
    fetch(store, other)

    assert len(set(store.objects) - before) == 1
    assert before < set(store.objects)
    assert content(other) == expected("12345")


@pytest.mark.parametrize("damage", ["altered", "cut", "swapped"])
def test_a_damaged_shard_is_not_read_and_mended_by_the_next_push(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Another whole shard under its name is damage too."""
    machine(monkeypatch, tmp_path / "one", "12345")
    shared_features.push(store)
    whole = dict(store.objects)
    name, another = sorted(store.objects)[:2]
    data = store.objects[name]
    store.objects[name] = {
        "altered": data[:100] + bytes([data[100] ^ 1]) + data[101:],
        "cut": data[:-10],
        "swapped": store.objects[another],
    }[damage]
    other = machine(monkeypatch, tmp_path / "two")
    count, damaged = fetch(store, other)
    assert damaged == [name]
    assert content(other).items() <= expected("12345").items()
    assert len(content(other)) == count < 5

    machine(monkeypatch, tmp_path / "three", "12345")
    shared_features.push(store)
    last = machine(monkeypatch, tmp_path / "four")
    assert fetch(store, last) == (5, [])
    assert content(last) == expected("12345")
    assert {len(data) for data in store.objects.values()} <= {len(d) for d in whole.values()}


def test_a_fetch_that_is_killed_has_taken_whole_shards(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one takes the others."""
    machine(monkeypatch, tmp_path / "one", "12345")
    shared_features.push(store)
    other = machine(monkeypatch, tmp_path / "two")
    rows, calls = shared_features._rows, 0

    def killed(data: bytes) -> Iterator[tuple[str, bytes, bytes]]:
        nonlocal calls
        calls += 1
        yield from rows(data)
        if calls == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(shared_features, "_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        fetch(store, other)
    assert len(content(other)) in (1, 2)
    monkeypatch.setattr(shared_features, "_rows", rows)
    fetch(store, other)

    assert content(other) == expected("12345")


def test_a_shard_that_somebody_has_removed_is_pushed_again(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever has the photos."""
    machine(monkeypatch, tmp_path / "one", "12345")
    shared_features.push(store)
    whole = dict(store.objects)
    del store.objects[min(store.objects)]
    shared_features.push(store)

    assert store.objects == whole


WITHOUT_COMPUTING = """
from meadow import train
from meadow.training import features
features._compute = None
train.train()
"""


@pytest.mark.slow
def test_a_colleagues_probe_computes_nothing(first_run: Path, tmp_path: Path) -> None:
    """`meadow share` here, a clone there: the model is the same bytes; without a server, too."""
    server = Server(tmp_path / "minio")
    try:
        server.client().create_bucket(Bucket=BUCKET)
        project = copied(first_run, tmp_path / "project")
        point(project, server.endpoint)
        yaml = YAML()
        values = yaml.load(project / "params.yaml")
        values["train"]["method"] = "probe"
        yaml.dump(values, project / "params.yaml")
        run = runner(project)
        run("dvc", "repro", "train")
        run("git", "commit", "-qam", "probe")
        output = run(*meadow("share"))
        clone = tmp_path / "clone"
        run("git", "clone", "-q", str(project), str(clone))
        shutil.copy(project / ".dvc/config.local", clone / ".dvc/config.local")
        there = runner(clone)
        there("dvc", "pull", "data/prepared", "data/raw")
        done = attempt(clone, "python", "-c", WITHOUT_COMPUTING)
        model = (clone / "models/classifier/model.onnx").read_bytes()
        server.kill()
        shutil.rmtree(surroundings(clone)["MEADOW_CACHE"])
        alone = attempt(clone, "python", "-m", "meadow.train")
    finally:
        server.kill()

    assert "The features of 24 photos pushed." in output
    assert done.returncode == 0, done.stderr
    assert "the features of 24 photos came from the remote" in done.stderr
    assert model == (project / "models/classifier/model.onnx").read_bytes()
    assert alone.returncode == 0
    assert "no features come from the remote: nothing answers" in alone.stderr
    assert (clone / "models/classifier/model.onnx").read_bytes() == model


SHARING = """
import sys
from meadow.pipeline import manifest
from meadow.storage import shared_features
from meadow.storage.s3_remote import Remote
from meadow.storage.s3_remote import Remote
shared_features.ROWS = 2
rows = [manifest.Row(k, "a", "train", "", "", k, 1, 1, 1) for k in sys.argv[1:]]
manifest.load = lambda: manifest.Prepared(["a"], None, rows)
store = Remote.load()
print(flush=True)
sys.stdin.readline()
shared_features.push(store)
"""


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server, whose program is in the cache of before the tests here have their own."""
    server = Server(tmp_path_factory.mktemp("minio"))
    try:
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.kill()


@pytest.mark.slow
def test_two_clones_that_share_at_once_lose_nothing(
    minio: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With sets of which a half is the same, while a third reads; all read what was computed."""
    sets = [[str(i) for i in range(first, first + 40)] for first in (0, 20)]
    union = expected([*sets[0], *sets[1]])
    with ExitStack() as stack:
        runs = []
        for name, keys in zip("ab", sets, strict=True):
            machine(monkeypatch, tmp_path / f"cache-{name}", keys)
            run = subprocess.Popen(
                [sys.executable, "-c", SHARING, *keys],
                cwd=small_project(tmp_path / name, minio.endpoint),
                env={**os.environ, "MEADOW_CACHE": str(tmp_path / f"cache-{name}")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            runs.append(stack.enter_context(run))
        assert [run.stdout and run.stdout.readline() for run in runs] == ["\n", "\n"]
        monkeypatch.chdir(tmp_path / "a")
        store, reader = Remote.load(), machine(monkeypatch, tmp_path / "cache-c")
        for run in runs:
            assert run.stdin is not None
            run.stdin.close()  # now
        while any(run.poll() is None for run in runs):
            assert fetch(store, reader)[1] == []
            assert content(reader).items() <= union.items()
    fetch(store, reader)
    shards = store.sizes("features/")
    late = machine(monkeypatch, tmp_path / "cache-d")

    assert [run.returncode for run in runs] == [0, 0]
    assert fetch(store, late) == (60, [])
    assert content(reader) == content(late) == union
    machine(monkeypatch, tmp_path / "cache-a")
    prepared(monkeypatch, train(sets[0]))
    shared_features.push(store)
    assert store.sizes("features/") == shards  # nothing is left to push

"""Sharing and getting back, through faults, on a real server."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clones import BROKEN_PROXIES, Run, attempt, runner, surroundings
from servers import BUCKET, Server, meadow, point, small_project
from tools import NAMESPACE

from meadow.storage import dvc_objects, sharing

pytestmark = pytest.mark.slow
BIG = 160 * 2**20  # bytes; a push or a pull of it lasts long enough to be killed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a MinIO with a bucket."""
    server = Server(tmp_path / "minio")
    server.client().create_bucket(Bucket=BUCKET)
    yield server
    server.kill()


@pytest.fixture
def project(tmp_path: Path, server: Server) -> Path:
    """Return a project whose remote that server is."""
    return small_project(tmp_path / "project", server.endpoint)


@pytest.fixture
def run(project: Path) -> Run:
    """Return a function that runs a command in the project."""
    return runner(project)


def colleague(origin: Path, folder: Path, keys: Path | None = None) -> Path:
    """Clone a project, with the keys of it or of another."""
    subprocess.run(["git", "clone", "-q", str(origin), str(folder)], check=True)
    shutil.copy2((keys or origin) / ".dvc/config.local", folder / ".dvc/config.local")
    return folder


def version(run: Run, project: Path, name: str, content: bytes | str) -> None:
    """Add a file to the data, run the pipeline, commit."""
    path = project / "data/raw" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    run("dvc", "add", "-q", "data/raw")
    run("dvc", "repro", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", f"add {name}")


def test_what_is_shared_comes_back_and_nothing_runs(run: Run) -> None:
    """Share, then verify; what Git lacks is named."""
    output = run(*meadow("share"))
    verified = run(*meadow("verify"))

    assert "Next: `git push`" in output
    assert "got all its 22 objects back" in verified  # 20 files, their list, the model
    assert "no stage ran, every hash is the committed one" in verified


def test_what_was_not_shared_is_noticed_and_named(run: Run, project: Path) -> None:
    """Verify before share, and after a version that nobody pushed."""
    alone = attempt(project, *meadow("verify"))
    run(*meadow("share"))
    version(run, project, "later.txt", "later")
    behind = attempt(project, *meadow("verify"))

    assert alone.returncode == behind.returncode == 1
    assert "data/raw: s3://meadow/dvc/files/md5/" in alone.stderr
    assert "is missing" in behind.stderr
    assert "run `make share`" in behind.stderr


def test_a_lock_that_is_not_committed_is_noticed(run: Run, project: Path) -> None:
    """The commit's own pipeline would run a stage: it is refused, before the stage runs."""
    run(*meadow("share"))
    (project / "dvc.yaml").write_text((project / "dvc.yaml").read_text().replace("cat", "head -q"))
    run("git", "commit", "-qam", "another command, no run")
    done = attempt(project, *meadow("verify"))

    assert done.returncode == 1
    assert "not as it was committed: train" in done.stderr


def test_every_commit_and_the_run_cache_are_shared(run: Run, project: Path, tmp_path: Path) -> None:
    """A colleague goes back to an old commit; a run without its lock comes from the run cache."""
    version(run, project, "second.txt", "second")
    run(*meadow("share"))

    clone = colleague(project, tmp_path / "clone")
    there = runner(clone)
    there("git", "checkout", "-q", "HEAD~1")
    there("dvc", "pull", "--run-cache")
    assert not (clone / "data/raw/second.txt").exists()
    assert there("dvc", "status") == "Data and pipelines are up to date.\n"
    there("git", "checkout", "-q", "main")
    there("dvc", "pull", "data/raw", "--run-cache")
    (clone / "dvc.lock").unlink()
    assert "is cached - skipping run" in there("dvc", "repro", "--pull")


def test_a_run_is_shared_with_the_outs_that_git_keeps(
    run: Run, project: Path, tmp_path: Path
) -> None:
    """Another machine takes it from the run cache, though no commit has these files."""
    text = (project / "dvc.yaml").read_text()
    text = text.replace("> model'", "> model && wc -c < model > size.json'")
    text = text.replace("outs: [model]", "outs: [model], metrics: [size.json: {cache: false}]")
    (project / "dvc.yaml").write_text(text)
    run("git", "commit", "-qam", "A metric")
    run("dvc", "repro", "-q")
    run(*meadow("share"))

    clone = colleague(project, tmp_path / "clone")
    assert "is cached - skipping run" in runner(clone)("dvc", "repro", "--pull")
    assert (clone / "size.json").read_text() == (project / "size.json").read_text()


def test_ten_more_files_upload_ten_more_files(run: Run, project: Path, server: Server) -> None:
    """The old ones are there: ten files, the list, the model, and nothing else."""
    run(*meadow("share"))
    before = server.objects()
    for i in range(10):
        (project / f"data/raw/more-{i}.txt").write_text(f"more {i}")
    version(run, project, "one-of-ten.txt", "more 0")  # and a copy costs nothing
    run(*meadow("share"))
    after = server.objects()

    assert before.items() <= after.items()
    new = [key for key in after.keys() - before.keys() if "/files/md5/" in key]
    assert len(new) == 10 + 2
    assert len(after) - len(before) == 10 + 2 + 1  # and the run cache's entry


def test_what_was_shared_is_not_looked_at_again(
    run: Run, project: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time does not grow with history; but when an object has gone, all commits are looked at."""
    monkeypatch.chdir(project)
    looked_at: list[set[str]] = []
    push = dvc_objects.push

    def spy(commits: list[str], there: set[str]) -> tuple[set[str], int]:
        looked_at.append(set(commits))
        return push(commits, there)

    monkeypatch.setattr(dvc_objects, "push", spy)
    first = run("git", "rev-parse", "HEAD").strip()
    sharing.share()
    sharing.share()
    version(run, project, "later.txt", "later")
    second = run("git", "rev-parse", "HEAD").strip()
    sharing.share()
    assert looked_at == [{first}, set(), {second}]

    key = object_of(project, "data/raw/7.txt")
    server.client().delete_object(Bucket=BUCKET, Key=key)
    sharing.share()
    assert looked_at[-1] == {first, second}
    assert key in server.objects()


def test_a_commit_that_is_not_whole_here_is_looked_at_again(
    run: Run, project: Path, server: Server, tmp_path: Path
) -> None:
    """It was never pulled, and never shared; once its files are here, share pushes them."""
    clone = colleague(project, tmp_path / "clone")
    there = runner(clone)
    there(*meadow("share"))
    assert not any("/files/md5/" in key for key in server.objects())
    shutil.copytree(project / ".dvc/cache", clone / ".dvc/cache", dirs_exist_ok=True)
    there(*meadow("share"))

    assert "no stage ran" in run(*meadow("verify"))


def test_a_server_of_ones_own_needs_no_proxy(run: Run, project: Path) -> None:
    """Neither Meadow, nor the DVC that it starts, asks one for the loopback."""
    run(*meadow("share"), **BROKEN_PROXIES)
    run(*meadow("verify"), **BROKEN_PROXIES)
    assert "ok    write" in attempt(project, *meadow("doctor"), **BROKEN_PROXIES).stdout
    assert "is up, with bucket" in run(*meadow("minio", "start"), **BROKEN_PROXIES)


def large(project: Path, run: Run) -> None:
    version(run, project, "large.bin", os.urandom(BIG))


def begun(project: Path, *command: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that all of it can be killed."""
    return subprocess.Popen(
        command, cwd=project, env=surroundings(project), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_server_killed_during_a_push_and_started_again(
    run: Run, project: Path, server: Server
) -> None:
    """The push fails, the next one completes, a clone verifies."""
    large(project, run)
    pushing = begun(project, *meadow("share"))
    wait_for(lambda: any("files/md5" in key for key in server.objects()))
    server.kill()
    output, _ = pushing.communicate(timeout=600)
    left = {path for path in server.data.rglob("xl.meta") if "files/md5" in str(path)}
    server.start()

    assert pushing.returncode == 1, output
    assert "nothing answers at" in output
    assert len(left) < 2 * 23
    run(*meadow("share"))
    assert "no stage ran" in run(*meadow("verify"))


def test_a_client_killed_during_a_push(run: Run, project: Path, server: Server) -> None:
    """The next push completes, a clone verifies."""
    large(project, run)
    pushing = begun(project, *meadow("share"))
    wait_for(lambda: any("files/md5" in key for key in server.objects()))
    os.killpg(pushing.pid, signal.SIGKILL)
    pushing.communicate()

    assert BIG not in server.objects().values()
    run(*meadow("share"))
    assert "no stage ran" in run(*meadow("verify"))


def test_a_client_killed_during_a_pull(run: Run, project: Path, tmp_path: Path) -> None:
    """What came half is never used nor taken for damage; the next pull completes."""
    large(project, run)
    run(*meadow("share"))
    clone = colleague(project, tmp_path / "clone")
    cache = clone / ".dvc/cache"
    pulling = begun(clone, "dvc", "pull")
    wait_for(
        lambda: (
            any(path.stat().st_size > BIG // 64 for path in cache.rglob("*.tmp"))
            or len(list(cache.glob("files/md5/??/*"))) > 20
        )
    )
    os.killpg(pulling.pid, signal.SIGKILL)
    pulling.communicate()
    there = runner(clone)
    there("dvc", "pull")

    assert there("dvc", "status") == "Data and pipelines are up to date.\n"
    assert (clone / "model").read_bytes() == (project / "model").read_bytes()
    assert "23 objects are whole" in attempt(clone, *meadow("doctor")).stdout


def test_what_a_kill_left_in_the_cache_is_no_damage(run: Run, project: Path) -> None:
    """DVC never removes it: doctor names the command, for a path with a space in it too."""
    run("dvc", "config", "--local", "cache.dir", str(project / "a cache"))
    (project / ".dvc/cache").rename(project / "a cache")
    left = project / "a cache/files/md5/00/.GcKRF7Fq3XWmNqYkqzB5mA.tmp"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    report = attempt(project, *meadow("doctor")).stdout
    line = next(line for line in report.splitlines() if "cache" in line)

    assert line.startswith("ok    cache     22 objects are whole; a killed command left 1 ")
    run("sh", "-c", line.split("`")[1])
    assert not left.exists()
    assert "22 objects are whole\n" in attempt(project, *meadow("doctor")).stdout


def object_of(project: Path, path: str) -> str:
    md5 = runner(project)("md5sum", path).split()[0]
    return f"dvc/files/md5/{md5[:2]}/{md5[2:]}"


@pytest.mark.parametrize("fault", ["altered", "truncated", "missing"])
def test_a_bad_object_on_the_server_is_noticed_named_and_never_used(
    run: Run, project: Path, server: Server, tmp_path: Path, fault: str
) -> None:
    """And share mends it, of an object of the same size after the deletion that verify asks for."""
    run(*meadow("share"))
    key, s3 = object_of(project, "data/raw/7.txt"), server.client()
    content = {"altered": b"The content of file 7", "truncated": b"the con"}.get(fault)
    if content:
        s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    else:
        s3.delete_object(Bucket=BUCKET, Key=key)
    clone = colleague(project, tmp_path / "clone")
    pulled = attempt(clone, "dvc", "pull")
    verified = attempt(project, *meadow("verify"))

    assert pulled.returncode != 0
    assert not (clone / "data/raw/7.txt").exists()
    assert verified.returncode == 1
    state = "missing" if fault == "missing" else "damaged"
    assert f"data/raw/7.txt: s3://meadow/{key} is {state}" in verified.stderr

    if fault == "altered":
        s3.delete_object(Bucket=BUCKET, Key=key)
    run(*meadow("share"))
    assert "no stage ran" in run(*meadow("verify"))
    runner(clone)("dvc", "pull")
    assert (clone / "data/raw/7.txt").read_text() == "the content of file 7"


def test_bytes_rotten_on_the_servers_disk_are_noticed(
    run: Run, project: Path, server: Server
) -> None:
    """MinIO keeps small objects in xl.meta with a checksum of its own, and answers 503.

    That may pass, as any 503, so nobody is told to delete the object.
    """
    run(*meadow("share"))
    for meta in server.data.rglob("xl.meta"):
        if b"the content of file 7" in (content := meta.read_bytes()):
            meta.write_bytes(content.replace(b"the content of file 7", b"the kontent of file 7"))
    server.kill()
    server.start()
    verified = attempt(project, *meadow("verify"))

    assert verified.returncode == 1
    assert re.search(r"data/raw/7\.txt: http.* answers 503 .* to read files/md5/", verified.stderr)
    assert "delete" not in verified.stderr


def test_an_altered_file_in_the_local_cache_is_noticed_and_healed(run: Run, project: Path) -> None:
    """By doctor, and by the command that doctor names."""
    run(*meadow("share"))
    name = object_of(project, "data/raw/7.txt").removeprefix("dvc/")
    cached = project / ".dvc/cache" / name
    cached.chmod(0o644)
    cached.write_text("something else")
    cached.chmod(0o444)
    sick = attempt(project, *meadow("doctor"))
    assert sick.returncode == 1
    line = next(line for line in sick.stdout.splitlines() if line.startswith("FAIL  cache"))
    for command in line.split("`")[1::2]:
        run("sh", "-c", command)

    assert cached.read_text() == "the content of file 7"
    assert "objects are whole" in attempt(project, *meadow("doctor")).stdout
    (project / "data/raw/7.txt").unlink()
    run("dvc", "checkout")
    assert (project / "data/raw/7.txt").read_text() == "the content of file 7"


def test_two_clones_push_at_once(run: Run, project: Path, server: Server, tmp_path: Path) -> None:
    """Different versions with files in common: both complete, nothing is lost."""
    clones = [colleague(project, tmp_path / name) for name in ("one", "two")]
    run(*meadow("share"))
    for clone in clones:
        there = runner(clone)
        there("dvc", "pull")
        for i in range(30):
            (clone / f"data/raw/both-{i}.txt").write_text(f"both {i}")
        version(there, clone, f"{clone.name}.txt", clone.name)
    failures: list[str] = []

    def share(clone: Path) -> None:
        done = attempt(clone, *meadow("share"))
        if done.returncode:
            failures.append(done.stderr)

    threads = [threading.Thread(target=share, args=(clone,)) for clone in clones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    for clone in clones:
        assert "no stage ran" in runner(clone)(*meadow("verify"))


@pytest.mark.needs("mount namespaces")
def test_a_full_disk_on_the_server_loses_nothing_here(
    run: Run, project: Path, tmp_path: Path
) -> None:
    """A clear error; with room, the same command completes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={BIG // 2} tmpfs {disk} && exec "$@"'
    server = Server(disk / "data", inside=[*NAMESPACE, "sh", "-c", mount, "sh"])
    try:
        server.client().create_bucket(Bucket=BUCKET)
        point(project, server.endpoint)
        large(project, run)
        before = {path: path.stat().st_size for path in (project / ".dvc/cache").rglob("*")}
        done = attempt(project, *meadow("share"))

        assert done.returncode == 1
        assert "Storage backend has reached its minimum free drive threshold" in done.stderr
        assert "Nothing is lost: run `make share` again" in done.stderr
        assert (
            before.items()
            <= {path: path.stat().st_size for path in (project / ".dvc/cache").rglob("*")}.items()
        )
        enter = ["nsenter", "--preserve-credentials", "--mount", f"--target={server.process.pid}"]
        enter += ["--user"] if "--map-root-user" in NAMESPACE else []
        subprocess.run([*enter, "mount", "-o", f"remount,size={8 * BIG}", str(disk)], check=True)
        run(*meadow("share"))
        assert "no stage ran" in run(*meadow("verify"))
    finally:
        server.kill()


def test_experiments_go_to_a_colleague_through_git_and_the_server(
    run: Run, project: Path, tmp_path: Path
) -> None:
    """`dvc exp push` by share, `dvc exp pull` and `apply` in another clone."""
    (project / "params.yaml").write_text("n: 3\n")
    (project / "dvc.yaml").write_text(
        "stages: {train: {cmd: 'head -n 1 -q data/raw/* params.yaml > model', deps: [data/raw],"
        " params: [n], outs: [model]}}\n"
    )
    run("dvc", "repro", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "a parameter")
    run("git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"))
    run("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    run("git", "push", "-q", "-u", "origin", "main")
    run("dvc", "exp", "run", "-n", "more", "-S", "n=4")
    best = (project / "model").read_bytes()
    run("git", "reset", "-q", "--hard")
    output = run(*meadow("share"))

    clone = colleague(tmp_path / "origin.git", tmp_path / "clone", project)
    there = runner(clone)
    there("dvc", "pull")
    there("dvc", "exp", "pull", "origin", "more")
    there("dvc", "exp", "apply", "more")

    assert "git push" not in output
    assert (clone / "model").read_bytes() == best
    assert (clone / "params.yaml").read_text() == "n: 4\n"
    shown = json.loads(there("dvc", "exp", "show", "--json"))
    assert "more" in [e["name"] for base in shown for e in base.get("experiments") or []]

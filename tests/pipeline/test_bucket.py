"""Photos in a bucket, on a real MinIO server."""

import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from dask_cluster import DaskCluster
from servers import KEY, SECRET, Server
from toys import SetParams, encoded, photo

from meadow import params
from meadow.commands import importing
from meadow.curation import discovery, inspection, overrides
from meadow.errors import MeadowError
from meadow.pipeline import manifest, places
from meadow.pipeline.bucket import Bucket
from meadow.pipeline.places import Place
from meadow.prepare import prepare

pytestmark = pytest.mark.slow
PHOTO = "gold/000.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a MinIO."""
    server = Server(tmp_path_factory.mktemp("minio"))
    yield server
    server.kill()


@pytest.fixture
def bucket(
    server: Server,
    toy_set: Path,
    set_params: SetParams,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> str:
    """Put the toy set into a bucket, and have data.dir name it; return the bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    name = f"b{abs(hash(request.node.name))}"
    client = server.client()
    client.create_bucket(Bucket=name)
    for file in toy_set.rglob("*.jpg"):
        key = f"set/{file.relative_to(toy_set).as_posix()}"
        client.put_object(Bucket=name, Key=key, Body=file.read_bytes())
    client.put_object(Bucket=name, Key="settled/gold/other.jpg", Body=b"of another set")
    client.put_object(Bucket=name, Key="set/gold/", Body=b"")  # the mark of a folder
    client.put_object(Bucket=name, Key="set/gold/.DS_Store", Body=b"litter")
    set_params(data={"dir": f"s3://{name}/set"})
    return name


def here() -> Place:
    return places.place(params.load().data.dir)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_prepare_gives_the_bytes_that_a_local_folder_gives(
    bucket: str, set_params: SetParams
) -> None:
    """Classes, split, manifest and pixels; with decisions, and whoever stores the photos."""
    sha256 = "0" * 64
    overrides.FILE.write_text(f"path,decision,label,sha256\n{PHOTO},drop,,{sha256}\n")
    with pytest.raises(MeadowError, match="is not the photo that was decided on") as refused:
        prepare()
    sha256 = str(refused.value).partition("its SHA-256 is '")[2][:64]
    overrides.FILE.write_text(f"path,decision,label,sha256\n{PHOTO},drop,,{sha256}\n")
    prepare()
    of_bucket = contents(manifest.FOLDER)
    set_params(data={"dir": "data/raw"})
    prepare()

    assert of_bucket == contents(manifest.FOLDER)


def test_dask_workers_give_these_bytes(
    bucket: str,
    server: Server,
    set_params: SetParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They read the bucket with DVC's settings of whoever runs the stage, and have none."""
    prepare()
    by_threads = contents(manifest.FOLDER)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    Path(".dvc/config").write_text(
        f"['remote \"photos\"']\nurl = s3://{bucket}\nendpointurl = {server.endpoint}\n"
        f"access_key_id = {KEY}\nsecret_access_key = {SECRET}\n"
    )
    with DaskCluster(tmp_path / "dask") as cluster:
        cluster.start_workers(2)
        set_params(data={"dir": "remote://photos/set"}, runtime={"scheduler": cluster.address})
        prepare()

    assert contents(manifest.FOLDER) == by_threads


def test_an_import_takes_what_lies_in_the_bucket(
    bucket: str, server: Server, toy_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from a folder: no litter, no mark of a folder, and only new photos with --add."""
    importing.import_set(here(), tmp_path / "set")
    assert discovery.find(tmp_path / "set") == discovery.find(toy_set)
    for file in discovery.find(toy_set):
        assert (tmp_path / "set" / file.path).read_bytes() == (toy_set / file.path).read_bytes()

    server.client().put_object(Bucket=bucket, Key="set/gold/new.jpg", Body=encoded(photo(77)))
    importing.import_set(here(), tmp_path / "set", add=True)
    assert (tmp_path / "set/gold/new.jpg").read_bytes() == encoded(photo(77))
    assert "33 files in 2 classes, 1 of them new" in capsys.readouterr().out


def test_dvc_sees_a_replaced_photo_and_evaluate_refuses_it(bucket: str, server: Server) -> None:
    """The lock has the ETags of the listing; what is read is judged by its SHA-256."""
    Path("dvc.yaml").write_text("stages: {see: {cmd: 'true', deps: ['${data.dir}']}}")
    subprocess.run(["dvc", "init", "-q", "--no-scm", "-f"], check=True)
    subprocess.run(["dvc", "repro", "-q"], check=True)
    prepare()
    row = next(row for row in manifest.load().rows if row.path == PHOTO)
    quiet = ["dvc", "status", "-q"]
    assert subprocess.run(quiet, check=False).returncode == 0
    assert places.read_as(here(), row.path, row.sha256)

    key = {"Bucket": bucket, "Key": f"set/{PHOTO}"}
    server.client().put_object(**key, Body=encoded(photo(77)))
    assert subprocess.run(quiet, check=False).returncode == 1
    with pytest.raises(MeadowError, match=rf"{PHOTO} has changed since prepare\. Run `dvc repro`"):
        places.read_as(here(), row.path, row.sha256)


def test_a_remote_of_dvc_names_server_and_keys(
    bucket: str, server: Server, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DVC's own check reads them: no variable is needed."""
    for variable in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    subprocess.run(["dvc", "init", "-q", "--no-scm", "-f"], check=True)
    with pytest.raises(MeadowError, match=r"settings of remote://photos/set are wrong.*photos"):
        places.place("remote://photos/set")
    Path(".dvc/config").write_text(
        f"['remote \"photos\"']\nurl = s3://{bucket}\nendpointurl = {server.endpoint}\n"
        f"access_key_id = {KEY}\nsecret_access_key = wrong\n"
    )
    with pytest.raises(MeadowError, match="run `dvc remote modify --local photos secret_access_ke"):
        discovery.find(places.place("remote://photos/set"))
    config = Path(".dvc/config").read_text().replace("wrong", SECRET)
    Path(".dvc/config").write_text(config)
    assert len(discovery.find(places.place("remote://photos/set"))) == 32


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "does not know the access key. Correct it: set AWS_ACCESS"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "refuses the secret key. Correct it: set AWS_SECRET_AC"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9: "),
        ("AWS_ENDPOINT_URL", "nowhere", "the settings of s3://.* are wrong"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    bucket: str, variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what mends it."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(MeadowError, match=message):
        prepare()
    assert not list(Path("data").glob("prepared*"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "s3://no-such-bucket/set",
            "there is no bucket 'no-such-bucket' at .* Correct the",
        ),
        ("s3://{}/empty", "there are no photos at s3://.*/empty. Correct the address"),
        ("gs://{}/set", "is in no S3 bucket|settings of gs://"),
        ("s3://", "is in no S3 bucket"),
    ],
)
def test_an_address_without_photos_is_refused(
    bucket: str, address: str, message: str, set_params: SetParams
) -> None:
    """Nor is it taken for a folder."""
    set_params(data={"dir": address.format(bucket)})
    with pytest.raises(MeadowError, match=message):
        prepare()


@pytest.mark.parametrize(
    "name", ["gold/../x.jpg", "gold//x.jpg", "/x.jpg", "gold/./x.jpg", "gold/a\nb.jpg", "gold/a:b"]
)
def test_a_name_that_no_file_could_have_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no path here, and must not become one where somebody copies the set.

    MinIO refuses some of these names itself; other servers take them.
    """
    monkeypatch.setattr(Bucket, "sizes", lambda _: iter([("moss/1.jpg", 1), (name, 1)]))
    with pytest.raises(MeadowError, match=r"no empty part|cannot all hold"):
        discovery.find(Bucket("s3://b/set", "b/set", {}))


def test_an_object_that_vanishes_is_an_error(bucket: str, server: Server) -> None:
    """Else the set would depend on the moment."""
    files = discovery.find(here())
    server.client().delete_object(Bucket=bucket, Key=f"set/{PHOTO}")
    file = next(file for file in files if file.path == PHOTO)
    with pytest.raises(MeadowError, match=f"'{PHOTO}' is not in s3://.*/set any more"):
        places.read(here(), file.path)


@pytest.mark.parametrize(
    ("name", "content"), [("ä b+%20&c='#.jpg", b"x"), ("empty.jpg", b"")], ids=["odd", "empty"]
)
def test_any_name_and_any_length_is_read(
    bucket: str, server: Server, name: str, content: bytes
) -> None:
    """A name is quoted once in the address; a part of nothing is no error."""
    server.client().put_object(Bucket=bucket, Key=f"set/gold/{name}", Body=content)
    assert f"gold/{name}" in {file.path for file in discovery.find(here())}
    assert places.read(here(), f"gold/{name}") == content


def test_an_object_too_large_for_a_photo_is_not_read(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out by its length alone."""
    monkeypatch.setattr(places, "MAX_BYTES", 100)
    file = next(file for file in discovery.find(here()) if file.path == PHOTO)
    seen = inspection.inspect(here(), file, preprocessing=None, min_side=32)  # type: ignore[arg-type]
    assert isinstance(seen, inspection.BadPhoto)
    assert seen.reason == "too_large"


@contextmanager
def breaking(server: Server, breaks: int) -> Iterator[str]:
    """Give the URL of a way to the server that breaks off the first answers after 600 bytes."""
    port = int(server.address.rpartition(":")[2])
    left = [breaks]

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request = self.request.recv(65536)  # a GET is one segment
            with socket.create_connection(("127.0.0.1", port)) as behind:
                behind.sendall(request)
                left[0] -= 1
                if left[0] >= 0:
                    self.request.sendall(behind.recv(600))
                    return
                behind.settimeout(1)
                with suppress(TimeoutError):
                    while data := behind.recv(65536):
                        self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Way) as way:
        threading.Thread(target=way.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{way.server_address[1]}"
        way.shutdown()


def test_a_connection_that_drops_is_tried_again(
    bucket: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a photo too; one that drops always is an error."""
    whole = places.read(here(), PHOTO)
    assert len(whole) > 600
    with breaking(server, breaks=2) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert places.read(here(), PHOTO) == whole
    with breaking(server, breaks=1000) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(MeadowError, match=r"nothing answers at|does not answer|fell silent"):
            places.read(here(), PHOTO)

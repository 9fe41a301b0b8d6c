"""What can be wrong between a project and its remote, against a real server."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import self_signed
from clones import attempt, runner
from servers import BUCKET, KEY, SECRET, Server, meadow, point, small_project

from meadow.errors import MeadowError
from meadow.pipeline import s3
from meadow.storage import local_config
from meadow.storage.s3_remote import MissingError, Remote

pytestmark = pytest.mark.slow
WITHIN = 15  # seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a MinIO with a bucket."""
    server = Server(tmp_path_factory.mktemp("minio"))
    server.client().create_bucket(Bucket=BUCKET)
    yield server
    server.kill()


@pytest.fixture
def folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project on that server."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.chdir(small_project(tmp_path / "project", server.endpoint, files=3))
    return Path.cwd()


def modify(name: str, value: str) -> None:
    local_config.configure(local_config.section_of("minio"), **{name: value})


def test_a_remote_that_works_passes(folder: Path, server: Server) -> None:
    """The probe object is deleted again."""
    Remote.load().check(write=True)

    assert not server.objects()
    assert Remote.load().refuse_skew().endswith("s apart")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("secret_access_key", "wrong", "refuses the secret key. Run `dvc remote modify --local"),
        ("access_key_id", "nobody", "does not know the access key. Run `dvc remote modify"),
        ("url", "s3://nowhere/dvc", "there is no bucket 'nowhere' at http://127"),
        ("endpointurl", "http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9: .*`make min"),
        ("endpointurl", "http://no.invalid:9", "nothing answers at http://no.invalid:9"),
        ("endpointurl", "127.0.0.1:9000", "the settings of remote 'minio' are wrong"),
        ("url", "https://127.0.0.1:9000/x", r"Mend \.dvc/config .*: url is s3://BUCKET/dvc"),
    ],
)
def test_a_wrong_setting_is_one_clear_line_within_seconds(
    folder: Path, name: str, value: str, message: str
) -> None:
    """For share, verify and doctor; plain `dvc push` fails as fast, in words of its own."""
    modify(name, value)
    with pytest.raises(MeadowError, match=message):
        Remote.load().check(write=True)

    for command in (meadow("share"), meadow("verify"), meadow("doctor"), ("dvc", "push")):
        started = time.monotonic()
        done = attempt(folder, *command)
        assert done.returncode != 0, command
        assert time.monotonic() - started < WITHIN, command
        assert SECRET not in done.stdout + done.stderr
        if command[-1] in ("share", "verify"):
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            assert "Traceback" not in done.stderr


def test_a_server_that_stopped_is_said_to_be_down(folder: Path, tmp_path: Path) -> None:
    """With the command that starts it."""
    other = Server(tmp_path / "other")
    other.client().create_bucket(Bucket=BUCKET)
    modify("endpointurl", other.endpoint)
    Remote.load().check(write=True)
    other.kill()

    with pytest.raises(MeadowError, match=r"nothing answers at .*Start it with `make minio`"):
        Remote.load().check(write=False)


def test_a_server_that_does_not_speak_s3_is_not_taken_for_one(folder: Path) -> None:
    """Say, the port of the service."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    modify("endpointurl", f"http://127.0.0.1:{web.server_port}")
    try:
        with pytest.raises(MeadowError, match=r"Run `dvc remote modify --local minio endpointurl"):
            Remote.load().check(write=True)
    finally:
        web.shutdown()
        web.server_close()


def test_a_broken_proxy_of_a_server_elsewhere_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server would be said to be down."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    modify("endpointurl", "http://s3.invalid")

    with pytest.raises(MeadowError, match=r"to proxy URL: \"http://127\.0\.0\.1:1.*NO_PROXY"):
        Remote.load().read()


def test_keys_may_come_from_the_environment(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in CI: nothing is written to disk; without them the three ways are named."""
    local_config.LOCAL.unlink()
    modify("endpointurl", server.endpoint)
    with pytest.raises(MeadowError, match=r"no keys .*`make minio`.*config\.local.*AWS_ACCESS_KEY"):
        Remote.load().check(write=False)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    Remote.load().check(write=True)
    runner(folder)("dvc", "push")


def test_a_reader_can_pull_and_cannot_push(folder: Path, server: Server, tmp_path: Path) -> None:
    """And share says so before it starts."""
    run = runner(folder)
    run("dvc", "push")
    policy = tmp_path / "policy.json"
    policy.write_text(
        json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"],
                        "Resource": ["arn:aws:s3:::*"],
                    }
                ],
            }
        )
    )
    admin = server.admin()
    admin.user_add("reader", "reader-secret")
    admin.policy_add("reading", str(policy))
    admin.policy_set("reading", user="reader")
    point(folder, server.endpoint, "reader", "reader-secret")

    (folder / "data/raw/new.txt").write_text("new")
    run("dvc", "add", "data/raw")
    push, share = attempt(folder, "dvc", "push"), attempt(folder, *meadow("share"))
    run("git", "reset", "-q", "--hard")
    for path in (folder / ".dvc/cache/files/md5").glob("??"):
        for cached in path.iterdir():
            cached.unlink()
    run("dvc", "pull", "--force")
    verify = attempt(folder, *meadow("verify"))

    assert push.returncode != 0
    assert share.returncode == 1
    assert "the key may not write in bucket 'meadow'" in share.stderr
    assert verify.returncode == 0, verify.stderr


def refusal(status: int, code: str) -> tuple[int, bytes]:
    return status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(404, "NoSuchKey"), "files/md5/ab/cd is not in bucket 'meadow'"),
        (refusal(404, "NoSuchBucket"), "there is no bucket 'meadow'"),
        (refusal(403, "AccessDenied"), "the key may not read files/md5/ab/cd in bucket 'meadow'"),
        (refusal(503, "SlowDown"), r"answers 503 SlowDown to read files/md5/ab/cd: no Run this a"),
        ((200, b"half"), r"does not answer as S3 does: 4 read, but total bytes expected is 8"),
        (refusal(500, "InternalError"), r"answers 500 InternalError .* see the server's log"),
        ((0, b""), r"fell silent for 0\.2 s when asked to read files/md5/ab/cd\. Run this again"),
    ],
)
def test_only_a_404_of_the_object_is_a_missing_object(
    answer: tuple[int, bytes], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is an error in its own words: none of them is a reason to delete the object."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer
            if not status:
                silent.wait(WITHIN)
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) * (2 if status == 200 else 1)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    silent = threading.Event()
    monkeypatch.setattr(s3, "TIMEOUT", 0.2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,)).start()
        modify("endpointurl", f"http://127.0.0.1:{web.server_port}")
        with pytest.raises(MeadowError, match=message) as caught:
            list(Remote.load().pieces("files/md5/ab/cd"))
        silent.set()
        web.shutdown()

    assert (caught.type is MissingError) == (b"NoSuchKey" in answer[1])


def test_a_certificate_of_ones_own_needs_its_file(folder: Path, tmp_path: Path) -> None:
    """Without ssl_verify a clear refusal, with it share and verify work."""
    ca = self_signed(tmp_path / "certificates")
    server = Server(tmp_path / "tls", ca.parent)
    try:
        server.client(verify=str(ca)).create_bucket(Bucket=BUCKET)
        modify("endpointurl", server.endpoint)
        with pytest.raises(
            MeadowError, match=r"the certificate of https://.* is not trusted: .*ssl_verify"
        ):
            Remote.load().check(write=False)
        assert attempt(folder, "dvc", "push").returncode != 0

        modify("ssl_verify", str(ca))
        run = runner(folder)
        run(*meadow("share"))
        assert "no stage ran" in run(*meadow("verify"))
    finally:
        server.kill()

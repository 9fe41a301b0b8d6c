import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from toys import encoded, photo

from meadow.cli import main
from meadow.commands import predict
from meadow.errors import MeadowError
from meadow.pipeline.formats import NAMES
from meadow.serving import client, server
from meadow.serving.client import Client, RefusedError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs/serving.md"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of 5 photos."""
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(photo(number)))
    return tmp_path


@contextmanager
def stub(answer: Callable[[int], tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """Run a service that answers its n-th request as it is told."""
    count = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal count
            self.rfile.read(int(self.headers["Content-Length"]))
            number, count = count, count + 1
            try:
                status, headers, body = answer(number)
            except ConnectionAbortedError:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_hidden_files_and_folders_are_left_alone(photos: Path) -> None:
    """Such as Git's objects below a folder of photos."""
    for name in (".git/objects/ab/cd", ".DS_Store", "sub/.cache/x.jpg", "sub/y.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"x")

    assert list(predict._files(str(photos))) == [
        *(str(photos / f"{number}.jpg") for number in range(5)),
        str(photos / "sub/y.jpg"),
    ]


BUSY = b'{"error": {"code": 429, "message": "busy"}}'


def test_a_busy_service_is_asked_again_when_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it takes; other 429s than its own are no reason to give up."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with (
        stub(
            lambda n: (429, {"Retry-After": str(n)}, BUSY) if n < 9 else (200, {}, b'{"a": 1}')
        ) as url,
        Client(url) as client,
    ):
        assert client.ask(b"") == {"a": 1}
    assert waits == list(range(9))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_photo_without_an_answer_does_not_end_the_run(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It has an error in its place, and the exit status says so; the others are answered."""
    monkeypatch.setattr(client, "PATIENCE", 0)
    monkeypatch.setattr(predict, "AT_ONCE", 1)
    well = b'{"label": "x", "confidence": 1, "prediction_set": ["x"], "in_distribution": true}'
    with stub(lambda n: (status, {"Retry-After": "9"}, BUSY) if n == 2 else (200, {}, well)) as url:
        assert not predict.predict([str(photos)], url, as_json=True)
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [record.get("label") for record in records] == ["x", "x", None, "x", "x"]
    assert records[2]["error"]["message"] == "busy"


def test_a_service_that_is_restarted_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that died takes the requests under way with it, and another takes its place."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def answer(n: int) -> tuple[int, dict[str, str], bytes]:
        if n in (1, 2):
            raise ConnectionAbortedError
        return 200, {}, b'{"number": %d}' % n

    with stub(answer) as url, Client(url) as asking:
        assert asking.ask(b"") == {"number": 0}
        assert asking.ask(b"") == {"number": 3}
    assert waits == [1, 1]


def test_a_wrong_key_ends_the_run() -> None:
    """It would be wrong for all photos."""
    with (
        stub(lambda _: (401, {}, b'{"error": {"message": "a key is needed"}}')) as url,
        Client(url) as asking,
        pytest.raises(MeadowError, match="a key is needed") as raised,
    ):
        asking.ask(b"")
    assert not isinstance(raised.value, RefusedError)


def test_eight_requests_are_under_way_and_no_more(photos: Path) -> None:
    """The service is kept busy, and is not flooded; the next goes when one is answered."""
    meeting, most, under_way = threading.Barrier(predict.AT_ONCE), 0, 0

    def answer(_: int) -> tuple[int, dict[str, str], bytes]:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        meeting.wait(30)  # all eight are here
        under_way -= 1
        return 415, {}, BUSY

    with stub(answer) as url:
        predict.predict([str(photos / "0.jpg")] * 3 * predict.AT_ONCE, url)
    assert most == predict.AT_ONCE == 8


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>"), (404, b'{"detail": "Not Found"}'), (502, b"bad gateway")]
)
def test_another_server_is_told_from_a_service(status: int, body: bytes) -> None:
    """A wrong port is a common mistake."""
    with (
        stub(lambda _: (status, {}, body)) as url,
        Client(url) as client,
        pytest.raises(MeadowError, match=f"answers {status}, and not as a photo classifier"),
    ):
        client.ask(b"")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "localhost:3000", "http://", "x://y"])
def test_a_service_that_is_not_there_is_said_to_be(url: str) -> None:
    """With the command that starts one."""
    with Client(url) as client, pytest.raises(MeadowError, match=r"cannot be reached.*make serve"):
        client.ask(b"")


def test_nothing_to_predict_is_an_error(tmp_path: Path) -> None:
    """An empty folder, or a pattern that finds nothing; before a model is looked for."""
    for name in (str(tmp_path), str(tmp_path / "*.jpg")):
        with pytest.raises(MeadowError, match="no file, folder or pattern"):
            predict.predict([name])


def test_without_a_model_it_says_how_to_get_one(project: Path, photos: Path) -> None:
    """It is the first thing that somebody may try."""
    with pytest.raises(SystemExit, match="dvc repro"):
        main(["predict", str(photos)])


@pytest.mark.slow
def test_all_are_answered_in_order_whatever_is_wrong_with_some(
    in_built: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1, and a line for each; a name cannot garble the terminal."""
    (photos / "bad\x1b[31m\n.jpg").write_bytes(b"no photo")
    missing = str(photos / "missing.jpg")
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(photos / "[0-4].jpg"), missing, str(photos)])
    lines = capsys.readouterr().out.splitlines()

    assert ended.value.code == 1
    assert len(lines) == 5 + 1 + 6
    assert re.search(r"0\.jpg +\d+\.\d% +(gold|moss)", lines[0])
    assert lines[5].endswith("missing.jpg  refused: cannot be read: No such file or directory")
    assert lines[11].endswith(f"bad?[31m?.jpg  refused: not a {', '.join(NAMES)} file")


@pytest.mark.slow
def test_here_and_over_there_are_the_same_answers(
    in_packaged: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON lines: what the service sends, and the path. The example of the docs runs too."""
    (photos / "large.png").write_bytes(encoded(photo(1), "PNG") + bytes(30 * 2**20))
    (photos / "text.jpg").write_bytes(b"no photo")
    names = [str(photos / f"{n}.jpg") for n in range(5)]
    main(["predict", "--json", *names])
    here = capsys.readouterr().out
    with server.serving(server.BENTO) as url:
        main(["predict", "--json", "--url", url, *names])
        there = capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            main(["predict", "--json", "--url", url, str(photos)])
        refused = [json.loads(line) for line in capsys.readouterr().out.splitlines()[5:]]
        with Client(url) as client, pytest.raises(RefusedError, match="answers 415"):
            client.ask(b"no photo")
        block, _ = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
        example = block.replace("http://localhost:3000", url)
        said = subprocess.run(
            [sys.executable, "-c", example.replace("photo.jpg", names[0])],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    here_all, there_all = (
        [json.loads(line) for line in text.splitlines()] for text in (here, there)
    )
    for mine, theirs in zip(here_all, there_all, strict=True):
        assert mine == {key: theirs[key] for key in mine}
        assert theirs.keys() - mine.keys() <= {"request_id"}
    assert ended.value.code == 1
    assert [each["error"]["code"] for each in refused] == [413, 415]
    assert len(block.splitlines()) == 5
    assert said.startswith(here_all[0]["label"])


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(in_built: Path, photos: Path) -> None:
    """`meadow predict ... | head -1` ends without a traceback."""
    code = "from meadow.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "predict", *[str(photos)] * 400],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stderr is not None
        assert ".jpg" in run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == ""

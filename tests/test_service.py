import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from bad_photos import HEIC
from PIL import Image
from toys import encoded, photo

from meadow.pipeline.formats import NAMES
from meadow.serving import server

pytestmark = pytest.mark.slow
GOOD = encoded(photo(1))
TEXT_FIELD = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n'
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def client(packaged: Path) -> Iterator[httpx.Client]:
    """Talk to `bentoml serve` on the built Bento."""
    with (
        server.serving(packaged / server.BENTO) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


@pytest.mark.parametrize("kind", NAMES)
def test_a_photo_gets_an_answer_by_either_door(client: httpx.Client, kind: str) -> None:
    """As the multipart field `file`, and as the whole body with any content type."""
    data = HEIC if kind == "HEIF" else encoded(photo(2), kind)
    by_field = client.post("/predict", files={"file": ("x.jpg", data, "image/jpeg")})
    by_body = client.post("/predict", content=data, headers={"Content-Type": "image/x-anything"})
    answer = by_field.json()

    assert by_field.status_code == by_body.status_code == 200
    assert answer == by_body.json()
    assert list(answer) == [
        "label",
        "confidence",
        "probabilities",
        "prediction_set",
        "in_distribution",
        "model",
    ]
    assert set(answer["prediction_set"]) <= set(answer["probabilities"])
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert answer["probabilities"][answer["label"]] == answer["confidence"]
    assert answer["model"]["name"] == "photo_classifier"


def test_the_served_answer_is_the_evaluated_one(client: httpx.Client, built: Path) -> None:
    """For every test photo, to 1e-6."""
    with (built / "reports/predictions.csv").open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            data = (built / "data/raw" / record["path"]).read_bytes()
            answer = client.post("/predict", content=data).json()
            for name, p in answer["probabilities"].items():
                assert p == pytest.approx(float(record[f"p({name})"]), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 415),
        (b"hello", {}, 415),
        (b'{"url": "http://127.0.0.1/x.jpg"}', {"Content-Type": "application/json"}, 415),
        (b"http://127.0.0.1/x.jpg", {"Content-Type": "text/plain"}, 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {"Content-Type": "image/svg+xml"}, 415),
        (encoded(photo(1), "ICO"), {"Content-Type": "image/x-icon"}, 415),
        (GOOD[: len(GOOD) // 2], {"Content-Type": "image/jpeg"}, 422),
        (encoded(Image.new("RGB", (4, 400))), {"Content-Type": "image/jpeg"}, 422),
        (encoded(Image.new("1", (9000, 9000)), "PNG"), {"Content-Type": "image/png"}, 413),
        (GOOD + b"x" * 21 * 2**20, {"Content-Type": "image/jpeg"}, 413),
        (GOOD, MULTIPART, 400),
        (b"", MULTIPART, 400),
        (b"--b\r\n", MULTIPART, 400),
        (GOOD, {"Content-Type": "multipart/form-data"}, 400),
        (TEXT_FIELD, MULTIPART, 400),
        (b"cos\nsystem\n", {"Content-Type": "application/vnd.bentoml+pickle"}, 415),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, bytes) else f"{len(value)}",
)  # fmt: skip
def test_a_bad_request_is_the_clients_fault(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Never a 5xx, and always a JSON error."""
    answer = client.post("/predict", content=body, headers=headers)

    assert answer.status_code == status
    assert "error" in answer.text


def test_a_wrong_field_names_the_right_one(client: httpx.Client) -> None:
    """The commonest mistake of a first request."""
    answer = client.post("/predict", files={"photo": ("x.jpg", GOOD, "image/jpeg")})

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.pop("request_id") == answer.headers["x-request-id"]
    assert error == {
        "code": 400,
        "reason": "malformed",
        "message": "no photo in the multipart field 'file'; fields: photo",
    }


def test_two_files_are_one_too_many(client: httpx.Client) -> None:
    """The answer would not say which of them it is about."""
    files = [("file", ("a.jpg", GOOD, "image/jpeg")), ("file", ("b.jpg", GOOD, "image/jpeg"))]

    assert client.post("/predict", files=files).status_code == 400


def test_a_batch_has_an_answer_or_an_error_for_each(client: httpx.Client) -> None:
    """In order, and each is what the photo gets alone."""
    bodies = [GOOD, b"hello", encoded(photo(2)), GOOD[:300]]
    files = [("files", (f"{i}.jpg", body)) for i, body in enumerate(bodies)]
    answer = client.post("/predict/batch", files=files)
    results = answer.json()["predictions"]

    assert answer.status_code == 200
    assert results[0] == client.post("/predict", content=GOOD).json()
    assert results[2] == client.post("/predict", content=bodies[2]).json()
    assert [result.get("error", {}).get("code") for result in results] == [None, 415, None, 422]


def test_a_batch_has_one_to_16_photos(client: httpx.Client) -> None:
    """More are refused as a whole, and so is another kind of body."""
    files = [("files", (f"{i}.jpg", GOOD)) for i in range(17)]

    assert client.post("/predict/batch", files=files[:16]).status_code == 200
    for wrong in ({"files": files}, {"files": {"file": GOOD}}, {"content": GOOD}):
        assert client.post("/predict/batch", **wrong).status_code == 400


def test_top_k_are_the_most_probable(client: httpx.Client) -> None:
    """Highest first; more than there are is all of them."""
    whole = client.post("/predict", content=GOOD).json()
    for k, expected in (("1", 1), ("2", 2), ("99", 2)):
        answer = client.post("/predict", content=GOOD, params={"top_k": k}).json()
        p = answer["probabilities"]
        assert len(p) == expected
        assert list(p) == sorted(p, key=lambda name: -p[name])
        assert p.items() <= whole["probabilities"].items()
    for wrong in ("0", "-1", "two", "", "1.5", "²"):
        assert client.post("/predict", content=GOOD, params={"top_k": wrong}).status_code == 400


def test_the_model_describes_itself(client: httpx.Client, built: Path) -> None:
    """What it takes, how good it is, and which bytes it is."""
    model = client.get("/model").json()

    assert model["classes"] == ["gold", "moss"]
    assert (
        model["sha256"] == sha256((built / "models/classifier/model.onnx").read_bytes()).hexdigest()
    )
    assert model["input"]["size"] == 32
    assert model["metrics"] == json.loads((built / "metrics/evaluate.json").read_text())
    assert model["versions"].keys() == {"bentoml", "numpy", "onnxruntime", "pillow"}


def test_metrics_tell_what_was_answered(client: httpx.Client) -> None:
    """And have the same series from the start, whatever is asked and answered."""

    def series() -> dict[str, str]:
        lines = client.get("/metrics").text.splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith("meadow_"))

    before = series()
    client.post("/predict", content=GOOD)
    client.post("/predict", content=b"hello")
    client.get("/docs.json")
    client.post("/swagger-ui.css")  # nobody else asks for it
    for i in range(50):
        client.get(f"/{i}")
    after = series()

    def grown(name: str) -> float:
        return float(after[name]) - float(before[name])

    assert after.keys() == before.keys()
    assert grown('meadow_requests_total{route="other",status="404"}') == 50
    assert grown('meadow_requests_total{route="/docs.json",status="200"}') == 1
    assert grown('meadow_requests_total{route="/predict",status="200"}') == 1
    assert grown('meadow_rejects_total{reason="format"}') == 1
    assert grown('meadow_phase_seconds_count{phase="network"}') == 1
    assert sum(grown(name) for name in after if "predictions_total" in name) == 1


def test_a_photo_on_its_side_is_seen_upright(client: httpx.Client) -> None:
    """Phones store photos lying; the service sees what evaluate sees."""
    upright = photo(5)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    answers = [
        client.post("/predict", content=data).json()["probabilities"]
        for data in (encoded(upright, "PNG"), encoded(stored, "PNG", exif=exif))
    ]

    assert answers[0] == answers[1]


def test_the_other_addresses_answer(client: httpx.Client) -> None:
    """Health for people and orchestrators, docs, OpenAPI, metrics."""
    for path in ("/health", "/docs", "/docs.json", "/schema.json", "/livez", "/metrics"):
        assert client.get(path).status_code == 200, path
        assert client.get(f"{path}/").status_code == 200, path
        assert client.head(path).status_code == 200, path
    assert client.get("/health").json() == {"status": "ok"}
    for path in client.get("/docs.json").json()["paths"]:
        assert client.get(path).status_code in (200, 405), path


def test_the_pages_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    """They work offline and tell nobody who reads them; the Bento has all their files."""
    for path in ("/", "/docs"):
        page = client.get(path)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for link in set(re.findall(r'(?:src|href)="([^"#]+)"', page.text)):
            assert link.startswith("data:") or client.get(f"/{link}").status_code == 200, link


BENTOML = """
import json, sys
import bentoml
from pathlib import Path
from PIL import Image

url, good, bad = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
with bentoml.SyncHTTPClient(url) as service, Image.open(good) as picture:
    answers = [service.predict(file=good), service.predict(file=picture)]
    answers += service.predict_batch(files=[good, bad])["predictions"]
    answers.append(service.explain(file=good))
    try:
        service.predict(file=bad)
    except bentoml.exceptions.BentoMLException as refusal:
        answers.append(refusal.error_code)
    print(json.dumps([list(service.endpoints), *answers]))
"""


def test_the_client_of_bentoml_calls_the_endpoints(client: httpx.Client, tmp_path: Path) -> None:
    """With paths or pictures; it learns from /schema.json what there is, and raises refusals.

    It leaves a folder behind, and warnings: it has a process of its own.
    """
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(GOOD)
    bad.write_bytes(b"hello")
    expected = client.post("/predict", content=GOOD).json()
    done = subprocess.run(
        [sys.executable, "-c", BENTOML, str(client.base_url), good, bad],
        env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    endpoints, by_path, by_picture, first, second, explained, refused = json.loads(done.stdout)

    assert endpoints == ["predict", "predict_batch", "explain"]
    assert by_path == by_picture == first == expected
    assert second["error"]["code"] == refused == 415
    assert explained["label"] == expected["label"]


def test_many_at_once_do_not_disturb_each_other(client: httpx.Client) -> None:
    """A damaged photo among good ones spoils its own answer alone."""
    bodies = [encoded(photo(i % 7)) if i % 5 else GOOD[:300] for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: client.post("/predict", content=body), bodies))

    assert [a.status_code for a in answers] == [200 if i % 5 else 422 for i in range(60)]
    by_photo: dict[int, list[float]] = {}
    for i, answer in enumerate(answers):
        if i % 5:
            p = list(answer.json()["probabilities"].values())
            assert np.array_equal(p, by_photo.setdefault(i % 7, p))

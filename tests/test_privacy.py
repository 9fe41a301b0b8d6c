"""What the service keeps, and what it never writes down, as docs/monitoring.md says."""

import json
import socket
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from toys import colour_classifier, encoded

from meadow.serving import server

pytestmark = pytest.mark.slow
SECRET = "Ada-Lovelace"  # noqa: S105  # of a client: no log, event or metric may have it
FORGED = '{"time": "2026-01-01", "request_id": "forged", "route": "/predict", "status": 200}'
KEPT_OF_A_PHOTO = {
    "time", "request_id", "photo", "model", "label", "probabilities", "set_size", "in_distribution",
    "distance", "brightness", "contrast", "sharpness", "warmth", "side", "detail", "bytes",
}  # fmt: skip
KEPT_BESIDE_A_PHOTO = {
    "time", "request_id", "photo", "model", "label", "probabilities", "prediction_set",
    "in_distribution", "kept",
}  # fmt: skip
KEPT_OF_A_REQUEST = {"time", "request_id", "method", "route", "status", "ms", "bytes", "reason"}


def photo_of_a_client() -> bytes:
    """Return a photo whose EXIF names its owner and place."""
    exif = Image.Exif()
    exif[0x013B] = SECRET  # artist
    exif[0x8825] = {1: "N", 2: (51.0, 30.0, 0.0)}
    return encoded(Image.new("RGB", (80, 80), "gold"), exif=exif)


def raw(url: str, text: str) -> None:
    """Send what no client of HTTP would, and take whatever comes."""
    where = urlsplit(url)
    with socket.create_connection(
        (where.hostname or "", where.port or 0), timeout=10
    ) as connection:
        connection.sendall(text.encode())
        connection.recv(1000)


def test_nothing_names_a_client_and_nobody_can_forge_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file name, header, address, query or EXIF reaches a log, event, metric or kept photo."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the server's log lies
    model = colour_classifier(tmp_path / "model", ["gold", "moss"])
    events = tmp_path / "events.jsonl"
    settings = {
        "MEADOW_MODEL": str(model), "MEADOW_EVENTS": str(events), "MEADOW_API_KEY": SECRET,
        "MEADOW_KEEP": "random:1", "MEADOW_KEEP_DIR": str(tmp_path / "kept"),
    }  # fmt: skip
    photo, requests = photo_of_a_client(), 0
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "User-Agent": SECRET,
        "Referer": f"https://{SECRET}.example",
        "Cookie": f"name={SECRET}",
        "X-Forwarded-For": f"203.0.113.7, {SECRET}",
        "X-Request-ID": f"{SECRET} {FORGED}",
        "Traceparent": f"00-{SECRET}-{FORGED}",
    }
    with server.serving("meadow.service:PhotoClassifier", **settings) as url:
        (log,) = tmp_path.glob("*/log")
        with httpx.Client(base_url=url, headers=headers) as client:
            for name in (f"{SECRET}.jpg", f"x\n{FORGED}\n.jpg", "\x1b[2J.jpg"):
                client.post("/predict", files={"file": (name, photo, SECRET)}).raise_for_status()
                client.post("/predict", files={name: (name, b"no photo")})
                requests += 2
            for path in (f"/{SECRET}", "/a%0a%7B", f"/predict?top_k={SECRET}%0d%0a%7B"):
                client.post(path, content=photo)
                requests += 1
            for label in (SECRET, f"gold\n{FORGED}"):
                client.post("/feedback", json={"request_id": "a", "label": label})
                requests += 1
            metrics = client.get("/metrics").text
        for head in (
            f"POST /predict HTTP/1.1\r\nHost: {SECRET}\r\nX-Request-ID: a\r\n {FORGED}\r\n\r\n",
            f"{SECRET} /predict HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            raw(url, head)
        end = time.monotonic() + 10
        texts = [""]
        while len(written(texts[0])) < requests or len(written(texts[1])) < 3:
            assert time.monotonic() < end
            time.sleep(0.05)
            texts = [file.read_text("utf-8") for file in (log, events)]

    for text in (*texts, metrics):
        assert SECRET not in text
        assert "forged" not in text
        assert "203.0.113.7" not in text
        assert "127.0.0.1" not in text.replace(url, "")
        assert "\x1b[2J" not in text
    assert len(written(texts[1])) == 3
    for text, kept in zip(texts, (KEPT_OF_A_REQUEST, KEPT_OF_A_PHOTO | {"kept"}), strict=True):
        assert {key for line in written(text) for key in line} == kept
    files = list((tmp_path / "kept").iterdir())
    assert len(files) == 6  # three photos, and what is beside them
    for file in files:
        assert SECRET.encode() not in file.read_bytes()
        assert "forged" not in file.name
        if file.suffix == ".json":
            assert json.loads(file.read_text()).keys() == KEPT_BESIDE_A_PHOTO
        else:
            with Image.open(file) as image:
                assert {name[:4] for name in image.info} <= {"jfif"}


def written(text: str) -> list[dict[str, Any]]:
    """Return the lines of a log that are JSON; BentoML writes others when it starts."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

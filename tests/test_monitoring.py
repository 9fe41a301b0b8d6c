"""What Prometheus, Alertmanager and Grafana read: checked by their tools, run against a service."""

import json
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from tools import need
from toys import colour_classifier, encoded

from meadow.inference.classifier import Classifier
from meadow.inference.reference import Reference
from meadow.inference.signals import DIGITS, SIGNALS, look
from meadow.pipeline.image import Preprocessing, decode
from meadow.pipeline.ports import answers, free_port
from meadow.serving import server
from meadow.serving.parent import end_with_parent

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/monitoring"
PAGE = (ROOT / "docs/monitoring.md").read_text("utf-8")
UNITS = [ROOT / "tests/alerts.yml", ROOT / "tests/alerts_of_weeks.yml"]
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
ALERTS = [rule for group in RULES for rule in group["rules"] if "alert" in rule]
BOARD = FOLDER / "grafana/meadow.json"
SECONDS = int(os.environ.get("INTERVAL", "3"))  # between scrapes and rules; 15 as committed
INTERVAL = f"{SECONDS}s"
WITHIN = 60  # seconds from a cause to its alert
KEY = "of the second service"
HELD = 1_000_000  # bytes of bodies
STANDING = {"MeadowLogLost", "MeadowVersionsDiffer"}  # two models, and events that have no folder
GOLD, PLUM = (encoded(Image.new("RGB", (80, 80), tint)) for tint in ("gold", "#4040ff"))
NAMES = sorted({alert["alert"] for alert in ALERTS})


def checked(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.needs("Prometheus")
def test_their_own_tools_find_nothing_wrong() -> None:
    """Configuration, rules and routes."""
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("promtool", "check", "config", "--lint-fatal", FOLDER / "prometheus.yml"),
        ("promtool", "check", "rules", "--lint-fatal", FOLDER / "rules.yml"),
        ("amtool", "check-config", FOLDER / "alertmanager.yml"),
        ("promtool", "test", "rules", *UNITS),
    )
    for command in commands:
        done = checked(*command)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.needs("Prometheus")
@pytest.mark.parametrize("expression", ["vector(1)", "vector(1) < 0"], ids=["always", "never"])
def test_each_alert_is_seen_to_fire_and_not_to_fire(expression: str, tmp_path: Path) -> None:
    """One that always fires fails its tests, and so does one that never does."""
    groups: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        rule["expr"] = expression
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    copies = [tmp_path / unit.name for unit in UNITS]
    for unit, copy in zip(UNITS, copies, strict=True):
        copy.write_text(unit.read_text().replace("../deploy/monitoring", str(tmp_path)))
    done = checked("promtool", "test", "rules", *copies)

    assert set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr)) == {*NAMES}


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    """With steps to follow."""
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)

    assert sorted(name for name, _ in sections) == NAMES
    for alert in ALERTS:
        anchor = f"docs/monitoring.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook"] == anchor
        kind = "**Page" if alert["labels"]["severity"] == "page" else "**[Tt]icket"
        assert re.search(kind.replace("**", r"\*\*"), dict(sections)[alert["alert"]])


class Receiver:
    """What Alertmanager's webhooks reach: the time at which each alert came, by name.

    It also says when a certificate ends, in place of what would look at one.
    """

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        came = self.came
        self.certificate_ends = ends = [time.time() + 90 * 86400]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                for alert in body["alerts"]:
                    if alert["status"] == "firing":
                        came.setdefault(alert["labels"]["alertname"], time.monotonic())
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:  # as prometheus-blackbox-exporter
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(f"probe_ssl_earliest_cert_expiry {ends[0]}\n".encode())

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, names: set[str], since: float) -> dict[str, float]:
        """Wait until all of them have come; return the seconds that each took."""
        while missing := names - self.came.keys():
            assert time.monotonic() < since + 2 * WITHIN, missing
            time.sleep(0.2)
        return {name: round(self.came[name] - since, 1) for name in sorted(names)}


@dataclass(frozen=True)
class Watched:
    """Two services with different models, and those who watch them.

    Attributes:
        urls: of both services.
        stop: ends one of them.
        prometheus, alertmanager: their URLs.
        receiver: gets the alerts.

    """

    urls: Sequence[str]
    stop: Sequence[Callable[[], object]]
    prometheus: str
    alertmanager: str
    receiver: Receiver

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus for the values of an expression now."""
        address = f"{self.prometheus}/api/v1/query"
        answer = httpx.get(address, params={"query": expression}).json()
        assert answer["status"] == "success", answer
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series


def reference_of(model: Path, photo: bytes) -> Reference:
    """Return the reference of a model that has seen nothing but this photo."""
    classifier = Classifier.load(model)
    answer = classifier.predict(photo)
    measured = {
        "confidence": answer.probabilities.max().round(DIGITS),
        "distance": round(answer.distance, DIGITS),
        "bytes": len(photo),
        **look(classifier.preprocessing(photo), classifier.preprocessing, *decode(photo).size),
    }
    nothing = np.zeros(100, np.int64)
    return Reference({name: np.full(100, measured[name]) for name in SIGNALS}, nothing, nothing)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run the committed configuration, with other addresses and shorter intervals."""
    need("Prometheus")
    folder = tmp_path_factory.mktemp("watched")
    ports = {name: free_port() for name in ("prometheus", "alertmanager")}
    address = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    receiver = Receiver()
    with ExitStack() as stack:
        urls, stops = [], []
        shadow = colour_classifier(
            folder / "shadow", ["gold", "moss"], preprocessing=Preprocessing(48, "squash")
        )
        no_folder, events = (folder / name for name in ("2/model.json/none", "events.jsonl"))
        for classes, more in (
            (["gold", "moss"], {"MEADOW_EVENTS": str(no_folder), "MEADOW_SHADOW": str(shadow)}),
            (
                ["gold", "moss", "plum"],
                {
                    "MEADOW_EVENTS": str(events),
                    "MEADOW_API_KEY": KEY,
                    "MEADOW_KEEP": "random:1",
                    "MEADOW_KEEP_DIR": str(folder / "kept"),
                },
            ),
        ):
            model = colour_classifier(folder / str(len(classes)), classes)
            reference_of(model, GOLD).save(model)
            service = stack.enter_context(ExitStack())
            urls.append(
                service.enter_context(
                    server.serving(
                        "meadow.service:PhotoClassifier",
                        MEADOW_MODEL=str(model),
                        MEADOW_THREADS="1",
                        MEADOW_QUEUE="4",
                        MEADOW_MAX_HELD=str(HELD),
                        **more,
                    )
                )
            )
            stops.append(service.close)
        targets = [url.removeprefix("http://") for url in urls]
        texts = {file.name: file.read_text() for file in FOLDER.glob("*.yml")}
        texts["prometheus.yml"] = (
            texts["prometheus.yml"]
            .replace('"127.0.0.1:9093"', json.dumps(address["alertmanager"]))
            .replace('["127.0.0.1:3000"]', json.dumps(targets))
            .replace("scrape_timeout: 5s", f"scrape_timeout: {INTERVAL}")
            .replace("# authorization", "authorization")
            .replace("127.0.0.1:9115", receiver.url.removeprefix("http://"))
        )
        (folder / "api-key").write_text(KEY)
        texts["alertmanager.yml"] = texts["alertmanager.yml"].replace(
            "http://127.0.0.1:9095", receiver.url
        )
        for name, text in texts.items():
            short = re.sub(r"(for|interval): (15s|1m|5m|15m|1h)\b", rf"\1: {INTERVAL}", text)
            short = short.replace("[7d]", f"[{5 * SECONDS}s]").replace("> 100", "> 10")
            (folder / name).write_text(short)
        for command in (
            ["prometheus", f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={address['prometheus']}"],
            ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml",
             f"--storage.path={folder}/alertmanager", "--cluster.listen-address=",
             f"--web.listen-address={address['alertmanager']}"],
        ):  # fmt: skip
            log = stack.enter_context((folder / f"{command[0]}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=end_with_parent)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        stack.callback(receiver.server.server_close)
        stack.callback(receiver.server.shutdown)
        bases = {name: f"http://{where}" for name, where in address.items()}
        end = time.monotonic() + 30
        while not all(answers(f"{base}/-/ready") for base in bases.values()):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield Watched(urls, stops, bases["prometheus"], bases["alertmanager"], receiver)


def posting(stack: ExitStack, url: str, body: bytes, *, clients: int, pause: float) -> None:
    """Post a body again and again from so many clients, until the stack ends."""
    done = threading.Event()

    def post() -> None:
        with httpx.Client(timeout=60) as client:
            while not done.wait(pause):
                with suppress(httpx.TransportError):  # the service was killed
                    client.post(f"{url}/predict", content=body)

    pool = stack.enter_context(ThreadPoolExecutor(clients))
    stack.callback(done.set)
    for _ in range(clients):
        pool.submit(post)


def label(url: str) -> None:
    """Have a photo answered, and tell its label."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        answered = client.post("/predict", content=GOLD).headers["x-request-id"]
        true = {"request_id": answered, "label": "gold"}
        client.post("/feedback", json=true).raise_for_status()


def shown(board: dict[str, Any]) -> list[str]:
    """Return all queries of a dashboard, Grafana's variables filled in."""
    return [
        target["expr"].replace("$job", "meadow").replace("$__rate_interval", "1m")
        for panel in board["panels"]
        for target in panel["targets"]
    ]


@pytest.mark.needs("Go")
def test_the_dashboard_is_one_of_grafana(tmp_path: Path) -> None:
    """Grafana's own types have all its fields; a misspelt one is refused."""
    check = ("go", "-C", ROOT / "tests/dashboard", "run", ".")
    text = BOARD.read_text()
    done = checked(*check, BOARD)
    assert done.returncode == 0, done.stderr
    for field in ("gridPos", "expr", "templating"):
        misspelt = tmp_path / f"{field}.json"
        misspelt.write_text(text.replace(f'"{field}"', f'"{field.lower()}s"'))
        assert f"{field.lower()}s" in checked(*check, misspelt).stderr


@pytest.mark.slow
def test_each_panel_shows_something_and_no_alert_is_false(watched: Watched) -> None:
    """Each query of the dashboard has an answer while photos come, of which few are odd or none."""
    with ExitStack() as stack:
        for body, pause in ((GOLD, 0.05), (PLUM, 1.5), (b"hello", 1.5)):
            posting(stack, watched.urls[0], body, clients=1, pause=pause)
        queries = shown(json.loads(BOARD.read_text()))
        end = time.monotonic() + WITHIN
        while empty := [query for query in queries if not numbers(watched.query(query))]:
            assert time.monotonic() < end, empty
            label(watched.urls[1])
            time.sleep(1)
        watched.receiver.wait(STANDING, time.monotonic())

    assert watched.receiver.came.keys() == STANDING


def numbers(series: list[dict[str, Any]]) -> list[float]:
    """Return the values of an answer that are numbers."""
    values = [float(one["value"][1]) for one in series]
    return [value for value in values if math.isfinite(value)]


@pytest.mark.slow
def test_each_alert_arrives(watched: Watched) -> None:
    """Two services are flooded, are sent noise and no photos, and end one after the other."""
    large = encoded(Image.new("RGB", (3000, 3000), "gold"), "PNG")
    url, receiver = watched.urls[0], watched.receiver
    with ExitStack() as stack:
        posting(stack, url, GOLD, clients=1, pause=0.3)
        receiver.wait(STANDING, time.monotonic())
    label(watched.urls[1])
    receiver.certificate_ends[0] = time.time() + 86400
    renewed_late = time.monotonic()
    with ExitStack() as stack:
        began = time.monotonic()
        posting(stack, url, large, clients=12, pause=0.3)
        took = receiver.wait({"MeadowSlow", "MeadowQueueFull"}, began)
    with ExitStack() as stack:
        began = time.monotonic()
        for body in (PLUM, b"hello", bytes(HELD + 1)):
            posting(stack, url, body, clients=1, pause=0.05)
        provoked = {"Faults", "Rejects", "Memory", "Unlike", "Drift"}
        took |= receiver.wait({f"Meadow{name}" for name in provoked}, began)
        took |= receiver.wait({"MeadowCertificate"}, renewed_late)
        receiver.wait({"MeadowLabelsStayAway"}, began)  # which looks at weeks
    for stop, name in zip(watched.stop, ("MeadowInstanceDown", "MeadowDown"), strict=True):
        began = time.monotonic()
        stop()
        took |= receiver.wait({name}, began)
    print(took)
    told = httpx.get(f"{watched.alertmanager}/api/v2/alerts").json()
    state = {alert["labels"]["alertname"]: alert["status"]["state"] for alert in told}

    assert receiver.came.keys() == {*NAMES}
    assert state.pop("MeadowDown") == "active"
    assert set(state.values()) == {"suppressed"}  # one thing to say, not eleven
    assert max(took.values()) < WITHIN

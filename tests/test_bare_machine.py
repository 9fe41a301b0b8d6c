"""A machine of one's own: the systemd unit, and nginx in front of two instances of the service."""

import http.client
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from certificates import self_signed
from tools import NGINX, need
from toys import encoded, photo

from meadow.pipeline.ports import free_port
from meadow.serving.parent import end_with_parent, kill_with_parent

ROOT = Path(__file__).parents[1]
UNIT = (ROOT / "deploy/systemd/meadow@.service").read_text()
CONF = (ROOT / "deploy/nginx.conf").read_text()
PAGE = (ROOT / "docs/operating.md").read_text().partition("## A machine of one's own")[2]
INSTALL, _, UPDATE = (
    block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[:3]
)
STALLED = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    """Of 10 points at most 1.5: it has a network, and computes."""
    unit = tmp_path / "meadow@3000.service"
    unit.write_text(UNIT.replace("/opt/meadow/venv/bin/bentoml", "/bin/true"))
    for command in (["verify"], ["security", "--offline=true", "--threshold=15"]):
        done = subprocess.run(
            ["systemd-analyze", "--no-pager", *command, str(unit)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]


class Site(NamedTuple):
    """What runs.

    Attributes:
        ports: of nginx: HTTP, HTTPS.
        instances: the processes of the service.
        start: starts an instance, by its place.
        context: trusts the certificate of nginx.

    """

    ports: tuple[int, int]
    instances: list["subprocess.Popen[bytes]"]
    backends: list[int]
    folder: Path
    context: ssl.SSLContext

    def connect(self) -> "closing[http.client.HTTPSConnection]":
        """Open a connection to nginx."""
        port = self.ports[1]
        return closing(http.client.HTTPSConnection("127.0.0.1", port, context=self.context))


def directive(name: str) -> list[str]:
    """Return the values of a directive of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def start(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start an instance as the unit says; return when it is ready."""
    (command,) = directive("ExecStart")
    command = command.replace("/opt/meadow", str(folder)).replace("%i", str(port))
    environment = dict(pair.split("=", 1) for pair in shlex.split(directive("Environment")[0]))
    environment |= {"PATH": os.environ["PATH"], "BENTOML_HOME": str(folder / f"home-{port}")}
    with (folder / f"log-{port}").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, ROOT / "tests/sandbox.py",
                *shlex.split(directive("RestrictAddressFamilies")[0]), "--", *shlex.split(command),
            ],
            cwd=folder, env=environment, stdout=log, stderr=log, preexec_fn=kill_with_parent,
        )  # fmt: skip
    wait = UPDATE[1].replace(":3000", f":{port}")
    done = subprocess.run(["sh", "-c", wait], check=False, capture_output=True)
    assert done.returncode == 0, (folder / f"log-{port}").read_text()[-3000:]
    return process


@pytest.fixture(scope="module")
def site(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return two instances behind nginx; its ports, paths and time-outs are the test's."""
    need("nginx")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(packaged / "models/bento", folder / "v1.1.0")  # a test of releases gets it
    for line in INSTALL[1:]:
        moved = line.replace("/opt/meadow", str(folder)).replace("python3", sys.executable)
        subprocess.run(["sh", "-c", moved], check=True, capture_output=True)
    trusted = self_signed(folder / "certificates")
    plain, tls, *backends = (free_port() for _ in range(4))
    conf = CONF
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ", f"listen 127.0.0.1:{tls} "),
        ("127.0.0.1:3000", f"127.0.0.1:{backends[0]}"),
        ("127.0.0.1:3001", f"127.0.0.1:{backends[1]}"),
        ("/etc/ssl/meadow/fullchain.pem", str(trusted)),
        ("/etc/ssl/meadow/key.pem", str(trusted.with_name("private.key"))),
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/var/log/nginx/error.log", f"{folder}/error.log"),
        ("rate=50r/s", "rate=10000r/s"),
        ("client_body_timeout 10s", "client_body_timeout 1s"),
        ("client_header_timeout 10s", "client_header_timeout 1s"),
    ):
        assert old in conf
        conf = conf.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};\n"  # root's nginx would become nobody
    (folder / "nginx.conf").write_text(user + conf.replace("http {", f"http {{ {paths}", 1))
    instances = [start(folder, port) for port in backends]
    assert NGINX
    nginx = subprocess.Popen(
        [NGINX, "-c", folder / "nginx.conf", "-e", folder / "error.log", "-g", "daemon off;"],
        preexec_fn=end_with_parent,
    )
    while nginx.poll() is None and not listens(tls):
        time.sleep(0.05)
    context = ssl.create_default_context(cafile=str(trusted))
    yield Site((plain, tls), instances, backends, folder, context)
    for process in (nginx, *instances):
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", "/predict", body, {"Content-Type": "application/octet-stream"})
    response = connection.getresponse()
    return response.status, response.read()


@pytest.mark.slow
def test_answers_come_by_tls_and_connections_stay_open(site: Site) -> None:
    """Also those between nginx and the service, of which there are few."""
    with site.connect() as connection:
        statuses, sockets = [], set()
        for number in range(20):
            statuses.append(ask(connection, encoded(photo(number)))[0])
            sockets.add(connection.sock)
        connection.request("GET", "/livez")
        response = connection.getresponse()
        response.read()
        connection.request("GET", "/metrics")
        status = connection.getresponse().status

    assert statuses == [200] * 20
    assert len(sockets) == 1
    assert response.getheader("Strict-Transport-Security") == "max-age=31536000"
    assert response.getheader("Server") == "nginx"  # and not which version
    assert status == 404


@pytest.mark.slow
def test_plain_http_is_sent_to_tls(site: Site) -> None:
    """With the method and the body: 308, not 301."""
    with closing(http.client.HTTPConnection("127.0.0.1", site.ports[0])) as connection:
        connection.request("POST", "/predict", b"photo", {"Host": "photos.example"})
        response = connection.getresponse()

    assert response.status == 308
    assert response.getheader("Location") == "https://photos.example/predict"


@pytest.mark.slow
def test_a_body_is_as_large_as_the_service_takes(site: Site) -> None:
    """What is larger nginx refuses by its length, in the words of the service."""
    answers = []
    for size in (20 * 2**20, 20 * 2**20 + 1):
        with site.connect() as connection:
            status, body = ask(connection, bytes(size))
            answers.append((status, json.loads(body)["error"]))

    assert [status for status, _ in answers] == [415, 413]  # zeros are no photo
    assert [error["reason"] for _, error in answers] == ["format", "too_large"]
    assert answers[1][1]["code"] == 413


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["", STALLED])
def test_a_client_that_sends_nothing_more_is_left(site: Site, sent: str) -> None:
    """It holds a connection of nginx, for the time that the file names, and none of the service."""
    with (
        socket.create_connection(("127.0.0.1", site.ports[1]), timeout=30) as raw,
        site.context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(sent.encode())
        assert connection.recv(1000) == b""  # in 1 s; nginx's own default is 60, the socket's 30


@pytest.mark.slow
def test_a_restart_of_one_instance_after_the_other_loses_no_request(site: Site) -> None:
    """As an update does it."""
    failed: list[object] = []
    counts = [0] * 4
    over = threading.Event()

    def client(place: int) -> None:
        with site.connect() as connection:
            while not over.is_set():
                try:
                    status, answer = ask(connection, encoded(photo(place)))
                except (OSError, http.client.HTTPException) as error:
                    failed.append(error)
                    return
                counts[place] += 1
                if status != 200:
                    failed.append((status, answer))

    clients = [threading.Thread(target=client, args=(place,)) for place in range(4)]
    for thread in clients:
        thread.start()
    for place, port in enumerate(site.backends):
        site.instances[place].terminate()
        site.instances[place].wait()
        site.instances[place] = start(site.folder, port)
    over.set()
    for thread in clients:
        thread.join()

    assert failed == []
    assert min(counts) > 0

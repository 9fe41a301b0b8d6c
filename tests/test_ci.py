"""The workflows of CI and their scripts, linted and run here as far as they need no GitHub."""

import base64
import hashlib
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import self_signed
from clones import ROOT, attempt, copied, runner
from cluster import api_server
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from servers import BUCKET, Server, meadow, small_project
from tools import need

from meadow.storage import go_tools

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCRIPTS = [ROOT / "deploy/airflow/step"]
SCRIPTS += [path for path in sorted((ROOT / ".ci").iterdir()) if "bash" in path.read_text()[:30]]
PINNED = re.compile(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def test_actionlint_and_shellcheck_have_nothing_to_say() -> None:
    """Of the workflows with the shell in them, and of the scripts."""
    need("Go", "shellcheck")
    actionlint = go_tools.binary("actionlint")
    for program, paths in ((actionlint, WORKFLOWS), ("shellcheck", SCRIPTS)):
        done = subprocess.run([program, *paths], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_no_more_than_it_needs(path: Path) -> None:
    """Rights are given job by job, actions are pinned by commit, no job runs for ever."""
    text = path.read_text()
    workflow = yaml.safe_load(text)
    for line in text.splitlines():
        assert "uses:" not in line or PINNED.search(line), line

    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert "concurrency" in {**workflow, **job} or "outputs" in job
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
    assert "secrets." not in text  # keys are made for the job


def test_gitlabs_file_is_as_its_schema_says() -> None:
    """The one that GitLab publishes, as check-jsonschema has it."""
    path = ROOT / "deploy/gitlab-ci.yml"
    command = ["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", str(path)]
    broken = path.read_text().replace("script:", "skript:", 1)
    good = subprocess.run(command, check=False, capture_output=True, text=True)
    bad = subprocess.run(
        [*command[:-1], "-"], input=broken, check=False, capture_output=True, text=True
    )

    assert good.returncode == 0, good.stdout
    assert bad.returncode == 1


def test_gitlab_runs_the_same_scripts() -> None:
    """What a job does is no business of the CI's language."""
    text = (ROOT / "deploy/gitlab-ci.yml").read_text()
    called = set(re.findall(r"\.ci/[\w.]+", "".join(path.read_text() for path in WORKFLOWS)))

    assert called - {".ci/comment"} <= set(re.findall(r"\.ci/[\w.]+", text))
    assert all((ROOT / name).exists() for name in called)


def encoded(data: bytes | dict[str, Any]) -> str:
    """Return bytes, or an object as JSON, as a part of a JSON Web Token."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Gives tokens to jobs as GitHub does, and tells others the key that they are signed with.

    Attributes:
        url: where others find that key.
        job: the environment of a job.

    """

    def __init__(self, certificate: Path | None = None) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        number = key.public_key().public_numbers().n.to_bytes(256, "big")
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer: dict[str, Any] = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
                if self.path == "/jwks":
                    public = {"kty": "RSA", "n": encoded(number), "e": "AQAB"}
                    answer = {"keys": [{**public, "alg": "RS256", "use": "sig", "kid": "1"}]}
                elif self.path.startswith("/token"):
                    if self.headers["Authorization"] != "bearer of the job":
                        self.send_error(401)
                        return
                    answer = {"value": issuer.token(key, self.path.rpartition("=")[2])}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, certificate.with_name("private.key"))
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}"
        self.job = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?v=2",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of the job",
        }
        threading.Thread(target=self.server.serve_forever).start()

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()

    def token(self, key: rsa.RSAPrivateKey, audience: str) -> str:
        """Return what GitHub says of a job, signed."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "repo:a/b:pull_request", "aud": audience}
        parts: list[dict[str, Any]] = [
            {"alg": "RS256", "kid": "1"},
            {**claims, "iat": now, "exp": now + 300},
        ]
        text = ".".join(encoded(part) for part in parts)
        signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{encoded(signature)}"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Return who vouches for jobs."""
    issuer = Issuer()
    yield issuer
    issuer.close()


def test_a_job_proves_what_it_is(issuer: Issuer) -> None:
    """GitHub gives the token for an audience; GitLab has it in a variable; kubectl gets it too."""
    oidc = str(ROOT / ".ci/oidc")
    run = runner(ROOT)
    credential = json.loads(run(oidc, "kubernetes", "exec", **issuer.job))
    claims = credential["status"]["token"].split(".")[1]

    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["aud"] == "kubernetes"
    assert run(oidc, "kubernetes", ID_TOKEN="of GitLab") == "of GitLab\n"  # noqa: S106
    other = {**issuer.job, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of another"}
    refused = attempt(ROOT, oidc, "kubernetes", **other)
    assert refused.returncode != 0
    assert refused.stdout == ""


@pytest.mark.slow
def test_a_job_gets_keys_of_the_remote_for_an_hour(issuer: Issuer, tmp_path: Path) -> None:
    """From a real MinIO, which trusts the issuer: DVC pulls with them, and with nothing else."""
    audience = "sts.amazonaws.com"
    server = Server(
        tmp_path / "minio",
        MINIO_IDENTITY_OPENID_CONFIG_URL=f"{issuer.url}/.well-known/openid-configuration",
        MINIO_IDENTITY_OPENID_CLIENT_ID=audience,
        MINIO_IDENTITY_OPENID_ROLE_POLICY="readwrite",
    )
    try:
        server.client().create_bucket(Bucket=BUCKET)
        project = small_project(tmp_path / "project", server.endpoint)
        run = runner(project)
        run(*meadow("share"))
        shutil.rmtree(project / ".dvc/cache")
        shutil.rmtree(project / "data/raw")
        run("dvc", "remote", "modify", "--local", "minio", "access_key_id", "--unset")
        run("dvc", "remote", "modify", "--local", "minio", "secret_access_key", "--unset")
        role = encoded(hashlib.sha1(audience.encode()).digest())  # noqa: S324
        job = {
            **issuer.job,
            "ROLE": f"arn:minio:iam:::role/{role}",
            "STS_URL": server.endpoint,
        }
        done = attempt(project, sys.executable, str(ROOT / ".ci/keys.py"), **job)
        keys = dict(line.split("=", 1) for line in done.stdout.splitlines())
        without = attempt(project, "dvc", "pull", AWS_EC2_METADATA_DISABLED="true")
        run("dvc", "pull", **keys)
    finally:
        server.kill()

    assert without.returncode != 0
    assert (project / "data/raw/7.txt").exists()
    assert sorted(keys) == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    assert done.stderr.splitlines() == [f"::add-mask::{key}" for key in keys.values()]


@pytest.mark.slow
def test_a_job_is_known_to_the_cluster_by_its_token(tmp_path: Path) -> None:
    """A real API server, which trusts the issuer: no kubeconfig is stored in the CI."""
    certificate = self_signed(tmp_path / "certificates")
    issuer = Issuer(certificate)
    authentication = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {
                    "url": issuer.url,
                    "audiences": ["kubernetes"],
                    "certificateAuthority": certificate.read_text(),
                },
                "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
            }
        ],
    }
    (tmp_path / "authentication.yaml").write_text(json.dumps(authentication))
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "meadow").write_text("#!/bin/sh\necho $*; kubectl auth whoami --output=yaml\n")
    (programs / "meadow").chmod(0o755)
    try:
        with api_server(tmp_path, f"--authentication-config={tmp_path}/authentication.yaml") as k:
            done = attempt(
                tmp_path, ".ci/deploy", "prod", **issuer.job,
                CURL_CA_BUNDLE=str(certificate), PATH=k.environment()["PATH"],
                KUBERNETES_SERVER=f"https://127.0.0.1:{k.port}",
                KUBERNETES_CA=(tmp_path / "certs/apiserver.crt").read_text(),
            )  # fmt: skip
    finally:
        issuer.close()

    assert done.returncode == 0, done.stderr
    assert "deploy --stage prod" in done.stdout
    assert "username: repo:a/b:pull_request" in done.stdout


GH = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in *--jq*) echo $COMMENTS;; esac
for argument; do case $argument in body=@*) cat "${argument#body=@}" >> "$LOG";; esac; done
"""


@pytest.mark.parametrize(("comments", "sent"), [("", "issues/7/comments"), ("31", "comments/31")])
def test_a_pull_request_gets_one_comment(tmp_path: Path, comments: str, sent: str) -> None:
    """The second run replaces what the first one wrote."""
    gh, log = tmp_path / "gh", tmp_path / "log"
    gh.write_text(GH)
    gh.chmod(0o755)
    (tmp_path / "compare.md").write_text("### `x` against main\n")
    runner(tmp_path)(
        str(ROOT / ".ci/comment"), "compare.md", COMMENTS=comments, LOG=str(log), NUMBER="7",
        PATH=f"{tmp_path}:{os.environ['PATH']}", REPOSITORY="a/b",
    )  # fmt: skip
    _, call, marker, body = log.read_text().splitlines()

    assert f"repos/a/b/issues/{sent.removeprefix('issues/')}" in call
    assert ("PATCH" in call) == bool(comments)
    assert (marker, body) == ("<!-- .ci/comment -->", "### `x` against main")


@pytest.mark.parametrize("passed", [True, False])
def test_the_gate_is_a_check(tmp_path: Path, passed: bool) -> None:
    """Its words are in the log, its verdict is the status."""
    (tmp_path / "metrics").mkdir()
    verdict = {"passed": passed, "why": ["so"]}
    (tmp_path / "metrics/gate.json").write_text(json.dumps(verdict))
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/gate", tmp_path / ".ci")
    done = subprocess.run([tmp_path / ".ci/gate"], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0 if passed else 1, "so\n")


def act(
    project: Path, event: str, content: dict[str, Any], name: str, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a workflow in a copy of a project, on this machine, as if something had happened there.

    The environment that it would install is that of the tests, what other actions do is left out,
    and docker and gh write down what they are asked.
    """
    need("Go")
    programs = project.parent / "programs"
    programs.mkdir(exist_ok=True)
    for program in ("docker", "gh"):
        (programs / program).write_text(GH)
        (programs / program).chmod(0o755)
    (programs / "action.yml").write_text(
        "name: nothing\ndescription: nothing\n"
        "runs: {using: composite, steps: [{run: 'true', shell: bash}]}\n"
    )
    (programs / "event.json").write_text(json.dumps(content))
    (project / ".venv").mkdir(exist_ok=True)
    (project / ".venv/installed").touch()
    workflow = project / f".github/workflows/{name}.yml"
    others = set(re.findall(r"uses: (?!actions/checkout)(\S+@\w+)", workflow.read_text()))
    command = [
        str(go_tools.binary("act")), event, "--workflows", str(workflow), "--eventpath",
        str(programs / "event.json"), "--platform", "ubuntu-24.04=-self-hosted",
        "--container-daemon-socket=-", "--action-offline-mode", "--no-cache-server",
        "--use-gitignore=false", "--env=MAKEFLAGS=--touch", *options,
        *(f"--local-repository={action}={programs}" for action in others),
    ]  # fmt: skip
    return attempt(
        project, *command, LOG=str(project.parent / "log"), XDG_CACHE_HOME=str(project.parent),
        PATH=f"{programs}:{os.environ['PATH']}", **environment,
    )  # fmt: skip


@pytest.mark.slow
def test_a_pull_request_is_run_compared_and_judged(first_run: Path, tmp_path: Path) -> None:
    """The whole job: what has changed runs, a comment says so, the gate fails the check."""
    project = copied(first_run, tmp_path / "project")
    run = runner(project)
    run("git", "remote", "add", "origin", "https://github.com/a/b.git")
    run("dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    run("dvc", "push", "-q")
    base = run("git", "rev-parse", "HEAD").strip()
    run("sed", "-i", "s/min_accuracy: 0.8/min_accuracy: 0.7/", "params.yaml")
    run("git", "commit", "-qam", "an idea that was not run")
    shutil.rmtree(project / ".dvc/cache")
    here = {"full_name": "a/b"}
    pull_request = {"number": 7, "base": {"sha": base}, "head": {"repo": here}}
    done = act(
        project, "pull_request", {"pull_request": pull_request, "repository": here}, "report"
    )
    log = (tmp_path / "log").read_text()

    assert done.returncode == 1
    assert re.findall(r"Running stage '(\w+)'", done.stdout) == ["evaluate", "report", "package"]
    assert "Failure - Main .ci/gate" in done.stdout
    assert done.stdout.count("Failure - Main") == 1
    assert "evaluate.min&#95;accuracy" in log
    assert "The pipeline was not up to date, so CI ran it." in log


@pytest.mark.parametrize("tag", ["classifier#prod#12", "classifier#staging#1"])
def test_a_deployment_goes_to_the_stage_of_its_tag(tmp_path: Path, tag: str) -> None:
    """Its environment is the one whose rules say who may deploy there."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / ".github", project / ".github")
    run = runner(project)
    run("git", "init", "-q", "-b", "main")
    run("git", "commit", "-q", "--allow-empty", "-m", "first")
    done = act(project, "push", {"ref": f"refs/tags/{tag}"}, "deploy", "--job=stage")

    assert f"| name={tag.split('#')[1]}\n" in done.stdout
    assert done.returncode == 0


@pytest.mark.usefixtures("project")
def test_the_notes_of_a_release_compare_with_the_one_before(tmp_path: Path) -> None:
    """By version, not by date: v1.10.0 comes after v1.9.0. The first has its verdict."""
    shutil.copytree(ROOT / ".ci", ".ci")
    run = runner(tmp_path)
    run("git", "init", "-q", "-b", "main")
    for name in ("v1.10.0", "v1.0.0", "v1.9.0"):
        run("git", "commit", "-q", "--allow-empty", "-m", name)
        run("git", "tag", "-a", f"classifier@{name}", "-m", f"passed: {name}")

    title = run(".ci/notes", "classifier@v1.10.0").splitlines()[0]
    assert re.findall(r"v[\d.]+", title) == ["v1.10.0", "v1.9.0"]
    assert run(".ci/notes", "classifier@v1.0.0").strip() == "passed: v1.0.0"


@pytest.mark.slow
def test_a_released_version_becomes_an_image_with_notes(first_run: Path, tmp_path: Path) -> None:
    """The whole job: the Bento comes from the remote, the image goes by its tags."""
    project = copied(first_run, tmp_path / "project")
    run = runner(project)
    run("git", "remote", "add", "origin", "https://github.com/A/b.git")
    run("dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    run("dvc", "push", "-q")
    run("gto", "register", "classifier", "--version", "v1.0.0", "--message", "as it is")
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "models/bento")
    done = act(project, "push", {"ref": "refs/tags/classifier@v1.0.0"}, "release")
    asked = (tmp_path / "log").read_text().splitlines()
    version = json.loads((project / "metrics/package.json").read_text())["version"]

    assert done.returncode == 0, done.stdout
    assert [line for line in asked if line.startswith("push")] == [
        f"push ghcr.io/a/b:{version}",
        "push ghcr.io/a/b:v1.0.0",
    ]
    assert asked[-1].startswith("release create classifier@v1.0.0 --verify-tag")

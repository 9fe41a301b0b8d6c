"""The command `meadow`: photos, weights, experiments, the remote. DVC runs the stages."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import chdir, nullcontext
from importlib import import_module
from pathlib import Path

from meadow import params
from meadow.commands import photo_set
from meadow.curation import discovery, overrides
from meadow.errors import MeadowError, run
from meadow.experiments import recipes
from meadow.pipeline import places
from meadow.storage import dvc_git

Command = Callable[[argparse.Namespace], None]
KEPT = "folder of kept photos; else MEADOW_KEEP_DIR"
CHANGED = 3  # exit status of `meadow drift`; 1 and 2 are errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command at the root of the project, from wherever in the project it was given.

    The root is the folder that holds `.dvc`, as for DVC. Paths that the user gives are as from the
    current folder.
    """
    run(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), None)
    prefix = here.relative_to(root) if root else Path()
    chosen = _parser(prefix).parse_args(arguments)
    chosen.prefix, chosen.root = prefix, root or here
    if not root and not chosen.anywhere:
        raise MeadowError(
            f"{here} is in no project: neither it nor a folder above has .dvc. Go to your clone of"
            " Meadow, then run this again."
        )
    with nullcontext() if chosen.anywhere else chdir(chosen.root):
        chosen.command(chosen)


def _parser(prefix: Path) -> argparse.ArgumentParser:
    """Describe all commands; `prefix` leads from the project's root to the current folder."""
    path = prefix.joinpath
    source: Callable[[str], str] = lambda name: name if "://" in name else str(path(name))  # noqa: E731
    parser = argparse.ArgumentParser(
        "meadow", description="A folder of labelled photos becomes a served classifier."
    )
    add = _group(parser)
    data = _group(add("data", None, "put a photo set into data.dir and track it; look at it"))
    command = data(
        "demo",
        _call("commands.photo_set:draw", "count"),
        "drawn by program: 400 dandelions and lawns",
    )
    command.add_argument("--count", type=int, default=400, help="number of photos")
    fetch = _call("commands.photo_set:fetch", "source")
    command = data("dandelion-grass", fetch, "the real set: 400 web photos")
    command.add_argument("--from", dest="source", type=path, metavar="DIR", help="a copy at hand")
    options = ("source", "merge_splits", "labels", "columns", "encoding", "add")
    take = _call("commands.photo_set:take", *options)
    command = data("import", take, "your own: a folder or zip, one folder per class")
    command.add_argument("source", type=source, metavar="DIR|ZIP|s3://...")
    layout = command.add_mutually_exclusive_group()
    layout.add_argument(
        "--merge-splits", action="store_true", help="make one set of train/CLASS, test/CLASS, ..."
    )
    layout.add_argument(
        "--labels", type=path, metavar="FILE", help="a CSV or JSON file with the photos' labels"
    )
    command.add_argument(
        "--columns", nargs=2, metavar=("PHOTO", "LABEL"), help="of this file, if they are not found"
    )
    command.add_argument("--encoding", metavar="NAME", help="of names in a zip, such as cp932")
    command.add_argument("--add", action="store_true", help="to the set that is there")
    inbox = _call("commands.inbox:inbox", "folder", "port", "url")
    command = data("inbox", inbox, "label the photos that the service kept, on a page")
    command.set_defaults(anywhere=True)
    command.add_argument("folder", nargs="?", type=path, metavar="DIR", help=KEPT)
    command.add_argument("--port", type=int, help="on the loopback; else a free one")
    command.add_argument("--url", help="of the service, which gets the labels too")
    forget = _call("commands.forgetting:forget", "id", "dir", "events")
    command = data("forget", forget, "remove what the service kept of a request")
    command.set_defaults(anywhere=True)
    command.add_argument("id", metavar="ID", help="header X-Request-ID of the answer")
    command.add_argument("--dir", type=path, metavar="DIR", help=KEPT)
    command.add_argument("--events", type=path, metavar="FILE", help="else MEADOW_EVENTS")
    report = _call("reporting.dataset_report:data_report", "html")
    command = data("report", report, "a page about the set: what is in it, and what is odd")
    command.add_argument("--html", type=path, default="data-report.html", metavar="FILE")

    command = add("review", _review, "decide on photos with doubtful labels")
    command.add_argument(
        "photos", nargs="*", metavar="PHOTO", help="as in reports/review.csv, or as from here"
    )
    command.add_argument(
        "--file", type=path, help="a list of photos: one a line, or a CSV with a column `path`"
    )
    words = "write a page of the most doubtful labels, beside the photos most like them"
    command.add_argument("--html", type=path, metavar="FILE", help=words)
    decision = command.add_mutually_exclusive_group()
    decision.add_argument("--drop", action="store_true", help="leave them out of the set")
    decision.add_argument("--relabel", metavar="CLASS", help="give them another class")

    command = add("weights", _weights, "take a file of pretrained weights")
    command.add_argument("file", type=path, help="a state_dict of PyTorch, or safetensors")
    command = add("recipe", _recipe, "write a recipe's values into params.yaml")
    command.add_argument("name", choices=recipes.names())

    sweep = _call("experiments.sweep:sweep", "ranges", "file", "trials", "metric")
    command = add("sweep", sweep, "search ranges of params.yaml, resumably")
    command.add_argument(
        "ranges", nargs="*", metavar="KEY=RANGE", help="train.probe.l2=0.003..3:log"
    )
    command.add_argument("--file", type=path, help="ranges from YAML, one `KEY: RANGE` a line")
    command.add_argument("--trials", type=int, default=20, help="an earlier start's included")
    command.add_argument("--metric", help="such as cv_accuracy; never one of the test photos")

    compare = _call("experiments.compare:compare", "versions", "html", "format", "events")
    command = add("compare", compare, "what differs between versions, photo by photo")
    command.add_argument(
        "versions", nargs="*", metavar="VERSION",
        help="commit, tag, branch, experiment or `workspace`; the first is the baseline; one alone"
        " is compared with the workspace",
    )  # fmt: skip
    words = "instead of versions: a shadow's answers beside those that were sent"
    command.add_argument("--events", nargs="+", type=source, metavar="FILE|URL", help=words)
    command.add_argument("--html", type=path, metavar="FILE", help="write a page with the photos")
    formats = command.add_mutually_exclusive_group()
    for name, reader in (("markdown", "a pull request"), ("json", "a script")):
        formats.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, default="terminal",
            help=f"print it for {reader}",
        )  # fmt: skip

    release = _call("experiments.release:release", "bump", "override", "candidate")
    command = add("release", release, "make the model of HEAD a version of the registry")
    bumps = command.add_mutually_exclusive_group()
    for bump in ("minor", "major"):
        bumps.add_argument(
            f"--{bump}", dest="bump", action="store_const", const=bump, default="patch",
            help=f"the next {bump} version instead of the next patch",
        )  # fmt: skip
    command.add_argument("--override", metavar="WHY", help="though the gate refused it")
    command.add_argument("--candidate", action="store_true", help="v1.1.0-rc.1, to be judged")
    promote = _call("experiments.registry:promote", "version", "stage", "override")
    command = add("promote", promote, "put a version into a stage")
    command.add_argument("version", metavar="VERSION", help="such as v1.2.0")
    command.add_argument(
        "--to", dest="stage", required=True, metavar="STAGE", help="listed in .gto"
    )
    command.add_argument("--override", metavar="WHY", help="though the gate refused it")
    rollback = _call("experiments.registry:rollback", "stage")
    command = add("rollback", rollback, "put the version before back into a stage")
    command.add_argument("--from", dest="stage", required=True, metavar="STAGE")
    add("versions", _call("experiments.registry:show"), "list versions, stages and figures")
    command = add(
        "image", _call("deployment.container:build", "name", "options"), "build the image"
    )
    command.add_argument("--name", default="meadow", help="such as ghcr.io/someone/meadow")
    command.add_argument("options", nargs="*", help="after `--`: of `docker build`")
    deploy = _call("deployment.deploy:deploy", "stage", "image", "watch", "dry_run")
    command = add("deploy", deploy, "bring the version in a stage to all pods, or to none")
    command.add_argument("--stage", required=True, help="of deploy/kubernetes/overlays")
    command.add_argument("--image", metavar="NAME@DIGEST", help="else the version's, as pushed")
    command.add_argument(
        "--watch", type=float, default=20, metavar="SECONDS", help="to compare the canary; 20"
    )
    command.add_argument("--dry-run", action="store_true", help="print what would change")
    mlflow = _group(add("mlflow", None, "commits and experiments as runs of an MLflow server"))
    command = mlflow("push", _call("tracking.push:push", "versions"), "write what it lacks")
    text = "commit, tag, branch or experiment; else HEAD, all releases and experiments"
    command.add_argument("versions", nargs="*", metavar="VERSION", help=text)
    command = mlflow("pull", _call("tracking.pull:pull", "run"), "write a run's parameters here")
    command.add_argument("run", metavar="RUN", help="its id or its name")
    features = _group(add("features", None, "frozen features of the photos, and what they say"))
    command = features("export", _call("commands.frozen_features:export", "file"), "as Parquet")
    command.add_argument("file", nargs="?", type=path, default="features.parquet")
    similar = _call("commands.frozen_features:similar", "photo", "count")
    command = features("similar", similar, "the photos that are most like another one")
    command.add_argument("photo", type=path, metavar="PHOTO")
    command.add_argument("--count", type=int, default=10, help="how many; 10")
    add("share", _call("storage.sharing:share"), "push all that a colleague needs to the remote")
    add("verify", _call("storage.sharing:verify"), "prove that a clone gets it all back")
    doctor = _call("commands.doctor:doctor")
    add("doctor", doctor, "check Git, packages, keys, cache, disk and remote")
    command = add("upgrade", _call("commands.upgrade:upgrade", "source"), "merge a newer Meadow")
    command.add_argument(
        "source", nargs="?", default="upstream", metavar="REV|URL|REMOTE",
        help="what to merge; by default the remote `upstream`",
    )  # fmt: skip
    minio = _group(add("minio", None, "a MinIO server of one's own as the remote"))
    start, stop = _call("storage.minio_server:start"), _call("storage.minio_server:stop")
    minio("start", start, "on the loopback, with random keys; makes the bucket")
    minio("stop", stop, "its data stay")

    command = add("predict", _predict, "classify photos")
    command.set_defaults(anywhere=True)
    command.add_argument("photos", nargs="+", metavar="PHOTO", help="files, folders, 'patterns/**'")
    command.add_argument("--url", help="of a running service; else the model in models/classifier")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command = add("drift", _drift, "whether a service is shown other photos than were learned from")
    command.add_argument(
        "--events", nargs="+", type=source, default=[], metavar="FILE|URL",
        help="what MEADOW_EVENTS of the service names, with its rotated files; the default is that"
        " of this shell",
    )  # fmt: skip
    command.add_argument("--since", default="", metavar="TIME", help="such as 2026-11-25T10:00")
    command.add_argument("--html", type=path, metavar="FILE", help="write a page")
    add("demo", _demo, "photos, pipeline, service, one answer")
    return parser


def _group(
    parser: argparse.ArgumentParser,
) -> Callable[[str, Command | None, str], argparse.ArgumentParser]:
    """Return a function that adds a command to a parser, which alone prints its help."""
    parser.set_defaults(command=lambda _: parser.print_help(), anywhere=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, command: Command | None, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command, anywhere=False)
        return added

    return add


def _call(function: str, *names: str) -> Command:
    """Return a command that calls `module:function` with these arguments of the command line.

    The module, and DVC or NumPy with it, is imported only then: that saves up to 0.5 s.
    """
    module, _, name = function.partition(":")

    def command(chosen: argparse.Namespace) -> None:
        values = [getattr(chosen, argument) for argument in names]
        getattr(import_module(f"meadow.{module}"), name)(*values)

    return command


def _review(chosen: argparse.Namespace) -> None:
    if chosen.html:
        from meadow.commands import review_page

        review_page.write(chosen.html)
        return
    if not chosen.drop and chosen.relabel is None:
        raise MeadowError("nothing is decided: add --drop, --relabel CLASS, or --html FILE.")
    where = places.place(params.load().data.dir)
    paths = [
        str(here) if (here := chosen.prefix / photo).exists() else photo for photo in chosen.photos
    ]
    if chosen.file:
        paths += overrides.listed(chosen.file)
    if not paths:
        raise MeadowError("no photo is named: write `meadow review PHOTO...`, or --file LIST.")
    decision, label = ("drop", "") if chosen.drop else ("relabel", chosen.relabel)
    overrides.decide(where, discovery.find(where), paths, decision, label)
    print(f"{overrides.FILE} has it. Next: `dvc repro`, then `git commit` with {overrides.FILE}.")


def _weights(chosen: argparse.Namespace) -> None:
    from meadow.commands import own_weights  # with PyTorch: 2 s

    path, arch = own_weights.take(chosen.file)
    dvc_git.track(path)
    values = {"train": {"weights": str(path), "arch": arch}}
    print(recipes.set_params(values) or "params.yaml names it already.")


def _recipe(chosen: argparse.Namespace) -> None:
    print(recipes.apply(chosen.name) or "params.yaml has these values already.")


def _predict(chosen: argparse.Namespace) -> None:
    from meadow.commands import predict  # with ONNX Runtime: 0.2 s
    from meadow.inference.classifier import FOLDER

    model = chosen.root / FOLDER
    if not predict.predict(chosen.photos, chosen.url, as_json=chosen.json, model=model):
        sys.exit(1)


def _drift(chosen: argparse.Namespace) -> None:
    from meadow.commands import drift  # with SciPy: 0.7 s

    if drift.drift(chosen.events, chosen.since, chosen.html):
        sys.exit(CHANGED)


def _demo(_: argparse.Namespace) -> None:
    from meadow.commands import demo

    demo.demo(photo_set.where())

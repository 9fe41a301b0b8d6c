"""The command `meadow`: photo sets, labels, weights, recipes, the demo. Stages are run by DVC."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from meadow import params
from meadow.commands import importing
from meadow.curation import discovery, overrides
from meadow.errors import MeadowError, run
from meadow.experiments import recipes
from meadow.storage import dvc_git
from meadow.training.weights import Weights

RAW = Path("data/raw")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a mistake that the user can mend ends with one line and status 1."""
    chosen = _parser().parse_args(arguments)
    run(lambda: chosen.command(chosen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "meadow", description="A folder of labelled photos becomes a served classifier."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    data = commands.add_parser("data", help=f"put a photo set into {RAW} and track it; look at it")
    sets = data.add_subparsers(title="sets", required=True, metavar="SET")
    each = sets.add_parser("demo", help="drawn by program: 400 dandelions and lawns")
    each.add_argument("--count", type=int, default=400, help="number of photos")
    each.set_defaults(command=_data_demo)
    each = sets.add_parser("dandelion-grass", help="the real set: 400 photos from the web")
    each.add_argument("--from", dest="source", type=Path, metavar="DIR", help="a copy at hand")
    each.set_defaults(command=_data_dandelion_grass)
    each = sets.add_parser("import", help="your own: a folder or zip with one folder per class")
    each.add_argument("source", type=Path, metavar="DIR|ZIP")
    each.set_defaults(command=_data_import)

    each = sets.add_parser("report", help="a page about the set: what is in it, and what is odd")
    each.add_argument("--html", type=Path, default="data-report.html", metavar="FILE")
    each.set_defaults(command=_data_report)

    each = commands.add_parser("review", help="decide on a photo with a doubtful label")
    each.add_argument("path", metavar="PHOTO", help="as in reports/review.csv, or as from here")
    decisions = each.add_subparsers(title="decisions", required=True, dest="decision")
    drop = decisions.add_parser("drop", help="leave the photo out of the set")
    drop.set_defaults(command=_review, label="")
    relabel = decisions.add_parser("relabel", help="give it another class")
    relabel.add_argument("label", metavar="CLASS")
    relabel.set_defaults(command=_review)

    each = commands.add_parser("weights", help="take a state_dict as pretrained weights")
    each.add_argument("file", type=Path)
    each.set_defaults(command=_weights)

    each = commands.add_parser("recipe", help="write a recipe's values into params.yaml")
    each.add_argument("name", choices=recipes.names())
    each.set_defaults(command=_recipe)

    each = commands.add_parser("sweep", help="search ranges of params.yaml, resumably")
    each.add_argument(
        "ranges", nargs="*", metavar="KEY=RANGE", help="such as train.probe.l2=0.003..3:log"
    )
    each.add_argument("--file", type=Path, help="ranges from YAML, one `KEY: RANGE` a line")
    each.add_argument("--trials", type=int, default=20, help="those of an earlier start included")
    each.add_argument("--metric", help="such as cv_accuracy; never one of the test photos")
    each.set_defaults(command=_sweep)
    each = commands.add_parser("queue", help="run what `dvc exp run --queue` has queued, and wait")
    each.set_defaults(command=_lazily("experiments.queue", "run"))
    each = commands.add_parser("compare", help="what differs between versions, photo by photo")
    each.add_argument(
        "revisions", nargs="*", metavar="VERSION",
        help="commit, tag, branch, experiment or `workspace`; the first is the baseline; one alone"
        " is compared with the workspace",
    )  # fmt: skip
    each.add_argument("--html", type=Path, metavar="FILE", help="write a page with the photos")
    forms = each.add_mutually_exclusive_group()
    for form, whom in (("markdown", "a pull request"), ("json", "a script")):
        forms.add_argument(
            f"--{form}", dest="form", action="store_const", const=form, default="terminal",
            help=f"print it for {whom}",
        )  # fmt: skip
    each.set_defaults(command=_compare)
    each = commands.add_parser("release", help="have the gate compare others with this model")
    each.set_defaults(command=_lazily("experiments.release", "release"))
    each = commands.add_parser("share", help="push all that a colleague needs to the remote")
    each.set_defaults(command=_lazily("storage.sharing", "share"))
    each = commands.add_parser("verify", help="prove that a clone gets it all back")
    each.set_defaults(command=_lazily("storage.sharing", "verify"))
    each = commands.add_parser("doctor", help="check Git, packages, keys, cache, disk and remote")
    each.set_defaults(command=_lazily("commands.doctor", "doctor"))

    server = commands.add_parser("minio", help="a MinIO server of one's own as the remote")
    deeds = server.add_subparsers(title="deeds", required=True, metavar="start|stop")
    each = deeds.add_parser("start", help="on the loopback, with random keys; makes the bucket")
    each.set_defaults(command=_lazily("storage.minio_server", "start"))
    each = deeds.add_parser("stop", help="its data stay")
    each.set_defaults(command=_lazily("storage.minio_server", "stop"))

    each = commands.add_parser("predict", help="classify photos")
    each.add_argument("photos", nargs="+", metavar="PHOTO", help="files, folders, 'patterns/**'")
    each.add_argument("--url", help="of a running service; else the model in models/classifier")
    each.add_argument("--json", action="store_true", help="one JSON object a line")
    each.set_defaults(command=_predict)
    each = commands.add_parser("demo", help="photos, pipeline, service, one answer")
    each.set_defaults(command=_demo)
    return parser


def _lazily(module: str, verb: str) -> Callable[[argparse.Namespace], None]:
    """Return a command that imports its module, and with it DVC, only when it runs: 0.5 s."""

    def command(_: argparse.Namespace) -> None:
        getattr(import_module(f"meadow.{module}"), verb)()

    return command


def _data_demo(chosen: argparse.Namespace) -> None:
    from meadow.commands import demo  # with Pillow and httpx: 0.1 s

    _replace_set(lambda: demo.draw(RAW, chosen.count))


def _data_dandelion_grass(chosen: argparse.Namespace) -> None:
    from meadow.commands import dandelion_grass  # with pooch and requests: 0.1 s

    _replace_set(lambda: dandelion_grass.fetch(RAW, chosen.source))


def _data_import(chosen: argparse.Namespace) -> None:
    if chosen.source.resolve().is_relative_to(RAW.resolve()):
        raise MeadowError(f"{chosen.source} is the set itself. Track its changes: `dvc add {RAW}`.")
    _replace_set(lambda: importing.import_set(chosen.source, RAW))


def _demo(_: argparse.Namespace) -> None:
    from meadow.commands import demo

    demo.demo(RAW)


def _data_report(chosen: argparse.Namespace) -> None:
    from meadow.reporting import dataset_report  # with NumPy: 0.2 s

    dataset_report.data_report(chosen.html)


def _replace_set(make: Callable[[], None]) -> None:
    dvc_git.refuse_untracked(RAW)
    make()
    dvc_git.track(RAW)
    print(f"{RAW} is tracked by {RAW}.dvc. Next: `dvc repro`, then `git add -A && git commit`.")


def _review(chosen: argparse.Namespace) -> None:
    folder = Path(params.load().data.dir)
    files = discovery.find(folder)
    overrides.decide(folder, files, chosen.path, chosen.decision, chosen.label)
    print(f"{overrides.FILE} has it. Next: `dvc repro`, then `git commit` with {overrides.FILE}.")


def _weights(chosen: argparse.Namespace) -> None:
    path = Weights.take(chosen.file)
    dvc_git.track(path)
    print(recipes.set_params({"train": {"weights": str(path)}}) or "params.yaml names it already.")


def _recipe(chosen: argparse.Namespace) -> None:
    print(recipes.set_params(recipes.read(chosen.name)) or "params.yaml has these values already.")


def _sweep(chosen: argparse.Namespace) -> None:
    from meadow.experiments import search_space, sweep  # with Optuna: 0.5 s

    texts = search_space.from_file(chosen.file) if chosen.file else {}
    for each in chosen.ranges:
        key, equals, text = each.partition("=")
        if not equals:
            raise MeadowError(f"{each!r} is no range. {search_space.FORMS} behind KEY=.")
        texts[key] = text
    sweep.sweep(texts, chosen.trials, chosen.metric)


def _compare(chosen: argparse.Namespace) -> None:
    from meadow.experiments import compare  # with NumPy: 0.2 s

    compare.compare(chosen.revisions, chosen.html, chosen.form)


def _predict(chosen: argparse.Namespace) -> None:
    from meadow.commands import predict  # with ONNX Runtime: 0.2 s

    try:
        if not predict.predict(chosen.photos, chosen.url, as_json=chosen.json):
            sys.exit(1)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

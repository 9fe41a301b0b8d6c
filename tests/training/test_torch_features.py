import numpy as np
import pytest
import torch
from devices import ON_DEVICES
from toys import SetParams

from meadow import params
from meadow.errors import MeadowError
from meadow.pipeline import cache, manifest
from meadow.pipeline.parallel import HERE
from meadow.prepare import prepare
from meadow.training import features, torch_features
from meadow.training.device import CPU, GPUS, Device
from meadow.training.weights import Weights

NONE = Weights("none", "none")


@pytest.fixture
def ready(toy_set: object, set_params: SetParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare a set of several batches, the last one of which is not full."""
    set_params(train={"method": "probe", "weights": "none", "precision": "float32"})
    monkeypatch.setattr(torch_features, "BATCH", 5)
    prepare()


def computed(device: Device | None) -> np.ndarray:
    """Return features and texture of the train and val photos; without a device, ONNX Runtime's."""
    p, prepared = params.load().train, manifest.load()
    gpu = torch_features.Backbone(p, NONE, 32, device) if device else None
    network, digest = features.backbone(p, NONE, prepared)
    parts = [prepared.photos("train"), prepared.photos("val")]
    return np.hstack(features.frozen(network, digest, parts, machines=HERE, gpu=gpu))


@pytest.mark.slow
@ON_DEVICES
def test_features_of_a_device_are_those_of_the_cpu(ready: None, device: Device) -> None:
    """Within 1e-4 of their length in float32, and 2 % in bfloat16; each in a table of its own."""
    expected, got = computed(None), computed(device)
    error = np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)

    assert len(got) == 24
    assert error.max() < (1e-4 if device.dtype == torch.float32 else 0.02)
    assert error.max() > 0  # so both were computed
    assert len(list(cache.folder("features").glob("*.sqlite"))) == 2


@ON_DEVICES
def test_a_photo_has_the_same_features_beside_others(ready: None, device: Device) -> None:
    """So that it does not matter which photos the cache had."""
    photos = features.photos_of([manifest.load().photos("train")])
    backbone = torch_features.Backbone(params.load().train, NONE, 32, device)
    alone = [np.hstack(row) for row in backbone.outputs(photos[6:7])]
    together = [np.hstack(row) for row in backbone.outputs(photos[5:10])]

    assert len(alone) == 1
    assert np.allclose(alone[0], together[1], atol=1e-5)


def test_a_gpu_is_asked_where_it_can_compute_what_is_served(
    ready: None, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else, or where there is none, ONNX Runtime computes on the CPU."""
    for kind in GPUS:
        monkeypatch.setattr(getattr(torch, kind), "is_available", lambda kind=kind: kind == "mps")

    def chosen(**train: str) -> Device | None:
        set_params(train=train)
        gpu = features.by_gpu(params.load().train, NONE, manifest.load())
        return gpu.device if gpu else None

    assert chosen(device="cpu") is None
    assert chosen(device="auto") == Device("mps", torch.bfloat16)
    assert chosen(precision="int8") is None
    with pytest.raises(MeadowError, match=r"mps computes in floats.*train\.precision: float32"):
        chosen(device="mps")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_a_training_takes_its_features_from_the_device(
    ready: None, set_params: SetParams, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The CPU stands for a GPU: the same way, and the model is the CPU's within the tolerance."""
    from meadow import train
    from meadow.inference.classifier import Classifier

    set_params(train={"method": method})
    train.train()
    expected = Classifier.load()
    monkeypatch.setattr(Device, "gpu", property(lambda _: True))
    set_params(train={"device": "auto", "autocast": "bfloat16"})
    train.train()
    got = Classifier.load()
    pixels = np.array(manifest.load().photos("val").pixels)

    assert CPU.gpu
    assert got.about["autocast"] == "bfloat16"
    assert "autocast" not in expected.about
    assert np.allclose(got.classify(pixels)[0], expected.classify(pixels)[0], atol=0.05)

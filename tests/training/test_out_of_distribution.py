from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from meadow.training import onnx_graph, out_of_distribution


def photos(n: int = 200, seed: int = 0) -> np.ndarray:
    """Draw features around two centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(2, 30))
    return (centres[np.arange(n) % 2] + 0.3 * rng.normal(size=(n, 30))).astype(np.float32)


def graph_of(
    neighbours: out_of_distribution.Neighbours, path: Path
) -> onnxruntime.InferenceSession:
    """Build a graph that is nothing but the neighbours."""
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 30])
    copies = [helper.make_node("Identity", ["input"], [n]) for n in ("features", "texture")]
    graph = helper.make_graph(copies, "g", [given], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx_graph.with_neighbours(model, neighbours), path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_threshold_passes_as_many_new_photos_as_asked_for(tmp_path: Path) -> None:
    """And none of another kind; the served graph computes the distance."""
    neighbours = out_of_distribution.fit(photos(), photos(), [str(i) for i in range(200)], 0.95)
    session = graph_of(neighbours, tmp_path / "g.onnx")
    (same,) = session.run(["distance"], {"input": photos(400, seed=1)})
    other = np.random.default_rng(2).normal(size=(100, 30)).astype(np.float32)
    (strange,) = session.run(["distance"], {"input": other})

    assert 0.88 < (same <= neighbours.threshold).mean() < 0.99
    assert (strange > neighbours.threshold).all()


def test_the_distance_is_that_of_the_kth_neighbour(tmp_path: Path) -> None:
    """By hand, for one photo."""
    neighbours = out_of_distribution.fit(photos(), photos(), [str(i) for i in range(200)], 0.95)
    (new,) = photos(1, seed=5)

    def point(x: np.ndarray) -> np.ndarray:
        shown = out_of_distribution.FEATURES_WEIGHT * x / np.linalg.norm(x, axis=-1, keepdims=True)
        texture = (x - photos().mean(axis=0)) / photos().std(axis=0) / np.sqrt(30)
        return np.concatenate([shown, texture], axis=-1)

    distances = np.linalg.norm(point(photos()) - point(new), axis=1)
    expected = np.sort(distances)[out_of_distribution.K - 1]
    (distance,) = graph_of(neighbours, tmp_path / "g").run(["distance"], {"input": new[None]})

    assert abs(distance[0] - expected) < 1e-5


def test_a_photo_is_not_compared_with_its_own_group() -> None:
    """Five copies of each photo: with them every distance would be 0."""
    features = photos(40).repeat(6, axis=0)
    groups = [str(i // 6) for i in range(240)]

    assert out_of_distribution.fit(features, features, groups, 0.5).threshold > 0.01


def test_a_handful_of_photos_is_enough_to_build_it() -> None:
    """Three photos have two neighbours each."""
    assert out_of_distribution.fit(photos(3), photos(3), ["a", "b", "c"], 0.95).k == 2


def test_photos_that_the_network_was_trained_on_set_no_threshold() -> None:
    """They lie closer than new ones do."""
    rng = np.random.default_rng(0)
    learned = rng.normal(size=(1, 8)) + 0.01 * rng.normal(size=(90, 8))
    new = rng.normal(size=(10, 8))
    points = np.concatenate([learned, new]).astype(np.float32)
    groups = [str(i) for i in range(100)]
    of_all, of_new = (
        out_of_distribution.fit(points, points, groups, 0.5, unseen=unseen).threshold
        for unseen in (0, 90)
    )

    assert of_new > 10 * of_all

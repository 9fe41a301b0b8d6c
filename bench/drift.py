"""How often `meadow drift` raises a false alarm, and what it finds within 200 photos.

Each of 1,000 splits halves the photos at random: a head, the distances and the reference are of one
half, and a day of each kind is drawn from the other, no photo twice. What the backbone makes of a
photo is computed once. Run in a copy of a project, whose params.yaml and data/prepared it changes:

    python bench/drift.py
"""

import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image
from threadpoolctl import threadpool_limits

from meadow import params
from meadow.drift.comparison import compare
from meadow.drift.tally import Tally
from meadow.experiments import recipes
from meadow.inference.onnx_session import open_session
from meadow.inference.reference import Reference
from meadow.inference.signals import DIGITS, LOOK, look
from meadow.pipeline import manifest
from meadow.pipeline.image import Preprocessing, decode
from meadow.pipeline.intervals import wilson
from meadow.pipeline.parallel import Machines
from meadow.prepare import prepare
from meadow.training import features, out_of_distribution, probe
from meadow.training.calibration import log_softmax
from meadow.training.probe import Examples
from meadow.training.weights import Weights

SPLITS = 1000
SCALES = {"half as large": 0.5, "0.7 times as large": 0.7, "twice as large": 2.0}
SIZES = (50, 100, 200)  # photos of an ordinary day
Floats = NDArray[np.float64]


def darker(image: Image.Image) -> Image.Image:
    """By 30 %."""
    return image.point(lambda value: round(0.7 * value))


def brighter(image: Image.Image) -> Image.Image:
    """By 5 %: another time of day."""
    return image.point(lambda value: min(255, round(1.05 * value)))


def blurred(image: Image.Image) -> Image.Image:
    """As out of focus: 2 of 288 pixels."""
    return image.filter(ImageFilter.GaussianBlur(2))


def brown(image: Image.Image) -> Image.Image:
    """Green turns brown: where green is more than red, they change places."""
    pixels = np.asarray(image).copy()
    green = pixels[..., 1] > pixels[..., 0]
    pixels[green] = pixels[green][:, [1, 0, 2]]
    return Image.fromarray(pixels)


def cropped(image: Image.Image) -> Image.Image:
    """As by another camera: the middle 60 % of each side."""
    near, far = round(0.2 * image.width), round(0.8 * image.width)
    return image.crop((near, near, far, far)).resize(image.size, Image.Resampling.BILINEAR)


KINDS = {"as learned": lambda image: image, "brighter by 5 %": brighter, "darker by 30 %": darker,
         "blurred": blurred, "green turned brown": brown, "another crop": cropped}  # fmt: skip
ORDINARY = {"as learned", "brighter by 5 %", *SCALES}


def resent(photo: bytes, scale: float) -> bytes:
    """As sent by another client: so many times as wide and high, encoded anew."""
    image, file = decode(photo), io.BytesIO()
    size = round(scale * image.width), round(scale * image.height)
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=80)
    return file.getvalue()


def others(size: int, count: int = 60) -> list[Image.Image]:
    """Cut photos of something else, a palace and a flower in a pot, out of scikit-learn's two."""
    random, cut = np.random.default_rng(0), []
    for i in range(count):
        whole = Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[i % 2]))
        side = int(random.integers(200, 427))
        left, top = (int(random.integers(0, free - side + 1)) for free in whole.size)
        square = whole.crop((left, top, left + side, top + side))
        cut.append(square.resize((size, size), Image.Resampling.BILINEAR))
    return cut


class Seen:
    """What the backbone makes of photos, and how they look."""

    def __init__(
        self,
        session: ort.InferenceSession,
        preprocessing: Preprocessing,
        photos: list[Image.Image],
        sizes: Sequence[tuple[int, int]],
    ) -> None:
        def run(image: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            vector, texture = session.run(features.OUTPUTS, {"pixels": np.asarray(image)[None]})
            return vector[0], texture[0]

        with ThreadPoolExecutor(2) as pool:
            vectors, textures = zip(*pool.map(run, photos), strict=True)
        self.features, self.texture = np.stack(vectors), np.stack(textures)
        looks = [
            look(np.asarray(image), preprocessing, *size)
            for image, size in zip(photos, sizes, strict=True)
        ]
        self.look = np.array([[values[name] for name in LOOK] for values in looks])


def main() -> None:
    """Print the rates."""
    recipes.set_params({"prepare": {"val": 0.02, "test": 0.02}})
    prepare()
    p, ready = params.load().train, manifest.load()
    network = ready.preprocessing
    backbone, digest = features.backbone(p, Weights.of(p.weights, p.arch), ready)
    examples, texture = features.examples(backbone, digest, ready, machines=Machines(2))
    parts = [ready.photos("train"), ready.photos("val")]
    images = [Image.fromarray(photo) for part in parts for photo in part.pixels]
    rows = [row for part in parts for row in part.rows]
    sizes = np.array([row.size for row in rows], float)
    pixels = [(row.width, row.height) for row in rows]
    session = open_session(backbone)
    seen = {
        name: Seen(session, network, [change(i) for i in images], pixels)
        for name, change in KINDS.items()
    }
    folder = Path(params.load().data.dir)
    files = [(folder / row.path).read_bytes() for row in rows]
    bytes_of = dict.fromkeys(seen, sizes)
    for name, scale in SCALES.items():
        sent = [resent(photo, scale) for photo in files]
        images = [Image.fromarray(network(photo)) for photo in sent]
        pixels = [decode(photo).size for photo in sent]
        seen[name] = Seen(session, network, images, pixels)
        bytes_of[name] = np.array([*map(len, sent)], float)
    strange = others(network.size)
    strange_seen = Seen(session, network, strange, [image.size for image in strange])
    strange_sizes = np.array([_bytes(image) for image in strange])
    groups, targets = np.array(examples.groups), examples.targets

    def split(seed: int) -> list[tuple[str, list[str]]]:
        random = np.random.default_rng(seed)
        half = np.isin(groups, random.permutation(np.unique(groups))[: len(np.unique(groups)) // 2])
        learned, new = np.flatnonzero(half), np.flatnonzero(~half)
        head = probe.fit(
            Examples(examples.features[learned], targets[learned], list(groups[learned]),
                     examples.classes),
            workers=1,
        )  # fmt: skip
        near = out_of_distribution.fit(
            examples.features[learned], texture[learned], list(groups[learned]), p.coverage
        )

        def answers(photos: Seen, of: Floats) -> tuple[Floats, NDArray[np.int64]]:
            p_class = np.exp(log_softmax(photos.features @ head.weight + head.bias))
            sure, far = p_class.max(axis=1).round(DIGITS), distances(near, photos).round(DIGITS)
            columns = [sure, far, *photos.look.T, of]
            return np.stack(columns, axis=1), p_class.argmax(axis=1)

        def some(photos: NDArray[np.int64], count: int) -> NDArray[np.int64]:
            return random.permutation(photos)[:count]

        held_out = np.exp(head.as_served)
        sure, far = held_out.max(axis=1).round(DIGITS), near.distances.round(DIGITS)
        columns = [sure, far, *seen["as learned"].look[learned].T, sizes[learned]]
        names = ("confidence", "distance", *LOOK, "bytes")
        reference = Reference(
            dict(zip(names, columns, strict=True)), targets[learned], held_out.argmax(axis=1)
        )

        def day(signals: Floats, predicted: NDArray[np.int64]) -> list[str]:
            tally, at = Tally(reference, examples.classes), 0
            while at < len(signals):
                end = at + tally.room
                times = [""] * len(signals[at:end])
                tally.add(times, signals[at:end], predicted[at:end])
                at = end
            return [finding.name for finding in compare(tally, reference) if finding.alarm]

        days = []
        for name, photos in seen.items():
            signals, predicted = answers(photos, bytes_of[name])
            drawn = some(new, SIZES[seed % len(SIZES)] if name in ORDINARY else 200)
            days.append((name, day(signals[drawn], predicted[drawn])))
        signals, predicted = answers(seen["as learned"], sizes)
        odd_signals, odd_predicted = answers(strange_seen, strange_sizes)
        drawn, odd = some(new, 160), some(np.arange(len(strange)), 40)
        order = random.permutation(len(drawn) + len(odd))
        both = np.concatenate([signals[drawn], odd_signals[odd]])[order]
        labels = np.concatenate([predicted[drawn], odd_predicted[odd]])[order]
        days.append(("a new class, 20 %", day(both, labels)))
        first = targets[new] == 0
        drawn = random.permutation(np.concatenate([some(new[first], 80), some(new[~first], 20)]))
        days.append(("labels 80 to 20", day(signals[drawn], predicted[drawn])))
        return days

    alarms: dict[str, list[list[str]]] = {}
    with threadpool_limits(1), ThreadPoolExecutor(2) as pool:
        for done, days in enumerate(pool.map(split, range(SPLITS)), 1):
            for name, signals in days:
                alarms.setdefault(name, []).append(signals)
            if done % 100 == 0:
                print(f"{done} splits", *map(line, alarms.items()), sep="\n", flush=True)


def line(kind: tuple[str, list[list[str]]]) -> str:
    """Say in how many days of a kind there was an alarm, and by which signals."""
    name, days = kind
    counts = Counter(signal for signals in days for signal in signals)
    by = ", ".join(f"{signal} {count / len(days):.0%}" for signal, count in counts.most_common())
    alarms, n = sum(map(bool, days)), len(days)
    low, high = wilson(alarms, n)
    return f"{name:20} {alarms:5} of {n} days ({low:.1%} to {high:.1%}): {by}"


def distances(near: out_of_distribution.Neighbours, photos: Seen) -> Floats:
    """Return the distance of each photo as the served graph computes it."""
    norms = np.maximum(np.linalg.norm(photos.features, axis=1, keepdims=True), 1e-12)
    content = out_of_distribution.FEATURES_WEIGHT * photos.features / norms
    points = np.concatenate([content, (photos.texture - near.mean) * near.scale], axis=1)
    squared = (
        (points**2).sum(1)[:, None] + (near.reference**2).sum(1) - 2 * points @ near.reference.T
    )
    return np.sqrt(np.maximum(np.partition(squared, near.k - 1, axis=1)[:, near.k - 1], 0))


def _bytes(image: Image.Image) -> int:
    file = io.BytesIO()
    image.resize((500, 400)).save(file, "JPEG", quality=90)
    return len(file.getvalue())


if __name__ == "__main__":
    main()

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from meadow.inference.signals import look
from meadow.pipeline.image import Preprocessing

NETWORK = Preprocessing(288, "squash")


def photo(seed: int) -> Image.Image:
    """Draw a picture whose amplitudes fall with frequency as those of photos do, 366 x 274."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(274)[:, None], np.fft.rfftfreq(366))
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(np.fft.rfft2(random.normal(size=(274, 366))) / frequency, (274, 366))
    grey = np.clip(128 + 50 * values / values.std(), 0, 255)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def detail(image: Image.Image, network: Preprocessing = NETWORK) -> float:
    return look(network.resized(image), network, *image.size)["detail"]


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (lambda image: image.resize((183, 137), Image.Resampling.LANCZOS), 0.7, 1.3),
        (lambda image: image.resize((732, 548), Image.Resampling.LANCZOS), 0.7, 1.3),
        (lambda image: image.point(lambda value: round(0.7 * value)), 0.95, 1.05),
        (lambda image: image.filter(ImageFilter.GaussianBlur(2.5)), 0, 0.4),
    ],
    ids=["half as large", "twice as large", "darker", "blurred"],
)
def test_detail_is_lost_by_blur_but_not_by_size_or_light(
    change: Callable[[Image.Image], Image.Image], low: float, high: float
) -> None:
    """A client that sends smaller copies shows the same, though the network sees them softer."""
    ratios = [detail(change(photo(seed))) / detail(photo(seed)) for seed in range(5)]

    assert low < np.median(ratios) < high


def test_the_side_is_what_the_network_can_see_of_it() -> None:
    """However a JPEG is decoded: at least twice the network's size."""
    pixels = np.zeros((288, 288, 3), np.uint8)
    sides = [
        look(pixels, NETWORK, *size)["side"] for size in ((200, 100), (600, 800), (4000, 3000))
    ]

    assert sides == [100, 576, 576]
    assert look(pixels, Preprocessing(288, "crop"), 200, 100)["side"] == 100
    assert look(pixels, NETWORK, 200, 100)["detail"] == 0

"""Pictures whose attributes are plain to see, and the judge that the project ships."""

import numpy as np
import pytest

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import toy_birds
from t2ilib.metrics.judge import Judge, load_judge

HALVES = {"top": ("dark", "light"), "bottom": ("dark", "grey", "light")}


def make_halves(count: int, seed: int = 0, size: int = 32) -> CaptionedImages:
    """Pictures whose upper and lower halves have the brightness their attributes say."""
    rows = np.random.default_rng(seed).integers(0, [2, 3], size=(count, 2))
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    images[:, : size // 2] = (40 + 170 * rows[:, 0])[:, None, None, None]
    images[:, size // 2 :] = (40 + 85 * rows[:, 1])[:, None, None, None]
    splits = np.array(["train", "train", "validation", "test"])[np.arange(count) % 4]
    return CaptionedImages(images, [["x"]] * count, np.zeros(count, np.int64), splits, ["x"], rows)


@pytest.fixture(scope="session")
def attributes() -> dict[str, tuple[str, ...]]:
    """What the halves can be."""
    return HALVES


@pytest.fixture(scope="session")
def halves() -> CaptionedImages:
    return make_halves(512)


@pytest.fixture(scope="session")
def judge() -> Judge:
    return load_judge()


@pytest.fixture(scope="session")
def held_out() -> CaptionedImages:
    """Toy birds of species that no training picture shows."""
    return toy_birds(train=1, validation=1, test=300, size=64, seed=77).split("test")

"""Two-coloured squares, and a small CLIP that learns to read them: one training for all tests."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from t2ilib.data.batches import Augment, Batches
from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import this_process
from t2ilib.encoders.contrastive import ClipConfig, Contrastive
from t2ilib.training import TrainingSettings, train

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "white": (245, 245, 245)}


@pytest.fixture(scope="session")
def squares() -> CaptionedImages:
    """Two-coloured squares, 32 px: "a red square on blue"; the coarsest picture a caption can describe."""
    pairs = [(front, back) for front in COLOURS for back in COLOURS]
    images = np.zeros((64, 32, 32, 3), dtype=np.uint8)
    captions = []
    for row, (front, back) in enumerate(pairs * 4):
        images[row] = COLOURS[back]
        images[row, 8:24, 8:24] = COLOURS[front]
        captions.append([f"a {front} square on {back}", f"something {front}"][: 1 + row % 2])
    ids = np.arange(64, dtype=np.int64) % len(pairs)
    return CaptionedImages(images, captions, ids, np.full(64, "train"), [" ".join(pair) for pair in pairs])


@pytest.fixture(scope="session")
def small() -> ClipConfig:
    return ClipConfig.tiny()


@pytest.fixture(scope="session")
def draw(squares) -> Callable:
    """Make the batches of squares that a task reads."""

    def draw(task: Contrastive, seed: int = 0) -> Batches:
        augment, device = Augment(shift=2), this_process().device
        return Batches(squares, None, task.config.batch_size, device, needs=task.needs, augment=augment, seed=seed)

    return draw


@pytest.fixture(scope="session")
def learn(squares, draw) -> Callable:
    """Build a task for the squares and its training: returns both, the records not begun."""

    def learn(config, steps, *, start=None, run=None, **settings):
        settings = TrainingSettings(steps, precision="fp32", **{"log_every": 1, **settings})
        torch.manual_seed(settings.seed)
        task = Contrastive(config, squares.captions, start)
        return task, train(task, draw(task, settings.seed), settings, run)

    return learn


@pytest.fixture(scope="session")
def trained(learn, small, tmp_path_factory):
    """Folder and records of one tiny training run."""
    folder = tmp_path_factory.mktemp("clip")
    task, records = learn(small, 60)
    records = list(records)
    task.save(folder)
    return folder, records

import numpy as np
import pytest

from t2ilib.data.captioned import CaptionedImages
from t2ilib.text.contrastive import ClipConfig

SMALL = ClipConfig(
    embed_dim=32,
    image_size=32,
    image_width=32,
    image_layers=2,
    text_width=32,
    text_layers=1,
    context_length=12,
    steps=60,
    batch_size=32,
    learning_rate=3e-3,
    warmup=5,
    log_every=10,
    bfloat16=False,
)
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
    return SMALL


@pytest.fixture(scope="session")
def trained(squares, tmp_path_factory):
    """Folder and records of one tiny training run."""
    from t2ilib.text.contrastive import train_clip

    folder = tmp_path_factory.mktemp("clip")
    return folder, list(train_clip(squares, SMALL, folder))

"""Text encoders: captions to sentence and word features.

>>> encoder = load_encoder("toy-clip")
>>> features = encoder.encode(["a red bird with black wings"])  # features.sentence, features.words, features.mask
"""

from pathlib import Path

from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS
from t2ilib.text.encoder import CaptionFeatures, TextEncoder, TextFeatures, encode_all, encode_dataset

__all__ = [
    "CaptionFeatures",
    "TextEncoder",
    "TextFeatures",
    "encode_all",
    "encode_dataset",
    "load_encoder",
]

TRAIN = "python -m t2ilib.text.contrastive --data toy --folder data/weights/"
RESNET = "--name toy-clip-resnet --image-width 16 --image-layers 2 2 2 2 --exchanged 1"
SHIPPED = {  # folder under data/weights, and the command that trained it
    "toy-clip": ("toy_clip", f"{TRAIN}toy_clip"),
    "toy-clip-resnet": (
        "toy_clip_resnet",
        f"{TRAIN}toy_clip_resnet {RESNET} --steps 3000",
    ),
}


def load_encoder(name: str, **options: object) -> TextEncoder:
    """Return a frozen encoder on the CPU.

    `name` is "toy-clip" or "toy-clip-resnet" (shipped with this project; the second has another image tower and has
    learnt from captions with one word wrong), "clip" (released weights; options `model`, `pretrained` and
    `cache_folder`), or a folder that `train_clip` wrote. Anything else raises `InputError`.
    """
    if name in SHIPPED:
        return _shipped(name, **options)
    if name == "clip":
        return _released(**options)
    if Path(name).is_dir():
        return _folder(Path(name), **options)
    known = ", ".join([*SHIPPED, "clip"])
    raise InputError(f"{name}: no such text encoder; there are {known}, and folders written by train_clip")


def _shipped(name: str) -> TextEncoder:
    folder, command = WEIGHTS / SHIPPED[name][0], SHIPPED[name][1]
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise InputError(f"{folder / file}: missing; train it with: {command}")
    return _folder(folder)


def _folder(folder: Path) -> TextEncoder:
    from t2ilib.text.clip import open_encoder  # noqa: PLC0415 (open_clip takes seconds to import)

    return open_encoder(folder)


def _released(**options: str) -> TextEncoder:
    from t2ilib.text.released import load_released  # noqa: PLC0415

    return load_released(**options)

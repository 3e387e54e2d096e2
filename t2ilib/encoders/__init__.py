"""Encoders: captions to sentence and word features, and CLIPs, which see pictures, too.

>>> encoder = load_encoder("toy-clip")
>>> features = encoder.encode(["a red bird with black wings"])  # features.sentence, features.words, features.mask
"""

from pathlib import Path

from t2ilib.encoders.encoder import CaptionFeatures, PictureEncoder, TextEncoder, encode_all, encode_dataset, sees
from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS
from t2ilib.weights import is_network

__all__ = [
    "CaptionFeatures",
    "PictureEncoder",
    "TextEncoder",
    "encode_all",
    "encode_dataset",
    "load_encoder",
    "sees",
]

SHIPPED = {"toy-clip": "clip_toy", "toy-clip-resnet": "clip_toy_resnet"}  # encoder -> the recipe that trains it


def load_encoder(name: str, **options: object) -> TextEncoder:
    """Return a frozen encoder on the CPU.

    `name` is "toy-clip" or "toy-clip-resnet" (shipped with this project; the first reads for the systems and teaches,
    the second, of other build, scores), "clip" (released weights; options `model`, `pretrained` and `cache_folder`), or
    a folder that `t2i export` wrote of a trained CLIP. Anything else raises `InputError`.
    """
    if name not in SHIPPED and name != "clip" and not Path(name).is_dir():
        known = ", ".join([*SHIPPED, "clip"])
        raise InputError(f"{name}: no such encoder; there are {known}, and folders of a trained CLIP")
    known = ("model", "pretrained", "cache_folder") if name == "clip" else ()
    if unknown := [option for option in options if option not in known]:
        raise InputError(f"{name}: unknown option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    if name == "clip":
        return _released(**options)
    return _shipped(name) if name in SHIPPED else _folder(Path(name))


def _shipped(name: str) -> TextEncoder:
    folder = WEIGHTS / name.replace("-", "_")
    if not is_network(folder):
        remedy = (
            f"train it: t2i train clip --recipe {SHIPPED[name]}, then t2i export runs/{SHIPPED[name]} --to {folder}"
        )
        raise InputError(f"{folder}: weights are missing; {remedy}")
    return _folder(folder)


def _folder(folder: Path) -> TextEncoder:
    from t2ilib.encoders.clip import open_encoder  # noqa: PLC0415 (open_clip takes seconds to import)

    return open_encoder(folder)


def _released(**options: str) -> TextEncoder:
    from t2ilib.encoders.released import load_released  # noqa: PLC0415

    return load_released(**options)

"""Encoders: captions to sentence and word features, and CLIPs, which see pictures, too.

>>> encoder = load_encoder("toy-clip")
>>> features = encoder.encode(["a red bird with black wings"])  # features.sentence, features.words, features.mask
"""

import os
from collections.abc import Mapping
from pathlib import Path

from t2ilib.encoders.encoder import CaptionFeatures, PictureEncoder, TextEncoder, encode_all, encode_dataset, sees
from t2ilib.errors import InputError, one_line
from t2ilib.files import WEIGHTS
from t2ilib.weights import CONFIG, is_network

__all__ = [
    "CaptionFeatures",
    "PictureEncoder",
    "TextEncoder",
    "check_options",
    "encode_all",
    "encode_dataset",
    "load_encoder",
    "sees",
]

OPTIONS = {"clip": ("model", "pretrained", "cache_folder")}  # of load_encoder; other encoders have none
SHIPPED = {"toy-clip": "clip_toy", "toy-clip-resnet": "clip_toy_resnet"}  # encoder -> the recipe that trains it


def load_encoder(name: str, **options: object) -> TextEncoder:
    """Return a frozen encoder on the CPU.

    `name` is "toy-clip" or "toy-clip-resnet" (shipped with this project; the first reads for the systems and teaches,
    the second, of other build, scores), "clip" (released weights; options `model`, `pretrained` and `cache_folder`), or
    a folder that `t2i export` wrote of a trained CLIP. Anything else raises `InputError`.
    """
    if name not in SHIPPED and name != "clip" and not os.path.isdir(name):
        known = ", ".join([*SHIPPED, "clip"])
        raise InputError(f"{one_line(name)}: no such encoder; there are {known}, and folders of a trained CLIP")
    check_options(name, options)
    if name == "clip":
        return _released(**options)
    return _shipped(name) if name in SHIPPED else _folder(Path(name))


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Raise InputError for options that `load_encoder` would not take for the encoder `name`."""
    known = OPTIONS.get(name, ())
    if unknown := [one_line(option) for option in options if option not in known]:
        raise InputError(f"{name}: unknown option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    for option, value in options.items():
        if not isinstance(value, str | Path):
            raise InputError(f"{name}: option {option} = {one_line(repr(value))} is no text")


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

    if (folder / "config.yaml").is_file() and not (folder / CONFIG).is_file():
        raise InputError(
            f"{folder}: a run folder without a trained CLIP; one trained for a run lies in its encoders/text"
        )
    return open_encoder(folder)


def _released(**options: str) -> TextEncoder:
    from t2ilib.encoders.released import load_released  # noqa: PLC0415

    return load_released(**options)

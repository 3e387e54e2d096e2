"""Text encoders: captions to sentence and word features.

>>> encoder = load_encoder("toy-clip")
>>> features = encoder.encode(["a red bird with black wings"])  # features.sentence, features.words, features.mask
"""

from collections.abc import Callable
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

TOY_CLIP = WEIGHTS / "toy_clip"
TRAIN_COMMAND = "python -m t2ilib.text.contrastive --data toy --folder data/weights/toy_clip"


def load_encoder(name: str, **options: object) -> TextEncoder:
    """Return a frozen encoder on the CPU.

    `name` is "toy-clip" (shipped with this project), "clip" (released weights; options `model`, `pretrained` and
    `cache_folder`), or a folder that `train_clip` wrote. Anything else raises `InputError`.
    """
    if name in _KNOWN:
        return _KNOWN[name](**options)
    if Path(name).is_dir():
        return _folder(Path(name), **options)
    raise InputError(f"{name}: no such text encoder; there are {', '.join(_KNOWN)}, and folders written by train_clip")


def _toy_clip() -> TextEncoder:
    for file in ("config.json", "model.safetensors"):
        if not (TOY_CLIP / file).is_file():
            raise InputError(f"{TOY_CLIP / file}: missing; train the toy CLIP with: {TRAIN_COMMAND}")
    return _folder(TOY_CLIP)


def _folder(folder: Path) -> TextEncoder:
    from t2ilib.text.clip import open_encoder  # noqa: PLC0415 (open_clip takes seconds to import)

    return open_encoder(folder)


def _released(**options: str) -> TextEncoder:
    from t2ilib.text.released import load_released  # noqa: PLC0415

    return load_released(**options)


_KNOWN: dict[str, Callable[..., TextEncoder]] = {"toy-clip": _toy_clip, "clip": _released}

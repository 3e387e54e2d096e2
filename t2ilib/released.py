"""Checkpoints that authors released, ready for captions: "dfgan:FILE" and "galip:FILE".

DF-GAN reads with DAMSM, whose two files lie beside the checkpoint (`t2ilib.official.damsm`); GALIP with the CLIP that
it was built around, ViT-B/32 of OpenAI, fetched once by open_clip. There is no recipe: nobody knows here what it was
trained on, or who may judge it.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from t2ilib import official
from t2ilib.encoders import TextEncoder, load_encoder
from t2ilib.errors import InputError, one_line
from t2ilib.official.damsm import VOCABULARY, WEIGHTS, find_text
from t2ilib.official.files import read_tensors
from t2ilib.sampler import Sampler, placed

READERS: dict[str, Callable[[Path], TextEncoder]] = {  # system -> the encoder that reads for a checkpoint
    "dfgan": lambda path: find_text(path.parent),
    "galip": lambda path: load_encoder("clip"),
}
MARK = ":"


def is_released(source: str | Path) -> bool:
    """Say whether `source` is written NAME:FILE, with a system of which checkpoints were released."""
    name, mark, file = str(source).partition(MARK)
    return bool(mark and file) and name in official.RELEASED


def released_file(source: str | Path) -> tuple[str, Path]:
    """Return system and file of "NAME:FILE"; InputError where captions cannot be read for it, and where none is."""
    name, _, file = str(source).partition(MARK)
    if name not in READERS:
        raise InputError(
            f"{name}: its sentence features were computed by a char-CNN-RNN that is not here, so it reads no captions; "
            f"open the file with t2ilib.official.load and give it features; captions are read for {', '.join(READERS)}"
        )
    path, remedy = Path(file), f"give {name}:FILE with the checkpoint that was released"
    try:
        there = path.is_file()
    except (OSError, ValueError) as error:  # a name that no file system takes; a folder that may not be entered
        raise InputError(f"{one_line(path, 300)}: {getattr(error, 'strerror', None) or error}; {remedy}") from None
    if not there:
        raise InputError(f"{one_line(path, 300)}: no such file; {remedy}")
    return name, path


def files_beside(path: Path) -> list[Path]:
    """Return the files beside a released checkpoint that an encoder may be read from."""
    return [*sorted(path.parent.glob(WEIGHTS)), *sorted(path.parent.glob(VOCABULARY))]


def open_released(source: str, device: torch.device | str | None = None) -> Sampler:
    """Return the sampler of a released checkpoint, "NAME:FILE"; InputError names a file that is missing or damaged."""
    name, path = released_file(source)
    read_tensors(path)  # which refuses a file that is none before anything is fetched for it
    reader = READERS[name](path)
    clip = {"clip": reader} if name == "galip" else {}
    system = official.load(name, path, **clip)
    wanted = system.config.embedding_dim
    if reader.sentence_dim != wanted:
        told = f"reads sentences of {wanted} numbers, {reader.name} gives {reader.sentence_dim}"
        raise InputError(f"{path}: {told}; put the encoder there that it was trained with")
    return placed(Sampler(system, reader, None, None), device)

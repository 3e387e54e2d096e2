"""DAMSM's released text encoder: text_encoder*.pth, and the captions*.pickle that numbers its words.

Without that very pickle the weights are worthless: it says which row of the embedding a word has.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from t2ilib.data.pickles import restricted_load
from t2ilib.encoders.damsm import DAMSMEncoder, TextLSTM
from t2ilib.errors import InputError, one_line
from t2ilib.official.files import is_stored, read_tensors
from t2ilib.weights import fault

WEIGHTS, VOCABULARY = "text_encoder*.pth", "captions*.pickle"
LIMITS = {"limit": 32 << 20, "steps": 20_000_000}  # all captions of COCO as numbers are in its pickle
NUMBERS = 3  # the place of the words' numbers: after captions of both splits and the words by their number
NAMES = {"encoder.": "embedding.", "rnn.": "lstm."}


def find_text(folder: str | Path) -> DAMSMEncoder:
    """Return the encoder whose two files lie in a folder; InputError where there is not one of each."""
    found = []
    for pattern in (WEIGHTS, VOCABULARY):
        paths = sorted(Path(folder).glob(pattern))
        if len(paths) != 1:
            there = ", ".join(path.name for path in paths) or "none"
            raise InputError(
                f"{folder}: must hold one {pattern} of DAMSM, holds {there}; put the encoder that the system was "
                "trained with beside its weights, with the pickle of its words"
            )
        found.append(paths[0])
    return load_text(*found)


def load_text(weights: str | Path, vocabulary: str | Path) -> DAMSMEncoder:
    """Return DAMSM's text encoder from its two released files; InputError names one that is not what it should be."""
    entries, numbers = _entries(read_tensors(weights)), _numbers(vocabulary)
    try:
        rows, embedding_dim = entries["embedding.weight"].shape
        gates, half = entries["lstm.weight_hh_l0"].shape
    except (KeyError, ValueError):
        gates = half = embedding_dim = 0
    if not half or not embedding_dim or gates != 4 * half:
        raise InputError(f"{weights}: no text encoder of DAMSM (an embedding and an LSTM); give text_encoder*.pth")
    layers = sum(name.startswith("lstm.weight_hh_l") and "reverse" not in name for name in entries)
    with torch.device("meta"):
        network = TextLSTM(rows, embedding_dim, 2 * half, layers)
    if wrong := fault(entries, network):
        raise InputError(f"{weights}: {wrong}; download it again")
    if max(numbers.values()) != rows - 1:
        told = f"numbers words up to {max(numbers.values())}, {Path(weights).name} has {rows - 1}"
        raise InputError(f"{vocabulary}: {told}; give the pickle that the encoder was trained with")
    network.load_state_dict({name: value.float() for name, value in entries.items()}, assign=True)
    return DAMSMEncoder(network, numbers, weights)


def _entries(content: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a state dict under our names."""
    found = {}
    for name, value in content.items():
        if not (isinstance(value, Tensor) and is_stored(value)):
            continue
        ours = str(name).removeprefix("module.")
        for old, new in NAMES.items():
            ours = new + ours.removeprefix(old) if ours.startswith(old) else ours
        found[ours] = value
    return found


def _numbers(path: str | Path) -> dict[str, int]:
    """Return the number of each word; that of no word, 0, is left out."""
    content = restricted_load(path, **LIMITS)
    table = content[NUMBERS] if isinstance(content, list | tuple) and len(content) > NUMBERS else None
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path}: no vocabulary (a list whose fourth entry numbers the words); give captions*.pickle")
    numbers = {word: number for word, number in table.items() if number != 0}
    odd = [word for word, number in numbers.items() if not (isinstance(word, str) and type(number) is int)]
    if odd or not numbers or sorted(numbers.values()) != list(range(1, len(numbers) + 1)):
        named = f"as {one_line(repr(odd[0]), 40)}" if odd else "one is there twice, or one is missing"
        raise InputError(f"{path}: its words are not numbered from 1 on ({named}); download it again")
    return numbers

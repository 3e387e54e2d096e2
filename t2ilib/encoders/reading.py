"""What an encoder reads: does the right caption fit a picture better than the same caption with one thing exchanged?

A chance of one half for every kind of thing, so the table shows which of them an encoder cannot tell; retrieval hides
that, for a few colours already tell most pictures apart. Yuksekgonul et al. 2023 (https://arxiv.org/abs/2210.01936),
section 3.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES, compose, parse
from t2ilib.encoders.clip import CLIPEncoder
from t2ilib.encoders.exchange import KINDS, WordExchange
from t2ilib.encoders.tokens import WordTokenizer, split_words
from t2ilib.errors import InputError
from t2ilib.pictures import to_float


@torch.no_grad()
def exchanged_values(encoder: CLIPEncoder, dataset: CaptionedImages, count: int = 500, seed: int = 0) -> dict:
    """Return for each attribute of toy birds how often (0 to 1) the right value wins over another one; chance is 0.5.

    Of `count` pictures, drawn by `seed`: a caption's sentence is written twice, about the bird and about one that
    differs in that attribute alone, in a value that the renderer could draw there (it may make the species one of
    another split). Both name what the caption mentions, and the attribute. A tie is a loss. InputError where the
    pictures have no attributes.
    """
    if dataset.attributes is None:
        raise InputError("dataset: these pictures have no attributes; exchanged_words needs none")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset))[:count]
    rows, images = dataset.attributes[chosen], directions_of(encoder, dataset.images[chosen])
    own = [dataset.captions[i][rng.integers(len(dataset.captions[i]))] for i in chosen]
    shares = {}
    for column, (name, values) in enumerate(ATTRIBUTES.items()):
        others = rows.copy()
        others[:, column] = (rows[:, column] + rng.integers(1, len(values), len(rows))) % len(values)
        pairs = [
            [compose(row, {*parse(caption), name}, int(picture)) for row in both]
            for picture, caption, both in zip(chosen, own, zip(rows, others, strict=True), strict=True)
        ]
        shares[name] = _wins(encoder, images, *zip(*pairs, strict=True)).mean()
    return {name: float(share) for name, share in shares.items()}


def exchanged_words(encoder: CLIPEncoder, dataset: CaptionedImages, count: int = 500, seed: int = 0) -> dict:
    """Return for each kind of word how often (0 to 1) the right caption wins in `word_wins`."""
    return {kind: float(won.mean()) for kind, won in word_wins(encoder, dataset, count, seed).items()}


@torch.no_grad()
def word_wins(encoder: CLIPEncoder, dataset: CaptionedImages, count: int = 500, seed: int = 0) -> dict[str, np.ndarray]:
    """Return for each kind of word (`exchange.KINDS`) whether the right caption wins over one with such a word wrong.

    For captions of any pictures: one of each of `count` pictures, in which one word is exchanged as in training. Each
    value is (n,) bool, one for each caption asked; only kinds with ten captions or more are in the answer.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset))[:count]
    longest = max(len(split_words(caption)) for own in dataset.captions for caption in own)
    tokenizer = WordTokenizer.from_captions((line for own in dataset.captions for line in own), longest + 2, most=10**6)
    exchange = WordExchange(tokenizer, tokenizer([line for own in dataset.captions for line in own]))
    tokens = tokenizer([dataset.captions[i][rng.integers(len(dataset.captions[i]))] for i in chosen])
    wrong, changed = exchange(tokens, torch.Generator().manual_seed(seed))
    place = (wrong != tokens).int().argmax(1)
    kinds = exchange.kind[tokens[torch.arange(len(tokens)), place]].where(changed, 0)
    images = directions_of(encoder, dataset.images[chosen])
    texts = [[" ".join(tokenizer.words(row)[1:-1]) for row in table] for table in (tokens, wrong)]
    won = _wins(encoder, images, *texts)
    asked = {name: (kinds == number).numpy() for number, name in enumerate(KINDS, start=1)}
    return {name: won[there] for name, there in asked.items() if there.sum() >= 10}


def directions_of(encoder: CLIPEncoder, pictures: np.ndarray) -> Tensor:
    """Return the unit vectors (N, D) of uint8 pictures (N, H, W, 3), on the CPU."""
    parts = [encoder.encode_images(part.to(encoder.device)).cpu() for part in to_float(pictures).split(100)]
    return F.normalize(torch.cat(parts).float(), dim=-1)


def _wins(encoder: CLIPEncoder, images: Tensor, right: Sequence[str], wrong: Sequence[str]) -> np.ndarray:
    """Return for each picture's unit vector whether the right caption's cosine is the higher one, (N,) bool."""
    cosines = []
    for captions in (right, wrong):
        parts = [encoder.encode(captions[i : i + 250]).sentence.cpu() for i in range(0, len(captions), 250)]
        cosines.append((F.normalize(torch.cat(parts).float(), dim=-1) * images).sum(1))
    return (cosines[0] > cosines[1]).numpy()

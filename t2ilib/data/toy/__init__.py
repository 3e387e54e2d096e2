"""Toy birds: the embedded data set. Rendered birds with captions, known attributes and held-out species.

    birds = toy_birds(size=64)            # 8,000 training, 1,000 validation, 1,000 test pictures
    render(bird({"body": "red", "wing": "black"})[None], [7], size=256)

A species is a (body, wing) pair of colours. The test split holds only species that training never shows, so it asks
whether a generator composes what it learnt.
"""

import numpy as np

from t2ilib.data.captioned import CaptionedImages, check_size
from t2ilib.data.toy.attributes import (
    ATTRIBUTES,
    COLOUR_ATTRIBUTES,
    COLOURS,
    HELD_OUT,
    bird,
    describe,
    hashed,
    mixed,
    sample_attributes,
    species,
)
from t2ilib.data.toy.captions import alternatives, caption, captions, compose, exchanged, parse
from t2ilib.data.toy.render import faces_right, render
from t2ilib.errors import InputError

__all__ = [
    "ATTRIBUTES",
    "COLOURS",
    "COLOUR_ATTRIBUTES",
    "HELD_OUT",
    "alternatives",
    "bird",
    "caption",
    "captions",
    "compose",
    "describe",
    "exchanged",
    "faces_right",
    "parse",
    "render",
    "sample_attributes",
    "species",
    "toy_birds",
]

CAPTIONS_PER_PICTURE = 10
LOOK = 1  # raised whenever the same seed gives other pictures or captions


def toy_birds(
    train: int = 8000, validation: int = 1000, test: int = 1000, size: int = 64, seed: int = 0
) -> CaptionedImages:
    """Render the toy birds: N = train + validation + test pictures of `size` pixels (32 to 256), ten captions each.

    The i-th picture of a split depends on `seed`, the split and i alone, so a larger set extends a smaller one, and
    the same seed shows the same birds at every size. InputError for impossible counts, sizes or seeds.
    """
    counts = {"train": train, "validation": validation, "test": test}
    if not all(type(value) is int for value in (*counts.values(), seed)):
        raise InputError(f"{counts}, seed {seed}: give whole numbers")
    if min(counts.values()) < 0 or sum(counts.values()) == 0 or seed < 0:
        raise InputError(f"{counts}, seed {seed}: give counts and a seed of 0 or more, and at least one picture")
    check_size(size, sum(counts.values()))
    streams = [mixed(seed, 300 + i) >> 1 for i in range(len(counts))]
    attributes = np.concatenate(
        [
            sample_attributes(count, stream, held_out=name == "test")
            for (name, count), stream in zip(counts.items(), streams, strict=True)
        ]
    )
    seeds = np.concatenate(
        [
            (hashed(np.arange(count), stream) >> np.uint64(1)).astype(np.int64)
            for count, stream in zip(counts.values(), streams, strict=True)
        ]
    )
    class_ids, class_names = species(attributes)
    return CaptionedImages(
        images=render(attributes, seeds, size),
        captions=[captions(row, int(each), CAPTIONS_PER_PICTURE) for row, each in zip(attributes, seeds, strict=True)],
        class_ids=class_ids,
        splits=np.repeat(list(counts), list(counts.values())),
        class_names=class_names,
        attributes=attributes,
        source={"name": "toy birds", "look": LOOK, "seed": seed, "size": size, **counts},
    )

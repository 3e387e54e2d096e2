"""How often a caption finds its own picture among others: the measure of the toy CLIP."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.encoders.clip import CLIPEncoder
from t2ilib.errors import InputError
from t2ilib.pictures import to_float


@torch.no_grad()
def retrieval(
    encoder: CLIPEncoder, dataset: CaptionedImages, count: int | None = None, seed: int = 0
) -> dict[str, float]:
    """Return the share (0 to 1) of queries whose own picture has the highest cosine among `count` pictures.

    The pictures are drawn from `dataset`: 100, or all where there are fewer, unless `count` says how many. They have
    distinct attributes (or distinct first captions, where there are no attributes). Queries: "full", the first caption,
    which mentions most; "random", one caption by chance, which may well fit several pictures; "average", the mean
    direction of all captions of the picture.
    """
    count = count or min(100, len(first_of_each(dataset)))
    chosen = distinct_pictures(dataset, count, seed)
    random = np.random.default_rng(seed)
    batches = [encoder.encode_images(batch.to(encoder.device)) for batch in to_float(chosen.images).split(100)]
    images = F.normalize(torch.cat(batches), dim=-1)

    def share(pick: Callable[[list[str]], list[str]]) -> float:
        texts = torch.stack([_mean_direction(encoder, pick(captions)) for captions in chosen.captions])
        return float(((texts @ images.T).argmax(1).cpu() == torch.arange(count)).float().mean())

    return {
        "full": share(lambda captions: captions[:1]),
        "random": share(lambda captions: [captions[random.integers(len(captions))]]),
        "average": share(lambda captions: captions),
    }


def distinct_pictures(dataset: CaptionedImages, count: int, seed: int) -> CaptionedImages:
    """Draw `count` pictures of which no two agree in all attributes (or in the first caption, without attributes)."""
    first = first_of_each(dataset)
    if len(first) < count:
        raise InputError(f"count {count}: the dataset has only {len(first)} distinct pictures; ask for fewer")
    return dataset.subset(np.random.default_rng(seed).permutation(first)[:count])


def first_of_each(dataset: CaptionedImages) -> np.ndarray:
    """Return the index of the first picture with each combination of attributes (or first caption, without them)."""
    keys = [row[0] for row in dataset.captions] if dataset.attributes is None else dataset.attributes
    return np.unique(np.asarray(keys), axis=0, return_index=True)[1]


def _mean_direction(encoder: CLIPEncoder, captions: list[str]) -> Tensor:
    return F.normalize(encoder.encode(captions).sentence, dim=-1).mean(0)

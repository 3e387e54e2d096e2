"""R-precision and CLIP score: does the picture fit its own caption better than others', and how well?

R-precision as AttnGAN introduced it (Xu et al. 2018, https://arxiv.org/abs/1711.10485, section 4): rank the caption a
picture was made from among 99 mismatched ones by image-text cosine. AttnGAN ranked with DAMSM, we rank with a CLIP
network: the extractor is part of the number's name. CLIP score: Hessel et al. 2021, https://arxiv.org/abs/2104.08718.
"""

from collections.abc import Sequence

import numpy as np

from t2ilib.errors import InputError
from t2ilib.metrics.intervals import interval

SPLITS = 10  # the literature's number of folds for mean and error


def r_precision(
    image_features: np.ndarray,
    text_features: np.ndarray,
    candidates: int = 100,
    seed: int = 0,
    groups: Sequence | None = None,
) -> dict[str, float]:
    """Share of pictures whose own caption is nearest (top-1 by cosine) among `candidates` captions, in 0..1.

    `image_features`, `text_features` (N, D): row i of both belongs together. The other captions are drawn by `seed`
    from the rows of another group; `groups` (N,) is for instance the caption texts, so that an identical caption is
    never a rival. A tie with a rival counts as a miss. Returns mean, standard_error (over ten folds of the pictures,
    the literature's), interval (95 %, Wilson's), candidates, chance. Raises `InputError` when
    features are not finite, there are none, or a row has fewer than `candidates` - 1 rivals.
    """
    if candidates < 2:
        raise InputError(f"candidates = {candidates}: the own caption alone is always nearest; give 2 or more")
    images, texts = _pairs(image_features, text_features)
    if groups is not None and len(groups) != len(images):
        raise InputError(f"groups: {len(groups)} for {len(images)} pictures; give one per picture")
    groups = np.unique(np.asarray(range(len(images)) if groups is None else groups), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    hits = np.array([_hit(i, images, texts, _rivals(i, groups, candidates, rng)) for i in range(len(images))])
    folds = [fold.mean() for fold in np.array_split(hits[rng.permutation(len(hits))], min(SPLITS, len(hits)))]
    error = float(np.std(folds, ddof=1) / np.sqrt(len(folds))) if len(folds) > 1 else float("nan")
    return {
        "mean": float(hits.mean()),
        "standard_error": error,
        "interval": interval(hits),
        "candidates": candidates,
        "chance": 1 / candidates,
    }


def clip_scores(image_features: np.ndarray, text_features: np.ndarray) -> np.ndarray:
    """100 times the cosine of each picture and its caption, negative ones as 0, (N,) (equation 1, w = 100)."""
    images, texts = _pairs(image_features, text_features)
    cosine = (images * texts).sum(axis=1)
    return 100 * cosine.clip(min=0)


def clip_chance(image_features: np.ndarray, text_features: np.ndarray, groups: Sequence) -> float | None:
    """The mean of `clip_scores` when each picture stands beside another's caption: what a painter who reads none gets.

    Row i's picture stands beside the caption of the first row behind it, from the last on to the first, that is of
    another group; `groups` (N,) are the caption texts. Nothing is drawn. None where all are of one group.
    """
    _, groups = np.unique(np.asarray(groups), return_inverse=True)
    if (groups == groups[0]).all():
        return None
    others = (np.arange(len(groups)) + 1) % len(groups)
    while (same := groups[others] == groups).any():
        others[same] = (others[same] + 1) % len(groups)
    return float(clip_scores(image_features, text_features[others]).mean())


def clip_score(image_features: np.ndarray, text_features: np.ndarray) -> float:
    """The mean of `clip_scores`."""
    return float(clip_scores(image_features, text_features).mean())


def _pairs(image_features: np.ndarray, text_features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as unit rows (N, D); `InputError` where they do not belong together, and where there are none."""
    images, texts = _unit(image_features, "image_features"), _unit(text_features, "text_features")
    if images.shape != texts.shape:
        raise InputError(f"features: shapes {images.shape} and {texts.shape} differ; give one caption per picture")
    if not len(images):
        raise InputError("features: there are none; give at least one picture and its caption")
    return images, texts


def _unit(features: np.ndarray, name: str) -> np.ndarray:
    """Rows of `features` (N, D) in float64, scaled to length one."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise InputError(f"{name}: expected the shape (N, D), found {features.shape}; give one vector per row")
    if not np.isfinite(features).all():
        raise InputError(f"{name}: some values are NaN or infinite; look for the pictures or captions that caused them")
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(min=1e-12)


def _rivals(row: int, groups: np.ndarray, candidates: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `candidates` - 1 rows of other groups than `row`'s, without repetition."""
    shuffled = rng.permutation(len(groups))
    rivals = shuffled[groups[shuffled] != groups[row]][: candidates - 1]
    if len(rivals) < candidates - 1:
        raise InputError(
            f"captions: only {len(rivals)} rivals for {candidates} candidates; evaluate more pictures or rank fewer"
        )
    return rivals


def _hit(row: int, images: np.ndarray, texts: np.ndarray, rivals: np.ndarray) -> bool:
    """Whether the picture in `row` is nearer to its own caption than to every rival's."""
    own, *others = (texts[[row, *rivals]] * images[row]).sum(axis=1)  # row by row: equal captions tie exactly
    return own > max(others, default=-np.inf)

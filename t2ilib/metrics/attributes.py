"""Attribute accuracy and composition: does a toy bird's picture show what its caption says?

Every caption mentions some attributes, the judge names those of the picture, and we count how many agree: an exact
answer, as far as the judge's own accuracy goes. Each caption counts once, however much it mentions: one that lists all
eleven attributes would otherwise weigh as much as five others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from t2ilib.data.toy import parse
from t2ilib.errors import InputError
from t2ilib.metrics.intervals import interval
from t2ilib.metrics.judge import Judge

COMPOSED = ("body", "wing")  # the pair of colours that makes a species, which the test split holds out


def attribute_accuracy(judge: Judge, images: Tensor, captions: Sequence[str]) -> dict:
    """How often pictures (N, 3, H, W) in [-1, 1] show the attributes that their captions (N) mention, each in 0..1.

    Returns `mentioned` (the share of its attributes that a picture shows, mean over the captions), `interval` (95 %, by
    the bootstrap over captions), `chance` (the same for guessing evenly), `count` (of mentions), `composition` (how
    often body and wings are both right, of the captions that name both, with interval, chance and count; None where
    none does) and `attributes`: name -> accuracy, interval (Wilson's), count, chance; an attribute that no caption
    mentions is left out.
    Raises `InputError` when counts differ or when no caption mentions any attribute.
    """
    return accuracy_of(judge.predict(images), [parse(caption) for caption in captions], judge.config.attributes)


def accuracy_of(predicted: Tensor, mentioned: Sequence[Mapping[str, str]], attributes: Mapping) -> dict:
    """The counting of `attribute_accuracy`: predicted value indices (N, A) against each caption's mentioned values."""
    names, right = list(attributes), _right(predicted, mentioned, attributes)
    told = [row for row in right if row]
    if not told:
        raise InputError("captions: none mentions an attribute of the toy birds; use toy captions, or no judge")
    luck = {name: 1 / len(values) for name, values in attributes.items()}
    shares = np.array([np.mean(list(row.values())) for row in told])
    hits = {name: [row[name] for row in told if name in row] for name in names}
    return {
        "mentioned": float(shares.mean()),
        "interval": interval(shares),
        "chance": float(np.mean([np.mean([luck[name] for name in row]) for row in told])),
        "count": sum(map(len, told)),
        "composition": _composition(told, luck),
        "attributes": {
            name: {
                "accuracy": float(np.mean(found)),
                "interval": interval(np.array(found)),
                "count": len(found),
                "chance": luck[name],
            }
            for name, found in hits.items()
            if found
        },
    }


def shares_of(predicted: Tensor, mentioned: Sequence[Mapping[str, str]], attributes: Mapping) -> np.ndarray:
    """Return for each caption which share of its attributes the picture shows, (N,); NaN where it mentions none.

    `predicted` value indices (N, A) against each caption's mentioned values; the mean is the `mentioned` of
    `attribute_accuracy`. Raises `InputError` when counts differ.
    """
    right = _right(predicted, mentioned, attributes)
    return np.array([np.mean(list(row.values())) if row else np.nan for row in right])


def chance_of(captions: Sequence[str], attributes: Mapping) -> float:
    """Return the share of their mentioned attributes that guessing evenly among the values hits, mean over captions."""
    told = [[1 / len(attributes[name]) for name in parse(caption) if name in attributes] for caption in captions]
    return float(np.mean([np.mean(shares) for shares in told if shares]))


def _right(predicted: Tensor, mentioned: Sequence[Mapping[str, str]], attributes: Mapping) -> list[dict[str, bool]]:
    """Return for each caption which of its attributes the picture shows; `InputError` when counts differ."""
    if len(predicted) != len(mentioned):
        raise InputError(f"captions: {len(mentioned)} for {len(predicted)} pictures; give one caption per picture")
    names = list(attributes)
    shown = [{name: attributes[name][value] for name, value in zip(names, row, strict=True)} for row in predicted]
    return [
        {name: picture[name] == values[name] for name in names if name in values}
        for picture, values in zip(shown, mentioned, strict=True)
    ]


def _composition(right: Sequence[Mapping[str, bool]], luck: Mapping[str, float]) -> dict | None:
    """How often all of `COMPOSED` are right, of the captions that name them all."""
    both = np.array([all(row[name] for name in COMPOSED) for row in right if row.keys() >= set(COMPOSED)], dtype=float)
    if not len(both):
        return None
    chance = float(np.prod([luck[name] for name in COMPOSED]))
    return {"accuracy": float(both.mean()), "interval": interval(both), "count": len(both), "chance": chance}

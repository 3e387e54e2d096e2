"""Attribute accuracy: does a toy bird's picture show what its caption says?

Every caption mentions some attributes, the judge names those of the picture, and we count how many agree: an exact
answer, as far as the judge's own accuracy goes.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from t2ilib.data.toy import parse
from t2ilib.errors import InputError
from t2ilib.metrics.judge import Judge


def attribute_accuracy(judge: Judge, images: Tensor, captions: Sequence[str]) -> dict:
    """How often pictures (N, 3, H, W) in [-1, 1] show the attributes that their captions (N) mention, each in 0..1.

    Returns `mentioned` (over all mentioned attributes of all captions), `chance` (the same for guessing evenly),
    `count`, and `attributes`: name -> accuracy, count, chance; an attribute that no caption mentions is left out.
    Raises `InputError` when counts differ or when no caption mentions any attribute.
    """
    if len(images) != len(captions):
        raise InputError(f"captions: {len(captions)} for {len(images)} pictures; give one caption per picture")
    return accuracy_of(judge.predict(images), [parse(caption) for caption in captions], judge.config.attributes)


def accuracy_of(predicted: Tensor, mentioned: Sequence[Mapping[str, str]], attributes: Mapping) -> dict:
    """The counting of `attribute_accuracy`: predicted value indices (N, A) against each caption's mentioned values."""
    table = {}
    for column, (name, values) in enumerate(attributes.items()):
        hits = [values[predicted[row, column]] == words[name] for row, words in enumerate(mentioned) if name in words]
        if hits:
            table[name] = {"accuracy": sum(hits) / len(hits), "count": len(hits), "chance": 1 / len(values)}
    count = sum(entry["count"] for entry in table.values())
    if not count:
        raise InputError("captions: none mentions an attribute of the toy birds; use toy captions, or no judge")
    return {
        "mentioned": sum(entry["accuracy"] * entry["count"] for entry in table.values()) / count,
        "chance": sum(entry["chance"] * entry["count"] for entry in table.values()) / count,
        "count": count,
        "attributes": table,
    }

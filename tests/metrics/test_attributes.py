"""Attribute accuracy: only what captions mention counts, and chance is that of these very captions."""

import numpy as np
import pytest
import torch

from t2ilib.errors import InputError
from t2ilib.metrics.attributes import accuracy_of, attribute_accuracy, chance_of, shares_of
from t2ilib.pictures import to_float

PREDICTED = torch.tensor([[0, 2], [1, 1]])


def test_each_caption_counts_once_and_only_by_what_it_mentions(attributes):
    result = accuracy_of(PREDICTED, [{"top": "dark"}, {"top": "dark", "bottom": "grey"}], attributes)
    assert result["mentioned"] == pytest.approx((1 + 1 / 2) / 2)  # of three mentions two are right
    assert result["count"] == 3 and result["composition"] is None  # no caption names body and wing
    wilson = {name: result["attributes"][name].pop("interval") for name in result["attributes"]}
    assert result["attributes"]["top"] == {"accuracy": 0.5, "count": 2, "chance": 0.5}
    assert result["attributes"]["bottom"] == {"accuracy": 1, "count": 1, "chance": 1 / 3}
    assert wilson["top"] == pytest.approx([0.0945, 0.9055], abs=1e-4)  # one of two hits: 1/2 +- z / (2 sqrt(2 + z^2))
    assert wilson["bottom"] == pytest.approx([1 / (1 + 1.96**2), 1], abs=1e-4)  # the only one is a hit
    assert result["chance"] == pytest.approx((1 / 2 + (1 / 2 + 1 / 3) / 2) / 2)
    low, high = result["interval"]
    assert low == 0.5 and high == 1  # of two captions


def test_composition_wants_both_colours_of_the_captions_that_name_both():
    values = {"body": ("red", "blue"), "wing": ("red", "blue", "green"), "size": ("small", "large")}
    predicted = torch.tensor([[0, 1, 0], [0, 2, 0], [1, 1, 1], [0, 0, 0]])
    told = [{"body": "red", "wing": "blue"}, {"body": "red", "wing": "blue", "size": "small"}, {"body": "blue"}, {}]
    found = accuracy_of(predicted, told, values)["composition"]
    assert found["accuracy"] == 0.5 and found["count"] == 2 and found["chance"] == pytest.approx(1 / 6)
    right = accuracy_of(predicted[:1].repeat(5, 1), told[:1] * 5, values)["composition"]
    assert right["accuracy"] == 1 and right["interval"] == pytest.approx([0.566, 1], abs=1e-3)  # five


def test_an_attribute_that_no_caption_mentions_is_left_out(attributes):
    result = accuracy_of(PREDICTED, [{"bottom": "light"}, {}], attributes)
    assert list(result["attributes"]) == ["bottom"] and result["mentioned"] == 1 and result["count"] == 1


def test_an_attribute_that_is_never_right_stands_with_0(attributes):
    result = accuracy_of(PREDICTED, [{"top": "light"}, {"top": "dark"}], attributes)
    assert list(result["attributes"]) == ["top"] and result["mentioned"] == 0
    assert result["attributes"]["top"]["accuracy"] == 0 and result["attributes"]["top"]["count"] == 2


def test_shares_are_those_of_each_caption_and_their_mean_is_the_accuracy(attributes):
    told = [{"top": "dark"}, {"top": "dark", "bottom": "grey"}]
    shares = shares_of(PREDICTED, told, attributes)
    assert shares.tolist() == [1, 0.5] and shares.mean() == accuracy_of(PREDICTED, told, attributes)["mentioned"]
    assert np.isnan(shares_of(PREDICTED, [{}, told[0]], attributes)).tolist() == [True, False]
    with pytest.raises(InputError, match="captions: 1 for 2 pictures"):
        shares_of(PREDICTED, told[:1], attributes)


def test_captions_without_attributes_are_named(attributes):
    with pytest.raises(InputError, match="captions"):
        accuracy_of(PREDICTED, [{}, {}], attributes)


def test_shipped_judge_on_captions(judge, held_out):
    captions = [row[0] for row in held_out.captions]
    pictures = to_float(held_out.images)
    right = attribute_accuracy(judge, pictures, captions)
    wrong = attribute_accuracy(judge, pictures, captions[1:] + captions[:1])
    assert right["mentioned"] >= 0.98
    assert chance_of(captions, judge.config.attributes) == pytest.approx(right["chance"])  # without any picture
    assert abs(wrong["mentioned"] - wrong["chance"]) < 0.1
    with pytest.raises(InputError, match="one caption per picture"):
        attribute_accuracy(judge, pictures, captions[1:])

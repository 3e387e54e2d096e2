"""Captioned images: fields that fit each other, splits, and sizes that can be."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib.data import captioned
from t2ilib.data.captioned import CaptionedImages, has_words
from t2ilib.errors import InputError


def small(count: int = 6, size: int = 8, attributes: bool = False, seed: int = 0) -> CaptionedImages:
    draw = np.random.default_rng(seed)
    return CaptionedImages(
        images=draw.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        captions=[[f"bird {i}", "a bird"][: 1 + i % 2] for i in range(count)],
        class_ids=np.arange(count) % 3,
        splits=np.array([("train", "test")[i % 2] for i in range(count)]),
        class_names=["wren", "tern", "crow"],
        attributes=draw.integers(0, 2, (count, 11)) if attributes else None,
        source={"importer": "test"},
    )


def test_split_and_subset():
    dataset = small(6, attributes=True)
    assert dataset.size == 8
    train = dataset.split("train")
    assert len(train) == 3 and set(train.splits) == {"train"}
    np.testing.assert_array_equal(train.images, dataset.images[::2])
    np.testing.assert_array_equal(train.attributes, dataset.attributes[::2])
    assert train.captions == dataset.captions[::2]
    with pytest.raises(InputError, match=r"'validation'.*test, train"):
        dataset.split("validation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((6, 8, 8), np.uint8)}, "expected uint8"),
        ({"images": np.zeros((6, 8, 8, 3), np.float32)}, "float32"),
        ({"captions": [["a"]] * 5}, "5 entries for 6"),
        ({"captions": [["a"]] * 5 + [[]]}, "picture 5"),
        ({"class_ids": np.array([0, 1, 2, 3, 0, 0])}, r"0\.\.2"),
        ({"class_ids": np.array([0, 1, 1.5, 0, 0, 0])}, "class_ids: float64"),
        ({"captions": ["a bird"] * 6}, "picture 0 are no list"),
        ({"captions": [["a"]] * 5 + [[3]]}, "picture 5 are no list"),
        ({"captions": [["a"]] * 5 + [["b", ""]]}, "picture 5 has an empty one"),
        ({"captions": [["a"]] * 5 + [["b", " \t"]]}, "picture 5 has an empty one"),
        ({"captions": [["a"]] * 5 + [["b\0"]]}, "NUL character for picture 5"),
        ({"captions": [["a"]] * 4 + [["\ud800"]] * 2}, "surrogate.* picture 4"),
        ({"splits": np.array(["train"] * 5 + ["holdout"])}, "splits: 'holdout'"),
        ({"class_names": ["wren", "tern", 3]}, "class_names"),
        ({"class_names": ["wren", "tern", "\udce9"]}, "class_names: half a character"),
    ],
)
def test_fields_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        CaptionedImages(**{**vars(small()), **change})


@given(size=st.one_of(st.integers(max_value=0), st.integers(1025), st.floats(), st.text(), st.booleans(), st.none()))
def test_sizes_that_cannot_be_are_refused(size):
    with pytest.raises(InputError, match=r"size: .*1 to 1024"):
        captioned.check_size(size)


@pytest.mark.parametrize("caption", ["", " ", "\n", "\u200b", "\u200b \u2060\ufeff", "\u202e"])
def test_captions_that_show_nothing_have_no_words(caption):
    assert not has_words(caption) and has_words(caption + "bird") and has_words(caption + "鳥")


def test_pictures_that_do_not_fit_into_memory_are_refused_before_they_are_read():
    captioned.check_size(1024, 10)
    with pytest.raises(InputError, match=r"1000000000 pictures take .* GiB, this machine has"):
        captioned.check_size(1024, 10**9)


def test_pictures_take_no_more_than_a_share_of_the_memory_that_is_free(monkeypatch):
    monkeypatch.setattr(captioned.psutil, "virtual_memory", lambda: SimpleNamespace(total=1 << 40, available=3 << 30))
    captioned.check_size(1024, 900)  # 2.64 GiB
    with pytest.raises(InputError, match=r"size: 1024; .*1000 pictures take 2\.9 GiB, this machine has 3\.0 GiB free"):
        captioned.check_size(1024, 1000)

"""The toy birds: reproducible bytes, splits, species, and captions that say what the picture shows."""

import hashlib
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ilib.data import toy
from t2ilib.data.toy.attributes import choose, hashed, mixed
from t2ilib.errors import InputError

NAMES = tuple(toy.ATTRIBUTES)
GOLDEN = {
    32: "196cd47df1e75cb1104f7bcb1e0958eb80b87db33fa3bd74b04970eb430d07dc",
    64: "e60172fadec193373ec2a91be06faf8b266291cba383e87e06d84e5bafa4d307",
    65: "c060b882d7758967399ab0b533f0070a423d592c29c7586ea2f0b6ee5d0bb9d6",
}
GOLDEN_CAPTIONS = "d08e5b361d05bcbd8db5808fb392ae64297d578aa9d166b5dfabd699c04bb924"

rows = st.tuples(*[st.integers(0, len(values) - 1) for values in toy.ATTRIBUTES.values()]).map(np.array)
numbers = st.integers(0, 2**62)


@pytest.fixture(scope="module")
def birds():
    return toy.toy_birds(train=120, validation=40, test=40, size=32)


@pytest.mark.parametrize("size", GOLDEN)
def test_same_seed_same_bytes(size):
    attributes = toy.sample_attributes(24, seed=11)
    pictures = toy.render(attributes, np.arange(24) * 977, size)
    assert hashlib.sha256(pictures.tobytes()).hexdigest() == GOLDEN[size]


def test_same_seed_same_captions():
    sentences = [line for i, row in enumerate(toy.sample_attributes(50, seed=4)) for line in toy.captions(row, i)]
    assert hashlib.sha256("\n".join(sentences).encode()).hexdigest() == GOLDEN_CAPTIONS


def test_a_picture_does_not_depend_on_its_neighbours():
    attributes, seeds = toy.sample_attributes(40, seed=2), np.arange(40)
    together = toy.render(attributes, seeds, 64)
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(toy.render(attributes[order], seeds[order], 64), together[order])
    assert np.array_equal(toy.render(attributes[7:8], seeds[7:8], 64)[0], together[7])


@pytest.mark.parametrize("size", [32, 47, 256])
def test_pictures_have_the_size_asked_for(size):
    pictures = toy.render(toy.sample_attributes(3, 0), np.arange(3), size)
    assert pictures.shape == (3, size, size, 3)
    assert pictures.dtype == np.uint8
    assert pictures.std(axis=(1, 2, 3)).min() > 20


def test_sizes_show_the_same_bird():
    attributes, seeds = toy.sample_attributes(8, seed=5), np.arange(8)
    large = toy.render(attributes, seeds, 128).astype(float)
    shrunk = large.reshape(8, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - toy.render(attributes, seeds, 64)).mean() < 4


@pytest.mark.parametrize("name", NAMES)
def test_every_value_shows_in_the_picture(name):
    """Changing one attribute alone changes at least 12 pixels of 64x64 clearly, for any two of its values."""
    base = toy.bird({"body": "blue", "wing": "yellow", "belly": "white", "crown": "red", "bill": "black"})
    seeds, pictures = np.arange(12), []
    for value in range(len(toy.ATTRIBUTES[name])):
        row = base.copy()
        row[NAMES.index(name)] = value
        pictures.append(toy.render(np.tile(row, (12, 1)), seeds, 64).astype(int))
    for one in range(len(pictures)):
        for other in range(one):
            changed = (np.abs(pictures[one] - pictures[other]).max(axis=-1) > 40).sum(axis=(1, 2))
            assert changed.min() >= 12, (name, one, other, changed)


def test_body_colour_is_where_it_should_be():
    row = toy.bird({"body": "red", "wing": "red"})
    red = toy.render(np.tile(row, (10, 1)), np.arange(10), 64)[:, 20:44, 20:44].mean(axis=(1, 2))
    assert (red[:, 0] > red[:, 2] + 30).all()


@pytest.mark.parametrize("size", [31, 257, 0, -5, 64.0, "64"])
def test_bad_sizes_are_named(size):
    with pytest.raises(InputError, match="32 to 256"):
        toy.render(toy.sample_attributes(1, 0), np.arange(1), size)


@pytest.mark.parametrize(
    "attributes",
    [np.zeros((2, 3), int), np.zeros(11, int), np.zeros((1, 11)), np.full((1, 11), 8), -np.ones((1, 11), int)],
)
def test_bad_attributes_are_named(attributes):
    with pytest.raises(InputError, match="attributes"):
        toy.render(attributes, np.arange(len(attributes)), 64)


def test_seeds_must_match_the_birds():
    for seeds in (np.arange(2), np.zeros(3), np.zeros((3, 1), int)):
        with pytest.raises(InputError, match="seeds"):
            toy.render(toy.sample_attributes(3, 0), seeds, 64)


def test_drawing_is_fast():
    start = time.perf_counter()
    toy.render(toy.sample_attributes(200, 0), np.arange(200), 64)
    assert time.perf_counter() - start < 5


def test_scalar_and_array_hash_agree():
    seeds = np.array([0, 1, 12345, 2**62])
    for channel in (0, 7, 350, 2**61):
        assert [mixed(int(seed), channel) for seed in seeds] == hashed(seeds, channel).tolist()
    counts = np.bincount(choose(np.arange(8000), 3, 8), minlength=8)
    assert counts.min() > 900


def test_held_out_species_are_never_trained_on():
    held_out = {(toy.COLOURS.index(body), toy.COLOURS.index(wing)) for body, wing in toy.HELD_OUT}
    assert len(held_out) == len(toy.HELD_OUT) == 10
    trained = {tuple(pair) for pair in toy.sample_attributes(4000, 1, held_out=False)[:, :2].tolist()}
    tested = {tuple(pair) for pair in toy.sample_attributes(500, 1, held_out=True)[:, :2].tolist()}
    everything = {tuple(pair) for pair in toy.sample_attributes(6000, 1, held_out=None)[:, :2].tolist()}
    assert tested == held_out
    assert not trained & held_out
    assert len(trained) == 54
    assert len(everything) == 64
    for role in (0, 1):
        assert {pair[role] for pair in trained} == set(range(8))


def test_every_value_of_every_attribute_is_drawn():
    attributes = toy.sample_attributes(2000, seed=0, held_out=False)
    for column, values in enumerate(toy.ATTRIBUTES.values()):
        share = np.bincount(attributes[:, column], minlength=len(values)) / 2000
        assert share.min() > 0.4 / len(values), NAMES[column]
    assert not np.array_equal(attributes, toy.sample_attributes(2000, seed=1, held_out=False))
    assert np.array_equal(attributes[:50], toy.sample_attributes(50, seed=0, held_out=False))


def test_species_are_named_after_both_colours():
    ids, names = toy.species(toy.bird({"body": "red", "wing": "black"})[None])
    assert names[ids[0]] == "red bird with black wings"
    assert len(set(names)) == 64


def test_bird_and_describe_are_inverse():
    for row in toy.sample_attributes(20, 9):
        assert np.array_equal(toy.bird(toy.describe(row)), row)
    with pytest.raises(InputError, match="purple"):
        toy.bird({"body": "purple"})
    with pytest.raises(InputError, match="beak"):
        toy.bird({"beak": "red"})


def test_toy_birds_is_a_whole_data_set(birds):
    assert len(birds) == 200
    assert birds.size == 32
    assert [len(birds.split(name)) for name in ("train", "validation", "test")] == [120, 40, 40]
    assert {len(lines) for lines in birds.captions} == {10}
    test_species = set(birds.split("test").class_ids.tolist())
    for name in ("train", "validation"):
        assert not test_species & set(birds.split(name).class_ids.tolist())
    assert np.array_equal(birds.class_ids, toy.species(birds.attributes)[0])
    assert len({picture.tobytes() for picture in birds.images}) == 200


def test_a_larger_set_extends_a_smaller_one(birds):
    smaller = toy.toy_birds(train=10, validation=5, test=5, size=32)
    for name, count in (("train", 10), ("validation", 5), ("test", 5)):
        assert np.array_equal(smaller.split(name).images, birds.split(name).images[:count])
        assert smaller.split(name).captions == birds.split(name).captions[:count]
    other = toy.toy_birds(train=10, validation=0, test=0, size=32, seed=1)
    assert not np.array_equal(other.images, birds.images[:10])


@pytest.mark.parametrize("options", [{"train": -1}, {"train": 0, "validation": 0, "test": 0}, {"seed": -1}])
def test_impossible_counts_are_named(options):
    with pytest.raises(InputError, match="0 or more"):
        toy.toy_birds(**options)


@given(rows, st.sets(st.sampled_from(NAMES), min_size=1), numbers)
@settings(max_examples=400, deadline=None)
def test_parse_reads_back_exactly_what_a_caption_mentions(row, mentioned, seed):
    sentence = toy.compose(row, mentioned, seed)
    shown = toy.describe(row)
    assert toy.parse(sentence) == {name: shown[name] for name in mentioned}, sentence
    assert sentence.endswith(".") and "  " not in sentence and " ," not in sentence
    assert not re.search(r"\ba [aeiou]", sentence)
    assert not re.search(r"\ban [^aeiou]", sentence)


@given(rows, numbers)
@settings(max_examples=60, deadline=None)
def test_captions_of_a_picture(row, seed):
    lines, shown = toy.captions(row, seed), toy.describe(row)
    assert len(lines) == 10
    assert set(toy.parse(lines[0])) >= set(toy.COLOUR_ATTRIBUTES)
    for line in [*lines[1:], toy.caption(row, seed)]:
        told = toy.parse(line)
        assert 2 <= len(told) <= 5
        assert told.items() <= shown.items()


def test_exchanged_captions_differ_in_one_word_and_claim_something_else():
    told = "a red bird with black wings, sitting on a branch."
    found = toy.exchanged(told)
    assert "a yellow bird with black wings, sitting on a branch." in found
    assert "a red bird with black wings, sitting on a rock." in found
    assert len(found) == len(set(found)) == 7 + 7 + 2  # two colours of eight, a perch of three
    for line in found:
        assert sum(a != b for a, b in zip(line.split(), told.split(), strict=True)) == 1
        assert toy.parse(line).keys() == toy.parse(told).keys()
        assert sum(toy.parse(line)[name] != value for name, value in toy.parse(told).items()) == 1
    assert toy.exchanged("a bird.") == []


def test_captions_vary_and_stay_simple(birds):
    lines = [line for several in birds.captions for line in several]
    words = {word for line in lines for word in re.findall(r"[a-z]+", line)}
    assert len(words) < 150
    assert len(set(lines)) > 0.6 * len(lines)
    assert np.mean(["body" in toy.parse(line) for line in lines]) > 0.8
    assert max(len(re.findall(r"[a-z]+|[.,]", line)) for line in lines) <= 70
    with pytest.raises(InputError, match="count"):
        toy.captions(birds.attributes[0], 0, count=0)
    with pytest.raises(InputError, match="tail"):
        toy.compose(birds.attributes[0], ["tail"], 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("red bird black wings", {"body": "red", "wing": "black"}),
        ("A tiny GRAY bird, with red head!", {"body": "grey", "crown": "red", "size": "small"}),
        ("a red-winged bird with a white belly", {"wing": "red", "belly": "white"}),
        ("yellow bird with a red crown and wings", {"body": "yellow", "wing": "red", "crown": "red"}),
        ("wings are black and body is white", {"body": "white", "wing": "black"}),
        ("a blue bird on a grey rock under a blue sky", {"body": "blue", "perch": "rock", "background": "sky"}),
        ("black wings with white bars", {"wing": "black", "wing_pattern": "barred"}),
        ("this bird is brown, white belly, long beak", {"body": "brown", "belly": "white", "bill_shape": "long"}),
        ("green", {"body": "green"}),
        ("an orange sky", {"background": "sunset"}),
        ("a purple cow", {}),
        ("", {}),
    ],
)
def test_parse_understands_free_text(text, told):
    assert toy.parse(text) == told

"""The studio: what it paints is what the sampler paints, models are loaded once, and walks keep their ends."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from t2ilib.data import toy
from t2ilib.encoders.tokens import split_words
from t2ilib.errors import InputError
from t2ilib.experiment import run_recipe
from t2ilib.explore import Request, Studio
from t2ilib.explore import studio as module
from t2ilib.explore.looking import Eyes
from t2ilib.explore.studio import KEPT, arc, changed
from t2ilib.files import WEIGHTS, sha256
from t2ilib.metrics.diversity import diversity
from t2ilib.metrics.judge import load_judge
from t2ilib.pictures import to_float, to_uint8
from t2ilib.sampling import load_sampler
from t2ilib.training import Run, load_recipe

TINY = {
    "data.options": {"train": 48, "validation": 8, "test": 24},
    "model.ngf": 4,
    "model.ndf": 4,
    "model.batch_size": 8,
    "training.steps": 2,
    "training.log_every": 2,
    "training.sample_every": 2,
    "training.checkpoint_every": 2,
    "training.evaluate_every": 2,
    "evaluation.n": 8,
}
ASKED = Request("a red bird with black wings.", "gancls_toy", seed=4, count=3, truncation=0.9)


@pytest.fixture(scope="module")
def studio():
    return Studio("cpu")


def test_it_offers_what_is_trained_to_the_end(studio):
    names = studio.systems()
    assert {"gancls_toy", "dfgan_clip_toy", "galip_toy"} <= set(names)
    assert not {"galip_start", "dfgan_start", "judge", "toy_clip"} & set(names)


def test_it_paints_as_the_sampler_does(studio):
    painting = studio.paint(ASKED)
    expected = load_sampler("gancls_toy", "cpu").sample([ASKED.caption], 4, 3, 0.9)
    assert np.array_equal(painting.pictures, to_uint8(expected)) and painting.remarks == ()
    again, receipt = studio.again(painting.receipt(1))
    assert np.array_equal(again, painting.pictures[1]) and receipt == painting.receipt(1)
    assert painting.seconds > 0 and len(painting.weights) == 64


@pytest.mark.parametrize(
    ("key", "value"),
    [("caption", None), ("caption", b"a"), ("seed", 0.5), ("seed", "1"), ("count", True), ("truncation", "1")],
)
def test_a_request_of_other_kinds_is_refused(key, value):
    with pytest.raises(InputError, match=f"request: {key} = .*: must be "):
        replace(ASKED, **{key: value})


def test_a_blank_source_opens_nothing(studio):
    """Least of all what a stranger's picture names."""
    receipt = replace(studio.paint(ASKED).receipt(0), system="runs/of_the_stranger")
    for source in ("", " "):
        with pytest.raises(InputError, match="system: none is named"):
            studio.again(receipt, source)


def test_it_says_what_the_encoder_cannot_read(studio):
    assert "has no word to read" in studio.paint(replace(ASKED, caption=" 🐦 ")).remarks[0]
    assert studio.unknown(["gancls_toy", "never loaded"], "a red xylophone") == ["xylophone"]
    assert studio.unknown(["never loaded"], "a red xylophone") == []


def test_a_model_is_loaded_once_and_again_when_its_file_is_new(tmp_path, monkeypatch):
    loaded, own = [], Studio("cpu")
    monkeypatch.setattr(module, "load_sampler", lambda *given: loaded.append(given) or load_sampler(*given))
    path = tmp_path / "a.safetensors"
    path.write_bytes((WEIGHTS / "gancls_toy.safetensors").read_bytes())
    first = own.open(str(path))
    threads = [threading.Thread(target=own.open, args=(str(path),)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert own.open(str(path)) is first and len(loaded) == 1
    os.utime(path, ns=(1, 1))
    assert own.open(str(path)) is not first and len(loaded) == 2


def test_the_weights_of_a_run_that_goes_on_are_read_again(tmp_path):
    folder, own = tmp_path / "run", Studio("cpu")
    recipe = load_recipe("gancls_toy", **TINY)
    list(run_recipe(recipe, folder))
    asked = replace(ASKED, system=str(folder))
    first = own.paint(asked)
    assert own.open(str(folder)) is own.open(str(folder)) and own.paint(asked).weights == first.weights
    list(run_recipe(recipe.override(**{"training.steps": 4}), folder))
    second = own.paint(asked)
    assert second.weights == sha256(Run(folder).checkpoints()[-1]) != first.weights
    assert not np.array_equal(first.pictures, second.pictures)


def test_eyes_are_shared_by_systems_of_one_data_set_and_judge_alone(studio, monkeypatch):
    assert studio.eyes("gancls_toy") is studio.eyes("wgan_toy")
    sampler = studio.open("gancls_toy")
    other = replace(sampler, recipe=sampler.recipe.override(**{"data.split": "validation"}))
    monkeypatch.setitem(studio._loaded, "another", replace(studio._open("gancls_toy"), sampler=other))
    assert studio.eyes("another") is not studio.eyes("gancls_toy")


def test_the_one_used_longest_ago_makes_room(monkeypatch):
    own = Studio("cpu")
    monkeypatch.setattr(module, "weights_file", lambda source: (WEIGHTS / "gancls_toy.safetensors", None))
    monkeypatch.setattr(module, "load_sampler", lambda source, device: object())
    first = own.open("0")
    for name in range(1, KEPT):
        own.open(str(name))
    assert own.open("0") is first  # used again: the next to go is "1"
    own.open("one more")
    assert own.open("0") is first and "1" not in own._loaded and len(own._loaded) == KEPT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 65}, "count = 65: at most 64"),
        ({"count": 0}, "per_caption = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"truncation": -1.0}, "truncation = -1.0"),
        ({"caption": "é" * 5001}, "caption: 10,002 bytes"),
        ({"caption": "\udcff"}, "half a character"),
    ],
)
def test_what_cannot_be_painted_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(ASKED, **change)


def test_a_system_that_is_not_there_is_named(studio):
    with pytest.raises(InputError, match="nowhere: no run, checkpoint or shipped weights"):
        studio.paint(replace(ASKED, system="nowhere"))


# ---- walks -------------------------------------------------------------------------------------------------------


def test_a_walk_begins_and_ends_where_it_is_told(studio):
    first = replace(ASKED, count=1, truncation=None)
    last = replace(first, caption="a blue bird with white wings.", seed=9)
    pictures = studio.walk(first, last, 5)
    ends = [studio.paint(each).pictures[0].astype(int) for each in (first, last)]
    assert pictures.shape == (5, 64, 64, 3)
    for painted, end in zip(pictures[[0, -1]].astype(int), ends, strict=True):
        assert np.abs(painted - end).max() <= 1  # batches of other sizes round otherwise
    steps = np.abs(np.diff(pictures.astype(float), axis=0)).mean((1, 2, 3))
    assert steps.min() > 0 and steps.max() < np.abs(ends[1] - ends[0]).mean()


def test_a_walk_needs_one_system_and_two_steps(studio):
    with pytest.raises(InputError, match="one system"):
        studio.walk(ASKED, replace(ASKED, system="dfgan_toy"))
    with pytest.raises(InputError, match="one truncation"):
        studio.walk(ASKED, replace(ASKED, truncation=None))
    with pytest.raises(InputError, match="steps = 1"):
        studio.walk(ASKED, ASKED, 1)


def test_an_arc_keeps_the_length_that_a_line_loses():
    first, last = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    middle = arc(first, last, 0.5)
    torch.testing.assert_close(middle, torch.tensor([3.0, 3.0, 0.0]) / 2**0.5)
    for share in (0.0, 0.3, 1.0):
        assert arc(first, last, share).norm() == pytest.approx(3, rel=1e-5)
    torch.testing.assert_close(arc(first, last, 0.0), first)
    torch.testing.assert_close(arc(first, last, 1.0), last)
    torch.testing.assert_close(arc(first, 2 * first, 0.5), 1.5 * first)  # no arc: a line
    assert arc(first, -first, 0.25).isfinite().all()


# ---- words -------------------------------------------------------------------------------------------------------


def test_one_word_is_exchanged_and_nothing_else():
    asked = replace(ASKED, caption="A red bird, red-winged; the reddish bird is Red.")
    assert changed(asked, "red", r"\1 blue").caption == r"A \1 blue bird, \1 blue-winged; the reddish bird is \1 blue."
    assert changed(asked, "red", "blue") == replace(
        asked, caption="A blue bird, blue-winged; the reddish bird is blue."
    )
    with pytest.raises(InputError, match='"green": no word of the caption'):
        changed(asked, "green", "blue")
    for pair in (("", "blue"), ("red", " ")):
        with pytest.raises(InputError, match="choose a word"):
            changed(asked, *pair)
    with pytest.raises(InputError, match="1,000,000 characters in a word's place; give at most 100"):
        changed(asked, "red", "x" * 1_000_000)


@pytest.mark.parametrize(
    "caption", ["a rouge-gorge", "a re\u0301d bird", "a red_winged bird", "A RED bird", "3 red birds"]
)
def test_every_word_that_is_shown_can_be_exchanged(caption):
    for word in split_words(caption):
        assert "blue" in changed(replace(ASKED, caption=caption), word, "blue").caption


def test_alternatives_mean_something_else_of_the_same_kind():
    assert toy.alternatives("Silver") == ["red", "yellow", "green", "blue", "brown", "black", "white", "orange"]
    assert toy.alternatives("tiny") == ["large"] and toy.alternatives("twig") == ["rock", "grass"]
    assert toy.alternatives("bird") == toy.alternatives("the") == toy.alternatives("xylophone") == []
    for word in ("red", "barred", "long", "sunset", "bars"):  # the first of their meaning
        assert toy.alternatives(word)
        assert all(word in toy.alternatives(other) and other != word for other in toy.alternatives(word))


# ---- eyes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def birds():
    return toy.toy_birds(train=64, validation=1, test=1)


@pytest.fixture(scope="module")
def eyes(studio, birds, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr("t2ilib.explore.looking.MEMORY", tmp_path_factory.mktemp("neighbours"))
    found = studio.eyes("gancls_toy")
    yield Eyes(found.clip, found.judge, lambda: birds.split("train"))
    patch.undo()


def test_real_birds_are_right_and_a_false_caption_is_wrong(eyes, birds):
    picture, caption = birds.images[:1], birds.captions[0][0]
    own = eyes.verdicts(picture, caption)[0]
    assert [each.attribute for each in own] == list(toy.ATTRIBUTES) and all(each.right for each in own)
    body = toy.describe(birds.attributes[0])["body"]
    other = "red" if body != "red" else "blue"
    told = {each.attribute: each for each in eyes.verdicts(picture, f"a {other} bird.")[0]}
    assert told["body"].right is False and (told["body"].said, told["body"].shown) == (other, body)
    assert told["perch"].right is None and told["perch"].said is None
    assert eyes.scores(picture, caption)[0] > 20 + eyes.scores(picture, f"a {other} bird.")[0]


def test_the_nearest_training_picture_of_one_is_itself(eyes, birds):
    pictures = np.asarray(birds.images[[5, 40]])
    found = eyes.nearest(pictures, 3)
    for own, row in zip(found, (5, 40), strict=True):
        assert np.array_equal(own[0].picture, birds.images[row]) and own[0].captions == tuple(birds.captions[row])
        assert own[0].likeness == pytest.approx(1, abs=2e-3)
        assert own[0].likeness >= own[1].likeness >= own[2].likeness


def test_what_was_seen_once_is_kept_and_remade_when_damaged(eyes, birds, studio, monkeypatch):
    eyes.nearest(birds.images[:1])
    from t2ilib.explore import looking

    files = list(looking.MEMORY.iterdir())
    assert len(files) == 1
    again = Eyes(eyes.clip, eyes.judge, lambda: birds.split("train"))
    read = []
    monkeypatch.setattr(
        eyes.judge, "features", lambda images: read.append(len(images)) or load_judge().features(images)
    )
    again.nearest(birds.images[:1])
    assert read == [1]  # the picture alone
    files[0].write_bytes(b"damaged")
    Eyes(eyes.clip, eyes.judge, lambda: birds.split("train")).nearest(birds.images[:1])
    assert sum(read) == 1 + 64 + 1


def test_diversity_is_that_of_the_metric(eyes, birds):
    pictures = np.asarray(birds.images[:6])
    judge = load_judge()
    features = [judge.features(to_float(each)).numpy() for each in (pictures, birds.images[:64])]
    assert eyes.diversity(pictures) == pytest.approx(diversity(features[0][None], features[1]), rel=1e-5)
    assert eyes.diversity(pictures[:1]) is None
    assert eyes.diversity(np.repeat(pictures[:1], 3, 0)) == 0


def test_without_judges_nothing_is_claimed(birds):
    blind = Eyes(None, None, lambda: birds)
    assert blind.diversity(birds.images[:3]) is None
    assert blind.scores(birds.images[:2], "a bird") is None and blind.verdicts(birds.images[:2], "a bird") == [[], []]
    with pytest.raises(InputError, match="nobody is there"):
        blind.nearest(birds.images[:1])

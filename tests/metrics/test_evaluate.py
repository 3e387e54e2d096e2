from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError
from t2ilib.metrics.attributes import Judge, JudgeConfig
from t2ilib.metrics.evaluate import (
    EvaluationSettings,
    choose_captions,
    evaluate,
    generate_pictures,
    generate_varied,
    to_pictures,
)
from t2ilib.metrics.results import write_result

COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")  # bits: red, green, blue
SETTINGS = EvaluationSettings(n=40, batch_size=16, noise_size=3, diversity_captions=4, per_caption=3, candidates=5)


class ColourEncoder:
    """Captions and pictures as three numbers: the mean colour. Perfectly aligned, by construction."""

    name, sentence_dim = "colours", 3

    def encode(self, captions):
        values = [[int(bit) for bit in f"{COLOURS.index(caption.split()[1]):03b}"] for caption in captions]
        return SimpleNamespace(sentence=torch.tensor(values).float() * 2 - 1)

    def encode_images(self, images):
        return images.mean(dim=(2, 3))


def faithful(sentence, noise):
    """A generator that paints what the caption says, and a little of the noise."""
    return (0.9 * sentence + 0.05 * noise)[:, :, None, None].expand(-1, -1, 32, 32)


def deaf(sentence, noise):
    return (0.5 * noise)[:, :, None, None].expand(-1, -1, 32, 32)


@pytest.fixture
def dataset():
    index = np.arange(48) % 8
    colours = np.stack([(index >> 2) & 1, (index >> 1) & 1, index & 1], axis=1) * 255
    images = np.broadcast_to(colours[:, None, None].astype(np.uint8), (48, 32, 32, 3)).copy()
    images[:, :16] = images[:, :16] // 2 + np.random.default_rng(0).integers(0, 60, (48, 1, 1, 3), dtype=np.uint8)
    captions = [[f"a {COLOURS[i]} square"] for i in index]
    return CaptionedImages(images, captions, index.astype(np.int64), np.array(["test"] * 48), list(COLOURS))


def test_photographs_are_measured_with_the_clip_encoder(dataset):
    good = evaluate(faithful, dataset, ColourEncoder(), settings=SETTINGS)["metrics"]
    bad = evaluate(deaf, dataset, ColourEncoder(), settings=SETTINGS)["metrics"]
    assert good["r_precision"]["mean"] > 0.9 and bad["r_precision"]["mean"] < 0.5
    assert good["clip_score"] > 95 > bad["clip_score"]
    assert good["clip_fd"] < bad["clip_fd"] and good["diversity"] < bad["diversity"]
    assert good["attribute_accuracy"] is None and "toy_fd" not in good and "fid" not in good
    assert good["real"]["r_precision"]["mean"] > 0.5


def test_toy_birds_are_measured_with_the_judge(dataset):
    from t2ilib.data.toy import ATTRIBUTES, toy_birds

    birds = toy_birds(train=1, validation=1, test=200, size=32).split("test")
    encoder = SimpleNamespace(
        name="text", encode=lambda captions: SimpleNamespace(sentence=torch.zeros(len(captions), 3))
    )
    settings = EvaluationSettings(n=180, noise_size=3, diversity_captions=2, per_caption=2)
    result = evaluate(deaf, birds, encoder, Judge(JudgeConfig(ATTRIBUTES)).eval(), settings)
    assert result["metrics"]["toy_fd"] > 0 and 0 <= result["metrics"]["attribute_accuracy"]["mentioned"] <= 1
    assert result["metrics"]["r_precision"] is None and result["metrics"]["clip_score"] is None
    assert result["protocol"]["extractor"].startswith("toy-judge-")


def test_too_few_pictures_give_no_distance(dataset):
    few = EvaluationSettings(n=3, noise_size=3, candidates=2, diversity_captions=2, per_caption=2)
    assert evaluate(faithful, dataset, ColourEncoder(), settings=few)["metrics"]["clip_fd"] is None


def test_noise_does_not_depend_on_the_batch_size(dataset):
    captions = choose_captions(dataset, SETTINGS)[1]
    whole, parts = (
        generate_pictures(deaf, captions, ColourEncoder(), EvaluationSettings(noise_size=3, batch_size=size))
        for size in (100, 7)
    )
    assert torch.equal(whole, parts) and len(whole.flatten(1).unique(dim=0)) == 40


def test_captions_are_chosen_by_the_seed(dataset):
    rows, captions = choose_captions(dataset, SETTINGS)
    again, same = choose_captions(dataset, SETTINGS)
    assert (rows == again).all() and captions == same and len(set(rows)) == 40
    assert all(caption in dataset.captions[row] for row, caption in zip(rows, captions, strict=True))
    assert choose_captions(dataset, EvaluationSettings(n=40, seed=1))[1] != captions
    assert len(choose_captions(dataset, EvaluationSettings(n=100))[0]) == 100  # more than there are: twice and thrice


def test_varied_pictures_are_grouped_by_caption(dataset):
    varied = generate_varied(faithful, ["a red square", "a blue square"], ColourEncoder(), SETTINGS)
    assert varied.shape == (2, 3, 3, 32, 32)
    assert (varied[0, :, 2].mean() < -0.5) and (varied[1, :, 2].mean() > -1) and varied[0].std(dim=0).mean() > 0


def test_pictures_reach_both_ends_of_the_range():
    pictures = to_pictures(np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3))
    assert pictures.shape == (2, 3, 1, 1) and pictures[0].eq(-1).all() and pictures[1].eq(1).all()


class Contrary(ColourEncoder):
    """Takes every caption for the opposite colour; of pictures it sees the colours as they are."""

    name, fingerprint = "contrary", "c0ffee"

    def encode(self, captions):
        return SimpleNamespace(sentence=-super().encode(captions).sentence)


def test_another_encoder_may_judge(dataset):
    """The generator is conditioned by one encoder and scored by the other, as are the real pictures."""
    own, judged = (evaluate(faithful, dataset, ColourEncoder(), None, SETTINGS, judge) for judge in (None, Contrary()))
    assert own["metrics"]["r_precision"]["mean"] > 0.9 and own["metrics"]["clip_score"] > 95
    assert judged["metrics"]["r_precision"]["mean"] < 0.1 and judged["metrics"]["clip_score"] == 0
    assert judged["metrics"]["real"]["clip_score"] < 10 < own["metrics"]["real"]["clip_score"]
    assert judged["metrics"]["clip_fd"] == pytest.approx(own["metrics"]["clip_fd"])  # it sees the same pictures
    names = [(result["protocol"]["text_encoder"], result["protocol"]["judge_encoder"]) for result in (own, judged)]
    assert names == [("colours", "colours"), ("colours", "c0ffee")]
    assert judged["protocol"]["extractor"] == "contrary"


def test_an_encoder_without_eyes_can_be_judged_by_one_that_sees(dataset):
    reader = SimpleNamespace(name="reader", encode=ColourEncoder().encode)
    alone = evaluate(faithful, dataset, reader, settings=SETTINGS)["metrics"]
    assert alone["r_precision"] is None and alone["clip_score"] is None and "clip_fd" not in alone
    judged = evaluate(faithful, dataset, reader, None, SETTINGS, ColourEncoder())
    assert judged["metrics"]["r_precision"]["mean"] > 0.9 and judged["metrics"]["clip_fd"] > 0
    blind = evaluate(faithful, dataset, ColourEncoder(), None, SETTINGS, reader)["metrics"]
    assert blind["r_precision"] is None and blind["clip_score"] is None


@pytest.mark.parametrize("truncation", [0.5, 0.88])
def test_truncation_reaches_all_noise_that_is_drawn(dataset, truncation):
    seen = []

    def spying(sentence, noise):
        seen.append(noise)
        return deaf(sentence, noise)

    settings = replace(SETTINGS, noise_size=100, truncation=truncation)
    result = evaluate(lambda s, n: spying(s, n[:, :3]), dataset, ColourEncoder(), settings=settings)
    assert len(torch.cat(seen)) == 40 + 4 * 3  # one of each caption, and several of a few
    noise = generate_noise(settings)
    assert 1.8 * truncation < noise.abs().max() <= 2 * truncation
    assert torch.cat(seen).abs().max() <= 2 * truncation
    assert result["protocol"]["truncation"] == truncation
    assert generate_noise(replace(settings, truncation=None)).abs().max() > 2


def generate_noise(settings):
    """Return what `generate_pictures` draws."""
    captions, noise = ["a red square"] * 40, []
    generate_pictures(lambda s, n: noise.append(n) or deaf(s, n[:, :3]), captions, ColourEncoder(), settings)
    return torch.cat(noise)


def test_impossible_truncation_is_named(dataset):
    with pytest.raises(InputError, match="truncation = -1"):
        evaluate(faithful, dataset, ColourEncoder(), settings=replace(SETTINGS, truncation=-1))


def test_the_outcome_can_be_written(dataset, tmp_path):
    outcome = evaluate(faithful, dataset, ColourEncoder(), settings=SETTINGS)
    text = write_result(tmp_path, **outcome).read_text()
    for word in ("seconds", "reference_split", "extractor", "resize", "commit"):
        assert f'"{word}"' in text


def test_an_empty_dataset_is_named(dataset):
    with pytest.raises(InputError, match="no pictures"):
        evaluate(faithful, dataset.subset([]), ColourEncoder(), settings=SETTINGS)

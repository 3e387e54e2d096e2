"""Evaluation: what is drawn, every number word for word, and no more pictures alive than a batch or two."""

import gc
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES, toy_birds
from t2ilib.devices import CPU_BATCH
from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.metrics import evaluate as module
from t2ilib.metrics import ruler
from t2ilib.metrics.attributes import attribute_accuracy
from t2ilib.metrics.baselines import birds_like, faithful_birds, one_coloured_birds, rendered
from t2ilib.metrics.evaluate import EvaluationSettings, choose_captions, evaluate, halves, paint, real_precision
from t2ilib.metrics.frechet import frechet_distance, frechet_from_moments, moments
from t2ilib.metrics.intervals import interval, jackknifed
from t2ilib.metrics.judge import Judge, JudgeConfig
from t2ilib.metrics.r_precision import clip_score, clip_scores, r_precision
from t2ilib.metrics.results import write_result
from t2ilib.pictures import to_float
from t2ilib.task import normal_noise

COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")  # bits: red, green, blue
SMALL = {"image_size": 32, "widths": (8, 8, 8), "map_width": 4, "feature_size": 12}  # of a judge
SETTINGS = EvaluationSettings(n=40, batch_size=16, diversity_captions=4, per_caption=3, candidates=5)


class Reader:
    """Captions as three numbers, the colour that they name; it cannot see."""

    name, fingerprint, sentence_dim, word_dim, device = "reader", "0" * 64, 3, None, torch.device("cpu")

    def encode(self, captions):
        values = [[int(bit) for bit in f"{COLOURS.index(caption.split()[1]):03b}"] for caption in captions]
        return Text(torch.tensor(values).float() * 2 - 1)

    def unknown(self, caption):
        return []

    def to(self, device):
        return self


class ColourEncoder(Reader):
    """Sees, too: the mean colour. Perfectly aligned, by construction."""

    name, fingerprint, image_size = "colours", "1" * 64, 32

    def encode_images(self, images):
        return images.mean(dim=(2, 3))


class Contrary(ColourEncoder):
    """Takes every caption for the opposite colour; of pictures it sees the colours as they are."""

    name, fingerprint = "contrary", "c0ffee"

    def encode(self, captions):
        return Text(-super().encode(captions).sentence)


class Phrases(ColourEncoder):
    """Reads the length of a caption, too, so that no two captions are the same to it."""

    def encode(self, captions):
        return Text(super().encode(captions).sentence + 0.05 * torch.tensor([[len(caption)] for caption in captions]))


class Painter:
    """Paints by a function of sentence and noise, and remembers what it was given and painted."""

    def __init__(self, function, noise_dim=3, size=32):
        self.function, self.noise_dim, self.size = function, noise_dim, size
        self.sentences, self.noises, self.pictures = [], [], []

    def noise(self, count, generator=None, device=None, truncation=None):
        return normal_noise((count, self.noise_dim), generator, device, truncation)

    def generate(self, text, noise):
        painted = self.function(text.sentence, noise[:, :3])[:, :, None, None].expand(-1, -1, self.size, self.size)
        self.sentences.append(text.sentence)
        self.noises.append(noise)
        self.pictures.append(painted)
        return painted


def faithful():
    """A painter that shows what the caption says, and a little of the noise."""
    return Painter(lambda sentence, noise: 0.9 * sentence + 0.05 * noise)


def deaf(noise_dim=3):
    return Painter(lambda sentence, noise: 0.5 * noise, noise_dim)


@pytest.fixture
def dataset():
    index = np.arange(48) % 8
    colours = np.stack([(index >> 2) & 1, (index >> 1) & 1, index & 1], axis=1) * 255
    images = np.broadcast_to(colours[:, None, None].astype(np.uint8), (48, 32, 32, 3)).copy()
    images[:, :16] = images[:, :16] // 2 + np.random.default_rng(0).integers(0, 60, (48, 1, 1, 3), dtype=np.uint8)
    captions = [[f"a {COLOURS[i]} square"] for i in index]
    return CaptionedImages(images, captions, index.astype(np.int64), np.array(["test"] * 48), list(COLOURS))


@pytest.fixture
def phrased(dataset):
    """The same pictures with one to four captions each."""
    forms = ("a {} square", "the {} thing", "some {} paint here", "one {} picture")
    captions = [[form.format(COLOURS[i]) for form in forms[: 1 + k % 4]] for k, i in enumerate(dataset.class_ids)]
    return replace(dataset, captions=captions)


def mean_distance(features):
    return np.mean([np.linalg.norm(a - b) for a, b in combinations(features, 2)])


def test_photographs_are_measured_with_the_clip_encoder(dataset):
    good = evaluate(faithful(), dataset, ColourEncoder(), settings=SETTINGS)["metrics"]
    bad = evaluate(deaf(), dataset, ColourEncoder(), settings=SETTINGS)["metrics"]
    assert good["r_precision"]["mean"] > 0.9 and bad["r_precision"]["mean"] < 0.5
    assert good["clip_score"] > 95 > bad["clip_score"]
    assert good["clip_fd"] < bad["clip_fd"] and good["diversity"] < bad["diversity"]
    assert good["attribute_accuracy"] is None and "toy_fd" not in good and "fid" not in good
    assert good["real"]["r_precision"]["mean"] > 0.5


@pytest.mark.parametrize("size", [1, 7, 16, 40, 100])
def test_every_number_word_for_word(phrased, size):
    """From the pictures as they were painted and the captions as they were chosen, all at once."""
    settings, painter = replace(SETTINGS, batch_size=size), Painter(lambda sentence, noise: (sentence + noise) / 2)
    encoder = Phrases()
    found = evaluate(painter, phrased, encoder, settings=settings)["metrics"]
    rows, captions = choose_captions(phrased, settings)
    texts = encoder.encode(captions).sentence
    torch.testing.assert_close(torch.cat(painter.sentences)[:40], texts)  # painted of the captions, in their order
    painted, real, every = (
        encoder.encode_images(pictures).double().numpy()
        for pictures in (
            torch.cat(painter.pictures).clamp(-1, 1),
            to_float(phrased.images[rows]),
            to_float(phrased.images),
        )
    )
    texts = texts.double().numpy()
    for images, numbers in ((painted[:40], found), (real, found["real"])):
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(images, texts, strict=True)]
        assert numbers["clip_score"] == pytest.approx(100 * np.mean([max(cosine, 0) for cosine in cosines]), rel=1e-5)
        ranked = r_precision(images, texts, 5, settings.seed, groups=captions)
        assert numbers["r_precision"].keys() == ranked.keys()
        for name, value in ranked.items():
            assert numbers["r_precision"][name] == pytest.approx(value)
        assert 0 < numbers["r_precision"]["mean"] < 1
        others = [next(o for o in (*range(k, 40), *range(k)) if captions[o] != captions[k]) for k in range(40)]
        assert numbers["chance"] == {"clip_score": pytest.approx(clip_score(images, texts[others]), rel=1e-5)}
        assert numbers["chance"]["clip_score"] < numbers["clip_score"]
    assert found["clip_fd"] == pytest.approx(frechet_distance(painted[:40], every), rel=1e-4)
    varied = np.mean([mean_distance(group) for group in painted[40:].reshape(4, 3, 3)])
    assert found["diversity"] == pytest.approx(varied / mean_distance(every), rel=1e-4)
    apart = np.array([mean_distance(group) for group in painted[40:].reshape(4, 3, 3)]) / mean_distance(every)
    assert found["intervals"]["diversity"] == pytest.approx(interval(apart), rel=1e-3)  # over captions, not pictures


@pytest.mark.parametrize("seed", [0, 5])
def test_real_photographs_are_measured_by_disjoint_halves(phrased, seed):
    result = evaluate(faithful(), phrased, ColourEncoder(), settings=replace(SETTINGS, seed=seed))
    one, other = halves(47, seed)
    assert (len(one), len(other)) == (23, 24) and sorted([*one, *other]) == list(range(47))
    one, other = halves(48, seed)
    seen = ColourEncoder().encode_images(to_float(phrased.images)).double().numpy()
    real = result["metrics"]["real"]
    assert real["clip_fd"] == pytest.approx(frechet_distance(seen[one], seen[other]), rel=1e-4)
    around = jackknifed(
        real["clip_fd"], lambda part: frechet_from_moments(*moments(seen[one][part]), *moments(seen[other])), 24
    )
    assert real["intervals"]["clip_fd"] == pytest.approx(around, rel=1e-2)
    assert result["protocol"]["real_halves"] == [24, 24] and "diversity" not in real


def test_the_reference_is_the_whole_split(phrased):
    """However few captions are drawn, real pictures are all of them; those of the captions alone would say less."""
    few = replace(SETTINGS, n=10)
    rows, _ = choose_captions(phrased, few)
    painter, encoder = faithful(), ColourEncoder()
    result = evaluate(painter, phrased, encoder, settings=few)
    painted = encoder.encode_images(torch.cat(painter.pictures)[:10].clamp(-1, 1)).double().numpy()
    whole, part = (
        frechet_distance(painted, encoder.encode_images(to_float(images)).double().numpy())
        for images in (phrased.images, phrased.images[rows])
    )
    assert result["metrics"]["clip_fd"] == pytest.approx(whole, rel=1e-4)
    assert abs(whole - part) > 0.05 * whole
    assert result["protocol"]["reference_count"] == 48


def test_the_unit_of_diversity_is_the_spread_of_real_pictures(dataset):
    """Real pictures of half the spread double it; of very many real pictures some are enough, drawn by the seed."""
    half = replace(dataset, images=(dataset.images // 2 + 64).astype(np.uint8))
    whole, shrunk = (evaluate(deaf(), data, ColourEncoder(), settings=SETTINGS)["metrics"] for data in (dataset, half))
    assert shrunk["diversity"] == pytest.approx(2 * whole["diversity"], rel=0.02)
    (low, high), wide = whole["intervals"]["diversity"], shrunk["intervals"]["diversity"]
    assert low < whole["diversity"] < high and wide == pytest.approx([2 * low, 2 * high], rel=0.02)


def test_of_many_real_pictures_some_give_the_unit(dataset, monkeypatch):
    whole = evaluate(deaf(), dataset, ColourEncoder(), settings=SETTINGS)["metrics"]
    monkeypatch.setattr(ruler, "SPREAD", 20)
    some, again = (evaluate(deaf(), dataset, ColourEncoder(), settings=SETTINGS)["metrics"] for _ in range(2))
    assert some["diversity"] == again["diversity"] != whole["diversity"]
    assert some["diversity"] == pytest.approx(whole["diversity"], rel=0.2)
    assert some["clip_fd"] == whole["clip_fd"]  # which takes them all


def test_toy_birds_are_measured_with_the_judge():
    birds = toy_birds(train=1, validation=1, test=70, size=32).split("test")
    encoder, judge, painter = Reader(), Judge(JudgeConfig(ATTRIBUTES, **SMALL)).eval(), deaf()
    encoder.encode = lambda captions: Text(torch.zeros(len(captions), 3))
    settings = EvaluationSettings(n=60, batch_size=16, diversity_captions=2, per_caption=2)
    result = evaluate(painter, birds, encoder, judge, settings)
    assert result["metrics"]["toy_fd"] > 0 and 0 <= result["metrics"]["attribute_accuracy"]["mentioned"] <= 1
    assert result["metrics"]["r_precision"] is None and result["metrics"]["clip_score"] is None
    assert result["protocol"]["extractor"].startswith("toy-judge-")
    rows, captions = choose_captions(birds, settings)
    painted, every = torch.cat(painter.pictures).clamp(-1, 1), to_float(birds.images)
    assert result["metrics"]["attribute_accuracy"] == attribute_accuracy(judge, painted[:60], captions)
    assert result["metrics"]["real"]["attribute_accuracy"] == attribute_accuracy(judge, every[rows], captions)
    features, reference = judge.features(painted).double().numpy(), judge.features(every).double().numpy()
    assert result["metrics"]["toy_fd"] == pytest.approx(frechet_distance(features[:60], reference), rel=1e-3)
    varied = np.mean([mean_distance(pair) for pair in features[60:].reshape(2, 2, -1)])
    assert result["metrics"]["diversity"] == pytest.approx(varied / mean_distance(reference), rel=1e-3)


def test_beside_the_painter_stand_real_birds_and_birds_in_one_colour(judge):
    """Each number of theirs from pictures that are drawn here once more, by name."""
    birds, encoder = toy_birds(train=1, validation=1, test=240, size=64).split("test"), ColourEncoder()
    encoder.encode = lambda captions: Text(
        torch.tensor([[len(c), c.count("a"), c.count("e")] for c in captions]).float()
    )
    settings = EvaluationSettings(n=200, seed=4, diversity_captions=3, per_caption=2, candidates=10)
    metrics = evaluate(deaf(), birds, encoder, judge, settings)["metrics"]
    rows, captions = choose_captions(birds, settings)
    repeated = [caption for caption in captions[:3] for _ in range(2)]
    reference = judge.features(to_float(birds.images)).double().numpy()
    texts, moved = encoder.encode(captions).sentence.double().numpy(), moments(reference)

    def look(birds_drawn):
        return judge.features(to_float(rendered(birds_drawn, 64, 4))).double().numpy()

    plain = one_coloured_birds(captions, 4)
    shown = {"one_colour": rendered(plain, 64, 4), "real": birds.images[rows]}
    crowds = {"one_colour": look(plain), "real": look(birds_like(birds, 200, 4))}
    alike = faithful_birds(repeated, birds_like(birds, module.CROWD, 4), 4)
    several = {"one_colour": one_coloured_birds(repeated, 4), "real": alike}
    for name, crowd in crowds.items():
        found, pictures = metrics[name], to_float(shown[name])
        assert found["attribute_accuracy"] == attribute_accuracy(judge, pictures, captions)
        assert found["toy_fd"] == pytest.approx(frechet_distance(crowd, reference), rel=1e-3)
        around = jackknifed(found["toy_fd"], lambda part, c=crowd: frechet_from_moments(*moments(c[part]), *moved), 200)
        assert found["intervals"]["toy_fd"] == pytest.approx(around, rel=1e-2)
        spread = np.mean([mean_distance(pair) for pair in look(several[name]).reshape(3, 2, -1)])
        assert found["diversity"] == pytest.approx(spread / mean_distance(reference), rel=1e-3)
        images = encoder.encode_images(pictures).double().numpy()
        ranked, scores = r_precision(images, texts, 10, 4, groups=captions), clip_scores(images, texts)
        assert found["r_precision"] == ranked
        assert found["clip_score"] == pytest.approx(scores.mean(), rel=1e-5)
        assert found["intervals"]["clip_score"] == pytest.approx(interval(scores), rel=1e-4)
    accuracy = {name: metrics[name]["attribute_accuracy"] for name in crowds}
    assert accuracy["real"]["mentioned"] > 0.97  # and they are told apart:
    assert accuracy["one_colour"]["mentioned"] < 0.7


@pytest.mark.parametrize("count", [13, 14, 40])
def test_a_distance_of_hardly_enough_pictures_has_no_interval(count):
    """The jackknife leaves pictures out, and still needs more of them than features."""
    birds = toy_birds(train=1, validation=1, test=60, size=32).split("test")
    judge = Judge(JudgeConfig(ATTRIBUTES, **SMALL)).eval()
    settings = EvaluationSettings(n=count, diversity_captions=2, per_caption=2)
    encoder = Reader()
    encoder.encode = lambda captions: Text(torch.zeros(len(captions), 3))
    for found in (metrics := evaluate(deaf(), birds, encoder, judge, settings)["metrics"], metrics["one_colour"]):
        assert found["toy_fd"] is not None
        assert (found["intervals"]["toy_fd"] is None) == (count == 13)


def test_birds_that_stand_beside_are_framed_as_the_pictures_are(judge):
    whole = toy_birds(train=1, validation=1, test=200, size=76).split("test")
    encoder, settings = Reader(), EvaluationSettings(n=200, diversity_captions=2, per_caption=2)
    encoder.encode = lambda captions: Text(torch.zeros(len(captions), 3))
    found = {
        side: evaluate(deaf(), whole.centre_crop(side), encoder, judge, settings)["metrics"]["real"]["toy_fd"]
        for side in (64, 76)
    }
    assert found[64] < 1.25 * found[76]


def test_beside_a_judge_the_clip_sees_only_what_it_scores():
    birds = toy_birds(train=1, validation=1, test=70, size=32).split("test")
    encoder, judge = ColourEncoder(), Judge(JudgeConfig(ATTRIBUTES, **SMALL)).eval()
    seen, read, see = [], [], encoder.encode_images
    encoder.encode_images = lambda pictures: seen.append(len(pictures)) or see(pictures)
    encoder.encode = lambda captions: read.append(len(captions)) or Text(torch.rand(len(captions), 3))
    settings = EvaluationSettings(n=60, diversity_captions=2, per_caption=2)
    evaluate(deaf(), birds, encoder, judge, settings)
    assert sum(seen) == 60 + 60 + 60  # painted, real and one-coloured; not the reference, not the varied ones
    assert sum(read) == 60 + 4 + 60  # to paint, to paint varied ones, to score: once for all painters


class Counting(ColourEncoder):
    """Counts the pictures that it is shown."""

    def __init__(self, fingerprint="1" * 64):
        self.fingerprint, self.looked = fingerprint, 0

    def encode_images(self, images):
        self.looked += len(images)
        return super().encode_images(images)


def test_the_reference_is_looked_at_once_and_the_numbers_stay(dataset, tmp_path):
    """Painted, varied and the captions' real pictures are seen each time; the 48 of the whole split are not."""
    found, looked = [], []
    for folder in (None, tmp_path, tmp_path):
        encoder = Counting()
        found.append(evaluate(faithful(), dataset, encoder, settings=SETTINGS, folder=folder)["metrics"])
        looked.append(encoder.looked)
    assert found[0] == found[1] == found[2]
    assert looked == [40 + 12 + 40 + 48, 40 + 12 + 40 + 48, 40 + 12 + 40] and len(list(tmp_path.iterdir())) == 1


def test_other_pictures_and_other_eyes_look_again(dataset, tmp_path):
    changed = replace(dataset, images=dataset.images.copy())
    changed.images[7, 3, 2, 1] ^= 1
    judge = Judge(JudgeConfig(ATTRIBUTES, **SMALL)).eval()
    evaluate(faithful(), dataset, Counting(), settings=SETTINGS, folder=tmp_path)
    for number, (data, eye, settings) in enumerate(
        [
            (changed, Counting(), SETTINGS),
            (dataset, Counting("2" * 64), SETTINGS),
            (dataset, Counting(), replace(SETTINGS, batch_size=7)),
        ]
    ):
        evaluate(faithful(), data, eye, settings=settings, folder=tmp_path)
        assert eye.looked == 40 + 12 + 40 + 48 and len(list(tmp_path.iterdir())) == number + 2
    birds = toy_birds(train=1, validation=1, test=48, size=32).split("test")
    reader = Reader()
    reader.encode = lambda captions: Text(torch.zeros(len(captions), 3))
    first, again = (evaluate(deaf(), birds, reader, judge, SETTINGS, folder=tmp_path)["metrics"] for _ in range(2))
    assert first == again and any(path.name.startswith("toy-judge-") for path in tmp_path.iterdir())


def test_features_of_another_device_have_a_file_of_their_own():
    """They differ in their last bits; cards of one kind agree."""
    cpu, meta, first, second = (
        module._looking((None, ColourEncoder()), SimpleNamespace(device=torch.device(name)), SETTINGS)
        for name in ("cpu", "meta", "cuda:0", "cuda:1")
    )
    assert cpu != meta != first == second != cpu


def test_too_few_pictures_give_no_distance(dataset):
    few = EvaluationSettings(n=3, candidates=2, diversity_captions=2, per_caption=2)
    assert evaluate(faithful(), dataset, ColourEncoder(), settings=few)["metrics"]["clip_fd"] is None
    two = dataset.subset([1, 2])
    assert evaluate(faithful(), two, ColourEncoder(), settings=SETTINGS)["metrics"]["clip_fd"] is None


def test_too_few_captions_give_no_r_precision(dataset):
    metrics = evaluate(faithful(), dataset, ColourEncoder(), settings=replace(SETTINGS, candidates=9))["metrics"]
    assert metrics["r_precision"] is None and metrics["clip_score"] > 95  # only eight captions are different


@pytest.mark.parametrize(("count", "seed"), [(30, 0), (30, 1), (len(COLOURS) * 10, 0)])
def test_real_pictures_rank_their_captions(phrased, count, seed):
    """Of an encoder that errs now and then: as by hand for the pictures and captions that count and seed choose."""
    encoder = ColourEncoder()
    noisy = replace(phrased, images=np.random.default_rng(0).permutation(phrased.images, axis=0))
    mixed = np.where(np.arange(len(phrased))[:, None, None, None] % 3, phrased.images, noisy.images)
    dataset = replace(phrased, images=mixed)
    rows, captions = choose_captions(dataset, EvaluationSettings(n=min(count, len(dataset)), seed=seed))
    images, texts = encoder.encode_images(to_float(dataset.images[rows])), encoder.encode(captions).sentence
    candidates = min(100, len(set(captions)))
    expected = r_precision(images.numpy(), texts.numpy(), candidates, seed, groups=captions)
    found = real_precision(encoder, dataset, count, seed)
    assert 0 < found["mean"] < 1 and found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value)


def test_noise_does_not_depend_on_the_batch_size(dataset):
    captions = choose_captions(dataset, SETTINGS)[1]
    whole, parts = (
        torch.cat(list(paint(deaf(), captions, ColourEncoder(), EvaluationSettings(batch_size=size))))
        for size in (100, 7)
    )
    assert torch.equal(whole, parts) and len(whole.flatten(1).unique(dim=0)) == 40


def test_noise_depends_on_the_seed_alone(dataset):
    noises = []
    for seed, others in ((0, 1), (0, 2), (1, 3)):
        torch.manual_seed(others)
        painter = deaf()
        evaluate(painter, dataset, ColourEncoder(), settings=replace(SETTINGS, seed=seed))
        noises.append(torch.cat(painter.noises))
    assert torch.equal(noises[0], noises[1]) and not torch.isin(noises[0], noises[2]).any()


def test_varied_pictures_have_noise_of_their_own(dataset):
    """Noise that comes twice would make a system's pictures look alike, or its diversity depend on the others."""
    painter = deaf()
    evaluate(painter, dataset, ColourEncoder(), settings=SETTINGS)
    noise = torch.cat(painter.noises)
    assert noise.shape == (40 + 4 * 3, 3) and len(noise.flatten().unique()) == 52 * 3


def test_pictures_come_in_batches_within_the_range(dataset):
    captions = choose_captions(dataset, SETTINGS)[1]
    loud = Painter(lambda sentence, noise: (3 * sentence + noise).bfloat16().requires_grad_())
    batches = list(paint(loud, captions, ColourEncoder(), SETTINGS))
    assert [len(batch) for batch in batches] == [16, 16, 8]
    for batch in batches:
        assert batch.dtype == torch.float32 and not batch.requires_grad
        assert batch.min() == -1 and batch.max() == 1
    fastest = list(paint(deaf(), captions, ColourEncoder(), EvaluationSettings()))
    assert [len(batch) for batch in fastest] == [CPU_BATCH, CPU_BATCH, 40 - 2 * CPU_BATCH]


def test_captions_are_chosen_by_the_seed(dataset):
    rows, captions = choose_captions(dataset, SETTINGS)
    again, same = choose_captions(dataset, SETTINGS)
    assert (rows == again).all() and captions == same and len(set(rows)) == 40
    assert all(caption in dataset.captions[row] for row, caption in zip(rows, captions, strict=True))
    assert choose_captions(dataset, EvaluationSettings(n=40, seed=1))[1] != captions
    rows, _ = choose_captions(dataset, EvaluationSettings(n=100))  # more than there are: twice and thrice
    assert len(rows) == 100 and sorted(np.bincount(rows)) == [2] * 44 + [3] * 4


def test_each_of_a_picture_s_captions_is_as_likely(phrased):
    rows, captions = choose_captions(phrased, EvaluationSettings(n=48 * 60))
    places = [phrased.captions[row].index(caption) for row, caption in zip(rows, captions, strict=True)]
    for count in (1, 2, 3, 4):
        drawn = [place for row, place in zip(rows, places, strict=True) if len(phrased.captions[row]) == count]
        shares = np.bincount(drawn, minlength=count) / len(drawn)
        assert len(shares) == count and shares.min() > 0.8 / count


def test_varied_pictures_are_grouped_by_caption(dataset):
    painter = faithful()
    evaluate(painter, dataset, ColourEncoder(), settings=SETTINGS)
    captions = choose_captions(dataset, SETTINGS)[1][:4]
    sentences, pictures = torch.cat(painter.sentences)[40:], torch.cat(painter.pictures)[40:]
    assert torch.equal(sentences, ColourEncoder().encode(captions).sentence.repeat_interleave(3, 0))
    assert (pictures.unflatten(0, (4, 3)).std(dim=1).amax((1, 2, 3)) > 0).all()


def test_another_encoder_may_judge(dataset):
    """The generator is conditioned by one encoder and scored by the other, as are the real pictures."""
    own, judged = (
        evaluate(faithful(), dataset, ColourEncoder(), None, SETTINGS, judge) for judge in (None, Contrary())
    )
    assert own["metrics"]["r_precision"]["mean"] > 0.9 and own["metrics"]["clip_score"] > 95
    assert judged["metrics"]["r_precision"]["mean"] < 0.1 and judged["metrics"]["clip_score"] == 0
    assert judged["metrics"]["real"]["clip_score"] < 10 < own["metrics"]["real"]["clip_score"]
    assert judged["metrics"]["clip_fd"] == pytest.approx(own["metrics"]["clip_fd"])  # it sees the same pictures
    names = [(result["protocol"]["text_encoder"], result["protocol"]["judge_encoder"]) for result in (own, judged)]
    assert names == [("1" * 64, "1" * 64), ("1" * 64, "c0ffee")]
    assert judged["protocol"]["extractor"] == "contrary" and own["protocol"]["extractor"] == "colours"


def test_an_encoder_without_eyes_can_be_judged_by_one_that_sees(dataset):
    alone = evaluate(faithful(), dataset, Reader(), settings=SETTINGS)["metrics"]
    assert alone["r_precision"] is None and alone["clip_score"] is None and "clip_fd" not in alone
    judged = evaluate(faithful(), dataset, Reader(), None, SETTINGS, ColourEncoder())
    assert judged["metrics"]["r_precision"]["mean"] > 0.9 and judged["metrics"]["clip_fd"] > 0
    blind = evaluate(faithful(), dataset, ColourEncoder(), None, SETTINGS, Reader())["metrics"]
    assert blind["r_precision"] is None and blind["clip_score"] is None


@pytest.mark.parametrize("truncation", [0.5, 0.88])
def test_truncation_reaches_all_noise_that_is_drawn(dataset, truncation):
    found = {}
    for cut in (truncation, None):
        painter = deaf(noise_dim=100)
        result = evaluate(painter, dataset, ColourEncoder(), settings=replace(SETTINGS, truncation=cut))
        found[cut] = torch.cat(painter.noises)
        assert len(found[cut]) == 40 + 4 * 3  # one of each caption, and several of a few
        assert result["protocol"]["truncation"] == cut
    for drawn in found[truncation].split([40, 12]):
        assert 1.8 * truncation < drawn.abs().max() <= 2 * truncation
    assert found[None].abs().max() > 2


def test_impossible_truncation_is_named(dataset):
    with pytest.raises(InputError, match="truncation = -1"):
        evaluate(faithful(), dataset, ColourEncoder(), settings=replace(SETTINGS, truncation=-1))


def test_the_outcome_can_be_written(dataset, tmp_path):
    outcome = evaluate(faithful(), dataset, ColourEncoder(), settings=SETTINGS)
    text = write_result(tmp_path, **outcome).read_text()
    for word in ("seconds", "reference_split", "extractor", "resize", "commit"):
        assert f'"{word}"' in text


def test_an_empty_dataset_is_named(dataset):
    with pytest.raises(InputError, match="no pictures"):
        evaluate(faithful(), dataset.subset([]), ColourEncoder(), settings=SETTINGS)


SIDE = 29  # of no other test's pictures


class Watched(np.ndarray):
    """Pictures that remember the most that were taken at once."""

    most = 0

    def __getitem__(self, index):
        taken = super().__getitem__(index)
        if taken.ndim == 4:
            Watched.most = max(Watched.most, len(taken))
        return taken


class Census:
    """Counts, at every sixteenth question, the pictures that fit into the memory that picture tensors keep alive."""

    def __init__(self):
        self.asked, self.most = 0, 0

    def ask(self):
        self.asked += 1
        if self.asked % 16 == 0:
            tensors = [item for item in gc.get_objects() if type(item) is torch.Tensor]
            pictures = [item.untyped_storage() for item in tensors if item.ndim == 4 and item.shape[-1] == SIDE]
            memory = {storage.data_ptr(): storage.nbytes() for storage in pictures}
            self.most = max(self.most, sum(memory.values()) // (3 * SIDE * SIDE * 4))


@pytest.mark.parametrize("by", ["judge", "clip"])
def test_only_a_few_batches_of_pictures_are_alive(by, monkeypatch):
    """Twenty batches of five are painted, twenty are real, and as many of the reference."""
    census, images = Census(), np.random.default_rng(0).integers(0, 256, (120, SIDE, SIDE, 3), dtype=np.uint8)
    monkeypatch.setattr(Watched, "most", 0)
    captions = [[f"a {COLOURS[1 + 3 * (row % 2)]} bird"] for row in range(120)]
    watched = CaptionedImages(images.view(Watched), captions, np.zeros(120, np.int64), np.full(120, "test"), ["bird"])

    class Generating(Painter):
        def generate(self, text, noise):
            census.ask()
            return torch.rand(len(noise), 3, SIDE, SIDE)

    class Seeing(ColourEncoder):
        def encode_images(self, images):
            census.ask()
            return super().encode_images(images)

    class Judging(Judge):
        def read(self, images):
            census.ask()
            return super().read(images)

    settings = EvaluationSettings(n=100, batch_size=5, diversity_captions=10, per_caption=4, candidates=2)
    judge = Judging(JudgeConfig(ATTRIBUTES, **SMALL)).eval() if by == "judge" else None
    encoder = Seeing() if by == "clip" else Reader()
    metrics = evaluate(Generating(None), watched, encoder, judge, settings)["metrics"]
    assert metrics["toy_fd" if by == "judge" else "clip_fd"] > 0 and metrics["diversity"] > 0
    assert census.asked == 20 + 8 + 20 + 20 + 24 + 8  # painted and looked at, then real pictures, then the reference
    assert 5 <= census.most <= 3 * 5
    assert Watched.most == 5


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_infinite_pictures_are_no_white_ones(dataset, value):
    broken = Painter(lambda sentence, noise: sentence * value)
    with pytest.raises(InputError, match="pictures: some are NaN or infinite; take another checkpoint"):
        evaluate(broken, dataset, ColourEncoder(), settings=SETTINGS)

"""The judge's training as a task of the loop: it learns, repeats with its seed, goes on, is saved and read back."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2ilib.data.batches import Augment, Batches
from t2ilib.data.toy import ATTRIBUTES, toy_birds
from t2ilib.devices import this_process
from t2ilib.errors import InputError
from t2ilib.metrics import judge as module
from t2ilib.metrics.judge import load_judge
from t2ilib.metrics.judge_training import JudgeTraining, JudgeTrainingConfig, disturb
from t2ilib.pictures import to_float
from t2ilib.training import Recipe, Run, TrainingSettings, train

TINY = {"batch_size": 16}


@pytest.fixture(scope="module")
def birds():
    return toy_birds(train=48, validation=0, test=0, size=32, seed=5)


def learn(task, dataset, steps, run=None, **settings):
    """Return the records of a training, not begun."""
    settings = TrainingSettings(steps, precision="fp32", **{"log_every": 1, **settings})
    options = {"needs": task.needs, "augment": Augment(shift=2), "seed": settings.seed}
    return train(task, Batches(dataset, None, task.config.batch_size, this_process().device, **options), settings, run)


def build(dataset, seed=0) -> JudgeTraining:
    torch.manual_seed(seed)
    return JudgeTraining.build(TINY, {}, dataset)


def test_training_learns_and_the_file_keeps_it(attributes, halves, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTRIBUTES", attributes)
    training, test = halves.split("train"), halves.split("test")
    torch.manual_seed(0)
    labels = torch.from_numpy(training.attributes)
    task = JudgeTraining(JudgeTrainingConfig(batch_size=32), labels, halves.size, attributes)
    list(learn(task, training, 64))  # eight epochs
    report = task.measure(test)
    assert report["mean"] > 0.9 and set(report) == {"mean", *attributes}
    task.save(tmp_path)
    judge = load_judge(tmp_path)
    right = (judge.predict(to_float(test.images)).numpy() == test.attributes).mean()
    assert right == pytest.approx(report["mean"], abs=1e-3)
    assert json.loads((tmp_path / "config.json").read_text())["report"] == report


def test_a_few_birds_are_learnt_by_heart(birds):
    records = list(learn(build(birds), birds, 30))
    assert [record["step"] for record in records] == list(range(1, 31))
    losses = [record["judge/cross_entropy"] for record in records]
    assert losses[-1] < 0.75 * losses[0]


def test_the_term_is_the_mean_cross_entropy_of_the_attributes(birds):
    task = build(birds).eval()
    batch = Batches(birds, None, 16, "cpu").batch(0)
    term = task.loss("judge", batch, batch.images)["cross_entropy"].item()
    expected = 0.0
    for logits, labels in zip(task.judge(batch.images), birds.attributes[batch.indices].T, strict=True):
        own = F.log_softmax(logits, 1)[torch.arange(16), torch.from_numpy(labels)]
        expected -= (0.98 * own + 0.02 * F.log_softmax(logits, 1).mean(1)).mean().item() / len(ATTRIBUTES)
    assert term == pytest.approx(expected, rel=1e-5)


def test_same_seed_same_weights(birds):
    weights = []
    for seed in (0, 0, 1):
        task = build(birds, seed)
        list(learn(task, birds, 3, seed=seed))
        weights.append(task.judge.fingerprint)
    assert weights[0] == weights[1] != weights[2]


def test_a_run_goes_on_where_it_was_stopped(birds, tmp_path):
    """Four steps at a stretch, or two and two: the same bits, statistics of batch normalisation included."""
    states = {}
    for name, parts in {"whole": [4], "halves": [2, 2]}.items():
        run = Run.create(tmp_path / name, Recipe("judge", training=TrainingSettings(4)))
        for count in parts:
            task = build(birds)
            assert len(list(islice(learn(task, birds, 4, run, checkpoint_every=2), count))) == count
        states[name] = run.restore()[0]
        task.save(run.folder)
        assert load_judge(run.folder).config.image_size == 32
    assert states["whole"].keys() == states["halves"].keys()
    assert all(torch.equal(tensor, states["halves"][key]) for key, tensor in states["whole"].items())


def test_pictures_without_attributes_are_refused(birds):
    with pytest.raises(InputError, match="no attributes to be learnt"):
        JudgeTraining.build(TINY, {}, replace(birds, attributes=None))
    with pytest.raises(InputError, match="unknown key epochs"):
        JudgeTraining.build({"epochs": 3}, {}, birds)


def test_rate_rises_then_falls_to_zero(birds):
    task = build(birds)
    rates = [task.rate("judge", step, 100) for step in range(100)]
    assert np.argmax(rates) in (29, 30) and max(rates) == 1  # three tenths of the steps
    assert rates[0] == pytest.approx(1 / 30) and rates[65] == pytest.approx(0.5, abs=0.01) and rates[99] < 0.01


def test_measuring_counts_every_picture(birds):
    """In parts, and whatever the mode: the share of right values, by attribute."""
    task = build(birds)
    repeated = birds.subset(np.arange(300) % 48)  # more than are looked at at a time
    right = (task.judge.predict(to_float(repeated.images)).numpy() == repeated.attributes).mean(0)
    report = task.train().measure(repeated)
    assert report == {name: pytest.approx(value, abs=1e-4) for name, value in zip(ATTRIBUTES, right, strict=True)} | {
        "mean": pytest.approx(right.mean(), abs=1e-4)
    }


def test_disturbing_keeps_shape_and_repeats_with_its_seed(halves):
    images, disturbed = to_float(halves.images[:16]), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        disturbed.append(disturb(images, 0.08, 0.08))
    assert disturbed[0].shape == images.shape and torch.equal(*disturbed[:2])
    assert not torch.equal(disturbed[0], disturbed[2])
    assert 0.01 < (disturbed[0] - images).abs().mean() < 0.3


def test_half_of_the_batches_are_blurred(birds):
    """Without noise and brightness nothing else is left."""
    images = to_float(birds.images)
    torch.manual_seed(0)
    changes = [(disturb(images, 0.0, 0.0) - images).abs().mean().item() for _ in range(60)]
    assert 18 <= sum(change == 0 for change in changes) <= 42
    assert all(0.005 < change < 0.2 for change in changes if change)


def test_noise_brightness_and_contrast_differ_between_pictures_and_know_their_bounds():
    def disturbed(level, noise, brightness):
        torch.manual_seed(0)
        return disturb(torch.full((400, 3, 8, 8), level), noise, brightness)

    added = disturbed(0.0, 0.0, 0.1).mean((2, 3))  # one number for the picture, half as large ones for its channels
    assert 0.1 < added.abs().max() <= 0.15 + 1e-6 and added.std(0).min() > 0.03
    assert (added.amax(1) - added.amin(1)).max() > 0.05
    factor = (disturbed(1.0, 0.0, 0.1) - disturbed(0.0, 0.0, 0.1)).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert 0.9 - 1e-6 <= factor.min() < 0.91 and 1.09 < factor.max() <= 1.1 + 1e-6
    noisy = disturbed(0.0, 0.1, 0.0).flatten(1).std(1)
    assert 0.08 < noisy.max() < 0.13 and noisy.min() < 0.01

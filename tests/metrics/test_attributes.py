import numpy as np
import pytest
import torch

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES, toy_birds
from t2ilib.errors import InputError
from t2ilib.metrics import attributes
from t2ilib.metrics.attributes import Judge, JudgeConfig, accuracy_of, attribute_accuracy, load_judge, save_judge
from t2ilib.metrics.evaluate import to_pictures
from t2ilib.metrics.judge_training import JudgeTraining, disturb, train_judge

HALVES = {"top": ("dark", "light"), "bottom": ("dark", "grey", "light")}
PREDICTED = torch.tensor([[0, 2], [1, 1]])


def halves(count, seed=0, size=32):
    """Pictures whose upper and lower halves have the brightness their attributes say."""
    rows = np.random.default_rng(seed).integers(0, [2, 3], size=(count, 2))
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    images[:, : size // 2] = (40 + 170 * rows[:, 0])[:, None, None, None]
    images[:, size // 2 :] = (40 + 85 * rows[:, 1])[:, None, None, None]
    splits = np.array(["train", "train", "validation", "test"])[np.arange(count) % 4]
    return CaptionedImages(images, [["x"]] * count, np.zeros(count, np.int64), splits, ["x"], rows)


@pytest.fixture(scope="module")
def judge():
    return load_judge()


@pytest.fixture(scope="module")
def held_out():
    return toy_birds(train=1, validation=1, test=300, size=64, seed=77).split("test")


def test_counting_only_what_captions_mention():
    result = accuracy_of(PREDICTED, [{"top": "dark"}, {"top": "dark", "bottom": "grey"}], HALVES)
    assert result["mentioned"] == pytest.approx(2 / 3) and result["count"] == 3
    assert result["attributes"]["top"] == {"accuracy": 0.5, "count": 2, "chance": 0.5}
    assert result["attributes"]["bottom"]["accuracy"] == 1
    assert result["chance"] == pytest.approx((0.5 + 0.5 + 1 / 3) / 3)


def test_captions_without_attributes_are_named():
    with pytest.raises(InputError, match="captions"):
        accuracy_of(PREDICTED, [{}, {}], HALVES)


def test_training_learns_and_the_file_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(attributes, "ATTRIBUTES", HALVES)
    dataset = halves(512)
    report = train_judge(dataset, tmp_path, JudgeTraining(epochs=8, batch_size=32), HALVES)
    assert report["test"]["mean"] > 0.9
    judge = load_judge(tmp_path)
    pictures = to_pictures(dataset.split("test").images)
    right = (judge.predict(pictures).numpy() == dataset.split("test").attributes).mean()
    assert right == pytest.approx(report["test"]["mean"], abs=1e-3)


def test_a_judge_of_other_attributes_is_refused(tmp_path):
    save_judge(Judge(JudgeConfig(HALVES)), tmp_path)
    with pytest.raises(InputError, match="judge_training"):
        load_judge(tmp_path)
    with pytest.raises(InputError, match="no judge"):
        load_judge(tmp_path / "nowhere")


def test_features_do_not_depend_on_the_batch_and_fit_any_size():
    judge = Judge(JudgeConfig(HALVES)).eval()
    images = torch.rand(5, 3, 64, 64) * 2 - 1
    features = judge.features(images)
    assert features.shape == (5, judge.config.feature_size) and 128 <= features.shape[1] <= 256
    torch.testing.assert_close(judge.features(images, batch_size=2), features)
    assert judge.predict(torch.rand(2, 3, 100, 100)).shape == (2, 2)


def test_disturbing_keeps_shape_and_repeats_with_its_seed():
    images = to_pictures(halves(16).images)
    training = JudgeTraining()
    first, second = (disturb(images, training, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == images.shape and torch.equal(first, second)
    assert 0.01 < (first - images).abs().mean() < 0.3


def test_shipped_judge_reads_unseen_species(judge, held_out):
    right = (judge.predict(to_pictures(held_out.images)).numpy() == held_out.attributes).mean(axis=0)
    assert right.mean() >= 0.985, dict(zip(ATTRIBUTES, right, strict=True))


def test_shipped_judge_on_captions(judge, held_out):
    captions = [row[0] for row in held_out.captions]
    pictures = to_pictures(held_out.images)
    right = attribute_accuracy(judge, pictures, captions)
    wrong = attribute_accuracy(judge, pictures, captions[1:] + captions[:1])
    assert right["mentioned"] >= 0.98
    assert abs(wrong["mentioned"] - wrong["chance"]) < 0.1
    with pytest.raises(InputError, match="one caption per picture"):
        attribute_accuracy(judge, pictures, captions[1:])


def test_shipped_judge_is_small():
    assert (attributes.FOLDER / "model.safetensors").stat().st_size < 2_000_000

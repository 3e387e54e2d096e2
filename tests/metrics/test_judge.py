"""The judge: its folder, features that no batch changes, and what the shipped one reads."""

import json
from pathlib import Path

import pytest
import torch

from t2ilib.data.toy import ATTRIBUTES
from t2ilib.errors import InputError
from t2ilib.metrics import judge as module
from t2ilib.metrics.judge import Judge, JudgeConfig, load_judge, save_judge
from t2ilib.pictures import resized, to_float

SMALL = {"image_size": 32, "widths": (8, 8, 8), "map_width": 4, "feature_size": 12}


@pytest.fixture
def small() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeConfig(ATTRIBUTES, **SMALL)).eval()


def test_features_do_not_depend_on_the_batch_and_fit_any_size(attributes):
    judge = Judge(JudgeConfig(attributes)).eval()
    images = torch.rand(37, 3, 64, 64) * 2 - 1  # more than are looked at at a time
    features, values = judge.read(images)
    assert features.shape == (37, judge.config.feature_size) and 128 <= features.shape[1] <= 256
    assert features.dtype == torch.float32 and values.shape == (37, 2) and values.dtype == torch.int64
    assert (features >= 0).all() and features.any()
    for row in (0, 16, 36):
        alone = judge.read(images[row : row + 1])
        torch.testing.assert_close(alone[0][0], features[row], rtol=1e-4, atol=1e-5)
        assert torch.equal(alone[1][0], values[row])
    assert judge.predict(torch.rand(2, 3, 100, 100)).shape == (2, 2)


def test_values_are_the_likeliest_of_each_head(small: Judge):
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    features, values = small.read(images)
    logits = small(images)
    assert [row.shape for row in logits] == [(5, len(known)) for known in ATTRIBUTES.values()]
    assert torch.equal(values, torch.stack([row.argmax(1) for row in logits], 1))
    assert torch.equal(small.predict(images), values) and torch.equal(small.features(images), features)


def test_reading_needs_no_mode_and_leaves_no_graph(small: Judge):
    """Batch statistics would make a picture's features depend on its batch."""
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    expected = small.features(images)
    found, _ = small.train().read(images)
    assert torch.equal(found, expected) and not found.requires_grad


def test_what_resizing_overshoots_is_cut_and_nothing_else(small):
    fitting = torch.randn(4, 3, 32, 32) * 2
    torch.testing.assert_close(small.features(fitting), small.trunk(fitting))  # disturbed pictures may leave the range
    edges = torch.ones(4, 3, 128, 128)
    edges[..., 61:] = -1
    shrunk = resized(edges, 32)
    assert shrunk.abs().max() > 1.01
    torch.testing.assert_close(small.features(edges), small.trunk(shrunk.clamp(-1, 1)))


def test_a_saved_judge_reads_the_same(small: Judge, tmp_path):
    save_judge(small, tmp_path, {"mean": 0.5})
    again = load_judge(tmp_path)
    assert again.config == small.config and not again.training
    assert not any(weight.requires_grad for weight in again.parameters())
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(again.features(images), small.features(images), rtol=1e-2, atol=1e-2)
    assert json.loads((tmp_path / "config.json").read_text())["report"] == {"mean": 0.5}


def test_the_fingerprint_knows_the_weights(small: Judge):
    before = small.fingerprint
    assert before.startswith("toy-judge-") and len(before) == len("toy-judge-") + 12
    small.heads[0].bias.data[0] += 1
    assert small.fingerprint != before


def test_a_judge_of_other_attributes_is_refused(attributes, tmp_path):
    save_judge(Judge(JudgeConfig(attributes)), tmp_path)
    with pytest.raises(InputError, match="other attributes than the renderer; train it: t2i train judge"):
        load_judge(tmp_path)
    with pytest.raises(InputError, match=r"config\.json: missing; train it: t2i train judge"):
        load_judge(tmp_path / "nowhere")


def test_values_in_another_order_are_refused(tmp_path):
    """The numbers of the values would name other ones."""
    swapped = ATTRIBUTES | {"size": ("large", "small")}
    save_judge(Judge(JudgeConfig(swapped, **SMALL)), tmp_path)
    with pytest.raises(InputError, match="other attributes"):
        load_judge(tmp_path)


def spoil(folder: Path, **changes) -> None:
    path = folder / "config.json"
    stored = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in stored.items() if value is not None}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: damaged"),
        (lambda folder: spoil(folder, format="t2ilib-clip"), "holds t2ilib-clip of version 1, not t2ilib-judge"),
        (lambda folder: spoil(folder, attributes=None), r"config\.json: damaged"),
        (lambda folder: spoil(folder, attributes=3), r"config\.json: damaged"),
        (lambda folder: spoil(folder, widths=None), r"config\.json: damaged"),
        (lambda folder: spoil(folder, feature_size=13), r"model\.safetensors: damaged, or of another network"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), r"model\.safetensors: damaged"),
    ],
    ids=["cut", "CLIP", "no attributes", "odd attributes", "no widths", "other size", "weights"],
)
def test_damage_is_named(damage, message, small: Judge, tmp_path):
    save_judge(small, tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=rf"{message}.*; train it: t2i train judge"):
        load_judge(tmp_path)


def test_shipped_judge_reads_unseen_species(judge, held_out):
    right = (judge.predict(to_float(held_out.images)).numpy() == held_out.attributes).mean(axis=0)
    assert right.mean() >= 0.985, dict(zip(ATTRIBUTES, right, strict=True))


def test_shipped_judge_is_small():
    assert (module.FOLDER / "model.safetensors").stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feature_size", 10**12),
        ("map_width", -1),
        ("image_size", True),
        ("image_size", 10**9),
        ("widths", []),
        ("widths", [8] * 1000),
        ("widths", ["8", 8, 8]),
        ("widths", 8),
    ],
)
def test_sizes_are_checked_before_memory_is_taken_for_them(name, value, small: Judge, tmp_path):
    save_judge(small, tmp_path)
    spoil(tmp_path, **{name: value})
    with pytest.raises(InputError, match=r"(config\.json|model\.safetensors): damaged.*; train it") as caught:
        load_judge(tmp_path)
    assert "\n" not in str(caught.value)

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2ilib import text
from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError
from t2ilib.text import contrastive, load_encoder
from t2ilib.text.contrastive import ClipConfig, contrastive_loss, train_clip
from t2ilib.text.retrieval import distinct_pictures, retrieval


def naive_loss(images, texts, scale, groups):
    """Return the same loss by two loops, with plain exponentials."""
    total, count = 0.0, len(images)
    for i in range(count):
        others = [j for j in range(count) if j == i or groups[j] != groups[i]]
        rows = [torch.exp(scale * images[i] @ texts[j]) for j in others]
        columns = [torch.exp(scale * images[j] @ texts[i]) for j in others]
        own = torch.exp(scale * images[i] @ texts[i])
        total -= torch.log(own / sum(rows)) + torch.log(own / sum(columns))
    return total / (2 * count)


def test_loss_equals_a_naive_transcription():
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 5, dtype=torch.float64), dim=-1) for _ in range(2))
    scale = torch.tensor(30.0, dtype=torch.float64)
    for groups in (torch.arange(6), torch.tensor([0, 1, 1, 2, 1, 3])):
        loss, _ = contrastive_loss(images, texts, scale, groups)
        torch.testing.assert_close(loss, naive_loss(images, texts, scale, groups))


def test_equal_captions_do_not_push_each_other_away():
    images = F.normalize(torch.randn(2, 4), dim=-1).requires_grad_()
    texts = F.normalize(torch.randn(1, 4), dim=-1).expand(2, 4)
    loss, _ = contrastive_loss(images, texts, torch.tensor(10.0), torch.tensor([7, 7]))
    loss.backward()
    assert loss.item() == 0
    assert images.grad.abs().max() == 0


def test_training_lowers_the_loss_and_finds_pictures(trained, squares: CaptionedImages):
    folder, records = trained
    assert [record["step"] for record in records] == [1, 10, 20, 30, 40, 50, 60]
    assert records[-1]["loss"] < 0.6 * records[0]["loss"]
    rates = retrieval(load_encoder(str(folder)), squares, count=16)
    assert rates["full"] > 0.6  # chance is 1/16


def test_same_seed_same_weights(small: ClipConfig, squares: CaptionedImages, tmp_path):
    short = replace(small, steps=3)
    names = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(names, (0, 0, 1), strict=True):
        list(train_clip(squares, replace(short, seed=seed), folder))
    weights = [(folder / "model.safetensors").read_bytes() for folder in names]
    assert weights[0] == weights[1] != weights[2]


def test_a_set_smaller_than_a_batch_is_refused(small: ClipConfig, squares: CaptionedImages, tmp_path):
    with pytest.raises(InputError, match="lower batch_size"):
        next(train_clip(squares.subset(range(8)), small, tmp_path))


def test_candidates_are_distinct(squares: CaptionedImages):
    chosen = distinct_pictures(squares, 16, seed=1)
    assert len({captions[0] for captions in chosen.captions}) == 16
    with pytest.raises(InputError, match="only 16"):
        distinct_pictures(squares, 17, seed=1)


def test_missing_toy_clip_says_how_to_train_it(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match=r"config\.json: missing; train .*python -m t2ilib\.text\.contrastive"):
        load_encoder("toy-clip")


def test_shipped_toy_clip_finds_held_out_birds():
    """Weights: data/weights/toy_clip. 100 birds of species that no training picture shows."""
    from t2ilib.data import toy

    attributes = toy.sample_attributes(120, seed=77, held_out=True)
    ids, names = toy.species(attributes)
    captions = [toy.captions(row, seed=index) for index, row in enumerate(attributes)]
    images = toy.render(attributes, np.arange(120) + 7700, 64)
    birds = CaptionedImages(images, captions, ids, np.full(120, "test"), names, attributes)
    assert retrieval(load_encoder("toy-clip"), birds, count=100)["full"] > 0.9


def test_command_line_trains_saves_and_measures_few_pictures(squares: CaptionedImages, tmp_path, monkeypatch, capsys):
    splits = np.array(["train"] * 32 + ["test"] * 32)
    dataset = replace(squares, splits=splits)  # 32 test pictures, 16 of them distinct
    monkeypatch.setattr(contrastive, "load", lambda source, size: dataset)
    contrastive.main(["--folder", str(tmp_path), "--steps", "1", "--batch-size", "8"])
    assert "top-1 among 16 held-out pictures" in capsys.readouterr().out
    assert load_encoder(str(tmp_path)).name == "toy-clip"

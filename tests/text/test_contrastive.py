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


def naive_with_wrong(images, texts, scale, groups, wrong):
    """Return the same loss with further rivals of the rows alone: wrong_ei where it is not all zero."""
    total, count = 0.0, len(images)
    for i in range(count):
        others = [j for j in range(count) if j == i or groups[j] != groups[i]]
        rows = [torch.exp(scale * images[i] @ texts[j]) for j in others]
        rows += [torch.exp(scale * images[i] @ text) for text in wrong[:, i] if text.abs().sum() > 0]
        columns = [torch.exp(scale * images[j] @ texts[i]) for j in others]
        own = torch.exp(scale * images[i] @ texts[i])
        total -= torch.log(own / sum(rows)) + torch.log(own / sum(columns))
    return total / (2 * count)


def test_loss_with_wrong_captions_equals_a_naive_transcription():
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 5, dtype=torch.float64), dim=-1) for _ in range(2))
    wrong = F.normalize(torch.randn(3, 6, 5, dtype=torch.float64), dim=-1)
    wrong[0, 2] = wrong[1, 2] = wrong[2, 2] = wrong[1, 4] = 0  # a row without any, and one with two of three
    scale = torch.tensor(30.0, dtype=torch.float64)
    for groups in (torch.arange(6), torch.tensor([0, 1, 1, 2, 1, 3])):
        loss, accuracy = contrastive_loss(images, texts, scale, groups, wrong)
        torch.testing.assert_close(loss, naive_with_wrong(images, texts, scale, groups, wrong))
        without, same = contrastive_loss(images, texts, scale, groups)
        assert loss > without and accuracy == same
    for none in (torch.zeros(3, 6, 5), torch.zeros(0, 6, 5)):
        without = contrastive_loss(images, texts, scale, torch.arange(6))[0]
        torch.testing.assert_close(contrastive_loss(images, texts, scale, torch.arange(6), none.double())[0], without)


def test_a_wrong_caption_pushes_its_own_picture_alone():
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(3, 4), dim=-1).requires_grad_() for _ in range(2))
    wrong = F.normalize(torch.randn(1, 3, 4), dim=-1)
    wrong[0, 1] = 0
    wrong.requires_grad_()
    losses = [contrastive_loss(images, texts, torch.tensor(2.0), torch.arange(3), more)[0] for more in (wrong, None)]
    difference = torch.autograd.grad(losses[0] - losses[1], [images, wrong])
    assert [bool(row.abs().max() > 1e-6) for row in difference[0]] == [True, False, True]
    assert all(gradient.isfinite().all() for gradient in difference)


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


RESNET = {"image_width": 8, "image_layers": (1, 1, 1, 1)}


@pytest.mark.parametrize("tower", ["transformer", "ResNet"])
@pytest.mark.parametrize("exchanged", [0, 1, 2])
def test_training_with_exchanged_words_and_either_tower_is_saved_and_opened(
    tower: str, exchanged: int, small: ClipConfig, squares: CaptionedImages, tmp_path
):
    config = replace(small, steps=3, log_every=1, exchanged=exchanged, **(RESNET if tower == "ResNet" else {}))
    records = list(train_clip(squares, config, tmp_path))
    assert [record["step"] for record in records] == [1, 2, 3]
    assert all(np.isfinite(record["loss"]) for record in records)
    encoder = load_encoder(str(tmp_path))
    assert type(encoder.model.visual).__name__ == ("ModifiedResNet" if tower == "ResNet" else "VisionTransformer")
    assert encoder.config["training"]["exchanged"] == exchanged
    pictures = torch.rand(2, 3, 32, 32, requires_grad=True)
    embedded = encoder.encode_images(pictures)
    assert embedded.shape == encoder.encode(["a red square", "something"]).sentence.shape == (2, config.embed_dim)
    (gradient,) = torch.autograd.grad(embedded.square().sum(), pictures)
    assert gradient.any()


def test_exchanged_words_make_the_task_harder(small: ClipConfig, squares: CaptionedImages, tmp_path):
    """At the first step, with the same weights and pictures, every further rival adds to the loss."""
    first = [
        next(train_clip(squares, replace(small, exchanged=exchanged), tmp_path))["loss"] for exchanged in (0, 1, 4)
    ]
    assert first[0] < first[1] < first[2]


def test_examples_hold_captions_wrong_in_one_word(small: ClipConfig, squares: CaptionedImages, trained):
    encoder = load_encoder(str(trained[0]))
    batch = contrastive._Examples(squares, encoder, replace(small, exchanged=2)).batch(1)
    captions, exchanged, count, length = batch.wrong.shape
    assert (captions, exchanged, count) == (2, 2, 32) and batch.tokens.shape == (2, 32, length)
    different = (batch.wrong != batch.tokens[:, None]).sum(-1)
    assert torch.equal(different > 0, batch.changed)
    assert set(different.unique().tolist()) <= {0, 1, 2} and batch.changed.all()  # every caption names a colour
    assert not torch.equal(batch.wrong[:, 0], batch.wrong[:, 1])  # each time another


def test_training_goes_on_from_given_weights(small: ClipConfig, squares: CaptionedImages, trained, tmp_path):
    folder = trained[0]
    further = replace(small, steps=2, log_every=1, learning_rate=1e-4, seed=3)
    fresh, started = (next(train_clip(squares, further, tmp_path, start=start)) for start in (None, folder))
    assert started["loss"] < fresh["loss"]
    list(train_clip(squares, further, tmp_path, start=folder))
    encoder, before = load_encoder(str(tmp_path)), load_encoder(str(folder))
    assert encoder.config["training"]["seed"] == 3
    assert encoder.config["started_from"] == before.config["training"]
    assert encoder.config["vocabulary"] == before.config["vocabulary"]
    assert encoder.fingerprint != before.fingerprint
    with pytest.raises(InputError, match="no such file"):
        next(train_clip(squares, further, tmp_path / "new", start=tmp_path / "absent"))


def test_command_line_takes_a_resnet_and_exchanged_words(squares: CaptionedImages, tmp_path, monkeypatch):
    dataset = replace(squares, splits=np.array(["train"] * 64))
    monkeypatch.setattr(contrastive, "load", lambda source, size: dataset)
    options = "--steps 1 --batch-size 8 --exchanged 1 --image-width 8 --image-layers 1 1 1 1 --name small-resnet"
    contrastive.main(["--folder", str(tmp_path), *options.split()])
    encoder = load_encoder(str(tmp_path))
    assert encoder.name == "small-resnet" and type(encoder.model.visual).__name__ == "ModifiedResNet"
    assert encoder.config["training"]["exchanged"] == 1

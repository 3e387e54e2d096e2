"""A small CLIP: its loss word for word, its training as a task of the loop, its folder, and what it then finds."""

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2ilib import encoders, losses
from t2ilib.assembly import check
from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import toy_birds
from t2ilib.encoders import contrastive as module
from t2ilib.encoders import load_encoder
from t2ilib.encoders.contrastive import ClipConfig, Contrastive, encode_texts
from t2ilib.encoders.reading import exchanged_values, exchanged_words, word_wins
from t2ilib.encoders.retrieval import distinct_pictures, retrieval
from t2ilib.encoders.tokens import WordTokenizer
from t2ilib.errors import InputError
from t2ilib.features import Needs
from t2ilib.training import EncoderSettings, Recipe, Run, TrainingSettings


def naive_loss(images, texts, scale, groups, wrong=()):
    """Return the loss by two loops, with plain exponentials; wrong_ei is a rival of picture i where it is not zero."""
    total, count = 0.0, len(images)
    for i in range(count):
        others = [j for j in range(count) if j == i or groups[j] != groups[i]]
        rows = [torch.exp(scale * images[i] @ texts[j]) for j in others]
        rows += [torch.exp(scale * images[i] @ more[i]) for more in wrong if more[i].abs().sum() > 0]
        columns = [torch.exp(scale * images[j] @ texts[i]) for j in others]
        own = torch.exp(scale * images[i] @ texts[i])
        total -= torch.log(own / sum(rows)) + torch.log(own / sum(columns))
    return total / (2 * count)


def unit(*shape, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def test_loss_equals_a_naive_transcription():
    torch.manual_seed(0)
    images, texts = unit(6, 5), unit(6, 5)
    scale = torch.tensor(30.0, dtype=torch.float64)
    for groups in (torch.arange(6), torch.tensor([0, 1, 1, 2, 1, 3])):
        loss, _ = losses.contrastive(images, texts, groups, scale=scale)
        torch.testing.assert_close(loss, naive_loss(images, texts, scale, groups))


def test_loss_with_wrong_captions_equals_a_naive_transcription():
    torch.manual_seed(0)
    images, texts, wrong = unit(6, 5), unit(6, 5), unit(3, 6, 5)
    wrong[0, 2] = wrong[1, 2] = wrong[2, 2] = wrong[1, 4] = 0  # a row without any, and one with two of three
    scale = torch.tensor(30.0, dtype=torch.float64)
    for groups in (torch.arange(6), torch.tensor([0, 1, 1, 2, 1, 3])):
        loss, accuracy = losses.contrastive(images, texts, groups, wrong, scale=scale)
        torch.testing.assert_close(loss, naive_loss(images, texts, scale, groups, wrong))
        without, same = losses.contrastive(images, texts, groups, scale=scale)
        assert loss > without and accuracy == same
    without, _ = losses.contrastive(images, texts, torch.arange(6), scale=scale)
    for none in (torch.zeros(3, 6, 5), torch.zeros(0, 6, 5)):
        loss, _ = losses.contrastive(images, texts, torch.arange(6), none.double(), scale=scale)
        torch.testing.assert_close(loss, without)


def test_accuracy_is_the_share_of_texts_that_find_their_picture():
    images, texts = torch.eye(4)[[0, 1, 2, 3]], torch.eye(4)[[0, 2, 2, 3]]  # text 1 is nearest to picture 2
    _, accuracy = losses.contrastive(images, texts, torch.arange(4), scale=torch.tensor(5.0))
    assert accuracy == 0.75


def test_a_wrong_caption_pushes_its_own_picture_alone():
    torch.manual_seed(0)
    images, texts = (unit(3, 4, dtype=torch.float32).requires_grad_() for _ in range(2))
    wrong = unit(1, 3, 4, dtype=torch.float32)
    wrong[0, 1] = 0
    wrong.requires_grad_()
    scale = torch.tensor(2.0)
    found = [losses.contrastive(images, texts, torch.arange(3), more, scale=scale)[0] for more in (wrong, None)]
    difference = torch.autograd.grad(found[0] - found[1], [images, wrong])
    assert [bool(row.abs().max() > 1e-6) for row in difference[0]] == [True, False, True]
    assert all(gradient.isfinite().all() for gradient in difference)


def test_equal_captions_do_not_push_each_other_away():
    images = unit(2, 4, dtype=torch.float32).requires_grad_()
    texts = unit(1, 4, dtype=torch.float32).expand(2, 4)
    loss, _ = losses.contrastive(images, texts, torch.tensor([7, 7]), scale=torch.tensor(10.0))
    loss.backward()
    assert loss.item() == 0
    assert images.grad.abs().max() == 0


@pytest.fixture(scope="module")
def task(small, squares) -> Contrastive:
    """A task with fresh weights and two wrong captions beside each, not trained."""
    torch.manual_seed(1)
    return Contrastive(replace(small, exchanged=2), squares.captions).eval()


def test_the_term_is_the_loss_of_the_batch_s_pictures_and_captions(small, squares, draw):
    """From the captions' text and the pictures alone, through the encoder that the task gives away."""
    captions = [["nothing to exchange"] * len(own) if row % 5 == 0 else own for row, own in enumerate(squares.captions)]
    torch.manual_seed(1)
    task, flat = Contrastive(replace(small, exchanged=2), captions).eval(), [line for own in captions for line in own]
    task.clip.logit_scale.data.fill_(math.log(3))  # so that no pair is negligible
    batch = draw(task).batch(3)
    drawn = task.prepare(batch, ("model",))
    terms = task.loss("model", batch, drawn)
    encoder, scale, expected = task.encoder(), task.clip.logit_scale.exp().detach(), 0.0
    images = F.normalize(encoder.encode_images(batch.images), dim=-1)
    for rows, tokens, changed in zip(batch.captions, drawn.tokens, drawn.changed, strict=True):
        lines = [flat[row] for row in rows]
        assert len(set(lines)) < len(lines)  # some are equal, and no rivals
        assert changed.any() and not changed.all()  # and some could not be made wrong
        texts = F.normalize(encoder.encode(lines).sentence, dim=-1)
        embedded = [F.normalize(task.clip.encode_text(row), dim=-1) for row in tokens[1:]]
        wrong = [more * there[:, None] for more, there in zip(embedded, changed, strict=True)]
        expected += naive_loss(images, texts, scale, lines, wrong) / 2
    torch.testing.assert_close(terms["contrastive"], expected, rtol=1e-4, atol=1e-5)
    assert terms["temperature"] == pytest.approx(1 / scale.item())


def test_only_the_contrastive_term_is_minimised(task, draw):
    batch = draw(task).batch(0)
    terms = task.loss("model", batch, task.prepare(batch, ("model",)))
    assert list(terms) == ["contrastive", "accuracy", "temperature"]
    assert [term.requires_grad for term in terms.values()] == [True, False, False]


def test_word_loss_equals_a_naive_transcription():
    torch.manual_seed(0)
    logits, used = torch.randn(3, 5, dtype=torch.float64), torch.tensor([[1.0, 0, 0, 1, 0]] * 3, dtype=torch.float64)
    total = 0.0
    for row, wanted in zip(logits.tolist(), used.tolist(), strict=True):
        for value, there in zip(row, wanted, strict=True):
            probability = 1 / (1 + math.exp(-value))
            total -= math.log(probability if there else 1 - probability)
    assert losses.words(logits, used).item() == pytest.approx(total / 3)


def test_a_picture_is_asked_for_the_words_of_its_captions_and_a_caption_for_its_own(squares, small):
    task = Contrastive(replace(small, words_first=1), squares.captions)
    size, vocabulary = len(task.tokenizer), task.tokenizer.vocabulary
    assert task.used.dtype == torch.bool and task.used.shape == (len(squares), size)
    for own, row in zip(squares.captions, task.used, strict=True):
        assert {vocabulary[index - 4] for index in row.nonzero()[:, 0].tolist()} == {w for c in own for w in c.split()}
        alone = task.words_used(task.tokenizer(own))
        assert [{vocabulary[i - 4] for i in said.nonzero()[:, 0].tolist()} for said in alone] == [
            set(caption.split()) for caption in own
        ]


def test_with_parts_a_picture_is_asked_what_is_red():
    """The words of both birds are the same; what they are said of is not, in whichever order it is said."""
    captions = [["a red bird with black wings", "its wings are black"], ["a black bird with red wings", "a small bird"]]
    images = np.zeros((2, 8, 8, 3), np.uint8)
    birds = CaptionedImages(images, captions, np.zeros(2, np.int64), np.full(2, "train"), ["bird"])
    config = ClipConfig.tiny(image_size=8, words_first=1, parts=True, batch_size=2)
    task = Contrastive(config, birds.captions)
    size = len(task.tokenizer)
    plain, bound = task.used[:, :size], task.used[:, size:]
    shared = [task.tokenizer.ids[word] for word in ("red", "black", "wings", "bird")]
    assert plain[:, shared].all()
    assert bound.shape[1] == 5  # red and black of bird and wings, small of bird
    assert bound.sum(1).tolist() == [2, 3] and not (bound[0] & bound[1]).any()
    assert task.model["words"].out_features == task.used.shape[1]
    assert Contrastive(replace(config, parts=False), birds.captions).used.shape[1] == size


def test_the_word_loss_asks_both_towers_and_leaves_no_weight_behind(small, squares, draw, tmp_path):
    torch.manual_seed(1)
    task = Contrastive(replace(small, word_loss=0.5), squares.captions).eval()
    batch = draw(task).batch(3)
    drawn = task.prepare(batch, ("model",))
    terms = task.loss("model", batch, drawn)
    assert list(terms) == ["contrastive", "accuracy", "temperature", "words"]
    images = F.normalize(task.encoder().encode_images(batch.images), dim=-1)
    texts = [F.normalize(task.clip.encode_text(tokens[0]), dim=-1) for tokens in drawn.tokens]
    asked = [task.model["words"](14 * side) for side in (images, *texts)]
    told = [task.used[batch.indices], *(task.words_used(tokens[0]) for tokens in drawn.tokens)]
    found = [losses.words(*pair) for pair in zip(asked, (table.float() for table in told), strict=True)]
    torch.testing.assert_close(terms["words"], 0.5 * (found[0] + (found[1] + found[2]) / 2) / 2, rtol=1e-4, atol=1e-4)
    terms["words"].backward()
    trained = {name.split(".")[0] for name, weight in task.clip.named_parameters() if weight.grad is not None}
    assert {"visual", "transformer", "token_embedding"} <= trained and task.clip.visual.conv1.weight.grad.any()
    assert task.model["words"].weight.grad.any()
    task.save(tmp_path)
    plain = Contrastive(small, squares.captions)
    assert set(load_encoder(str(tmp_path)).model.state_dict()) == set(plain.clip.state_dict())
    assert "words" not in plain.model and not hasattr(plain, "used")


@pytest.mark.parametrize("beside", [0.0, 0.25])
def test_first_steps_are_of_the_word_loss_alone_without_wrong_captions(beside, small, squares, draw, monkeypatch):
    task = Contrastive(replace(small, words_first=4, word_loss=beside, exchanged=1), squares.captions)
    read = []
    monkeypatch.setattr(
        module, "encode_texts", lambda clip, tokens: read.append(len(tokens)) or clip.encode_text(tokens)
    )
    source, after = draw(task), {"contrastive", "accuracy", "temperature"} | ({"words"} if beside else set())
    for step, terms in ((3, {"words"}), (4, after)):
        batch = replace(source.batch(3), step=step)
        torch.manual_seed(0)
        found = task.loss("model", batch, task.prepare(batch, ("model",)))
        assert set(found) == terms
        task.zero_grad(set_to_none=True)
        sum(found.values()).backward()
        assert task.clip.visual.conv1.weight.grad.any() and task.clip.token_embedding.weight.grad.any()
        assert (task.clip.logit_scale.grad is None) is (step == 3)
        if step == 3:
            alone = found["words"]
        elif beside:
            torch.testing.assert_close(found["words"], beside * alone, rtol=1e-4, atol=1e-4)
    assert read == [2 * 32, 2 * 2 * 32]


def test_a_run_must_have_steps_left_for_the_contrast(squares):
    for steps, fits in ((5, True), (4, False)):
        recipe = Recipe("clip", model={"words_first": 4}, training=TrainingSettings(steps))
        if fits:
            check(recipe)
        else:
            with pytest.raises(InputError, match="words_first = 4: of 4 steps none is left for the contrast"):
                check(recipe)
    options = {"model.words_first": 9, "training.steps": 9}
    system = Recipe("gancls", encoders={"text": EncoderSettings("contrastive", options)})
    with pytest.raises(InputError, match="words_first = 9"):
        check(system)


def test_words_of_a_new_caption_are_found_and_new_pairs_are_left_out(squares):
    captions = [["a red bird with black wings"], ["a blue bird with white wings"]]
    task = Contrastive(ClipConfig.tiny(words_first=1, parts=True), captions)
    size = len(task.tokenizer)
    for caption, words, pairs in (("a white bird with black wings", 6, 1), ("a red bird", 3, 1), ("zebra", 0, 0)):
        used = task.words_used(task.tokenizer([caption]))
        assert used.shape == (1, size + 4)
        assert used[:, :size].sum() == words and used[:, size:].sum() == pairs


def test_what_a_caption_is_asked_for_can_be_read():
    captions = [["a red bird with black wings"], ["a blue bird with white wings"]]
    task = Contrastive(ClipConfig.tiny(words_first=1, parts=True), captions)
    asked = task.asked_of("a red bird with white wings")
    assert sorted(asked[:6]) == ["a", "bird", "red", "white", "wings", "with"]
    assert sorted(asked[6:]) == ["red of bird", "white of wing"]
    assert "black of bird" not in task.asked_of("a black bird")  # a pair that no caption of the training has
    words_alone = Contrastive(ClipConfig.tiny(words_first=1), captions)
    assert sorted(words_alone.asked_of("red wings of a zebra")) == ["a", "red", "wings"]


def test_captions_that_cannot_be_made_wrong_leave_every_gradient_finite(small, squares):
    """An exchanged caption that is none gets a logit of minus infinity, which nothing may multiply."""
    images, texts = (F.normalize(torch.randn(4, 8), dim=-1).requires_grad_() for _ in range(2))
    wrong = F.normalize(torch.randn(2, 4, 8), dim=-1) * torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None]
    scale = torch.tensor(14.0, requires_grad=True)
    loss, _ = losses.contrastive(images, texts, torch.arange(4), wrong, scale=scale)
    for gradient in torch.autograd.grad(loss, (images, texts, scale)):
        assert gradient.isfinite().all() and gradient.any()


def test_text_without_padding_is_the_same_text(small, squares):
    torch.manual_seed(3)
    clip = Contrastive(replace(small, text_layers=2), squares.captions).clip
    rows = [["<start>"], ["a", "b"], ["a", "b", "c", "d", "e", "f", "g"], ["c"], ["b", "c", "d"]]
    tokenizer = WordTokenizer(list("abcdefg"), small.context_length)
    tokens = tokenizer([" ".join(row) for row in rows])
    assert len(set((tokens == 0).sum(1).tolist())) > 3
    torch.testing.assert_close(encode_texts(clip, tokens), clip.encode_text(tokens))
    torch.testing.assert_close(encode_texts(clip, tokens, parts=9), clip.encode_text(tokens))
    whole, parts = (
        torch.autograd.grad(f(tokens).square().sum(), clip.token_embedding.weight)[0]
        for f in (clip.encode_text, lambda tokens: encode_texts(clip, tokens))
    )
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


def test_a_transformer_may_see_through_convolutions(small, squares, learn, tmp_path):
    """Three halvings are patches of 8; the stem is trained, saved and opened, and a transformer follows."""
    config = replace(small, stem=(8, 12, 16), patch_size=8)
    task, records = learn(config, 2)
    assert all(np.isfinite(record["model/contrastive"]) for record in records)
    task.save(tmp_path)
    encoder = load_encoder(str(tmp_path))
    stem = encoder.model.visual.conv1
    assert [layer.out_channels for layer in stem if hasattr(layer, "out_channels")] == [8, 12, 16, 32]
    assert stem(torch.zeros(2, 3, 32, 32)).shape == (2, 32, 4, 4)
    assert len(encoder.model.visual.transformer.resblocks) == small.image_layers
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    frozen = task.encoder()
    torch.testing.assert_close(encoder.encode_images(pictures), frozen.encode_images(pictures), rtol=0.02, atol=0.02)


def test_every_weight_is_trained_and_no_table_is_stored(task, draw):
    batch = draw(task).batch(0)
    sum(task.loss("model", batch, task.prepare(batch, ("model",))).values()).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in task.clip.parameters())
    task.zero_grad(set_to_none=True)
    assert all(name.startswith("model.") for name in task.state_dict())


def test_examples_hold_captions_wrong_in_one_word(task, squares, draw):
    batch = draw(task).batch(1)
    drawn = task.prepare(batch, ("model",))
    tokens, wrong = drawn.tokens[:, 0], drawn.tokens[:, 1:]
    captions, exchanged, count, length = wrong.shape
    assert (captions, exchanged, count) == (2, 2, 32) and tokens.shape == (2, 32, length)
    flat = [caption for own in squares.captions for caption in own]
    for rows, own in zip(batch.captions, tokens, strict=True):
        assert torch.equal(own, task.tokenizer([flat[row] for row in rows]))
    different = (wrong != tokens[:, None]).sum(-1)
    assert torch.equal(different > 0, drawn.changed)
    assert set(different.unique().tolist()) <= {0, 1, 2} and drawn.changed.all()  # every caption names a colour
    assert not torch.equal(wrong[:, 0], wrong[:, 1])  # each time another
    repeated = []
    for seed in (5, 5, 6):  # the loop seeds every step
        torch.manual_seed(seed)
        repeated.append(task.prepare(batch, ("model",)).tokens)
    assert torch.equal(repeated[0], repeated[1]) and not torch.equal(repeated[0], repeated[2])


@pytest.mark.parametrize("captions", [1, 2])
def test_as_many_captions_of_each_picture_are_drawn_as_configured(captions, small, squares, draw):
    task = Contrastive(replace(small, captions=captions), squares.captions)
    assert task.needs == Needs(captions=captions)
    batch = draw(task).batch(0)
    assert task.prepare(batch, ("model",)).tokens.shape == (captions, 1, 32, small.context_length)


def test_temperature_stays_above_a_hundredth(small, squares):
    task = Contrastive(small, squares.captions)
    for given, kept in ((10.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        task.clip.logit_scale.data.fill_(given)
        task.after_update("model")
        assert task.clip.logit_scale.item() == pytest.approx(kept)


def test_rate_rises_then_falls_to_zero(small, squares):
    task = Contrastive(replace(small, warmup=4), squares.captions)
    rates = [task.rate("model", step, 20) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5) and 0 < rates[19] < 0.01
    assert [task.rate("model", step, 4) for step in range(2)] == [0.5, 1.0]  # at most half of all steps


def test_decay_spares_gains_biases_and_the_temperature(small, squares):
    task = Contrastive(small, squares.captions)
    (optimizer,) = task.optimizers().values()
    decay = {weight: group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert {name: decay[weight] > 0 for name, weight in task.clip.named_parameters()} == {
        name: weight.ndim >= 2 for name, weight in task.clip.named_parameters()
    }
    assert {group["lr"] for group in optimizer.param_groups} == {small.lr}


def test_training_lowers_the_loss_and_finds_pictures(trained, squares: CaptionedImages):
    folder, records = trained
    assert [record["step"] for record in records] == list(range(1, 61))
    assert {"model/contrastive", "model/accuracy", "model/temperature"} <= set(records[0])
    assert records[-1]["model/contrastive"] < 0.6 * records[0]["model/contrastive"]
    rates = retrieval(load_encoder(str(folder)), squares, count=16)
    assert rates["full"] > 0.6  # chance is 1/16


def test_same_seed_same_weights(small: ClipConfig, learn, tmp_path):
    names = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(names, (0, 0, 1), strict=True):
        task, records = learn(small, 3, seed=seed)
        list(records)
        task.save(folder)
    weights = [(folder / "model.safetensors").read_bytes() for folder in names]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("first", [0, 3])
def test_a_run_goes_on_where_it_was_stopped(first, small: ClipConfig, learn, tmp_path):
    """Four steps at a stretch, or two and two: the same bits, exchanged words, steps of words alone and all."""
    states = {}
    for name, parts in {"whole": [4], "halves": [2, 2]}.items():
        run = Run.create(tmp_path / name, Recipe("clip", training=TrainingSettings(4)))
        for count in parts:  # each in a task of its own, as in a process of its own
            task, records = learn(replace(small, exchanged=1, words_first=first), 4, run=run, checkpoint_every=2)
            assert len(list(islice(records, count))) == count
        task.save(run.folder)
        states[name] = run.restore()[0]
        assert [record["step"] for record in run.records()] == [1, 2, 3, 4]
    assert states["whole"].keys() == states["halves"].keys()
    assert all(torch.equal(tensor, states["halves"][key]) for key, tensor in states["whole"].items())
    found = [load_encoder(str(tmp_path / name)).fingerprint for name in states]  # a run folder is an encoder's, too
    assert found[0] == found[1]


def test_a_set_smaller_than_a_batch_is_refused(squares: CaptionedImages):
    with pytest.raises(InputError, match="8 pictures: fewer than a batch of 32; lower batch_size"):
        Contrastive.build({"batch_size": 32}, {}, squares.subset(range(8)))
    assert Contrastive.build({"batch_size": 8}, {}, squares.subset(range(8))).config == ClipConfig(batch_size=8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"captions": 3}, "captions = 3"),
        ({"exchanged": -1}, "exchanged = -1"),
        ({"words_first": -1}, "words_first = -1"),
        ({"parts": True}, "parts = True: nothing asks for words; set words_first"),
        ({"stem": [16] * 100_000}, "100,000 halvings of the picture; 12 at most"),
        ({"stem": [16] * 3, "image_size": 60}, "60 pixels is no number of patches of 8"),
        ({"patch_size": 128}, "patch_size = 128: larger than the picture, of 64 pixels"),
        ({"stem": [16, 16], "patch_size": 8}, "stem = .16, 16.: it belongs to a transformer with patch_size 4"),
        ({"stem": [16, 16, 16], "image_layers": [1, 1, 1, 1]}, "stem = .16, 16, 16.: it belongs to a transformer"),
        ({"captions_per_picture": 1}, "unknown key captions_per_picture"),
        ({"embed_dim": "many"}, "embed_dim: 'many'"),
    ],
)
def test_impossible_settings_are_named(values, message, squares: CaptionedImages):
    with pytest.raises(InputError, match=message):
        Contrastive.build(values, {}, squares)


def test_candidates_are_distinct(squares: CaptionedImages):
    chosen = distinct_pictures(squares, 16, seed=1)
    assert len({captions[0] for captions in chosen.captions}) == 16
    with pytest.raises(InputError, match="only 16"):
        distinct_pictures(squares, 17, seed=1)


def test_missing_toy_clip_says_how_to_train_it(monkeypatch, tmp_path):
    monkeypatch.setattr(encoders, "WEIGHTS", tmp_path)
    for name, recipe in (("toy-clip", "clip_toy"), ("toy-clip-resnet", "clip_toy_resnet")):
        command = rf"t2i train clip --recipe {recipe}, then t2i export runs/{recipe} --to .*{name.replace('-', '_')}"
        with pytest.raises(InputError, match=rf"weights are missing; train it: {command}$"):
            load_encoder(name)


@pytest.fixture(scope="module")
def held_out() -> CaptionedImages:
    """Birds of species that no training picture shows."""
    return toy_birds(train=1, validation=1, test=300, size=64, seed=77).split("test")


@pytest.mark.parametrize("name", ["toy-clip", "toy-clip-resnet"])
def test_shipped_toy_clips_read_everything(name, held_out):
    """Weights: data/weights. Each of eleven attributes, against the same sentence with that value exchanged."""
    encoder = load_encoder(name)
    read = exchanged_values(encoder, held_out, count=300, seed=3)
    assert len(read) == 11 and min(read.values()) >= 0.95, read
    assert retrieval(encoder, held_out, count=100)["full"] >= 0.95


def test_shipped_toy_clips_are_small_and_of_different_build():
    towers = {name: load_encoder(name).model.visual for name in ("toy-clip", "toy-clip-resnet")}
    assert [type(tower).__name__ for tower in towers.values()] == ["VisionTransformer", "ModifiedResNet"]
    assert len(towers["toy-clip"].transformer.resblocks) == 4
    for name in towers:
        folder = encoders.WEIGHTS / name.replace("-", "_")
        assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6


def test_a_task_measures_itself_on_few_pictures(squares: CaptionedImages, trained, small):
    """Of 32 pictures 16 are distinct, fewer than the usual 100; the measure is that of the encoder it saves."""
    task = Contrastive(small, squares.captions, load_encoder(str(trained[0])))
    held_out = squares.subset(range(32))
    found = task.measure(held_out)
    encoder = load_encoder(str(trained[0]))
    read = {f"exchanged/{name}": share for name, share in exchanged_words(encoder, held_out).items()}
    asked = {f"asked/{name}": len(won) for name, won in word_wins(encoder, held_out).items()}
    assert found == retrieval(encoder, held_out, count=16) | read | asked and asked["asked/colour"] == 32
    assert set(found) == {"full", "random", "average", "exchanged/colour", "asked/colour"} and found["full"] > 0.6


RESNET = {"image_width": 8, "image_layers": (1, 1, 1, 1)}


@pytest.mark.parametrize("tower", ["transformer", "ResNet"])
@pytest.mark.parametrize("exchanged", [0, 1, 2])
def test_training_with_exchanged_words_and_either_tower_is_saved_and_opened(
    tower: str, exchanged: int, small: ClipConfig, learn, tmp_path
):
    config = replace(small, name="other", exchanged=exchanged, **(RESNET if tower == "ResNet" else {}))
    task, records = learn(config, 3)
    records = list(records)
    assert [record["step"] for record in records] == [1, 2, 3]
    assert all(np.isfinite(record["model/contrastive"]) for record in records)
    task.save(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert encoder.name == "other"
    assert type(encoder.model.visual).__name__ == ("ModifiedResNet" if tower == "ResNet" else "VisionTransformer")
    assert encoder.config["training"]["exchanged"] == exchanged
    pictures = torch.rand(2, 3, 32, 32, requires_grad=True)
    embedded = encoder.encode_images(pictures)
    assert embedded.shape == encoder.encode(["a red square", "something"]).sentence.shape == (2, config.embed_dim)
    (gradient,) = torch.autograd.grad(embedded.square().sum(), pictures)
    assert gradient.any()


def test_exchanged_words_make_the_task_harder(small: ClipConfig, learn):
    """At the first step, with the same weights and pictures, every further rival adds to the loss."""
    first = [next(learn(replace(small, exchanged=exchanged), 60)[1])["model/contrastive"] for exchanged in (0, 1, 4)]
    assert first[0] < first[1] < first[2]


def test_training_goes_on_from_given_weights(small: ClipConfig, squares, learn, trained, tmp_path):
    before, further = load_encoder(str(trained[0])), replace(small, lr=1e-4, embed_dim=64)
    kept = before.fingerprint
    fresh = next(learn(further, 2, seed=3)[1])
    task, records = learn(further, 2, seed=3, start=before)
    records = list(records)
    assert records[0]["model/contrastive"] < fresh["model/contrastive"]
    task.save(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert encoder.config["training"]["lr"] == 1e-4
    assert encoder.config["started_from"] == before.config["training"]
    assert encoder.config["vocabulary"] == before.config["vocabulary"]
    assert encoder.sentence_dim == before.sentence_dim  # networks are those of the start
    assert encoder.fingerprint != before.fingerprint == kept  # which itself stays as it was
    built = Contrastive.build({"batch_size": 32, "lr": 1e-4}, {"start": before}, squares)
    for name, weight in built.clip.state_dict().items():
        assert torch.equal(weight, before.model.state_dict()[name])
    with pytest.raises(InputError, match="no such encoder"):
        load_encoder(str(tmp_path / "absent"))


def test_the_encoder_of_a_task_is_a_frozen_copy(small: ClipConfig, squares):
    task = Contrastive(small, squares.captions).train()
    encoder = task.encoder()
    before = encoder.encode(["a red square on blue"]).sentence
    assert not any(weight.requires_grad for weight in encoder.parameters()) and not encoder.training
    assert all(weight.requires_grad for weight in task.clip.parameters()) and task.clip.training
    with torch.no_grad():
        for weight in task.clip.parameters():
            weight.add_(1.0)
    assert torch.equal(encoder.encode(["a red square on blue"]).sentence, before)


def test_the_encoder_lies_where_the_task_does(small: ClipConfig, squares):
    """A task on an accelerator measures and saves itself there; "meta" is a device that all machines have."""
    encoder = Contrastive(small, squares.captions).to("meta").encoder()
    assert {tensor.device.type for tensor in (*encoder.parameters(), *encoder.buffers())} == {"meta"}
    assert encoder.device.type == "meta"

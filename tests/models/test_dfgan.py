"""DF-GAN: sizes, blocks, the effect of each loss term. That it equals the released code: tests/official."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from t2ilib import models
from t2ilib.errors import InputError
from t2ilib.features import Batch, Text
from t2ilib.models.dfgan import DFGAN, DFGANConfig
from t2ilib.models.layers import (
    ConditionalAffine,
    DeepFusion,
    DownBlock,
    EnlargingConvolution,
    FusionUpBlock,
    MatchingHead,
)
from t2ilib.training import Run, TrainingSettings, train
from t2ilib.training.recipe import Recipe


def make(awake: bool = True, **changes) -> DFGAN:
    """Return a tiny system; `awake` moves all weights off their start, where gates are shut and text has no effect."""
    torch.manual_seed(0)
    system = DFGAN(DFGANConfig.tiny(**changes))
    if awake:
        with torch.no_grad():
            for parameter in system.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return system


def some_noise(system: DFGAN, count: int = 3) -> torch.Tensor:
    return system.noise(count, torch.Generator().manual_seed(2))


@pytest.fixture
def system() -> DFGAN:
    return make()


@pytest.fixture
def batch(system, make_batch) -> Batch:
    return make_batch(system, 3)


def test_parameter_counts_of_the_paper_size():
    with torch.device("meta"):
        system = models.build("dfgan")
    counts = [sum(p.numel() for p in network.parameters()) for network in (system.generator, system.discriminator)]
    assert counts == [9_744_131, 6_915_142]
    assert sum(p.numel() for p in system.head.parameters()) == 6_915_142 - 6_619_206


@pytest.mark.parametrize(
    ("size", "channels"),
    [
        (32, [2, 4, 8, 16]),
        (64, [2, 4, 8, 16, 16]),
        (128, [2, 4, 8, 16, 16, 16]),
        (256, [2, 4, 8, 16, 16, 16, 16]),
    ],
)
def test_shapes(size, channels, make_batch):
    system = make(image_size=size, nf=2)
    assert system.config.channels == channels
    sentence = make_batch(system, 2).text.sentence
    with torch.no_grad():
        pictures = system.generator(some_noise(system, 2), sentence)
        features = system.discriminator(pictures)
        logits = system.head(features, sentence)
    assert pictures.shape == (2, 3, size, size) and pictures.abs().max() <= 1
    assert features.shape == (2, 16, 4, 4)
    assert logits.shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 16}, "image_size = 16"),
        ({"image_size": 512}, "image_size = 512"),
        ({"image_size": 96}, "image_size = 96"),
        ({"noise_dim": 0}, "noise_dim = 0"),
        ({"embedding_dim": -1}, "embedding_dim = -1"),
        ({"nf": 0}, "nf = 0"),
        ({"penalty_every": 0}, "penalty_every = 0"),
        ({"ngf": 8}, "ngf"),
        ({"two_way": 1}, "two_way"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_impossible_sizes_are_named(change, message):
    with pytest.raises(InputError, match=message):
        models.build("dfgan", **change)


def test_affine_equals_naive_and_starts_as_the_identity():
    torch.manual_seed(0)
    affine, x, condition = ConditionalAffine(5, 3), torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    assert torch.equal(affine(x, condition), x)
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.normal_()
    expected = torch.empty_like(x)
    for b in range(2):
        gamma, beta = (
            net[2].weight @ (net[0].weight @ condition[b] + net[0].bias).clamp(min=0) + net[2].bias
            for net in (affine.scale, affine.shift)
        )
        for c in range(3):
            expected[b, c] = gamma[c] * x[b, c] + beta[c]
    torch.testing.assert_close(affine(x, condition), expected)


def test_deep_fusion_bends_after_each_affine():
    torch.manual_seed(0)
    fusion, x, condition = DeepFusion(5, 3), torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    expected = torch.where(x > 0, x, 0.04 * x)  # the affines are the identity yet: LeakyReLU(0.2) twice
    torch.testing.assert_close(fusion(x, condition), expected)


@pytest.mark.parametrize("channels_out", [3, 6])
def test_up_block_adds_a_residual_to_its_shortcut(channels_out):
    torch.manual_seed(0)
    block, x, condition = FusionUpBlock(6, channels_out, 5), torch.randn(2, 6, 4, 4), torch.randn(2, 5)
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    shortcut = doubled
    if channels_out != 6:
        kernel = block.shortcut.weight[:, :, 0, 0]
        shortcut = torch.einsum("oc,bchw->bohw", kernel, doubled) + block.shortcut.bias[:, None, None]
    first = block.convolutions[0]
    inner = F.conv2d(block.fusions[0](doubled, condition), first.weight, first.bias, padding=1)
    expected = shortcut + block.convolutions[1](block.fusions[1](inner, condition))
    torch.testing.assert_close(block(x, condition), expected)
    assert block(x, condition, size=7).shape == (2, channels_out, 7, 7)


@pytest.mark.parametrize(("side", "size"), [(4, None), (4, 8), (4, 7), (5, 10), (3, 9), (1, None)])
def test_enlarging_convolution_equals_its_two_steps_and_their_gradients(side, size):
    torch.manual_seed(0)
    layer, x = EnlargingConvolution(3, 5), torch.randn(2, 3, side, side, requires_grad=True)
    expected = F.conv2d(F.interpolate(x, size or 2 * side, mode="nearest"), layer.weight, layer.bias, padding=1)
    found = layer(x, size)
    torch.testing.assert_close(found, expected)
    towards, inputs = torch.randn_like(expected), (x, layer.weight, layer.bias)
    wanted, gradients = (torch.autograd.grad((y * towards).sum(), inputs) for y in (expected, found))
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels_out", [3, 6])
def test_down_block_starts_without_its_residual_branch(channels_out):
    torch.manual_seed(0)
    block, x = DownBlock(3, channels_out), torch.randn(2, 3, 8, 8)
    shortcut = F.avg_pool2d(x if channels_out == 3 else F.conv2d(x, block.skip.weight, block.skip.bias), 2)
    torch.testing.assert_close(block(x), shortcut)
    with torch.no_grad():
        block.gain.fill_(-2)
    torch.testing.assert_close(block(x), shortcut - 2 * block.residual(x))
    assert block.residual(x).min() < 0 < block.residual(x).max()


@pytest.mark.parametrize("embedding_dim", [5, 0])
def test_head_sees_features_and_sentence_of_its_own_row(embedding_dim):
    torch.manual_seed(0)
    head, features, sentence = MatchingHead(6, embedding_dim, 4), torch.randn(3, 6, 4, 4), torch.randn(3, embedding_dim)
    logits = head(features, sentence)
    assert logits.shape == (3,)
    for row in range(3):
        stacked = torch.cat([features[row], sentence[row, :, None, None].repeat(1, 4, 4)])
        torch.testing.assert_close(logits[row], head.joint(stacked[None])[0, 0, 0, 0])
    changed = head(features, sentence.roll(1, 0))
    assert torch.equal(changed, logits) is (embedding_dim == 0)


def test_text_acts_on_the_picture_once_the_affines_have_learnt(make_batch):
    for awake in (False, True):
        system = make(awake)
        text, noise = make_batch(system, 3).text, some_noise(system)
        one, other = (system.generator(noise, sentence) for sentence in (text.sentence, text.sentence.flip(0)))
        assert torch.equal(one, other) is not awake
        assert not torch.equal(one[0], one[1])


ONE_WAY = ["real", "fake", "mismatched", "penalty"]


@pytest.mark.parametrize(
    ("changes", "discriminator", "generator"),
    [
        ({}, ONE_WAY, ["adversarial"]),
        ({"penalty": 0.0}, ONE_WAY[:3], ["adversarial"]),
        (
            {"two_way": True},
            [*ONE_WAY[:3], "unconditional_real", "unconditional_fake", "penalty"],
            ["adversarial", "unconditional_adversarial"],
        ),
    ],
    ids=["paper", "no penalty", "two-way"],
)
def test_terms_follow_the_options(changes, discriminator, generator, make_batch):
    system = make(**changes)
    batch = make_batch(system, 3)
    fakes = system.prepare(batch, system.trained)
    assert list(system.loss("discriminator", batch, fakes)) == discriminator
    assert list(system.loss("generator", batch, fakes)) == generator
    system.guidance = lambda fakes, batch: fakes.mean()
    assert list(system.loss("generator", batch, fakes)) == [*generator, "clip"]
    assert list(system.loss("discriminator", batch, fakes)) == discriminator


@pytest.mark.parametrize("two_way", [False, True])
def test_terms_by_hand(two_way, make_batch):
    """Equation 1, row by row; the mismatched sentence is a neighbour's."""
    system = make(two_way=two_way)
    batch = make_batch(system, 3)
    fakes = system.fakes(batch.text, some_noise(system))

    def score(picture, sentence):
        return system.head(system.discriminator(picture[None]), sentence[None]).item()

    rows = list(zip(batch.images, fakes.last, batch.text.sentence, strict=True))
    real, fake = [score(x, e) for x, _, e in rows], [score(x, e) for _, x, e in rows]
    mismatched = [score(batch.images[(i + 1) % 3], batch.text.sentence[i]) for i in range(3)]
    expected = {
        "real": sum(max(0, 1 - logit) for logit in real) / 3,
        "fake": sum(max(0, 1 + logit) for logit in fake) / 6,
        "mismatched": sum(max(0, 1 + logit) for logit in mismatched) / 6,
    }
    if two_way:
        alone = [system.unconditional(system.discriminator(x)).tolist() for x in (batch.images, fakes.last)]
        expected["unconditional_real"] = sum(max(0, 1 - logit) for logit in alone[0]) / 3
        expected["unconditional_fake"] = sum(max(0, 1 + logit) for logit in alone[1]) / 3
    terms = {name: term.item() for name, term in system.loss("discriminator", batch, fakes).items()}
    assert {name: terms[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert min(expected.values()) > 0 and len(set(expected.values())) == len(expected)
    generator = {name: term.item() for name, term in system.loss("generator", batch, fakes).items()}
    assert generator["adversarial"] == pytest.approx(-sum(fake) / 3, rel=1e-5)
    if two_way:
        assert generator["unconditional_adversarial"] == pytest.approx(-sum(alone[1]) / 3, rel=1e-5)


def naive_penalty(system: DFGAN, batch: Batch) -> torch.Tensor:
    """2 |gradient|^6, one sample after the other, by the other kind of automatic differentiation."""
    total = 0.0
    for image, sentence in zip(batch.images, batch.text.sentence, strict=True):
        inputs = [image[None].requires_grad_(), sentence[None].requires_grad_()]
        logit = system.head(system.discriminator(inputs[0]), inputs[1])
        gradients = torch.autograd.grad(logit.sum(), inputs, create_graph=True)
        total += torch.cat([gradient.flatten() for gradient in gradients]).norm() ** 6
    return 2 * total / len(batch.images)


def test_penalty_and_its_second_order_gradient_equal_naive(system, batch):
    parameters = list(system.discriminator.parameters())
    penalty, logits, features = system.penalised(batch)
    expected = naive_penalty(system, batch)
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=0)
    assert penalty > 1e-6
    torch.testing.assert_close(features, system.discriminator(batch.images))
    torch.testing.assert_close(logits, system.head(features, batch.text.sentence))
    ours, theirs = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (penalty, expected))
    assert [gradient is None for gradient in ours] == [gradient is None for gradient in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one is not None and other.any():  # a bias that is only added has no say in the gradient
            assert (one - other).norm() < 1e-3 * other.norm()


def test_penalty_takes_its_weight_and_power_from_the_config(system, batch):
    penalties = {}
    for weight, power, summed in ((2.0, 6.0, False), (4.0, 6.0, False), (2.0, 2.0, False), (2.0, 6.0, True)):
        system.config = replace(system.config, penalty=weight, penalty_power=power, summed_norms=summed)
        penalties[weight, power, summed] = system.penalised(batch)[0].item()
    released = penalties[2.0, 6.0, False]
    assert penalties[4.0, 6.0, False] == pytest.approx(2 * released)
    assert penalties[2.0, 2.0, False] != pytest.approx(released)
    assert released < penalties[2.0, 6.0, True] < 8 * released
    system.config = replace(system.config, penalty=0.0)
    penalty, logits, features = system.penalised(batch)
    assert penalty is None
    assert torch.equal(features, system.discriminator(batch.images))
    assert torch.equal(logits, system.head(features, batch.text.sentence))


def test_a_penalty_in_every_fourth_step_is_four_times_as_heavy(system, batch):
    """Lazy regularisation: fewer penalties, and for fixed weights the same on average."""
    fakes = system.prepare(batch, system.trained)
    every = system.loss("discriminator", batch, fakes)
    system.config, found = replace(system.config, penalty_every=4), {}
    for step in range(12):
        terms = system.loss("discriminator", replace(batch, step=step), fakes)
        if "penalty" in terms:
            found[step] = terms.pop("penalty")
        assert list(terms) == ONE_WAY[:3]
        for name, term in terms.items():
            torch.testing.assert_close(term, every[name])
    assert list(found) == [0, 4, 8]
    for penalty in found.values():
        torch.testing.assert_close(penalty, 4 * every["penalty"])
    torch.testing.assert_close(sum(found.values()) / 12, every["penalty"])
    assert every["penalty"] > 1e-6


def test_discriminator_learns_four_times_as_fast():
    optimizers = make().optimizers()
    assert {name: optimizer.defaults["lr"] for name, optimizer in optimizers.items()} == {
        "generator": 1e-4,
        "discriminator": 4e-4,
    }
    assert all(optimizer.defaults["betas"] == (0.0, 0.9) for optimizer in optimizers.values())
    sizes = {
        name: sum(p.numel() for group in o.param_groups for p in group["params"]) for name, o in optimizers.items()
    }
    assert sizes["discriminator"] == sum(p.numel() for p in make().discriminator.parameters())  # head and all


def test_an_unused_shortcut_gets_no_gradient(make_batch):
    """Where a discriminator block keeps its channels, the released code builds a 1x1 shortcut and does not use it."""
    system = make(image_size=64, nf=2)
    batch = make_batch(system, 3)
    sum(system.loss("discriminator", batch, system.prepare(batch, ("discriminator",))).values()).backward()
    dead = [name for name, parameter in system.discriminator.named_parameters() if parameter.grad is None]
    assert dead == ["blocks.3.skip.weight", "blocks.3.skip.bias"]


class Poisoned:
    """Batches of which number `poison` holds not-a-number."""

    batch_size = 3

    def __init__(self, batch: Batch, poison: int | None = None):
        self.made, self.poison = batch, poison

    def batch(self, number: int) -> Batch:
        bad = torch.nan if number == self.poison else 1.0
        return replace(self.made, images=self.made.images * bad, text=Text(self.made.text.sentence * bad))


@pytest.mark.parametrize("poison", [None, 1])
def test_skipping_what_is_not_finite_copes_with_weights_without_gradient(poison, tmp_path, make_batch):
    settings = TrainingSettings(
        steps=2, precision="fp32", non_finite="skip", log_every=1, sample_every=1, checkpoint_every=1
    )
    system = make(image_size=64, nf=2)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    run = Run.create(tmp_path, Recipe("dfgan", training=settings))
    records = train(system, Poisoned(make_batch(system, 3), poison), settings, run)
    next(records)
    first = {name: value.clone() for name, value in system.state_dict().items()}
    told = list(records)[-1]
    last = system.state_dict()
    assert told.get("skipped") == (2 if poison == 1 else None)
    unchanged = [name for name in before if torch.equal(before[name], first[name])]
    assert unchanged == ["discriminator.blocks.3.skip.weight", "discriminator.blocks.3.skip.bias"]
    assert all(torch.equal(first[name], last[name]) for name in first) is (poison == 1)
    assert run.restore()[1]["skipped"] == (2 if poison == 1 else 0)


@pytest.fixture
def one_block(monkeypatch) -> DFGAN:
    """One block in each network, 8 px: a compiler looks at every block, and takes its time."""
    monkeypatch.setattr(DFGANConfig, "channels", [2, 4])
    return make(nf=2)


def test_compiled_discriminator_loss_equals_eager(one_block, make_batch):
    """The penalty's gradient of a gradient stays inside one graph: `fullgraph` refuses anything else."""
    batch = make_batch(one_block, 3)
    batch.images = batch.images[..., :8, :8]
    fakes = one_block.fakes(batch.text, some_noise(one_block))
    compiled = torch.compile(one_block.loss, backend="aot_eager", fullgraph=True)
    results = []
    for loss in (one_block.loss, compiled):
        one_block.zero_grad()
        terms = loss("discriminator", batch, fakes)
        sum(terms.values()).backward()
        gradients = {n: p.grad.clone() for n, p in one_block.named_parameters() if p.grad is not None}
        results.append((terms, gradients))
    torch._dynamo.reset()
    assert list(results[0][0]) == ONE_WAY and results[0][0]["penalty"] > 1e-6
    assert results[0][1]["discriminator.start.weight"].any()
    for eager, compiled_result in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled_result, rtol=1e-5, atol=1e-7)


def test_huge_and_flat_discriminators_keep_the_penalty_finite(system, batch):
    """Without sentence and picture in the logit the gradient is zero, and so is the penalty's own: no root, no NaN."""
    for scale in (0.0, 1e3):
        with torch.no_grad():
            system.head.joint[2].weight.fill_(scale)
        system.zero_grad()
        penalty, _, _ = system.penalised(batch)
        penalty.backward()
        assert penalty.isfinite() and (penalty == 0) == (scale == 0)
        assert all(p.grad.isfinite().all() for p in system.discriminator.parameters() if p.grad is not None)


@pytest.mark.parametrize("wrong", [{"penalty": -1.0}, {"penalty_power": 1.0}, {"image_size": 48}, {"nf": 0}])
def test_impossible_numbers_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        DFGANConfig(**wrong)

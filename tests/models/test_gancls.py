"""GAN-CLS: shapes, options and the effect of each loss term. That it equals the released code: tests/official."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from t2ilib import models
from t2ilib.features import Batch, Needs
from t2ilib.models.gancls import GANCLS, GANCLSConfig
from t2ilib.models.layers import MinibatchSimilarity, TextProjection


def make(**changes) -> GANCLS:
    torch.manual_seed(0)
    return GANCLS(GANCLSConfig.tiny(**changes))


def terms(system: GANCLS, role: str, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the terms of a role's loss for fakes of always the same noise."""
    torch.manual_seed(2)
    return system.loss(role, batch, system.prepare(batch, system.trained))


def test_parameter_counts_of_the_paper_size():
    def counts(**config):
        system = models.build("gancls", **config)
        return [sum(p.numel() for p in net.parameters()) for net in (system.generator, system.discriminator)]

    assert counts(joint=False) == [4_756_736, 2_899_072]  # the released networks
    assert counts() == [4_756_736, 2_899_072 + 640 * 512 + 2 * 512 - 128 * 16]


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("text", [True, False])
def test_shapes(size, text, make_batch):
    system = make(image_size=size, text=text)
    batch = make_batch(system, 2)
    pictures = system.generator(system.noise(2), batch.text.sentence)
    assert pictures.shape == (2, 3, size, size)
    logits, features = system.discriminator(pictures, batch.text.sentence)
    assert logits.shape == (2,)
    assert features.shape == (2, size, 4, 4)  # ndf = 8, doubled until 4x4


def test_initial_weights_are_dcgans():
    system = models.build("gancls")
    kernel = system.generator.stages[0].weight
    assert kernel.std().item() == pytest.approx(0.02, rel=0.02)
    scales = torch.cat([m.weight for m in system.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)
    assert all(not m.bias.any() for m in system.modules() if isinstance(m, nn.Linear | nn.BatchNorm2d))


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_text_matters_only_with_text(network, make_batch):
    for text in (True, False):
        system = make(text=text).eval()
        batch = make_batch(system)
        inputs = system.noise(4) if network == "generator" else batch.images
        sentence = batch.text.sentence
        outputs = [getattr(system, network)(inputs, given) for given in (sentence, sentence.flip(0))]
        first, second = [out if network == "generator" else out[0] for out in outputs]
        assert torch.equal(first, second) is not text


@pytest.mark.parametrize(
    ("changes", "discriminator", "generator"),
    [
        ({}, ["real", "fake", "mismatched"], ["adversarial", "feature_matching", "l1"]),
        ({"mismatched": False}, ["real", "fake"], ["adversarial", "feature_matching", "l1"]),
        ({"text": False}, ["real", "fake"], ["adversarial", "feature_matching", "l1"]),
        ({"feature_matching": 0.0, "l1": 0.0}, ["real", "fake", "mismatched"], ["adversarial"]),
        (
            {"interpolation": True},
            ["real", "fake", "mismatched"],
            ["adversarial", "feature_matching", "l1", "interpolated"],
        ),
        ({"interpolation": True, "text": False}, ["real", "fake"], ["adversarial", "feature_matching", "l1"]),
    ],
    ids=lambda value: "-".join(value) or "default" if isinstance(value, dict) else None,
)
def test_terms_and_needs_follow_the_options(changes, discriminator, generator, make_batch):
    system = make(**changes)
    assert system.needs == Needs(mismatched="mismatched" in discriminator)
    batch = make_batch(system)
    assert (batch.mismatched is not None) is system.needs.mismatched
    assert list(terms(system, "discriminator", batch)) == discriminator
    assert list(terms(system, "generator", batch)) == generator


def test_discriminator_terms_by_hand(make_batch):
    """Real pictures, fakes and pictures of another class stand beside the same sentences."""
    system = make(smoothing=0.8)
    batch = make_batch(system)
    fakes = system.prepare(batch, system.trained)
    found = system.loss("discriminator", batch, fakes)
    kinds = {"real": (batch.images, 0.8), "fake": (fakes.last, 0.0), "mismatched": (batch.mismatched, 0.0)}
    for name, (images, label) in kinds.items():
        probability = system.discriminator(images, batch.text.sentence)[0].sigmoid()
        torch.testing.assert_close(found[name], F.binary_cross_entropy(probability, torch.full((4,), label)))


def test_the_paper_halves_the_negative_terms(make_batch):
    released, paper = make(), make(halve_negatives=True)
    batch = make_batch(released)
    found = [terms(system, "discriminator", batch) for system in (released, paper)]
    for name, share in (("real", 1.0), ("fake", 0.5), ("mismatched", 0.5)):
        torch.testing.assert_close(found[1][name], share * found[0][name])


def test_generator_terms_are_weighted(make_batch):
    light, heavy = make(feature_matching=1.0, l1=1.0), make(feature_matching=7.0, l1=3.0)
    batch = make_batch(light)
    found = [terms(system, "generator", batch) for system in (light, heavy)]
    for name, factor in (("adversarial", 1.0), ("feature_matching", 7.0), ("l1", 3.0)):
        torch.testing.assert_close(found[1][name], factor * found[0][name])


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_interpolation_lies_between_a_sentence_and_its_neighbour(beta, monkeypatch, make_batch):
    system = make(interpolation=True, beta=beta)
    text = make_batch(system).text
    seen = []
    forward = system.generator.forward
    monkeypatch.setattr(system.generator, "forward", lambda noise, text: seen.append(text) or forward(noise, text))
    loss = system.interpolated_loss(text)
    sentence = text.sentence
    expected = torch.stack([beta * sentence[i] + (1 - beta) * sentence[i - 1] for i in range(4)])
    torch.testing.assert_close(seen[0], expected)
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in system.generator.parameters())


def naive_similarity(features: torch.Tensor, tensor: torch.Tensor, kernels: int, self_term: bool) -> torch.Tensor:
    rows = (features.flatten(1) @ tensor).reshape(len(features), kernels, -1)
    similarity = torch.zeros(len(features), kernels)
    for i in range(len(features)):
        for j in range(len(features)):
            for kernel in range(kernels):
                if self_term or i != j:
                    similarity[i, kernel] += torch.exp(-(rows[i, kernel] - rows[j, kernel]).abs().sum())
    return similarity


@pytest.mark.parametrize("self_term", [False, True])
def test_minibatch_similarity_equals_naive(self_term):
    torch.manual_seed(0)
    layer, features = MinibatchSimilarity(32, 5, 3, self_term), torch.randn(4, 2, 4, 4)
    torch.testing.assert_close(layer(features), naive_similarity(features, layer.tensor, 5, self_term))


def test_minibatch_similarity_is_alive_at_the_start_and_sees_collapse():
    torch.manual_seed(0)
    layer, features = MinibatchSimilarity(8192), torch.randn(8, 8192, requires_grad=True)
    diverse = layer(features)
    assert 0.1 < diverse.mean() / 7 < 0.9  # seven others, each about exp(-1) away
    diverse.sum().backward()
    assert features.grad.abs().sum() > 0
    torch.testing.assert_close(layer(features[:1].expand(8, -1)), torch.full((8, 128), 7.0))
    assert not layer(features[:1]).any()  # alone in its batch


def test_minibatch_discrimination_makes_logits_depend_on_the_batch(make_batch):
    for option in (False, True):
        system = make(minibatch_discrimination=option).eval()
        batch = make_batch(system)
        together = system.score(batch.images, batch.text)[:2]
        apart = system.score(batch.images[:2], batch.text[:2])
        assert torch.allclose(together, apart, rtol=0, atol=1e-6) is not option


def test_minibatch_discrimination_trains(make_batch):
    system = make(minibatch_discrimination=True)
    sum(terms(system, "discriminator", make_batch(system)).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in system.discriminator.parameters())


def test_text_projection_is_linear_norm_leaky():
    torch.manual_seed(0)
    layer, sentence = TextProjection(6, 3), torch.randn(50, 6)
    linear = sentence @ layer[0].weight.T + layer[0].bias
    normal = (linear - linear.mean(0)) / (linear.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(layer(sentence), torch.where(normal > 0, normal, 0.2 * normal))


@pytest.mark.parametrize("joint", [True, False])
def test_only_the_joint_layer_lets_the_logit_see_whether_picture_and_text_fit(joint):
    """Erratum: the released logit is a(picture) + b(text), so what it likes about a picture ignores the text."""
    torch.manual_seed(0)
    discriminator = GANCLS(GANCLSConfig.tiny(joint=joint)).discriminator.eval()
    picture = torch.randn(2, 3, 32, 32, requires_grad=True)

    def slope(text):
        return torch.autograd.grad(discriminator(picture, text)[0].sum(), picture)[0]

    one, other = slope(torch.randn(2, 16)), slope(torch.randn(2, 16))
    assert one.abs().max() > 0
    assert torch.allclose(one, other, rtol=1e-5, atol=1e-9) is not joint

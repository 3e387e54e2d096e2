"""Losses: equal to naive transcriptions far outside the comfortable range, with gradients where they belong."""

import math

import pytest
import torch

from t2ilib import losses

LOGITS = [-100.0, -30.0, -1.5, 0.0, 0.3, 20.0, 100.0]


def naive(logits: torch.Tensor, target: float) -> float:
    """-[y log s(l) + (1 - y) log(1 - s(l))], where log s(l) = -log(1 + exp(-l)), in Python's double precision."""
    values = logits.double().tolist()
    rows = [target * math.log1p(math.exp(-l)) + (1 - target) * math.log1p(math.exp(l)) for l in values]  # noqa: E741
    return sum(rows) / len(rows)


@pytest.mark.parametrize("target", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("logit", LOGITS)
def test_binary_cross_entropy_equals_naive(logit, target):
    logits = torch.tensor([logit])
    assert losses.binary_cross_entropy(logits, target).item() == pytest.approx(naive(logits, target), rel=1e-6)


def test_discriminator_terms_equal_naive():
    real, fake, mismatched = torch.tensor(LOGITS), torch.tensor(LOGITS).flip(0) + 1, torch.tensor(LOGITS) * 0.5
    terms = losses.gan_discriminator(real, fake, mismatched, smoothing=0.9, negative=0.5)
    expected = {"real": naive(real, 0.9), "fake": 0.5 * naive(fake, 0), "mismatched": 0.5 * naive(mismatched, 0)}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)
    assert list(losses.gan_discriminator(real, fake)) == ["real", "fake"]


def test_smoothing_is_one_sided():
    """With a label of 0.9 a real logit is best at log 9, while fakes are always better lower."""
    real = torch.tensor([math.log(9)], requires_grad=True)
    fake = torch.tensor([-5.0], requires_grad=True)
    sum(losses.gan_discriminator(real, fake, smoothing=0.9).values()).backward()
    assert real.grad.item() == pytest.approx(0, abs=1e-6)
    assert fake.grad.item() > 0


def test_generator_loss_values_and_gradient_at_a_sure_discriminator():
    fake = torch.tensor([-100.0, 0.0], requires_grad=True)
    loss = losses.gan_generator(fake)
    assert loss.item() == pytest.approx((100 + math.log(2)) / 2)
    loss.backward()
    assert fake.grad.tolist() == pytest.approx([-0.5, -0.25])  # does not vanish where the fake is found out


def test_feature_matching_equals_naive_and_leaves_the_real_alone():
    torch.manual_seed(0)
    fake = (100 * torch.randn(3, 2, 4, 4)).requires_grad_()
    real = torch.randn(3, 2, 4, 4, requires_grad=True)
    means = [[sum(sample.flatten().tolist()[f] for sample in batch) / 3 for f in range(32)] for batch in (fake, real)]
    expected = sum((a - b) ** 2 for a, b in zip(*means, strict=True)) / 32
    loss = losses.feature_matching(fake, real)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert fake.grad.abs().min() > 0
    assert real.grad is None


def test_l1_of_black_and_white_is_two():
    white = torch.ones(2, 3, 4, 4, requires_grad=True)
    loss = losses.l1(white, -torch.ones(2, 3, 4, 4))
    assert loss.item() == 2
    loss.backward()
    torch.testing.assert_close(white.grad, torch.full_like(white, 1 / 96))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32(dtype):
    values = torch.full((4096, 1), 1.0 + 2**-7).to(dtype)  # sums of 4096 such numbers overflow bfloat16's 8 bits
    assert losses.gan_generator(values[:, 0]).dtype == torch.float32
    assert losses.feature_matching(values, torch.zeros_like(values)).item() == pytest.approx((1 + 2**-7) ** 2)
    assert losses.l1(values, torch.zeros_like(values)).item() == pytest.approx(1 + 2**-7)

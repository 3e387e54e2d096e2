"""Losses: equal to naive transcriptions far outside the comfortable range, with gradients where they belong."""

import math

import pytest
import torch
import torch.nn.functional as F

from t2ilib import losses
from t2ilib.errors import InputError

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


HUGE = [-1e6, -100.0, -1.0, -0.999, 0.0, 0.3, 1.0, 1.001, 1e6]


def hinge(logits: list[float], sign: int) -> float:
    """mean max(0, 1 + sign * l) in Python's double precision."""
    return sum(max(0.0, 1.0 + sign * logit) for logit in logits) / len(logits)


def test_hinge_discriminator_equals_naive():
    real, fake, mismatched = HUGE, [logit + 0.5 for logit in HUGE], [0.1 * logit for logit in HUGE]
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (real, fake, mismatched)]
    terms = {name: term.item() for name, term in losses.hinge_discriminator(*tensors).items()}
    expected = {"real": hinge(real, -1), "fake": hinge(fake, 1) / 2, "mismatched": hinge(mismatched, 1) / 2}
    assert terms == pytest.approx(expected, rel=1e-6)
    alone = {name: term.item() for name, term in losses.hinge_discriminator(*tensors[:2]).items()}
    assert alone == pytest.approx({"real": hinge(real, -1), "fake": hinge(fake, 1)}, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "inside", "beyond", "slope"),
    [("real", 0.9, 1.1, -1), ("fake", -0.9, -1.1, 0.5), ("mismatched", 50.0, -50.0, 0.5)],
)
def test_hinge_discriminator_pulls_only_within_its_margin(name, inside, beyond, slope):
    """A logit that is right by more than 1 counts no more; one that is wrong pulls as hard, however wrong it is."""
    logits = {name: torch.zeros(2) for name in ("real", "fake", "mismatched")}
    logits[name] = torch.tensor([inside, beyond], requires_grad=True)
    sum(losses.hinge_discriminator(**logits).values()).backward()
    assert logits[name].grad.tolist() == [slope / 2, 0]


def test_hinge_generator_equals_naive_and_never_lets_go():
    fake = torch.tensor(HUGE, requires_grad=True)
    loss = losses.hinge_generator(fake)
    assert loss.item() == pytest.approx(-sum(HUGE) / len(HUGE), rel=1e-6)
    loss.backward()
    torch.testing.assert_close(fake.grad, torch.full_like(fake, -1 / len(HUGE)))


def test_hinge_generator_reaches_a_generator():
    generator = torch.nn.Linear(3, 4)
    fakes = generator(torch.ones(2, 3))
    losses.hinge_generator((fakes * torch.arange(1.0, 5)).sum(1) - 1e6).backward()  # surely fake
    assert all(parameter.grad.abs().min() > 0 for parameter in generator.parameters())


SCORES = [-1e6, -100.0, -1.0, 0.0, 0.3, 20.0, 3e6]  # a critic's have no bounds


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(("halve", "share"), [(True, 0.5), (False, 1.0)])
def test_wasserstein_critic_equals_naive(halve, share):
    real, fake, mismatched = SCORES, [2 * score + 0.5 for score in SCORES], [0.1 * score for score in SCORES]
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (real, fake, mismatched)]
    terms = {name: term.item() for name, term in losses.wasserstein_critic(*tensors, halve=halve).items()}
    expected = {"real": -mean(real), "fake": share * mean(fake), "mismatched": share * mean(mismatched)}
    assert terms == pytest.approx(expected, rel=1e-6)
    alone = {name: term.item() for name, term in losses.wasserstein_critic(*tensors[:2], halve=halve).items()}
    assert alone == pytest.approx({"real": -mean(real), "fake": mean(fake)}, rel=1e-6)


@pytest.mark.parametrize("halve", [True, False])
def test_wasserstein_critic_pulls_all_scores_alike(halve):
    """No score is ever right enough: the slope is the same far out."""
    scores = {name: torch.tensor([-1e6, 0.0, 1e6, 3.0]).requires_grad_() for name in ("real", "fake", "mismatched")}
    sum(losses.wasserstein_critic(**scores, halve=halve).values()).backward()
    share = 0.5 if halve else 1.0
    for name, slope in {"real": -1.0, "fake": share, "mismatched": share}.items():
        torch.testing.assert_close(scores[name].grad, torch.full((4,), slope / 4))


@pytest.mark.parametrize("constant", [-1e3, 7.0, 1e3])
def test_the_zero_of_the_scores_matters_only_to_the_released_loss(constant):
    """Erratum: with both negatives in full, lowering all scores lowers the loss for ever, whatever they tell apart."""
    torch.manual_seed(0)
    scores = torch.randn(3, 8)

    def loss(scores, halve):
        return sum(losses.wasserstein_critic(*scores, halve=halve).values()).item()

    assert loss(scores + constant, True) == pytest.approx(loss(scores, True), abs=1e-3)
    assert loss(scores + constant, False) == pytest.approx(loss(scores, False) + constant, rel=1e-4)
    without = [sum(losses.wasserstein_critic(*(scores[:2] + c)).values()).item() for c in (0, constant)]
    assert without[1] == pytest.approx(without[0], abs=1e-3)


def test_wasserstein_generator_equals_naive_and_never_lets_go():
    fake = torch.tensor(SCORES, requires_grad=True)
    loss = losses.wasserstein_generator(fake)
    assert loss.item() == pytest.approx(-mean(SCORES), rel=1e-6)
    loss.backward()
    torch.testing.assert_close(fake.grad, torch.full_like(fake, -1 / len(SCORES)))


def test_wasserstein_generator_reaches_a_generator():
    generator = torch.nn.Linear(3, 4)
    fakes = generator(torch.ones(2, 3))
    losses.wasserstein_generator((fakes * torch.arange(1.0, 5)).sum(1) - 1e6).backward()  # surely fake
    assert all(parameter.grad.abs().min() > 0 for parameter in generator.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_wasserstein_losses_are_computed_in_float32(dtype):
    """1 - 2^-7 and its mean are exact in float32; a sum of 4096 such numbers is not in 16 bits."""
    values = torch.full((4096,), 1 - 2**-7).to(dtype)
    one = values[0].item()
    real, fake, mismatched = losses.wasserstein_critic(values, values, values).values()
    assert [term.dtype for term in (real, fake, mismatched)] == [torch.float32] * 3
    assert real.item() == pytest.approx(-one, rel=1e-6)
    assert fake.item() == mismatched.item() == pytest.approx(one / 2, rel=1e-6)
    assert losses.wasserstein_generator(values).item() == pytest.approx(-one, rel=1e-6)


class LinearCritic:
    """D(x, e) = c_b (<a, x_b> + <v, e_b>): the gradient of sample b has the norm c_b sqrt(|a|^2 + |v|^2)."""

    def __init__(self, picture_norm: float, sentence_norm: float, factors: list[float]):
        torch.manual_seed(0)
        self.picture = F.normalize(torch.randn(3 * 4 * 4), dim=0) * picture_norm
        self.sentence = F.normalize(torch.randn(5), dim=0) * sentence_norm
        self.factors = torch.tensor(factors)

    def __call__(self, images, sentence):
        logits = self.factors * (images.flatten(1) @ self.picture + sentence @ self.sentence)
        return logits, {"features": images.mean((2, 3))}

    def inputs(self):
        return torch.randn(len(self.factors), 3, 4, 4), torch.randn(len(self.factors), 5)


@pytest.mark.parametrize(("picture", "sentence"), [(1.0, 0.0), (0.0, 1.0), (3.0, 4.0), (30.0, 40.0), (3e-4, 4e-4)])
def test_penalty_of_a_linear_critic_is_known(picture, sentence):
    """The norm runs over picture and sentence together: 3 and 4 make 5, so the penalty is 2 * 5^6."""
    critic = LinearCritic(picture, sentence, [1.0, 1.0])
    penalty, _, _ = losses.matching_aware_penalty(critic, *critic.inputs())
    assert penalty.item() == pytest.approx(2 * math.hypot(picture, sentence) ** 6, rel=1e-5)


@pytest.mark.parametrize(("picture", "sentence"), [(1.0, 0.0), (3.0, 4.0), (30.0, 40.0), (3e-4, 4e-4)])
def test_summed_penalty_adds_the_norms_as_the_paper_does(picture, sentence):
    """3 and 4 make 7 here; where the two are equal it is 2^3 = 8 times the joint one."""
    critic = LinearCritic(picture, sentence, [1.0, -1.0])
    penalty, _, _ = losses.matching_aware_penalty(critic, *critic.inputs(), summed=True)
    assert penalty.item() == pytest.approx(2 * (picture + sentence) ** 6, rel=1e-5)


@pytest.mark.parametrize(("weight", "power"), [(2.0, 6.0), (10.0, 2.0), (0.5, 4.0)])
def test_penalty_is_taken_per_sample(weight, power):
    """The mean of the norms' powers; the norm of the whole batch's gradient would be another number."""
    critic = LinearCritic(0.6, 0.8, [0.5, 1.0, -2.0])
    penalty, _, _ = losses.matching_aware_penalty(critic, *critic.inputs(), weight, power)
    expected = weight * (0.5**power + 1 + 2**power) / 3
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    assert abs(weight * (0.5**2 + 1 + 2**2) ** (power / 2) - expected) > 0.1


def test_penalty_returns_what_the_critic_said_with_its_gradient():
    critic = LinearCritic(0.6, 0.8, [0.5, 2.0])
    critic.picture.requires_grad_()
    images, sentence = critic.inputs()
    _, logits, more = losses.matching_aware_penalty(critic, images, sentence)
    torch.testing.assert_close(logits, critic(images, sentence)[0])
    torch.testing.assert_close(more["features"], images.mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.sum(), critic.picture)
    torch.testing.assert_close(gradient, critic.factors @ images.flatten(1))


def bent_critic(dtype: torch.dtype):
    """Return a smooth, curved critic with its weights, and three pictures and sentences."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weights = [draw(6, 3 * 2 * 2 + 5), draw(6)]
    images, sentence = draw(3, 3, 2, 2), draw(3, 5)

    def score(images, sentence):
        hidden = torch.tanh(torch.cat([images.flatten(1), sentence], 1) @ weights[0].T / 4)
        return hidden.square() @ weights[1], hidden

    return score, weights, images, sentence


def naive_penalty(score, images, sentence, summed: bool) -> torch.Tensor:
    """2 mean |gradient|^6 by torch.autograd.grad, sample by sample, in the inputs' precision."""
    total = 0
    for image, row in zip(images, sentence, strict=True):
        inputs = [image[None].requires_grad_(), row[None].requires_grad_()]
        gradients = torch.autograd.grad(score(*inputs)[0].sum(), inputs, create_graph=True)
        squares = [gradient.square().sum() for gradient in gradients]
        total = total + (sum(square.sqrt() for square in squares) ** 6 if summed else sum(squares) ** 3)
    return 2 * total / len(images)


@pytest.mark.parametrize("summed", [False, True], ids=["joint", "summed"])
def test_second_order_gradient_equals_autograd_grad_and_finite_differences(summed):
    score, weights, images, sentence = bent_critic(torch.float64)
    for weight in weights:
        weight.requires_grad_()
    penalty, _, _ = losses.matching_aware_penalty(score, images, sentence, summed=summed)
    expected = naive_penalty(score, images, sentence, summed)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(loss, weights) for loss in (penalty, expected))
    for weight, one, other in zip(weights, ours, theirs, strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        direction = torch.randn_like(weight)
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight.add_(step * direction)
            values.append(naive_penalty(score, images, sentence, summed).item())
            with torch.no_grad():
                weight.sub_(step * direction)
        difference = (values[0] - values[1]) / 2e-5
        assert (one * direction).sum().item() == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize("summed", [False, True], ids=["joint", "summed"])
@pytest.mark.parametrize("power", [2.0, 4.0, 6.0])
def test_penalty_of_a_flat_critic_has_a_gradient_of_zero(power, summed):
    """A root written out would give NaN here: the derivative of sqrt(s) is infinite at s = 0."""
    score, weights, images, sentence = bent_critic(torch.float32)
    with torch.no_grad():
        weights[1].zero_()
    for weight in weights:
        weight.requires_grad_()
    penalty, logits, _ = losses.matching_aware_penalty(score, images, sentence, power=power, summed=summed)
    assert penalty.item() == 0 and not logits.any()
    for gradient in torch.autograd.grad(penalty, weights):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_huge_gradients_do_not_overflow_in_half_precision():
    """A norm of 100 to the sixth is 10^12, which float16 cannot hold."""
    critic = LinearCritic(100.0, 0.0, [1.0])
    images, sentence = critic.inputs()
    critic.picture, critic.sentence, critic.factors = (
        t.half() for t in (critic.picture, critic.sentence, critic.factors)
    )
    penalty, _, _ = losses.matching_aware_penalty(critic, images.half(), sentence.half())
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(2e12, rel=0.01)


def score_pictures(critic: LinearCritic, sentence: torch.Tensor):
    """Return C(x) for these sentences: all that a penalty on the picture alone may see."""
    return lambda images: critic(images, sentence)[0]


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0, 300.0])
def test_gradient_penalty_of_a_linear_critic_is_known(norm, count):
    """A critic of slope n costs weight (n - 1)^2, whatever the batch; its slope in the sentence does not count."""
    critic = LinearCritic(norm, 4.0, [1.0] * count)
    (real, sentence), (fake, _) = critic.inputs(), critic.inputs()
    penalty = losses.gradient_penalty(score_pictures(critic, sentence), real, fake, weight=10.0)
    assert penalty.item() == pytest.approx(10 * (norm - 1) ** 2, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("weight", [10.0, 0.5])
def test_gradient_penalty_is_taken_per_sample(weight):
    """The mean of squares, one norm each; the norm of the whole batch's gradient would be another number."""
    critic = LinearCritic(0.8, 0.0, [0.5, 1.0, -2.0])
    (real, sentence), (fake, _) = critic.inputs(), critic.inputs()
    penalty = losses.gradient_penalty(score_pictures(critic, sentence), real, fake, weight)
    expected = weight * ((0.4 - 1) ** 2 + (0.8 - 1) ** 2 + (1.6 - 1) ** 2) / 3
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    assert abs(weight * (0.8 * (0.5**2 + 1 + 2**2) ** 0.5 - 1) ** 2 - expected) > 0.1


def test_released_gradient_penalty_takes_a_norm_per_pixel():
    """Erratum: C(x) = c_b <a, x_b> has a slope of |c_b| |a_(., h, w)| at each pixel; each shall be 1 by itself."""
    factors = [0.5, -2.0]
    critic = LinearCritic(3.0, 4.0, factors)
    (real, sentence), (fake, _) = critic.inputs(), critic.inputs()
    slope = critic.picture.view(3, 4, 4).tolist()
    squares = [
        (abs(factor) * math.hypot(*(slope[channel][row][column] for channel in range(3))) - 1) ** 2
        for factor in factors
        for row in range(4)
        for column in range(4)
    ]
    score = score_pictures(critic, sentence)
    released = losses.gradient_penalty(score, real, fake, 10.0, per_pixel=True).item()
    assert released == pytest.approx(10 * mean(squares), rel=1e-5)
    paper = losses.gradient_penalty(score, real, fake, 10.0).item()
    assert paper == pytest.approx(10 * mean([(1.5 - 1) ** 2, (6 - 1) ** 2]), rel=1e-5)
    assert abs(released - paper) > 10


def test_every_sample_has_a_share_of_its_own():
    """C(x) = |x|^2 / 2 has the slope |x|: with real pictures of length 1 and fakes of 0 that is the share u itself.

    The mean of (u - 1)^2 over u in [0, 1] is 1/3; with one share for all it would be any number from 0 to 1.
    """
    real = F.normalize(torch.randn(4096, 12), dim=1).view(4096, 3, 2, 2)
    for seed in range(3):
        torch.manual_seed(seed)
        penalty = losses.gradient_penalty(
            lambda images: images.flatten(1).square().sum(1) / 2, real, torch.zeros_like(real), 1.0
        )
        assert penalty.item() == pytest.approx(1 / 3, rel=0.05)


def naive_gradient_penalty(score, real, fake, per_pixel: bool) -> torch.Tensor:
    """10 mean (|gradient| - 1)^2 by torch.autograd.grad, sample by sample, in the inputs' precision."""
    total = 0
    for row, share in enumerate(torch.rand(len(real)).tolist()):
        between = (share * real[row] + (1 - share) * fake[row]).requires_grad_()
        (gradient,) = torch.autograd.grad(score(between, row), between, create_graph=True)
        squares = gradient.square().sum(0) if per_pixel else gradient.square().sum()
        total = total + (squares.sqrt() - 1).square().mean()
    return 10 * total / len(real)


@pytest.mark.parametrize("per_pixel", [False, True], ids=["picture", "pixel"])
def test_gradient_penaltys_second_order_gradient_equals_autograd_grad_and_finite_differences(per_pixel):
    score, weights, real, sentence = bent_critic(torch.float32)
    exact_score, exact_weights, exact_real, exact_sentence = bent_critic(torch.float64)
    fake = exact_real.flip(0) * 1.5
    for weight in weights + exact_weights:
        weight.requires_grad_()

    def naive():
        torch.manual_seed(5)
        return naive_gradient_penalty(
            lambda image, row: exact_score(image[None], exact_sentence[row : row + 1])[0].sum(),
            exact_real,
            fake,
            per_pixel,
        )

    torch.manual_seed(5)
    penalty = losses.gradient_penalty(lambda images: score(images, sentence)[0], real, fake.float(), 10.0, per_pixel)
    assert penalty.item() == pytest.approx(naive().item(), rel=1e-5)
    ours, theirs = torch.autograd.grad(penalty, weights), torch.autograd.grad(naive(), exact_weights)
    for weight, one, other in zip(exact_weights, ours, theirs, strict=True):
        assert one.abs().max() > 1e-2
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)
        direction, values = torch.randn_like(weight), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight.add_(step * direction)
            values.append(naive().item())
            with torch.no_grad():
                weight.sub_(step * direction)
        difference = (values[0] - values[1]) / 2e-5
        assert (one * direction).sum().item() == pytest.approx(difference, rel=1e-3)


@pytest.mark.parametrize("per_pixel", [False, True], ids=["picture", "pixel"])
def test_gradient_penalty_of_a_flat_critic_has_a_finite_gradient(per_pixel):
    """The slope is exactly zero, where a root has no derivative; the penalty is its whole weight."""
    score, weights, images, sentence = bent_critic(torch.float32)
    with torch.no_grad():
        weights[1].zero_()
    for weight in weights:
        weight.requires_grad_()
    penalty = losses.gradient_penalty(
        lambda images: score(images, sentence)[0], images, images.flip(0), 10.0, per_pixel
    )
    assert penalty.item() == 10
    for gradient in torch.autograd.grad(penalty, weights):
        assert gradient.isfinite().all()


def test_gradient_penalty_is_computed_in_float32():
    """Pictures in 16 bits are interpolated in float32, and the norm of a slope of 1000 does not overflow."""
    critic = LinearCritic(1000.0, 0.0, [1.0, 1.0])
    (real, sentence), (fake, _) = critic.inputs(), critic.inputs()
    seen = []

    def score(images):
        seen.append(images.dtype)
        return critic(images, sentence)[0].half()

    penalty = losses.gradient_penalty(score, real.half(), fake.bfloat16(), 10.0)
    assert seen == [torch.float32] and penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(10 * 999**2, rel=1e-3)


def naive_clip(images, texts) -> float:
    rows = zip(images.double().tolist(), texts.double().tolist(), strict=True)
    cosines = [sum(a * b for a, b in zip(x, t, strict=True)) / (math.hypot(*x) * math.hypot(*t)) for x, t in rows]
    return sum(1 - cosine for cosine in cosines) / len(cosines)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e12])
def test_clip_loss_equals_naive_at_any_length(scale):
    torch.manual_seed(0)
    images, texts = scale * torch.randn(4, 7), torch.randn(4, 7)
    loss = losses.clip_loss(images, texts)
    assert loss.item() == pytest.approx(naive_clip(images, texts), rel=1e-5)
    assert losses.clip_loss(texts * 5, texts).item() == pytest.approx(0, abs=1e-6)
    assert losses.clip_loss(-texts, texts).item() == pytest.approx(2, rel=1e-6)


def test_clip_loss_turns_pictures_towards_their_own_texts():
    torch.manual_seed(0)
    images, texts = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7)
    losses.clip_loss(images, texts).backward()
    for image, text, gradient in zip(images.detach(), texts, images.grad, strict=True):
        unit, aim = F.normalize(image, dim=0), F.normalize(text, dim=0)
        torch.testing.assert_close(gradient, -(aim - unit * (unit @ aim)) / image.norm() / 4)
        assert gradient.norm() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_new_losses_are_computed_in_float32(dtype):
    values = torch.full((4096,), 1 - 2**-7).to(dtype)
    margin = 2**-7 if dtype == torch.float16 else 1 - values[0].item()
    real, fake, mismatched = losses.hinge_discriminator(values, values, values).values()
    assert [term.dtype for term in (real, fake, mismatched)] == [torch.float32] * 3
    assert real.item() == pytest.approx(margin, rel=1e-6)
    assert fake.item() == mismatched.item() == pytest.approx((2 - margin) / 2, rel=1e-6)
    assert losses.hinge_generator(values).item() == pytest.approx(margin - 1, rel=1e-6)
    images, texts = torch.randn(3, 512).to(dtype), torch.randn(3, 512).to(dtype)
    assert losses.clip_loss(images, texts).item() == pytest.approx(naive_clip(images, texts), rel=1e-5)


def test_compiled_penalty_equals_eager():
    score, weights, images, sentence = bent_critic(torch.float32)
    for weight in weights:
        weight.requires_grad_()

    def penalty(images, sentence):
        return losses.matching_aware_penalty(score, images, sentence)[0]

    compiled = torch.compile(penalty, backend="aot_eager", fullgraph=True)
    results = [torch.autograd.grad(loss(images, sentence), weights) for loss in (penalty, compiled)]
    torch._dynamo.reset()
    assert results[0][0].any()
    torch.testing.assert_close(*results)


def test_compiled_gradient_penalty_equals_eager():
    score, weights, images, sentence = bent_critic(torch.float32)
    for weight in weights:
        weight.requires_grad_()

    def penalty(images, sentence):
        return losses.gradient_penalty(lambda images: score(images, sentence)[0], images, images.flip(0))

    compiled, results = torch.compile(penalty, backend="aot_eager", fullgraph=True), []
    for loss in (penalty, compiled):
        torch.manual_seed(0)
        results.append(torch.autograd.grad(loss(images, sentence), weights))
    torch._dynamo.reset()
    assert results[0][0].any()
    torch.testing.assert_close(*results)


# ---- odd inputs --------------------------------------------------------------------------------------------------

B = 3


def score(images):
    return images.flatten(1).sum(1)


def both(images, sentence):
    return score(images) + sentence.sum(1), ()


def pictures(rows=B, **options):
    return torch.randn(rows, 3, 4, 4, **options)


def contrast(images, texts, **options):
    groups = torch.arange(len(images), device=images.device)
    return losses.contrastive(images, texts, groups, scale=torch.tensor(2.0, device=images.device), **options)[0]


def used(rows=B, **options):
    return torch.ones(rows, 5, **options)


PAIRS = {  # name -> (loss of two tensors, what it takes)
    "gan_discriminator": (lambda a, b: sum(losses.gan_discriminator(a, b, a).values()), torch.randn),
    "hinge_discriminator": (lambda a, b: sum(losses.hinge_discriminator(a, b, a).values()), torch.randn),
    "wasserstein_critic": (lambda a, b: sum(losses.wasserstein_critic(a, b, a).values()), torch.randn),
    "feature_matching": (losses.feature_matching, pictures),
    "l1": (losses.l1, pictures),
    "gradient_penalty": (lambda a, b: losses.gradient_penalty(lambda x: score(x).square(), a, b), pictures),
    "matching_aware_penalty": (
        lambda a, b: losses.matching_aware_penalty(lambda x, e: (both(x, e)[0].square(), ()), a, b.flatten(1))[0],
        pictures,
    ),
    "clip_loss": (losses.clip_loss, used),
    "words": (losses.words, used),
    "contrastive": (contrast, used),
}
SINGLE = {
    "binary_cross_entropy": lambda a: losses.binary_cross_entropy(a, 1.0),
    "gan_generator": losses.gan_generator,
    "hinge_generator": losses.hinge_generator,
    "wasserstein_generator": losses.wasserstein_generator,
}
ALL = {name: (lambda a, b, loss=loss: loss(a), torch.randn) for name, loss in SINGLE.items()} | PAIRS


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_read_back_from_the_device(name):
    """On `meta` nothing has a value: `.item()` and branches on numbers raise there."""
    loss, make = ALL[name]
    assert loss(make(B, device="meta"), make(B, device="meta")).is_meta


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_batch_of_one_of_any_precision_has_a_loss(name, dtype):
    loss, make = ALL[name]
    assert loss(make(1, dtype=dtype), make(1, dtype=dtype)).isfinite()


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_finite_reaches_the_loss(name):
    """There the loop sees it; an error here would ask the device in every step."""
    loss, make = ALL[name]
    first = make(B)
    first.view(-1)[0] = torch.nan
    assert not loss(first, make(B)).isfinite()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", ["whole numbers", "empty"])
def test_what_is_no_batch_of_numbers_is_named(name, bad):
    loss, make = ALL[name]
    first = make(B).mul(9).to(torch.uint8) if bad == "whole numbers" else make(0)
    with pytest.raises(InputError, match="give floating-point numbers of at least one picture") as caught:
        loss(first, make(B))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in PAIRS if PAIRS[name][1] is not torch.randn])
def test_tensors_are_never_stretched_to_each_other(name):
    loss, make = PAIRS[name]
    other = make(1) if name != "feature_matching" else make(B)[..., :1]
    with pytest.raises(InputError, match=r"\(1, |1\)"):
        loss(make(B), other)


@pytest.mark.parametrize(
    ("groups", "wrong"), [((2,), None), ((B, 1), None), ((B,), (2, B, 4)), ((B,), (2, 1, 5)), ((B,), (B, 5))]
)
def test_contrast_needs_a_group_and_wrong_texts_for_each_row(groups, wrong):
    options = {} if wrong is None else {"wrong": torch.ones(wrong)}
    with pytest.raises(InputError, match="groups and wrong"):
        losses.contrastive(used(), used(), torch.zeros(groups), scale=torch.tensor(1.0), **options)


def test_penalties_need_one_score_for_each_picture():
    with pytest.raises(InputError, match=r"score: \(\) for 3 pictures"):
        losses.gradient_penalty(lambda images: images.sum(), pictures(), pictures())
    with pytest.raises(InputError, match=r"score: \(3, 48\) for 3 pictures"):
        losses.matching_aware_penalty(lambda images, _: (images.flatten(1), ()), pictures(), used())
    with pytest.raises(InputError, match="give pictures"):
        losses.gradient_penalty(score, used(), used())
    assert losses.gradient_penalty(lambda images: score(images)[:, None], pictures(), pictures()).isfinite()


def test_checks_stay_in_a_compiled_graph():
    """They cost guards when a loss is compiled, and nothing in a step: one graph, without a break."""
    loss = torch.compile(
        lambda a, b: losses.gradient_penalty(score, a, b) + losses.l1(a, b), backend="eager", fullgraph=True
    )
    assert loss(pictures(), pictures()).isfinite()

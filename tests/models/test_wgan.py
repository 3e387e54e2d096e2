"""WGAN: its schedule, clipping and penalty, loss terms. That it equals the released code: tests/official."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from t2ilib import models
from t2ilib.data.batches import Batches
from t2ilib.data.captioned import CaptionedImages
from t2ilib.encoders import CaptionFeatures
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Needs, Text
from t2ilib.models.wgan import WGAN, WGANConfig
from t2ilib.training import TrainingSettings, train

PENALISED = {"penalty": 10.0, "batch_norm": False}
ALL_TERMS = ["real", "fake", "mismatched", "penalty"]


def make(**changes) -> WGAN:
    torch.manual_seed(0)
    return WGAN(WGANConfig.tiny(**changes))


def awake(system: WGAN) -> WGAN:
    """Make the weights larger than DCGAN's initial ones, with which the critic's slope is nearly zero."""
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return system


def terms(system: WGAN, role: str, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the terms of a role's loss for fakes of always the same noise, and always the same interpolations."""
    torch.manual_seed(2)
    return system.loss(role, batch, system.prepare(batch, system.trained))


# ---- schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "updates"),
    [
        ({}, {0: 100, 1: 100, 24: 100, 25: 5, 26: 5, 499: 5, 500: 100, 501: 5, 999: 5, 1000: 100, 1025: 5, 1500: 100}),
        ({"warm_steps": 0}, {0: 100, 1: 5, 24: 5, 500: 100, 501: 5}),  # 0 is a multiple of 500
        ({"refresh_every": 0}, {0: 100, 24: 100, 25: 5, 500: 5, 1000: 5}),
        ({"warm_steps": 0, "refresh_every": 0}, {0: 5, 1: 5, 500: 5}),
        ({"critic_steps": 1}, {24: 100, 25: 1, 500: 100}),
        ({"warm_critic_steps": 7, "warm_steps": 2, "refresh_every": 3}, {0: 7, 1: 7, 2: 5, 3: 7, 4: 5, 5: 5, 6: 7}),
    ],
    ids=lambda value: "-".join(value) or "default" if isinstance(next(iter(value), ""), str) else "",
)
def test_the_critic_is_updated_more_often_at_the_start_and_now_and_then(changes, updates):
    system = make(**changes)
    for step, count in updates.items():
        *before, last = system.rounds(step)
        assert len(before) + 1 == count, step
        assert before == [("discriminator",)] * (count - 1)
        assert last == ("discriminator", "generator")  # the generator learns from the last critic's fakes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("critic_steps", 0),
        ("warm_critic_steps", 0),
        ("warm_steps", -1),
        ("refresh_every", -1),
        ("penalty", -1.0),
        ("clip", 0.0),
        ("clip", -0.01),
        ("image_size", 256),
        ("noise_dim", 0),
    ],
)
def test_impossible_values_are_named(name, value):
    with pytest.raises(InputError, match=rf"\b{name} = {value}\b"):
        models.build("wgan", **{name: value})


def tiny_data() -> tuple[CaptionedImages, CaptionFeatures]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    ids = np.arange(9) % 3
    dataset = CaptionedImages(images, [["a bird"]] * 9, ids, np.full(9, "train"), ["red", "green", "blue"])
    return dataset, CaptionFeatures(torch.randn(9, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("warm_steps", "batches"), [(0, [3, 6, 9]), (1, [5, 8, 11])])
def test_training_counts_the_pictures_of_all_critic_updates(warm_steps, batches, monkeypatch):
    system = make(critic_steps=3, warm_critic_steps=5, warm_steps=warm_steps, refresh_every=0)
    updated, after_update = [], system.after_update
    monkeypatch.setattr(system, "after_update", lambda role: updated.append(role) or after_update(role))
    dataset, features = tiny_data()
    source = Batches(dataset, features, 4, "cpu", needs=system.needs)
    before = {name: value.clone() for name, value in system.generator.named_parameters()}
    records = list(train(system, source, TrainingSettings(steps=3, precision="fp32", log_every=1)))
    assert [record["step"] for record in records] == [1, 2, 3]
    assert [record["images"] for record in records] == [4 * count for count in batches]
    critic = {"discriminator/real", "discriminator/fake", "discriminator/mismatched"}
    for record in records:
        assert critic | {"generator/adversarial"} <= set(record)
        assert all(np.isfinite(value) for value in record.values())
    assert updated.count("discriminator") == batches[-1] and updated.count("generator") == 3
    assert updated[: batches[0] + 1] == ["discriminator"] * batches[0] + ["generator"]
    assert all(weight.abs().max() <= system.config.clip for weight in system.discriminator.parameters())
    assert all(not torch.equal(value, before[name]) for name, value in system.generator.named_parameters())
    assert max(weight.abs().max() for weight in system.generator.parameters()) > 0.5


# ---- weights and optimisers --------------------------------------------------------------------------------------


def test_the_critics_weights_are_clipped_after_its_own_updates():
    system = make(clip=0.02)
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.copy_(torch.linspace(-1, 0.5, parameter.numel()).view_as(parameter) if parameter.ndim else 1.0)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    system.after_update("generator")
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())
    system.after_update("discriminator")
    trained = {f"discriminator.{name}" for name, _ in system.discriminator.named_parameters()}
    for name, value in system.state_dict().items():
        expected = before[name].clamp(-0.02, 0.02) if name in trained else before[name]
        assert torch.equal(value, expected), name
    assert system.discriminator.head.weight.min() == -torch.tensor(0.02)
    assert system.discriminator.head.weight.max() == torch.tensor(0.02)


def test_a_penalty_takes_the_place_of_clipping():
    system = awake(make(**PENALISED))
    before = {name: value.clone() for name, value in system.state_dict().items()}
    for role in system.trained:
        system.after_update(role)
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())
    assert system.discriminator.head.weight.abs().max() > system.config.clip


def test_rmsprop_takes_the_place_of_adam():
    for rmsprop, kind in ((False, torch.optim.Adam), (True, torch.optim.RMSprop)):
        system = make(rmsprop=rmsprop, lr=5e-5)
        optimizers = system.optimizers()
        assert set(optimizers) == {"generator", "discriminator"}
        for role, optimizer in optimizers.items():
            assert type(optimizer) is kind
            assert [group["lr"] for group in optimizer.param_groups] == [5e-5]
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            assert list(map(id, held)) == list(map(id, getattr(system, role).parameters()))


# ---- terms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ALL_TERMS[:3]),
        ({"mismatched": False}, ALL_TERMS[:2]),
        ({"text": False}, ALL_TERMS[:2]),
        (PENALISED, ALL_TERMS),
        (PENALISED | {"text": False}, [*ALL_TERMS[:2], "penalty"]),
    ],
    ids=["default", "no CLS", "vanilla", "penalty", "vanilla, penalty"],
)
def test_terms_and_needs_follow_the_options(changes, expected, make_batch):
    system = make(**changes)
    assert system.needs == Needs(mismatched="mismatched" in expected)
    batch = make_batch(system)
    assert (batch.mismatched is not None) is system.needs.mismatched
    assert list(terms(system, "discriminator", batch)) == expected
    assert list(terms(system, "generator", batch)) == ["adversarial"]


@pytest.mark.parametrize("halve", [True, False])
def test_terms_by_hand(halve, make_batch):
    """Real pictures, fakes and pictures of another class stand beside the same sentences."""
    system = awake(make(halve_negatives=halve))
    batch = make_batch(system)
    fakes = system.prepare(batch, system.trained)
    kinds = {"real": batch.images, "fake": fakes.last, "mismatched": batch.mismatched}
    means = {name: sum(system.score(images, batch.text).tolist()) / 4 for name, images in kinds.items()}
    share = 0.5 if halve else 1.0
    expected = {"real": -means["real"], "fake": share * means["fake"], "mismatched": share * means["mismatched"]}
    found = {name: term.item() for name, term in system.loss("discriminator", batch, fakes).items()}
    assert found == pytest.approx(expected, rel=1e-5)
    assert min(map(abs, means.values())) > 1e-3 and len(set(means.values())) == 3
    generator = system.loss("generator", batch, fakes)
    assert {name: term.item() for name, term in generator.items()} == pytest.approx({"adversarial": -means["fake"]})


def test_vanilla_ignores_the_sentence(make_batch):
    for text in (True, False):
        system = awake(make(text=text))
        batch = make_batch(system)
        found = []
        for sentence in (batch.text.sentence, batch.text.sentence.flip(0)):
            batch.text = Text(sentence)
            found.append({**terms(system, "discriminator", batch), **terms(system, "generator", batch)})
        for name in ("fake", "adversarial"):
            assert torch.equal(found[0][name], found[1][name]) is not text
        assert all((network.projection is None) is not text for network in (system.generator, system.discriminator))


# ---- the gradient penalty ----------------------------------------------------------------------------------------


def test_only_without_batch_norm_a_score_belongs_to_one_sample(make_batch):
    for batch_norm in (True, False):
        system = awake(make(batch_norm=batch_norm))
        batch = make_batch(system)
        together = system.score(batch.images, batch.text)[:2]
        apart = system.score(batch.images[:2], batch.text[:2])
        assert torch.allclose(together, apart, rtol=1e-5) is not batch_norm
        norms = [one for one in system.discriminator.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
        assert bool(norms) is batch_norm


@pytest.mark.parametrize(
    "shared", [{"batch_norm": True}, {"batch_norm": False, "minibatch_discrimination": True}], ids=lambda d: [*d][-1]
)
def test_a_penalty_is_refused_where_samples_share_a_score(shared):
    """The gradient of the sum of all scores is each sample's own only where no sample sees another."""
    option = [*shared][-1]
    with pytest.raises(InputError, match=rf"penalty: .*batch; set {option}: false$") as caught:
        models.build("wgan", penalty=10.0, **shared)
    assert "\n" not in str(caught.value)


def naive_penalty(system: WGAN, batch: Batch, fakes: torch.Tensor) -> torch.Tensor:
    """10 (|gradient| - 1)^2, one sample after the other, by the other kind of automatic differentiation."""
    total, fakes = 0.0, fakes.clone()
    if system.config.penalise_mismatched:
        swapped = (torch.rand(len(fakes)) < 0.5).tolist()
        assert {True, False} == set(swapped)  # both kinds of line are looked at
        fakes[swapped] = batch.mismatched[swapped]
    for row, share in enumerate(torch.rand(len(fakes)).tolist()):
        between = (share * batch.images[row] + (1 - share) * fakes[row].detach())[None].requires_grad_()
        score = system.score(between, batch.text[row : row + 1]).sum()
        (gradient,) = torch.autograd.grad(score, between, create_graph=True)
        norms = gradient.square().sum(1).sqrt() if system.config.per_pixel else gradient.square().sum().sqrt()
        total += (norms - 1).square().mean()
    return 10 * total / len(fakes)


@pytest.mark.parametrize("mismatched", [False, True], ids=["fakes alone", "both negatives"])
@pytest.mark.parametrize("per_pixel", [False, True], ids=["picture", "pixel"])
def test_penalty_and_its_second_order_gradient_equal_naive(per_pixel, mismatched, make_batch):
    system = awake(make(**PENALISED, per_pixel=per_pixel, penalise_mismatched=mismatched))
    batch, parameters = make_batch(system), list(system.discriminator.parameters())
    fakes = system.prepare(batch, system.trained)
    torch.manual_seed(4)
    penalty = system.loss("discriminator", batch, fakes)["penalty"]
    torch.manual_seed(4)
    expected = naive_penalty(system, batch, fakes.last)
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=0)
    assert abs(penalty - 10) > 1e-2  # 10 is what a flat critic gives
    ours, theirs = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (penalty, expected))
    assert [gradient is None for gradient in ours] == [gradient is None for gradient in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one is not None and other.any():  # a bias that is only added has no say in the gradient
            assert (one - other).norm() < 1e-3 * other.norm()


@pytest.mark.parametrize(
    ("changes", "ends"),
    [({}, {"fake", "mismatched"}), ({"penalise_mismatched": False}, {"fake"}), ({"mismatched": False}, {"fake"})],
    ids=["default", "fakes alone", "no CLS"],
)
def test_the_penalty_looks_towards_every_kind_of_negative(changes, ends, make_batch):
    """Each line ends at the fake or at the mismatched picture of its own sample."""
    system = make(**PENALISED, **changes)
    batch = make_batch(system)
    fakes, seen = system.prepare(batch, system.trained), []
    for _ in range(8):
        for row, end in enumerate(system.negatives(batch, fakes)):
            seen.append("fake" if torch.equal(end, fakes.last[row]) else "mismatched")
            assert seen[-1] == "fake" or torch.equal(end, batch.mismatched[row])
    assert set(seen) == ends
    assert len(ends) == 1 or 0.2 < seen.count("fake") / len(seen) < 0.8


def test_only_a_line_towards_mismatched_pictures_bounds_the_slope_between_the_two():
    """A critic with one weight, the slope s between matched pictures and mismatched ones at distance 3.

    Half of the lines lead there: loss and penalty are -3 s / 2 + 5 (s - 1)^2, least at s = 1.15. With no line there
    the loss falls without end as s grows.
    """
    slopes = {}
    for mismatched in (True, False):
        system = make(**PENALISED, penalise_mismatched=mismatched)
        slope = nn.Parameter(torch.tensor(0.0))
        system.discriminator.forward = lambda x, _, slope=slope: (-slope * F.relu(x.flatten(1).norm(dim=1) - 1), None)
        count, side = 256, system.config.image_size
        one = torch.full((count, 3, side, side), (3 * side * side) ** -0.5)  # of length 1
        rows, text = torch.arange(count), Text(torch.zeros(count, system.config.embedding_dim))
        batch = Batch(one, rows[None], rows, rows, text, mismatched=4 * one)
        optimizer = torch.optim.SGD([slope], 0.05)
        torch.manual_seed(0)
        for _ in range(60):
            loss = sum(system.discriminator_loss(batch, Fakes([one / 2])).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        slopes[mismatched] = slope.item()
    assert slopes[True] == pytest.approx(1.15, abs=0.1)
    assert slopes[False] > 4


def test_penalty_keeps_to_the_weights_of_the_critic(make_batch):
    system = awake(make(**PENALISED))
    batch = make_batch(system)
    terms(system, "discriminator", batch)["penalty"].backward()
    assert all(parameter.grad is None for parameter in system.generator.parameters())
    assert system.discriminator.head.weight.grad.abs().sum() > 0


def test_penalty_takes_its_weight_from_the_config(make_batch):
    light, heavy = (awake(make(penalty=weight, batch_norm=False)) for weight in (1.0, 7.0))
    batch = make_batch(light)
    found = [terms(system, "discriminator", batch)["penalty"] for system in (light, heavy)]
    torch.testing.assert_close(found[1], 7 * found[0])


def test_a_flat_critic_gives_a_finite_gradient(make_batch):
    """A norm written as a root would give NaN here: the derivative of sqrt(s) is infinite at s = 0."""
    system = awake(make(**PENALISED))
    with torch.no_grad():
        system.discriminator.head.weight.zero_()
    found = terms(system, "discriminator", make_batch(system))
    assert found["penalty"].item() == pytest.approx(10)
    sum(found.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in system.discriminator.parameters())


def test_penalty_under_bfloat16_points_the_same_way(make_batch):
    """Networks compute in bfloat16 inside the gradient of the gradient, too; its norm and the terms are float32."""
    system = awake(make(**PENALISED))
    batch, results = make_batch(system), []
    for enabled in (False, True):
        system.zero_grad()
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            fakes = system.prepare(batch, ("discriminator",))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = system.loss("discriminator", batch, fakes)
        assert all(term.dtype == torch.float32 and term.isfinite() for term in found.values())
        found["penalty"].backward()
        kernels = [parameter.grad for parameter in system.discriminator.parameters() if parameter.ndim == 4]
        results.append((found, kernels))
    (exact, gradients), (rounded, others) = results
    assert rounded["penalty"].item() == pytest.approx(exact["penalty"].item(), rel=0.02)
    assert not torch.equal(rounded["real"], exact["real"])  # it did compute in bfloat16
    assert len(gradients) == 5
    for one, other in zip(gradients, others, strict=True):
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.98


def test_compiled_critic_loss_equals_eager(make_batch, monkeypatch):
    """The penalty's gradient of a gradient stays inside one graph: `fullgraph` refuses anything else."""
    monkeypatch.setattr(WGANConfig, "channels", lambda config, first: [first])  # one stage in each network, 8 px
    system = awake(make(**PENALISED))
    batch = make_batch(system)
    batch.images, batch.mismatched = batch.images[..., :8, :8], batch.mismatched[..., :8, :8]
    fakes = system.prepare(batch, ("discriminator",))
    compiled = torch.compile(system.loss, backend="aot_eager", fullgraph=True)
    results = []
    for loss in (system.loss, compiled):
        system.zero_grad()
        torch.manual_seed(2)
        found = loss("discriminator", batch, fakes)
        sum(found.values()).backward()
        results.append((found, {name: p.grad.clone() for name, p in system.discriminator.named_parameters()}))
    torch._dynamo.reset()
    assert list(results[0][0]) == ALL_TERMS
    for eager, compiled_result in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled_result, rtol=1e-4, atol=1e-6)

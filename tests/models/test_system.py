"""The registry, the base class, and what holds for every registered system at its tiny size."""

from types import SimpleNamespace

import pytest
import torch

from t2ilib import models
from t2ilib.errors import InputError
from t2ilib.models.system import System, adam


@pytest.fixture(params=models.SYSTEMS)
def system(request) -> System:
    torch.manual_seed(0)
    cls = models.SYSTEMS[request.param]
    system = cls(cls.Config.tiny())
    with torch.no_grad():
        for parameter in system.parameters():  # off the start, where DF-GAN's gates are shut and text has no effect
            parameter.add_(0.05 * torch.randn_like(parameter))
    return system


@pytest.fixture
def batch(system):
    config, generator = system.config, torch.Generator().manual_seed(1)
    size, count = config.image_size, config.batch_size

    def pictures():
        return torch.rand(count, 3, size, size, generator=generator) * 2 - 1

    sentence = torch.randn(count, config.embedding_dim, generator=generator)
    return SimpleNamespace(images=pictures(), mismatched=pictures(), sentence=sentence)


def test_unknown_system_is_named_with_the_known():
    with pytest.raises(InputError, match=r"gancsl.*gancls"):
        models.build("gancsl")


def test_unknown_key_is_named_with_the_known():
    with pytest.raises(InputError, match=r"learning_rate.*\blr\b"):
        models.build("gancls", learning_rate=1e-4)


def test_build_passes_hyper_parameters_and_reads_yaml():
    system = models.build("gancls", ngf=4, ndf=4, lr="2e-4", betas=[0, "0.9"], embedding_dim=8, l1=10)
    assert (system.config.lr, system.config.betas, system.config.l1) == (2e-4, (0.0, 0.9), 10.0)


@pytest.mark.parametrize(
    "config",
    [
        {"ngf": "64"},
        {"ngf": True},
        {"ngf": 6.4},
        {"text": 1},
        {"lr": "fast"},
        {"lr": None},
        {"lr": True},
        {"betas": 0.5},
        {"betas": [0.5]},
        {"image_size": 65},
        {"noise_dim": 0},
    ],
)
def test_bad_values_are_named(config):
    (name,) = config
    with pytest.raises(InputError, match=name):
        models.build("gancls", **config)


def test_incomplete_systems_cannot_be_made():
    class Incomplete(System):
        pass

    with pytest.raises(TypeError, match="discriminator_loss"):
        Incomplete(None, torch.nn.Identity(), torch.nn.Identity())


def test_noise_is_standard_normal_and_reproducible(system):
    first, second = (system.noise(4000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (4000, system.config.noise_dim)
    assert torch.equal(first, second)
    assert abs(first.mean()) < 0.03
    assert abs(first.std() - 1) < 0.03


def test_truncated_noise_stays_within_its_bounds(system):
    noise = system.noise(4000, torch.Generator().manual_seed(3), truncation=0.88)
    assert noise.shape == (4000, system.config.noise_dim)
    assert 1.7 < noise.abs().max() <= 1.76
    with pytest.raises(InputError, match="truncation = 0"):
        system.noise(4, truncation=0)


def test_guidance_adds_a_term_for_the_generator_alone(system, batch):
    """Any function of fakes and batch will do; t2ilib.text.guidance has the CLIP loss."""
    plain = [list(getattr(system, f"{role}_loss")(batch)) for role in ("generator", "discriminator")]
    system.guidance = lambda fakes, given: (fakes.mean() + given.sentence.mean() * 0) * 3
    terms = system.generator_loss(batch)
    assert list(terms) == [*plain[0], "clip"] and list(system.discriminator_loss(batch)) == plain[1]
    terms["clip"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in system.generator.parameters())
    assert all(parameter.grad is None for parameter in system.discriminator.parameters())
    assert type(system).guidance is None  # of this system, not of its class


def test_generate_gives_pictures_without_a_graph(system, batch):
    pictures = system.eval().generate(batch.sentence, system.noise(len(batch.sentence)))
    assert pictures.shape == batch.images.shape
    assert pictures.abs().max() <= 1
    assert not pictures.requires_grad
    alone = system.generate(batch.sentence[:1], torch.zeros(1, system.config.noise_dim))
    assert alone.shape == batch.images[:1].shape


def test_each_loss_trains_its_own_network(system, batch):
    sum(system.discriminator_loss(batch).values()).backward()
    assert all(parameter.grad is None for parameter in system.generator.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in system.discriminator.parameters())
    sum(system.generator_loss(batch).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in system.generator.parameters())


@pytest.mark.parametrize("order", [("discriminator", "generator"), ("generator", "discriminator")])
def test_gradients_survive_one_bfloat16_context(system, batch, order):
    """Autocast caches weights; a copy cached while fakes are made without gradient must not cut the other loss."""
    with torch.autocast("cpu", torch.bfloat16):
        terms = [term for role in order for term in getattr(system, f"{role}_loss")(batch).values()]
    assert all(term.dtype == torch.float32 and term.ndim == 0 and term.isfinite() for term in terms)
    sum(terms).backward()
    for name, parameter in system.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_optimizers_use_the_config_and_lower_the_losses(system, batch):
    optimizers = system.optimizers()
    assert set(optimizers) == {"generator", "discriminator"}
    rate = system.config.lr
    rates = {"generator": rate, "discriminator": getattr(system.config, "discriminator_lr", rate)}
    for name, optimizer in optimizers.items():
        assert optimizer.defaults["lr"] == rates[name]
        assert optimizer.defaults["betas"] == system.config.betas
    losses = []
    for _ in range(12):
        torch.manual_seed(5)  # the same noise: the loss of a fixed problem must fall
        loss = sum(system.discriminator_loss(batch).values())
        optimizers["discriminator"].zero_grad()
        loss.backward()
        optimizers["discriminator"].step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_adam_is_fused_only_where_it_can_be():
    weight = torch.nn.Parameter(torch.ones(2))
    assert adam([weight], 1e-3, (0.5, 0.9)).defaults["fused"]
    assert not adam([torch.nn.Parameter(torch.ones(2, device="meta"))], 1e-3, (0.5, 0.9)).defaults["fused"]

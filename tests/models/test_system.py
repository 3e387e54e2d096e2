"""The registry, the base class of systems, and what holds for every registered system at its tiny size."""

import copy
import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from t2ilib import losses, models
from t2ilib.encoders.guidance import ClipGuidance
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Text
from t2ilib.models.galip import GatheringBlock
from t2ilib.task import System, adam
from t2ilib.training.loop import frozen


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
def batch(system, make_batch) -> Batch:
    return make_batch(system, system.config.batch_size)


@pytest.fixture
def painted(system, batch) -> Fakes:
    """The fakes of a round that updates all networks."""
    return system.prepare(batch, system.trained)


@pytest.fixture
def paintings(system) -> list[torch.Tensor]:
    """What the generator has painted so far, one entry per forward pass."""
    made = []
    system.generator.register_forward_hook(lambda module, inputs, output: made.append(output))
    return made


def gradients(network: nn.Module) -> list[torch.Tensor | None]:
    return [parameter.grad for parameter in network.parameters()]


def test_what_is_watched_is_the_mean_of_d(system, batch, painted):
    other = batch.images.roll(-1, 0) if batch.mismatched is None else batch.mismatched
    with torch.no_grad():
        told = system.watch(batch, painted)
        for name, pictures in {"real": batch.images, "fake": painted.last, "mismatched": other}.items():
            scores = system.score(pictures, batch.text)
            mean = (torch.sigmoid(scores) if isinstance(system, models.SYSTEMS["gancls"]) else scores).mean()
            assert told[f"D_{name}"].item() == pytest.approx(mean.item(), rel=1e-5)
    assert len(told) == 3


# ---- the registry ------------------------------------------------------------------------------------------------


def test_unknown_system_is_named_with_the_known():
    with pytest.raises(InputError, match=r"gancsl.*gancls"):
        models.build("gancsl")


@pytest.mark.parametrize("name", models.SYSTEMS)
def test_unknown_keys_are_named_with_the_known(name):
    with pytest.raises(InputError, match=r"unknown key learning_rate, sizes;.*\blr\b"):
        models.build(name, learning_rate=1e-4, lr=1e-4, sizes=3)


def test_build_passes_hyper_parameters_and_reads_yaml():
    system = models.build("gancls", ngf=4, ndf=4, lr="2e-4", betas=[0, "0.9"], embedding_dim=8, l1=10)
    assert (system.config.lr, system.config.betas, system.config.l1) == (2e-4, (0.0, 0.9), 10.0)


@pytest.mark.parametrize("name", models.SYSTEMS)
def test_every_system_reads_what_yaml_holds(name):
    with torch.device("meta"):
        config = models.build(name, lr="2e-4", betas=[0, "0.9"], ema="0.999", batch_size=7).config
    assert (config.lr, config.betas, config.ema, config.batch_size) == (2e-4, (0.0, 0.9), 0.999, 7)
    assert config == type(config)(lr=2e-4, betas=(0.0, 0.9), ema=0.999, batch_size=7)  # and the paper's values else


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


@pytest.mark.parametrize("name", models.SYSTEMS)
def test_encoders_decide_sizes(name):
    encoders, config = {"text": SimpleNamespace(sentence_dim=24)}, models.SYSTEMS[name].Config
    with torch.device("meta"):
        assert models.build(name, encoders).config == config(embedding_dim=24)
        assert models.build(name, encoders, embedding_dim=24).config.embedding_dim == 24
        assert models.build(name).config == config()
    with pytest.raises(InputError, match=r"embedding_dim = 25, .* 24; drop it"):
        models.build(name, encoders, embedding_dim=25)


def test_incomplete_systems_cannot_be_made():
    class Incomplete(System):
        pass

    with pytest.raises(TypeError, match="discriminator_loss"):
        Incomplete(None)


# ---- painting ----------------------------------------------------------------------------------------------------


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


def test_noise_has_the_length_that_the_system_says(system, monkeypatch):
    """A system whose condition needs noise of its own says so by `noise_dim`."""
    assert system.noise_dim == system.config.noise_dim
    monkeypatch.setattr(type(system), "noise_dim", 13)
    assert system.noise(2).shape == system.noise(2, truncation=0.5).shape == (2, 13)


def test_generate_takes_text_and_gives_pictures_without_a_graph(system, batch):
    noise = system.eval().noise(len(batch.text))
    pictures = system.generate(batch.text, noise)
    assert pictures.shape == batch.images.shape
    assert pictures.abs().max() <= 1
    assert not pictures.requires_grad
    assert torch.equal(pictures, system.fakes(batch.text, noise).last)
    alone = system.generate(batch.text[:1], torch.zeros(1, system.noise_dim))
    assert alone.shape == batch.images[:1].shape
    other = system.generate(Text(batch.text.sentence.flip(0)), noise)
    assert all((one - two).abs().max() > 1e-6 for one, two in zip(pictures, other, strict=True))


def test_generate_leaves_the_mode_alone(system, batch):
    for mode in (True, False):
        system.train(mode)
        system.generate(batch.text, system.noise(len(batch.text)))
        assert all(module.training is mode for module in system.modules())


# ---- rounds ------------------------------------------------------------------------------------------------------


def test_the_generator_is_updated_once_a_step(system):
    for step in (0, 1, 100):
        rounds = system.rounds(step)
        assert sum("generator" in roles for roles in rounds) == 1
        assert all("discriminator" in roles for roles in rounds)


@pytest.mark.parametrize("roles", [("discriminator",), ("generator",), ("discriminator", "generator")])
def test_prepare_paints_once_and_with_a_graph_only_for_the_generator(system, batch, paintings, roles):
    torch.manual_seed(5)
    fakes = system.prepare(batch, roles)
    assert len(paintings) == 1 and fakes.last is paintings[0]
    assert fakes.last.requires_grad is ("generator" in roles)
    assert torch.is_grad_enabled()
    torch.manual_seed(5)
    expected = system.fakes(batch.text, system.noise(len(batch.images)))
    assert torch.equal(fakes.last, expected.last)
    assert not torch.equal(fakes.last, system.prepare(batch, roles).last)  # new noise for each round


def test_both_losses_of_a_round_use_its_fakes(system, batch, paintings, monkeypatch):
    prepared, given = system.prepare(batch, system.trained), {}

    def listening(role):
        method = getattr(system, f"{role}_loss")

        def loss(batch, fakes):
            given[role] = fakes.last
            return method(batch, fakes)

        return loss

    for role in system.trained:
        monkeypatch.setattr(system, f"{role}_loss", listening(role))
        system.loss(role, batch, prepared)
    assert given["generator"] is prepared.last
    assert given["discriminator"].data_ptr() == prepared.last.data_ptr()  # the same numbers, without their history
    assert not given["discriminator"].requires_grad
    assert len(paintings) == 1


def test_score_is_what_the_losses_use(system, batch, painted, monkeypatch):
    """`losses` has what systems share; its functions take the discriminator's verdicts as `real` and `fake`."""
    heard = {}

    def listening(loss):
        def listened(*arguments, **options):
            heard.update(inspect.signature(loss).bind(*arguments, **options).arguments)
            return loss(*arguments, **options)

        return listened

    for name, loss in list(vars(losses).items()):
        if name.endswith(("_discriminator", "_critic", "_generator")):
            monkeypatch.setattr(losses, name, listening(loss))
    real, fake = system.score(batch.images, batch.text), system.score(painted.last, batch.text)
    assert real.shape == fake.shape == batch.class_ids.shape
    assert not torch.allclose(real, fake, rtol=0.01)
    assert not torch.allclose(real, system.score(batch.images, Text(batch.text.sentence.flip(0))), rtol=1e-4)
    system.loss("discriminator", batch, painted)
    torch.testing.assert_close(heard.pop("real"), real)
    torch.testing.assert_close(heard.pop("fake"), fake)
    system.loss("generator", batch, painted)
    torch.testing.assert_close(heard.pop("fake"), fake)


# ---- gradients ---------------------------------------------------------------------------------------------------


def test_the_discriminators_loss_never_reaches_the_generator(system, batch, painted):
    assert painted.last.requires_grad
    sum(system.loss("discriminator", batch, painted).values()).backward()
    assert gradients(system.generator) == [None] * len(gradients(system.generator))
    check_gradients(system.discriminator)


def test_the_generators_loss_reaches_all_of_it(system, batch, painted):
    sum(system.loss("generator", batch, painted).values()).backward()
    assert all(gradient.abs().sum() > 0 for gradient in gradients(system.generator))


def unused(network: nn.Module) -> set[str]:
    """The 1x1 shortcuts that GALIP's released code builds, and does not use, where a block keeps its channels."""
    blocks = [name for name, module in network.named_modules() if isinstance(module, GatheringBlock)]
    return {f"{name}.skip.{kind}" for name in blocks for kind in ("weight", "bias")}


def bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def check_gradients(network: nn.Module) -> None:
    left_out = unused(network)
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) is (name in left_out), name
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("order", [("discriminator", "generator"), ("generator", "discriminator")])
def test_gradients_survive_one_bfloat16_context(system, batch, order):
    """Autocast caches weights; a copy cached for one loss must not cut the other."""
    with bf16():
        fakes = system.prepare(batch, system.trained)
        terms = [term for role in order for term in system.loss(role, batch, fakes).values()]
    assert all(term.dtype == torch.float32 and term.ndim == 0 and term.isfinite() for term in terms)
    sum(terms).backward()
    check_gradients(system)


def test_gradients_survive_bfloat16_in_the_loops_order(system, batch):
    """A context for painting and one for each loss, whose other network is frozen: as training.loop does it."""
    for roles in (("discriminator",), system.trained):
        with bf16():
            fakes = system.prepare(batch, roles)
        for role in roles:
            system.zero_grad()
            (other,) = set(system.trained) - {role}
            with frozen([getattr(system, other)]):
                with bf16():
                    terms = system.loss(role, batch, fakes)
                assert all(term.dtype == torch.float32 and term.ndim == 0 for term in terms.values())
                sum(terms.values()).backward()
            check_gradients(getattr(system, role))
            assert all(gradient is None for gradient in gradients(getattr(system, other)))


def test_optimizers_use_the_config_and_lower_the_losses(system, batch):
    optimizers = system.optimizers()
    assert set(optimizers) == {"generator", "discriminator"}
    rate = system.config.lr
    rates = {"generator": rate, "discriminator": getattr(system.config, "discriminator_lr", rate)}
    for name, optimizer in optimizers.items():
        assert optimizer.defaults["lr"] == rates[name]
        assert optimizer.defaults["betas"] == system.config.betas
    values = []
    for _ in range(12):
        torch.manual_seed(5)  # the same noise: the loss of a fixed problem must fall
        loss = sum(system.loss("discriminator", batch, system.prepare(batch, ("discriminator",))).values())
        optimizers["discriminator"].zero_grad()
        loss.backward()
        optimizers["discriminator"].step()
        values.append(loss.item())
    assert values[-1] < values[0]


def test_adam_is_fused_only_where_it_can_be():
    weight = torch.nn.Parameter(torch.ones(2))
    assert adam([weight], 1e-3, (0.5, 0.9)).defaults["fused"]
    assert not adam([torch.nn.Parameter(torch.ones(2, device="meta"))], 1e-3, (0.5, 0.9)).defaults["fused"]


# ---- a further loss of the generator -----------------------------------------------------------------------------


def test_guidance_adds_a_term_for_the_generator_alone(system, batch, painted):
    """Any function of fakes and batch will do; t2ilib.encoders.guidance has the CLIP loss."""
    plain, seen = {role: list(system.loss(role, batch, painted)) for role in system.trained}, []

    def guidance(fakes, given):
        seen.append((fakes, given))
        return (fakes.mean() + given.text.sentence.mean() * 0) * 3

    system.guidance = guidance
    terms = system.loss("generator", batch, painted)
    assert list(terms) == [*plain["generator"], "clip"]
    assert list(system.loss("discriminator", batch, painted)) == plain["discriminator"]
    assert len(seen) == 1 and seen[0][0] is painted.last and seen[0][1] is batch
    terms["clip"].backward()
    assert all(gradient.abs().sum() > 0 for gradient in gradients(system.generator))
    assert gradients(system.discriminator) == [None] * len(gradients(system.discriminator))
    assert type(system).guidance is None  # of this system, not of its class


class Eye(nn.Linear):
    """An encoder that sees: one linear layer from pixels to five numbers."""

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        return self(images.flatten(1))


def test_copies_of_a_guided_system_share_its_encoder(system, batch, painted):
    before = set(system.state_dict())
    encoder = Eye(3 * system.config.image_size**2, 5).requires_grad_(False)
    system.guidance = ClipGuidance(encoder)
    assert set(system.state_dict()) == before  # the encoder is not the system's own
    twin = copy.deepcopy(system)
    assert twin.guidance.encoder is encoder
    owned = [{weight.data_ptr() for weight in one.parameters()} for one in (system, twin)]
    assert not owned[0] & owned[1]
    batch.target = torch.randn(len(batch.images), 5)
    assert torch.equal(*(one.loss("generator", batch, painted)["clip"] for one in (system, twin)))

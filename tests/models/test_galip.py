"""GALIP: sizes, blocks, the CLIP on both sides, the effect of each term. That it equals the released code: official."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2ilib import files, models
from t2ilib.encoders import load_encoder
from t2ilib.errors import InputError
from t2ilib.experiment import run_recipe
from t2ilib.features import Batch, Fakes
from t2ilib.models import dfgan
from t2ilib.models.galip import (
    GALIP,
    Bridge,
    CollectingBlock,
    Discriminator,
    FusionBlock,
    GALIPConfig,
    GatheringBlock,
)
from t2ilib.sampling import export, load_sampler
from t2ilib.task import Frozen
from t2ilib.training import EncoderSettings, Recipe, Run, TrainingSettings
from t2ilib.training.loop import Trainer


def awaken(module: nn.Module) -> None:
    """Move all weights off their start, where gates are shut and affines do nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def make(awake: bool = True, **changes) -> GALIP:
    torch.manual_seed(0)
    system = GALIP(GALIPConfig.tiny(**changes))
    if awake:
        awaken(system)
    return system


def some_noise(system: GALIP, count: int = 3) -> Tensor:
    return system.noise(count, torch.Generator().manual_seed(2))


def looked_at(system: GALIP, pictures: Tensor, released: bool = False) -> tuple[Tensor, Tensor]:
    """CLIP's maps and embeddings of pictures, without the system's help."""
    tower = system.eye.module
    return tower(tower.shown(pictures, released), system.config.taps)


@contextmanager
def looks(system: GALIP) -> Iterator[list[int]]:
    """Count how many pictures the CLIP looks at, one entry per pass."""
    counts = []
    hook = system.eye.module.visual.conv1.register_forward_hook(lambda module, given, made: counts.append(len(made)))
    yield counts
    hook.remove()


@pytest.fixture
def system() -> GALIP:
    return make()


@pytest.fixture
def batch(system, make_batch) -> Batch:
    return make_batch(system, 3)


@pytest.fixture
def fakes(system, batch) -> Fakes:
    return system.prepare(batch, system.trained)


class Same:
    """The same batch for ever."""

    def __init__(self, batch: Batch):
        self.made, self.batch_size = batch, len(batch.images)

    def batch(self, number: int) -> Batch:
        return self.made


# ---- sizes -------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_paper_size():
    with torch.device("meta"):
        system = models.build("galip")
    counts = [sum(p.numel() for p in network.parameters()) for network in (system.generator, system.discriminator)]
    assert counts == [51_830_211, 30_806_021]
    assert sum(p.numel() for p in system.parameters()) == sum(counts)  # and nothing of the CLIP
    assert system.config.sizes == [7, 8, 16, 32, 64, 128, 224]
    assert system.config.channels == [512, 512, 512, 512, 256, 128, 64]


@pytest.mark.parametrize(
    ("size", "grid", "sides", "channels"),
    [
        (32, 4, [4, 8, 16, 32], [16, 8, 4, 2]),
        (32, 2, [2, 4, 8, 16, 32], [16, 16, 8, 4, 2]),
        (32, 3, [3, 4, 8, 16, 32], [16, 16, 8, 4, 2]),
        (64, 8, [8, 16, 32, 64], [16, 8, 4, 2]),
        (100, 7, [7, 8, 16, 32, 64, 100], [16, 16, 16, 8, 4, 2]),
        (224, 7, [7, 8, 16, 32, 64, 128, 224], [16, 16, 16, 16, 8, 4, 2]),
        (9, 8, [8, 9], [4, 2]),
    ],
)
def test_shapes(size, grid, sides, channels, make_batch):
    system = make(image_size=size, clip_grid=grid, clip_size=4 * grid, nf=2)
    assert (system.config.sizes, system.config.channels) == (sides, channels)
    batch, seen = make_batch(system, 2), []
    for block in system.generator.blocks:
        block.register_forward_hook(lambda module, given, made: seen.append(made.shape[1:]))
    with torch.no_grad():
        pictures = system.generator(some_noise(system, 2), batch.text.sentence)
        maps, embedding = system.image_features(pictures)
        features = system.discriminator(maps)
        logits = system.head(features, batch.text.sentence)
    assert seen == [(c, side, side) for c, side in zip(channels[1:], sides[1:], strict=True)]
    assert pictures.shape == (2, 3, size, size)
    assert maps.shape == (2, 2, 16, grid, grid) and embedding.shape == (2, 16)
    assert features.shape == (2, 8, grid, grid) and logits.shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taps": (1, 4)}, r"taps = \[1, 4\]: .* which has 3"),
        ({"prompts": (2, 3, 4)}, r"prompts = \[2, 3, 4\]: .* which has 3"),
        ({"taps": (2, 1)}, r"taps = \[2, 1\]: must rise"),
        ({"taps": (1, 1)}, r"taps = \[1, 1\]: must rise"),
        ({"prompts": (3, 2)}, r"prompts = \[3, 2\]: must rise"),
        ({"taps": ()}, "taps: there are none"),
        ({"taps": (0, 1)}, "taps = "),
        ({"prompts": (0,)}, "prompts = "),
        ({"image_size": 8, "clip_grid": 8}, "image_size = 8: the generator starts from the CLIP's 8 x 8"),
        ({"image_size": 10, "clip_grid": 16}, "image_size = 10"),
        ({"preprocessing": "both"}, "preprocessing: 'both' is not one of correct, released"),
        ({"clip_discriminator": False, "image_size": 100}, "image_size = 100"),
        ({"bridge": -0.1}, "bridge = -0.1"),
        ({"similarity": -1.0}, "similarity = -1"),
        ({"penalty_power": 1.0}, "penalty_power = 1"),
        ({"nf": 0}, "nf = 0"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_impossible_values_are_named(change, message):
    with pytest.raises(InputError, match=message):
        GALIPConfig.tiny(**change)


# ---- the encoders ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy():
    return load_encoder("toy-clip")


TOY = {"image_size": 64, "taps": (1, 2), "prompts": (1,), "nf": 2, "code_channels": 4}


def test_the_clip_decides_its_sizes_and_its_weights_are_used(toy):
    torch.manual_seed(0)
    system = models.build("galip", {"text": toy, "clip": toy}, **TOY)
    config = system.config
    assert (config.clip_size, config.clip_grid, config.clip_width, config.clip_layers) == (64, 8, 128, 4)
    assert config.embedding_dim == toy.sentence_dim == 128
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(system.image_features(pictures)[1], toy.encode_images(pictures))
    assert system.eye.module.visual is toy.model.visual and system.generator.bridge.eye is system.eye


def test_the_clip_alone_decides_the_length_of_sentences(toy):
    with torch.device("meta"):
        assert models.build("galip", {"clip": toy}, **TOY).config.embedding_dim == 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_dim": 512}, r"embedding_dim = 512, .* 128; drop it"),
        ({"clip_width": 768}, r"clip_width = 768, .* 128; drop it"),
        ({"clip_grid": 7}, r"clip_grid = 7, .* 8; drop it"),
        ({"taps": (2, 5)}, r"taps = \[2, 5\]: .* which has 4"),
        ({"image_size": 8}, "8 x 8 patches"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_values_that_contradict_the_clip_are_named(toy, changes, message):
    with pytest.raises(InputError, match=message):
        models.build("galip", {"text": toy, "clip": toy}, **{**TOY, **changes})


def test_clips_that_do_not_serve_are_named(toy):
    with pytest.raises(InputError, match="toy-clip-resnet: sees with a ModifiedResNet"):
        models.build("galip", {"text": toy, "clip": load_encoder("toy-clip-resnet")}, **TOY)
    with pytest.raises(InputError, match="letters: reads text only"):
        models.build("galip", {"clip": SimpleNamespace(name="letters", sentence_dim=8)}, **TOY)
    with pytest.raises(InputError, match=r"text gives 24 numbers, clip 128; .* take one CLIP"):
        models.build("galip", {"text": SimpleNamespace(sentence_dim=24), "clip": toy}, **TOY)


# ---- the CLIP belongs to nobody ----------------------------------------------------------------------------------


def test_the_clip_is_in_no_state_and_copies_share_it(system):
    weights = {p.data_ptr() for p in system.eye.module.parameters()}
    assert weights and not weights & {p.data_ptr() for p in system.parameters()}
    assert not any("eye" in name or "visual" in name for name in system.state_dict())
    optimised = [p for o in system.optimizers().values() for group in o.param_groups for p in group["params"]]
    assert not weights & {p.data_ptr() for p in optimised}
    assert len(optimised) == len(list(system.parameters()))
    twin = copy.deepcopy(system)
    assert twin.eye is system.eye and twin.generator.bridge.eye is system.eye
    assert not system.train().eye.module.training


def test_training_never_changes_the_clip_and_the_average_shares_it(make_batch):
    system = make(ema=0.9)
    before = {name: value.clone() for name, value in system.eye.module.state_dict().items()}
    trainer = Trainer(system, TrainingSettings(precision="fp32"))
    own = {name: value.clone() for name, value in system.state_dict().items()}
    source = Same(make_batch(system, 3))
    source.made.images = source.made.images.to(trainer.device)
    source.made.text = source.made.text.to(trainer.device)
    for number in range(2):
        trainer.step(number, source)
    after = {name: value.cpu() for name, value in system.eye.module.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and not p.requires_grad for p in system.eye.module.parameters())
    same = {name for name, value in system.state_dict().items() if torch.equal(value, own[name])}
    assert same == {"discriminator.blocks.0.skip.weight", "discriminator.blocks.0.skip.bias"}
    assert trainer.average.module is not system.generator
    assert trainer.average.module.bridge.eye is system.eye
    assert not any("eye" in name or "visual" in name for name in trainer.tensors())


def gradient_of(system: GALIP, batch: Batch) -> dict[str, Tensor]:
    """The generator's gradient for one noise."""
    torch.manual_seed(5)
    terms = system.loss("generator", batch, system.prepare(batch, system.trained))
    named = dict(system.generator.named_parameters())
    found = torch.autograd.grad(sum(terms.values()), list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


def test_gradients_pass_through_the_clip_of_the_bridge(system, batch, monkeypatch):
    whole = gradient_of(system, batch)
    assert whole["bridge.prompts.weight"].abs().sum() > 0 and whole["bridge.widen.weight"].abs().sum() > 0
    real = system.eye.call

    def cut(method, *inputs):
        return real(method, *inputs).detach() if method == "prompted" else real(method, *inputs)

    monkeypatch.setattr(system.eye, "call", cut)
    without = gradient_of(system, batch)
    assert without["bridge.prompts.weight"] is None
    assert not torch.allclose(without["bridge.widen.weight"], whole["bridge.widen.weight"], rtol=1e-3)
    torch.testing.assert_close(without["picture.1.weight"], whole["picture.1.weight"])  # the pictures are the same
    monkeypatch.undo()
    system.generator.bridge.share = 0.0
    assert not gradient_of(system, batch)["bridge.prompts.weight"].any()


@pytest.mark.parametrize("term", ["adversarial", "similarity"])
def test_gradients_pass_through_the_clip_of_the_discriminator(system, batch, fakes, term):
    terms = system.loss("generator", batch, fakes)
    (for_pictures,) = torch.autograd.grad(terms[term], fakes.last)
    assert (for_pictures.flatten(1).abs().sum(1) > 0).all()


# ---- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "half"), [(6, 3), (1, 1)])
def test_fusion_block_adds_what_it_narrows_fuses_widens_and_fuses_again(channels, half):
    torch.manual_seed(0)
    block, x, condition = FusionBlock(channels, 5), torch.randn(2, channels, 4, 4), torch.randn(2, 5)
    narrow, wide = block.convolutions
    assert narrow.weight.shape == (half, channels, 3, 3) and wide.weight.shape == (channels, half, 3, 3)
    inner = F.conv2d(x, narrow.weight, narrow.bias, padding=1)
    inner = torch.where(inner > 0, inner, 0.04 * inner)  # its affines are the identity yet: LeakyReLU(0.2) twice
    outer = F.conv2d(inner, wide.weight, wide.bias, padding=1)
    torch.testing.assert_close(block(x, condition), x + torch.where(outer > 0, outer, 0.04 * outer))
    awaken(block)
    inner = block.fusions[0](F.conv2d(x, narrow.weight, narrow.bias, padding=1), condition)
    expected = x + block.fusions[1](F.conv2d(inner, wide.weight, wide.bias, padding=1), condition)
    torch.testing.assert_close(block(x, condition), expected)
    assert not torch.allclose(block(x, condition.flip(0)), expected, atol=1e-3)


@pytest.mark.parametrize("channels_out", [3, 6])
def test_collecting_block_starts_without_its_residual_branch(channels_out):
    torch.manual_seed(0)
    block, x = CollectingBlock(3, channels_out), torch.randn(2, 3, 5, 5)
    shortcut = x if channels_out == 3 else F.conv2d(x, block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(x), shortcut)
    with torch.no_grad():
        block.gain.fill_(-2)
    first, second = (block.residual[place].weight for place in (0, 2))
    inner = F.leaky_relu(F.conv2d(x, first, padding=1), 0.2)
    residual = F.leaky_relu(F.conv2d(inner, second, padding=1), 0.2)
    torch.testing.assert_close(block(x), shortcut - 2 * residual)


def test_gathering_block_starts_as_the_identity_and_takes_in_a_share_of_the_next_map():
    torch.manual_seed(0)
    block, (x, more) = GatheringBlock(3), torch.randn(2, 2, 3, 5, 5)
    assert torch.equal(block(x, more), x)
    with torch.no_grad():
        block.share.fill_(3)
        block.gain.fill_(0.5)
    torch.testing.assert_close(block(x, more), x + 0.5 * block.residual(x) + 3 * more)


def test_discriminator_gathers_the_taps_in_order():
    torch.manual_seed(0)
    discriminator = Discriminator(GALIPConfig.tiny(taps=(1, 2, 3)))
    maps = torch.randn(2, 3, 16, 4, 4)
    with torch.no_grad():
        for block, share in zip(discriminator.blocks, (0.5, -2.0), strict=True):
            block.share.fill_(share)
    gathered = maps[:, 0] + 0.5 * maps[:, 1] - 2 * maps[:, 2]
    last = discriminator.last
    torch.testing.assert_close(discriminator(maps), F.conv2d(gathered, last.skip.weight, last.skip.bias))
    one = Discriminator(GALIPConfig.tiny(taps=(2,)))
    torch.testing.assert_close(one(maps[:, :1]), one.last(maps[:, 0]))


@pytest.mark.parametrize(
    "changes",
    [{}, {"prompts": (1, 3), "bridge": 0.7}, {"prompts": ()}, {"clip_generator": False}],
    ids=["paper", "other share", "no prompts", "no CLIP"],
)
def test_bridge_by_hand(changes):
    """f = conv(blocks(noise, condition)); conv(f + share ViT(f, prompts(condition)))."""
    system = make(**changes)
    bridge, config = system.generator.bridge, system.config
    x, condition = torch.randn(2, 8, 4, 4), torch.randn(2, 24)
    maps = x
    for block in bridge.blocks:
        maps = block(maps, condition)
    assert len(bridge.blocks) == 4 and bridge.widen.kernel_size == bridge.narrow.kernel_size == (5, 5)
    predicted = F.conv2d(maps, bridge.widen.weight, bridge.widen.bias, padding=2)
    seen, tower = 0.0, system.eye.module
    if config.clip_generator and config.prompts:
        weight, bias = bridge.prompts.weight, bridge.prompts.bias
        rows = [slice(16 * k, 16 * k + 16) for k in range(len(config.prompts))]
        prompts = torch.stack([condition @ weight[row].T + bias[row] for row in rows], 1)
        seen = tower.prompted(predicted, prompts, config.prompts)
    elif config.clip_generator:
        seen = tower.prompted(predicted)
    expected = F.conv2d(predicted + config.bridge * seen, bridge.narrow.weight, bridge.narrow.bias, padding=2)
    torch.testing.assert_close(bridge(x, condition), expected)
    assert (bridge.prompts is None) is (not isinstance(seen, Tensor) or not config.prompts)
    assert config.bridge == changes.get("bridge", 0.1)


def test_bridge_widths_are_those_of_the_clip_and_the_first_block():
    config = GALIPConfig.tiny(clip_width=24, code_channels=6, nf=3)
    bridge = Bridge(config, Frozen(nn.Identity()))
    assert bridge.widen.weight.shape[:2] == (24, 6) and bridge.narrow.weight.shape[:2] == (config.channels[0], 24)
    assert bridge.prompts.weight.shape == (2 * 24, 8 + 16)


# ---- text and pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "asleep"),
    [({}, True), ({"prompts": ()}, False), ({"bridge": 0.0}, False), ({"clip_generator": False}, False)],
    ids=["prompts", "no prompts", "no share", "no CLIP"],
)
def test_text_acts_through_the_affines_once_they_have_learnt_and_through_prompts_at_once(changes, asleep, make_batch):
    for awake, acts in ((False, asleep), (True, True)):
        system = make(awake, **changes)
        text, noise = make_batch(system, 3).text, some_noise(system)
        one, other = (system.generator(noise, sentence) for sentence in (text.sentence, text.sentence.flip(0)))
        assert torch.equal(one, other) is not acts
        assert not torch.equal(one[0], one[1])  # their noise differs


def test_noise_acts_at_the_start_and_in_every_condition(system, batch):
    sentence, noise = batch.text.sentence[:1], some_noise(system, 2)
    seen = []
    for module in (system.generator.start, system.generator.bridge, *system.generator.blocks):
        module.register_forward_pre_hook(lambda module, given: seen.append(given))
    system.generator(noise[:1], sentence)
    torch.testing.assert_close(seen[0][0], noise[:1])
    for given in seen[1:]:
        torch.testing.assert_close(given[1], torch.cat([noise[:1], sentence], 1))


def test_generator_by_hand(system, batch):
    """Noise becomes a map; bridge and blocks take it to full size; LeakyReLU(0.2) and one convolution paint it."""
    generator, noise, sentence = system.generator, some_noise(system), batch.text.sentence
    condition = torch.cat([noise, sentence], 1)
    x = (noise @ generator.start.weight.T + generator.start.bias).reshape(3, 8, 4, 4)
    x = generator.bridge(x, condition)
    for block, size, channels in zip(generator.blocks, (8, 16, 32), ((32, 16), (16, 8), (8, 4)), strict=True):
        assert (block.convolutions[0].in_channels, block.convolutions[0].out_channels) == channels
        x = block(x, condition, size)
    paint = generator.picture[1]
    expected = F.conv2d(torch.where(x > 0, x, 0.2 * x), paint.weight, paint.bias, padding=1)
    torch.testing.assert_close(generator(noise, sentence), expected)


def test_generate_cuts_the_pictures_and_leaves_the_mode_alone(system, batch):
    with torch.no_grad():
        system.generator.picture[1].weight.mul_(100)
    noise, modes = some_noise(system), []
    system.generator.register_forward_pre_hook(lambda module, given: modes.append(module.training))
    painted = system.fakes(batch.text, noise).last
    assert painted.abs().max() > 2  # no tanh
    for mode in (True, False):
        system.train(mode)
        assert torch.equal(system.generate(batch.text, noise), painted.clamp(-1, 1))
    assert modes == [True, True, False]


def test_released_preprocessing_changes_what_the_discriminator_sees(system, batch):
    released = make(preprocessing="released")
    released.load_state_dict(system.state_dict())
    released.eye = system.eye
    for one, kind in ((system, False), (released, True)):
        maps, embedding = looked_at(system, batch.images, kind)
        found = one.image_features(batch.images)
        torch.testing.assert_close(found, (maps, embedding))
    scores = [one.score(batch.images, batch.text) for one in (system, released)]
    assert not torch.allclose(*scores, rtol=1e-3)
    for name in ("discriminator", "generator"):
        terms = []
        for one in (system, released):
            torch.manual_seed(5)
            terms.append(one.loss(name, batch, one.prepare(batch, one.trained)))
        assert all(not torch.allclose(value, terms[1][key], rtol=1e-4) for key, value in terms[0].items())


# ---- losses ------------------------------------------------------------------------------------------------------

DISCRIMINATOR = ["real", "fake", "mismatched", "penalty"]
GENERATOR = ["adversarial", "similarity"]


@pytest.mark.parametrize(
    ("changes", "discriminator", "generator"),
    [
        ({}, DISCRIMINATOR, GENERATOR),
        ({"penalty": 0.0}, DISCRIMINATOR[:3], GENERATOR),
        ({"similarity": 0.0}, DISCRIMINATOR, GENERATOR[:1]),
        ({"clip_discriminator": False}, DISCRIMINATOR, GENERATOR),
        ({"clip_discriminator": False, "similarity": 0.0}, DISCRIMINATOR, GENERATOR[:1]),
        ({"clip_generator": False}, DISCRIMINATOR, GENERATOR),
        ({"prompts": ()}, DISCRIMINATOR, GENERATOR),
    ],
    ids=lambda value: "-".join(value) or "paper" if isinstance(value, dict) else None,
)
def test_terms_follow_the_options(changes, discriminator, generator, make_batch):
    system = make(**changes)
    batch = make_batch(system, 3)
    fakes = system.prepare(batch, system.trained)
    for role, names in (("discriminator", discriminator), ("generator", generator)):
        terms = system.loss(role, batch, fakes)
        assert list(terms) == names
        sum(terms.values()).backward(retain_graph=True)
        assert all(term.isfinite() for term in terms.values())
    assert isinstance(system.discriminator, Discriminator if system.config.clip_discriminator else dfgan.Discriminator)
    system.guidance = lambda fakes, batch: fakes.mean()
    assert list(system.loss("generator", batch, fakes)) == [*generator, "clip"]


@pytest.mark.parametrize("clip", [True, False], ids=["CLIP", "pixels"])
def test_terms_by_hand(clip, make_batch):
    """Equations 1 and 2, row by row; the mismatched sentence is the row's before."""
    system = make(clip_discriminator=clip)
    batch = make_batch(system, 3)
    fakes = system.prepare(batch, system.trained)

    def score(picture, sentence):
        seen = looked_at(system, picture[None])[0] if clip else picture[None]
        return system.head(system.discriminator(seen), sentence[None]).item()

    rows = list(zip(batch.images, fakes.last, batch.text.sentence, strict=True))
    real, fake = [score(x, e) for x, _, e in rows], [score(x, e) for _, x, e in rows]
    mismatched = [score(batch.images[i], batch.text.sentence[i - 1]) for i in range(3)]
    expected = {
        "real": sum(max(0, 1 - logit) for logit in real) / 3,
        "fake": sum(max(0, 1 + logit) for logit in fake) / 6,
        "mismatched": sum(max(0, 1 + logit) for logit in mismatched) / 6,
    }
    terms = {name: term.item() for name, term in system.loss("discriminator", batch, fakes).items()}
    assert {name: terms[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert min(expected.values()) > 0 and len(set(expected.values())) == len(expected)
    terms = {name: term.item() for name, term in system.loss("generator", batch, fakes).items()}
    embedding, sentence = looked_at(system, fakes.last)[1], batch.text.sentence
    cosines = (embedding * sentence).sum(1) / embedding.norm(dim=1) / sentence.norm(dim=1)
    assert terms == pytest.approx({"adversarial": -sum(fake) / 3, "similarity": -4 * cosines.mean().item()}, rel=1e-4)
    assert abs(terms["similarity"]) > 1e-3


def naive_penalty(system: GALIP, batch: Batch) -> Tensor:
    """2 |gradient|^6 at CLIP's maps, one sample after the other, by the other kind of automatic differentiation."""
    total = 0.0
    for image, sentence in zip(batch.images, batch.text.sentence, strict=True):
        maps = looked_at(system, image[None])[0].detach()
        inputs = [maps.requires_grad_(), sentence[None].clone().requires_grad_()]
        logit = system.head(system.discriminator(inputs[0]), inputs[1])
        gradients = torch.autograd.grad(logit.sum(), inputs, create_graph=True)
        total += torch.cat([gradient.flatten() for gradient in gradients]).norm() ** 6
    return 2 * total / len(batch.images)


def test_penalty_and_its_second_order_gradient_equal_naive(system, batch, fakes):
    parameters = list(system.discriminator.parameters())
    penalty, expected = system.loss("discriminator", batch, fakes)["penalty"], naive_penalty(system, batch)
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=0)
    assert penalty > 1e-6
    ours, theirs = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (penalty, expected))
    for one, other in zip(ours, theirs, strict=True):
        if other is None or not other.any():  # a bias that is only added has no say in the gradient
            assert one is None or not one.any()
        else:
            assert (one - other).norm() < 1e-3 * other.norm()


def test_weights_of_terms_come_from_the_config(system, batch, fakes):
    def terms(**changes):
        system.config = replace(GALIPConfig.tiny(), **changes)
        return {n: t.item() for role in system.trained for n, t in system.loss(role, batch, fakes).items()}

    paper = terms()
    assert terms(penalty=4.0)["penalty"] == pytest.approx(2 * paper["penalty"])
    assert terms(penalty_power=2.0)["penalty"] == pytest.approx(2 * naive_power(system, batch, 2), rel=1e-4)
    assert terms(similarity=1.0)["similarity"] == pytest.approx(paper["similarity"] / 4)
    for name in ("real", "fake", "mismatched"):
        assert terms(penalty=0.0, similarity=0.0)[name] == pytest.approx(paper[name], rel=1e-5)


def naive_power(system: GALIP, batch: Batch, power: int) -> float:
    """The mean over samples of |gradient|^power."""
    norms = []
    for row in range(len(batch.images)):
        one = replace(batch, images=batch.images[row : row + 1], text=batch.text[row : row + 1])
        norms.append((naive_penalty(system, one) / 2) ** (1 / 6))
    return (torch.stack(norms) ** power).mean().item()


def test_the_clip_looks_once_a_step_at_the_fakes_and_once_at_the_real(system, batch):
    with looks(system) as counts:
        fakes = system.prepare(batch, system.trained)
        assert counts == [3]
        system.loss("generator", batch, fakes)
        assert counts == [3]
        system.loss("discriminator", batch, fakes)
        assert counts == [3, 3]
    on_pixels = make(clip_discriminator=False, similarity=0.0)
    with looks(on_pixels) as counts:
        fakes = on_pixels.prepare(batch, on_pixels.trained)
        for role in on_pixels.trained:
            on_pixels.loss(role, batch, fakes)
        assert counts == []


def test_both_losses_read_the_maps_of_the_round(system, batch, fakes):
    other = replace(fakes, more=fakes.more | {"features": fakes.more["features"].flip(0).detach()})
    for role, name in (("discriminator", "fake"), ("generator", "adversarial")):
        one, two = (system.loss(role, batch, prepared)[name] for prepared in (fakes, other))
        assert not torch.allclose(one, two, rtol=1e-5)
    turned = replace(fakes, more=fakes.more | {"embedding": fakes.more["embedding"].flip(0)})
    assert not torch.allclose(
        *(system.loss("generator", batch, prepared)["similarity"] for prepared in (fakes, turned)), rtol=1e-5
    )


def test_the_discriminators_loss_leaves_no_gradient_in_the_generator(system, batch, fakes):
    assert fakes.more["features"].requires_grad and fakes.more["embedding"].requires_grad
    sum(system.loss("discriminator", batch, fakes).values()).backward()
    assert all(parameter.grad is None for parameter in system.generator.parameters())
    alone = system.prepare(batch, ("discriminator",))
    assert not any(tensor.requires_grad for tensor in (alone.last, *alone.more.values()))


def test_a_flat_discriminator_keeps_the_penalty_finite(system, batch, fakes):
    with torch.no_grad():
        system.head.joint[2].weight.zero_()
    penalty = system.loss("discriminator", batch, fakes)["penalty"]
    penalty.backward()
    assert penalty == 0
    assert all(p.grad.isfinite().all() for p in system.discriminator.parameters() if p.grad is not None)


def test_discriminator_learns_four_times_as_fast():
    optimizers = make().optimizers()
    assert {name: o.defaults["lr"] for name, o in optimizers.items()} == {"generator": 1e-4, "discriminator": 4e-4}
    assert all(optimizer.defaults["betas"] == (0.0, 0.9) for optimizer in optimizers.values())


# ---- compiled ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> GALIP:
    """One block of each kind: a compiler looks at every block, and takes its time."""
    system = make(image_size=8, clip_size=16, clip_grid=4, nf=2, clip_layers=2, taps=(1, 2), prompts=(2,))
    system.generator.bridge.blocks = system.generator.bridge.blocks[:1]
    return system


@pytest.mark.parametrize("role", ["discriminator", "generator"])
def test_compiled_losses_equal_eager(small, make_batch, role):
    """Each is one graph, the penalty at CLIP's maps inside it: `fullgraph` refuses anything else."""
    batch, results = make_batch(small, 3), []
    torch._dynamo.reset()
    for loss in (small.loss, torch.compile(small.loss, backend="aot_eager", fullgraph=True)):
        small.zero_grad()
        torch.manual_seed(5)
        terms = loss(role, batch, small.prepare(batch, small.trained))
        sum(terms.values()).backward()
        gradients = {n: p.grad.clone() for n, p in small.named_parameters() if p.grad is not None}
        results.append((terms, gradients))
    torch._dynamo.reset()
    assert list(results[0][0]) == (DISCRIMINATOR if role == "discriminator" else GENERATOR)
    assert any(name.startswith(role) and gradient.any() for name, gradient in results[0][1].items())
    if role == "discriminator":
        assert results[0][0]["penalty"] > 1e-6
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-6)


def test_compiled_painting_equals_eager(small, make_batch):
    """What both losses share, too, is one graph: generator, its CLIP, and the CLIP behind it."""
    batch, results = make_batch(small, 3), []
    torch._dynamo.reset()
    for prepare in (small.prepare, torch.compile(small.prepare, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(5)
        fakes = prepare(batch, small.trained)
        (gradient,) = torch.autograd.grad(fakes.more["embedding"].square().sum(), small.generator.bridge.prompts.weight)
        results.append((fakes.last, fakes.more, gradient))
    torch._dynamo.reset()
    assert results[0][2].any()
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-6)


# ---- a run -------------------------------------------------------------------------------------------------------


def recipe(**changes) -> Recipe:
    """A tiny GALIP around the toy CLIP."""
    sizes = {"nf": 2, "code_channels": 4, "discriminator_channels": 8, "head_channels": 8, "batch_size": 4}
    settings = TrainingSettings(
        steps=4, precision="fp32", log_every=1, sample_every=4, checkpoint_every=2, evaluate_every=0
    )
    model = {**sizes, "taps": [1, 2], "prompts": [2], "ema": 0.5, **changes}
    toy = {"text": EncoderSettings("toy-clip")}
    return Recipe("galip", model=model, encoders=toy, training=settings).override(
        **{"data.size": 32, "data.options": {"train": 12, "validation": 4, "test": 8}}
    )


def test_a_run_continues_to_the_bit_and_its_exported_weights_paint_the_same(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")
    own = recipe(preprocessing="released")
    whole = list(run_recipe(own, tmp_path / "whole"))
    assert {name for name in whole[0] if "/" in name} == {
        *(f"discriminator/{name}" for name in DISCRIMINATOR),
        *(f"generator/{name}" for name in GENERATOR),
    }
    stopped = run_recipe(own, tmp_path / "parts")
    assert [next(stopped)["step"] for _ in range(3)] == [1, 2, 3]  # the checkpoint is of step 2
    stopped.close()
    assert [record["step"] for record in run_recipe(own, tmp_path / "parts")] == [3, 4]
    tensors, again = (Run.open(tmp_path / name).restore()[0] for name in ("whole", "parts"))
    assert tensors.keys() == again.keys() and not any("eye" in name or "visual" in name for name in tensors)
    assert [name for name in tensors if not torch.equal(tensors[name], again[name])] == []

    exported = export(Run.open(tmp_path / "whole"), tmp_path / "galip.safetensors", "tiny")
    samplers = [
        load_sampler(source, "cpu") for source in (tmp_path / "whole", exported)
    ]  # the latter in half precision
    pictures = [sampler.sample(["a red bird.", "a small blue bird."], seed=1) for sampler in samplers]
    assert pictures[0].shape == (2, 3, 32, 32) and pictures[0].std() > 0.01
    torch.testing.assert_close(*pictures, atol=2e-3, rtol=0)
    for sampler in samplers:
        assert sampler.recipe.model["preprocessing"] == sampler.system.config.preprocessing == "released"


def test_a_deeper_clip_than_the_papers_may_be_asked_for_before_it_is_there():
    config = GALIP.configure({"taps": [6, 12, 20], "prompts": [2, 23]})
    assert (config.taps, config.prompts, config.clip_layers) == ((6, 12, 20), (2, 23), 23)
    assert GALIP.configure({"taps": [1, 2]}).clip_layers == 12
    with pytest.raises(InputError, match=r"model\.taps = \[6, 12, 20\]: must rise, .* which has 12"):
        GALIP.configure({"taps": [6, 12, 20], "clip_layers": 12})
    with pytest.raises(InputError, match=r"model\.taps = .*201.*at most 200"):
        GALIP.configure({"taps": [201]})


@pytest.mark.parametrize(("grid", "size"), [(64, 32), (20, 32), (300, 224)])
def test_a_grid_that_no_patches_make_is_named(grid, size):
    with pytest.raises(InputError, match=rf"model\.clip_grid = {grid}: pictures of model\.clip_size = {size}"):
        GALIPConfig.tiny(clip_grid=grid, clip_size=size, image_size=512)


def test_dfgans_discriminator_says_which_pictures_it_takes():
    with pytest.raises(InputError, match=r"model\.clip_discriminator: false .*image_size = 224.*data\.size"):
        GALIPConfig(clip_discriminator=False)


def test_a_config_of_another_clip_is_refused():
    with pytest.raises(InputError, match="clip_size, clip_grid, clip_width, clip_layers are not this CLIP's"):
        GALIP(GALIPConfig.tiny(), {"clip": load_encoder("toy-clip")})


def test_the_cosine_compares_one_clip_with_itself():
    text, clip = load_encoder("toy-clip-resnet"), load_encoder("toy-clip")
    small = {"image_size": 32, "taps": [1], "prompts": [], "nf": 2}
    with pytest.raises(InputError, match=r"model\.similarity: .*toy-clip with the sentences of toy-clip-resnet"):
        models.build("galip", {"text": text, "clip": clip}, **small)
    assert models.build("galip", {"text": text, "clip": clip}, similarity=0.0, **small).config.similarity == 0
    again = load_encoder("toy-clip")
    assert models.build("galip", {"text": again, "clip": clip}, **small).config.similarity == 4

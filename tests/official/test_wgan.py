"""WGAN's released checkpoints: its outputs equal the released code's; what loads, and what is refused by name."""

import parity
import pytest
import torch
from safetensors.torch import load_file

from t2ilib import official
from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.models.wgan import WGAN, WGANConfig

SYSTEM = "wgan"
NETWORKS = ("generator", "critic")
RELEASED = WGANConfig(joint=False, halve_negatives=False)
TOLERANCE = 1e-4


@pytest.fixture(params=parity.DEVICES)
def golden(request):
    """The stored outputs that a WGAN has, and ours: {name: (ours, the released code's)}. Train mode, but fake_eval."""
    device, entries = request.param, parity.networks(parity.weights("gancls_64"), *NETWORKS)
    system = official.load("wgan", entries).to(device).train()
    noise, sentence = (parity.given(*spec).to(device) for spec in (("noise", 4, 100), ("embedding", 4, 1024)))
    real, wrong = (parity.given(name, 4, 3, 64, 64).tanh().to(device) for name in ("real", "wrong"))
    stored = load_file(parity.GOLDEN / "gancls_64.safetensors")
    with torch.no_grad(), parity.full_precision():
        fake = system.generator(noise, sentence)
        fake_eval = system.eval().generate(Text(sentence), noise)  # with the statistics of the one pass in train mode
        scores, features = system.train().discriminator(real, sentence)
        assert scores.shape == (4,) and features.shape == (4, 512, 4, 4)
        assert scores.std() > 0.1 * scores.mean().abs()  # a score for each sample
        batch = parity.batch(real, sentence, mismatched=wrong)
        terms = system.loss("discriminator", batch, system.prepare(batch, ("discriminator",)))
    assert list(terms) == ["real", "fake", "mismatched"]
    mean = stored["critic_real_batch_mean"]
    return {
        "fake": (fake[:, :, ::2, ::2], stored["fake_sub"]),
        "fake_eval": (fake_eval[:, :, ::2, ::2], stored["fake_eval_sub"]),
        "critic": (scores.mean().reshape(1), mean),
        "score": (system.score(real, Text(sentence)).mean().reshape(1), mean),
        "loss": (-terms["real"].reshape(1), mean),
    }


def test_golden_outputs(golden):
    errors = {name: parity.relative(*pair) for name, pair in golden.items()}
    assert len(errors) == 5 and all(theirs.norm() > 1e-3 for _, theirs in golden.values())
    assert max(errors.values()) < TOLERANCE, errors


def published() -> dict[str, dict[str, torch.Tensor]]:
    return {net: parity.published("gancls")[net] for net in NETWORKS}


def test_published_names_and_shapes_load_as_the_released_setting():
    entries = published()
    system = official.load("wgan", entries)
    assert system.config == RELEASED and not system.training
    assert (system.config.joint, system.config.batch_norm, system.config.halve_negatives) == (False, True, False)
    assert (system.config.penalty, system.config.clip, system.config.rmsprop) == (0, 0.01, False)
    assert all(value.is_meta for value in system.state_dict().values())
    assert len(system.state_dict()) == sum(map(len, entries.values()))
    counts = [sum(p.numel() for p in net.parameters()) for net in (system.generator, system.discriminator)]
    assert counts == [4_756_736, 2_899_072]


def test_names_map_there_and_back():
    released = official.RELEASED["wgan"]
    with torch.device("meta"):
        ours = list(WGAN(RELEASED).state_dict())
    theirs = [released.theirs(name) for name in ours]
    assert [released.ours(name) for name in theirs] == ours
    in_file = [released.in_file(name) for name in ours]
    assert sorted(in_file) == sorted(f"{net}.{name}" for net, part in published().items() for name in part)


@pytest.fixture
def small() -> dict[str, torch.Tensor]:
    """A checkpoint of odd sizes, flat and under released names."""
    torch.manual_seed(0)
    sizes = {"ngf": 4, "ndf": 6, "noise_dim": 7, "embedding_dim": 20, "projected_dim": 5, "image_size": 64}
    system, in_file = WGAN(WGANConfig.tiny(joint=False, **sizes)), official.RELEASED["wgan"].in_file
    return {in_file(name): torch.randn_like(value.float()).round() for name, value in system.state_dict().items()}


SPELLINGS = {
    "per network": lambda small: parity.networks(small, *NETWORKS),
    "flat": lambda small: small,
    "DataParallel": lambda small: {f"module.{name}": value for name, value in small.items()},
    "beside optimisers": lambda small: {"model": parity.networks(small, *NETWORKS), "epoch": 200},
    "a critic called discriminator": lambda small: {
        name.replace("critic.", "discriminator."): value for name, value in small.items()
    },
}


@pytest.mark.parametrize("source", ["mapping", "file"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_loads_with_its_sizes(small, tmp_path, spelling, source):
    checkpoint = SPELLINGS[spelling](small)
    if source == "file":
        torch.save(checkpoint, tmp_path / "checkpoint.pth")
        checkpoint = tmp_path / "checkpoint.pth"
    system = official.load("wgan", checkpoint)
    sizes = {"ngf": 4, "ndf": 6, "noise_dim": 7, "embedding_dim": 20, "projected_dim": 5, "image_size": 64}
    assert system.config == WGANConfig(joint=False, halve_negatives=False, **sizes) and not system.training
    weights, in_file = system.state_dict(), official.RELEASED["wgan"].in_file
    assert sorted(map(in_file, weights)) == sorted(small)
    for name, value in weights.items():
        torch.testing.assert_close(value, small[in_file(name)], check_dtype=False)


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("text", [True, False])
def test_sizes_of_variants(image_size, text):
    sizes = {"image_size": image_size, "ngf": 2, "ndf": 3, "noise_dim": 4, "text": text}
    config = WGANConfig(joint=False, halve_negatives=False, **sizes)
    assert official.load("wgan", WGAN(config).state_dict()).config == config


FULL_SIZE = [f"{net}.{name}" for net, part in published().items() for name in part]


@pytest.mark.parametrize("name", [name for name in FULL_SIZE if "num_batches" not in name])
def test_every_missing_and_misshapen_entry_is_named(name, refused):
    net, entry = name.split(".", 1)
    entries = published()
    value = entries[net].pop(entry)
    assert f"missing {name}" in refused(entries)
    entries[net][entry] = torch.empty([*value.shape[:-1], value.shape[-1] + 1], device="meta")
    named = {name}
    if entry.endswith("projection.0.weight"):  # the two networks disagree on the sentence's length: either may be wrong
        named = {"generator.projection.0.weight", "critic.projector.projection.0.weight"}
    message = refused(entries)
    assert any(f"misshapen {one}" in message for one in named)


def test_all_problems_are_in_one_message(small, refused):
    del small["generator.netG.3.weight"]
    small["critic.netD_1.0.weight"] = torch.zeros(5, 3, 4, 4)
    small["critic.extra"] = torch.zeros(1)
    message = refused(small)
    assert message.startswith("checkpoint: not a wgan checkpoint (networks: generator, critic): ")
    assert "missing generator.netG.3.weight;" in message
    assert "unexpected critic.extra;" in message
    assert message.endswith("misshapen critic.netD_1.0.weight (5, 3, 4, 4), not (6, 3, 4, 4)")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_is_absent_is_noticed(network, refused):
    entries = published()
    entry = next(iter(entries.pop(network)))
    message = refused(entries)
    assert f"missing {network}.{entry}" in message


def test_two_critics_are_one_too_many(small, refused):
    """A checkpoint may hold a GAN's discriminator, too; the critic is the one that belongs to a WGAN."""
    message = refused(small | {"discriminator.netD_2.0.weight": torch.zeros(1, 53, 4, 4)})
    assert message.endswith(": unexpected discriminator.netD_2.0.weight")


def test_another_architectures_file_is_refused():
    with pytest.raises(InputError, match=r"not a wgan checkpoint .*netG\.fc\.weight"):
        official.load("wgan", {"netG": {"fc.weight": torch.zeros(8, 4)}})


@pytest.mark.parametrize("value", [torch.tensor(torch.nan), torch.tensor(torch.inf), torch.tensor(1), torch.tensor(1j)])
def test_weights_that_are_no_finite_real_numbers_are_named(value):
    entries = {network: dict(part) for network, part in published().items()}
    name = "netG.0.weight"
    entries["generator"][name] = value.expand(entries["generator"][name].shape)
    with pytest.raises(InputError, match=r"not finite real generator\.netG\.0\.weight"):
        official.load("wgan", entries)

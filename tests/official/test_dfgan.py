"""DF-GAN's released checkpoints: its outputs, losses and gradients equal the released code's; what loads, what not."""

import parity
import pytest
import torch
from safetensors.torch import load_file

from t2ilib import errors, losses, official
from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.models.dfgan import DFGAN, DFGANConfig
from t2ilib.models.gancls import GANCLS, GANCLSConfig

SYSTEM = "dfgan"
NETWORKS = ("netG", "netD", "netC")
SIZES = DFGANConfig(image_size=64, nf=8, noise_dim=16, embedding_dim=32)  # of the golden file
TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


@pytest.fixture(scope="module", params=parity.DEVICES)
def golden(request):
    """Every stored entry and what ours gives: {name: (ours, the released code's)}; the stored rest under "left"."""
    device = request.param
    system = official.load("dfgan", parity.networks(parity.weights("dfgan_64"), *NETWORKS)).to(device)
    noise, sentence, real = (
        parity.given(*spec).to(device) for spec in (("noise", 3, 16), ("sentence", 3, 32), ("real", 3, 3, 64, 64))
    )
    batch, logits = parity.batch(real.tanh(), sentence), {}

    def spying(*scores):
        logits.update(zip(("real", "fake", "mismatched"), scores, strict=True))
        return hinge(*scores)

    hinge = losses.hinge_discriminator
    with pytest.MonkeyPatch.context() as patch, parity.full_precision():
        patch.setattr(losses, "hinge_discriminator", spying)
        patch.setattr(system, "noise", lambda count, device: noise)
        fakes = system.prepare(batch, system.trained)
        terms = system.loss("discriminator", batch, fakes)
        sum(terms.values()).backward()
        loss_g = sum(system.loss("generator", batch, fakes).values())
        first, judge = system.discriminator.start.weight.grad.clone(), system.discriminator
        gain, last = judge.blocks[0].gain.grad.clone(), judge.head.joint[2].weight.grad.clone()
        loss_g.backward()
        ours = {
            "fake": system.generate(Text(sentence), noise),
            "real_features": judge(batch.images),
            **{f"{name}_logits": values.view(3, 1, 1, 1) for name, values in logits.items()},
            "loss_real": terms["real"],
            **{f"loss_{name}": 2 * terms[name] for name in ("fake", "mismatched")},  # the file's are not yet halved
            "ma_gp": terms["penalty"],
            "loss_d": sum(terms.values()),
            "loss_g": loss_g,
            "grad.netD.conv_img.weight": first,
            "grad.netD.DBlocks.0.gamma": gain,
            "grad.netC.joint_conv.2.weight": last,
            "grad.netG.to_rgb.1.weight": system.generator.picture[1].weight.grad,
        }
    stored = load_file(parity.GOLDEN / "dfgan_64.safetensors")
    pairs = {name: (value, stored.pop(name)) for name, value in ours.items()}
    return {"left": stored, **pairs}


def test_every_golden_entry_is_compared(golden):
    assert list(golden["left"]) == []
    assert all(pair[1].abs().max() > 1e-6 for name, pair in golden.items() if name != "left")


@pytest.mark.parametrize("kind", ["outputs", "gradients"])
def test_golden(golden, kind):
    names = [name for name in golden if name != "left" and name.startswith("grad.") == (kind == "gradients")]
    errors = {name: parity.relative(*golden[name]) for name in names}
    assert len(errors) == {"outputs": 11, "gradients": 4}[kind]
    assert max(errors.values()) < {"outputs": TOLERANCE, "gradients": GRADIENT_TOLERANCE}[kind], errors


def test_published_names_and_shapes_load():
    entries = parity.published("dfgan")
    system = official.load("dfgan", entries)
    assert system.config == DFGANConfig() and not system.training
    assert all(value.is_meta for value in system.state_dict().values())
    assert [sum(p.numel() for p in n.parameters()) for n in (system.generator, system.discriminator)] == [
        9_744_131,
        6_915_142,
    ]
    assert {name: len(part) for name, part in entries.items()} == {"netG": 226, "netD": 32, "netC": 2}
    assert len(system.state_dict()) == 226 + 32 + 2


def test_names_map_there_and_back():
    released = official.RELEASED["dfgan"]
    with torch.device("meta"):
        ours = list(DFGAN().state_dict())
    theirs = [released.theirs(name) for name in ours]
    assert [released.ours(name) for name in theirs] == ours
    published = [name for part in parity.published("dfgan").values() for name in part]
    assert sorted(name.split(".", 1)[1] for name in theirs) == sorted(published)


@pytest.fixture
def small() -> dict[str, dict[str, torch.Tensor]]:
    """The golden weights, per network as they are published."""
    return parity.networks(parity.weights("dfgan_64"), *NETWORKS)


def check_loaded(system: DFGAN, small: dict[str, dict[str, torch.Tensor]]) -> None:
    assert system.config == SIZES and not system.training
    weights = system.state_dict()
    assert len(weights) == sum(map(len, small.values()))
    assert torch.equal(weights["generator.start.weight"], small["netG"]["fc.weight"])
    fused = "GBlocks.2.fuse1.affine1.fc_beta.linear2.weight"
    assert torch.equal(weights["generator.blocks.2.fusions.0.affines.1.shift.2.weight"], small["netG"][fused])
    assert torch.equal(weights["generator.blocks.1.shortcut.bias"], small["netG"]["GBlocks.1.c_sc.bias"])
    assert torch.equal(weights["discriminator.blocks.3.gain"], small["netD"]["DBlocks.3.gamma"])
    assert torch.equal(weights["discriminator.blocks.0.skip.bias"], small["netD"]["DBlocks.0.conv_s.bias"])
    assert torch.equal(weights["discriminator.head.joint.2.weight"], small["netC"]["joint_conv.2.weight"])


def wrapped(small):
    """Return the networks as DataParallel saved them."""
    return {net: {f"module.{name}": value for name, value in part.items()} for net, part in small.items()}


def beside_optimisers(networks):
    """Return what the released training writes: networks, optimisers and the epoch."""
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    adam = torch.optim.Adam([weight], 1e-4, betas=(0.0, 0.9))
    adam.step()
    return {"model": networks, "optimizers": {"optimizer_G": adam.state_dict()}, "epoch": 1300}


SPELLINGS = {
    "per network": lambda small: small,
    "DataParallel": wrapped,
    "flat": lambda small: {f"{net}.{name}": value for net, part in small.items() for name, value in part.items()},
    "beside optimisers": beside_optimisers,
    "beside optimisers, DataParallel": lambda small: beside_optimisers(wrapped(small)),
}


@pytest.mark.parametrize("source", ["mapping", "file"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_loads_with_its_sizes(small, tmp_path, spelling, source):
    checkpoint = SPELLINGS[spelling](small)
    if source == "file":
        torch.save(checkpoint, tmp_path / "state_epoch_1300.pth")
        checkpoint = tmp_path / "state_epoch_1300.pth"
    check_loaded(official.load("dfgan", checkpoint), small)


def test_one_file_per_network(small, tmp_path):
    for net, part in wrapped(small).items():
        torch.save(part, tmp_path / f"{net}.pth")
    check_loaded(official.load("dfgan", {net: tmp_path / f"{net}.pth" for net in small}), small)


@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
def test_sizes_of_variants(image_size):
    config = DFGANConfig(image_size=image_size, nf=2, noise_dim=3, embedding_dim=5)
    assert official.load("dfgan", DFGAN(config).state_dict()).config == config


@pytest.mark.parametrize("missing", [0, 1])
def test_every_missing_and_misshapen_entry_is_named(missing, monkeypatch, refused):
    """Half of the published entries are taken away, the other half has one dimension more; then the other way round."""
    monkeypatch.setattr(official, "LISTED", 10**6)
    monkeypatch.setattr(errors, "LONGEST", 10**6)
    entries = parity.published("dfgan")
    names = [(net, name) for net, part in entries.items() for name in part]
    gone, wrong = names[missing::2], names[1 - missing :: 2]
    for net, name in gone:
        del entries[net][name]
    for net, name in wrong:
        entries[net][name] = entries[net][name].unsqueeze(-1)
    message = refused(entries)
    assert "unexpected" not in message
    first, second = message.partition("missing ")[2].split("; misshapen ")
    assert sorted(name.split(".", 1)[1] for name in first.split(", ")) == sorted(name for _, name in gone)
    assert all(f".{name} (" in second for _, name in wrong) and second.count(", not (") == len(wrong)


def test_all_problems_are_in_one_message(small, refused):
    del small["netG"]["GBlocks.1.c2.bias"]
    del small["netC"]["joint_conv.2.weight"]
    small["netD"]["DBlocks.1.gamma"] = torch.zeros(2)
    small["netD"]["DBlocks.1.extra"] = torch.zeros(1)
    small["netE"] = {f"ema.{i}": torch.zeros(1) for i in range(7)}
    message = refused(small)
    assert "GBlocks.1.c2.bias, " in message and "joint_conv.2.weight; unexpected " in message
    assert "DBlocks.1.extra, netE.ema.0, " in message and "and 3 more" in message
    assert message.endswith("DBlocks.1.gamma (2,), not (1,)")


def test_problems_bear_the_names_of_the_file(small, refused):
    """What is wrong is searched for in the file, where the networks are called netG, netD and netC."""
    del small["netG"]["GBlocks.1.c2.bias"]
    del small["netC"]["joint_conv.2.weight"]
    small["netD"]["DBlocks.1.gamma"] = torch.zeros(2)
    message = refused(small)
    assert "missing netG.GBlocks.1.c2.bias, netC.joint_conv.2.weight; misshapen netD.DBlocks.1.gamma" in message


@pytest.mark.parametrize("name", ["netG.fc.weight", "netD.conv_img.weight", "netC.joint_conv.0.weight"])
@pytest.mark.parametrize("problem", ["missing", "misshapen"])
def test_an_entry_that_tells_a_size_is_named_alone(small, name, problem, refused):
    """One bad entry must not make all the others look misshapen, whatever the sizes of the checkpoint."""
    net, entry = name.split(".", 1)
    value = small[net].pop(entry)
    if problem == "misshapen":
        small[net][entry] = value.new_zeros(value.shape[0] + 1, *value.shape[1:])
    message = refused(small)
    assert f"{entry}" in message and "more" not in message and message.count("not (") == (problem == "misshapen")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_is_absent_is_noticed(small, network, refused):
    entry = next(iter(small.pop(network)))
    message = refused(small)
    assert "missing" in message and entry in message and "netG, netD, netC" in message


def test_another_architectures_file_is_refused(tmp_path, refused):
    system = GANCLS(GANCLSConfig.tiny(joint=False))
    theirs = official.RELEASED["gancls"].theirs
    torch.save({theirs(name): value for name, value in system.state_dict().items()}, tmp_path / "gancls.pth")
    message = refused(tmp_path / "gancls.pth")
    assert message.startswith(f"{tmp_path / 'gancls.pth'}: not a dfgan checkpoint")
    assert "fc.weight" in message and ".projection.0.weight" in message.partition("unexpected ")[2]
    with pytest.raises(InputError, match="not a gancls checkpoint"):
        official.load("gancls", parity.published("dfgan"))


def test_truncated_file_is_named(small, tmp_path, refused):
    torch.save(beside_optimisers(small), tmp_path / "whole.pth")
    cut = tmp_path / "cut.pth"
    cut.write_bytes((tmp_path / "whole.pth").read_bytes()[:-5000])
    message = refused(cut)
    assert str(cut) in message and "download it again" in message


def test_only_networks_may_be_given_where_they_are_not_nested(small, refused):
    assert "epoch must be tensors" in refused({**small, "epoch": 3})

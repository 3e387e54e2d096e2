"""Released checkpoints: what loads, what is refused by name, and that GAN-CLS equals the released code's outputs."""

import parity
import pytest
import torch
from safetensors.torch import load_file, save_file

from t2ilib import losses, official
from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.models.gancls import GANCLS, GANCLSConfig
from t2ilib.models.layers import MinibatchSimilarity

SYSTEM = "gancls"
TOLERANCE = 1e-4


@pytest.fixture(params=parity.DEVICES)
def golden(request):
    """Every stored output, computed by ours: {name: (ours, the released code's)}. Train mode except fake_eval."""
    device, weights = request.param, parity.weights("gancls_64")
    system = official.load("gancls", parity.networks(weights, "generator", "discriminator")).to(device).train()
    noise, sentence = (parity.given(*spec).to(device) for spec in (("noise", 4, 100), ("embedding", 4, 1024)))
    pictures = {name: parity.given(name, 4, 3, 64, 64).tanh().to(device) for name in ("real", "wrong")}
    with torch.no_grad(), parity.full_precision():
        ours = {"fake": system.generator(noise, sentence)}
        ours["fake_eval"] = system.eval().generate(Text(sentence), noise)  # with the statistics of that one pass
        system.train()
        pictures["fake"] = ours["fake"]
        scores = {name: system.discriminator(picture, sentence) for name, picture in pictures.items()}
        batch = parity.batch(pictures["real"], sentence, mismatched=pictures["wrong"])
        system.noise = lambda count, device: noise
        prepared = system.prepare(batch, system.trained)
        ours["loss_d"] = sum(system.loss("discriminator", batch, prepared).values())
        ours["loss_g"] = sum(system.loss("generator", batch, prepared).values())
        critic = official.load("gancls", parity.networks(weights, "generator", "critic")).to(device).train()
        ours["critic"] = critic.discriminator(pictures["real"], sentence)[0].mean().reshape(1)
        layer = MinibatchSimilarity(512, 8, 4, self_term=True).to(device)
        layer.tensor.copy_(weights["minibatch.T_tensor"])
        ours["minibatch"] = layer(parity.given("mb_features", 4, 32, 4, 4).to(device))
    stored = load_file(parity.GOLDEN / "gancls_64.safetensors")
    return {
        **{f"{name}_sub": (ours[name][:, :, ::2, ::2], stored.pop(f"{name}_sub")) for name in ("fake", "fake_eval")},
        **{f"{n}_probability": (s[0].sigmoid(), stored.pop(f"{n}_probability")) for n, s in scores.items()},
        **{f"{n}_features": (scores[n][1][:, ::8], stored.pop(f"{n}_features_sub")) for n in ("real", "fake")},
        **{name: (ours[name], stored.pop(name)) for name in ("loss_d", "loss_g")},
        "feature_matching": (
            losses.feature_matching(scores["fake"][1], scores["real"][1]),
            stored.pop("feature_matching"),
        ),
        "l1": (losses.l1(pictures["fake"], pictures["real"]), stored.pop("l1")),
        "critic": (ours["critic"], stored.pop("critic_real_batch_mean")),
        "minibatch": (ours["minibatch"], stored.pop("minibatch_sub")),
        "left": stored,
    }


def test_golden_outputs(golden):
    assert not golden.pop("left"), "a stored output is not compared"
    errors = {name: parity.relative(*pair) for name, pair in golden.items()}
    assert all(ours.shape == theirs.shape for ours, theirs in golden.values())
    assert max(errors.values()) < TOLERANCE, errors
    ours, theirs = golden["minibatch"]  # nearly all ones: what exceeds 1 agrees too, to the rounding of 1
    assert theirs.sub(1).max() > 5e-4
    torch.testing.assert_close(ours.cpu() - 1, theirs - 1, rtol=0, atol=5e-7)


@pytest.fixture
def small() -> dict[str, torch.Tensor]:
    """A checkpoint of odd sizes, under released names."""
    torch.manual_seed(0)
    system = GANCLS(
        GANCLSConfig.tiny(joint=False, ngf=4, ndf=6, noise_dim=7, embedding_dim=20, projected_dim=5, image_size=64)
    )
    theirs = official.RELEASED["gancls"].theirs
    return {theirs(name): torch.randn_like(value.float()) for name, value in system.state_dict().items()}


def check_loaded(system: GANCLS, small: dict[str, torch.Tensor]) -> None:
    assert not system.training
    weights = system.state_dict()
    for name, value in small.items():
        torch.testing.assert_close(weights[official.RELEASED["gancls"].ours(name)], value, check_dtype=False)


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_sizes_and_weights_come_from_a_file(small, tmp_path, suffix):
    path = tmp_path / f"checkpoint.{suffix}"
    small = {name: value.round() for name, value in small.items()}
    save_file(small, path) if suffix == "safetensors" else torch.save(small, path)
    system = official.load("gancls", path)
    sizes = GANCLSConfig(joint=False, ngf=4, ndf=6, noise_dim=7, embedding_dim=20, projected_dim=5, image_size=64)
    assert system.config == sizes
    check_loaded(system, {n: v for n, v in small.items() if "num_batches" not in n})


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("text", [True, False])
def test_sizes_of_variants(image_size, text):
    config = GANCLSConfig(joint=False, image_size=image_size, ngf=2, ndf=3, noise_dim=4, text=text)
    assert official.load("gancls", GANCLS(config).state_dict()).config == config


def test_prefixes_files_per_network_and_critics(small, tmp_path):
    small = {name: value for name, value in small.items() if "num_batches" not in name}  # as PyTorch 0.3 saved
    parts = parity.networks(small, "generator", "discriminator")
    wrapped = {net: {f"module.{name}": value for name, value in part.items()} for net, part in parts.items()}
    for net, part in wrapped.items():
        torch.save(part, tmp_path / f"{net}.pth")
    spellings = [
        parts,
        wrapped,
        {f"module.{name}": value for name, value in small.items()},
        {net: tmp_path / f"{net}.pth" for net in parts},
        {"generator": parts["generator"], "critic": wrapped["discriminator"]},
    ]
    for spelling in spellings:
        check_loaded(official.load("gancls", spelling), small)


def test_loading_copies(small):
    system = official.load("gancls", {name: value.half() for name, value in small.items()})
    assert system.generator.stages[0].weight.dtype == torch.float32
    system = official.load("gancls", small)
    before = small["generator.netG.0.weight"].clone()
    with torch.no_grad():
        system.generator.stages[0].weight.zero_()
    assert torch.equal(small["generator.netG.0.weight"], before)


@pytest.mark.parametrize("judge", ["discriminator", "critic"])
def test_published_names_and_shapes_load(judge):
    entries = parity.published("gancls")
    system = official.load("gancls", {"generator": entries["generator"], judge: entries[judge]})
    assert system.config == GANCLSConfig(joint=False)
    assert all(value.is_meta for value in system.state_dict().values())
    assert len(system.state_dict()) == len(entries["generator"]) + len(entries[judge])


FULL_SIZE = [f"{net}.{name}" for net in ("generator", "discriminator") for name in parity.published("gancls")[net]]


@pytest.mark.parametrize("name", [name for name in FULL_SIZE if "num_batches" not in name])
def test_every_missing_and_misshapen_entry_is_named(name, refused):
    net, entry = name.split(".", 1)
    entries = {net: parity.published("gancls")[net] for net in ("generator", "discriminator")}
    value = entries[net].pop(entry)
    assert f"missing {name}" in refused(entries)
    entries[net][entry] = torch.empty([*value.shape[:-1], value.shape[-1] + 1], device="meta")
    named = {name}
    if entry.endswith("projection.0.weight"):  # the two networks disagree on the sentence's length: either may be wrong
        named = {"generator.projection.0.weight", "discriminator.projector.projection.0.weight"}
    message = refused(entries)
    assert any(f"misshapen {one}" in message for one in named)


def test_all_problems_are_in_one_message(small, refused):
    del small["generator.netG.3.weight"]
    small["discriminator.netD_1.0.weight"] = torch.zeros(5, 3, 4, 4)
    small["discriminator.extra"] = torch.zeros(1)
    small |= {f"generator.more.{i}": torch.zeros(1) for i in range(7)}
    message = refused(small)
    assert "missing generator.netG.3.weight;" in message
    assert "unexpected discriminator.extra, generator.more.0" in message
    assert "and 3 more" in message
    assert "misshapen discriminator.netD_1.0.weight (5, 3, 4, 4), not (6, 3, 4, 4)" in message


def test_two_judges_are_one_too_many(small, refused):
    message = refused(small | {"critic.netD_2.0.weight": torch.zeros(1, 53, 4, 4)})
    assert "unexpected critic.netD_2.0.weight" in message


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"netG": {"fc.weight": torch.zeros(8, 4), "block0.c1.weight": torch.zeros(8, 8, 3, 3)}}, "netG.fc.weight"),
        ({"fc.weight": torch.zeros(4, 4)}, "fc.weight"),
        ({"generator.netG.0.weight": torch.zeros(())}, "generator.netG.0.weight"),
        ({"generator.netG.x.weight": torch.zeros(1, 1, 1, 1)}, "generator.netG.x.weight"),
        ({"generator": {"netG.0.weight": [1, 2]}, "epoch": 3}, "generator.netG.0.weight, epoch"),
        ({}, "no entries"),
        ({"generator": {}}, "no entries"),
    ],
)
def test_other_contents_are_refused(entries, named, refused):
    assert named in refused(entries)


def test_damaged_files_are_refused(small, tmp_path, refused):
    for name, save in (("a.safetensors", save_file), ("b.pth", torch.save)):
        whole = tmp_path / name
        save(small, whole)
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(whole.read_bytes()[:-2000])
        assert str(cut) in refused(cut)
        assert "download" in refused({"generator": cut})
    for content in (b"", b"<!DOCTYPE html><title>404</title>", b"\x80\x02", bytes(range(256)) * 10):
        for suffix in ("pth", "safetensors"):
            other = tmp_path / f"other.{suffix}"
            other.write_bytes(content)
            assert "not a checkpoint" in refused(other)
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds a list" in refused(tmp_path / "list.pth")
    assert "no such file" in refused(tmp_path / "absent.pth")
    assert "no such file" in refused(tmp_path)


class Hostile:
    """Unpickled by an unguarded loader, this would raise KeyboardInterrupt."""

    def __reduce__(self):
        return exec, ("raise KeyboardInterrupt",)


def test_pickled_code_does_not_run(tmp_path, refused):
    torch.save({"generator": Hostile()}, tmp_path / "hostile.pth")
    assert "not a checkpoint of plain tensors" in refused(tmp_path / "hostile.pth")


def test_unknown_systems_are_named():
    with pytest.raises(InputError, match=r"stylegan.*gancls"):
        official.load("stylegan", {})

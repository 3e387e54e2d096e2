"""GALIP's released file: its outputs, losses and gradients equal the released code's; what loads, what not.

The CLIP may lie in the file, or be given; the golden file's is as large as the released one.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import parity
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file

from t2ilib import losses, official
from t2ilib.encoders import load_encoder
from t2ilib.encoders.clip import CLIPEncoder
from t2ilib.errors import InputError
from t2ilib.features import Batch, Text
from t2ilib.models.galip import GALIP, GALIPConfig
from t2ilib.official.galip import image_size, prompted, tapped
from t2ilib.sampling import load_sampler

SYSTEM = "galip"
NETWORKS = ("netG", "netD", "netC")
INSIDE = "mapping.CLIP_ViT."  # before the names of the CLIP's entries in netG
TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


def encoder(tokens: torch.Tensor, vision: dict, text: dict, embed_dim: int, quick_gelu: bool = True) -> CLIPEncoder:
    """Return a CLIP with random weights that reads the caption "1" as row 1 of `tokens`, and any word as row 0."""
    model = CLIP(embed_dim, vision, text, quick_gelu=quick_gelu)
    rows = tokens.long()
    read = lambda captions: rows[[int(caption) if caption.isdigit() else 0 for caption in captions]]  # noqa: E731
    return CLIPEncoder(model, read, {"name": "another-clip"})


def inside(clip: CLIPEncoder) -> dict[str, torch.Tensor]:
    """Return what netG holds of `clip`, under its names there."""
    visual = clip.model.visual.state_dict()
    return {INSIDE + name: v for name, v in visual.items() if not name.startswith(("ln_post.", "proj"))}


@pytest.fixture(scope="module")
def released():
    """The golden weights: three networks and the CLIP they are built around, and what the released code returned."""
    stored = load_file(parity.GOLDEN / "galip_small.safetensors")
    weights = parity.weights("galip_small")
    sizes = json.loads((parity.GOLDEN / "galip_small.json").read_text())["about"]["config"]["clip"]
    vision = {"image_size": sizes["image_resolution"], "patch_size": sizes["vision_patch_size"]}
    vision |= {"width": sizes["vision_width"], "layers": sizes["vision_layers"]}
    text = {name: sizes[name] for name in ("context_length", "vocab_size")}
    text |= {name: sizes[f"text_{name}"] for name in ("width", "heads", "layers")}
    clip = encoder(stored.pop("tokens"), vision, text, sizes["embed_dim"], sizes["activation"] == "QuickGELU")
    clip.model.load_state_dict(parity.networks(weights, "clip")["clip"])
    return SimpleNamespace(networks=parity.networks(weights, *NETWORKS), clip=clip, stored=stored)


def gradient_in_double(system: GALIP, clip: CLIPEncoder, batch: Batch, noise: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the generator's loss at its last convolution, computed in double precision.

    In single precision one LeakyReLU of netD.main sees 0 within rounding, and its sign decides 0.2 % of this gradient.
    """
    both, weight = (system, clip), system.generator.picture[1].weight
    for each in both:
        each.double()
    precise = replace(batch, images=batch.images.double(), text=Text(batch.text.sentence.double()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "noise", lambda count, device: noise.double())
        loss = sum(system.loss("generator", precise, system.prepare(precise, ("generator",))).values())
    (gradient,) = torch.autograd.grad(loss, weight)
    for each in both:
        each.float()
    return gradient.float()


@pytest.fixture(scope="module", params=parity.DEVICES)
def golden(request, released):
    """Every stored entry and what ours gives: {name: (ours, the released code's)}; the stored rest under "left"."""
    device, clip = request.param, released.clip.to(request.param)
    system = official.load("galip", released.networks, clip).to(device)
    noise, real = (parity.given(*spec).to(device) for spec in (("noise", 2, 16), ("real", 2, 3, 256, 256)))
    text, real, logits = clip.encode(["0", "1"]), real.tanh(), {}
    batch = parity.batch(real, text.sentence)

    def spying(*scores):
        logits.update(zip(("real", "fake", "mismatched"), scores, strict=True))
        return hinge(*scores)

    hinge = losses.hinge_discriminator
    with pytest.MonkeyPatch.context() as patch, parity.full_precision():
        patch.setattr(losses, "hinge_discriminator", spying)
        patch.setattr(system, "noise", lambda count, device: noise)
        seen, embedding = system.image_features(real)
        fakes = system.prepare(batch, system.trained)
        terms = system.loss("discriminator", batch, fakes)
        sum(terms.values()).backward()
        loss_g = sum(system.loss("generator", batch, fakes).values())
        judge = system.discriminator
        gain, last = judge.last.gain.grad.clone(), judge.head.joint[2].weight.grad.clone()
        painted = fakes.more["embedding"]
        ours = {
            "sentence": text.sentence,
            "words_eot_slice": text.words[:, :8],
            "clip_features_sub": seen[:, :, ::16],
            "clip_embedding": embedding,
            "fake_sub": fakes.last[:, :, ::4, ::4],
            "discriminator_features_sub": judge(seen)[:, ::8],
            **{f"{name}_logits": values.view(2, 1, 1, 1) for name, values in logits.items()},
            "fake_embedding": painted,
            "text_image_similarity": F.cosine_similarity(painted, text.sentence).mean(),
            "loss_real": terms["real"],
            **{f"loss_{name}": 2 * terms[name] for name in ("fake", "mismatched")},  # the file's are not yet halved
            "ma_gp": terms["penalty"],
            "loss_d": sum(terms.values()),
            "loss_g": loss_g,
            "grad.netC.joint_conv.2.weight": last,
            "grad.netD.main.gamma": gain,
            "grad.netG.to_rgb.1.weight": gradient_in_double(system, clip, batch, noise),
        }
    stored = dict(released.stored)
    # the file's words come before the projection, and are the first eight: ours are projected as sentences are
    stored["words_eot_slice"] = stored["words_eot_slice"] @ clip.model.text_projection.cpu()
    pairs = {name: (value, stored.pop(name)) for name, value in ours.items()}
    return {"left": stored, **pairs}


def test_every_golden_entry_is_compared(golden):
    assert list(golden["left"]) == []
    zero = [name for name, pair in golden.items() if name != "left" and pair[1].abs().max() <= 1e-6]
    assert zero == ["loss_real"]  # both real logits are above 1


def test_golden(golden):
    errors = {name: parity.relative(*pair) for name, pair in golden.items() if name not in ("left", "loss_real")}
    allowed = {name: GRADIENT_TOLERANCE if name.startswith("grad.") else TOLERANCE for name in errors}
    assert len(errors) == 16 + 3 and golden["loss_real"][0] == 0
    assert all(error < allowed[name] for name, error in errors.items()), errors


def test_the_files_own_clip_sees_what_the_released_one_saw(released):
    networks = released.networks | {"netG": released.networks["netG"] | inside(released.clip.cpu())}
    system = official.load("galip", networks)
    with torch.no_grad():
        features, embedding = system.image_features(parity.given("real", 2, 3, 256, 256).tanh())
    assert embedding is None and system.config == GALIPConfig(nf=8, noise_dim=16, preprocessing="released")
    assert parity.relative(features[:, :, ::16], released.stored["clip_features_sub"]) < TOLERANCE


def test_published_names_and_shapes_load():
    entries = parity.published("galip")
    system = official.load("galip", entries)
    assert system.config == GALIPConfig(preprocessing="released") and not system.training
    assert all(value.is_meta for value in system.state_dict().values())
    assert [sum(p.numel() for p in n.parameters()) for n in (system.generator, system.discriminator)] == [
        51_830_211,
        30_806_021,
    ]
    held = [name for name in entries["netG"] if name.startswith(INSIDE)]
    assert {name: len(part) for name, part in entries.items()} == {"netG": 525, "netD": 17, "netC": 2}
    assert len(system.state_dict()) == 525 + 17 + 2 - len(held)


def test_names_map_there_and_back():
    names = official.RELEASED["galip"]
    with torch.device("meta"):
        system = GALIP()
        ours = list(names.wanted(system, {"eye.proj": torch.zeros(1)}))
    theirs = [names.theirs(name) for name in ours]
    assert [names.ours(name) for name in theirs] == ours and len(set(theirs)) == len(ours)
    assert {
        name: part for name, part in zip(ours, theirs, strict=True) if ".conv1." in part or ".c1." in part
    }.items() >= {
        "eye.conv1.weight": "generator.mapping.CLIP_ViT.conv1.weight",
        "generator.bridge.blocks.3.convolutions.0.bias": "generator.mapping.FBlocks.3.conv1.bias",
        "generator.blocks.3.convolutions.0.bias": "generator.GBlocks.3.c1.bias",
    }.items()
    published = [f"{net}.{name}" for net, part in parity.published("galip").items() for name in part]
    assert sorted(map(names.in_file, ours)) == sorted(published)


@pytest.fixture(scope="module")
def clip() -> CLIPEncoder:
    """A CLIP of the sizes of `GALIPConfig.tiny()`."""
    return tiny_clip()


def tiny_clip(quick_gelu: bool = True, **changes: int) -> CLIPEncoder:
    vision = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 3, **changes}
    vision["head_width"] = vision["width"]
    text = {"context_length": 5, "vocab_size": 9, "width": 16, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    return encoder(torch.tensor([[1, 2, 8, 0, 0]]), vision, text, embed_dim=16, quick_gelu=quick_gelu)


@pytest.fixture
def small(clip) -> dict[str, dict[str, torch.Tensor]]:
    """A small file as it is published, the CLIP inside."""
    return published_form(GALIPConfig.tiny(), clip)


def published_form(config: GALIPConfig, clip: CLIPEncoder | None) -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    system, names = GALIP(config), official.RELEASED["galip"]
    parts = parity.networks({names.in_file(k): v for k, v in system.state_dict().items()}, *NETWORKS)
    return parts if clip is None else parts | {"netG": parts["netG"] | inside(clip)}


def without_clip(networks):
    """Return the networks as a file has them that was saved without the CLIP."""
    kept = {name: value for name, value in networks["netG"].items() if not name.startswith(INSIDE)}
    return networks | {"netG": kept}


def check_loaded(system: GALIP, small: dict[str, dict[str, torch.Tensor]]) -> None:
    assert system.config == GALIPConfig.tiny(preprocessing="released", batch_size=GALIPConfig().batch_size)
    assert not system.training
    weights, kept = system.state_dict(), without_clip(small)
    assert len(weights) == sum(map(len, kept.values()))
    for ours, (net, theirs) in {
        "generator.start.weight": ("netG", "fc_code.weight"),
        "generator.bridge.blocks.2.convolutions.1.weight": ("netG", "mapping.FBlocks.2.conv2.weight"),
        "generator.bridge.blocks.0.fusions.1.affines.0.scale.2.bias": (
            "netG",
            "mapping.FBlocks.0.fuse2.affine0.fc_gamma.linear2.bias",
        ),
        "generator.bridge.widen.weight": ("netG", "mapping.conv_fuse.weight"),
        "generator.bridge.narrow.weight": ("netG", "mapping.conv.weight"),
        "generator.bridge.prompts.weight": ("netG", "mapping.fc_prompt.weight"),
        "generator.blocks.1.shortcut.bias": ("netG", "GBlocks.1.c_sc.bias"),
        "generator.blocks.1.convolutions.0.weight": ("netG", "GBlocks.1.c1.weight"),
        "discriminator.blocks.0.residual.2.weight": ("netD", "DBlocks.0.conv_r.2.weight"),
        "discriminator.blocks.0.share": ("netD", "DBlocks.0.beta"),
        "discriminator.last.gain": ("netD", "main.gamma"),
        "discriminator.last.skip.bias": ("netD", "main.conv_s.bias"),
        "discriminator.head.joint.2.weight": ("netC", "joint_conv.2.weight"),
    }.items():
        assert torch.equal(weights[ours], small[net][theirs]), ours


def wrapped(networks):
    """Return the networks as DataParallel saved them."""
    return {net: {f"module.{name}": value for name, value in part.items()} for net, part in networks.items()}


SPELLINGS = {
    "per network": lambda networks: networks,
    "DataParallel": wrapped,
    "flat": lambda networks: {f"{net}.{name}": v for net, part in networks.items() for name, v in part.items()},
    "under model": lambda networks: {"model": networks, "optimizers": {}, "epoch": 1300},
    "under model, DataParallel": lambda networks: {"model": wrapped(networks), "optimizers": {}, "epoch": 1300},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_loads_with_its_sizes(small, clip, tmp_path, spelling):
    checkpoint = SPELLINGS[spelling](small)
    torch.save(checkpoint, tmp_path / "galip.pth")
    check_loaded(official.load("galip", checkpoint, clip), small)
    check_loaded(official.load("galip", tmp_path / "galip.pth"), small)


def test_both_clips_see_the_same_and_only_the_given_one_embeds(small, clip):
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    noise, text = torch.randn(2, 8), Text(torch.randn(2, 16))
    given, kept, alone = (
        official.load("galip", file, encoder)
        for file, encoder in ((small, clip), (small, None), (without_clip(small), clip))
    )
    features, embedding = given.image_features(pictures)
    assert embedding.shape == (2, 16) and kept.image_features(pictures)[1] is None
    for system in (kept, alone):
        assert torch.allclose(system.image_features(pictures)[0], features, atol=1e-5)
        assert torch.allclose(system.generate(text, noise), given.generate(text, noise), atol=1e-5)
        assert system.generator.bridge.eye is system.eye
    batch = parity.batch(pictures, text.sentence)
    with pytest.raises(InputError, match=r"model\.similarity: .* no last layers.*clip="):
        kept.loss("generator", batch, kept.prepare(batch, ("generator",)))


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 16},
        {"image_size": 128},
        {"noise_dim": 5, "embedding_dim": 7, "nf": 3},
        {"code_channels": 6, "discriminator_channels": 5, "head_channels": 3},
        {"clip_layers": 12, "taps": (2, 5, 9), "prompts": tuple(range(2, 10))},
        {"clip_layers": 2, "taps": (1,), "prompts": (1, 2)},
        {"clip_grid": 7, "clip_size": 56, "image_size": 56, "clip_width": 200},
    ],
    ids=str,
)
def test_sizes_of_variants(changes):
    config = GALIPConfig.tiny(batch_size=GALIPConfig().batch_size, preprocessing="released", **changes)
    size, grid, layers = config.clip_size, config.clip_grid, config.clip_layers
    seeing = tiny_clip(image_size=size, patch_size=size // grid, width=config.clip_width, layers=layers)
    assert official.load("galip", published_form(config, seeing)).config == config


def test_rules_where_shapes_tell_too_little():
    assert image_size(6, 7, 224) == 224 and image_size(5, 7, 224) == 128 and image_size(7, 7, 224) == 512
    assert image_size(1, 7, 224) == 8 and image_size(1, 4, 32) == 8 and image_size(3, 4, 32) == 32
    assert prompted(8, 12) == (2, 3, 4, 5, 6, 7, 8, 9) and prompted(2, 2) == (1, 2) and prompted(2, 3) == (2, 3)
    assert tapped(3, 12) == (2, 5, 9) and tapped(3, 24) == (4, 11, 18) and tapped(1, 12) == (2,)
    assert tapped(2, 3) == (1, 2) and tapped(12, 12) == tuple(range(1, 13))


def test_half_precision_is_the_same_clip(small, clip):
    small["netG"] |= {name: value.half() for name, value in inside(clip).items()}
    check_loaded(official.load("galip", small, clip), small)


def test_another_clip_than_the_files_is_refused(small, clip):
    block = f"{INSIDE}transformer.resblocks.1.mlp.c_fc.weight"
    small["netG"][block] = small["netG"][block] * 1.01
    with pytest.raises(InputError, match=f"another-clip is not the CLIP .* it differs in netG.{block}; give that one"):
        official.load("galip", small, clip)
    official.load("galip", small)  # which is a CLIP, too


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"width": 32}, "clip_width 32, not 16"),
        ({"layers": 2}, "clip_layers 2, not 3"),
        ({"image_size": 64}, "clip_size 64, not 32, clip_grid 8, not 4"),
        ({"quick_gelu": False}, "another activation than OpenAI's QuickGELU"),
    ],
    ids=str,
)
def test_a_clip_of_other_build_is_refused(small, changes, named):
    files = [small] if "layers" in changes else [small, without_clip(small)]  # nothing else tells its depth
    for file in files:
        with pytest.raises(InputError) as caught:
            official.load("galip", file, tiny_clip(**changes))
        assert f"it differs in {named}; " in str(caught.value)


def test_the_toy_clip_is_refused(small):
    with pytest.raises(InputError, match=r"toy-clip.* is not the CLIP .* it differs in clip_size"):
        official.load("galip", small, load_encoder("toy-clip"))


@pytest.mark.parametrize("odd", ["clip", torch.nn.Identity()], ids=["name", "module"])
def test_what_is_no_clip_is_refused(small, odd):
    with pytest.raises(InputError, match=f"clip: a {type(odd).__name__}; give a CLIP, as load_encoder"):
        official.load("galip", small, odd)


def test_a_clip_that_is_no_transformer_is_refused(small):
    with pytest.raises(InputError, match="sees with a ModifiedResNet; choose a CLIP with a vision transformer"):
        official.load("galip", small, load_encoder("toy-clip-resnet"))


def test_a_file_without_clip_needs_one(small, tmp_path, refused):
    torch.save(without_clip(small), tmp_path / "galip.pth")
    message = refused(tmp_path / "galip.pth")
    assert message.startswith(f"{tmp_path / 'galip.pth'}: holds no CLIP") and "give clip=" in message


@pytest.mark.parametrize("system", ["dfgan", "gancls", "wgan"])
def test_no_other_system_takes_a_clip(clip, system):
    with pytest.raises(InputError, match="clip: this system has no CLIP inside; leave clip= out"):
        official.load(system, {}, clip)


NAMED = [
    "netG.fc_code.weight",
    "netG.mapping.FBlocks.1.conv1.weight",
    "netG.mapping.conv_fuse.weight",
    "netG.mapping.conv.weight",
    "netG.mapping.fc_prompt.weight",
    "netG.to_rgb.1.weight",
    "netD.main.conv_s.weight",
    "netD.DBlocks.0.beta",
    "netC.joint_conv.0.weight",
    f"netG.{INSIDE}conv1.weight",
    f"netG.{INSIDE}positional_embedding",
    f"netG.{INSIDE}transformer.resblocks.2.ln_1.bias",
]


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("problem", ["missing", "misshapen"])
def test_an_entry_that_tells_a_size_is_named_alone(small, clip, name, problem):
    """One bad entry must not make all the others look misshapen, whatever the sizes of the checkpoint."""
    net, entry = name.split(".", 1)
    value = small[net].pop(entry)
    if problem == "misshapen":
        small[net][entry] = value.new_zeros(value.shape[0] + 1, *value.shape[1:])
    with pytest.raises(InputError) as caught:
        official.load("galip", small, clip if problem == "missing" else None)
    told = str(caught.value).partition("not a galip checkpoint (networks: netG, netD, netC): ")[2]
    ending = f" {(value.shape[0] + 1, *value.shape[1:])}, not {tuple(value.shape)}" if problem == "misshapen" else ""
    assert told == f"{problem} {name}{ending}"


@pytest.mark.parametrize("name", NAMED)
def test_a_bad_entry_of_the_published_file_is_named_alone(name, refused):
    entries = parity.published("galip")
    net, entry = name.split(".", 1)
    entries[net][entry] = entries[net][entry].unsqueeze(-1)
    message = refused(entries)
    assert f"misshapen {name} (" in message and message.count("not (") == 1


def test_all_problems_are_in_one_message(small, refused):
    del small["netG"][f"{INSIDE}class_embedding"]
    del small["netC"]["joint_conv.2.weight"]
    small["netD"]["DBlocks.0.gamma"] = torch.zeros(2)
    small["netG"][f"{INSIDE}proj"] = torch.zeros(16, 16)
    small["netG"]["mapping.FBlocks.4.conv1.weight"] = torch.zeros(1)
    message = refused(small)
    assert f"missing netC.joint_conv.2.weight, netG.{INSIDE}class_embedding; " in message
    assert f"netG.{INSIDE}proj" in message and "netG.mapping.FBlocks.4.conv1.weight" in message
    assert message.endswith("misshapen netD.DBlocks.0.gamma (2,), not (1,)")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_is_absent_is_noticed(small, clip, network):
    entry = next(iter(small.pop(network)))
    with pytest.raises(InputError) as caught:
        official.load("galip", small, clip)
    message = str(caught.value)
    assert "missing" in message and entry in message and "misshapen" not in message and "unexpected" not in message


def test_dfgans_file_is_refused(refused):
    message = refused(parity.published("dfgan"))
    assert "not a galip checkpoint" in message and "fc_code.weight" in message
    with pytest.raises(InputError, match="not a dfgan checkpoint"):
        official.load("dfgan", parity.published("galip"))


def test_a_released_file_paints_captions(released, tmp_path, monkeypatch):
    """With the CLIP that it was built around; another one is refused."""
    path, noise = tmp_path / "state_epoch_1.pth", parity.given("noise", 2, 16)
    torch.save({"model": released.networks}, path)
    monkeypatch.setattr("t2ilib.released.load_encoder", lambda name: {"clip": released.clip}[name])
    sampler = load_sampler(f"galip:{path}", "cpu")
    drawn = torch.cat(list(sampler.draw(["0", "1"], noise)))
    expected = official.load("galip", released.networks, released.clip).generate(
        released.clip.encode(["0", "1"]), noise
    )
    assert parity.relative(drawn, expected.detach()) < TOLERANCE and sampler.side == drawn.shape[-1]
    monkeypatch.setattr("t2ilib.released.load_encoder", lambda name: load_encoder("toy-clip"))
    with pytest.raises(InputError, match=r"state_epoch_1\.pth"):
        load_sampler(f"galip:{path}", "cpu")

"""CLIP's picture tower, opened: against open_clip's own forward pass, and against loops written out here."""

from types import SimpleNamespace

import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from t2ilib.encoders import load_encoder
from t2ilib.errors import InputError
from t2ilib.models.vit import OpenViT, random_vit


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("toy-clip")


@pytest.fixture(scope="module")
def eye(encoder) -> OpenViT:
    return OpenViT.of(encoder)


def pictures(size: int = 64, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def blocks_of(eye: OpenViT) -> nn.ModuleList:
    return eye.visual.transformer.resblocks


@pytest.fixture
def heard(eye):
    """What each block is given and gives, by its number from 1, whenever it is called."""
    inputs, outputs, hooks = {}, {}, []
    for number, block in enumerate(blocks_of(eye), 1):

        def listen(module, given, made, number=number):
            inputs.setdefault(number, []).append(given[0])
            outputs.setdefault(number, []).append(made)

        hooks.append(block.register_forward_hook(listen))
    yield SimpleNamespace(inputs=inputs, outputs=outputs)
    for hook in hooks:
        hook.remove()


# ---- looking -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 32, 100])
def test_the_embedding_is_the_encoders(encoder, eye, size):
    maps, embedding = eye(eye.shown(pictures(size)))
    assert maps is None
    torch.testing.assert_close(embedding, encoder.encode_images(pictures(size)))
    assert embedding.shape == (2, encoder.sentence_dim) and embedding.norm(dim=1).min() > 0.1


def test_taps_are_what_the_blocks_say(encoder, eye, heard):
    encoder.encode_images(pictures())
    expected = {number: made.pop() for number, made in heard.outputs.items()}
    maps, embedding = eye(eye.shown(pictures()), (1, 3, 4))
    torch.testing.assert_close(embedding, encoder.encode_images(pictures()))
    assert maps.shape == (2, 3, 128, 8, 8)
    for found, number in zip(maps.unbind(1), (1, 3, 4), strict=True):
        for place in range(64):  # patch by patch, row by row; token 0 is the class token
            torch.testing.assert_close(found[:, :, place // 8, place % 8], expected[number][:, 1 + place])


@pytest.mark.parametrize(
    ("taps", "embedded", "calls"), [((2,), False, 2), ((1, 3), False, 3), ((), False, 0), ((1,), True, 4)]
)
def test_blocks_behind_the_last_tap_are_left_out_where_nothing_is_embedded(eye, heard, taps, embedded, calls):
    maps, embedding = eye(eye.shown(pictures()), taps, embedded)
    assert sum(map(len, heard.outputs.values())) == calls
    assert (embedding is not None) is embedded and (maps is not None) is bool(taps)
    if taps:
        torch.testing.assert_close(maps, eye(eye.shown(pictures()), taps)[0])


def test_a_tower_without_its_last_layers_gives_no_embedding(eye):
    cut = OpenViT(eye.visual, embeds=False)
    maps, embedding = cut(cut.shown(pictures()), (1, 2))
    assert embedding is None
    torch.testing.assert_close(maps, eye(eye.shown(pictures()), (1, 2))[0])


def test_a_tower_without_projection_gives_its_class_token():
    torch.manual_seed(0)
    eye = random_vit(16, 2, 8, 2, 4)
    shown = eye.shown(pictures(16))
    projected = eye(shown)[1]
    projection, eye.visual.proj = eye.visual.proj, None
    torch.testing.assert_close(eye(shown)[1] @ projection, projected)
    assert eye(shown)[1].shape == (2, 8) and projected.shape == (2, 4)


# ---- prompts -----------------------------------------------------------------------------------------------------


def patches_of(eye: OpenViT) -> Tensor:
    """What a picture's patches are before the first block: (2, 128, 8, 8)."""
    return eye.visual.conv1(eye.shown(pictures())).detach()


def by_hand(eye: OpenViT, maps: Tensor, prompts: dict[int, Tensor]) -> Tensor:
    """All blocks on class token and patches, with a prompt (B, C) behind them where `prompts` has one."""
    count, width, side, _ = maps.shape
    tokens = torch.zeros(count, 1 + side * side, width)
    for place in range(1 + side * side):
        row, column = divmod(place - 1, side)
        start = maps[:, :, row, column] if place else eye.visual.class_embedding
        tokens[:, place] = start + eye.visual.positional_embedding[place]
    tokens = eye.visual.ln_pre(tokens)
    for number, block in enumerate(blocks_of(eye), 1):
        if number in prompts:
            longer = block(torch.stack([*tokens.unbind(1), prompts[number]], 1))
            tokens = longer[:, : 1 + side * side]
        else:
            tokens = block(tokens)
    rows = [[tokens[:, 1 + row * side + column] for column in range(side)] for row in range(side)]
    return torch.stack([torch.stack(row, 2) for row in rows], 2)


def test_a_pictures_own_patches_without_prompts_give_what_the_last_block_says(eye):
    found = eye.prompted(patches_of(eye))
    torch.testing.assert_close(found, eye(eye.shown(pictures()), (4,))[0][:, 0])
    assert found.std() > 0.1


@pytest.mark.parametrize("blocks", [(1,), (4,), (2, 3), (1, 2, 3, 4)])
def test_prompts_stand_before_their_blocks_and_nowhere_else(eye, heard, blocks):
    maps = patches_of(eye)
    prompts = torch.randn(2, len(blocks), 128, generator=torch.Generator().manual_seed(1))
    found = eye.prompted(maps, prompts, blocks)
    assert {n: given[0].shape[1] for n, given in heard.inputs.items()} == {n: 65 + (n in blocks) for n in (1, 2, 3, 4)}
    expected = by_hand(eye, maps, dict(zip(blocks, prompts.unbind(1), strict=True)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    difference = (found - eye.prompted(maps)).abs().amax((1, 2, 3))
    assert (difference > 1e-3).all()
    if len(blocks) > 1:
        assert (found - eye.prompted(maps, prompts.flip(1), blocks)).abs().max() > 1e-3


def test_prompts_act_on_their_own_picture_and_take_a_gradient(eye):
    maps = torch.cat([patches_of(eye)[:1]] * 2).requires_grad_()
    prompts = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = eye.prompted(maps, prompts, (1, 2, 4))
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    for_prompts, for_maps = torch.autograd.grad(found[0].square().sum(), (prompts, maps))
    assert (for_prompts[0].abs().sum(1) > 0).all() and not for_prompts[1].any()
    assert for_maps[0].any() and not for_maps[1].any()


# ---- what it is shown --------------------------------------------------------------------------------------------


def in_unit_range(eye: OpenViT, level: float, released: bool) -> Tensor:
    """What becomes of a picture of one grey level, before it is standardised: (3,)."""
    shown = eye.shown(torch.full((1, 3, 80, 80), level), released)
    assert shown.shape == (1, 3, 64, 64)
    pixels = shown * torch.tensor(OPENAI_DATASET_STD)[:, None, None] + torch.tensor(OPENAI_DATASET_MEAN)[:, None, None]
    assert pixels.flatten(2).std(2).max() < 1e-5
    return pixels[0, :, 40, 40]


@pytest.mark.parametrize(
    ("released", "black", "grey", "white"),
    [(False, 0.0, 0.5, 1.0), (True, 0.5, 0.75, 1.0)],
    ids=["correct", "released"],
)
def test_black_grey_and_white_at_the_border_of_clip(eye, released, black, grey, white):
    for level, expected in ((-1.0, black), (0.0, grey), (1.0, white)):
        torch.testing.assert_close(in_unit_range(eye, level, released), torch.full((3,), expected), atol=1e-5, rtol=0)


def test_the_encoder_is_shown_the_same_by_default(encoder, eye):
    seen = []
    hook = encoder.model.visual.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder.encode_images(pictures(100))
    hook.remove()
    torch.testing.assert_close(eye.shown(pictures(100)), seen[0])


def test_released_code_picks_the_nearest_pixel_and_ours_the_mean():
    """A checkerboard of twice the size: every second pixel is white, or all of it is grey."""
    eye = random_vit(16, 2, 8, 1, 4)
    place = torch.arange(32)
    board = ((place[:, None] + place) % 2 * 2.0 - 1).expand(1, 3, 32, 32)
    correct, released = (eye.shown(board, kind) * eye.std + eye.mean for kind in (False, True))
    torch.testing.assert_close(correct[..., 2:-2, 2:-2], torch.full((1, 3, 12, 12), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(released, torch.full((1, 3, 16, 16), 0.5))  # black, as every second pixel
    shifted = eye.shown(board.roll(1, 3), True) * eye.std + eye.mean
    torch.testing.assert_close(shifted, torch.ones(1, 3, 16, 16))
    torch.testing.assert_close(eye.shown(pictures(32), True), eye.shown(pictures(32)[..., ::2, ::2], True))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("size", [64, 48])
def test_gradients_reach_the_pixels(eye, size, released):
    images = pictures(size).requires_grad_()
    maps, embedding = eye(eye.shown(images, released), (2,))
    for loss in (maps[0].square().sum(), embedding[0].square().sum()):
        (gradient,) = torch.autograd.grad(loss, images, retain_graph=True)
        assert (gradient[0] != 0).float().mean() > 0.9 and not gradient[1].any()


# ---- which towers ------------------------------------------------------------------------------------------------


def test_an_opened_tower_shares_the_encoders_weights(encoder, eye):
    assert {p.data_ptr() for p in eye.parameters()} == {p.data_ptr() for p in encoder.model.visual.parameters()}
    assert (eye.size, eye.grid, eye.width, eye.layers) == (64, 8, 128, 4)
    assert OpenViT.of(eye) is eye


def test_an_opened_tower_follows_its_encoder_to_another_device():
    """An encoder that moves later takes the shared weights along, and nothing else: the tower's own numbers follow."""
    encoder = load_encoder("toy-clip")
    eye = OpenViT.of(encoder)
    encoder.to("meta")
    assert next(eye.parameters()).is_meta
    assert eye(eye.shown(pictures().to("meta")), (1,))[0].shape == (2, 1, 128, 8, 8)


def test_towers_that_are_no_vision_transformer_are_refused_by_name(encoder):
    with pytest.raises(InputError, match=r"toy-clip-resnet: sees with a ModifiedResNet; .*ViT-B-32"):
        OpenViT.of(load_encoder("toy-clip-resnet"))
    with pytest.raises(InputError, match=r"letters: reads text only; .*toy-clip"):
        OpenViT.of(SimpleNamespace(name="letters", sentence_dim=8))
    visual = random_vit(16, 2, 8, 1, 4).visual
    visual.attn_pool = nn.Identity()
    with pytest.raises(InputError, match="pooled: pools by attention"):
        OpenViT.of(SimpleNamespace(name="pooled", model=SimpleNamespace(visual=visual)))


def test_a_random_tower_has_the_sizes_it_was_asked_for():
    with torch.device("meta"):
        paper = random_vit(224, 7, 768, 12, 512)
    assert (paper.size, paper.grid, paper.width, paper.layers) == (224, 7, 768, 12)
    assert sum(p.numel() for p in paper.parameters()) == 87_849_216  # ViT-B/32, as open_clip counts it
    assert {block.attn.num_heads for block in blocks_of(paper)} == {12}
    assert paper.mean.device.type == "meta"
    for width, heads in ((16, 1), (64, 1), (96, 1), (128, 2)):
        eye = random_vit(24, 3, width, 2, 5)
        assert {block.attn.num_heads for block in blocks_of(eye)} == {heads}
        maps, embedding = eye(eye.shown(pictures(24)), (1, 2))
        assert maps.shape == (2, 2, width, 3, 3) and embedding.shape == (2, 5)
    assert type(blocks_of(eye)[0].mlp.gelu).__name__ == "QuickGELU"


def test_towers_that_cannot_be_opened_say_why():
    sizes = {"width": 16, "layers": 1, "heads": 1, "mlp_ratio": 4.0, "output_dim": 8}
    for options, why in (
        ({"image_size": (32, 64), "patch_size": 8}, "not square"),
        ({"image_size": 32, "patch_size": 8, "attentional_pool": True, "attn_pooler_heads": 1}, "pools by attention"),
    ):
        tower = SimpleNamespace(name="odd", model=SimpleNamespace(visual=VisionTransformer(**sizes, **options)))
        with pytest.raises(InputError, match=f"odd: .*{why}.*choose a CLIP with a vision transformer"):
            OpenViT.of(tower)

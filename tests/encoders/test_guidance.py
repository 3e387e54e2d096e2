"""The CLIP loss of a generator: its value, its schedule, its pixels, and where its gradient goes, or does not go."""

import copy
from types import SimpleNamespace

import pytest
import torch

from t2ilib import losses, models
from t2ilib.encoders import load_encoder
from t2ilib.encoders.clip import CLIPEncoder, open_encoder
from t2ilib.encoders.guidance import ClipGuidance, random_crop, released_clip_loss
from t2ilib.errors import InputError
from t2ilib.features import Batch, Text
from t2ilib.task import System

CAPTIONS = ["a red square on blue", "something green", "a white square on red"]


@pytest.fixture(scope="module")
def encoder(trained) -> CLIPEncoder:
    """A CLIP that looks at 32 pixels and was trained for a moment."""
    return open_encoder(trained[0])


@pytest.fixture(scope="module")
def target(encoder) -> torch.Tensor:
    return encoder.encode(CAPTIONS).sentence


@pytest.fixture(params=models.SYSTEMS)
def system(request) -> System:
    torch.manual_seed(0)
    cls = models.SYSTEMS[request.param]
    system = cls(cls.Config.tiny())
    with torch.no_grad():
        for parameter in system.parameters():  # DF-GAN's text has no effect at the start
            parameter.add_(0.1 * torch.randn_like(parameter))
    return system


def make_batch(system: System, target: torch.Tensor, step: int = 0) -> Batch:
    size, generator = system.config.image_size, torch.Generator().manual_seed(1)
    images, mismatched = (torch.rand(3, 3, size, size, generator=generator) * 2 - 1 for _ in range(2))
    text = Text(torch.randn(3, system.config.embedding_dim, generator=generator))
    rows = torch.arange(3)
    return Batch(images, rows[None], rows, rows, text, mismatched=mismatched, target=target, step=step)


def generator_terms(system: System, batch: Batch) -> dict[str, torch.Tensor]:
    """Paint and return the generator's terms, as the loop does."""
    return system.loss("generator", batch, system.prepare(batch, ("generator",)))


def at(target: torch.Tensor, step: int = 0) -> SimpleNamespace:
    return SimpleNamespace(target=target, step=step)


@pytest.fixture
def pixels(monkeypatch):
    """Record what enters the network of a CLIP, taken back to before CLIP's normalisation."""

    def watch(encoder: CLIPEncoder) -> list[torch.Tensor]:
        seen, network = [], encoder.model.encode_image

        def watching(pictures):
            seen.append(pictures * encoder.std + encoder.mean)
            return network(pictures)

        monkeypatch.setattr(encoder.model, "encode_image", watching)
        return seen

    return watch


def gradients(system: System, loss: torch.Tensor) -> list[torch.Tensor | None]:
    return list(torch.autograd.grad(loss, list(system.generator.parameters()), allow_unused=True, retain_graph=True))


def test_value_is_the_weighted_distance_from_the_captions(encoder, target):
    fakes = torch.rand(3, 3, 32, 32) * 2 - 1
    embedded = encoder.encode_images(fakes)
    cosines = [(x @ t / x.norm() / t.norm()).item() for x, t in zip(embedded, target, strict=True)]
    loss = ClipGuidance(encoder, weight=4.0)(fakes, at(target))
    assert loss.item() == pytest.approx(4 * sum(1 - cosine for cosine in cosines) / 3, rel=1e-5)
    assert len({round(cosine, 4) for cosine in cosines}) == 3


@pytest.mark.parametrize("size", [16, 32, 48])
@pytest.mark.parametrize("crops", [0, 2])
def test_black_is_zero_and_white_is_one_at_the_border_of_the_shipped_clip(pixels, size, crops):
    toy = load_encoder("toy-clip")
    seen = pixels(toy)
    pictures = torch.stack([-torch.ones(3, size, size), torch.ones(3, size, size), torch.zeros(3, size, size)])
    ClipGuidance(toy, crops=crops)(pictures, at(torch.ones(3, toy.sentence_dim)))
    assert len(seen) == 1 + crops
    for view in seen:
        assert view.shape == (3, 3, toy.image_size, toy.image_size)
        for picture, level in zip(view, (0.0, 1.0, 0.5), strict=True):
            torch.testing.assert_close(picture, torch.full_like(picture, level), rtol=0, atol=1e-5)


def test_pixels_beyond_the_range_keep_their_gradient(encoder, target):
    """A clamp would cut the gradient off where a picture is black or white, or where resizing overshoots."""
    fakes = (1.1 * torch.randn(3, 3, 32, 32).sign()).requires_grad_()
    ClipGuidance(encoder)(fakes, at(target)).backward()
    assert (fakes.grad.abs().sum(1) > 0).float().mean() > 0.99


@pytest.mark.parametrize(
    ("start", "ramp", "shares"),
    [
        (0, 0, {0: 1, 1: 1, 9999: 1}),
        (3, 0, {0: 0, 2: 0, 3: 1, 4: 1}),
        (0, 4, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 4: 1, 100: 1}),
        (10, 4, {0: 0, 9: 0, 10: 0.25, 11: 0.5, 13: 1, 14: 1}),
        (5, 1, {4: 0, 5: 1}),
    ],
)
def test_schedule(encoder, target, start, ramp, shares):
    guidance = ClipGuidance(encoder, 4.0, start, ramp)
    assert {step: guidance.share(step) for step in shares} == shares
    fakes, full = torch.zeros(3, 3, 32, 32), ClipGuidance(encoder, 4.0)(torch.zeros(3, 3, 32, 32), at(target)).item()
    values = {step: guidance(fakes, at(target, step)).item() for step in shares}
    assert values == pytest.approx({step: share * full for step, share in shares.items()})
    assert full > 0


def test_crops_are_squares_of_all_sides_from_the_least_and_move():
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    pictures = torch.stack([rows, columns]).expand(5, 2, 20, 20)
    torch.manual_seed(0)
    crops = [random_crop(pictures) for _ in range(300)]
    corners = [(*crop[0, :, 0, 0].int().tolist(), crop.shape[2]) for crop in crops]
    for crop, (top, left, side) in zip(crops, corners, strict=True):
        assert crop.shape == (5, 2, side, side) and 0.7 * 20 <= side <= 20
        assert torch.equal(crop, pictures[..., top : top + side, left : left + side])
    assert {side for *_, side in corners} == set(range(14, 20))
    assert {top for top, _, side in corners if side == 14} == set(range(7)) == {c[1] for c in corners if c[2] == 14}
    assert random_crop(pictures, smallest=1.0).shape == pictures.shape


def test_crops_are_scored_beside_the_whole_picture(encoder, target):
    fakes = (torch.rand(3, 3, 32, 32) * 2 - 1).requires_grad_()
    torch.manual_seed(5)
    loss = ClipGuidance(encoder, 1.0, crops=2)(fakes, at(target))
    torch.manual_seed(5)
    views = [fakes, random_crop(fakes), random_crop(fakes)]
    scores = [losses.clip_loss(encoder.encode_images(view), target) for view in views]
    torch.testing.assert_close(loss, sum(scores) / 3)
    assert len({round(score.item(), 5) for score in scores}) == 3
    (gradient,) = torch.autograd.grad(loss, fakes)
    assert (gradient.abs().sum(1) > 0).float().mean() > 0.99
    torch.manual_seed(6)
    assert ClipGuidance(encoder, 1.0, crops=2)(fakes, at(target)).item() != loss.item()


@pytest.mark.parametrize("released", [False, True], ids=["ours", "released"])
def test_the_clip_term_alone_moves_the_generator_only_in_ours(system, encoder, target, released):
    """Erratum: the released term is a number that the generator's weights cannot change."""
    batch = make_batch(system, target)
    system.guidance = ClipGuidance(encoder, weight=1.0, released=released)
    terms = generator_terms(system, batch)
    assert list(terms)[-1] == "clip" and terms["clip"] > 0.01
    alone = sum((1.0 if name == "clip" else 0.0) * term for name, term in terms.items())  # exactly: times zero
    reached = [gradient for gradient in gradients(system, alone) if gradient is not None]
    assert any(gradient.any() for gradient in reached) is not released
    assert terms["clip"].requires_grad is not released and (terms["clip"].grad_fn is None) is released
    if not released:
        assert all(gradient.abs().sum() > 0 for gradient in gradients(system, terms["clip"]))


@pytest.mark.parametrize("released", [False, True], ids=["ours", "released"])
def test_the_whole_loss_has_the_gradient_of_the_unguided_one_only_as_released(system, encoder, target, released):
    batch, found = make_batch(system, target), []
    for guidance in (None, ClipGuidance(encoder, weight=1.0, released=released)):
        system.guidance = guidance
        torch.manual_seed(2)
        found.append(gradients(system, sum(generator_terms(system, batch).values())))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True)) is released


def test_the_term_is_the_guidance_of_the_systems_own_fakes(system, encoder, target):
    batch = make_batch(system, target, step=3)
    seen = []
    system.guidance = lambda fakes, batch: seen.append((fakes, batch)) or fakes.mean()
    torch.manual_seed(2)
    terms = generator_terms(system, batch)
    ((fakes, given),) = seen
    torch.manual_seed(2)
    torch.testing.assert_close(fakes, system.fakes(batch.text, system.noise(3)).last)
    assert given is batch and terms["clip"] == fakes.mean()


def test_no_weight_of_the_clip_and_no_discriminator_term_takes_part(system, encoder, target):
    batch = make_batch(system, target)
    without = list(system.loss("discriminator", batch, system.prepare(batch, ("discriminator",))))
    system.guidance = ClipGuidance(encoder, weight=1.0)
    generator_terms(system, batch)["clip"].backward()
    assert all(weight.grad is None for weight in encoder.parameters())
    assert all(weight.grad is None for weight in system.discriminator.parameters())
    assert list(system.loss("discriminator", batch, system.prepare(batch, ("discriminator",)))) == without
    assert not [name for name in system.state_dict() if "guidance" in name]  # checkpoints do not carry a CLIP


def test_copies_of_a_system_share_its_clip(system, encoder):
    system.guidance = ClipGuidance(encoder, weight=1.0)
    assert copy.deepcopy(system).guidance.encoder is encoder


@pytest.mark.parametrize("crops", [0, 1])
def test_guidance_works_in_bfloat16_where_pictures_are_resized(system, crops):
    """CPUs do not resize bfloat16 pictures; a 32-pixel one has to become what the shipped CLIP looks at."""
    toy = load_encoder("toy-clip")
    assert toy.image_size != system.config.image_size
    system.guidance = ClipGuidance(toy, weight=1.0, crops=crops)
    batch = make_batch(system, toy.encode(CAPTIONS).sentence)
    with torch.autocast("cpu", torch.bfloat16):
        terms = generator_terms(system, batch)
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    for loss in (terms["clip"], sum(terms.values())):
        found = gradients(system, loss)
        assert all(gradient.isfinite().all() and gradient.any() for gradient in found)


def test_released_pixels_wrap_around(encoder, target, pixels):
    """By hand: 255 x cut to whole numbers, modulo 256. -255 is 1, -127 is 129, -51 is 205; grey, 0, becomes black."""
    seen = pixels(encoder)
    levels = {-1.0: 1, -0.5: 129, -0.2: 205, -1 / 255: 255, -0.001: 0, 0.0: 0, 0.5: 127, 1.0: 255}
    for level in levels:
        released_clip_loss(encoder, torch.full((3, 3, 32, 32), level), target)
    for view, expected in zip(seen, levels.values(), strict=True):
        torch.testing.assert_close(view, torch.full_like(view, expected / 255), rtol=0, atol=1e-5)


def test_released_term_is_the_loss_of_the_wrapped_picture(encoder, target):
    fakes = (torch.rand(3, 3, 32, 32) * 2 - 1).requires_grad_()
    bytes_ = torch.from_numpy((fakes.detach().numpy() * 255).astype("int16").astype("uint8"))  # as a cast wraps
    expected = losses.clip_loss(encoder.encode_images(bytes_.float() / 127.5 - 1), target)
    loss = released_clip_loss(encoder, fakes, target)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert loss.grad_fn is None and not loss.requires_grad
    weighted = ClipGuidance(encoder, 4.0, start=1, ramp=2, released=True)(fakes, at(target, 1))
    torch.testing.assert_close(weighted, 2 * loss)
    assert abs(losses.clip_loss(encoder.encode_images(fakes), target) - loss) > 1e-3


def test_released_term_is_resized_to_what_the_clip_sees(encoder, target, pixels):
    seen = pixels(encoder)
    released_clip_loss(encoder, torch.randn(3, 3, 50, 50).sign(), target)
    assert seen[0].shape == (3, 3, 32, 32)
    assert seen[0].min() >= -1e-5 and seen[0].max() <= 1 + 1e-5  # 8-bit pictures do not overshoot


class Blind:
    name = "damsm"

    def encode(self, captions):
        return None


@pytest.mark.parametrize("name", ["weight", "start", "ramp", "crops"])
def test_negative_numbers_are_named(encoder, name):
    with pytest.raises(InputError, match=rf"clip\.{name} = -1: must be at least 0"):
        ClipGuidance(encoder, **{name: -1})


def test_an_encoder_that_cannot_see_is_named():
    with pytest.raises(InputError, match=r"clip\.encoder: damsm reads text only"):
        ClipGuidance(Blind())

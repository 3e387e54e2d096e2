"""Adversarial and reconstruction losses: pure functions from tensors to scalars.

All compute in float32 whatever the precision of the networks, so they are safe under bfloat16 autocast.

Shapes and types that make no sense raise InputError, from what the host knows of a tensor: nothing is read back from
the device. Numbers that are not finite are therefore no error here but reach the result, where the loop sees them
(`training.non_finite`). A batch of one is as good as any, but for `contrastive`, where it has no rival: its loss is 0.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.errors import InputError


def binary_cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean of -[y log s(l) + (1 - y) log(1 - s(l))] over logits l of any shape, s the sigmoid, y = `target` in [0, 1].

    Taken from the logits, it is exact where the sigmoid itself rounds to 0 or 1.
    """
    logits = _scores("logits", logits)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gan_discriminator(
    real: Tensor, fake: Tensor, mismatched: Tensor | None = None, smoothing: float = 1.0, negative: float = 1.0
) -> dict[str, Tensor]:
    """Terms that the discriminator minimises; all arguments are logits (B,). Reed et al. 2016, algorithm 1.

    L_D = BCE(real, smoothing) + negative * [BCE(fake, 0) + BCE(mismatched, 0)]

    `mismatched` scores real pictures beside another picture's caption (the CLS term; absent when None). A `smoothing`
    of 0.9 is one-sided label smoothing (Salimans et al. 2016, section 3.4); the paper of GAN-CLS has `negative` = 1/2.
    """
    terms = {"real": binary_cross_entropy(real, smoothing), "fake": negative * binary_cross_entropy(fake, 0.0)}
    if mismatched is not None:
        terms["mismatched"] = negative * binary_cross_entropy(mismatched, 0.0)
    return terms


def gan_generator(fake: Tensor) -> Tensor:
    """-mean log s(fake), which the generator minimises; `fake` are logits (B,). Goodfellow et al. 2014, section 3.

    The non-saturating form: its gradient is largest where the discriminator is sure of a fake.
    """
    return binary_cross_entropy(fake, 1.0)


def feature_matching(fake: Tensor, real: Tensor) -> Tensor:
    """mean_f (mean_b fake - mean_b real)^2 over features (B, ...), which the generator minimises.

    Salimans et al. 2016, section 3.1 (there a sum over features, here their mean). No gradient reaches `real`.
    """
    _check_numbers(fake=fake, real=real)
    if fake.shape[1:] != real.shape[1:]:
        raise InputError(f"fake and real: {_shapes(fake, real)}; each row must have the same features")
    return F.mse_loss(fake.float().mean(0), real.detach().float().mean(0))


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of two pictures (B, 3, H, W) in [-1, 1]; the generator minimises it."""
    _check_alike(fake=fake, real=real)
    return F.l1_loss(fake.float(), real.float())


def hinge_discriminator(real: Tensor, fake: Tensor, mismatched: Tensor | None = None) -> dict[str, Tensor]:
    """Terms that the discriminator minimises; all arguments are logits (B,). DF-GAN (Tao et al. 2022), equation 1.

    L_D = mean max(0, 1 - real) + 1/2 mean max(0, 1 + fake) + 1/2 mean max(0, 1 + mismatched)

    `mismatched` scores real pictures beside another picture's sentence. Without it the fakes count in full.
    """
    real, fake = _scores("real", real), _scores("fake", fake)
    terms = {"real": F.relu(1 - real).mean(), "fake": F.relu(1 + fake).mean()}
    if mismatched is None:
        return terms
    return {
        "real": terms["real"],
        "fake": terms["fake"] / 2,
        "mismatched": F.relu(1 + _scores("mismatched", mismatched)).mean() / 2,
    }


def hinge_generator(fake: Tensor) -> Tensor:
    """-mean fake, which the generator minimises; `fake` are logits (B,). DF-GAN, equation 1."""
    return -_scores("fake", fake).mean()


def wasserstein_critic(
    real: Tensor, fake: Tensor, mismatched: Tensor | None = None, halve: bool = True
) -> dict[str, Tensor]:
    """Terms that the critic minimises; all arguments are scores (B,). Arjovsky et al. 2017, equation 3, negated.

    L_C = mean fake - mean real: minus the estimate of the distance. With `mismatched` (CLS) the fakes' place is taken
    by half of each, so that a constant added to all scores cancels; `halve=False` counts both in full, as released.
    """
    terms = {"real": -_scores("real", real).mean(), "fake": _scores("fake", fake).mean()}
    if mismatched is None:
        return terms
    share = 0.5 if halve else 1.0
    return terms | {"fake": share * terms["fake"], "mismatched": share * _scores("mismatched", mismatched).mean()}


def wasserstein_generator(fake: Tensor) -> Tensor:
    """-mean fake, which the generator minimises; `fake` are scores (B,). Arjovsky et al. 2017, theorem 3."""
    return -_scores("fake", fake).mean()


def gradient_penalty(
    score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, weight: float = 10.0, per_pixel: bool = False
) -> Tensor:
    """weight * mean_b (||grad_x C(x_b)|| - 1)^2, which the critic minimises. Gulrajani et al. 2017, equation 3.

    x_b lies at random between real_b and fake_b (B, 3, H, W); `score` gives C(x) (B,), each row of its own picture. The
    norm is that of the whole picture. `per_pixel` takes one over the channels of each pixel, as released code does.
    """
    _check_alike(real=real, fake=fake)
    if real.ndim != 4:
        raise InputError(f"real and fake: {_shapes(real, fake)}; give pictures (B, 3, H, W)")
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(fake.float(), real.float(), share)
    gradient = torch.func.grad(lambda images: _one_each(score(images), images).sum())(between).float()
    norm = torch.linalg.vector_norm(gradient if per_pixel else gradient.flatten(1), dim=1)  # (B,), or (B, H, W)
    return weight * (norm - 1).square().mean()


def matching_aware_penalty(
    score: Callable[[Tensor, Tensor], tuple[Tensor, Any]],
    images: Tensor,
    sentence: Tensor,
    weight: float = 2.0,
    power: float = 6.0,
    summed: bool = False,
) -> tuple[Tensor, Tensor, Any]:
    """MA-GP: weight * mean_b ||grad_(x, e) D(x_b, e_b)||^power, which the discriminator minimises. DF-GAN, section 3.2.

    `score(images, sentence)` returns logits (B,), row b of which depends on row b alone, and more tensors (or an empty
    tuple). Returns the penalty, those logits, and that. As in the released code the norm runs over picture and sentence
    of one sample together, as (sum g^2)^(p/2): no root, so the second derivative exists where the gradient is zero.
    `summed` is the paper's formula, (||grad_x D|| + ||grad_e D||)^p, up to 2^(p/2) times as large.

    torch.func.grad makes the inner gradient part of the forward graph, which torch.compile takes; it refuses
    torch.autograd.grad with create_graph there.
    """

    _check_numbers(images=images, sentence=sentence)
    if len(images) != len(sentence):
        raise InputError(f"images and sentence: {_shapes(images, sentence)}; give one sentence per picture")

    def total(images: Tensor, sentence: Tensor) -> tuple[Tensor, Any]:
        logits, more = score(images, sentence)
        return _one_each(logits, images).sum(), (logits, more)

    gradients, (_, (logits, more)) = torch.func.grad_and_value(total, argnums=(0, 1), has_aux=True)(images, sentence)
    gradients = [gradient.float().flatten(1) for gradient in gradients]  # (B, 3 H W) and (B, D)
    if summed:
        length = sum(torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients)  # (B,)
        return weight * (length**power).mean(), logits, more
    squared = sum(gradient.square().sum(1) for gradient in gradients)  # (B,)
    return weight * (squared ** (power / 2)).mean(), logits, more


def clip_loss(images: Tensor, texts: Tensor) -> Tensor:
    """mean (1 - cos(image_b, text_b)) over CLIP embeddings (B, D); the generator minimises it, 0 is a perfect fit."""
    _check_alike(images=images, texts=texts)
    return 1 - F.cosine_similarity(images.float(), texts.float(), dim=-1).mean()


def words(logits: Tensor, used: Tensor) -> Tensor:
    """mean_b sum_v BCE(logits_bv, used_bv): which of V words a caption, or a picture's captions, use; (B, V) each.

    The encoder minimises it. Joulin et al. 2016, section 3.2, as one two-way choice for each word.
    """
    _check_alike(logits=logits, used=used)
    return F.binary_cross_entropy_with_logits(logits, used, reduction="none").sum(1).mean()


def contrastive(
    images: Tensor, texts: Tensor, groups: Tensor, wrong: Tensor | None = None, *, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the symmetric InfoNCE loss and the top-1 share of texts that find their picture, both scalars.

    images, texts (B, D) of unit length, row i with row i; scale = 1 / temperature; groups (B,) gives equal captions
    equal numbers. L = mean of CE(scale * I T', i) and CE(scale * T I', i) (figure 3 of the paper), where the pairs
    i != j of one group are left out of the softmax. The encoders minimise it. With `wrong` (E, B, D), picture i also
    has to tell its text from wrong_ei (rows of zeros are left out); Yuksekgonul et al. 2023, section 4.
    """
    _check_alike(images=images, texts=texts)
    if images.ndim != 2:
        raise InputError(f"images and texts: {_shapes(images, texts)}; give vectors (B, D)")
    rows, size = images.shape
    if groups.shape != (rows,) or (wrong is not None and wrong.shape[1:] != (rows, size)):
        found = _shapes(groups, *([] if wrong is None else [wrong]))
        raise InputError(f"groups and wrong: {found} beside {_shapes(images)}; give (B,) and (E, B, D)")
    logits = scale * images @ texts.T
    same = (groups[:, None] == groups[None, :]).fill_diagonal_(False)
    logits = logits.masked_fill(same, -math.inf)
    target = torch.arange(len(logits), device=logits.device)
    rivals = logits
    if wrong is not None:
        rival = (scale * (images * wrong).sum(2)).masked_fill(~wrong.any(2), -math.inf)  # (E, B)
        rivals = torch.cat([logits, rival.T], 1)  # (B, B + E)
    loss = (F.cross_entropy(rivals, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (logits.argmax(0) == target).float().mean()


def _scores(name: str, scores: Tensor) -> Tensor:
    """Return what a network said of at least one picture, in float32."""
    _check_numbers(**{name: scores})
    return scores.float()


def _one_each(scores: Tensor, images: Tensor) -> Tensor:
    """Return scores in float32; InputError where there is not one for each picture, as the penalties need it."""
    if scores.numel() != len(images):
        raise InputError(f"score: {_shapes(scores)} for {len(images)} pictures; it must give each of them one number")
    return scores.float()


def _check_numbers(**tensors: Tensor) -> None:
    """Raise InputError for a tensor without rows, and for one of whole numbers: pictures as bytes, ids."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{name}: {kind} {_shapes(tensor)}; give floating-point numbers of at least one picture")


def _check_alike(**tensors: Tensor) -> None:
    """Raise InputError for two tensors of different shapes, which would be stretched to each other."""
    _check_numbers(**tensors)
    first, second = tensors.values()
    if first.shape != second.shape:
        raise InputError(f"{' and '.join(tensors)}: {_shapes(*tensors.values())}; give the same shape")


def _shapes(*tensors: Tensor) -> str:
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)

"""Adversarial and reconstruction losses: pure functions from tensors to scalars.

All compute in float32 whatever the precision of the networks, so they are safe under bfloat16 autocast.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean of -[y log s(l) + (1 - y) log(1 - s(l))] over logits l of any shape, s the sigmoid, y = `target` in [0, 1].

    Taken from the logits, it is exact where the sigmoid itself rounds to 0 or 1.
    """
    logits = logits.float()
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
    return F.mse_loss(fake.float().mean(0), real.detach().float().mean(0))


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of two pictures (B, 3, H, W) in [-1, 1]; the generator minimises it."""
    return F.l1_loss(fake.float(), real.float())


def hinge_discriminator(real: Tensor, fake: Tensor, mismatched: Tensor | None = None) -> dict[str, Tensor]:
    """Terms that the discriminator minimises; all arguments are logits (B,). DF-GAN (Tao et al. 2022), equation 1.

    L_D = mean max(0, 1 - real) + 1/2 mean max(0, 1 + fake) + 1/2 mean max(0, 1 + mismatched)

    `mismatched` scores real pictures beside another picture's sentence. Without it the fakes count in full.
    """
    real, fake = real.float(), fake.float()
    terms = {"real": F.relu(1 - real).mean(), "fake": F.relu(1 + fake).mean()}
    if mismatched is None:
        return terms
    return {
        "real": terms["real"],
        "fake": terms["fake"] / 2,
        "mismatched": F.relu(1 + mismatched.float()).mean() / 2,
    }


def hinge_generator(fake: Tensor) -> Tensor:
    """-mean fake, which the generator minimises; `fake` are logits (B,). DF-GAN, equation 1."""
    return -fake.float().mean()


def wasserstein_critic(
    real: Tensor, fake: Tensor, mismatched: Tensor | None = None, halve: bool = True
) -> dict[str, Tensor]:
    """Terms that the critic minimises; all arguments are scores (B,). Arjovsky et al. 2017, equation 3, negated.

    L_C = mean fake - mean real: minus the estimate of the distance. With `mismatched` (CLS) the fakes' place is taken
    by half of each, so that a constant added to all scores cancels; `halve=False` counts both in full, as released.
    """
    terms = {"real": -real.float().mean(), "fake": fake.float().mean()}
    if mismatched is None:
        return terms
    share = 0.5 if halve else 1.0
    return terms | {"fake": share * terms["fake"], "mismatched": share * mismatched.float().mean()}


def wasserstein_generator(fake: Tensor) -> Tensor:
    """-mean fake, which the generator minimises; `fake` are scores (B,). Arjovsky et al. 2017, theorem 3."""
    return -fake.float().mean()


def gradient_penalty(
    score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, weight: float = 10.0, per_pixel: bool = False
) -> Tensor:
    """weight * mean_b (||grad_x C(x_b)|| - 1)^2, which the critic minimises. Gulrajani et al. 2017, equation 3.

    x_b lies at random between real_b and fake_b (B, 3, H, W); `score` gives C(x) (B,), each row of its own picture. The
    norm is that of the whole picture. `per_pixel` takes one over the channels of each pixel, as released code does.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(fake.float(), real.float(), share)
    gradient = torch.func.grad(lambda images: score(images).float().sum())(between).float()
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

    def total(images: Tensor, sentence: Tensor) -> tuple[Tensor, Any]:
        logits, more = score(images, sentence)
        return logits.float().sum(), (logits, more)

    gradients, (_, (logits, more)) = torch.func.grad_and_value(total, argnums=(0, 1), has_aux=True)(images, sentence)
    gradients = [gradient.float().flatten(1) for gradient in gradients]  # (B, 3 H W) and (B, D)
    if summed:
        length = sum(torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients)  # (B,)
        return weight * (length**power).mean(), logits, more
    squared = sum(gradient.square().sum(1) for gradient in gradients)  # (B,)
    return weight * (squared ** (power / 2)).mean(), logits, more


def clip_loss(images: Tensor, texts: Tensor) -> Tensor:
    """mean (1 - cos(image_b, text_b)) over CLIP embeddings (B, D); the generator minimises it, 0 is a perfect fit."""
    return 1 - F.cosine_similarity(images.float(), texts.float(), dim=-1).mean()


def words(logits: Tensor, used: Tensor) -> Tensor:
    """mean_b sum_v BCE(logits_bv, used_bv): which of V words a caption, or a picture's captions, use; (B, V) each.

    The encoder minimises it. Joulin et al. 2016, section 3.2, as one two-way choice for each word.
    """
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

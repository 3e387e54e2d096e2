"""Layers that several papers share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TextProjection(nn.Sequential):
    """Linear, batch normalisation (or none), LeakyReLU(0.2): sentence features (B, D) to a short condition (B, P)."""

    def __init__(self, embedding_dim: int, projected_dim: int, batch_norm: bool = True):
        norm = nn.BatchNorm1d(projected_dim) if batch_norm else nn.Identity()
        super().__init__(nn.Linear(embedding_dim, projected_dim), norm, nn.LeakyReLU(0.2))


class MinibatchSimilarity(nn.Module):
    """How close each sample of a batch is to the others, per learned kernel. Salimans et al. 2016, section 3.2.

    With M_i = f_i T, one row of `kernel_dim` numbers per kernel b:  o(f_i)_b = sum_j exp(-||M_ib - M_jb||_1), j != i.
    Released code keeps j = i, which adds the constant 1; `self_term=True` does so too.
    """

    def __init__(self, features: int, kernels: int = 128, kernel_dim: int = 16, self_term: bool = False):
        super().__init__()
        self.shape = (kernels, kernel_dim)
        self.self_term = self_term
        self.tensor = nn.Parameter(torch.empty(features, kernels * kernel_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw T so that unit features lie about 1 apart: far beyond that exp(-d) is zero, and so is its gradient."""
        features, kernel_dim = len(self.tensor), self.shape[1]
        nn.init.normal_(self.tensor, 0.0, 1 / (kernel_dim * features**0.5))

    def forward(self, features: Tensor) -> Tensor:
        """Return similarities (B, kernels) of features (B, ...), in float32."""
        with torch.autocast(features.device.type, enabled=False):
            rows = (features.flatten(1).float() @ self.tensor.float()).unflatten(1, self.shape)  # (B, kernels, dim)
            distance = (rows[:, None] - rows[None]).abs().sum(3)  # (B, B, kernels)
            return torch.exp(-distance).sum(1) - (0.0 if self.self_term else 1.0)


def initialise_dcgan(module: nn.Module) -> None:
    """DCGAN's initial weights, for `network.apply`: N(0, 0.02), batch-norm scales N(1, 0.02), biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class ConditionalAffine(nn.Module):
    """Scale and shift each channel by what two small networks read from the condition. DF-GAN, figure 3.

    AFF(x | c) = gamma(c) x + beta(c); gamma and beta are Linear, ReLU, Linear. It starts as the identity.
    """

    def __init__(self, condition_dim: int, channels: int):
        super().__init__()
        self.scale, self.shift = (
            nn.Sequential(nn.Linear(condition_dim, channels), nn.ReLU(), nn.Linear(channels, channels))
            for _ in range(2)
        )
        for network, bias in ((self.scale, 1.0), (self.shift, 0.0)):
            nn.init.zeros_(network[2].weight)
            nn.init.constant_(network[2].bias, bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return maps (B, C, H, W) for maps of the same shape and conditions (B, K)."""
        scale, shift = (network(condition)[:, :, None, None] for network in (self.scale, self.shift))
        return torch.addcmul(shift.to(x.dtype), scale.to(x.dtype), x)


class DeepFusion(nn.Module):
    """Affine, LeakyReLU(0.2), affine, LeakyReLU(0.2): DF-GAN's DFBLK, figure 3.

    The non-linearity between the two makes the text act on more than each channel's mean and size.
    """

    def __init__(self, condition_dim: int, channels: int):
        super().__init__()
        self.affines = nn.ModuleList(ConditionalAffine(condition_dim, channels) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return maps (B, C, H, W) for maps of the same shape and conditions (B, K)."""
        for affine in self.affines:
            x = F.leaky_relu(affine(x, condition), 0.2)
        return x


class EnlargingConvolution(nn.Conv2d):
    """Nearest-neighbour enlargement to twice the size, then a 3x3 convolution: in one step with 4/9 of the work.

    Each output sees two rows and columns of the small map, one of them through two taps of the kernel: their sums make
    a transposed 4x4 convolution with stride 2. Weights and numbers are those of the two steps.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, x: Tensor, size: int | None = None) -> Tensor:
        """Return maps (B, C', 2H, 2W), or by the two steps (B, C', size, size), for maps (B, C, H, W)."""
        if size not in (None, 2 * x.shape[2]):
            return super().forward(F.interpolate(x, size, mode="nearest"))
        kernel = self.weight.transpose(0, 1)  # (C, C', 3, 3)
        for axis in (2, 3):
            first, middle, last = kernel.unbind(axis)
            kernel = torch.stack([last, middle + last, first + middle, first], axis)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class FusionUpBlock(nn.Module):
    """DF-GAN's UPBlock, figure 3: double the size (or go to `size`), then a residual branch with the text in it."""

    def __init__(self, channels_in: int, channels_out: int, condition_dim: int):
        super().__init__()
        self.fusions = nn.ModuleList(DeepFusion(condition_dim, channels) for channels in (channels_in, channels_out))
        self.convolutions = nn.ModuleList(
            [EnlargingConvolution(channels_in, channels_out), nn.Conv2d(channels_out, channels_out, 3, padding=1)]
        )
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor, size: int | None = None) -> Tensor:
        """Return maps (B, C', 2H, 2W), or (B, C', size, size), for maps (B, C, H, W) and conditions (B, K)."""
        # what treats every place alike comes before the enlargement: the same numbers, a quarter of the work
        y = self.convolutions[0](self.fusions[0](x, condition), size)
        y = self.convolutions[1](self.fusions[1](y, condition))
        return F.interpolate(self.shortcut(x), size or 2 * x.shape[2], mode="nearest") + y


class DownBlock(nn.Module):
    """DF-GAN's discriminator block: halve the size, residual branch scaled by a learned gain that starts at zero."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.skip = nn.Conv2d(channels_in, channels_out, 1)
        self.projects = channels_in != channels_out  # the released code builds `skip` always, and uses it only then
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, C', H / 2, W / 2) for maps (B, C, H, W)."""
        pooled = F.avg_pool2d(x, 2)  # before the 1x1 convolution: the same numbers, a quarter of the work
        return (self.skip(pooled) if self.projects else pooled) + self.gain * self.residual(x)


class MatchingHead(nn.Module):
    """One-way output of DF-GAN (figure 4b): one logit for feature map and sentence together.

    Two convolutions with these `kernels`, the first with this `padding`, must leave one number of a map.
    """

    def __init__(
        self, channels: int, embedding_dim: int, hidden: int, kernels: tuple[int, int] = (3, 4), padding: int = 1
    ):
        super().__init__()
        self.joint = nn.Sequential(
            nn.Conv2d(channels + embedding_dim, hidden, kernels[0], 1, padding, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 1, kernels[1], 1, 0, bias=False),
        )

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Return logits (B,) for maps (B, C, h, w), 4x4 by default, and sentence features (B, D)."""
        repeated = sentence.to(features.dtype)[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return self.joint(torch.cat([features, repeated], 1)).flatten()  # (B,)

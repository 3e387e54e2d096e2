"""Layers that several papers share."""

import torch
from torch import Tensor, nn


class TextProjection(nn.Sequential):
    """Linear, batch normalisation, LeakyReLU(0.2): sentence features (B, D) to a short condition (B, P)."""

    def __init__(self, embedding_dim: int, projected_dim: int):
        super().__init__(nn.Linear(embedding_dim, projected_dim), nn.BatchNorm1d(projected_dim), nn.LeakyReLU(0.2))


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

"""Training the toy birds' judge (`t2i train judge`, a few minutes on two cores).

The pictures are disturbed mildly while training (flip and shift by the batches; blur, brightness, contrast and noise
here), so that the judge reads what a generated picture shows instead of failing at its artefacts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES
from t2ilib.errors import InputError
from t2ilib.features import Batch
from t2ilib.metrics.judge import Judge, JudgeConfig, save_judge
from t2ilib.pictures import to_float
from t2ilib.settings import BATCH, POSITIVE, SHARE, WEIGHT, Range, check_ranges
from t2ilib.task import Task, warmup_cosine


@dataclass(frozen=True)
class JudgeTrainingConfig:
    """How the judge is trained."""

    batch_size: Annotated[int, BATCH] = 128
    lr: Annotated[float, POSITIVE] = 3e-3  # peak, of AdamW
    betas: Annotated[tuple[float, float], SHARE] = (0.9, 0.999)
    rise: Annotated[float, Range(above=0, below=1)] = 0.3  # share of the steps in which the rate rises
    weight_decay: Annotated[float, WEIGHT] = 0.02
    label_smoothing: Annotated[float, SHARE] = 0.02
    noise: Annotated[float, Range(least=0, most=2)] = 0.08  # largest standard deviation, in [-1, 1] units
    brightness: Annotated[float, Range(least=0, most=2)] = 0.08  # largest change, in [-1, 1] units

    def __post_init__(self) -> None:
        """Raise InputError for numbers that cannot be."""
        check_ranges(self, "model.")

    @classmethod
    def tiny(cls, **changes: Any) -> "JudgeTrainingConfig":
        """Return a small batch, for tests."""
        return cls(**{"batch_size": 16, **changes})


class JudgeTraining(Task):
    """The judge and its training on the attributes of one data set."""

    Config = JudgeTrainingConfig
    trained = ("judge",)

    def __init__(self, config: JudgeTrainingConfig, labels: Tensor, image_size: int, attributes: Mapping = ATTRIBUTES):
        """Take the value indices (N, A) of the pictures' attributes."""
        super().__init__(config)
        self.judge = Judge(JudgeConfig(attributes, image_size=image_size))
        self.register_buffer("labels", labels, persistent=False)
        self.report: dict[str, float] = {}

    @classmethod
    def build(cls, values: Mapping[str, Any], encoders: Mapping[str, Any], dataset: CaptionedImages) -> "JudgeTraining":
        """Return the task for the pictures of `dataset`, which must know their attributes."""
        if dataset.attributes is None:
            raise InputError("judge: these pictures have no attributes to be learnt; train it on the toy birds")
        labels = torch.from_numpy(dataset.attributes.copy())
        return cls(cls.configure(values), labels, dataset.size)

    def prepare(self, batch: Batch, roles: tuple[str, ...]) -> Tensor:
        """Disturb the pictures."""
        return disturb(batch.images, self.config.noise, self.config.brightness)

    def loss(self, role: str, batch: Batch, images: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy of the attributes, their mean."""
        labels, smoothing = self.labels[batch.indices].T, self.config.label_smoothing
        pairs = zip(self.judge(images), labels, strict=True)
        terms = [F.cross_entropy(logits, own, label_smoothing=smoothing) for logits, own in pairs]
        return {"cross_entropy": torch.stack(terms).mean()}

    def rate(self, role: str, step: int, steps: int) -> float:
        """Rise, then fall to zero along a cosine."""
        return warmup_cosine(step, steps, round(self.config.rise * steps))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return AdamW."""
        config = self.config
        options = {"betas": config.betas, "weight_decay": config.weight_decay}
        return {"judge": torch.optim.AdamW(self.judge.parameters(), config.lr, **options)}

    def measure(self, dataset: CaptionedImages) -> dict[str, float]:
        """Return the share of pictures whose attribute the judge reads right: `mean`, then each attribute by name."""
        predicted = torch.cat([self.judge.predict(to_float(part)) for part in _parts(dataset.images)])
        right = (predicted == torch.from_numpy(dataset.attributes)).double().mean(dim=0)
        shares = dict(zip(self.judge.config.attributes, right.tolist(), strict=True))
        self.report = {name: round(value, 4) for name, value in {"mean": right.mean().item(), **shares}.items()}
        return self.report

    def save(self, folder: str | Path) -> None:
        """Write the judge, with what it last reached."""
        save_judge(self.judge, folder, self.report)


def disturb(images: Tensor, noise: float, brightness: float) -> Tensor:
    """Blur, brighten and add noise to a batch (N, 3, H, W) in [-1, 1]; every second batch is blurred."""

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, device=images.device)

    count, _, height, width = images.shape
    if torch.rand(()) < 0.5:
        scale = 0.5 + 0.4 * torch.rand(()).item()
        small = F.interpolate(images, (int(height * scale), int(width * scale)), mode="bilinear", antialias=True)
        images = F.interpolate(small, (height, width), mode="bilinear")
    images = images * draw(1 - brightness, 1 + brightness, count, 1, 1, 1)
    images = images + draw(-brightness, brightness, count, 3, 1, 1) / 2
    return (
        images
        + draw(-brightness, brightness, count, 1, 1, 1)
        + torch.randn_like(images) * draw(0, noise, count, 1, 1, 1)
    )


def _parts(images: Any, size: int = 256) -> list:
    return [images[first : first + size] for first in range(0, len(images), size)]

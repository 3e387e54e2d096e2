"""The judge of the toy birds: a small network that reads a picture's attributes, shipped with the project.

Its features also serve the toy Frechet distance and the diversity. It is trained on real toy birds (judge_training.py).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from t2ilib import weights
from t2ilib.data.toy import ATTRIBUTES
from t2ilib.devices import CPU_BATCH
from t2ilib.errors import InputError, one_line
from t2ilib.files import WEIGHTS
from t2ilib.pictures import resized

FOLDER = WEIGHTS / "judge"
KIND = "t2ilib-judge"
LARGEST = 65_536  # of a judge's sizes


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of the judge."""

    attributes: Mapping[str, tuple[str, ...]]  # attribute name -> its values, in the order of the heads
    image_size: int = 64  # pictures of any other size are resized to it, antialiased
    widths: tuple[int, ...] = (32, 64, 128)  # channels at 1/2, 1/4, 1/8 of the size
    map_width: int = 48  # channels of the last map, flattened so that positions count
    feature_size: int = 160


class Judge(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] -> one row of logits per attribute, and the features (N, F) before the heads."""

    def __init__(self, config: JudgeConfig):
        """Build the networks with random weights."""
        super().__init__()
        self.config = config
        first, *others = config.widths
        stages = [nn.PixelUnshuffle(2), *_block(12, first)]
        for width_in, width_out in zip(config.widths, others, strict=False):
            stages += [*_block(width_in, width_out, stride=2), *_block(width_out, width_out)]
        map_size = config.image_size // 2 ** (len(others) + 1) // 2
        stages += [nn.AvgPool2d(2), nn.Conv2d(config.widths[-1], config.map_width, 1), nn.Flatten()]
        stages += [nn.Linear(config.map_width * map_size**2, config.feature_size, bias=False)]
        self.trunk = nn.Sequential(*stages, nn.BatchNorm1d(config.feature_size), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(config.feature_size, len(values)) for values in config.attributes.values())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (N, values) for each attribute, in the order of `config.attributes`."""
        features = self.trunk(self._resized(images))
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) float32 >= 0, and the likeliest value of each attribute, (N, A) int64, both on the CPU."""
        self.eval()
        device = next(self.parameters()).device
        parts = images.split(CPU_BATCH if device.type == "cpu" else 256)
        features = torch.cat([self.trunk(self._resized(part.to(device, torch.float32))) for part in parts])
        if not features.isfinite().all():
            raise InputError("images: some are NaN or infinite, which the judge cannot read; look for what made them")
        values = torch.stack([head(features).argmax(dim=1) for head in self.heads], dim=1)
        return features.float().cpu(), values.cpu()

    def predict(self, images: Tensor) -> Tensor:
        """The likeliest value of each attribute, (N, A) int64 on the CPU."""
        return self.read(images)[1]

    def features(self, images: Tensor) -> Tensor:
        """Features (N, F) float32 >= 0 on the CPU, for the toy Frechet distance and the diversity."""
        return self.read(images)[0]

    @property
    def fingerprint(self) -> str:
        """Name and first digits of the weights' SHA-256, for result files."""
        return f"toy-judge-{weights.digest(self.state_dict())[:12]}"

    def _resized(self, images: Tensor) -> Tensor:
        size = self.config.image_size
        return images if images.shape[-1] == size else resized(images, size).clamp(-1, 1)  # what bicubic overshoots


def _block(width_in: int, width_out: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width_out), nn.ReLU()]


def save_judge(judge: Judge, folder: str | Path = FOLDER, report: Mapping | None = None) -> None:
    """Write the judge to `folder`, with its sizes, its attributes and the `report` of its training."""
    weights.save_network(folder, KIND, {**asdict(judge.config), "report": dict(report or {})}, judge)


def load_judge(folder: str | Path = FOLDER, device: torch.device | str = "cpu") -> Judge:
    """Read a judge, ready to predict. Raises `InputError` when it is missing or was trained for other attributes."""
    remedy = "train it: t2i train judge, then t2i export"
    stored = weights.read_config(folder, KIND, remedy)
    path = Path(folder) / weights.CONFIG
    try:
        attributes = {name: tuple(values) for name, values in stored["attributes"].items()}
        sizes = {name: stored[name] for name in ("image_size", "map_width", "feature_size")}
        config = JudgeConfig(attributes, widths=tuple(stored["widths"]), **sizes)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({one_line(repr(error))}); {remedy}") from error
    if list(attributes.items()) != list(ATTRIBUTES.items()):
        raise InputError(f"{folder}: this judge knows other attributes than the renderer; {remedy}")
    for name, value in (sizes | {"widths": config.widths}).items():
        each = value if isinstance(value, tuple) else (value,)
        if not (0 < len(each) < 8 and all(type(size) is int and 1 <= size <= LARGEST for size in each)):
            raise InputError(f"{path}: damaged ({name} = {one_line(repr(value))}); {remedy}")
    with torch.device("meta"):
        weights.check_shapes(folder, Judge(config), remedy)
    weights.check_belongs(folder, stored, remedy)
    judge = Judge(config)
    weights.load_weights(folder, judge, remedy)
    return judge.to(device).eval().requires_grad_(False)

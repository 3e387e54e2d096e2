"""The judge of the toy birds: a small network that reads a picture's attributes, and the accuracy it measures.

Every toy bird knows its attributes, and every caption mentions some of them. So "does the picture show what the
caption says?" has an exact answer: the judge names the attributes of the generated picture, and we count how many of
the mentioned ones agree. The judge's features also serve the toy Frechet distance and the diversity; it was trained
on real toy birds by `python -m t2ilib.metrics.judge_training`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from t2ilib.data.toy import ATTRIBUTES
from t2ilib.data.toy_captions import parse
from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS, atomic, write_json

FOLDER = WEIGHTS / "judge"


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
    def predict(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """The likeliest value of each attribute, (N, A) int64 on the CPU."""
        return torch.cat([self._value_indices(self.trunk(part)) for part in self._parts(images, batch_size)])

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Features (N, F) float32 >= 0 on the CPU, for the toy Frechet distance and the diversity."""
        return torch.cat([self.trunk(part).float().cpu() for part in self._parts(images, batch_size)])

    @property
    def fingerprint(self) -> str:
        """Name and first digits of the weights' SHA-256, for result files."""
        digest = hashlib.sha256()
        for _, value in sorted(self.state_dict().items()):
            digest.update(value.cpu().numpy().tobytes())
        return f"toy-judge-{digest.hexdigest()[:12]}"

    def _value_indices(self, features: Tensor) -> Tensor:
        return torch.stack([head(features).argmax(dim=1) for head in self.heads], dim=1).cpu()

    def _parts(self, images: Tensor, batch_size: int):
        self.eval()
        device = next(self.parameters()).device
        for part in images.split(batch_size):
            yield self._resized(part.to(device, torch.float32))

    def _resized(self, images: Tensor) -> Tensor:
        size = (self.config.image_size,) * 2
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def _block(width_in: int, width_out: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width_out), nn.ReLU()]


def save_judge(judge: Judge, folder: str | Path = FOLDER, report: Mapping | None = None) -> None:
    """Write `config.json` (sizes, attributes, `report`) and `model.safetensors` (half precision)."""
    folder = Path(folder)
    with atomic(folder / "model.safetensors") as temporary:
        state = {
            name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()
        }
        save_file({name: value.contiguous().cpu() for name, value in state.items()}, str(temporary))
    write_json(folder / "config.json", {**asdict(judge.config), "report": dict(report or {})})


def load_judge(folder: str | Path = FOLDER, device: torch.device | str = "cpu") -> Judge:
    """Read a judge, ready to predict. Raises `InputError` when it is missing or was trained for other attributes."""
    folder = Path(folder)
    remedy = "train it: python -m t2ilib.metrics.judge_training"
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder.name}/model.safetensors: no judge here; {remedy}")
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored.pop("report", None)
    config = JudgeConfig(
        **{
            **stored,
            "attributes": {name: tuple(values) for name, values in stored["attributes"].items()},
            "widths": tuple(stored["widths"]),
        }
    )
    if list(config.attributes.items()) != [(name, tuple(values)) for name, values in ATTRIBUTES.items()]:
        raise InputError(f"{folder.name}/config.json: this judge knows other attributes than the renderer; {remedy}")
    judge = Judge(config)
    judge.load_state_dict(load_file(folder / "model.safetensors"))
    return judge.to(device).eval().requires_grad_(False)


def attribute_accuracy(judge: Judge, images: Tensor, captions: Sequence[str]) -> dict:
    """How often pictures (N, 3, H, W) in [-1, 1] show the attributes that their captions (N) mention, each in 0..1.

    Returns `mentioned` (over all mentioned attributes of all captions), `chance` (the same for guessing evenly),
    `count`, and `attributes`: name -> accuracy, count, chance; an attribute that no caption mentions is left out.
    Raises `InputError` when counts differ or when no caption mentions any attribute.
    """
    if len(images) != len(captions):
        raise InputError(f"captions: {len(captions)} for {len(images)} pictures; give one caption per picture")
    return accuracy_of(judge.predict(images), [parse(caption) for caption in captions], judge.config.attributes)


def accuracy_of(predicted: Tensor, mentioned: Sequence[Mapping[str, str]], attributes: Mapping) -> dict:
    """The counting of `attribute_accuracy`: predicted value indices (N, A) against each caption's mentioned values."""
    table = {}
    for column, (name, values) in enumerate(attributes.items()):
        hits = [values[predicted[row, column]] == words[name] for row, words in enumerate(mentioned) if name in words]
        if hits:
            table[name] = {"accuracy": sum(hits) / len(hits), "count": len(hits), "chance": 1 / len(values)}
    count = sum(entry["count"] for entry in table.values())
    if not count:
        raise InputError("captions: none mentions an attribute of the toy birds; use toy captions, or no judge")
    return {
        "mentioned": sum(entry["accuracy"] * entry["count"] for entry in table.values()) / count,
        "chance": sum(entry["chance"] * entry["count"] for entry in table.values()) / count,
        "count": count,
        "attributes": table,
    }

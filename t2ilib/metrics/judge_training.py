"""Train the toy birds' judge: `python -m t2ilib.metrics.judge_training` (a few minutes on two cores).

The pictures are disturbed mildly while training (flip, shift, blur, brightness, contrast, noise), so that the judge
reads what a generated picture shows instead of failing at its artefacts.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES, toy_birds
from t2ilib.metrics.attributes import FOLDER, Judge, JudgeConfig, save_judge


@dataclass(frozen=True)
class JudgeTraining:
    """How the judge is trained."""

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.02
    shift: int = 4  # pixels, either way
    noise: float = 0.08  # largest standard deviation, in [-1, 1] units
    brightness: float = 0.08  # largest change, in [-1, 1] units
    seed: int = 0


def train_judge(
    dataset: CaptionedImages,
    folder: str | Path = FOLDER,
    training: JudgeTraining | None = None,
    attributes: dict[str, tuple[str, ...]] = ATTRIBUTES,
    device: str = "cpu",
) -> dict:
    """Train on the `train` split, save the judge to `folder`, return seconds and the accuracies on the other splits."""
    training, started = training or JudgeTraining(), time.perf_counter()
    torch.manual_seed(training.seed)
    judge = Judge(JudgeConfig(attributes, image_size=dataset.size)).to(device, memory_format=torch.channels_last)
    train = dataset.split("train")
    _fit(judge, _pictures(train).to(device), torch.from_numpy(train.attributes).to(device), training)
    report = {"seconds": round(time.perf_counter() - started), "train": len(train)}
    for name in ("validation", "test"):
        report[name] = judge_report(judge, dataset.split(name))
    save_judge(judge, folder, report)
    return report


def judge_report(judge: Judge, dataset: CaptionedImages) -> dict[str, float]:
    """Share of pictures whose attribute the judge reads right: `mean`, then each attribute by name."""
    right = (judge.predict(_pictures(dataset)) == torch.from_numpy(dataset.attributes)).double().mean(dim=0)
    accuracies = dict(zip(judge.config.attributes, right.tolist(), strict=True))
    return {name: round(value, 4) for name, value in {"mean": right.mean().item(), **accuracies}.items()}


def disturb(images: Tensor, training: JudgeTraining, generator: torch.Generator) -> Tensor:
    """Flip, shift, blur, brighten and add noise to a batch (N, 3, H, W) in [-1, 1]; every second batch is blurred."""

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).to(images.device)

    count, _, height, width = images.shape
    images = torch.where(draw(0, 1, count, 1, 1, 1) < 0.5, images.flip(-1), images)
    images = _shifted(images, training.shift, generator)
    if torch.rand((), generator=generator) < 0.5:
        scale = float(draw(0.5, 0.9))
        small = F.interpolate(images, (int(height * scale), int(width * scale)), mode="bilinear", antialias=True)
        images = F.interpolate(small, (height, width), mode="bilinear")
    change = training.brightness
    images = images * draw(1 - change, 1 + change, count, 1, 1, 1) + draw(-change, change, count, 3, 1, 1) / 2
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return images + draw(-change, change, count, 1, 1, 1) + noise * draw(0, training.noise, count, 1, 1, 1)


def _shifted(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move each picture by up to `shift` pixels either way; what is uncovered repeats the border."""
    if not shift:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator).to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    picture = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _fit(judge: Judge, pictures: Tensor, targets: Tensor, training: JudgeTraining) -> None:
    """Minimise the mean cross-entropy over the attributes with AdamW and a one-cycle learning rate."""
    steps = max(len(pictures) // training.batch_size, 1)
    optimizer = torch.optim.AdamW(judge.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, training.epochs * steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)
    generator = torch.Generator().manual_seed(training.seed)
    judge.train()
    for _ in range(training.epochs):
        order = torch.randperm(len(pictures), generator=generator)
        for rows in order.split(training.batch_size)[:steps]:
            images = disturb(pictures[rows.to(pictures.device)], training, generator)
            logits = judge(images.contiguous(memory_format=torch.channels_last))
            losses = [criterion(logit, target) for logit, target in zip(logits, targets[rows].T, strict=True)]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            schedule.step()
    judge.eval()


def _pictures(dataset: CaptionedImages) -> Tensor:
    """All pictures as (N, 3, H, W) float32 in [-1, 1]."""
    images = torch.from_numpy(np.ascontiguousarray(dataset.images)).permute(0, 3, 1, 2)
    return images.float().div_(127.5).sub_(1)


def main() -> None:
    """Render the toy birds, train the judge on them and print what it reaches."""
    parser = argparse.ArgumentParser(description="Train the judge of the toy birds' attributes.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the judge is written")
    parser.add_argument("--train", type=int, default=8000, help="number of training pictures")
    parser.add_argument("--epochs", type=int, default=JudgeTraining.epochs)
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and of the training")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    dataset = toy_birds(train=options.train, size=64, seed=options.seed)
    training = JudgeTraining(epochs=options.epochs, seed=options.seed)
    report = train_judge(dataset, options.folder, training, device=options.device)
    print(f"{options.train} pictures, {report['seconds']} s on {options.device}")
    for name in ("validation", "test"):
        print(name, *(f"{attribute} {value:.2%}" for attribute, value in report[name].items()), sep="  ")


if __name__ == "__main__":
    main()

"""How fast is a training step of DF-GAN, and what is each measure worth? `python benchmarks/step.py --help`.

The yardstick is the plain step, written out below: float32, eager, the penalty by `autograd.grad` with a root, the
passes in the order of the released code, memory handled as glibc does by default. Every measure is added to those
before it. All variants run in one process, turn by turn, so that whatever else the machine does hits them alike; a
ratio is one of medians. The result goes to `benchmarks/results` with hardware, commit, versions and command.
"""

import argparse
import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.devices import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory, this_process
from t2ilib.features import Batch, Text
from t2ilib.files import write_json
from t2ilib.models.dfgan import DFGAN, DFGANConfig
from t2ilib.models.layers import DownBlock, FusionUpBlock
from t2ilib.provenance import environment
from t2ilib.training import TrainingSettings
from t2ilib.training.loop import Trainer

RESULTS = Path(__file__).parent / "results"


@dataclass
class Variant:
    """A way to take a step."""

    name: str
    step: Callable[[int], object]
    keeps_memory: bool
    seconds: list[float]


class OneBatch:
    """The same pictures and sentences in every batch: data is not what is measured."""

    def __init__(self, config: DFGANConfig, device: torch.device, layout: torch.memory_format):
        generator = torch.Generator().manual_seed(0)
        side, count = config.image_size, config.batch_size
        images = torch.rand(count, 3, side, side, generator=generator) * 2 - 1
        self.images = images.to(device).to(memory_format=layout)
        self.text = Text(torch.randn(count, config.embedding_dim, generator=generator)).to(device)
        self.rows, self.batch_size = torch.arange(count, device=device), count

    def batch(self, number: int) -> Batch:
        """Return the batch."""
        return Batch(self.images, self.rows[None], self.rows, self.rows, self.text)


class PlainUp(FusionUpBlock):
    """The generator's block in the order of the paper's figure: first the enlargement, then everything else."""

    def forward(self, x: Tensor, condition: Tensor, size: int | None = None) -> Tensor:
        """Return maps twice as large."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        y = x
        for fuse, convolution in zip(self.fusions, self.convolutions, strict=True):
            y = F.conv2d(fuse(y, condition), convolution.weight, convolution.bias, padding=1)
        return self.shortcut(x) + y


class PlainDown(DownBlock):
    """The discriminator's block in the released order: the shortcut's convolution at full size, then pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return maps half as large."""
        return F.avg_pool2d(self.skip(x) if self.projects else x, 2) + self.gain * self.residual(x)


def plain(config: DFGANConfig, device: torch.device) -> Callable[[int], None]:
    """Return the plain step: what one writes from the paper, in the released code's order."""
    torch.manual_seed(0)
    system = DFGAN(config).to(device).train()
    for module in system.modules():  # the same weights, the plain order of operations
        if isinstance(module, FusionUpBlock | DownBlock):
            module.__class__ = PlainUp if isinstance(module, FusionUpBlock) else PlainDown
    generator, discriminator, head = system.generator, system.discriminator, system.discriminator.head
    source = OneBatch(config, device, torch.contiguous_format)
    optimizer_g = torch.optim.Adam(generator.parameters(), config.lr, config.betas)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), config.discriminator_lr, config.betas)

    def step(number: int) -> None:
        images, sentence = source.images.clone().requires_grad_(), source.text.sentence.clone().requires_grad_()
        real_features = discriminator(images)
        real = head(real_features, sentence)
        mismatched = head(real_features.roll(-1, 0), sentence)
        noise = torch.randn(len(images), config.noise_dim, device=device)
        fakes = generator(noise, sentence.detach())
        fake = head(discriminator(fakes.detach()), sentence)
        loss = torch.relu(1 - real).mean() + (torch.relu(1 + fake).mean() + torch.relu(1 + mismatched).mean()) / 2
        loss = loss + root_penalty(real, images, sentence)
        optimizer_d.zero_grad()
        loss.backward()
        optimizer_d.step()

        loss = -head(discriminator(fakes), sentence.detach()).mean()
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()
        loss.item()

    return step


def root_penalty(logits: Tensor, images: Tensor, sentence: Tensor) -> Tensor:
    """2 mean ||grad||^6 with a root, as it is usually written."""
    gradients = torch.autograd.grad(logits.sum(), (images, sentence), create_graph=True)
    flat = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
    return 2 * (flat.square().sum(1).sqrt() ** 6).mean()


def ours(config: DFGANConfig, device: torch.device, settings: TrainingSettings) -> Callable[[int], dict]:
    """Return the library's step."""
    torch.manual_seed(0)
    trainer = Trainer(DFGAN(config), settings)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    source = OneBatch(config, device, layout)

    def step(number: int) -> dict:
        terms = trainer.step(number, source)
        next(iter(terms.values())).item()
        return terms

    return step


def variants(config: DFGANConfig, device: torch.device, compiled: bool, lazy: int) -> list[Variant]:
    """Return the plain step, and ours with one measure more each time."""
    base = TrainingSettings(precision="fp32", channels_last=False)
    layout, best = replace(base, channels_last=True), TrainingSettings()
    found = [
        ("plain", plain(config, device), False),
        ("our step", ours(config, device, base), False),
        ("+ channels last", ours(config, device, layout), False),
        ("+ bfloat16", ours(config, device, best), False),
        ("+ freed memory kept", ours(config, device, best), True),
    ]
    seldom = replace(config, penalty_every=lazy)
    if compiled:
        found.append(("+ compiled", ours(config, device, replace(best, compile=True)), True))
        found.append((f"+ penalty every {lazy}", ours(seldom, device, replace(best, compile=True)), True))
    else:
        found.append((f"+ penalty every {lazy}", ours(seldom, device, best), True))
    return [Variant(*parts, seconds=[]) for parts in found]


def default_memory() -> None:
    """Set glibc's thresholds to where they drift by themselves in a process that frees large blocks."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 32 << 20)
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 64 << 20)
        ctypes.CDLL(None).malloc_trim(0)


def measure(rounds: list[Variant], device: torch.device, repeats: int, cycle: int) -> None:
    """Time every variant `repeats` times, turn by turn; a turn is `cycle` steps: a lazy penalty is in it once."""
    for turn in range(-1, repeats):  # the first turn warms up, and compiles
        for variant in rounds:
            keep_freed_memory() if variant.keeps_memory else default_memory()
            for number in range(cycle if turn < 0 else 1):  # memory settles
                variant.step(number)
            wait(device)
            start = time.perf_counter()
            for number in range(cycle):
                variant.step(number)
            wait(device)
            if turn >= 0:
                variant.seconds.append((time.perf_counter() - start) / cycle)


def wait(device: torch.device) -> None:
    """Wait until an accelerator has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(rounds: list[Variant], batch_size: int) -> list[dict]:
    """Return a row per variant: median seconds a step, pictures a second, the gain over plain and the row above."""
    medians = [statistics.median(variant.seconds) for variant in rounds]
    rows = []
    for variant, median, before in zip(rounds, medians, [medians[0], *medians], strict=False):
        rows.append(
            {
                "variant": variant.name,
                "median seconds": round(median, 4),
                "least": round(min(variant.seconds), 4),
                "most": round(max(variant.seconds), 4),
                "pictures per second": round(batch_size / median, 1),
                "against plain": round(medians[0] / median, 2),
                "against the row above": round(before / median, 2),
            }
        )
    return rows


def main() -> None:
    """Measure, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--nf", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=10, help="turns that are timed")
    parser.add_argument("--lazy", type=int, default=4, help="steps between two penalties in the last variant")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile: minutes more")
    parser.add_argument("--name", help="of the result file; default: from the sizes")
    options = parser.parse_args()
    device = this_process().device
    config = DFGANConfig(image_size=options.size, nf=options.nf, batch_size=options.batch_size)
    rounds = variants(config, device, options.compile, options.lazy)
    measure(rounds, device, options.repeats, options.lazy)
    rows = table(rounds, options.batch_size)
    for row in rows:
        print(f"{row['variant']:24} {row['median seconds']:8.3f} s  {row['against plain']:5.2f} x plain", end="")
        print(f"  {row['against the row above']:5.2f} x the row above  ({row['least']:.3f} to {row['most']:.3f} s)")
    sizes = {
        "size": options.size,
        "nf": options.nf,
        "batch_size": options.batch_size,
        "threads": torch.get_num_threads(),
    }
    name = f"step_dfgan_{options.size}px_nf{options.nf}_batch{options.batch_size}" + "_compiled" * options.compile
    name = options.name or name
    write_json(RESULTS / f"{name}.json", {"system": "dfgan", **sizes, "rows": rows, "environment": environment()})


if __name__ == "__main__":
    main()

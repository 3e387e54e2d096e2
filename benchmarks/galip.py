"""How fast is a training step of GALIP, and how much memory does it take? `python benchmarks/galip.py --help`.

The default is the paper's size around a random ViT-B/32: speed does not ask what the weights know. `--toy` is the size
of `galip_toy.yaml`, `--tiny` that of the tests. The yardstick is the plain step, written out below in the released
code's order: float32, eager, the penalty on CLIP's maps by `autograd.grad` with a root, real pictures seen with a graph
down to their pixels. A second one also shows the fakes to the CLIP twice, once for each loss, as one would write the
two losses apart. All variants run in one process, turn by turn; the result goes to `benchmarks/results`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from step import RESULTS, OneBatch, Variant, measure, root_penalty, table
from torch import Tensor

from t2ilib.devices import computes_in_bf16, this_process
from t2ilib.files import write_json
from t2ilib.models.galip import GALIP, GALIPConfig
from t2ilib.models.layers import FusionUpBlock
from t2ilib.provenance import environment
from t2ilib.training import TrainingSettings
from t2ilib.training.loop import Trainer, step_seed

TOY = {
    "image_size": 64,
    "embedding_dim": 128,
    "clip_size": 64,
    "clip_grid": 8,
    "clip_width": 128,
    "clip_layers": 4,
    "taps": (1, 2, 3),
    "prompts": (1, 2, 3),
    "nf": 16,
    "discriminator_channels": 128,
    "head_channels": 64,
    "batch_size": 32,
}
SCALES = {"paper": GALIPConfig, "toy": lambda **changes: GALIPConfig(**{**TOY, **changes}), "tiny": GALIPConfig.tiny}
Step = Callable[[int], dict[str, Tensor]]
Maker = Callable[[], Step]


class PlainUp(FusionUpBlock):
    """The generator's block in the order of the figure: first the enlargement, then everything else."""

    def forward(self, x: Tensor, condition: Tensor, size: int | None = None) -> Tensor:
        """Return maps of side `size`."""
        x = y = F.interpolate(x, size, mode="nearest")
        for fuse, convolution in zip(self.fusions, self.convolutions, strict=True):
            y = F.conv2d(fuse(y, condition), convolution.weight, convolution.bias, padding=1)
        return self.shortcut(x) + y


def plain(system: GALIP, source: OneBatch, twice: bool = False) -> Step:
    """Return the plain step; `twice` shows the fakes to the CLIP once for each loss."""
    for module in system.modules():  # the same weights, the plain order of operations
        if isinstance(module, FusionUpBlock):
            module.__class__ = PlainUp
    config, count, device = system.config, source.batch_size, source.images.device
    optimizer_g = torch.optim.Adam(system.generator.parameters(), config.lr, config.betas)
    optimizer_d = torch.optim.Adam(system.discriminator.parameters(), config.discriminator_lr, config.betas)

    def step(number: int) -> dict[str, Tensor]:
        torch.manual_seed(step_seed(0, 0, number))  # the noise that our step draws
        images, sentence = source.images.clone().requires_grad_(), source.text.sentence.clone().requires_grad_()
        fakes = system.generator(torch.randn(count, config.noise_dim, device=device), sentence.detach())
        seen, embedding = system.image_features(fakes)
        critic = plain_critic(system, images, sentence, seen.detach())
        minimise(critic, optimizer_d)
        if twice:
            seen, embedding = system.image_features(fakes)
        sentence = sentence.detach()
        painter = {
            "adversarial": -system.head(system.discriminator(seen), sentence).mean(),
            "similarity": -config.similarity * torch.cosine_similarity(embedding, sentence).mean(),
        }
        minimise(painter, optimizer_g)
        painter["adversarial"].item()
        named = {"discriminator": critic, "generator": painter}
        return {f"{role}/{name}": term.detach() for role, terms in named.items() for name, term in terms.items()}

    return step


def plain_critic(system: GALIP, images: Tensor, sentence: Tensor, fakes: Tensor) -> dict[str, Tensor]:
    """Return the discriminator's terms; `fakes` are CLIP's maps of them."""
    seen, _ = system.image_features(images)
    features = system.discriminator(seen)
    real = system.head(features, sentence)
    mismatched = system.head(features, sentence.roll(1, 0).detach())
    fake = system.head(system.discriminator(fakes), sentence)
    return {
        "real": torch.relu(1 - real).mean(),
        "fake": torch.relu(1 + fake).mean() / 2,
        "mismatched": torch.relu(1 + mismatched).mean() / 2,
        "penalty": root_penalty(real, seen, sentence),
    }


def minimise(terms: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Take a step down the sum of the terms."""
    optimizer.zero_grad()
    sum(terms.values()).backward()
    optimizer.step()


def ours(system: GALIP, source: OneBatch, settings: TrainingSettings) -> Step:
    """Return the library's step."""
    trainer = Trainer(system, settings)

    def step(number: int) -> dict[str, Tensor]:
        terms = trainer.step(number, source)
        next(iter(terms.values())).item()
        return terms

    return step


def precisions(device: torch.device, compiled: bool) -> dict[str, TrainingSettings]:
    """Return the settings of our variants; fp16, the released code's, only where there is a GPU.

    bfloat16 is compiled only where the hardware computes in it: elsewhere it takes many times as long anyway.
    """
    found = {
        "ours, float32": TrainingSettings(precision="fp32"),
        "ours, bfloat16": TrainingSettings(precision="bf16"),
    }
    if compiled:
        found["ours, float32, compiled"] = TrainingSettings(precision="fp32", compile=True)
    if compiled and computes_in_bf16(device):
        found["ours, bfloat16, compiled"] = TrainingSettings(precision="bf16", compile=True)
    if device.type == "cuda":
        found["ours, float16"] = TrainingSettings(precision="fp16")
    return found


def variants(config: GALIPConfig, device: torch.device, settings: dict[str, TrainingSettings]) -> dict[str, Maker]:
    """Return what makes each variant, the plain steps first, then ours by name; all begin with the same weights."""

    def system() -> GALIP:
        torch.manual_seed(0)
        return GALIP(config).to(device).train()

    rows, shaped = OneBatch(config, device, torch.contiguous_format), OneBatch(config, device, torch.channels_last)
    makers = {
        "plain": lambda: plain(system(), rows),
        "plain, fakes seen twice": lambda: plain(system(), rows, twice=True),
    }
    for name, each in settings.items():
        makers[name] = lambda each=each: ours(system(), shaped, each)
    return makers


def built(make: Maker, device: torch.device) -> tuple[Step, float | None]:
    """Make a variant, take two steps; return it and the most GiB that it had: None but on CUDA.

    A CPU's processes only know the most they ever had, which would be that of the variants before.
    """
    if device.type != "cuda":
        return make(), None
    before = torch.cuda.memory_allocated()
    step = make()
    step(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step(1)
    return step, (torch.cuda.max_memory_allocated() - before) / 2**30


class Clocked:
    """A step that notes what each call took of the processor: on a shared machine the clock on the wall says little."""

    def __init__(self, step: Step):
        self.step, self.spent = step, []

    def __call__(self, number: int) -> dict[str, Tensor]:
        """Take the step."""
        start = time.process_time()
        terms = self.step(number)
        self.spent.append(time.process_time() - start)
        return terms

    def median(self, last: int) -> float:
        """Return the median of the `last` calls, in seconds of all threads together."""
        return round(statistics.median(self.spent[-last:]), 4)


def chosen() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--toy", dest="scale", action="store_const", const="toy", help="sizes of galip_toy.yaml")
    scale.add_argument("--tiny", dest="scale", action="store_const", const="tiny", help="sizes of the tests")
    parser.add_argument("--size", type=int, help="pixels; default: the scale's, as for the next two")
    parser.add_argument("--nf", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--repeats", type=int, default=10, help="turns that are timed")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile: minutes more")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="ours in this one alone; default: all")
    parser.add_argument("--name", help="of the result file; default: from the sizes")
    parser.set_defaults(scale="paper")
    return parser.parse_args()


def shown(row: dict) -> str:
    """Return a row as a line to print."""
    peak = "" if row["peak GiB"] is None else f"  {row['peak GiB']:6.2f} GiB"
    seconds = f"{row['median seconds']:8.3f} s  {row['processor seconds']:8.3f} s of the processor"
    speed = f"{seconds}  {row['pictures per second']:8.1f} pictures/s"
    return f"{row['variant']:26} {speed}  {row['against plain']:5.2f} x plain{peak}"


def main() -> None:
    """Measure, print the table, write the result."""
    options, device = chosen(), this_process().device
    given = {"image_size": options.size, "nf": options.nf, "batch_size": options.batch_size}
    config = SCALES[options.scale](**{name: size for name, size in given.items() if size is not None})
    rounds, memory = [], {}
    settings = precisions(device, options.compile)
    if options.precision:
        settings = {name: each for name, each in settings.items() if each.precision == options.precision}
    for name, make in variants(config, device, settings).items():
        step, memory[name] = built(make, device)
        rounds.append(Variant(name, Clocked(step), keeps_memory=not name.startswith("plain"), seconds=[]))
    measure(rounds, device, options.repeats, cycle=1)
    rows = table(rounds, config.batch_size)
    for row, variant in zip(rows, rounds, strict=True):  # every turn calls a step twice
        row |= {"processor seconds": variant.step.median(2 * options.repeats), "peak GiB": memory[variant.name]}
    print("\n".join(map(shown, rows)))
    sizes = {"scale": options.scale, "size": config.image_size, "nf": config.nf, "batch_size": config.batch_size}
    about = {"threads": torch.get_num_threads(), "float32_products": torch.get_float32_matmul_precision()}
    found = {"system": "galip", **sizes, **about, "rows": rows, "environment": environment()}
    name = f"step_galip_{options.scale}_{config.image_size}px_nf{config.nf}_batch{config.batch_size}"
    write_json(RESULTS / f"{options.name or name + '_compiled' * options.compile}.json", found)


if __name__ == "__main__":
    main()

"""The training loop that every system shares.

Each step seeds its own random numbers from (seed, rank, step). A run that is resumed at step k therefore draws the
same batches and noise as one that never stopped, without any generator state in the checkpoint.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn

from t2ilib.errors import InputError
from t2ilib.training.checkpoints import flatten_optimizer, load_module, restore_optimizer
from t2ilib.training.ema import EMA
from t2ilib.training.recipe import TrainingSettings
from t2ilib.training.run import Run

Generate = Callable[[Tensor, Tensor], Tensor]  # sentence (B, D), noise (B, Z) -> pictures (B, 3, H, W) in [-1, 1]


@dataclass(frozen=True)
class Samples:
    """The periodic grid: fixed sentence (N, D) and noise (N, Z), and what becomes of the pictures."""

    sentence: Tensor
    noise: Tensor
    save: Callable[[int, Tensor], Any]  # step, pictures (N, 3, H, W) in [-1, 1]


class Trainer:
    """A system with its optimisers, averaged generator and precision, on this process's device."""

    def __init__(self, system: nn.Module, settings: TrainingSettings):
        self.settings, self.process = settings, this_process()
        self.device = self.process.device
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.system = system.to(self.device).to(memory_format=layout).train()
        self.optimizers = system.optimizers()
        self.ema = EMA(system.generator, settings.ema) if settings.ema else None
        self.bf16 = settings.precision == "bf16" or (settings.precision == "auto" and computes_in_bf16(self.device))
        self.skipped = 0
        torch.backends.cudnn.deterministic = settings.deterministic
        torch.backends.cudnn.benchmark = not settings.deterministic

    def step(self, number: int, batches) -> dict[str, Tensor]:
        """Train the discriminator `discriminator_steps` times, then the generator once; return the loss terms.

        The discriminator maximises how well it tells matched real pictures from everything else, the generator how
        well it passes for them. Both losses are written so that they are minimised.
        """
        torch.manual_seed(step_seed(self.settings.seed, self.process.process_index, number))
        terms = {}
        for inner in range(self.settings.discriminator_steps):
            batch = batches.batch(number * self.settings.discriminator_steps + inner)
            terms |= self.update("discriminator", batch)
        with frozen(self.system.discriminator):
            terms |= self.update("generator", batch)
        if self.ema:
            self.ema.update(self.system.generator, number)
        return terms

    def update(self, role: str, batch) -> dict[str, Tensor]:
        """Minimise the sum of the loss terms of `role`, "discriminator" or "generator", by one optimiser step."""
        parameters, optimizer = list(getattr(self.system, role).parameters()), self.optimizers[role]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms = getattr(self.system, f"{role}_loss")(batch)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        average_gradients(parameters, self.process)
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        if self.settings.non_finite == "skip" and not all(
            torch.isfinite(p.grad).all() for p in parameters if p.grad is not None
        ):
            self.skipped += 1
        else:
            optimizer.step()
        return {f"{role}/{name}": term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def generate(self, sentence: Tensor, noise: Tensor) -> Tensor:
        """Return pictures of the averaged generator (of the trained one where nothing is averaged), in float32."""
        trained = self.system.generator
        self.system.generator = self.ema.module if self.ema else trained
        try:
            return self.system.eval().generate(sentence.to(self.device), noise.to(self.device)).float()
        finally:
            self.system.generator = trained
            self.system.train()

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a checkpoint holds."""
        named = {f"{part}.{key}": v for part, module in self._modules() for key, v in module.state_dict().items()}
        for item in self.optimizers.items():
            named |= flatten_optimizer(*item)
        return named

    def restore(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Load what `tensors` returned; `path` is named when it does not fit."""
        for part, module in self._modules():
            load_module(module, part, tensors, path)
        for item in self.optimizers.items():
            restore_optimizer(*item, tensors)

    def _modules(self) -> list[tuple[str, nn.Module]]:
        averaged = [("ema", self.ema.module)] if self.ema else []
        return [("generator", self.system.generator), ("discriminator", self.system.discriminator), *averaged]


def train(
    system: nn.Module,
    batches,
    settings: TrainingSettings,
    run: Run | None = None,
    samples: Samples | None = None,
    evaluate: Callable[[int, Generate], dict] | None = None,
) -> Iterator[dict]:
    """Train `system` and yield a record every `log_every` steps; continue where `run` stopped.

    `batches.batch(number)` returns a step's batch on the device; what `evaluate(step, generate)` returns joins the
    record. A record holds step, images (seen by all processes so far), seconds (spent in steps so far),
    images_per_second and the mean of every loss term since the last record. Raises InputError at a loss that is not
    finite, naming step, terms and the last good checkpoint.
    """
    trainer = Trainer(system, settings)
    done, seconds = _resume(trainer, run)
    main = trainer.process.is_main_process
    while done < settings.steps:
        stop = min(done + settings.log_every - done % settings.log_every, settings.steps)
        start = time.perf_counter()
        terms = _means([trainer.step(number, batches) for number in range(done, stop)], done, trainer, run)
        spent = time.perf_counter() - start
        seconds += spent
        per_step = batches.batch_size * trainer.process.num_processes
        record = {"step": stop, "images": stop * per_step, "seconds": round(seconds, 3)}
        record |= {"images_per_second": round((stop - done) * per_step / spent, 2), **terms}
        done = stop
        if main and samples and _due(done, settings.sample_every, settings):
            samples.save(done, trainer.generate(samples.sentence, samples.noise))
        if main and evaluate and _due(done, settings.evaluate_every, settings):
            record |= evaluate(done, trainer.generate)
        if main and run:
            run.append(record)
            if _due(done, settings.checkpoint_every, settings):
                run.save(done, trainer.tensors(), {"seconds": seconds, "skipped": trainer.skipped})
        yield record
    _adopt_average(trainer)


def this_process() -> PartialState:
    """Return this process's device and rank. Several processes without an accelerator (torchrun) talk over gloo."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=True) if several and not torch.accelerator.is_available() else PartialState()


def step_seed(seed: int, rank: int, number: int) -> int:
    """Return the seed of step `number` on process `rank`: distinct and unrelated for distinct arguments."""
    digest = hashlib.blake2b(f"{seed}/{rank}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 numbers itself; elsewhere bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Leave the module's weights out of the backward pass: the generator step needs only its input gradient."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def average_gradients(parameters: list[nn.Parameter], process: PartialState) -> None:
    """Replace gradients by their mean over all processes, in one message.

    Unlike a distributed wrapper this allows several forward passes per step and penalties on gradients.
    """
    if process.num_processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _resume(trainer: Trainer, run: Run | None) -> tuple[int, float]:
    """Load the newest checkpoint of `run`, if any; return steps done and seconds spent."""
    restored = run.restore() if run else None
    if restored is None:
        if run and trainer.process.is_main_process:
            run.forget_after(0)
        return 0, 0.0
    tensors, about, path = restored
    trainer.restore(tensors, path)
    trainer.skipped = about["skipped"]
    if trainer.process.is_main_process:
        run.forget_after(about["step"])
    return about["step"], about["seconds"]


def _means(terms: list[dict[str, Tensor]], first: int, trainer: Trainer, run: Run | None) -> dict[str, float]:
    """Return the mean of every term over the steps from `first` on; the only read-back from the device."""
    names = list(terms[0])
    table = torch.stack([torch.stack([row[name].float() for name in names]) for row in terms]).cpu()
    finite = table.isfinite()
    if trainer.settings.non_finite == "stop" and not finite.all():
        row = int((~finite).any(1).nonzero()[0])
        bad = ", ".join(f"{name} = {table[row, i]:g}" for i, name in enumerate(names) if not finite[row, i])
        kept = run.checkpoints()[-1:] if run else []
        where = f"last good checkpoint {kept[0]}" if kept else "no checkpoint yet"
        raise InputError(
            f"step {first + row + 1}: loss is not finite ({bad}); {where}; "
            "lower the learning rate, set training.precision: fp32, or set training.non_finite: skip"
        )
    means = torch.where(finite, table, 0.0).sum(0) / finite.sum(0)
    return {name: value for name, value in zip(names, means.tolist(), strict=True) if math.isfinite(value)}


def _due(done: int, every: int, settings: TrainingSettings) -> bool:
    return done == settings.steps or (every > 0 and done % every == 0)


def _adopt_average(trainer: Trainer) -> None:
    """Leave the system as it is used afterwards: with the averaged generator, in evaluation mode."""
    if trainer.ema:
        trainer.system.generator.load_state_dict(trainer.ema.module.state_dict())
    trainer.system.eval()

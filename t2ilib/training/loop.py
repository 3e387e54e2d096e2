"""The training loop that every task shares.

Each step seeds its own random numbers from (seed, rank, step). A run that is resumed at step k therefore draws the
same batches and noise as one that never stopped, without any generator state in the checkpoint.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from accelerate.utils import gather, reduce
from torch import Tensor, nn

from t2ilib.devices import computes_in_bf16, keep_freed_memory, peak_memory, this_process
from t2ilib.errors import InputError
from t2ilib.features import Batch
from t2ilib.task import Task
from t2ilib.training.checkpoints import check_about, flatten_optimizer, load_module, restore_optimizer
from t2ilib.training.ema import EMA
from t2ilib.training.recipe import TrainingSettings
from t2ilib.training.run import Run
from t2ilib.training.scaling import LossScaler, restore_scales, scales
from t2ilib.training.stopping import Stopped, divided, undivided

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precision -> in which networks compute; else float32
ASKED_EVERY = 10  # steps between two questions among processes whether to end
Hook = Callable[[int, Task], Mapping[str, Any] | None]  # step, task with its average in place -> entries of the record


class Source(Protocol):
    """Where batches come from."""

    batch_size: int  # pictures in each

    def batch(self, number: int) -> Batch:
        """Return batch `number` >= 0, on the device: the same whenever it is asked for."""


class Trainer:
    """A task with its optimisers, moving average and precision, on this process's device."""

    def __init__(self, task: Task, settings: TrainingSettings):
        self.settings, self.process = settings, this_process()
        self.device = self.process.device
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.task = task.to(self.device).to(memory_format=self.layout).train()
        self.optimizers = task.optimizers()
        self.average = EMA(getattr(task, task.averaged), task.decay) if task.decay else None
        automatic = "bf16" if computes_in_bf16(self.device) else "fp32"
        self.half = HALVES.get(automatic if settings.precision == "auto" else settings.precision)
        scaled = self.half is torch.float16
        self.scalers = {role: LossScaler(self.device.type, enabled=scaled, role=role) for role in task.trained}
        compiled = partial(torch.compile, options={"fallback_random": True}) if settings.compile else lambda part: part
        self.prepare, self.loss = compiled(task.prepare), compiled(task.loss)  # random numbers as without compiling
        self.drawn, self.skipped = 0, 0  # batches and updates so far
        self.shown = None  # pictures so far, where a checkpoint says so: other numbers of processes may have seen them
        keep_freed_memory()
        torch.backends.cudnn.deterministic = settings.deterministic
        torch.backends.cudnn.benchmark = not settings.deterministic

    def step(self, number: int, batches: Source, *, watch: bool = False) -> dict[str, Tensor]:
        """Go through the task's rounds of step `number`; return each role's last loss terms.

        Every round takes the next batch, prepares it once, then updates its roles one after the other. With `watch`
        what the task has to show joins the terms.
        """
        torch.manual_seed(step_seed(self.settings.seed, self.process.process_index, number))
        terms = {}
        for roles in self.task.rounds(number):
            batch = batches.batch(self.drawn).to_layout(self.layout)
            batch.step = number
            self.drawn += 1
            with self.autocast():
                prepared = self.prepare(batch, roles)
            for role in roles:
                terms |= self.update(role, batch, prepared)
        if self.average:
            self.average.update(getattr(self.task, self.task.averaged), number)
        return terms | self.watch(batch, prepared) if watch else terms

    @torch.no_grad()
    def watch(self, batch: Batch, prepared: Any) -> dict[str, Tensor]:
        """Return what the task has to show of a batch; no running statistic of a normalisation notices."""
        known = [(tensor, tensor.clone()) for tensor in self.task.buffers()]
        with self.autocast():
            seen = self.task.watch(batch, prepared)
        for tensor, before in known:
            tensor.copy_(before)
        return seen

    def update(self, role: str, batch: Batch, prepared: Any) -> dict[str, Tensor]:
        """Minimise the sum of the loss terms of `role` by one optimiser step; the other roles' weights are frozen.

        In fp16 the loss is scaled, and a step whose gradients overflowed is left out; else the scale is 1.
        """
        parameters = list(getattr(self.task, role).parameters())
        optimizer, scaler = self.optimizers[role], self.scalers[role]
        with frozen(getattr(self.task, other) for other in self.task.trained if other != role):
            with self.autocast():
                terms = self.loss(role, batch, prepared)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(sum(terms.values())).backward()
        average_gradients(parameters, self.process)
        fits = scaler.unscaled(optimizer)
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        if self.settings.non_finite == "skip":
            fits = fits and all(p.grad.isfinite().all() for p in parameters if p.grad is not None)
        if fits:
            set_rate(optimizer, self.task.rate(role, batch.step, self.settings.steps))
            optimizer.step()
            self.task.after_update(role)
        else:
            self.skipped += 1
        return {f"{role}/{name}": term.detach() for name, term in terms.items()}

    def agree(self, signals: list[int], number: int, last: bool) -> bool:
        """Whether the run ends after step `number`, the `last` before a record or not: a signal has come.

        All processes end after the same step. They ask each other only every few steps: an answer waits for the device.
        """
        if self.process.num_processes > 1:
            if not last and (number + 1) % ASKED_EVERY:
                return False
            known = torch.tensor(max(signals, default=0), device=self.device)
            known = int(gather(known[None]).max())
            signals[:] = [known] if known else []
        return bool(signals)

    def autocast(self) -> torch.autocast:
        """Return the context of the precision in which networks compute."""
        return torch.autocast(self.device.type, self.half, enabled=self.half is not None)

    @contextmanager
    def averaged(self) -> Iterator[Task]:
        """Give the task as it will be used: its average in place of the network that is trained, in evaluation mode."""
        name = self.task.averaged
        trained = getattr(self.task, name) if self.average else None
        if self.average:
            setattr(self.task, name, self.average.module)
        try:
            yield self.task.eval()
        finally:
            if self.average:
                setattr(self.task, name, trained)
            self.task.train()

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
            restore_optimizer(*item, tensors, path)

    def _modules(self) -> list[tuple[str, nn.Module]]:
        average = [("ema", self.average.module)] if self.average else []
        return [(role, getattr(self.task, role)) for role in self.task.trained] + average


def train(
    task: Task,
    batches: Source,
    settings: TrainingSettings,
    run: Run | None = None,
    *,
    sample: Hook | None = None,
    evaluate: Hook | None = None,
) -> Iterator[dict]:
    """Train `task` and yield a record every `log_every` steps; continue where `run` stopped.

    What `sample` and `evaluate` return joins the record of their steps. A record holds step, images (shown by all
    processes so far), seconds (spent in steps so far), images_per_second, peak_memory (MiB of this process, or of its
    accelerator), the mean of every loss term since the last record, and what the task shows of its step's last batch;
    and skipped, the updates left out so far, once there are any. Raises InputError at a loss that is not finite, naming
    step, terms and the last good checkpoint.
    """
    trainer = Trainer(task, settings)
    done, seconds, unfinished = _resume(trainer, run)
    finish = partial(_finish, trainer, run, {"sample": sample, "evaluate": evaluate})
    per_batch = batches.batch_size * trainer.process.num_processes
    first = trainer.drawn
    earlier = first * per_batch if trainer.shown is None else trainer.shown
    with undivided() as signals:
        if unfinished:
            with divided(signals):
                finish(unfinished)
            yield unfinished
        while done < settings.steps:
            stop = min(done + settings.log_every - done % settings.log_every, settings.steps)
            start, before, rows, ends = time.perf_counter(), trainer.drawn, [], False
            for number in range(done, stop):
                rows.append(trainer.step(number, batches, watch=number + 1 == stop))
                ends = trainer.agree(signals, number, last=number + 1 == stop)
                if ends:
                    break
            terms = _means(rows, done, trainer, run)
            done, spent = done + len(rows), time.perf_counter() - start
            seconds += spent
            record = {"step": done, "images": earlier + (trainer.drawn - first) * per_batch}
            record |= {"seconds": round(seconds, 3), "peak_memory": peak_memory(trainer.device)}
            record |= {"images_per_second": round((trainer.drawn - before) * per_batch / spent, 2), **terms}
            record |= {"skipped": trainer.skipped} if trainer.skipped else {}
            keep = partial(_save, trainer, run, dict(record), seconds)
            kept = ends or _due(done, "checkpoint", settings)
            if kept:  # before anything that can fail
                keep()
            if ends:
                break
            try:
                with divided(signals):
                    finish(record)
            except Stopped:
                if not kept:
                    keep()
                raise
            yield record
    _adopt_average(trainer)


def _finish(trainer: Trainer, run: Run | None, hooks: Mapping[str, Hook | None], record: dict) -> None:
    """Draw and measure what is due at the record's step, add it to the record, and write the record."""
    if not trainer.process.is_main_process:
        return
    for name, hook in hooks.items():
        if hook and _due(record["step"], name, trainer.settings):
            with trainer.averaged() as finished:
                record |= hook(record["step"], finished) or {}
    if run:
        run.append(record)


def _save(trainer: Trainer, run: Run | None, record: dict, seconds: float) -> None:
    """Write the checkpoint of the record's step, with the record, which may still be unfinished."""
    if run and trainer.process.is_main_process:
        about = {"seconds": seconds, "skipped": trainer.skipped, "drawn": trainer.drawn, "record": record}
        if told := scales(trainer.scalers):
            about["scales"] = told
        run.save(record["step"], trainer.tensors(), about)


def step_seed(seed: int, rank: int, number: int) -> int:
    """Return the seed of step `number` on process `rank`: distinct and unrelated for distinct arguments."""
    digest = hashlib.blake2b(f"{seed}/{rank}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group's learning rate to `share` of the one that the optimiser was made with."""
    for group in optimizer.param_groups:
        group["lr"] = share * group.setdefault("initial_lr", group["lr"])


@contextmanager
def frozen(modules: Iterator[nn.Module]) -> Iterator[None]:
    """Leave the modules' weights out of the backward pass: what is not trained passes its input's gradient on."""
    trainable = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
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


def _resume(trainer: Trainer, run: Run | None) -> tuple[int, float, dict | None]:
    """Load the newest checkpoint of `run`, if any; return steps done, seconds spent, and its record where that is lost.

    A checkpoint is written before its step is drawn and measured. Whatever ended the run in between, the record that
    the checkpoint holds is still to be finished.
    """
    restored = run.restore() if run else None
    if restored is None:
        if run and trainer.process.is_main_process:
            run.forget_after(0)
        return 0, 0.0, None
    tensors, about, path = restored
    check_about(about, {"seconds": float, "skipped": int, "drawn": int}, path)
    restore_scales(trainer.scalers, about.get("scales"), path)
    trainer.restore(tensors, path)
    trainer.skipped, trainer.drawn = about["skipped"], about["drawn"]
    trainer.shown = (about.get("record") or {}).get("images")
    if trainer.process.is_main_process:
        run.forget_after(about["step"])
    kept = [record["step"] for record in run.records()]
    return about["step"], about["seconds"], None if about["step"] in kept else about.get("record")


def _means(terms: list[dict[str, Tensor]], first: int, trainer: Trainer, run: Run | None) -> dict[str, float]:
    """Return the mean of every term over the steps from `first` on that have it; the only read-back from the device."""
    names = list(dict.fromkeys(name for row in terms for name in row))
    absent = torch.full((), torch.nan, device=trainer.device)
    rows = [torch.stack([row.get(name, absent).float() for name in names]) for row in terms]
    table, there = torch.stack(rows).cpu(), torch.tensor([[name in row for name in names] for row in terms])
    finite = table.isfinite()
    wrong = there & ~finite
    if trainer.settings.non_finite == "stop" and wrong.any():
        row = int(wrong.any(1).nonzero()[0])
        bad = ", ".join(f"{name} = {table[row, i]:g}" for i, name in enumerate(names) if wrong[row, i])
        kept = run.checkpoints()[-1:] if run else []
        where = f"last good checkpoint {kept[0]}" if kept else "no checkpoint yet"
        raise InputError(
            f"step {first + row + 1}: loss is not finite ({bad}); {where}; "
            "lower the learning rate, set training.precision: fp32, or set training.non_finite: skip"
        )
    means = torch.where(finite, table, 0.0).sum(0) / finite.sum(0)
    return {name: value for name, value in zip(names, means.tolist(), strict=True) if math.isfinite(value)}


def _due(done: int, what: str, settings: TrainingSettings) -> bool:
    every = getattr(settings, f"{what}_every")
    return done == settings.steps or (every > 0 and done % every == 0)


def _adopt_average(trainer: Trainer) -> None:
    """Leave the task as it is used afterwards: with its average, in evaluation mode."""
    if trainer.average:
        getattr(trainer.task, trainer.task.averaged).load_state_dict(trainer.average.module.state_dict())
    trainer.task.eval()

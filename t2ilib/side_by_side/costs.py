"""What a system costs: how many weights it has, how fast it paints, and the memory that this takes."""

import statistics
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from t2ilib.assembly import TASKS, load_encoder, model_values
from t2ilib.devices import CPU_BATCH
from t2ilib.memory import size_of
from t2ilib.sampler import Sampler
from t2ilib.summary import weights
from t2ilib.training import Run

PAINTED, REPEATS = 64, 3  # pictures that are timed, and how often


@dataclass(frozen=True)
class Parameters:
    """How many weights a system has: of what paints, of the other networks that it trains, of what is frozen."""

    generator: int
    discriminator: int
    frozen: int  # the encoders that it reads with or is scored by; a CLIP counts whole, whichever part is asked


def parameters(run: Run) -> Parameters:
    """Count the weights of a run's system, from its recipe and its encoders; no checkpoint is needed.

    InputError where an encoder is not there: sizes depend on it.
    """
    recipe, kind = run.recipe, TASKS[run.recipe.task]
    roles = (*kind.encoders, *(("clip",) if recipe.clip.weight else ()))
    found = {role: load_encoder(recipe, role, run.folder) for role in dict.fromkeys(roles)}
    outline = kind.outline(model_values(recipe), {role: found[role] for role in kind.encoders})
    trained = {role: weights(getattr(outline, role)) for role in kind.trained}
    painting = trained.pop(kind.averaged)
    frozen = {one.fingerprint: weights(one) for one in found.values() if isinstance(one, nn.Module)}
    return Parameters(painting, sum(trained.values()), sum(frozen.values()))


def pictures_per_second(sampler: Sampler, captions: Sequence[str], count: int = PAINTED) -> float:
    """Return how many pictures a second a system paints, its captions read anew: the median of a few times `count`."""
    asked = [captions[number % len(captions)] for number in range(count)]
    noise = sampler.noise(count, torch.Generator().manual_seed(0))
    spent = []
    for _ in range(REPEATS + 1):  # the first warms up
        start = time.perf_counter()
        for _ in sampler.draw(asked, noise):
            pass
        spent.append(time.perf_counter() - start)
    return count / statistics.median(spent[1:])


def painting_memory(sampler: Sampler, captions: Sequence[str], count: int = CPU_BATCH) -> int:
    """Return the most bytes that tensors take while `count` pictures are read and painted, the weights included.

    On CUDA it is the allocator's count. Elsewhere it is the sum of the tensors that live at a time: the same on every
    machine, without the working space that a kernel takes for itself.
    """
    asked = [captions[number % len(captions)] for number in range(count)]
    noise = sampler.noise(count, torch.Generator().manual_seed(0))
    encoder = sampler.encoder if isinstance(sampler.encoder, nn.Module) else nn.Module()
    if sampler.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(sampler.device)
        list(sampler.draw(asked, noise))
        return torch.cuda.max_memory_allocated(sampler.device)
    with Living() as living:
        list(sampler.draw(asked, noise))
    return living.most + size_of(getattr(sampler.system, sampler.system.averaged)) + size_of(encoder)


class Living(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make inside it: `now` alive, and the `most` at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation, then take note of what it made."""
        before = {self._place(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor) and self._place(one) not in before:
                self._note(one)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage, place = tensor.untyped_storage(), self._place(tensor)
        if place in self.known:
            return
        self.known.add(place)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, place, storage.nbytes())

    def _forget(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size

    @staticmethod
    def _place(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

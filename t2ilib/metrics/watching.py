"""Further metrics that look on while an evaluation's pictures pass."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.drawing import ALONE, Team
from t2ilib.metrics.measured import Measured, Metric
from t2ilib.pictures import resized


class Watch:
    """Metrics by name, and what they found in the end; of a team the first process knows it."""

    def __init__(self, metrics: Mapping[str, Metric], team: Team = ALONE):
        """Let `metrics` look; each is used once."""
        self.metrics, self.team = dict(metrics), team
        self._found: dict[str, Measured] | None = None
        self._resize = ""  # what pictures went through before they were compared with the real ones

    def beside(
        self, pictures: Iterable[Tensor], places: Iterable[np.ndarray], real: Iterable[Tensor]
    ) -> Iterator[Tensor]:
        """Yield the batches again, after all metrics have seen them, each with its places and real pictures.

        Those that compare picture by picture see them at the real ones' size.
        """
        if not self.metrics:
            yield from pictures
            return
        for batch, rows, truth in zip(pictures, places, real, strict=True):
            for metric in self.metrics.values():
                if _pairs(metric):
                    metric.update(self._fitted(batch, truth.shape[-1]), truth, rows)
                else:
                    metric.update(batch, positions=rows)
            yield batch

    def alone(
        self, pictures: Iterable[Tensor], places: Iterable[np.ndarray], most: int, distances: bool = False
    ) -> Iterator[Tensor]:
        """Yield the batches again, after the metrics that need no picture beside each have seen them.

        They see the first `most` places: of real pictures, which come back in every pass, each once. Without
        `distances` those that compare with a reference are left out, too.
        """
        kept = {name: metric for name, metric in self.metrics.items() if not _pairs(metric)}
        self.metrics = {name: metric for name, metric in kept.items() if distances or not _refers(metric)}
        for batch, rows in zip(pictures, places, strict=True):
            new = rows < most
            seen = batch[torch.from_numpy(new)]  # one tensor: extractors that are shared look once
            for metric in self.metrics.values() if new.any() else ():
                metric.update(seen, positions=rows[new])
            yield batch

    def numbers(self) -> dict[str, dict]:
        """Return value, interval and number of pictures of each metric, as result files hold them."""
        found = {}
        for name, measured in self._computed().items():
            found[name] = {"mean": measured.value, "n": measured.n}
            if measured.interval is not None:
                found[name]["interval"] = list(measured.interval)
        return found

    def details(self) -> dict[str, dict]:
        """Return how each number came about."""
        found = {name: dict(measured.details) for name, measured in self._computed().items()}
        for name in found if self._resize else ():
            if _pairs(self.metrics[name]):
                found[name]["resize"] = self._resize
        return found

    def _fitted(self, pictures: Tensor, side: int) -> Tensor:
        """Return pictures (B, 3, H, W) on the CPU at the real ones' size."""
        if pictures.shape[-1] != side:
            self._resize = f"{pictures.shape[-1]} to {side} px, bicubic, antialiased"
        return resized(pictures.cpu(), side).clamp(-1, 1)

    def _computed(self) -> dict[str, Measured]:
        if self._found is None:
            self._found = {}
            for name, metric in self.metrics.items():
                states = self.team.collected(metric.state()) if self.team.size > 1 else [None]
                if not states:
                    continue
                metric.merge(states[1:])
                try:
                    self._found[name] = metric.compute()
                except InputError as error:
                    raise InputError(f"{name}: {error}") from error
        return self._found


def _pairs(metric: Metric) -> bool:
    return getattr(metric, "paired", False)


def _refers(metric: Metric) -> bool:
    return hasattr(metric, "reference")

"""Rows of numbers, one per picture, by their places: all of them, or so many at most, chosen by a seed.

Which ones stay depends on seed and places alone: not on the batches, nor on the process that saw a picture.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from t2ilib.errors import InputError

MOST = 10_000  # rows that a metric keeps by default of pictures, and of a reference: 82 MB of Inception's features


class Rows:
    """Collects rows (B, F) in float32."""

    def __init__(self, most: int | None = None, seed: int = 0):
        """Keep all rows, or `most` of them: twice as many lie in memory at times."""
        self.most, self.seed = most, seed
        self.count = 0  # rows that came, kept or not
        self._values: list[Tensor] = []
        self._places: list[Tensor] = []

    def add(self, values: Tensor, places: Tensor) -> None:
        """Add rows (B, F) of the pictures at `places` (B,)."""
        self.count += len(values)
        self._values.append(values.detach().float().cpu())
        self._places.append(places)
        if self.most is not None and sum(map(len, self._places)) > 2 * self.most:
            self._choose()

    def ordered(self) -> Tensor:
        """Return the rows that stay, (n, F), in the order of their places; InputError for a place that came twice."""
        if not self._values:
            raise InputError("pictures: none were shown; update with some first")
        if self.most is not None:
            self._choose()
        places, order = torch.cat(self._places).sort()
        if len(twice := places[1:][places.diff() == 0]):
            raise InputError(f"positions: {int(twice[0])} came twice; show each picture once, to one process")
        return torch.cat(self._values)[order]

    def state(self) -> dict[str, Tensor]:
        """Return rows, places and count as tensors."""
        if self.most is not None and self._values:
            self._choose()
        rows = torch.cat(self._values) if self._values else torch.empty(0, 0)
        places = torch.cat(self._places) if self._places else torch.empty(0, dtype=torch.int64)
        return {"rows": rows, "places": places, "count": torch.tensor(self.count)}

    def join(self, state: Mapping[str, Tensor], shift: int = 0) -> None:
        """Take in the rows of another process, their places moved by `shift`.

        InputError where one process kept some of its rows by other places than these.
        """
        if shift and int(state["count"]) > len(state["rows"]):
            told = f"of {int(state['count'])} pictures a process kept {len(state['rows'])} by places of its own"
            raise InputError(f"positions: none were given, and {told}; give positions in the whole set")
        if len(state["rows"]):
            self.add(state["rows"], state["places"] + shift)
        self.count += int(state["count"]) - len(state["rows"])

    def _choose(self) -> None:
        """Keep the `most` rows with the lowest lots, where there are more."""
        places, values = torch.cat(self._places), torch.cat(self._values)
        if len(places) > self.most:
            lots = np.array([lot(self.seed, place) for place in places.tolist()])
            kept = torch.from_numpy(np.argsort(lots, kind="stable")[: self.most])
            places, values = places[kept], values[kept]
        self._places, self._values = [places], [values]


def lot(seed: int, place: int) -> int:
    """Return the number, evenly drawn from 64 bits, that decides whether the picture at `place` stays."""
    return int(np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0])

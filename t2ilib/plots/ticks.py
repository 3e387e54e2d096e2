"""Where values stand on an axis: evenly spaced, or at their own numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from t2ilib.errors import InputError


@dataclass(frozen=True)
class Ticks:
    """Labels of an axis and the places where they stand, both rising.

    The last `alone` values are not joined to the others: they are settings of another kind, as "none" beside numbers.
    `linear_to` above 0 makes the axis logarithmic beyond that number and linear up to it, so that it can hold a zero.
    InputError where labels and places are not as many.
    """

    labels: Sequence
    places: Sequence[float]
    alone: int = 0
    linear_to: float = 0.0

    def __post_init__(self):
        """Check that every label has its place."""
        if len(self.labels) != len(self.places):
            raise InputError(f"ticks: {len(self.labels)} labels for {len(self.places)} places; give as many of both")

    @property
    def joined(self) -> int:
        """How many values, from the first, one line joins."""
        return len(self.places) - self.alone

    def put_on(self, axes: Axes) -> None:
        """Write the labels on the horizontal axis, and no others."""
        if self.linear_to:
            axes.set_xscale("symlog", linthresh=self.linear_to)
        axes.set_xticks(self.places, [str(label) for label in self.labels])
        axes.set_xticks([], minor=True)


def spaced(ticks: Sequence | Ticks) -> Ticks:
    """Return ticks as they are, and plain labels evenly spaced."""
    return ticks if isinstance(ticks, Ticks) else Ticks(list(ticks), range(len(ticks)))

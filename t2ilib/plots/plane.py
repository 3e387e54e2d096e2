"""Pictures of two dimensions: points, surfaces, levels and arrows, panels side by side."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.plots.style import COLOURS, DPI, INK, STYLE, WIDTH, Plot

SIDE = 81  # places along each side at which a function is asked
Function = Callable[[Tensor], Tensor]  # points (N, 2) -> values (N,)
Place = tuple[Tensor, Tensor]  # the places across (X,) and up (Y,)


@dataclass
class Dots:
    """Points (N, 2); `colour` is a place in the palette or a colour."""

    points: Tensor
    label: str = ""
    colour: int | str = 0
    size: float = 6.0

    def draw(self, axes: Axes, place: Place) -> None:
        """Draw them on `axes`."""
        x, y = _points(self.points, "points").unbind(1)
        axes.scatter(x, y, s=self.size, color=_colour(self.colour), label=self.label or None, linewidths=0, zorder=3)


@dataclass
class Surface:
    """A function's values as filled contours, darker where higher; `label` names them beside the scale of colours."""

    function: Function
    levels: Sequence[float] | int | None = None
    label: str = ""

    def draw(self, axes: Axes, place: Place) -> object:
        """Draw it on `axes`; return what the scale of colours needs."""
        values, levels = _values(self.function, place), 9 if self.levels is None else self.levels
        levels = levels if isinstance(levels, int) else _ascending(levels)
        return axes.contourf(*place, values, levels=levels, cmap="Greys", extend="both", alpha=0.55)


@dataclass
class Levels:
    """Lines along which a function has the values `at`, which stand on them."""

    function: Function
    at: Sequence[float]

    def draw(self, axes: Axes, place: Place) -> None:
        """Draw them on `axes`."""
        at = _ascending(np.sort(np.atleast_1d(self.at)))
        lines = axes.contour(*place, _values(self.function, place), levels=at, colors=INK, linewidths=0.9)
        axes.clabel(lines, fontsize=9)


@dataclass
class Arrows:
    """Arrows of one length at `places` (N, 2) that point in `directions` (N, 2)."""

    places: Tensor
    directions: Tensor
    colour: int | str = 0

    def draw(self, axes: Axes, place: Place) -> None:
        """Draw them on `axes`."""
        ways = torch.nn.functional.normalize(_points(self.directions, "directions"), dim=1)
        where = _points(self.places, "places")
        if len(where) != len(ways):
            raise InputError(f"arrows: {len(where)} places, {len(ways)} directions; give as many")
        axes.quiver(*where.T, *ways.T, color=_colour(self.colour), scale=18, width=0.006, pivot="mid", zorder=4)


Layer = Dots | Surface | Levels | Arrows


def plane(
    panels: Mapping[str, Sequence[Layer]], across: tuple[float, float] = (-2, 2), up: tuple[float, float] = (-2, 2)
) -> Figure:
    """Panels of layers, title -> what is drawn there from bottom to top, all over the same part of the plane.

    At most four panels stand side by side, more in further rows. Surfaces share one scale of colours: give them the
    same `levels`. Raises InputError where there is no panel.
    """
    if not panels:
        raise InputError("panels: none given; give at least one title with its layers")
    for name, (low, high) in {"across": across, "up": up}.items():
        if not low < high:
            raise InputError(f"{name} = {(low, high)}: give the lower bound first, and a higher one")
    _check_alike([layer for layers in panels.values() for layer in layers])
    place = (torch.linspace(*across, SIDE), torch.linspace(*up, SIDE))
    columns = min(len(panels), 4 if len(panels) != 6 else 3)
    rows, columns = -(-len(panels) // columns), max(columns, 2)  # a single panel does not fill the page
    shape = (up[1] - up[0]) / (across[1] - across[0])
    labels: dict[str, object] = {}
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        size = (WIDTH, rows * (WIDTH / columns * shape + 0.25) + 0.5)
        figure = Plot(figsize=size, dpi=DPI, layout="constrained")
        spots = figure.subplots(rows, columns, squeeze=False).flatten()
        for number, (axes, (title, layers)) in enumerate(zip(spots, panels.items(), strict=False)):
            for layer in layers:
                drawn = layer.draw(axes, place)
                if isinstance(layer, Surface):
                    scale, named = drawn, layer.label
            axes.set(title=title, xlim=across, ylim=up, aspect="equal")
            axes.locator_params(nbins=5, integer=True)
            axes.tick_params(
                labelsize=8, length=2, labelleft=number % columns == 0, labelbottom=number >= len(panels) - columns
            )
            labels |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        for axes in spots[len(panels) :]:
            axes.set_axis_off()
        if any(isinstance(layer, Surface) for layers in panels.values() for layer in layers):
            figure.colorbar(scale, ax=list(spots[: len(panels)]), label=named, aspect=30, pad=0.01)
        if labels:
            figure.legend(labels.values(), labels, loc="outside lower left", ncols=4, markerscale=2)
    return figure


def _check_alike(layers: Sequence[Layer]) -> None:
    """Raise InputError for layers that one scale of colours and one legend cannot serve."""
    scales = [(layer.label, np.array(layer.levels).tolist()) for layer in layers if isinstance(layer, Surface)]
    if any(scale != scales[0] for scale in scales):
        raise InputError("surfaces: their levels or labels differ, but share one scale of colours; give all the same")
    colours: dict[str, str] = {}
    for dots in (layer for layer in layers if isinstance(layer, Dots) and layer.label):
        if colours.setdefault(dots.label, _colour(dots.colour)) != _colour(dots.colour):
            raise InputError(f"dots {dots.label}: have two colours; give each colour a label of its own")


def _ascending(levels: object) -> list[float]:
    """Return levels as a list; InputError where they are none, or do not rise."""
    found = np.atleast_1d(np.asarray(levels, dtype=float)).tolist()
    if not found or not all(low < high for low, high in itertools.pairwise(found)):
        raise InputError(f"levels = {found}: give at least one, each higher than the one before")
    return found


def _points(points: Tensor, name: str) -> Tensor:
    """Return points (N, 2) on the CPU; InputError for another shape."""
    found = torch.as_tensor(points).detach().cpu()
    if found.ndim != 2 or found.shape[1] != 2:
        raise InputError(f"{name}: of shape {tuple(found.shape)}; give (N, 2)")
    return found


def _values(function: Function, place: Place) -> np.ndarray:
    """Return a function's values (Y, X) over the whole plane."""
    points = torch.cartesian_prod(*place)
    values = torch.as_tensor(function(points)).detach().cpu()
    if values.shape != (SIDE * SIDE,):
        raise InputError(f"a function of the plane returned {tuple(values.shape)} for {len(points)} points; give (N,)")
    if not values.isfinite().all():
        raise InputError("a function of the plane is not finite everywhere; bound it, or show another part")
    return values.reshape(SIDE, SIDE).T.numpy()


def _colour(colour: int | str) -> str:
    return COLOURS[colour % len(COLOURS)] if isinstance(colour, int) else colour

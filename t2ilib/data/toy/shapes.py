"""Antialiased drawing with signed distances, exact to the bit on every platform.

Only operations that IEEE 754 rounds exactly are used (+ - * / sqrt, comparisons, floor, clip) on float32, so equal
seeds give equal bytes everywhere; there is no sin, exp or sum. A distance is negative inside a shape.
Planes have shape (n, H, W), colours (3, n, 1, 1), pictures (3, n, H, W) in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2ilib.data.toy.attributes import hashed

Array = np.ndarray


@dataclass(frozen=True)
class Frame:
    """The canvas of n pictures: pixel centres in [-1, 1] with y up, a pixel's width, and one seed per picture."""

    x: Array  # (1, 1, W)
    y: Array  # (1, H, 1)
    pixel: float
    seeds: Array  # (n,)

    @classmethod
    def of_size(cls, size: int, seeds: Array) -> "Frame":
        """Make the frame of pictures with `size` pixels a side."""
        centres = ((2 * np.arange(size, dtype=np.float32) + 1) / np.float32(size)) - 1
        return cls(centres[None, None, :], -centres[None, :, None], 2.0 / size, seeds)

    def subset(self, chosen: Array) -> "Frame":
        """Return the frame of the chosen pictures only."""
        return Frame(self.x, self.y, self.pixel, self.seeds[chosen])

    def uniform(self, channel: int, low: float = 0.0, high: float = 1.0) -> Array:
        """Return one number in [low, high) per picture, (n, 1, 1), fixed by its seed and the channel."""
        unit = (hashed(self.seeds, channel) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
        return (low + unit * np.float32(high - low)).astype(np.float32)[:, None, None]


def rgb(*values: float) -> Array:
    """Return a colour constant, (3, 1, 1, 1)."""
    return np.array(values, dtype=np.float32)[:, None, None, None]


def mix(first: Array, second: Array, share: Array | float) -> Array:
    """Return first + share * (second - first)."""
    return first + share * (second - first)


def smoothstep(low: float, high: float, value: Array) -> Array:
    """Return 0 below `low`, 1 above `high`, and the cubic 3t^2 - 2t^3 between."""
    t = np.clip((value - low) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def wave(value: Array) -> Array:
    """Return an odd periodic wave of period 2 and height 1, made of parabolas."""
    phase = value - 2 * np.floor(value * 0.5 + 0.5)
    return 4 * phase * (1 - np.abs(phase))


def rotate(x: Array, y: Array, tangent: Array | float) -> tuple[Array, Array]:
    """Rotate coordinates clockwise by the angle whose half has this tangent (rational, so exactly rounded)."""
    square = tangent * tangent
    cosine, sine = (1 - square) / (1 + square), 2 * tangent / (1 + square)
    return cosine * x + sine * y, cosine * y - sine * x


def circle(x: Array, y: Array, radius: Array | float) -> Array:
    """Distance to a circle around the origin."""
    return np.sqrt(x * x + y * y) - radius


def ellipse(x: Array, y: Array, across: Array | float, up: Array | float) -> Array:
    """First-order distance to an axis-parallel ellipse around the origin with these half axes."""
    u, v = x / across, y / up
    level = np.sqrt(u * u + v * v)
    u, v = u / across, v / up
    return level * (level - 1) / (np.sqrt(u * u + v * v) + np.float32(1e-6))


def capsule(x: Array, y: Array, ends: Sequence, radii: tuple) -> Array:
    """Distance to the thick line from ends[:2] to ends[2:4], whose radius goes from radii[0] to radii[1]."""
    from_x, from_y, to_x, to_y = ends
    along_x, along_y = to_x - from_x, to_y - from_y
    px, py = x - from_x, y - from_y
    t = np.clip((px * along_x + py * along_y) / (along_x * along_x + along_y * along_y), 0, 1)
    return circle(px - along_x * t, py - along_y * t, radii[0] + (radii[1] - radii[0]) * t)


def blend(first: Array, second: Array, width: float) -> Array:
    """Smooth union of two distances: the minimum, rounded off where they differ by less than `width`."""
    overlap = np.maximum(width - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap * overlap * np.float32(0.25 / width)


def coverage(distance: Array, softness: Array | float) -> Array:
    """Share of a pixel inside the shape; `softness` is the width of the edge, normally a pixel."""
    return np.clip(0.5 - distance / softness, 0, 1)


def paint(image: Array, cover: Array, colour: Array) -> None:
    """Paint `colour` over `image` in place, with opacity `cover` in [0, 1]."""
    image += cover * (colour - image)

"""Drawing the toy birds: (attributes, seeds, size) -> pictures, in plain NumPy.

Parts are laid over one another from the tail to the eye, each from a signed distance in the bird's own coordinates:
feet at (0, 0), y up, facing right, about 1.2 high. Attributes say what is drawn; pose, place, tints and scenery
come from the picture's seed.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from t2ilib.data.toy.attributes import COLOUR_ATTRIBUTES, NAMES, check_attributes
from t2ilib.data.toy.scene import BACKGROUNDS, PERCH_HEIGHT, PERCHES, tinted
from t2ilib.data.toy.shapes import (
    Array,
    Frame,
    blend,
    capsule,
    circle,
    coverage,
    ellipse,
    mix,
    paint,
    rgb,
    rotate,
    smoothstep,
)
from t2ilib.errors import InputError

PLUMAGE = np.array(  # in the order of COLOURS
    [
        (0.86, 0.20, 0.20),
        (0.98, 0.82, 0.22),
        (0.26, 0.60, 0.24),
        (0.18, 0.38, 0.82),
        (0.50, 0.31, 0.18),
        (0.15, 0.15, 0.18),
        (0.97, 0.96, 0.93),
        (0.58, 0.60, 0.65),
    ],
    dtype=np.float32,
)
BILLS = np.array(  # in the order of ATTRIBUTES["bill"]
    [(0.14, 0.13, 0.15), (1.00, 0.74, 0.14), (0.85, 0.18, 0.16), (0.62, 0.64, 0.68)], dtype=np.float32
)
SCALES = np.array([0.71, 0.94], dtype=np.float32)  # small, large


@dataclass(frozen=True)
class Pose:
    """n birds' own coordinates: pixel positions (n, H, W), a pixel's width (n, 1, 1), and the feet in the picture."""

    x: Array
    y: Array
    upright: tuple[Array, Array]  # the same without the body's tilt, for the legs
    pixel: Array
    feet: tuple[Array, Array]


def faces_right(seeds: Array) -> Array:
    """Return for each picture's seed (N,) whether its bird looks to the right, (N,) bool; no attribute says so."""
    return _right(Frame.of_size(1, np.asarray(seeds)))[:, 0, 0]


def _right(frame: Frame) -> Array:
    return frame.uniform(0) >= 0.5


def _pose(frame: Frame, sizes: Array) -> Pose:
    facing = np.where(_right(frame), 1, -1).astype(np.float32)
    feet = (frame.uniform(1, -0.10, 0.10), PERCH_HEIGHT + frame.uniform(2, -0.05, 0.05))
    scale = SCALES[sizes][:, None, None] * frame.uniform(3, 0.96, 1.04)
    x, y = (frame.x - feet[0]) * facing / scale, (frame.y - feet[1]) / scale
    tilted_x, tilted_y = rotate(x, y - 0.3, frame.uniform(4, -0.09, 0.07))
    return Pose(tilted_x, tilted_y + 0.3, (x, y), frame.pixel / scale, feet)


def _markings(colour: Array) -> Array:
    """Colour of bars, spots and streaks: dark on light feathers, pale on dark ones."""
    light = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
    return np.where(light > 0.5, 0.38 * colour, mix(colour, rgb(1, 0.98, 0.92), 0.80))


def _legs(image: Array, pose: Pose) -> None:
    x, y = pose.upright
    for hip, foot in ((-0.10, -0.12), (0.10, 0.12)):
        leg = capsule(x, y, (hip, 0.22, foot, 0.02), (0.026, 0.022))
        for toe in (-0.07, 0.09):
            leg = np.minimum(leg, capsule(x, y, (foot, 0.03, foot + toe, 0.0), (0.024, 0.016)))
        paint(image, coverage(leg - 0.016, pose.pixel), rgb(0.30, 0.18, 0.12))
        paint(image, coverage(leg, pose.pixel), rgb(0.88, 0.56, 0.26))


def _bill(frame: Frame, pose: Pose, shapes: Array) -> Array:
    """Distance to the bill: a rounded wedge on the head, 0.29 or 0.55 long."""
    long = shapes[:, None, None].astype(np.float32)
    length, half = 0.29 + 0.26 * long, 0.155 - 0.025 * long
    x, y = rotate(pose.x - 0.485, pose.y - 0.895, frame.uniform(10, 0.0, 0.12))
    slope = half / length
    wedge = (np.abs(y) - half + x * slope) / np.sqrt(1 + slope * slope)
    return np.maximum(np.maximum(wedge, -x - 0.09), x - 0.96 * length)


def _eye(image: Array, pose: Pose, face: Array) -> None:
    x, y = pose.x - 0.37, pose.y - 0.97
    paint(image, coverage(circle(x, y, 0.088), pose.pixel), mix(face, rgb(1, 1, 1), 0.65))
    paint(image, coverage(circle(x, y, 0.070), pose.pixel), rgb(0.09, 0.07, 0.08))
    paint(image, coverage(circle(x + 0.02, y - 0.028, 0.026), pose.pixel), rgb(1, 1, 1))


def _tail(image: Array, pose: Pose, tail: Array, colour: Array, lift: Array) -> None:
    paint(image, coverage(tail, pose.pixel), colour * (0.80 + 0.22 * smoothstep(-0.30, -0.55, pose.x)))
    for spread in (-0.045, 0.045):
        quill = capsule(pose.x, pose.y, (-0.45, 0.42, -0.79, 0.27 + lift + spread * 1.3), (0.008, 0.014))
        paint(image, 0.5 * coverage(quill, pose.pixel), 0.55 * colour)


def _wing_shape(x: Array, y: Array) -> Array:
    """Distance to a folded wing: three overlapping feathers from one shoulder."""
    shape = capsule(x, y, (0.0, 0.0, -0.44, -0.08), (0.21, 0.07))
    for tip_x, tip_y in ((-0.39, -0.18), (-0.29, -0.25)):
        shape = blend(shape, capsule(x, y, (0.0, 0.0, tip_x, tip_y), (0.20, 0.065)), 0.03)
    return shape


def _bars(x: Array, y: Array) -> Array:
    first = capsule(x, y, (0.01, 0.25, 0.03, -0.25), (0.038, 0.038))
    return np.minimum(first, capsule(x, y, (-0.17, 0.25, -0.14, -0.25), (0.038, 0.038)))


def _spots(x: Array, y: Array) -> Array:
    spots = circle(x - 0.10, y - 0.06, 0.048)
    for u, v in ((0.06, -0.11), (-0.04, 0.01), (-0.09, -0.14), (-0.19, -0.03), (-0.25, -0.16), (-0.04, 0.14)):
        spots = np.minimum(spots, circle(x - u, y - v, 0.048))
    return spots


def _wing(image: Array, pose: Pose, colour: Array, patterns: Array, lift: Array) -> None:
    x, y = rotate(pose.x + 0.05, pose.y - 0.58, lift)
    shape = _wing_shape(x, y)
    paint(image, 0.45 * coverage(shape - 0.045, 0.08), 0.25 * colour)
    paint(image, coverage(shape - 0.022, pose.pixel), 0.48 * colour)
    paint(image, coverage(shape, pose.pixel), colour * (0.86 + 0.22 * smoothstep(-0.25, 0.18, y)))
    inside = coverage(shape + 0.02, pose.pixel)
    quills = np.minimum(
        capsule(x, y, (-0.14, -0.06, -0.42, -0.132), (0.011, 0.011)),
        capsule(x, y, (-0.10, -0.12, -0.36, -0.212), (0.011, 0.011)),
    )
    paint(image, 0.55 * inside * coverage(quills, pose.pixel), 0.55 * colour)
    for pattern, marks in ((1, _bars(x, y)), (2, _spots(x, y))):
        there = (patterns == pattern)[:, None, None]
        paint(image, there * inside * coverage(marks, pose.pixel), _markings(colour))


def _belly(image: Array, pose: Pose, body: Array, colour: Array, patterns: Array) -> None:
    x, y = rotate(pose.x - 0.25, pose.y - 0.43, -0.25)
    shape = np.maximum(ellipse(x, y, 0.26, 0.33), body)
    light = 0.84 + 0.20 * smoothstep(-0.3, 0.2, y)
    paint(image, coverage(shape, 1.5 * pose.pixel), colour * light)
    dashes = np.float32(9)
    for u, v in (
        (0.0, 0.20),
        (0.11, 0.15),
        (-0.05, 0.06),
        (0.06, 0.03),
        (0.16, 0.0),
        (0.0, -0.12),
        (0.11, -0.13),
        (-0.10, -0.13),
    ):
        dashes = np.minimum(dashes, capsule(x - u, y - v, (0.0, 0.04, 0.0, -0.04), (0.026, 0.022)))
    streaked = (patterns == 1)[:, None, None]
    paint(image, streaked * coverage(np.maximum(dashes, shape), pose.pixel), _markings(colour))


def _crown(image: Array, pose: Pose, body: Array, colour: Array) -> None:
    x, y = pose.x, pose.y
    cap = np.maximum(body - 0.006, -(y - 0.97 - 0.22 * (x - 0.27)))
    paint(image, coverage(cap, pose.pixel), colour * (0.92 + 0.12 * smoothstep(0.95, 1.2, y)))
    shine = ellipse(*rotate(x - 0.12, y - 1.06, 0.3), 0.10, 0.05)
    paint(image, 0.28 * coverage(shine, 0.06), rgb(1, 1, 1))


def _tints(frame: Frame, value: dict[str, Array]) -> dict[str, Array]:
    """Return each coloured part's colour, (3, n, 1, 1), slightly different in every picture."""
    tables = {name: BILLS if name == "bill" else PLUMAGE for name in COLOUR_ATTRIBUTES}
    return {
        name: tinted(frame, 20 + 3 * column, table[value[name]].T[:, :, None, None], 0.025)
        for column, (name, table) in enumerate(tables.items())
    }


def _bird(frame: Frame, image: Array, pose: Pose, value: dict[str, Array]) -> None:
    """Paint n birds over `image`; `value` holds the (n,) value indices by attribute name."""
    colour, x, y = _tints(frame, value), pose.x, pose.y
    lift = frame.uniform(11, -0.14, 0.16)
    body = blend(ellipse(*rotate(x + 0.02, y - 0.52, 0.14), 0.48, 0.385), circle(x - 0.27, y - 0.93, 0.295), 0.30)
    tail = capsule(x, y, (-0.38, 0.44, -0.82, 0.28 + lift), (0.09, 0.125))
    bill = _bill(frame, pose, value["bill_shape"])
    silhouette = np.minimum(np.minimum(body, tail), bill)
    outline = mix(0.30 * colour["body"], rgb(0.16, 0.11, 0.12), 0.5)
    paint(image, 0.35 * coverage(silhouette - 0.05, 0.10), rgb(0.10, 0.08, 0.10))
    paint(image, coverage(silhouette - 0.03, pose.pixel), outline)
    _tail(image, pose, tail, colour["wing"], lift)
    paint(image, coverage(body - 0.022, pose.pixel), outline)
    paint(image, coverage(bill, pose.pixel), colour["bill"] * (0.80 + 0.32 * coverage(-(y - 0.885), 0.05)))
    light = 0.80 + 0.26 * smoothstep(0.1, 1.1, y) - 0.18 * smoothstep(-0.12, 0.0, body)
    paint(image, coverage(body, pose.pixel), colour["body"] * light)
    _belly(image, pose, body, colour["belly"], value["belly_pattern"])
    _crown(image, pose, body, colour["crown"])
    _wing(image, pose, colour["wing"], value["wing_pattern"], frame.uniform(12, -0.08, 0.10))
    _eye(image, pose, colour["body"])


def _draw(rows: Array, seeds: Array, size: int) -> Array:
    """Draw one chunk: rows (n, A), seeds (n,) -> (n, size, size, 3) uint8."""
    frame = Frame.of_size(size, seeds)
    value = dict(zip(NAMES, rows.T, strict=True))
    pose = _pose(frame, value["size"])
    image = np.empty((3, len(rows), size, size), dtype=np.float32)
    for index, background in enumerate(BACKGROUNDS):
        chosen = np.flatnonzero(value["background"] == index)
        image[:, chosen] = background(frame.subset(chosen))
    image *= 1 - 0.10 * np.clip(frame.x * frame.x + frame.y * frame.y - 0.6, 0, 1)
    for index, perch in enumerate(PERCHES):
        chosen = np.flatnonzero(value["perch"] == index)
        part = image[:, chosen]
        perch(frame.subset(chosen), part, tuple(axis[chosen] for axis in pose.feet))
        image[:, chosen] = part
    _legs(image, pose)
    _bird(frame, image, pose, value)
    return np.floor(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 3, 0)


def render(attributes: Array, seeds: Array, size: int = 64) -> Array:
    """Draw birds: attributes (N, A), seeds (N,) non-negative integers -> (N, size, size, 3) uint8, 32 <= size <= 256.

    A picture depends on its own row, seed and the size alone. Impossible input raises InputError.
    """
    if not (isinstance(size, int | np.integer) and 32 <= size <= 256):
        raise InputError(f"size={size}: toy birds are drawn at 32 to 256 pixels; choose a whole number there")
    rows, seeds = check_attributes(attributes), np.asarray(seeds)
    if seeds.shape != (len(rows),) or seeds.dtype.kind not in "iu":
        raise InputError(f"seeds {seeds.shape} {seeds.dtype}: give one integer for each of the {len(rows)} birds")
    pictures = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    step = max(1, 65536 // size**2)

    def draw(start: int) -> None:
        part = slice(start, start + step)
        pictures[part] = _draw(rows[part], seeds[part], int(size))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(draw, range(0, len(rows), step)))
    return pictures

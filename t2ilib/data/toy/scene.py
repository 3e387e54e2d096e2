"""Backgrounds and perches of the toy birds. Each function returns or paints pictures (3, n, H, W) in [0, 1]."""

import numpy as np

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
    wave,
)

PERCH_HEIGHT = -0.60  # where a bird's feet stand, before jitter


def tinted(frame: Frame, channel: int, colour: Array, amount: float = 0.04) -> Array:
    """Return `colour` moved by up to `amount` per channel and picture, (3, n, 1, 1)."""
    return colour + np.stack([frame.uniform(channel + i, -amount, amount) for i in range(3)])


def _gradient(frame: Frame, bottom: Array, top: Array) -> Array:
    share = smoothstep(-1.0, 1.0, frame.y) + 0 * frame.x
    return mix(tinted(frame, 100, bottom), tinted(frame, 103, top), share)


def _hills(frame: Frame, image: Array, channel: int, height: float, colour: Array) -> None:
    phase, pace = frame.uniform(channel, 0, 2), frame.uniform(channel + 1, 0.7, 1.3)
    ridge = height + 0.09 * wave(frame.x * pace + phase) + 0.03 * wave(frame.x * pace * 2.7 + 2 * phase)
    shade = mix(colour, rgb(1, 1, 1), 0.25 * smoothstep(-0.5, 0.0, frame.y - ridge))
    paint(image, coverage(frame.y - ridge, 1.5 * frame.pixel), shade)


def sky(frame: Frame) -> Array:
    """Blue sky with soft clouds over pale hills."""
    image = _gradient(frame, rgb(0.88, 0.95, 0.97), rgb(0.42, 0.70, 0.93))
    for cloud in range(3):
        channel = 110 + 8 * cloud
        x = frame.x - frame.uniform(channel, -1.1, 1.1)
        y = frame.y - frame.uniform(channel + 1, 0.1, 0.9)
        width = frame.uniform(channel + 2, 0.18, 0.34)
        puff = ellipse(x, y, width * 1.5, width * 0.45)
        puff = blend(puff, circle(x + width * 0.5, y - width * 0.2, width * 0.5), 0.1)
        puff = blend(puff, circle(x - width * 0.35, y - width * 0.35, width * 0.62), 0.1)
        paint(image, 0.85 * coverage(puff, 0.09), mix(rgb(0.90, 0.94, 0.98), rgb(1, 1, 1), smoothstep(-0.1, 0.2, y)))
    _hills(frame, image, 140, -0.50, rgb(0.66, 0.82, 0.84))
    _hills(frame, image, 143, -0.72, rgb(0.56, 0.76, 0.66))
    return image


def forest(frame: Frame) -> Array:
    """Misty green forest: blurred trunks, discs of light, leaves above."""
    image = _gradient(frame, rgb(0.36, 0.56, 0.42), rgb(0.76, 0.88, 0.66))
    for trunk in range(4):
        channel = 150 + 4 * trunk
        lean = frame.uniform(channel + 1, -0.12, 0.12)
        centre = frame.uniform(channel, -0.25, 0.25) + (trunk - 1.5) * 0.62 + lean * frame.y
        half = np.abs(frame.x - centre) - frame.uniform(channel + 2, 0.05, 0.13)
        paint(image, 0.55 * coverage(half, 0.07), rgb(0.40, 0.53, 0.42))
    for disc in range(7):
        channel = 170 + 4 * disc
        x, y = frame.x - frame.uniform(channel, -1, 1), frame.y - frame.uniform(channel + 1, -0.5, 1)
        spot = coverage(circle(x, y, frame.uniform(channel + 2, 0.06, 0.2)), 0.06)
        paint(image, spot * frame.uniform(channel + 3, 0.12, 0.34), rgb(0.95, 0.99, 0.74))
    for leaf in range(6):
        channel = 200 + 4 * leaf
        x, y = frame.x - frame.uniform(channel, -1.1, 1.1), frame.y - frame.uniform(channel + 1, 0.86, 1.05)
        x, y = rotate(x, y, frame.uniform(channel + 2, -0.6, 0.6))
        paint(image, 0.75 * coverage(ellipse(x, y, 0.20, 0.09), 0.06), tinted(frame, channel, rgb(0.36, 0.60, 0.36)))
    return image


def sunset(frame: Frame) -> Array:
    """Orange evening sky with a low sun, streaks of cloud and violet hills."""
    image = _gradient(frame, rgb(1.0, 0.80, 0.50), rgb(0.95, 0.52, 0.42))
    x, y = frame.x - frame.uniform(230, -0.8, 0.8), frame.y - frame.uniform(231, -0.35, 0.5)
    glow = 1 - smoothstep(0.0, 1.0, circle(x, y, 0.2))
    paint(image, 0.55 * glow * glow, rgb(1.0, 0.93, 0.66))
    paint(image, coverage(circle(x, y, 0.2), 2 * frame.pixel), rgb(1.0, 0.96, 0.80))
    for streak in range(3):
        channel = 233 + 4 * streak
        x, y = frame.x - frame.uniform(channel, -1, 1), frame.y - frame.uniform(channel + 1, 0.1, 0.95)
        band = ellipse(x, y, frame.uniform(channel + 2, 0.4, 0.8), frame.uniform(channel + 3, 0.03, 0.07))
        paint(image, 0.45 * coverage(band, 0.08), rgb(0.98, 0.70, 0.62))
    _hills(frame, image, 250, -0.48, rgb(0.74, 0.46, 0.52))
    _hills(frame, image, 253, -0.70, rgb(0.54, 0.35, 0.48))
    return image


def _leaf(frame: Frame, image: Array, at: tuple, channel: int) -> None:
    x, y = rotate(frame.x - at[0], frame.y - at[1], frame.uniform(channel, -1.0, 1.0))
    shape = np.maximum(circle(x, y - 0.10, 0.17), circle(x, y + 0.10, 0.17))
    colour = tinted(frame, channel + 1, rgb(0.42, 0.66, 0.28), 0.06)
    paint(image, coverage(shape - 0.02, frame.pixel), 0.55 * colour)
    paint(image, coverage(shape, frame.pixel), colour * (1 + 0.2 * coverage(y, 0.05)))


def branch(frame: Frame, image: Array, feet: tuple[Array, Array]) -> None:
    """Paint a bent branch with leaves under the bird's feet (x, y), each (n, 1, 1)."""
    slope, bend = frame.uniform(300, -0.12, 0.12), frame.uniform(301, -0.07, 0.07)
    x = frame.x - feet[0]
    thickness = 0.085 + 0.02 * wave(frame.x * 2.3 + frame.uniform(302, 0, 2)) + 0.02 * frame.x * wave(feet[0] * 5)
    middle = feet[1] - 0.08 + slope * x + bend * x * x
    height = (frame.y - middle) / thickness
    twig_x = frame.uniform(303, -0.2, 0.2) + np.where(frame.uniform(304) < 0.5, -0.7, 0.7).astype(np.float32)
    twig_y = feet[1] - 0.08
    ends = (twig_x, twig_y, twig_x + 0.15, twig_y - 0.26)
    distance = np.minimum((np.abs(height) - 1) * thickness, capsule(frame.x, frame.y, ends, (0.05, 0.025)))
    paint(image, coverage(distance - 0.03, frame.pixel), rgb(0.25, 0.16, 0.12))
    bark = tinted(frame, 305, rgb(0.58, 0.41, 0.28)) * (1 + 0.22 * np.clip(height, -1.4, 1))
    bark = bark * (1 - 0.14 * coverage(np.abs(wave(height * 1.5 + 0.6 * wave(frame.x * 1.7))) - 0.25, 0.4))
    paint(image, coverage(distance, frame.pixel), bark)
    for leaf in range(4):
        side = frame.uniform(310 + 6 * leaf, 0.5, 0.95) * (1 if leaf % 2 else -1)
        _leaf(frame, image, (side, feet[1] - 0.08 + frame.uniform(311 + 6 * leaf, -0.2, 0.1)), 312 + 6 * leaf)


def rock(frame: Frame, image: Array, feet: tuple[Array, Array]) -> None:
    """Paint a rounded grey rock with moss under the bird's feet."""
    x, y = frame.x - feet[0], frame.y - feet[1]
    big = ellipse(x - frame.uniform(340, -0.08, 0.08), y + 0.46, frame.uniform(341, 0.66, 0.80), 0.47)
    side = np.where(frame.uniform(342) < 0.5, -1, 1).astype(np.float32)
    lump = ellipse(x - side * 0.62, y + 0.52, frame.uniform(343, 0.30, 0.42), frame.uniform(344, 0.26, 0.36))
    shape = blend(big, lump, 0.08)
    paint(image, coverage(shape - 0.03, frame.pixel), rgb(0.24, 0.24, 0.28))
    stone = tinted(frame, 345, rgb(0.60, 0.58, 0.58), 0.03)
    light = 0.72 + 0.42 * smoothstep(-0.5, 0.02, y) - 0.12 * smoothstep(0.0, 0.8, x * side)
    stone = stone * light
    for crack in range(5):
        channel = 350 + 4 * crack
        u, v = x - frame.uniform(channel, -0.55, 0.55), y + frame.uniform(channel + 1, 0.12, 0.38)
        fleck = coverage(ellipse(u, v, frame.uniform(channel + 2, 0.03, 0.09), 0.025), 0.03)
        stone = stone * (1 - frame.uniform(channel + 3, 0.1, 0.22) * fleck)
    paint(image, coverage(shape, frame.pixel), stone)


def _blades(frame: Frame, ground: Array, channel: int, pace: float, height: float) -> Array:
    """Distance to a row of pointed grass blades on the line `ground`."""
    u = frame.x * pace + frame.uniform(channel, 0, 1)
    cell = np.floor(u)
    lean = wave(cell * 0.37 + frame.uniform(channel + 1, 0, 2)) * 0.2
    tall = height * (0.75 + 0.25 * wave(cell * 0.73 + frame.uniform(channel + 2, 0, 2)))
    rise = np.clip((frame.y - ground) / tall, -1, 2)
    across = np.abs(u - cell - 0.5 - lean * rise * np.abs(rise))
    return (across - 0.5 * (1 - rise)) / pace * 0.9


def grass(frame: Frame, image: Array, feet: tuple[Array, Array]) -> None:
    """Paint a grassy mound with blades and small flowers under the bird's feet."""
    x = frame.x - feet[0]
    ground = feet[1] - 0.03 - 0.10 * x * x + 0.03 * wave(frame.x + frame.uniform(370, 0, 2))
    shape = np.minimum(frame.y - ground, _blades(frame, ground, 371, 9.0, 0.17))
    paint(image, coverage(shape - 0.025, frame.pixel), rgb(0.16, 0.34, 0.14))
    green = tinted(frame, 375, rgb(0.55, 0.78, 0.24))
    lawn = mix(0.62 * green, green, smoothstep(-0.4, 0.1, frame.y - ground))
    paint(image, coverage(shape, frame.pixel), lawn)
    front = _blades(frame, ground - 0.16, 378, 7.0, 0.15)
    paint(image, 0.8 * coverage(front, frame.pixel), lawn * 0.86)
    for flower in range(4):
        channel = 385 + 6 * flower
        u = frame.x - frame.uniform(channel, -0.95, 0.95)
        v = frame.y - feet[1] + frame.uniform(channel + 1, 0.14, 0.34)
        petal = mix(rgb(1, 1, 0.97), rgb(1.0, 0.72, 0.80), np.floor(frame.uniform(channel + 2, 0, 2)))
        paint(image, coverage(circle(u, v, 0.05), frame.pixel), petal)
        paint(image, coverage(circle(u, v, 0.02), frame.pixel), rgb(0.98, 0.78, 0.25))


BACKGROUNDS = (sky, forest, sunset)
PERCHES = (branch, rock, grass)

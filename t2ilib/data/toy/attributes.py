"""What a toy bird can look like: attributes, species, held-out species, and reproducible draws of them.

Every draw is a hash of (seed, channel), not a stream: the same seed gives the same birds on every platform and
with every NumPy version, and a picture does not depend on which others are made beside it.
"""

from collections.abc import Mapping

import numpy as np

from t2ilib.errors import InputError

COLOURS = ("red", "yellow", "green", "blue", "brown", "black", "white", "grey")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "body": COLOURS,
    "wing": COLOURS,
    "belly": COLOURS,
    "crown": COLOURS,
    "bill": ("black", "yellow", "red", "grey"),
    "bill_shape": ("short", "long"),
    "wing_pattern": ("plain", "barred", "spotted"),
    "belly_pattern": ("plain", "streaked"),
    "size": ("small", "large"),
    "perch": ("branch", "rock", "grass"),
    "background": ("sky", "forest", "sunset"),
}
NAMES = tuple(ATTRIBUTES)
COLOUR_ATTRIBUTES = ("body", "wing", "belly", "crown", "bill")

# (body, wing): 10 of the 64 pairs, never seen in training. Each colour is held out once or twice in each role.
HELD_OUT = (
    ("red", "blue"),
    ("yellow", "black"),
    ("green", "yellow"),
    ("blue", "white"),
    ("brown", "green"),
    ("black", "red"),
    ("white", "brown"),
    ("grey", "grey"),
    ("red", "white"),
    ("blue", "red"),
)

_SPECIES = tuple((body, wing) for body in COLOURS for wing in COLOURS)


def hashed(seeds: np.ndarray, channel: int) -> np.ndarray:
    """Return 64 mixed bits (uint64, same shape) for every seed: splitmix64 of seed and channel number."""
    bits = np.atleast_1d(np.asarray(seeds)).astype(np.uint64)
    for addend in (np.uint64(0x9E3779B97F4A7C15), np.uint64((channel * 0xD1B54A32D192ED03 + 1) % 2**64)):
        bits = bits + addend
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> np.uint64(31))
    return bits


def mixed(seed: int, channel: int) -> int:
    """Return what `hashed` returns for one seed, as a Python integer; much faster for single numbers."""
    bits, limit = seed % 2**64, 2**64 - 1
    for addend in (0x9E3779B97F4A7C15, channel * 0xD1B54A32D192ED03 + 1):
        bits = (bits + addend) & limit
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & limit
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & limit
        bits ^= bits >> 31
    return bits


def choose(seeds: np.ndarray, channel: int, count: int) -> np.ndarray:
    """Return an integer in [0, count) for every seed."""
    return (hashed(seeds, channel) % np.uint64(count)).astype(np.int64)


def check_attributes(attributes: np.ndarray) -> np.ndarray:
    """Return `attributes` as int64 (N, A), or raise InputError where shape or a value index is impossible."""
    rows = np.asarray(attributes)
    if rows.ndim != 2 or rows.shape[1] != len(NAMES) or rows.dtype.kind not in "iu":
        raise InputError(f"attributes {rows.shape} {rows.dtype}: expected integers of shape (N, {len(NAMES)})")
    rows = rows.astype(np.int64)
    limits = np.array([len(values) for values in ATTRIBUTES.values()])
    wrong = np.argwhere((rows < 0) | (rows >= limits))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"attributes[{row}]: {NAMES[column]} is {rows[row, column]}; use 0 to {limits[column] - 1} "
            f"for {', '.join(ATTRIBUTES[NAMES[column]])}"
        )
    return rows


def describe(row: np.ndarray) -> dict[str, str]:
    """Return a bird's attributes by name, e.g. {"body": "red", "wing": "black", ...}, from its row (A,)."""
    checked = check_attributes(np.asarray(row)[None])[0]
    return {name: values[index] for (name, values), index in zip(ATTRIBUTES.items(), checked, strict=True)}


def bird(values: Mapping[str, str]) -> np.ndarray:
    """Return the row (A,) int64 of the bird with these attributes.

    Missing colours follow the body (the body itself is brown), a missing bill is black; everything else missing
    takes the first value. Unknown names or values raise InputError.
    """
    for name, value in values.items():
        if value not in ATTRIBUTES.get(name, ()):
            known = ATTRIBUTES.get(name, NAMES)
            raise InputError(f"{name}={value!r}: not an attribute of the toy birds; choose from {', '.join(known)}")
    body = values.get("body", "brown")
    default = {"body": body, "wing": body, "belly": body, "crown": body}
    return np.array(
        [choices.index(values.get(name, default.get(name, choices[0]))) for name, choices in ATTRIBUTES.items()],
        dtype=np.int64,
    )


def _species_pool(held_out: bool | None) -> np.ndarray:
    """Return the (body, wing) pairs to draw from, (P, 2); one-coloured birds stand there three times."""
    pairs = [pair for pair in _SPECIES if held_out is None or (pair in HELD_OUT) == held_out]
    if not held_out:
        pairs += 2 * [pair for pair in pairs if pair[0] == pair[1]]
    return np.array([[COLOURS.index(colour) for colour in pair] for pair in pairs])


def sample_attributes(count: int, seed: int, held_out: bool | None = None) -> np.ndarray:
    """Draw `count` birds as rows of value indices, (count, A) int64.

    `held_out` True draws only held-out species, False only the others, None from all. Belly and crown often have
    the body's colour (and bellies are often white), as in nature; the rest is drawn uniformly.
    """
    if count < 0:
        raise InputError(f"count={count}: the number of birds cannot be negative")
    seeds = hashed(np.full(count, seed % 2**63), 0) + np.arange(count, dtype=np.uint64)
    rows = np.stack(
        [choose(seeds, 10 + column, len(values)) for column, values in enumerate(ATTRIBUTES.values())], axis=1
    ).astype(np.int64)
    pool = _species_pool(held_out)
    rows[:, :2] = pool[choose(seeds, 1, len(pool))]
    kind = choose(seeds, 2, 100)
    rows[:, 2] = np.where(kind < 30, rows[:, 0], np.where(kind < 45, COLOURS.index("white"), rows[:, 2]))
    kind = choose(seeds, 3, 100)
    rows[:, 3] = np.where(kind < 35, rows[:, 0], np.where(kind < 45, rows[:, 1], rows[:, 3]))
    return rows


def species(attributes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return class ids (N,) int64 in [0, 64) and the 64 class names, e.g. "red bird with black wings"."""
    rows = check_attributes(attributes)
    names = [f"{body} bird with {wing} wings" for body, wing in _SPECIES]
    return rows[:, 0] * len(COLOURS) + rows[:, 1], names

"""What is kept of reference sets: moments for Frechet distances, feature vectors for all that needs more.

Looking at 30,000 real pictures takes as long as looking at the generated ones, so it is kept in a file named after all
that it depends on: the pictures' bytes, the extractor, its resize, the augmentation, and how many vectors are kept.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import CPU_BATCH
from t2ilib.errors import InputError, warn
from t2ilib.files import DATA
from t2ilib.metrics.drawing import ALONE, Team
from t2ilib.metrics.extractors import Extractor, look, protocol
from t2ilib.metrics.intake import Intake
from t2ilib.metrics.moments import Moments, Reference
from t2ilib.metrics.rows import MOST, Rows
from t2ilib.pictures import to_float
from t2ilib.settings import SEED, Range, check_ranges
from t2ilib.weights import digest, save_tensors

FOLDER = DATA / "references"
VERSION = 1
KNOWN = "reference"  # the entry of a file's metadata with what its key was made of
DTYPES = {"mean": torch.float64, "covariance": torch.float64, "count": torch.int64, "features": torch.float32}


@dataclass(frozen=True)
class Augmentation:
    """DF-GAN's answer to test sets of fewer than 30,000 pictures: each several times, flipped and shifted at random.

    Its authors say no more than "horizontal flip and small random shifts to about 30,000"; how far is our choice. The
    first round shows the pictures as they are. What a shift bares repeats the picture's edge.
    """

    count: Annotated[int, Range(least=1, most=10_000_000)] = 30_000  # pictures
    flip: bool = True  # mirror half of them
    shift: Annotated[float, Range(least=0.0, most=0.5)] = (
        1 / 32
    )  # at most, of the side, to either side: 8 of 256 pixels
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        """Raise InputError for numbers that nothing can be drawn with."""
        check_ranges(self, "augmentation.")


def augmented(images: np.ndarray, how: Augmentation, batch_size: int = CPU_BATCH) -> Iterator[np.ndarray]:
    """Yield `how.count` pictures of images (N, H, W, 3) uint8 in batches; the batch size changes none of them.

    InputError where that are fewer than there are already.
    """
    count, rng = len(images), np.random.default_rng(how.seed)
    if how.count < count:
        raise InputError(f"augmentation.count = {how.count}: there are {count} pictures; give more, or augment none")
    reach = round(how.shift * images.shape[1])
    flips = rng.random(how.count) < (0.5 if how.flip else 0.0)
    moves = rng.integers(-reach, reach + 1, size=(how.count, 2))
    flips[:count], moves[:count] = False, 0
    for first in range(0, how.count, batch_size):
        places = np.arange(first, min(first + batch_size, how.count))
        yield np.stack([_moved(images[place % count], flips[place], moves[place]) for place in places])


def _moved(image: np.ndarray, flip: bool, move: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3), mirrored or not, moved down and to the right by so many pixels."""
    rows, columns = (
        (np.arange(length) - step).clip(0, length - 1) for length, step in zip(image.shape, move, strict=False)
    )
    return image[rows][:, columns[::-1] if flip else columns]


def dataset_reference(
    dataset: CaptionedImages,
    extractor: Extractor,
    augmentation: Augmentation | None = None,
    folder: str | Path | None = FOLDER,
    batch_size: int = CPU_BATCH,
) -> Reference:
    """Return what `extractor` saw of all pictures of a data set, each once, or augmented.

    `folder` keeps it; None keeps nothing. InputError for a data set without pictures.
    """
    if not len(dataset):
        raise InputError("reference: no pictures; choose another split")
    images = dataset.images
    if augmentation is None:
        batches = (np.asarray(images[first : first + batch_size]) for first in range(0, len(images), batch_size))
    else:
        batches = augmented(images, augmentation, batch_size)
    about = {
        "pictures": checksum(images),
        "pixels": list(images.shape[1:3]),
        "split": sorted(set(dataset.splits.tolist())),
        "augmentation": None if augmentation is None else asdict(augmentation),
    }
    return reference_of(batches, extractor, about, folder)


def reference_of(
    batches: Iterable[np.ndarray],
    extractor: Extractor,
    about: Mapping[str, Any],
    folder: str | Path | None = FOLDER,
    kept: int = MOST,
) -> Reference:
    """Return what `extractor` saw of batches (B, H, W, 3) uint8, from the file in `folder` where there is one.

    `about` (plain JSON values) must say which pictures these are: it is the file's key, with the extractor and `kept`,
    the number of feature vectors that stay. A damaged file is computed anew.
    """
    details = {**protocol(extractor), **about, "kept": kept, "version": VERSION}
    if folder is None:
        return _computed(batches, extractor, details, kept)
    path, key = _place(folder, details)
    found = _read(path, key, DTYPES.keys())
    if found is not None and found["mean"].shape == (extractor.size,):
        moments = found["mean"].numpy(), found["covariance"].numpy()
        return Reference(*moments, int(found["count"]), found["features"], details)
    reference = _computed(batches, extractor, details, kept)
    tensors = {"mean": torch.from_numpy(reference.mean), "covariance": torch.from_numpy(reference.covariance)}
    counted = {"count": torch.tensor(reference.count), "features": reference.features.contiguous()}
    _write(path, tensors | counted, key)
    return reference


def features_of(
    images: np.ndarray,
    look: Callable[[], np.ndarray],
    about: Mapping[str, Any],
    folder: str | Path | None = FOLDER,
    team: Team = ALONE,
) -> np.ndarray:
    """Return the features (N, F) float32 of pictures (N, H, W, 3) uint8: `look()`, or the file in `folder` of it.

    `about` (plain JSON values) must say who looks, as "extractor", and how: it is the file's key, with the pictures'
    bytes. Of a team all look, or none; the first writes the file. A damaged file is computed anew.
    """
    if folder is None:
        return look()
    path, key = _place(folder, {**about, "pictures": checksum(images), "kept": "features", "version": VERSION})
    found = _read(path, key, {"features"})
    if all(team.gathered([found is not None])):
        return found["features"].numpy()
    features = look()
    if team.rank == 0:
        _write(path, {"features": torch.from_numpy(features)}, key)
    return features


def checksum(images: np.ndarray) -> str:
    """Return the SHA-256 of the shape and the bytes of pictures (N, H, W, 3) uint8, in memory or memory-mapped."""
    found = hashlib.sha256(repr(images.shape).encode())
    for image in images:
        found.update(np.ascontiguousarray(image))
    return found.hexdigest()


def _computed(batches: Iterable[np.ndarray], extractor: Extractor, details: dict, kept: int) -> Reference:
    intake, whole, rows = Intake(), Moments(extractor.size), Rows(kept)
    for batch in batches:
        pictures = to_float(batch)
        places = intake.take(pictures)
        features = look(extractor, pictures).features
        whole.add(features.numpy())
        rows.add(features, places)
    return Reference(whole.mean, whole.covariance(), whole.count, rows.ordered(), details)


def _place(folder: str | Path, details: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the path of the file that is named after all these details, and the key that it has to hold."""
    key = json.dumps(details, sort_keys=True)
    name = re.sub(r"[^\w.-]+", "-", details["extractor"])
    return Path(folder) / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors", key


def _write(path: Path, tensors: dict[str, Tensor], key: str) -> None:
    """Write the file; where that fails, the work is not lost with it."""
    try:
        save_tensors(path, tensors, {KNOWN: key, "sha256": digest(tensors, key)})
    except InputError as error:
        warn(error)


def _read(path: Path, key: str, names: Set[str]) -> dict[str, Tensor] | None:
    """Return what the file holds; None, with a warning where it is damaged or another's."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError):
        metadata, tensors = {}, {}
    whole = tensors.keys() == names and all(value.dtype == DTYPES[name] for name, value in tensors.items())
    if whole and metadata.get(KNOWN) == key and metadata.get("sha256") == digest(tensors, key):
        return tensors
    warn(f"{path}: damaged; the reference is computed anew")
    return None

"""Import of CUB-200-2011 with Reed et al.'s captions, in the layout that AttnGAN and its successors use.

CUB_200_2011/   images/, images.txt, bounding_boxes.txt, image_class_labels.txt, classes.txt, train_test_split.txt
text/           <class>/<image>.txt, one caption per line
train/, test/   filenames.pickle, class_info.pickle (optional: without them train_test_split.txt decides)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2ilib.data import archives, pickles
from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.importers.folder import decode, keep_present
from t2ilib.errors import InputError
from t2ilib.files import sha256

BOXES, LABELS = "bounding_boxes.txt", "image_class_labels.txt"
CLASSES, HALVES = "classes.txt", "train_test_split.txt"


@dataclass(frozen=True)
class Entry:
    """One photograph that the lists name."""

    name: str  # <class folder>/<image>, without .jpg
    split: str


def import_cub(folder: str | Path, size: int, *, allow_missing: bool = False) -> CaptionedImages:
    """Import CUB-200-2011 at `size` x `size`, cropped to the birds as DF-GAN does (see `bird_box`).

    A packed set holds squares: where the picture's edge clips the crop, its centre square is kept, while DF-GAN's
    random crop may also move along the longer side. Splits are those of the pickles (150 training classes, 50 test
    classes), else CUB's own halves. Photographs or captions that are missing raise one `InputError` with the count, or
    are left out if `allow_missing`.
    """
    folder = Path(folder)
    root = folder / "CUB_200_2011"
    numbers = {name.removesuffix(".jpg"): number for number, name in _table(root / "images.txt").items()}
    entries = _entries(folder, numbers)
    kept = keep_present([f"{entry.name}.jpg" for entry in entries], _both(folder), folder, allow_missing)
    entries = [entries[index] for index in kept]
    places = _numbers(entries, numbers, root)
    boxes = _look_up(places, _table(root / BOXES), root / BOXES, 4)
    class_ids = _look_up(places, _table(root / LABELS), root / LABELS, 1)[:, 0].astype(np.int64) - 1
    images = decode(
        [f"{entry.name}.jpg" for entry in entries],
        lambda name: (root / "images" / name).read_bytes(),
        root / "images",
        size,
        crop=lambda index, width, height: bird_box(boxes[index], width, height),
    )
    return CaptionedImages(
        images=images,
        captions=[_captions(folder / "text" / f"{entry.name}.txt") for entry in entries],
        class_ids=class_ids,
        splits=np.array([entry.split for entry in entries], dtype=np.str_),
        class_names=[_title(name) for _, name in sorted(_table(root / CLASSES).items())],
        source={"importer": "cub", "name": folder.name, "sha256": _marks(folder)},
    )


def bird_box(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Return DF-GAN's crop (left, top, right, bottom) of a picture of `width` x `height` pixels.

    It is a square around the centre of the bird's `box` (x, y, width, height), of 1.5 times its longer side, clipped to
    the picture.
    """
    half = max(1, int(max(box[2], box[3]) * 0.75))
    x, y = int((2 * box[0] + box[2]) / 2), int((2 * box[1] + box[3]) / 2)
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    return max(0, x - half), max(0, y - half), min(width, x + half), min(height, y + half)


def _entries(folder: Path, numbers: dict[str, int]) -> list[Entry]:
    pickles = {split: folder / split / "filenames.pickle" for split in ("train", "test")}
    if all(path.is_file() for path in pickles.values()):
        return [Entry(name, split) for split, path in pickles.items() for name in _pickled_names(path)]
    halves = _table(folder / "CUB_200_2011" / HALVES)
    entries = [Entry(name, "train" if halves.get(number) == "1" else "test") for name, number in numbers.items()]
    for entry in entries:
        archives.check_name(entry.name, folder / "CUB_200_2011" / "images.txt")
    return entries


def _pickled_names(path: Path) -> list[str]:
    names = pickles.restricted_load(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: not a list of file names; get AttnGAN's metadata again")
    _check_classes(path.parent / "class_info.pickle", names)
    return [archives.check_name(name, path) for name in names]


def _check_classes(path: Path, names: list[str]) -> None:
    """Check that the class numbers beside the names agree with the names' folders, "002.Laysan_Albatross/..."."""
    if not path.is_file():
        return
    classes = pickles.restricted_load(path)
    if not isinstance(classes, list) or len(classes) < len(names):
        raise InputError(f"{path}: not a list of a class number for each file name; get AttnGAN's metadata again")
    for name, number in zip(names, classes, strict=False):  # the list may go on
        prefix = name.split(".")[0]
        if prefix.isdigit() and not (isinstance(number, int | np.integer) and int(prefix) == number):
            raise InputError(f"{path}: says class {number} for {name}; it belongs to other file names, get both again")


def _both(folder: Path) -> Callable[[str], bool]:
    def exists(name: str) -> bool:
        text = folder / "text" / name
        return (folder / "CUB_200_2011" / "images" / name).is_file() and text.with_suffix(".txt").is_file()

    return exists


def _numbers(entries: list[Entry], numbers: dict[str, int], root: Path) -> list[int]:
    for entry in entries:
        if entry.name not in numbers:
            raise InputError(f"{root / 'images.txt'}: does not list {entry.name}.jpg, which is there; get it again")
    return [numbers[entry.name] for entry in entries]


def _table(path: Path) -> dict[int, str]:
    """Read lines of a number and a text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {int(line.split(maxsplit=1)[0]): line.split(maxsplit=1)[1].strip() for line in lines if line.strip()}
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {path.parent.parent} is not CUB in AttnGAN's layout, check it") from None
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: not lines of a number and a text ({error}); get it again") from error


def _look_up(numbers: list[int], table: dict[int, str], path: Path, width: int) -> np.ndarray:
    try:
        rows = np.array([[float(value) for value in table[number].split()] for number in numbers])
    except KeyError as error:
        raise InputError(f"{path}: has no line for image {error}; get it again") from None
    except ValueError as error:
        raise InputError(f"{path}: not numbers ({error}); get it again") from error
    if rows.shape != (len(numbers), width) or not np.isfinite(rows).all():
        raise InputError(f"{path}: lines do not hold {width} numbers; get it again")
    return rows


def _captions(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\ufffd", " ")
    captions = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not captions:
        raise InputError(f"{path}: holds no caption; get it again or remove the picture")
    return captions


def _title(name: str) -> str:
    number, _, title = name.partition(".")
    return (title if number.isdigit() else name).replace("_", " ")


def _marks(folder: Path) -> dict[str, str]:
    lists = ["images.txt", BOXES, LABELS, CLASSES, HALVES]
    paths = [folder / "CUB_200_2011" / name for name in lists]
    paths += [folder / split / f"{name}.pickle" for split in ("train", "test") for name in ("filenames", "class_info")]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths if path.is_file()}

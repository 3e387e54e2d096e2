"""Import of CUB-200-2011 with Reed et al.'s captions, in the layout that AttnGAN and its successors use.

CUB_200_2011/   images/, images.txt, bounding_boxes.txt, image_class_labels.txt, classes.txt, train_test_split.txt
text/           <class>/<image>.txt, one caption per line
train/, test/   filenames.pickle, class_info.pickle (optional: without them train_test_split.txt decides)
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2ilib.data import archives, pickles, reading
from t2ilib.data.captioned import CaptionedImages, check_size, has_words
from t2ilib.data.importers.gathering import decode, keep_present
from t2ilib.errors import InputError, printable, warn
from t2ilib.files import sha256

BOXES, LABELS = "bounding_boxes.txt", "image_class_labels.txt"
CLASSES, HALVES = "classes.txt", "train_test_split.txt"
UNREAD = "\ufffd"  # stands for bytes that are not UTF-8
SLACK = 0.05  # share of a picture's side by which a box may reach beyond it


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
    check_size(size)
    numbers = _listed(root / "images.txt")
    entries = _entries(folder, numbers)
    names = [f"{entry.name}.jpg" for entry in entries]
    kept = keep_present(names, _both(folder), folder, allow_missing, " (a picture needs its text/*.txt, too)")
    listed = entries
    entries, names = [entries[index] for index in kept], [names[index] for index in kept]
    places = _numbers(entries, numbers, root)
    boxes = _look_up(places, _table(root / BOXES), root / BOXES, 4)
    class_names = _class_names(root / CLASSES)
    class_ids = _class_ids(entries, places, root, len(class_names))
    captions, odd = _captions(entries, folder)
    images = decode(
        names,
        [entry.split for entry in entries],
        lambda name: reading.read_bytes(root / "images" / name, folder),
        root / "images",
        size,
        crop=lambda index, width, height: bird_box(
            _checked_box(boxes[index], width, height, f"{root / BOXES}: {names[index]}"), width, height
        ),
    )
    _tell_unread(odd, folder)  # after all that may fail: an error is one line
    _tell_silent(listed, kept, folder)
    return CaptionedImages(
        images=images,
        captions=captions,
        class_ids=class_ids,
        splits=np.array([entry.split for entry in entries], dtype=np.str_),
        class_names=class_names,
        source={"importer": "cub", "name": printable(folder.name), "sha256": _marks(folder)},
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


def _checked_box(box: np.ndarray, width: int, height: int, where: str) -> np.ndarray:
    """Return a box (x, y, width, height); InputError where it has no area, or does not lie in its picture."""
    x, y, wide, high = box.tolist()
    across, down = SLACK * width, SLACK * height
    inside = x >= -across and y >= -down and x + wide <= width + across and y + high <= height + down
    if wide <= 0 or high <= 0 or not inside:
        told = f"the box {', '.join(f'{value:g}' for value in box)} (x, y, width, height)"
        raise InputError(f"{where}: {told} is not inside its {width} x {height} pixels; get lists and pictures again")
    return box


def _entries(folder: Path, numbers: dict[str, int]) -> list[Entry]:
    pickles = {split: folder / split / "filenames.pickle" for split in ("train", "test")}
    there = [path for path in pickles.values() if reading.is_file(path, folder)]
    if not there:
        return _halves(folder, numbers)
    if len(there) < len(pickles):
        (gone,) = set(pickles.values()).difference(there)
        raise InputError(f"{gone}: missing, but {there[0]} is there; get AttnGAN's metadata again, or remove both")
    entries, seen = [], {}
    for split, path in pickles.items():
        for name in _pickled_names(path):
            if name in seen:
                also = "twice" if seen[name] == split else f"though it is in {seen[name]}, too"
                raise InputError(f"{path}: lists {name} {also}; get AttnGAN's metadata again")
            seen[name] = split
            entries.append(Entry(name, split))
    return entries


def _halves(folder: Path, numbers: dict[str, int]) -> list[Entry]:
    path = folder / "CUB_200_2011" / HALVES
    halves = _look_up(list(numbers.values()), _table(path), path, 1)[:, 0]
    for name, half in zip(numbers, halves, strict=True):
        archives.check_name(name, folder / "CUB_200_2011" / "images.txt")
        if half not in (0, 1):
            raise InputError(f"{path}: says {half:g} for {name}.jpg, not 1 (train) or 0 (test); get it again")
    return [Entry(name, "train" if half else "test") for name, half in zip(numbers, halves, strict=True)]


def _pickled_names(path: Path) -> list[str]:
    names = pickles.restricted_load(path)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: not a list of file names; get AttnGAN's metadata again")
    _check_classes(path.parent / "class_info.pickle", names)
    return [archives.check_name(name, path) for name in names]


def _check_classes(path: Path, names: list[str]) -> None:
    """Check that the class numbers beside the names agree with the names' folders, "002.Laysan_Albatross/..."."""
    if not reading.is_file(path, path.parent.parent):
        return
    classes = pickles.restricted_load(path)
    if not isinstance(classes, list) or len(classes) < len(names):
        raise InputError(f"{path}: not a list of a class number for each file name; get AttnGAN's metadata again")
    for name, number in zip(names, classes, strict=False):  # the list may go on
        whole = isinstance(number, int | np.integer)
        if not whole or _prefix(name) not in (None, number):
            said = number if whole else f"a {type(number).__name__}"
            raise InputError(f"{path}: says class {said} for {name}; it belongs to other file names, get both again")


def _prefix(name: str) -> int | None:
    """Return the class number that CUB puts before a name, as in "002.Laysan_Albatross"; None where there is none."""
    found = re.match(r"(\d{1,9})\.", name, re.ASCII)
    return int(found[1]) if found else None


def _both(folder: Path) -> Callable[[str], bool]:
    def exists(name: str) -> bool:
        text = (folder / "text" / name).with_suffix(".txt")
        return _picture_is_there(folder, name) and reading.is_file(text, folder)

    return exists


def _picture_is_there(folder: Path, name: str) -> bool:
    return reading.is_file(folder / "CUB_200_2011" / "images" / name, folder)


def _tell_silent(entries: list[Entry], kept: list[int], folder: Path) -> None:
    """Warn of classes with pictures of which none has captions; they vanish."""
    of_class = {entries[index].name.split("/")[0] for index in kept}
    there = set(kept)
    left = [entry.name for index, entry in enumerate(entries) if index not in there]
    left = [name for name in left if name.split("/")[0] not in of_class and _picture_is_there(folder, f"{name}.jpg")]
    if silent := dict.fromkeys(name.split("/")[0] for name in left):
        told = f"the first is {next(iter(silent))}; get their text/*.txt"
        warn(f"{folder}: {len(silent)} classes have pictures and no captions, and are left out, {told}")


def _numbers(entries: list[Entry], numbers: dict[str, int], root: Path) -> list[int]:
    for entry in entries:
        if entry.name not in numbers:
            raise InputError(f"{root / 'images.txt'}: does not list {entry.name}.jpg, which is there; get it again")
    return [numbers[entry.name] for entry in entries]


def _listed(path: Path) -> dict[str, int]:
    """Read the names of pictures, without .jpg, and their numbers."""
    numbers: dict[str, int] = {}
    for number, name in _table(path).items():
        if numbers.setdefault(name.removesuffix(".jpg"), number) != number:
            raise InputError(f"{path}: lists {name} twice; get it again")
    return numbers


def _table(path: Path) -> dict[int, str]:
    """Read lines of a number and a text."""
    folder, table = path.parent.parent, {}
    if not reading.is_file(path, folder):
        raise InputError(f"{path}: missing; {folder} is not CUB in AttnGAN's layout, check it")
    for place, line in reading.lines(io.BytesIO(reading.read_bytes(path, folder)), path):
        number, *text = line.strip().split(maxsplit=1)
        if not text or not re.fullmatch(r"\d{1,9}", number, re.ASCII):
            raise InputError(f"{path}: not lines of a number and a text (line {place}); get it again")
        if int(number) in table:
            raise InputError(f"{path}: has two lines for {number}, the second is line {place}; get it again")
        table[int(number)] = text[0]
    return table


def _class_names(path: Path) -> list[str]:
    table = _table(path)
    names = [name for _, name in sorted(table.items())]
    if set(table) != set(range(1, len(table) + 1)):
        raise InputError(f"{path}: its numbers are not 1 to {len(table)}; get it again")
    for number, name in enumerate(names, 1):
        if _prefix(name) not in (None, number):
            raise InputError(f"{path}: has number {number} for {name}; get it again")
    return [_title(name) for name in names]


def _class_ids(entries: list[Entry], places: list[int], root: Path, classes: int) -> np.ndarray:
    """Return the classes (N,), from 0; InputError for one that is not there, and for one that the name contradicts."""
    labels = _look_up(places, _table(root / LABELS), root / LABELS, 1)[:, 0]
    for entry, label in zip(entries, labels, strict=True):
        if label not in range(1, classes + 1):
            told = f"{CLASSES} has 1 to {classes}"
            raise InputError(f"{root / LABELS}: says class {label:g} for {entry.name}.jpg, {told}; get both again")
        if _prefix(entry.name) not in (None, label):
            raise InputError(f"{root / LABELS}: says class {label:g} for {entry.name}.jpg; it is of another set")
    return labels.astype(np.int64) - 1


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


def _captions(entries: list[Entry], folder: Path) -> tuple[list[list[str]], list[Path]]:
    """Return the captions of each picture, and the files of which some bytes could not be read."""
    paths = [folder / "text" / f"{entry.name}.txt" for entry in entries]
    found = [_caption_lines(path, folder) for path in paths]
    odd = [path for path, lines in zip(paths, found, strict=True) if any(UNREAD in line for line in lines)]
    return [_cleaned(lines, path) for lines, path in zip(found, paths, strict=True)], odd


def _tell_unread(odd: list[Path], folder: Path) -> None:
    """Warn of captions that lack letters: "dorée" in Latin-1 becomes "dor e"."""
    if odd:
        told = f"{len(odd)} files of captions hold bytes that are not UTF-8, read as spaces, the first is {odd[0]}"
        warn(f"{folder}: {told}; save them as UTF-8")


def _caption_lines(path: Path, folder: Path) -> list[str]:
    rows = reading.lines(io.BytesIO(reading.read_bytes(path, folder)), path, each="caption", errors="replace")
    return [line for _, text in rows for line in text.splitlines()]


def _cleaned(lines: list[str], path: Path) -> list[str]:
    captions = [" ".join(line.replace(UNREAD, " ").split()) for line in lines]
    captions = [caption for caption in captions if has_words(caption)]
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

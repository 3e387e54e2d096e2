"""Import of a folder or zip of pictures with `metadata.jsonl`, the Hugging Face imagefolder convention.

Each line of `metadata.jsonl` is an object: `file_name` (relative to it), the captions as `captions` (list), `text` or
`caption`, and optionally `class` (name), `class_id` and `split`. A picture may have several lines: its captions add up.
There may be one such file at the top, or one in each of `train/`, `validation/`, `test/`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from t2ilib.data import archives, decoding
from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError
from t2ilib.files import sha256

METADATA = "metadata.jsonl"
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
SEVERAL_CLASSES = 2


@dataclass
class Files:
    """The files of a folder or zip archive, by relative name."""

    names: list[str]  # those that may be metadata
    exists: Callable[[str], bool]
    read: Callable[[str], bytes]


@dataclass
class Record:
    """One picture as `metadata.jsonl` describes it."""

    captions: list[str]
    split: str
    label: str | None
    number: int | None

    def add(self, other: "Record", where: str) -> None:
        """Take the captions of another line about the same picture."""
        if (self.split, self.label, self.number) != (other.split, other.label, other.number):
            raise InputError(f"{where}: another class or split than on an earlier line for this picture; correct it")
        self.captions += other.captions


def import_folder(
    path: str | Path, size: int, *, allow_missing: bool = False, held_out: int = 0
) -> CaptionedImages:
    """Import a folder or zip of pictures at `size` x `size`: short side resized (antialiased), then the centre square.

    The split is the row's, else that of a folder called train, validation or test, else "train". Classes are
    `class_id` (renumbered from 0 in the same order) or, without it, `class` in alphabetical order; where no row has
    either, each folder of pictures is a class, or all pictures are the one class "all". Pictures that are missing raise
    `InputError`, or are left out if `allow_missing`; damaged ones always raise it. With `held_out` the splits are made
    anew: so many classes, spread evenly over the list of all, are the split "test", the others "train".
    """
    path = Path(path)
    with open_files(path) as files:
        metadata = [name for name in files.names if PurePosixPath(name).name == METADATA]
        if not metadata:
            raise InputError(f"{path}: holds no {METADATA}; write one line per picture, see data/README.md")
        records = _records(files, metadata, path)
        names = list(records)
        kept = keep_present(names, files.exists, path, allow_missing)
        names = [names[i] for i in kept]
        class_ids, class_names = _classes(names, [records[name] for name in names], path)
        splits = np.array([records[name].split for name in names], dtype=np.str_)
        if held_out:
            splits = _by_class(class_ids, len(class_names), held_out, path)
        images = decode(names, files.read, path, size)
        marks = {path.name: sha256(path)} if path.is_file() else {name: sha256(path / name) for name in metadata}
    return CaptionedImages(
        images=images,
        captions=[records[name].captions for name in names],
        class_ids=class_ids,
        splits=splits,
        class_names=class_names,
        source={"importer": "folder", "name": path.name, "sha256": marks},
    )


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Give access to the files of a folder or, checked, of a zip archive."""
    if path.is_dir():
        found = [*path.glob(METADATA), *path.glob(f"*/{METADATA}")]
        names = sorted(file.relative_to(path).as_posix() for file in found)
        yield Files(names, lambda name: (path / name).is_file(), lambda name: (path / name).read_bytes())
    else:
        with archives.open_archive(path) as archive:
            names = archive.namelist()
            yield Files(names, set(names).__contains__, lambda name: archives.read_member(archive, name))


def keep_present(names: Sequence[str], exists: Callable[[str], bool], where: Path, allow_missing: bool) -> list[int]:
    """Return the positions of the names that exist; `InputError` counts the others unless `allow_missing`."""
    kept = [index for index, name in enumerate(names) if exists(name)]
    missing = len(names) - len(kept)
    if missing and not (allow_missing and kept):
        first = next(name for name in names if not exists(name))
        take = "pass allow_missing=True (t2i data: --allow-missing) to take what is there"
        remedy = f"get the complete data, or {take}" if kept else "check the path"
        raise InputError(f"{where}: {missing} of {len(names)} pictures are missing, the first is {first}; {remedy}")
    if not kept:
        raise InputError(f"{where}: lists no pictures; check that it is the right one")
    return kept


def decode(
    names: Sequence[str], read: Callable[[str], bytes], where: Path, size: int, crop: Callable | None = None
) -> np.ndarray:
    """Decode pictures into (N, size, size, 3) uint8, several at a time.

    `crop(index, width, height)` gives the box (left, top, right, bottom) to keep of picture `index`; without it the
    whole picture counts.
    """
    if size < 1:
        raise InputError(f"size: {size}; give the side of the pictures in pixels")
    images = np.empty((len(names), size, size, 3), dtype=np.uint8)

    def place(index: int) -> None:
        picture = decoding.read_picture(read(names[index]), f"{where}/{names[index]}")
        box = crop(index, *picture.size) if crop else None
        images[index] = decoding.square(picture, size, box)

    with ThreadPoolExecutor() as pool:
        done = pool.map(place, range(len(names)))
        for _ in tqdm(done, desc=f"reading {where.name}", total=len(names), disable=None, delay=2, leave=False):
            pass
    return images


def _records(files: Files, metadata: list[str], path: Path) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for file in metadata:
        try:
            lines = files.read(file).decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}/{file}: not UTF-8 ({error}); save it as UTF-8") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{path}/{file} line {number}"
                name, record = _record(line, PurePosixPath(file).parent, where)
                if name in records:
                    records[name].add(record, where)
                else:
                    records[name] = record
    return records


def _record(line: str, folder: PurePosixPath, where: str) -> tuple[str, Record]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); write one object per line") from None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise InputError(f'{where}: has no "file_name"; name the picture, relative to {METADATA}')
    name = str(folder / archives.check_name(row["file_name"], where))
    label, number = row.get("class"), row.get("class_id")
    if not isinstance(label, str | None) or not isinstance(number, int | None) or isinstance(number, bool):
        raise InputError(f'{where}: "class" must be a string and "class_id" a whole number')
    return name, Record(_captions(row, where), _split(row.get("split"), name, where), label, number)


def _captions(row: dict, where: str) -> list[str]:
    given = next((row[key] for key in ("captions", "text", "caption") if row.get(key) is not None), [])
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(caption, str) for caption in given):
        raise InputError(f'{where}: "captions" must be a list of strings, or "text" a string')
    captions = [" ".join(caption.split()) for caption in given if caption.strip()]
    if not captions:
        raise InputError(f'{where}: has no caption; give "captions" (a list) or "text"')
    return captions


def _split(given: object, name: str, where: str) -> str:
    if given is None:
        return next((SPLITS[part] for part in PurePosixPath(name).parts[:-1] if part in SPLITS), "train")
    if not isinstance(given, str) or given not in SPLITS:
        raise InputError(f'{where}: "split" is {given!r}; use "train", "validation" or "test"')
    return SPLITS[given]


def _classes(names: list[str], records: list[Record], path: Path) -> tuple[np.ndarray, list[str]]:
    numbered = [record.number is not None for record in records]
    labelled = [record.label is not None for record in records]
    if all(numbered):
        keys = [record.number for record in records]
    elif not any(numbered) and all(labelled):
        keys = [record.label for record in records]
    elif not any(numbered) and not any(labelled):
        keys = _folders(names)
    else:
        first = names[(numbered if any(numbered) else labelled).index(False)]
        raise InputError(f"{path}: {first} has no class while others have; give every picture one, or none")
    titles: dict = {}
    for key, record, name in zip(keys, records, names, strict=True):
        title = record.label if record.label is not None else (key if isinstance(key, str) else f"class {key}")
        if titles.setdefault(key, title) != title:
            raise InputError(f"{path}: {name} calls class {key} {title!r}, others {titles[key]!r}; correct it")
    order = {key: index for index, key in enumerate(sorted(titles))}
    return np.array([order[key] for key in keys], dtype=np.int64), [titles[key] for key in order]


def _by_class(class_ids: np.ndarray, classes: int, held_out: int, path: Path) -> np.ndarray:
    """Return the splits (N,) that hold out `held_out` of the classes, spread evenly."""
    if type(held_out) is not int or not 1 <= held_out < classes:
        raise InputError(f"{path}: held_out = {held_out}: must be at least 1 and below its {classes} classes")
    numbers = np.arange(classes) * held_out // classes
    last_of_its_kind = np.diff(numbers, append=held_out) > 0
    return np.where(last_of_its_kind[class_ids], "test", "train")


def _folders(names: list[str]) -> list[str]:
    parents = [PurePosixPath(name).parent.name for name in names]
    parents = ["" if parent in SPLITS else parent for parent in parents]
    return parents if len(set(parents)) >= SEVERAL_CLASSES else ["all"] * len(names)

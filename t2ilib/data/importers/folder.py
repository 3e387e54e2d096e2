"""Import of a folder or zip of pictures with `metadata.jsonl`, the Hugging Face imagefolder convention.

Each line of `metadata.jsonl` is an object: `file_name` (relative to it), the captions as `captions` (list), `text` or
`caption`, and optionally `class` (name), `class_id` and `split`. A picture may have several lines: its captions add up.
There may be one such file at the top, or one in each of `train/`, `validation/`, `test/`.
"""

import io
import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from t2ilib.data import archives, reading
from t2ilib.data.captioned import CaptionedImages, check_size, has_words
from t2ilib.data.importers.gathering import decode, keep_present
from t2ilib.errors import InputError, printable, warn
from t2ilib.files import sha256

METADATA = "metadata.jsonl"
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
SEVERAL_CLASSES = 2
LINES_LIMIT = 1_000_000  # of all lists; COCO's 120,000 pictures have 600,000 captions
CAPTIONS_LIMIT = 1_000  # of one picture
MISSING_COUNTED = 10_000  # pictures; of more that are missing, nobody needs the number
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass
class Files:
    """The files of a folder or zip archive, by relative name."""

    names: list[str]  # all of them
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
        if len(self.captions) > CAPTIONS_LIMIT:
            raise InputError(f"{where}: over {CAPTIONS_LIMIT} captions for this picture; leave some out")


def import_folder(path: str | Path, size: int, *, allow_missing: bool = False, held_out: int = 0) -> CaptionedImages:
    """Import a folder or zip of pictures at `size` x `size`: short side resized (antialiased), then the centre square.

    The split is the row's, else that of a folder called train, validation or test, else "train". Classes are
    `class_id` (renumbered from 0 in the same order) or, without it, `class` in alphabetical order; where no row has
    either, each folder of pictures is a class, or all pictures are the one class "all". Pictures that are missing raise
    `InputError`, or are left out if `allow_missing`; damaged ones always raise it. With `held_out` the splits are made
    anew: so many classes, spread evenly over the list of all, are the split "test", the others "train".
    """
    path = Path(path)
    check_size(size)
    with open_files(path) as files:
        metadata = _metadata(files.names, path)
        records = _records(files, metadata, path, allow_missing)
        names = listed = list(records)
        kept = keep_present(names, files.exists, path, allow_missing)
        names = [names[i] for i in kept]
        class_ids, class_names = _classes(names, [records[name] for name in names], path)
        splits = np.array([records[name].split for name in names], dtype=np.str_)
        if held_out:
            splits = _by_class(class_ids, len(class_names), held_out, path)
        images = decode(names, splits, files.read, path, size)
        marks = {path.name: sha256(path)} if path.is_file() else {name: sha256(path / name) for name in metadata}
        _tell_unlisted(files.names, listed, path)  # after all that may fail: an error is one line
    return CaptionedImages(
        images=images,
        captions=[records[name].captions for name in names],
        class_ids=class_ids,
        splits=splits,
        class_names=class_names,
        source={
            "importer": "folder",
            "name": printable(path.name),
            "sha256": {printable(name): mark for name, mark in marks.items()},
        },
    )


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Give access to the files of a folder or, checked, of a zip archive."""
    if path.is_dir():
        names = [os.path.join(folder, name) for folder, _, there in os.walk(path) for name in there]
        names += [*path.glob(METADATA), *path.glob(f"*/{METADATA}")]  # also through links, and what is no file
        names = sorted({Path(name).relative_to(path).as_posix() for name in names})
        yield Files(
            names,
            lambda name: reading.is_file(path / name, path),
            lambda name: reading.read_bytes(path / name, path),
        )
    else:
        with archives.open_archive(path) as archive:
            members = archives.files(archive)
            yield Files(
                list(members),
                members.__contains__,
                lambda name: archives.read_member(archive, members[name], reading.FILE_LIMIT),
            )


def _metadata(names: list[str], path: Path) -> list[str]:
    """Return the lists among the names: in a folder at its top or one below, in an archive anywhere."""
    deepest = 2 if path.is_dir() else archives.PATH_LIMIT
    lists = [name for name in map(PurePosixPath, names) if name.name == METADATA]
    found = [name for name in lists if len(name.parts) <= deepest]
    if lists and not found:
        folder = lists[0].parent.parent if lists[0].parent.name in SPLITS else lists[0].parent
        raise InputError(f"{path}: its lists lie further down, the first is {lists[0]}; give {path / folder}")
    if not found:
        raise InputError(f"{path}: holds no {METADATA}; write one line per picture, see data/README.md")
    for name in found:
        above = [other for other in found if other != name and other.parent in name.parents]
        if above and name.parent.name not in SPLITS:
            told = f"a list below {above[0]}, in no split's folder"
            raise InputError(f"{path}/{name}: {told}; move it out of there, or add its lines to the other")
    return [str(name) for name in found]


def _tell_unlisted(names: list[str], listed: list[str], path: Path) -> None:
    """Warn of pictures that have no caption because no line names them; a system never sees those."""
    known = set(listed)
    unlisted = [name for name in names if name.lower().endswith(ENDINGS) and name not in known]
    unlisted = [name for name in unlisted if not PurePosixPath(name).name.startswith(".")]
    if unlisted and listed:  # without any line the error says it
        told = f"the first is {unlisted[0]}; give them captions, or remove them"
        warn(f"{path}: {len(unlisted)} pictures are in no {METADATA} and left out, {told}")


def _records(files: Files, metadata: list[str], path: Path, allow_missing: bool) -> dict[str, Record]:
    records: dict[str, Record] = {}
    there, spelled = set(files.names), {unicodedata.normalize("NFC", name): name for name in files.names}
    for where, folder, line in _lines(files, metadata, path):
        name, record = _record(line, folder, where)
        if name not in there:  # an accent may be a letter's or a character of its own
            name = spelled.get(unicodedata.normalize("NFC", name), name)
        if name in records:
            records[name].add(record, where)
        else:
            records[name] = record
        if not allow_missing and len(records) > len(files.names) + MISSING_COUNTED:
            told = f"over {MISSING_COUNTED} of the pictures it lists are missing"
            raise InputError(f"{where}: {told}; get the complete data, or pass allow_missing=True (--allow-missing)")
    return records


def _lines(files: Files, metadata: list[str], path: Path) -> Iterator[tuple[str, PurePosixPath, str]]:
    """Yield place, folder and text of each line of the lists, counted before the first is read."""
    left = LINES_LIMIT
    for file in metadata:
        data = files.read(file)
        left -= data.count(b"\n")
        if left < 0:
            raise InputError(f"{path}/{file}: over {LINES_LIMIT:,} lines, of all lists together; give fewer pictures")
        for number, line in reading.lines(io.BytesIO(data), f"{path}/{file}"):
            yield f"{path}/{file} line {number}", PurePosixPath(file).parent, line


def _record(line: str, folder: PurePosixPath, where: str) -> tuple[str, Record]:
    row = reading.parse_line(line, where)
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise InputError(f'{where}: has no "file_name"; name the picture, relative to {METADATA}')
    name = str(folder / archives.check_name(row["file_name"], where))
    label, number = row.get("class"), row.get("class_id")
    if not isinstance(label, str | None) or not isinstance(number, int | None) or isinstance(number, bool):
        raise InputError(f'{where}: "class" must be a string and "class_id" a whole number; correct it')
    if label is not None and not reading.check_text(label, where).strip():
        raise InputError(f'{where}: "class" is empty; name the class, or leave it out')
    return name, Record(_captions(row, where), _split(row.get("split"), name, where), label, number)


def _captions(row: dict, where: str) -> list[str]:
    keys = [key for key in ("captions", "text", "caption") if row.get(key) is not None]
    if len(keys) > 1:
        raise InputError(f'{where}: has "{keys[0]}" and "{keys[1]}"; give all its captions in "captions" (a list)')
    given = row[keys[0]] if keys else []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(caption, str) for caption in given):
        raise InputError(f'{where}: "captions" must be a list of strings, or "text" a string; correct it')
    captions = [" ".join(reading.check_text(caption, where).split()) for caption in given]
    worded = [has_words(caption) for caption in captions]
    if not any(worded):
        raise InputError(f'{where}: has no caption; give "captions" (a list) or "text"')
    if not all(worded):
        raise InputError(f"{where}: has an empty caption; write it, or leave it out")
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

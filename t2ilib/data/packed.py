"""The packed form of captioned images on disk: written whole or not at all, and checked when it is opened.

A *packed set* is a folder of three files: `images.npy` (one uint8 array, memory-mapped when opened), `captions.jsonl`
(one object per picture) and `meta.json` (format version, counts, names, where the pictures came from).
"""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from t2ilib.data import reading
from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError, unwritten
from t2ilib.files import JSON_LIMIT, abandoned, parse_json

FORMAT = "t2ilib-packed"
VERSION = 1
IMAGES, CAPTIONS, META = "images.npy", "captions.jsonl", "meta.json"


def pack(dataset: CaptionedImages, folder: str | Path) -> None:
    """Write `dataset` as a packed set at `folder`, whole or not at all, replacing a packed set that is there.

    Raises `InputError` when `folder` holds something else, or more, than a packed set, or cannot be written.
    """
    folder = Path(folder)
    if not len(dataset):
        raise InputError(f"{folder}: no pictures to pack; give at least one")
    try:
        if folder.exists() and not _is_replaceable(folder):
            told = "holds something else than a packed set, or more"
            raise InputError(f"{folder}: {told}; move it away, or choose another folder")
        with _temporary_beside(folder) as temporary:
            _check_space(dataset.images.nbytes, temporary)
            _write(dataset, temporary)
            _swap(temporary, folder)
    except OSError as error:
        raise unwritten(folder, error, "make room there, or set T2I_DATA elsewhere") from error


def _write(dataset: CaptionedImages, folder: Path) -> None:
    meta = json.dumps(_meta(dataset), indent=2, ensure_ascii=False).encode() + b"\n"
    if len(meta) > JSON_LIMIT:
        raise InputError(f"class names: they and the list of sources take over {JSON_LIMIT} bytes; shorten them")
    np.save(folder / IMAGES, dataset.images)
    with open(folder / CAPTIONS, "w", encoding="utf-8") as file:
        file.writelines(_rows(dataset))
    (folder / META).write_bytes(meta)
    for name in (IMAGES, CAPTIONS, META):
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())


def _check_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"the pictures take {needed >> 20} MiB, {free >> 20} are free")


def is_packed(folder: str | Path) -> bool:
    """Say whether `folder` looks like a packed set, damaged or not: by its metadata, or as it holds nothing else."""
    folder = Path(folder)
    there = (folder / META).is_file() and any((folder / name).exists() for name in (IMAGES, CAPTIONS))
    return there and (_holds_nothing_else(folder) or _is_marked(folder))


def _is_replaceable(folder: Path) -> bool:
    """Say whether nothing is lost with a folder but a packed set."""
    return folder.is_dir() and _holds_nothing_else(folder) and (not any(folder.iterdir()) or _is_marked(folder))


def _holds_nothing_else(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {IMAGES, CAPTIONS, META}


def _is_marked(folder: Path) -> bool:
    path = folder / META
    return reading.is_file(path, folder) and f'"{FORMAT}"'.encode() in reading.read_bytes(path, folder)


def open_packed(folder: str | Path) -> CaptionedImages:
    """Open a packed set with its pictures memory-mapped; `InputError` names what is damaged, and the remedy."""
    folder = Path(folder)
    meta = _read_meta(folder)
    images = _read_images(folder / IMAGES, (meta["count"], meta["size"], meta["size"], 3))
    rows = _read_rows(folder / CAPTIONS, meta["count"])
    try:
        return CaptionedImages(
            images=images,
            captions=[row["captions"] for row in rows],
            class_ids=_whole([row["class_id"] for row in rows], "class_id"),
            splits=np.array([str(row["split"]) for row in rows], dtype=np.str_),
            class_names=meta["class_names"],
            attributes=_attributes(rows) if meta["attributes"] else None,
            source=meta["source"],
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(folder / CAPTIONS, f"{type(error).__name__}: {error}") from error


def _whole(column: list, name: str) -> np.ndarray:
    """Return a column of whole numbers as int64; 1.5 would become 1."""
    found = np.array(column)
    if len(column) and found.dtype != np.int64:
        raise TypeError(f"{name}: not whole numbers")
    return found.astype(np.int64)


def _attributes(rows: list[dict]) -> np.ndarray:
    from t2ilib.data.toy.attributes import check_attributes  # noqa: PLC0415, the toy birds are made of captioned images

    return check_attributes(_whole([row["attributes"] for row in rows], "attributes"))


def _rows(dataset: CaptionedImages) -> Iterator[str]:
    for index, captions in enumerate(dataset.captions):
        row = {"captions": captions, "class_id": int(dataset.class_ids[index]), "split": str(dataset.splits[index])}
        if dataset.attributes is not None:
            row["attributes"] = dataset.attributes[index].tolist()
        line = json.dumps(row, ensure_ascii=False) + "\n"
        if len(line.encode()) > reading.LINE_LIMIT:
            raise InputError(f"captions: those of picture {index} take over {reading.LINE_LIMIT} bytes; shorten them")
        yield line


def _meta(dataset: CaptionedImages) -> dict:
    return {
        "format": FORMAT,
        "version": VERSION,
        "count": len(dataset),
        "size": dataset.size,
        "class_names": list(dataset.class_names),
        "attributes": dataset.attributes is not None,
        "source": dataset.source,
    }


def _swap(new: Path, folder: Path) -> None:
    """Put a folder where another may be; should that fail, the other is back."""
    retired = new.with_suffix(".old.part")
    if folder.exists():
        folder.rename(retired)
    try:
        new.rename(folder)
    except BaseException:
        if retired.exists():
            retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what packing into `folder` left over a day ago, when the process was killed outright."""
    for left in abandoned(folder.parent, f".{glob.escape(folder.name)}.*.part"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _temporary_beside(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
    finally:  # also on Ctrl-C; after the rename there is nothing to remove
        shutil.rmtree(temporary, ignore_errors=True)


def _damaged(path: Path, what: str) -> InputError:
    folder = path.parent
    remedy = f"delete the folder {folder}" if _is_replaceable(folder) else f"move the folder {folder} away"
    return InputError(f"{path}: {what}; {remedy} and pack its source again")


def _read_meta(folder: Path) -> dict:
    path = folder / META
    if not reading.is_file(path, folder):
        raise InputError(f"{folder}: not a packed set ({META} is missing); pack a source there first")
    data = reading.read_bytes(path, folder, JSON_LIMIT)
    try:
        meta = parse_json(data.decode("utf-8"))
    except ValueError as error:
        raise _damaged(path, f"not JSON ({error})") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InputError(f"{path}: not the metadata of a packed set; choose another folder")
    if meta.get("version") != VERSION:
        raise _damaged(path, f"packed-set version {meta.get('version')!r}, this library reads {VERSION}")
    said = {int: "a whole number of at least 1", list: "a list", bool: "true or false", dict: "an object"}
    kinds = {"count": int, "size": int, "class_names": list, "attributes": bool, "source": dict}
    for key, kind in kinds.items():
        if type(meta.get(key)) is not kind or (kind is int and meta[key] < 1):
            raise _damaged(path, f"entry {key!r} is missing or not {said[kind]}")
    if not _can_be_written(meta["source"]):
        raise _damaged(path, "entry 'source' holds half a character (a lone surrogate)")
    return meta


def _can_be_written(value: object) -> bool:
    try:
        return bool(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False


def _read_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    if not reading.is_file(path, path.parent):
        raise _damaged(path, "missing")
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged headers fail in many ways
        raise _damaged(path, f"cannot be read ({error})") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise _damaged(path, f"{images.dtype} of shape {images.shape}, {META} says uint8 of shape {shape}")
    return images


def _read_rows(path: Path, count: int) -> list[dict]:
    if not reading.is_file(path, path.parent):
        raise _damaged(path, "missing")
    try:
        with open(path, "rb") as file:
            lines = islice(reading.lines(file, path.name), count + 1)  # a longer file is not read to its end
            rows = [reading.parse_line(text, f"line {number}") for number, text in lines]
    except (InputError, OSError) as error:
        raise _damaged(path, f"not JSON lines ({error})") from error
    if len(rows) != count:
        raise _damaged(path, f"{len(rows) if len(rows) < count else 'more'} pictures, {META} says {count}")
    return rows

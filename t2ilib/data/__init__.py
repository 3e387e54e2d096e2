"""Captioned images from every source, packed once and reopened from then on."""

import hashlib
import inspect
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from t2ilib import files
from t2ilib.data.captioned import CaptionedImages, check_size
from t2ilib.data.importers.cub import import_cub
from t2ilib.data.importers.folder import METADATA, import_folder
from t2ilib.data.packed import is_packed, open_packed, pack
from t2ilib.errors import InputError

__all__ = ["CaptionedImages", "import_cub", "import_folder", "load", "open_packed", "pack"]

ACCEPTED = (
    '"toy", a packed set, a folder or zip with metadata.jsonl, or a folder with CUB_200_2011/ and text/ (AttnGAN\'s)'
)
STEM_LIMIT = 150  # bytes of a source's name that go into that of its packed set


def load(source: str | Path, size: int, /, **options: object) -> CaptionedImages:
    """Return the captioned images of `source` at `size` x `size` pixels.

    `source` is "toy" (options: train, validation, test, seed), a packed set, a folder or zip with `metadata.jsonl`, or
    CUB-200-2011 in AttnGAN's layout (options of both: allow_missing; of the former: held_out, a number of classes). All
    but packed sets are packed at first under DATA/packed, and again when the source has changed; later calls open what
    is there. Raises `InputError`.
    """
    check_size(size)
    if not isinstance(options.get("allow_missing", False), bool):
        raise InputError(f"{source}: allow_missing = {options['allow_missing']!r}: must be true or false")
    if source == "toy":
        return _load_toy(size, options)
    path = _reached(source)
    if is_packed(path):
        return _open_at(path, size, options)
    importer = _importer(path, source)
    _check_options(options, ("allow_missing", "held_out") if importer is import_folder else ("allow_missing",), source)
    key = [str(path.resolve()), _fingerprint(path), size, options]
    return _packed_once(f"{_stem(path)}-{size}-{_short(key)}", lambda: importer(path, size, **options))


def _reached(source: str | Path) -> Path:
    """Return the path of a source; InputError where there is nothing, or nothing that can be a source."""
    try:
        path = _located(source)
        kind = os.stat(path if str(source) else "").st_mode  # Path("") would be the current folder
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it; "~name" without a home
        what = "no such source" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
        raise InputError(f"{source}: {what}; give {ACCEPTED}; data/README.md says where data sets come from") from None
    if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
        raise InputError(f"{source}: neither a folder nor a file; give {ACCEPTED}")
    return path


def _located(source: str | Path) -> Path:
    """Return the path of a source; `data/NAME`, as recipes say it, is the one under DATA where there is one."""
    path = Path(source).expanduser()
    ours = files.DATA.joinpath(*path.parts[1:])
    return ours if path.parts[:1] == ("data",) and len(path.parts) > 1 and ours.exists() else path


def _importer(path: Path, source: str | Path) -> Callable[..., CaptionedImages]:
    if path.is_dir() and (path / "CUB_200_2011").is_dir():
        return import_cub
    lists = (METADATA, f"*/{METADATA}", f"*/*/{METADATA}")  # of the last, the importer says which folder to give
    if any(any(path.glob(pattern)) for pattern in lists) or (path.is_file() and _is_zip(path)):
        return import_folder
    what = "no zip archive" if path.is_file() else "holds no data set that is known"
    raise InputError(f"{source}: {what}; give {ACCEPTED}; data/README.md says where data sets come from")


def _is_zip(path: Path) -> bool:
    """Say whether a file is a zip archive, or what is left of one."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"PK" or zipfile.is_zipfile(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable, or get it again") from None


def _stem(path: Path) -> str:
    """Return the name of a source as a part of a file's name, which holds 255 bytes at most."""
    return path.resolve().stem.encode(errors="replace")[:STEM_LIMIT].decode(errors="ignore")


def _load_toy(size: int, options: dict) -> CaptionedImages:
    from t2ilib.data import toy  # noqa: PLC0415, only this source needs the renderer

    known = ("train", "validation", "test", "seed")
    _check_options(options, known, "toy")
    defaults = {name: inspect.signature(toy.toy_birds).parameters[name].default for name in known}
    key = [toy.LOOK, size, defaults | options]  # spelling a default out opens the same set
    return _packed_once(f"toy-{size}-{_short(key)}", lambda: toy.toy_birds(size=size, **options))


def _open_at(path: Path, size: int, options: dict) -> CaptionedImages:
    _check_options(options, (), path)
    dataset = open_packed(path)
    if dataset.size != size:
        raise InputError(f"{path}: packed at {dataset.size} pixels, not {size}; ask for that size or pack again")
    return dataset


def _packed_once(name: str, make: Callable[[], CaptionedImages]) -> CaptionedImages:
    folder = files.DATA / "packed" / name
    if not is_packed(folder):
        pack(make(), folder)
    return open_packed(folder)


def _check_options(options: dict, known: tuple[str, ...], source: object) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"{source}: unknown option {unknown[0]!r}; known: {', '.join(known) or 'none'}")


def _short(key: object) -> str:
    try:
        text = json.dumps(key, sort_keys=True)
    except TypeError:  # an option that no importer takes: a date, say; it will be refused there
        text = repr(key)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _fingerprint(path: Path) -> str:
    """Return what changes when a file of the source does: a hash over names, sizes and times of change."""
    digest = hashlib.sha256()
    for name, size, changed in sorted(_states(path)):
        digest.update(os.fsencode(name) + f"\0{size}\0{changed}\n".encode())
    return digest.hexdigest()


def _states(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of change of each file, but of those that are made from sources."""
    if path.is_file():
        yield path.name, path.stat().st_size, path.stat().st_mtime_ns
    made = {os.path.realpath(files.DATA / name) for name in ("packed", "text")}
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) not in made]
        for file in (os.path.join(folder, name) for name in names):
            if os.path.exists(file):  # links may lead nowhere
                yield file, os.stat(file).st_size, os.stat(file).st_mtime_ns

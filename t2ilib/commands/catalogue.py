"""The commands that say what there is: list (names one may use) and cache (what lies under DATA)."""

import json
import re
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from t2ilib.commands.options import echo
from t2ilib.errors import InputError
from t2ilib.files import DATA, RUNS, WEIGHTS

PACKED = re.compile(r".+-\d+-[0-9a-f]{8}", re.DOTALL)  # folders that `data.load` writes under DATA/packed
TEXT = re.compile(r".+-[0-9a-f]{16}-[0-9a-f]{16}\.safetensors", re.DOTALL)  # files of `encode_dataset` under DATA/text


def show() -> None:
    """List the names that one may use: systems and other tasks, recipes, shipped weights, encoders, protocols."""
    from t2ilib.assembly import TASKS
    from t2ilib.encoders import SHIPPED
    from t2ilib.metrics.protocols import PROTOCOLS
    from t2ilib.models import SYSTEMS
    from t2ilib.training import recipe_names

    tasks = {name: _first_line(TASKS[name]) for name in TASKS}
    encoders = {name: f"shipped; recipe {recipe}" for name, recipe in SHIPPED.items()}
    encoders |= {"clip": "released weights, downloaded", "contrastive": "a small CLIP, trained for the run"}
    weights = {path.stem: _weights_say(path) for path in sorted(WEIGHTS.glob("*.safetensors"))}
    _table("systems (t2i train NAME)", {name: tasks[name] for name in SYSTEMS})
    _table("other tasks (t2i train NAME)", {name: tasks[name] for name in TASKS if name not in SYSTEMS})
    _table("recipes (--recipe NAME)", {name: _recipe_says(name) for name in recipe_names()})
    _table("weights (t2i sample NAME)", weights)
    _table("encoders (--set encoders.text.name=NAME, --judge NAME)", encoders)
    _table("protocols (t2i evaluate RUN --protocol NAME)", {name: each.about for name, each in PROTOCOLS.items()})


def cache(
    names: Annotated[list[str] | None, typer.Argument(help="With --clear: what to remove; default all.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove it; what is needed again is made again.")] = False,
) -> None:
    """List packed pictures and encoded captions under DATA, with their sizes and last use; --clear removes them.

    Nothing is removed while a run under runs is trained. A run elsewhere keeps what it has opened, and packs again when
    it is continued.
    """
    entries = _entries()
    if unknown := [name for name in names or [] if name not in entries]:
        raise InputError(f"{unknown[0]}: not in the cache; t2i cache lists what is")
    chosen = {name: entries[name] for name in names} if names else entries
    if clear:
        _check_unused()
    for name, path in chosen.items():
        files = _files(path)
        states = [file.stat() for file in files]
        used = datetime.fromtimestamp(max(max(state.st_atime, state.st_mtime) for state in states))
        size = sum(state.st_size for state in states) / 1e6
        if clear:
            _remove(path, files)
        echo(f"{'removed' if clear else path.parent.name:7}  {size:9.1f} MB  {used:%Y-%m-%d %H:%M}  {name}")
    if not chosen:
        echo(f"{DATA}: nothing in the cache")


def _entries() -> dict[str, Path]:
    """Return what the library has written under DATA/packed and DATA/text, by name; links and other files are not."""
    packed = [path for path in sorted((DATA / "packed").glob("*")) if PACKED.fullmatch(path.name) and path.is_dir()]
    texts = [path for path in sorted((DATA / "text").glob("*")) if TEXT.fullmatch(path.name) and path.is_file()]
    return {path.name: path for path in packed + texts if not path.is_symlink() and _files(path)}


def _files(path: Path) -> list[Path]:
    from t2ilib.data.packed import CAPTIONS, IMAGES, META

    return [path] if path.is_file() else [path / part for part in (IMAGES, CAPTIONS, META) if (path / part).is_file()]


def _remove(path: Path, files: list[Path]) -> None:
    """Remove files of the library's; a packed set in one step, so that a kill leaves it whole or gone."""
    if path.is_dir() and set(path.iterdir()) == set(files):
        gone = tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)  # packing sweeps such folders
        path.replace(gone)
        shutil.rmtree(gone)
        return
    for file in files:
        file.unlink()


def _check_unused() -> None:
    from t2ilib.training.lock import held

    for process in sorted(RUNS.glob("*/process")):
        if held(process.parent):
            raise InputError(f"{process.parent}: is being trained and may read the cache; stop it (t2i stop), or wait")


def _table(title: str, rows: dict[str, str]) -> None:
    echo(title)
    width = max(map(len, rows), default=0)
    for name, what in rows.items():
        echo(f"  {name:{width}}  {what}".rstrip())


def _first_line(task: type) -> str:
    return (task.__doc__ or "").strip().split("\n")[0]


def _recipe_says(name: str) -> str:
    from t2ilib.training import load_recipe

    try:
        return load_recipe(name).about
    except InputError as error:
        return f"damaged: {error}"


def _weights_say(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return str(json.loads(file.metadata()["t2ilib"]).get("about", ""))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"damaged: {error}"

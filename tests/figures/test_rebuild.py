"""Every figure and table is what its code draws now from the files that lie here; nothing else lies in `figures/`."""

import json
import re
import shutil
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from t2ilib import figures, plots, tables
from t2ilib.errors import InputError
from t2ilib.figures import measured, painted, saved
from t2ilib.files import ROOT, sha256
from t2ilib.training import load_recipe

FOLDER = ROOT / "figures"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
SOURCES = {"manifest.json", "protocols", "published.yaml", "runs"}  # what lies in `figures/` and no command writes
TILE, BOUND = 16, 1.0  # pixels, and the mean difference of one tile of 256 levels: other processors reached 0.12
MEASURED = {"dfgan_truncation", "galip_residual"}  # a part of their numbers is measured anew, the others are read


# ---- nothing stale, nothing left over ------------------------------------------------------------------------------


def left_over(folder: Path) -> set[str]:
    """Return the files of `folder` that no entry of its manifest wrote, and those of entries that are not there."""
    entries = json.loads((folder / "manifest.json").read_text())
    written = {file for entry in entries.values() for file in entry["files"]}
    return {path.name for path in folder.iterdir() if path.name not in SOURCES} ^ written


def stale(folder: Path, root: Path) -> list[str]:
    """Return what differs from its SHA-256 in the manifest: sources under `root`, files in `folder`."""
    entries = json.loads((folder / "manifest.json").read_text())
    told = [(root / source, digest) for entry in entries.values() for source, digest in entry["sources"].items()]
    told += [(folder / file, digest) for entry in entries.values() for file, digest in entry["files"].items()]
    return [str(path) for path, digest in told if not path.is_file() or sha256(path) != digest]


def test_every_file_belongs_to_an_entry_and_every_entry_to_a_command():
    assert left_over(FOLDER) == set(), "remove it, or run make figures"
    assert MANIFEST.keys() == figures.FIGURES.keys()
    for name, entry in MANIFEST.items():
        assert entry["by"] == f"t2i figures {name}" and re.fullmatch("[0-9a-f]{40}", entry["commit"])


def test_sources_and_files_are_those_of_the_manifest():
    assert stale(FOLDER, ROOT) == [], "run make figures"


def test_every_source_of_a_figure_is_named():
    for name in figures.PAINTED:
        assert any(source.startswith("data/weights/") for source in MANIFEST[name]["sources"])
    for name in MANIFEST.keys() - figures.PAINTED.keys() - {"toy_birds"}:
        assert MANIFEST[name]["sources"], name


def test_orphans_and_stale_entries_are_seen(tmp_path):
    root, folder = tmp_path, tmp_path / "figures"
    folder.mkdir()
    (root / "source.txt").write_text("one")
    entry = {"sources": {"source.txt": sha256(root / "source.txt")}, "files": {}}
    (folder / "a.png").write_text("picture")
    entry["files"]["a.png"] = sha256(folder / "a.png")
    (folder / "manifest.json").write_text(json.dumps({"a": entry}))
    assert left_over(folder) == set() and stale(folder, root) == []
    (root / "source.txt").write_text("two")
    assert stale(folder, root) == [str(root / "source.txt")]
    (folder / "a.png").write_text("another")
    assert stale(folder, root)[1:] == [str(folder / "a.png")]
    (folder / "old.png").write_text("")
    assert left_over(folder) == {"old.png"}
    (folder / "a.png").unlink()
    assert left_over(folder) == {"old.png", "a.png"}


# ---- the code of today draws what is committed ---------------------------------------------------------------------


def tiles(one: Image.Image, other: Image.Image) -> float:
    """Return the largest mean difference, over colours and pixels, of any tile of two pictures of one size."""
    apart = np.abs(np.asarray(one.convert("RGB"), float) - np.asarray(other.convert("RGB"), float)).mean(2)
    padded = np.pad(apart, [(0, -side % TILE) for side in apart.shape])
    rows, columns = (side // TILE for side in padded.shape)
    return padded.reshape(rows, TILE, columns, TILE).mean((1, 3)).max()


def drawing(content: bytes) -> str:
    """Return what a PDF draws and writes: its streams of text, without fonts."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    texts = [zlib.decompress(stream) for stream in streams]
    return "\n".join(text.decode() for text in texts if text.isascii())


def near(one: str, other: str) -> bool:
    """Whether two cells of a CSV are equal, or numbers that another processor's rounding explains."""
    try:
        return one == other or float(one) == pytest.approx(float(other), rel=2e-2, abs=1e-3)
    except ValueError:
        return False


def compare(name: str, new: Path, old: Path) -> None:
    """Assert that a file of figure `name` is what is committed."""
    if new.suffix == ".png":
        one, other = Image.open(new), Image.open(old)
        assert one.size == other.size and tiles(one, other) < BOUND, f"{name}: make figures"
    elif new.suffix == ".pdf" and name not in MEASURED:
        assert drawing(new.read_bytes()) == drawing(old.read_bytes())
    elif new.suffix == ".csv" and name in figures.PAINTED:
        rows, others = plots.read_rows(new), plots.read_rows(old)
        assert [row.keys() for row in rows] == [row.keys() for row in others]
        for row, other in zip(rows, others, strict=True):
            assert all(near(row[key], other[key]) for key in row), (row, other)
    elif new.suffix in (".csv", ".md"):
        assert new.read_text() == old.read_text()
    else:
        assert new.suffix == ".pdf" and new.read_bytes().startswith(b"%PDF")


@pytest.fixture(scope="module")
def samplers():
    """Read each file of weights once for all figures."""
    loaded = {}
    with pytest.MonkeyPatch.context() as patch:
        load = painted.load_sampler

        def once(name, device=None):
            return loaded.setdefault(name, load(name, "cpu"))

        patch.setattr(painted, "load_sampler", once)
        patch.setattr(measured, "load_sampler", once)
        yield loaded


@pytest.fixture(scope="module")
def recipes():
    """Read each run's recipe once for all tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("t2ilib.training.run.load_recipe", cache(load_recipe))
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of `figures/`, copies in place of the pages that tables are written into."""
    shutil.copytree(tables.BENCHMARKS, tmp_path / "benchmarks" / "results")
    shutil.copy(ROOT / "benchmarks" / "README.md", tmp_path / "benchmarks")
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    monkeypatch.setattr(tables, "BENCHMARKS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(tables, "README", tmp_path / "README.md")
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "figures")
    monkeypatch.setattr(saved, "build_commit", lambda: "0" * 40)
    (tmp_path / "figures").mkdir()
    return tmp_path / "figures"


@pytest.fixture
def partly(monkeypatch):
    """Measure one setting anew, and take the others from the committed numbers: sampling all takes half a minute."""
    draw, quality, effect = measured._drawn, measured._quality, measured._effect

    def read(name, **where):
        rows = plots.read_rows(FOLDER / f"{name}.csv")
        found = [row for row in rows if all(row[key] == value for key, value in where.items())]
        return [(float(row["value"]), [float(row["low"]), float(row["high"])]) for row in found]

    def with_clip(sampler):
        return bool(sampler.recipe.clip.weight)

    def some_drawn(judge, sampler, *how):
        return None if with_clip(sampler) else draw(judge, sampler, *how)

    def some_cuts(how, cut, uncut, real):
        if cut in (0.88, None) and uncut is not None:
            return quality(how, cut, uncut, real)
        weights = "dfgan_clip_toy" if with_clip(how[1]) else "dfgan_toy"
        return read("dfgan_truncation", series=weights, truncation=f"{cut:g}" if cut else "none")

    def some_effects(judge, asked, plain, captions):
        if asked[-1] == 0.2:
            return effect(judge, asked, plain, captions)
        return read("galip_residual", **{"share of the answer": f"{asked[-1]:g}"})

    monkeypatch.setattr(measured, "_drawn", some_drawn)
    monkeypatch.setattr(measured, "_quality", some_cuts)
    monkeypatch.setattr(measured, "_effect", some_effects)


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
def test_a_figure_is_what_its_code_draws_now(name, folder, samplers, recipes, partly):
    assert list(figures.rebuild([name])) == [name]
    entry = json.loads((folder / "manifest.json").read_text())[name]
    committed = MANIFEST[name]
    assert entry["files"].keys() == committed["files"].keys() and entry.get("size") == committed.get("size")
    if name not in tables.TABLES:  # some of these are written from copies here
        assert entry["sources"] == committed["sources"]
    for file in entry["files"]:
        compare(name, folder / file, FOLDER / file)
    for page in ("README.md", "benchmarks/README.md"):
        assert (folder.parent / page).read_text() == (ROOT / page).read_text()


# ---- the comparison can fail ---------------------------------------------------------------------------------------

RECORDS = [{"step": step, "generator/a": 3 / (step + 1)} for step in range(10)]


def as_picture(figure, path):
    plots.save_figure(figure, "a", "test", folder=path)
    return Image.open(path / "a.png")


def test_a_changed_colour_label_or_value_is_seen(tmp_path, monkeypatch):
    plain = as_picture(plots.curves(RECORDS, ["generator/a"]), tmp_path)
    moved = [{**row, "generator/a": row["generator/a"] * (1.1 if row["step"] == 9 else 1)} for row in RECORDS]
    others = {
        "label": plots.curves(RECORDS, ["generator/a"], labels=("steps", "loss")),
        "value": plots.curves(moved, ["generator/a"]),
    }
    for what, figure in others.items():
        assert tiles(plain, as_picture(figure, tmp_path)) > BOUND, what
    monkeypatch.setattr("t2ilib.plots.charts.colours", lambda count: ["#0072d2"] * count)
    assert tiles(plain, as_picture(plots.curves(RECORDS, ["generator/a"]), tmp_path)) > BOUND
    assert tiles(plain, plain) == 0


def test_rounding_is_borne_and_another_bird_is_seen():
    birds = Image.open(FOLDER / "toy_birds.png").convert("RGB")
    noise = np.random.default_rng(0).random((birds.height, birds.width, 3)) < 0.3
    rounded = Image.fromarray((np.asarray(birds).astype(int) + noise).clip(0, 255).astype(np.uint8))
    other = birds.copy()
    ImageDraw.Draw(other).rectangle((20, 20, 26, 26), fill="white")
    assert 0 < tiles(birds, rounded) < BOUND < tiles(birds, other)


def test_another_drawing_or_cell_is_seen(tmp_path):
    contents = []
    for label in ("step", "steps"):
        plots.save_figure(plots.curves(RECORDS, ["generator/a"], labels=(label, "loss")), "a", "t", folder=tmp_path)
        contents.append((tmp_path / "a.pdf").read_bytes())
    assert drawing(contents[0]) == drawing(contents[0]) != drawing(contents[1]) and "BT" in drawing(contents[0])
    assert near("0.5", "0.501") and not near("0.5", "0.6") and not near("a", "b") and not near("", "0.5")


def test_an_unknown_figure_is_named():
    with pytest.raises(InputError, match="no_such: no such figure; there are toy_birds"):
        list(figures.rebuild(["no_such"]))

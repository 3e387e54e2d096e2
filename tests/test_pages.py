"""The pages of the repository, rendered: tables are whole, links lead somewhere, README and chapter 0 agree."""

import json
import re
from pathlib import Path

import pages
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "data/README.md", "benchmarks/README.md")
CHAPTERS = {path.name: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(path: Path) -> list[str]:
    """Return the Markdown cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_whole(name):
    assert pages.raw_pipes(read(name)) == []


@pytest.mark.parametrize("name", PAGES)
def test_links_and_pictures_exist(name):
    assert pages.missing(read(name), (ROOT / name).parent, ROOT) == []


def test_released_is_the_authors_code():
    """GAN-CLS and WGAN are compared with a third party's code, which has a name of its own."""
    rows = pages.table(read("README.md"), "Errata: where code departs from its paper")
    ours = {cells[0][0]: cells[3][0] for cells in rows}
    assert {"GAN-CLS", "WGAN", "DF-GAN"} < ours.keys()
    assert [text for name, text in ours.items() if name.startswith(("GAN-CLS", "WGAN")) and "released" in text] == []


# ---- README's chapters and chapter 0's map -------------------------------------------------------------------------


@pytest.fixture
def listed() -> list[pages.Row]:
    return pages.table(read("README.md"), "Chapters")[1:]


@pytest.fixture
def mapped() -> list[pages.Row]:
    (cell,) = [cell for cell in prose(CHAPTERS["00_start_here.ipynb"]) if cell.startswith("## The map")]
    return pages.table(cell, "The map")[1:]


def there(rows: list[pages.Row]) -> dict[str, list]:
    """Return the title and the papers of each chapter that is there, by its file's name."""
    return {Path(row[0][1][0][1]).name: [row[0][0], row[1]] for row in rows if row[0][1]}


def test_readme_and_the_map_list_the_same_chapters_and_papers(listed, mapped):
    assert list(there(listed)) == list(CHAPTERS)
    assert there(listed) == there(mapped)


def test_titles_and_papers_are_those_of_the_chapters(mapped):
    for name, (title, papers) in there(mapped).items():
        opening = prose(CHAPTERS[name])[0]
        assert opening.startswith(f"# {title}\n"), name
        targets = {target for _, target in pages.links(opening)}
        assert {target for _, target in papers[1]} <= targets, name


def test_the_map_and_readme_plan_the_same_in_the_order_of_the_course(mapped):
    numbers = [int(row[0][0].split(".")[0]) for row in mapped]
    assert numbers == list(range(len(mapped)))
    planned = [row[0][0] for row in mapped if not row[0][1]]
    assert all(title.endswith(", planned") for title in planned)
    (line,) = re.findall(r"(?m)^Planned: (.*)\.$", read("README.md"))
    assert [f"{title}, planned" for title in line.split(", ")] == planned


def test_times_that_chapter_0_shows_are_the_measured_ones():
    cells = json.loads(CHAPTERS["00_start_here.ipynb"].read_text(encoding="utf-8"))["cells"]
    shown = "".join(line for cell in cells for output in cell.get("outputs", []) for line in output.get("text", []))
    times = json.loads(read("notebooks/times.json"))
    found = re.findall(r"(?m)^(\w+) +([\d.]+) min +([\d.]+|-) s$", shown)
    wanted = [(name, f"{times[name]['cpu'] / 60:.1f}", str(times[name].get("smoke", "-"))) for name in sorted(times)]
    assert found == wanted, "chapter 0 was run before times.json was written: run it again"


def test_every_chapter_was_timed_at_both_scales():
    times = json.loads(read("notebooks/times.json"))
    assert [name for name in CHAPTERS if not {"cpu", "smoke"} <= times.get(Path(name).stem, {}).keys()] == []


# ---- faults are seen ---------------------------------------------------------------------------------------------

TABLE = "| a | b |\n|---|---|\n| [one](x.md) | $|x|$ |\n| `x` | \\|y\\| |\n"
GOOD = f"## Things\n\n{TABLE}\n`a | b`, $|x|$\n\n```\n| x |\n```\n"


def test_good_pages_pass():
    assert pages.raw_pipes(GOOD.replace(" $|x|$ |", " $x$ |")) == []
    assert pages.table(GOOD, "Things")[1][0] == ("one", [("one", "x.md")])
    assert pages.links('[a `b`](c.md) ![d](e.png) <img src="f.png">') == [
        ("a b", "c.md"),
        ("d", "e.png"),
        ("", "f.png"),
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (GOOD, "a row of 4 cells in a table of 2"),  # the formula's bars end cells
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |", "a bar in a paragraph: '| 3 | 4 |'"),
        ("| a | b |\n| 1 | 2 |", "a bar in a paragraph"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\nmore", "a row of 0 cells in a table of 2"),
        ("words\n\n# a | b", "a bar in a paragraph: 'a | b'"),
    ],
)
def test_split_tables_are_seen(fault, message):
    assert message in "\n".join(pages.raw_pipes(fault))


@pytest.mark.parametrize(
    "page",
    [
        "[x](no.md)",
        "![x](no.png)",
        '<img src="no.png">',
        "<img src='no.png'>",
        "[x](no.md#part)",
        "[x](#another)",
        "[x](there.md#another)",
        "[x]()",
        "[x][nope]",
        "[x](/etc/hostname)",
        "[x](../outside.md)",
    ],
)
def test_links_to_nowhere_are_seen(page, tmp_path):
    (tmp_path / "outside.md").write_text("outside")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "there.md").write_text("# One part, told")
    assert len(pages.missing(page, folder, folder)) == 1


def test_links_to_somewhere_pass(tmp_path):
    (tmp_path / "a b.md").write_text("# One part, told")
    fine = "## A part\n\n[x](https://example.org) [y](#a-part) [z](a%20b.md#one-part-told) [e](mailto:a@b.c)"
    fine += " [a word][d]\n\n[d]: a%20b.md"
    assert pages.missing(fine, tmp_path, tmp_path) == []

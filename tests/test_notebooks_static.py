"""The layout of the chapters and solutions, checked without running them.

A chapter is `notebooks/NN_topic.ipynb`, its solutions are `notebooks/solutions/NN.ipynb`. Each check takes the
notebook's JSON and its path, and returns what is wrong with it, as a list of sentences. Chapter 00, the map of the
course, is excused from the checks of `TOPIC_ONLY`; solutions pass those of `EVERYWHERE`.
"""

import ast
import copy
import json
import re
from pathlib import Path

import pages
import pytest

from t2ilib import executed

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CHAPTERS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
HEADER = {  # what the first cell must hold, as a pattern
    "**Question**": r"\*\*question",
    "**Paper**": r"\*\*papers?\b",
    "**Prerequisites**": r"\*\*prerequisites?",
    "a table of run times": r"(?s)run time.*^\|.*cpu.*^\|[\s:|-]+$",
    "'you will be able to'": r"you will be able to",
}
WORDS = 3500  # of prose in a chapter: about a quarter of an hour


def text(cell: dict) -> str:
    return "".join(cell["source"])


def of_type(notebook: dict, kind: str) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind and text(cell).strip()]


def python(cell: dict) -> ast.Module:
    """Return a code cell's syntax tree, without IPython's `%` and `!` lines."""
    return ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", text(cell)))


def outputs(notebook: dict) -> list[dict]:
    return [output for cell in of_type(notebook, "code") for output in cell["outputs"]]


def output_text(notebook: dict) -> str:
    """Return what the outputs say, without embedded pictures."""
    parts = []
    for output in outputs(notebook):
        shown = {"text": output.get("text", "")} | output.get("data", {})
        parts += ["".join(value) for kind, value in shown.items() if kind.startswith("text")]
    return re.sub(r"data:image/[^\"')]*", "", "\n".join(parts))


def headings(notebook: dict) -> list[str]:
    return re.findall(r"(?m)^## +(.+?) *$", "\n".join(map(text, of_type(notebook, "markdown"))))


def check_opening(notebook, path):
    first = notebook["cells"][0]
    number = path.name[:2]
    if first["cell_type"] != "markdown" or not re.match(rf"# {int(number)}[.:] \S", text(first)):
        return [f"the first cell must be Markdown and start with '# {int(number)}. Title'"]
    wanted = {name: pattern for name, pattern in HEADER.items() if number != "00" or name != "**Paper**"}
    found = {name for name, pattern in wanted.items() if re.search(pattern, text(first), re.IGNORECASE | re.MULTILINE)}
    return [f"the first cell lacks {name}" for name in wanted if name not in found]


def check_parameters(notebook, path):
    problems, (second, third) = [], notebook["cells"][1:3]
    if second["cell_type"] != "code" or "parameters" not in second["metadata"].get("tags", []):
        problems.append("the second cell must be code tagged 'parameters'")
    is_code = third["cell_type"] == "code"
    if not is_code or not any(isinstance(node, ast.Import | ast.ImportFrom) for node in python(third).body):
        problems.append("the third cell must hold the imports")
    return problems


def check_sections(notebook, path):
    if headings(notebook)[-3:] != ["Exercises", "Summary", "References"]:
        return [f"the last sections must be Exercises, Summary, References; they are {headings(notebook)[-3:]}"]
    return []


def check_cell_count(notebook, path):
    least, count = (15 if path.name[:2] == "00" else 40), len(notebook["cells"])
    return [] if least <= count <= 70 else [f"{count} cells; {least} to 70 are allowed"]


def check_cell_length(notebook, path):
    long = [text(cell).splitlines() for cell in of_type(notebook, "code") if len(text(cell).splitlines()) > 30]
    return [f"a code cell of {len(lines)} lines starts with {lines[0]!r}; 30 are allowed" for lines in long]


def check_ratio(notebook, path):
    ratio = len(of_type(notebook, "markdown")) / max(len(of_type(notebook, "code")), 1)
    return [] if 1.3 <= ratio <= 1.9 else [f"{ratio:.2f} Markdown cells per code cell; 1.3 to 1.9 are allowed"]


def check_words(notebook, path):
    """Count the words of the prose: tables and what follows the heading of the references are no prose."""
    prose = re.split(r"(?m)^## +References", "\n\n".join(map(text, of_type(notebook, "markdown"))))[0]
    words = len(re.sub(r"(?m)^\s*\|.*$", "", prose).split())
    return [] if words <= WORDS else [f"{words:,} words; {WORDS:,} are allowed outside tables and references"]


def check_size(notebook, path):
    size = len(json.dumps(notebook, indent=1, ensure_ascii=False).encode())
    return [] if size <= 300 * 1024 else [f"{size // 1024} KB; 300 are allowed"]


def check_execution(notebook, path):
    counts = [cell["execution_count"] for cell in of_type(notebook, "code")]
    clean = counts == list(range(1, len(counts) + 1))
    return [] if clean else [f"execution counts {counts}: run all cells once, in order, in a new kernel"]


def check_outputs(notebook, path):
    problems = []
    for output in outputs(notebook):
        kinds = output.get("data", {})
        problems += ["an error among the outputs"] if output["output_type"] == "error" else []
        problems += ["a widget among the outputs"] if any("widget" in kind for kind in kinds) else []
        problems += ["a picture as SVG or PDF"] if {"image/svg+xml", "application/pdf"} & set(kinds) else []
    return problems + (
        ["a progress bar among the outputs"] if re.search(r"it/s\]|s/it\]", output_text(notebook)) else []
    )


def check_metadata(notebook, path):
    problems = ["widget state in the metadata"] if "widgets" in notebook["metadata"] else []
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernelspec must be python3")
    timed = [
        sorted(executed.FLEETING & set(cell["metadata"]))
        for cell in notebook["cells"]
        if executed.FLEETING & set(cell["metadata"])
    ]
    return problems + ([f"cell metadata that changes with every run: {timed[0]}"] if timed else [])


def check_identifiers(notebook, path):
    identifiers = [cell.get("id") for cell in notebook["cells"]]
    problems = ["a cell without id (nbformat 4.5 has them)"] if None in identifiers else []
    return problems + (["two cells with the same id"] if len(set(identifiers)) < len(identifiers) else [])


def check_images(notebook, path):
    source = "\n".join(map(text, of_type(notebook, "markdown"))) + output_text(notebook)
    images = re.findall(r"!\[[^\]]*\]\(([^)\s]+)", source) + re.findall(r"<img[^>]*src=[\"']([^\"']+)", source)
    own = ("attachment:", "data:")
    missing = [image for image in images if not image.startswith(own) and not (path.parent / image).is_file()]
    return [f"image {image}: neither embedded nor a file of the repository" for image in missing]


def check_links(notebook, path):
    return pages.missing("\n\n".join(map(text, of_type(notebook, "markdown"))), path.parent, NOTEBOOKS.parent)


def check_tables(notebook, path):
    return [problem for cell in of_type(notebook, "markdown") for problem in pages.raw_pipes(text(cell))]


def check_scale(notebook, path):
    """The outputs must be those of scale cpu, as `t2i course` marks them: nobody sees it from a picture."""
    found = executed.scale_of(notebook)
    solved = path.parent.name == "solutions"
    command = f"t2i course --only {path.name[:2]}{' --solutions' if solved else ''}"
    where = f"runs/course/{'solutions/' if solved else ''}{path.name}"
    made = f"of scale {found}" if found else "of no known scale, or edited since"
    return [] if found == "cpu" else [f"its outputs are {made}: run `{command}` and commit {where}"]


def check_paths(notebook, path):
    everything = "\n".join(map(text, notebook["cells"])) + output_text(notebook)
    pattern = r"(?<![\w.:/~-])/(?:home|root|tmp|work|Users|mnt|opt|usr|var|private)/[\w.]+|\b[A-Z]:\\\w+"
    return [f"absolute path {found}" for found in re.findall(pattern, everything)]


def check_notebook_imports(notebook, path):
    code = "\n".join(map(text, of_type(notebook, "code")))
    found = re.search(r"%run\b.*|import_ipynb.*|(?:from|import) +notebooks\b.*|nbimporter.*", code)
    return [f"imports another notebook: {found.group()}"] if found else []


def check_solutions(notebook, path):
    number = path.name[:2]
    exists = (NOTEBOOKS / "solutions" / f"{number}.ipynb").is_file()
    return [] if exists else [f"its exercises need notebooks/solutions/{number}.ipynb"]


CHECKS = [function for name, function in sorted(globals().items()) if name.startswith("check_")]
TOPIC_ONLY = {check_sections, check_ratio, check_solutions}
EVERYWHERE = [check_execution, check_identifiers, check_images, check_links, check_metadata]
EVERYWHERE += [check_notebook_imports, check_outputs, check_paths, check_scale, check_size, check_tables, check_words]


def test_there_are_chapters():
    assert CHAPTERS, "no chapter found: notebooks/NN_topic.ipynb"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, check):
    if path.name[:2] == "00" and check in TOPIC_ONLY:
        return
    assert check(json.loads(path.read_text(encoding="utf-8")), path) == []


@pytest.mark.parametrize("check", EVERYWHERE, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: f"solutions_{path.stem}")
def test_solutions(path, check):
    assert check(json.loads(path.read_text(encoding="utf-8")), path) == []


def test_every_solution_has_its_chapter():
    assert [path.stem for path in SOLUTIONS] == [path.name[:2] for path in CHAPTERS]


# ---- the checks can fail -----------------------------------------------------------------------------------------

HERE = NOTEBOOKS / "03_topic.ipynb"
OPENING = """# 3. Title

**Question.** Why? **Paper.** [One](https://example.org). **Prerequisites.** Chapter 2.

Run time:

| fast, CPU | full, GPU |
|---|---|
| 4 min | 2 h |

Afterwards you will be able to tell."""


def make_cell(kind: str, source: str, identifier: str, **more) -> dict:
    code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "id": identifier, "metadata": {}, "source": source} | code | more


def good_chapter() -> dict:
    """Return a chapter that follows the rules: an opening, parameters, imports, 18 topics, the closing sections."""
    cells = [make_cell("markdown", OPENING, "opening"), make_cell("code", "steps = 3", "parameters")]
    cells += [make_cell("code", "%matplotlib inline\nimport torch", "imports")]
    for topic in range(18):
        cells += [
            make_cell("markdown", f"## Topic {topic}", f"text-{topic}"),
            make_cell("code", "x = 1", f"code-{topic}"),
        ]
    last = ("Reading", "Limits", "Notes", "Asides", "Exercises", "Summary")
    cells += [make_cell("markdown", f"## {name}", name) for name in last]
    cells += [make_cell("markdown", "## References\n- a link", "References")]
    cells[1]["metadata"]["tags"] = ["parameters"]
    for count, cell in enumerate([cell for cell in cells if cell["cell_type"] == "code"], start=1):
        cell["execution_count"] = count
    notebook = {"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    notebook["metadata"]["t2ilib"] = {"scale": "cpu", "digest": executed.digest(notebook)}
    return notebook


def show(**output):
    """Return a change that gives the fifth cell, which is code, one output."""
    return lambda notebook: notebook["cells"][4].update(outputs=[output])


def say(kind_index: int, source: str):
    """Return a change that replaces the source of one cell."""
    return lambda notebook: notebook["cells"][kind_index].update(source=source)


FAULTS = [
    (check_opening, say(0, OPENING.replace("# 3.", "# 4.")), "start with '# 3. Title'"),
    (check_opening, say(0, OPENING.replace("**Question.**", "")), "Question"),
    (check_opening, say(0, OPENING.replace("|", "")), "table of run times"),
    (check_opening, say(0, OPENING.replace("will be able", "may hope")), "able to"),
    (check_parameters, lambda notebook: notebook["cells"][1]["metadata"].clear(), "tagged 'parameters'"),
    (check_parameters, say(2, "x = 2"), "imports"),
    (check_sections, lambda notebook: notebook["cells"].pop(-2), "Exercises, Summary, References"),
    (check_sections, say(-1, "## References\n## More"), "Exercises, Summary, References"),
    (check_cell_count, lambda notebook: notebook["cells"].__delitem__(slice(3, 40)), "40 to 70"),
    (check_cell_length, say(4, "x = 1\n" * 31), "31 lines"),
    (check_ratio, lambda notebook: notebook["cells"].__delitem__(slice(3, 39, 2)), "Markdown cells per code cell"),
    (check_size, show(output_type="stream", name="stdout", text="x" * 320_000), "300 are allowed"),
    (check_execution, lambda notebook: notebook["cells"][4].update(execution_count=9), "run all cells"),
    (check_outputs, show(output_type="error", ename="ValueError", evalue="", traceback=[]), "error"),
    (check_outputs, show(output_type="display_data", data={"application/vnd.jupyter.widget-view+json": {}}), "widget"),
    (check_outputs, show(output_type="display_data", data={"image/svg+xml": "<svg/>"}), "SVG"),
    (check_outputs, show(output_type="stream", name="stderr", text="50%|## | 1/2 [00:01<00:01, 1.0it/s]"), "progress"),
    (check_metadata, lambda notebook: notebook["metadata"].update(widgets={}), "widget state"),
    (check_metadata, lambda notebook: notebook["metadata"]["kernelspec"].update(name="venv"), "python3"),
    (check_metadata, lambda notebook: notebook["cells"][4]["metadata"].update(execution={}), "every run"),
    (check_identifiers, lambda notebook: notebook["cells"][4].pop("id"), "without id"),
    (check_identifiers, lambda notebook: notebook["cells"][4].update(id="opening"), "same id"),
    (check_images, say(3, "![bird](https://example.org/bird.png)"), "neither embedded"),
    (check_images, say(3, '<img width="3" src="../figures/no_such.png">'), "neither embedded"),
    (check_links, say(3, "see [there](no_such.ipynb)"), "no_such.ipynb is not there"),
    (check_tables, say(3, "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |"), "a bar in a paragraph"),
    (check_words, say(3, "word " * 3500), "words; 3,500 are allowed"),
    (check_scale, lambda notebook: notebook["metadata"].pop("t2ilib"), "of no known scale"),
    (check_scale, lambda notebook: notebook["metadata"]["t2ilib"].update(scale="smoke"), "of scale smoke"),
    (check_scale, show(output_type="stream", name="stdout", text="of another run"), "edited since: run `t2i course"),
    (check_paths, say(4, "open('/home/someone/birds.zip')"), "/home/someone"),
    (check_paths, show(output_type="stream", name="stdout", text="saved /tmp/birds"), "/tmp/birds"),
    (check_notebook_imports, say(4, "%run 01_data.ipynb"), "another notebook"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_good_chapter_passes(check):
    if check is not check_solutions:
        assert check(good_chapter(), HERE) == []


@pytest.mark.parametrize(("check", "fault", "message"), FAULTS)
def test_fault_is_seen(check, fault, message):
    notebook = copy.deepcopy(good_chapter())
    fault(notebook)
    assert message in "\n".join(check(notebook, HERE))


def test_chapter_without_solutions_is_seen():
    assert "solutions/98.ipynb" in check_solutions(good_chapter(), NOTEBOOKS / "98_topic.ipynb")[0]


def test_words_of_tables_and_references_are_not_counted():
    notebook = good_chapter()
    notebook["cells"][3]["source"] = "| word " * 3500 + "|"
    notebook["cells"][-1]["source"] = "## References\n" + "word " * 3500
    assert check_words(notebook, HERE) == []


def test_every_check_has_a_fault():
    assert {check for check, *_ in FAULTS} | {check_solutions} == set(CHECKS)

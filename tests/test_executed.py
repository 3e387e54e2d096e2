"""An executed notebook says at which scale it ran, and only of the outputs that it has."""

import copy
import json

import nbformat
import pytest
from nbformat import v4

from t2ilib import executed


def stream(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


LAST = v4.new_output("execute_result", data={"text/plain": "3"}, execution_count=1)


@pytest.fixture
def marked(tmp_path):
    """A notebook as papermill leaves it, finished: its path, and what it holds."""
    picture = v4.new_output("display_data", data={"image/png": "AAAA\n"}, metadata={"image/png": {"width": 7}})
    code = v4.new_code_cell(
        "a = 1\nprint(a)", outputs=[stream("1\n"), stream("2\n"), stream("oh", "stderr"), picture, LAST]
    )
    code.metadata |= {"tags": [], "papermill": {"duration": 3}, "execution": {"started": "now"}, "scrolled": True}
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), code, v4.new_code_cell("a", execution_count=2)])
    notebook.metadata |= {"papermill": {"duration": 3}}
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "widgets": {}}
    notebook.cells[2].metadata.tags = ["parameters"]
    path = tmp_path / "03_topic.ipynb"
    nbformat.write(notebook, path)
    executed.finish(path, "cpu")
    return path, json.loads(path.read_text())


def test_a_finished_notebook_carries_its_scale_and_nothing_fleeting(marked):
    path, notebook = marked
    nbformat.validate(nbformat.read(path, as_version=4))
    assert executed.scale_of(notebook) == "cpu"
    assert notebook["metadata"].keys() == {"kernelspec", "language_info", "t2ilib"}
    assert [cell["metadata"] for cell in notebook["cells"]] == [{}, {}, {"tags": ["parameters"]}]
    assert [output["output_type"] for output in notebook["cells"][1]["outputs"]] == [
        *("stream", "stream", "display_data", "execute_result")
    ]
    assert notebook["cells"][1]["outputs"][0]["text"] == ["1\n", "2\n"]
    assert notebook["cells"][1]["source"] == ["a = 1\n", "print(a)"]


def test_the_mark_survives_another_program_and_edited_prose(marked):
    path, notebook = marked
    nbformat.write(nbformat.read(path, as_version=4), path)
    again = json.loads(path.read_text())
    again["cells"][0]["source"] = ["# Another title"]
    again["cells"][1]["execution_count"] = again["cells"][1]["outputs"][3]["execution_count"] = 7
    assert executed.scale_of(again) == "cpu"
    first, second = notebook["cells"][1]["outputs"][0], copy.deepcopy(notebook["cells"][1]["outputs"][0])
    first["text"], second["text"] = "1\n", "2\n"
    notebook["cells"][1]["outputs"].insert(1, second)
    assert executed.scale_of(notebook) == "cpu"  # the same lines, in two pieces


CHANGES = {
    "an output": lambda cell: cell["outputs"][0].update(text="3\n"),
    "a picture": lambda cell: cell["outputs"][2]["data"].update({"image/png": "BBBB\n"}),
    "the code": lambda cell: cell.update(source="a = 2\nprint(a)"),
    "no outputs": lambda cell: cell.update(outputs=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_outputs_of_another_run_lose_the_mark(marked, change):
    _, notebook = marked
    change(notebook["cells"][1])
    assert executed.scale_of(notebook) is None


def test_what_is_printed_after_a_picture_stays_a_piece_of_its_own(marked):
    path, notebook = marked
    picture = notebook["cells"][1]["outputs"][2] | {"name": "stdout"}
    notebook["cells"][1]["outputs"] = [picture, {"output_type": "stream", "name": "stdout", "text": ["1\n"]}]
    path.write_text(json.dumps(notebook))
    executed.finish(path, "cpu")
    outputs = json.loads(path.read_text())["cells"][1]["outputs"]
    assert [output["output_type"] for output in outputs] == ["display_data", "stream"]


@pytest.mark.parametrize("mark", ["cpu", None, 3, ["cpu"]])
def test_a_mark_that_is_none_is_no_mark(marked, mark):
    _, notebook = marked
    notebook["metadata"]["t2ilib"] = mark
    assert executed.scale_of(notebook) is None


def test_without_a_mark_there_is_no_scale(marked):
    _, notebook = marked
    del notebook["metadata"]["t2ilib"]
    assert executed.scale_of(notebook) is None

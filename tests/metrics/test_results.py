import json
import re

from t2ilib.files import ROOT
from t2ilib.metrics.results import write_result
from t2ilib.provenance import commit, hardware, relative, sanitised_command


def test_a_result_says_how_it_came_about(tmp_path):
    path = write_result(tmp_path, {"toy_fd": 12.5}, {"n": 10, "seed": 3}, command="t2i evaluate runs/a")
    stored = json.loads(path.read_text())
    assert stored["metrics"] == {"toy_fd": 12.5}
    assert {"n", "seed", "command", "commit", "hardware", "python", "torch", "date"} == set(stored["protocol"])
    assert stored["protocol"]["command"] == "t2i evaluate runs/a"


def test_earlier_results_are_kept(tmp_path):
    paths = {write_result(tmp_path, {"value": value}, {}) for value in range(3)}
    assert len(paths) == 3
    assert sorted(json.loads(path.read_text())["metrics"]["value"] for path in paths) == [0, 1, 2]


def test_commands_hold_no_absolute_path():
    command = sanitised_command(
        ["/opt/somewhere/bin/t2i", "evaluate", str(ROOT / "runs" / "a"), "--out=/home/someone/b c", "--n", "10"]
    )
    assert command == "t2i evaluate runs/a '--out=b c' --n 10"
    assert sanitised_command([str(ROOT / "t2ilib" / "cli.py"), "train"]) == "t2ilib/cli.py train"
    assert sanitised_command(["/x/ipykernel_launcher.py", "-f", "/y/kernel.json"]) == "notebook"


def test_relative_paths(tmp_path):
    assert relative(ROOT / "figures" / "a.png") == "figures/a.png"
    assert relative(tmp_path / "a.png") == "a.png"


def test_machine_and_commit_are_named():
    assert re.search(r"cores$|^\d+ x ", hardware())
    assert commit() is None or re.fullmatch(r"[0-9a-f]{40}(\+dirty)?", commit())

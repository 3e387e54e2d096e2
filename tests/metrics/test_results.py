import json
import re

import pytest

from t2ilib.errors import InputError
from t2ilib.files import ROOT
from t2ilib.metrics.results import check_folder, read_result, table, write_result
from t2ilib.provenance import commit, hardware, relative, sanitised_command, versions


def test_a_result_says_how_it_came_about(tmp_path):
    path = write_result(tmp_path, {"toy_fd": 12.5}, {"n": 10, "seed": 3}, command="t2i evaluate runs/a")
    stored = json.loads(path.read_text())
    assert stored["metrics"] == {"toy_fd": 12.5}
    told = {"n", "seed", "command", "commit", "hardware", "python", "torch", "versions", "date"}
    assert told == set(stored["protocol"]) and stored["protocol"]["versions"] == versions()
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


def test_a_table_says_of_each_number_what_it_was_seen_through(tmp_path):
    """Two protocols that differ in reference and truncation alone must not give equal rows."""
    compared = {"split": ["train"], "augmentation": {"count": 50}}
    measures = {
        "fid": {"extractor": "net", "resize": "to 299", "reference": compared, "reference_count": 50},
        "ssim": {"resize": "64 to 48 px, bicubic"},
    }
    metrics = {"attribute_accuracy": None, "clip_score": 30.0, "toy_fd": 2.0, "diversity": 0.5}
    metrics |= {"fid": {"mean": 3.0, "n": 70, "interval": [2, 4]}, "ssim": {"mean": 0.2, "n": 70}}
    protocol = {"n": 70, "seed": 1, "protocol": "mine", "truncation": 0.88, "extractor": "judge", "resize": "64 px"}
    protocol |= {"reference_split": ["test"], "reference_count": 30, "judge_encoder": "b" * 64, "measures": measures}
    protocol |= {"clip_score": "100 x cosine by net", "diversity_captions": 4, "per_caption": 8}
    lines = table(write_result(tmp_path, metrics, protocol))
    found = {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    columns = found["metric"]
    told = {name: dict(zip(columns, cells, strict=True)) for name, cells in found.items()}
    assert told["fid"]["reference"] == "train, 50, flipped and shifted" and told["fid"]["extractor"] == "net"
    assert told["ssim"]["extractor"] == "none" and told["ssim"]["resize"] == "64 to 48 px, bicubic"
    assert told["toy_fd"]["reference"] == "test, 30" and told["clip_score"]["reference"] == ""
    assert told["clip_score"]["extractor"] == f"100 x cosine by net ({'b' * 12})" and told["diversity"]["n"] == "32"
    assert {row["truncation"] for name, row in told.items() if name in metrics} == {"0.88"}
    assert "attribute_accuracy" not in told and told["fid"]["95 %"] == "2 to 4"


def test_a_folder_that_nobody_may_write_to_is_named_first(tmp_path, monkeypatch):
    def refused(**options):
        raise PermissionError(13, "Permission denied")

    check_folder(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(InputError, match="Permission denied; name another folder"):
        check_folder(tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metrics": {"toy_fd": [1, 2]}}, "metrics.toy_fd is no number"),
        ({"metrics": {"toy_fd": float("nan")}}, "metrics.toy_fd is no number"),
        ({"metrics": {"intervals": {"toy_fd": [1, float("inf")]}}}, "metrics.intervals.toy_fd is no number"),
        ({"metrics": {"intervals": [1, 2]}}, "metrics.intervals is no number"),
        ({"metrics": {"real": 3}}, "metrics.real is no number"),
        ({"protocol": {"seconds": "x"}}, "seconds = 'x'"),
        ({"protocol": {"measures": 3}}, "measures = 3"),
    ],
)
def test_what_no_evaluation_writes_is_named(tmp_path, change, told):
    path = write_result(tmp_path, {"toy_fd": 1.0, "real": None}, {"reference_split": "test"})
    found = json.loads(path.read_text())
    assert read_result(path) == found
    for key, values in change.items():
        found[key] |= values
    path.write_text(json.dumps(found))
    with pytest.raises(InputError) as raised:
        read_result(path)
    assert path.name in str(raised.value) and told in str(raised.value)

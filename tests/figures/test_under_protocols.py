"""Numbers under named protocols are those of the result files, and only what was measured alike shares a table."""

import json

import pytest

from t2ilib import plots, tables
from t2ilib.errors import InputError
from t2ilib.figures import under_protocols
from t2ilib.files import ROOT, sha256
from t2ilib.measurement import HEADLINE

SHIPPED = {"gancls_toy", "wgan_toy", "dfgan_toy", "dfgan_clip_toy", "galip_toy"}
SPLITS = {"toy_held_out": "test", "toy": "validation"}
ROWS = plots.read_rows(ROOT / "figures" / "protocols.csv")


def made_up(name, score, **changes):
    """Return a result of weights that are called `name`."""
    reference = {"pictures": "ab12", "split": ["test"]}
    seen = {"extractor": "small network", "resize": "none", "reference_count": 90, "reference": reference}
    told = {
        **{"protocol": "small", "about": "A small one.", "n": 80, "seed": 4, "truncation": None, "side": 32},
        **{"candidates": 10, "seconds": 3.2, "weights": f"data/weights/{name}.safetensors", "weights_sha256": name},
        **{"extractor": "judge-1", "resize": "32 px", "reference_split": ["test"], "reference_count": 90},
        **{"judge_encoder": "cd34", "clip_score": "100 x cosine by a CLIP", "commit": f"{name}{score}"},
        **{"torch": "2", "hardware": "a laptop", "measures": {"kid": {**seen, "std_over_subsets": score}}},
    }
    beside = {"kid": {"mean": -0.002, "interval": [-0.01, 0.006], "n": 80}, "clip_score": 60.0}
    metrics = {
        "r_precision": {"mean": score / 100, "interval": [score / 200, score / 50], "chance": 0.1},
        **{"clip_score": float(score), "intervals": {"clip_score": [score - 1, score + 1]}, "attribute_accuracy": None},
        **{"kid": {"mean": 1 / score, "interval": [0.5 / score, 2 / score], "n": 80}, "real": beside},
    }
    return {"metrics": metrics, "protocol": told | changes}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of two results; tables are written beside it."""
    monkeypatch.setattr(tables, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    put(tmp_path, "b", made_up("second", 40))
    put(tmp_path, "a", made_up("first", 20))
    return tmp_path


def put(folder, name, result):
    (folder / "protocols").mkdir(exist_ok=True)
    (folder / "protocols" / f"{name}.json").write_text(json.dumps(result))


def test_cells_are_those_of_the_results(folder):
    sources = under_protocols.write("protocols")
    assert [path.name for path in sources] == ["a.json", "b.json"]
    page = (folder / "protocols.md").read_text()
    table = page.split("\n\n")[2].splitlines()
    assert table == [
        "| system | R-precision | CLIP score | KID |",
        "|---|---|---|---|",
        "| chance | 0.100 |  |  |",
        "| real pictures |  | 60.0 | -0.002 (-0.010 to 0.006) |",
        "| first | 0.200 (0.100 to 0.400) | 20.0 (19.0 to 21.0) | 0.050 (0.025 to 0.100) |",
        "| second | 0.400 (0.200 to 0.800) | 40.0 (39.0 to 41.0) | 0.025 (0.013 to 0.050) |",
    ]
    assert page.startswith("## small\n\nA small one.\n\n")
    assert "80 captions, one picture each, seed 4, plain noise, 32 pixels; R-precision is among 10 candidates." in page
    assert "commit first20, second40 with torch 2 on a laptop, 3 to 3 seconds a system" in page
    assert "| KID | 80 | small network | none | test, 90 |" in page
    assert "| CLIP score | 80 | 100 x cosine by a CLIP (cd34) | its own |  |" in page
    rows = plots.read_rows(folder / "protocols.csv")
    assert [(row["system"], row["metric"]) for row in rows] == [
        (system, metric) for system in ("first", "second") for metric in ("r_precision", "clip_score", "kid")
    ]
    assert [rows[0][key] for key in ("value", "low", "high", "chance", "real")] == ["0.2", "0.1", "0.4", "0.1", ""]
    assert [rows[5][key] for key in ("value", "real", "n", "seed", "commit")] == [
        "0.025",
        "-0.002",
        "80",
        "4",
        "second40",
    ]
    assert rows[5]["weights_sha256"] == "second" and rows[5]["source"] == "b.json"


def test_truncated_noise_is_told(folder):
    put(folder, "b", made_up("second", 40, truncation=0.88))
    put(folder, "a", made_up("first", 20, truncation=0.88))
    under_protocols.write("protocols")
    assert "seed 4, noise cut at 2 sigma and scaled by 0.88, 32 pixels" in (folder / "protocols.md").read_text()


def test_another_protocol_has_a_table_of_its_own(folder):
    put(folder, "c", made_up("first", 30, protocol="larger", about="A larger one.", n=800))
    under_protocols.write("protocols")
    larger, small = (folder / "protocols.md").read_text().split("## small")
    assert (
        larger.startswith("## larger\n\nA larger one.") and "| first | 0.300" in larger and "| second |" not in larger
    )
    assert "| first | 0.200" in small and "| CLIP score | 80 |" in small and "| CLIP score | 800 |" in larger


OTHER = made_up("third", 9)["protocol"]["measures"]["kid"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed = 5, and 4 in a.json"),
        ({"n": 81}, "n = 81, and 80 in a.json"),
        ({"truncation": 0.8}, "truncation = 0.8, and None in a.json"),
        ({"about": "Another."}, "about = Another., and A small one. in a.json"),
        ({"side": 64}, "side = 64, and 32 in a.json"),
        ({"candidates": 100}, "candidates = 100, and 10 in a.json"),
        ({"extractor": "judge-2"}, "extractor = judge-2, and judge-1 in a.json"),
        ({"resize": "64 px"}, "resize = 64 px, and 32 px in a.json"),
        ({"reference_split": ["train"]}, r"reference_split = \['train'\], and \['test'\] in a.json"),
        ({"reference_count": 91}, "reference_count = 91, and 90 in a.json"),
        ({"clip_score": "10 x cosine"}, "clip_score = 10 x cosine, and 100 x cosine by a CLIP in a.json"),
        ({"judge_encoder": "ef56"}, "judge_encoder = ef56, and cd34 in a.json"),
        ({"something_new": 1}, "something_new = 1, and None in a.json"),
        ({"measures": {"kid": {**OTHER, "resize": "clean"}}}, "measure kid = .*'clean'"),
        ({"measures": {"kid": {**OTHER, "reference": {"pictures": "ef56"}}}}, "measure kid = .*'ef56'"),
    ],
)
def test_other_settings_never_share_a_table(change, named, folder):
    put(folder, "c", made_up("third", 9, **change))
    with pytest.raises(InputError, match=rf"c\.json: {named}.*under one protocol \(small\) they are equal"):
        under_protocols.write("protocols")
    assert not (folder / "protocols.md").exists()


def test_what_belongs_to_one_measurement_may_differ(folder):
    put(folder, "c", made_up("third", 9, commit="another", hardware="a server", step=7, seconds=1.0, text_encoder="x"))
    under_protocols.write("protocols")
    assert "on a laptop, a server, 1 to 3 seconds" in (folder / "protocols.md").read_text()


def test_a_system_stands_once_in_a_table(folder):
    put(folder, "c", made_up("first", 21))
    with pytest.raises(InputError, match=r"c\.json: is first under small, as a\.json is; remove one"):
        under_protocols.write("protocols")


TOLD = ("about", "n", "seed", "truncation", "side", "candidates", "seconds")


@pytest.mark.parametrize("key", ["protocol", "weights", *TOLD])
def test_a_result_that_does_not_say_what_it_is_of_is_named(key, folder):
    result = made_up("third", 9)
    del result["protocol"][key]
    put(folder, "c", result)
    with pytest.raises(InputError, match=rf"c\.json: does not say {key}; t2i evaluate WEIGHTS --protocol NAME"):
        under_protocols.write("protocols")


@pytest.mark.parametrize("there", [True, False])
def test_no_result_at_all_is_named(there, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RUNS", tmp_path / "runs")
    if there:
        (tmp_path / "protocols").mkdir()
    with pytest.raises(InputError, match="protocols: no result of any protocol; t2i evaluate WEIGHTS --protocol NAME"):
        under_protocols.write("protocols")


# ---- the committed ones --------------------------------------------------------------------------------------------


def test_all_shipped_systems_are_measured_as_they_are_shipped_at_a_commit():
    found = under_protocols.read()
    assert {protocol: {one.system for one in results} for protocol, results in found.items()} == {
        protocol: SHIPPED for protocol in SPLITS
    }
    for one in (one for results in found.values() for one in results):
        assert sha256(ROOT / one.told["weights"]) == one.told["weights_sha256"]
        beside = {"real", "one_colour", "intervals", "chance"}
        assert len(one.told["commit"]) == 40 and set(one.metrics) - beside <= set(HEADLINE)


def test_they_differ_from_the_first_seed_s_results_by_rounding_alone():
    ledger = plots.read_rows(ROOT / "figures" / "results.csv")
    seeds = {(row["run"], row["split"], row["metric"]): row for row in ledger}
    both = [(row, seeds.get((row["system"], SPLITS[row["protocol"]], row["metric"]))) for row in ROWS]
    both = [(row, other) for row, other in both if other]
    assert len(both) == len(SHIPPED) * len(SPLITS) * 6
    for row, other in both:
        assert (row["n"] == other["n"] or row["metric"] == "diversity") and row["seed"] == other["evaluation seed"]
        value, expected = float(row["value"]), float(other["value"])
        width = float(other["high"]) - float(other["low"]) if other["low"] else 0.1 * expected
        assert abs(value - expected) < 0.1 * width, (row, other)  # half precision turns over a picture or two

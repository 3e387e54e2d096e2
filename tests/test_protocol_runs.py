"""A trained system measured by a protocol: what it is compared with, what the results file says, what is refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg
from typer.testing import CliRunner

from t2ilib import measurement
from t2ilib.cli import app
from t2ilib.data.toy import toy_birds
from t2ilib.errors import InputError
from t2ilib.files import ROOT, sha256
from t2ilib.metrics.drawing import EvaluationSettings, Team, choose_captions, paint
from t2ilib.metrics.extractors import Custom, Seen
from t2ilib.metrics.frechet import frechet_distance
from t2ilib.metrics.protocols import PROTOCOLS, Protocol
from t2ilib.metrics.references import Augmentation, augmented
from t2ilib.metrics.results import read_result, table, write_result
from t2ilib.models.vit import OpenViT
from t2ilib.pictures import to_float
from t2ilib.sampling import load_sampler, weights_told

SMALL = Protocol(
    "A small one.",
    *("somewhere", 40, "inception-legacy", ("fid", "kid", "inception_score", "precision", "ssim")),
    packed=48,
    passes=2,
    truncation=0.8,
    augmentation=Augmentation(count=50),
    judge="toy-clip-resnet",
    seed=3,
)


def network(pictures):
    means = pictures.mean(dim=(2, 3))
    return Seen(torch.cat([means, pictures.std(dim=(2, 3))], dim=1), (3 * means).softmax(dim=1))


def inception(resize, device=None):
    return Custom(network, 6, f"small-inception-{resize}", "none")


@pytest.fixture(scope="module")
def sampler():
    return load_sampler("dfgan_toy", "cpu")


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder of 30 test and 10 training pictures of 48 pixels that look like toy birds; a protocol for it."""
    birds = toy_birds(train=10, validation=0, test=30, size=48)
    folder = tmp_path / "photographs"
    folder.mkdir()
    lines = []
    for row, (picture, captions) in enumerate(zip(birds.images, birds.captions, strict=True)):
        Image.fromarray(np.asarray(picture)).save(folder / f"{row}.png")
        split = str(birds.splits[row])
        lines.append(json.dumps({"file_name": f"{row}.png", "captions": captions, "split": split}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(measurement, "Inception", inception)
    monkeypatch.setattr("t2ilib.metrics.references.FOLDER", tmp_path / "references")
    monkeypatch.setitem(PROTOCOLS, "small", SMALL)
    monkeypatch.setattr("t2ilib.files.DATA", tmp_path / "data")
    return folder


def test_a_protocol_measures_what_it_says(sampler, photographs, tmp_path):
    found = measurement.evaluate_protocol(sampler, "small", str(photographs))
    metrics, protocol = found["metrics"], found["protocol"]
    held = measurement.data.load(str(photographs), 48).centre_crop(40).split("test")
    drawn = EvaluationSettings(60, 3, truncation=0.8)
    rows, captions = choose_captions(held, drawn)
    assert sorted(rows[:30]) == sorted(rows[30:]) == list(range(30))  # each pass shows each picture once
    painted = torch.cat(list(paint(sampler, captions, sampler.encoder, drawn)))
    fakes = inception("legacy")(painted).features.double().numpy()
    real = np.concatenate(
        [inception("legacy")(to_float(part)).features for part in augmented(held.images, Augmentation(50))]
    )
    a, b = np.cov(fakes, rowvar=False), np.cov(real.astype(float), rowvar=False)
    root = linalg.sqrtm(a @ b)
    expected = np.square(fakes.mean(0) - real.mean(0)).sum() + np.trace(a + b - 2 * np.real(root))
    assert metrics["fid"]["mean"] == pytest.approx(expected, rel=1e-5) and metrics["fid"]["n"] == 60
    assert protocol["protocol"] == "small" and protocol["truncation"] == 0.8 and protocol["seed"] == 3
    assert protocol["augmentation"]["count"] == 50 and protocol["measures"]["fid"]["reference_count"] == 50
    assert (protocol["side"], protocol["painted_side"], protocol["system"]) == (40, 64, "dfgan")
    assert protocol["judge_encoder"] != protocol["text_encoder"] and metrics["clip_score"] is not None
    assert metrics["real"]["fid"]["n"] == 15 and metrics["real"]["inception_score"]["n"] == 30
    path = write_result(tmp_path / "results", **found)
    assert read_result(path)["metrics"]["kid"] == metrics["kid"]
    told = [line for line in table(path) if line.startswith("| fid |")]
    assert len(told) == 1 and f"| {expected:.4g} |" in told[0]
    assert "small-inception-legacy | none | test, 50, flipped and shifted |" in told[0]


def test_photographs_stand_beside_themselves_by_halves(sampler, photographs):
    """Fifteen of the thirty, as they are, against the other fifteen, augmented as the whole reference is."""
    found = measurement.evaluate_protocol(sampler, "small", str(photographs))
    real, told = found["metrics"]["real"], found["protocol"]["real_measures"]
    held = measurement.data.load(str(photographs), 48).centre_crop(40).split("test")
    rows = np.random.default_rng(3).permutation(30)
    one, other = np.sort(rows[:15]), np.sort(rows[15:])
    seen = inception("legacy")(to_float(held.images[one])).features.double().numpy()
    against = [inception("legacy")(to_float(part)).features for part in augmented(held.images[other], Augmentation(50))]
    expected = frechet_distance(seen, np.concatenate(against))
    assert real["fid"] == {"mean": pytest.approx(expected, rel=1e-5), "n": 15} and expected > 0.01
    assert real.keys() >= {"kid", "precision", "clip_fd"} and real["precision"]["mean"] > 0.5 and "ssim" not in real
    assert told["fid"]["reference_count"] == 50 and told["kid"]["subset_size"] == 7
    assert found["protocol"]["real_halves"] == [15, 15]
    again = measurement.evaluate_protocol(sampler, "small", str(photographs))["metrics"]["real"]
    assert again == real


def test_halves_that_are_too_small_give_no_fid(sampler, photographs, monkeypatch):
    """Six pictures against six of six features; what asks for fewer stays."""
    load = measurement.data.load
    monkeypatch.setattr(
        measurement.data, "load", lambda *told, **more: load(*told, **more).split("test").subset(range(12))
    )
    monkeypatch.setitem(PROTOCOLS, "small", replace(SMALL, metrics=("fid", "kid", "precision", "recall")))
    found = measurement.evaluate_protocol(sampler, "small", str(photographs))["metrics"]
    assert "fid" in found and "fid" not in found["real"] and {"kid", "precision", "recall"} <= found["real"].keys()


def test_weights_without_a_recipe_are_measured_alike(sampler, photographs):
    released = replace(sampler, recipe=None, step=None)
    found, expected = (measurement.evaluate_protocol(one, "small", str(photographs)) for one in (released, sampler))
    assert found["metrics"] == expected["metrics"] and found["protocol"]["system"] == "dfgan"
    assert found["protocol"]["step"] is None


def test_the_released_view_squeezes_what_the_clip_sees_and_says_so(sampler, photographs, monkeypatch):
    """Against GALIP's own definition, opened; nothing but what the CLIP says of pictures changes."""
    monkeypatch.setitem(PROTOCOLS, "plain", replace(SMALL, judge="toy-clip"))
    monkeypatch.setitem(PROTOCOLS, "squeezed", replace(SMALL, judge="toy-clip", view="released"))
    found = {name: measurement.evaluate_protocol(sampler, name, str(photographs)) for name in ("plain", "squeezed")}
    clip = measurement.encoders.load_encoder("toy-clip")
    held = measurement.data.load(str(photographs), 48).centre_crop(40).split("test")
    drawn = EvaluationSettings(60, 3, truncation=0.8)
    captions = choose_captions(held, drawn)[1]
    painted = torch.cat(list(paint(sampler, captions, sampler.encoder, drawn)))
    eye, texts = OpenViT.of(clip), clip.encode(captions).sentence
    scores = {}
    for name, released in {"plain": False, "squeezed": True}.items():
        with torch.no_grad():
            seen = eye(eye.shown(painted, released))[1]
        scores[name] = 100 * torch.cosine_similarity(seen, texts).clamp(min=0).mean().item()
        assert found[name]["metrics"]["clip_score"] == pytest.approx(scores[name], rel=1e-4)
    assert abs(scores["plain"] - scores["squeezed"]) > 1
    plain, squeezed = (found[name]["protocol"] for name in ("plain", "squeezed"))
    assert [plain["view"], squeezed["view"]] == ["correct", "released"]
    assert squeezed["judge_encoder"] == plain["judge_encoder"] + "+released"  # so the two do not compare
    assert squeezed["clip_score"].endswith("by toy-clip, released view, negative ones as 0")
    assert found["plain"]["metrics"]["fid"] == found["squeezed"]["metrics"]["fid"]


def test_another_reference_and_seed_give_other_numbers(sampler, photographs, monkeypatch, caplog):
    plain = replace(SMALL, augmentation=None, passes=0, n=30)
    for name, changed in {"plain": plain, "against_all": replace(plain, reference="any")}.items():
        monkeypatch.setitem(PROTOCOLS, name, changed)
    plain, every, again, other = (
        measurement.evaluate_protocol(sampler, name, str(photographs), seed=seed)
        for name, seed in (("plain", 3), ("against_all", 3), ("plain", 3), ("plain", 4))
    )
    assert plain["metrics"] == again["metrics"] and plain["metrics"]["fid"] != other["metrics"]["fid"]
    assert every["protocol"]["measures"]["fid"]["reference_count"] == 40
    assert plain["protocol"]["measures"]["fid"]["reference_count"] == 30
    assert plain["metrics"]["ssim"] == every["metrics"]["ssim"] and plain["metrics"]["fid"] != every["metrics"]["fid"]
    assert "30 pictures lies far above" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "fid50k"], "fid50k: no such protocol; there are toy"),
        (
            ["--protocol", "toy", "--n", "10", "--split", "test"],
            "--protocol toy: says so itself; leave --split, --n out",
        ),
        (["--protocol", "toy", "--judge", "clip"], "leave --judge out"),
        (["--protocol", "cub_plain"], "data/birds: no such source"),
    ],
)
def test_what_a_protocol_says_is_not_said_twice(options, message, tmp_path):
    done = CliRunner().invoke(app, ["evaluate", "gancls_toy", *options, "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError) and message in str(done.exception) and not list(tmp_path.iterdir())


def test_several_processes_need_a_protocol(tmp_path, monkeypatch):
    monkeypatch.setattr(Team, "here", classmethod(lambda cls: cls(0, 2)))
    done = CliRunner().invoke(app, ["evaluate", "gancls_toy", "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError) and "name one (--protocol)" in str(done.exception)


def test_inception_that_is_nowhere_is_one_error(sampler, photographs, tmp_path, monkeypatch):
    from t2ilib.metrics.inception import Inception

    monkeypatch.setattr(measurement, "Inception", Inception)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("t2ilib.metrics.downloads.reachable", lambda address: False)
    with pytest.raises(InputError, match=r"Inception of 2015.* are not in .*fetch https"):
        measurement.evaluate_protocol(sampler, "small", str(photographs))


def test_the_command_prints_and_writes(photographs, tmp_path):
    out = tmp_path / "written"
    options = ["--protocol", "small", "--data", str(photographs), "--seed", "5", "--out", str(out)]
    done = CliRunner().invoke(app, ["evaluate", "dfgan_toy", *options])
    assert done.exit_code == 0, done.output
    (path,) = out.iterdir()
    found = read_result(path)
    assert found["protocol"]["seed"] == 5 and table(path)[2] in done.output and "versions" not in found
    assert f"  # {found['protocol']['clip_score']}\n" in done.output and ", torchvision " in done.output
    assert {"commit", "torch", "hardware", "command", "seconds"} <= found["protocol"].keys()
    weights = ROOT / "data" / "weights" / "dfgan_toy.safetensors"
    assert found["protocol"]["weights"] == "data/weights/dfgan_toy.safetensors"
    assert found["protocol"]["weights_sha256"] == sha256(weights)


def test_released_weights_are_known_by_their_content(tmp_path):
    (tmp_path / "netG.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert weights_told(f"galip:{tmp_path / 'netG.pth'}") == {"weights": "netG.pth", "weights_sha256": digest}


def test_too_few_captions_are_named_before_anything_is_painted(sampler, photographs, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "few", replace(SMALL, passes=0, n=6))
    monkeypatch.setattr(measurement, "evaluate", lambda *_, **__: pytest.fail("painted"))
    with pytest.raises(InputError, match="few: 6 pictures are too few for a Frechet distance of 6 features"):
        measurement.evaluate_protocol(sampler, "few", str(photographs))

"""The benchmark compares like with like, and writes what it measured."""

import copy
import importlib.util
import json
import math
import subprocess

import pytest
import torch

from t2ilib import models
from t2ilib.encoders import load_encoder
from t2ilib.explore import Explorer
from t2ilib.explore.looking import Eyes
from t2ilib.files import ROOT
from t2ilib.models.dfgan import DFGAN, DFGANConfig
from t2ilib.models.galip import GALIP, GALIPConfig
from t2ilib.models.layers import DownBlock, FusionUpBlock
from t2ilib.training import TrainingSettings, load_recipe


@pytest.fixture
def step():
    specification = importlib.util.spec_from_file_location("step", ROOT / "benchmarks" / "step.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_plain_networks_compute_what_ours_do(step):
    torch.manual_seed(0)
    ours = DFGAN(DFGANConfig.tiny()).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # gains and affines start where they do nothing
    theirs, swapped = copy.deepcopy(ours), 0
    for module in theirs.modules():
        if isinstance(module, FusionUpBlock | DownBlock):
            module.__class__ = step.PlainUp if isinstance(module, FusionUpBlock) else step.PlainDown
            swapped += 1
    noise, sentence = torch.randn(2, 8).double(), torch.randn(2, 16).double()
    pictures = ours.generator(noise, sentence)
    torch.testing.assert_close(theirs.generator(noise, sentence), pictures)
    torch.testing.assert_close(theirs.discriminator(pictures), ours.discriminator(pictures))
    assert swapped == len(ours.generator.blocks) + len(ours.discriminator.blocks)


def test_a_turn_of_every_variant_is_timed_and_written(step, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(step, "RESULTS", tmp_path)
    arguments = ["--size", "32", "--nf", "2", "--batch-size", "2", "--repeats", "3", "--lazy", "2"]
    monkeypatch.setattr("sys.argv", ["benchmarks/step.py", *arguments])
    step.main()
    result = json.loads((tmp_path / "step_dfgan_32px_nf2_batch2.json").read_text())
    rows = result["rows"]
    names = ["plain", "our step", "+ channels last", "+ bfloat16", "+ freed memory kept", "+ penalty every 2"]
    assert [row["variant"] for row in rows] == names
    assert rows[0]["against plain"] == 1
    for row, before in zip(rows[1:], rows, strict=False):
        assert 0 < row["least"] <= row["median seconds"] <= row["most"]
        assert row["against plain"] == pytest.approx(
            rows[0]["median seconds"] / row["median seconds"], rel=0.05, abs=0.01
        )
        assert math.isclose(
            row["against the row above"] * before["against plain"], row["against plain"], rel_tol=0.05, abs_tol=0.03
        )
    assert result["environment"]["command"].endswith("--lazy 2") and result["size"] == 32
    assert len(capsys.readouterr().out.splitlines()) == len(names)


def test_sampling_is_timed_with_and_without_kept_memory(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    sampling = importlib.import_module("sampling")
    monkeypatch.setattr(sampling, "RESULTS", tmp_path)
    monkeypatch.setattr(sampling, "BATCHES", (2, 4))
    sampling.main(count=4, repeats=1)
    rows = json.loads((tmp_path / "sampling.json").read_text())["rows"]
    assert [(row["batch"], row["memory"]) for row in rows] == [(b, m) for b in (2, 4) for m in sampling.MEMORY]
    assert all(row["pictures per second"] > 0 for row in rows)


def test_how_long_a_visitor_waits_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    explorer = importlib.import_module("explorer")
    monkeypatch.setattr(explorer, "RESULTS", tmp_path)
    monkeypatch.setattr("t2ilib.explore.looking.MEMORY", tmp_path)
    monkeypatch.setattr(Eyes, "nearest", lambda self, pictures: [[]])
    explorer.main(repeats=2, systems=("gancls_toy",))
    (row,) = json.loads((tmp_path / "explorer.json").read_text())["rows"]
    assert row["system"] == "gancls_toy" and all(value > 0 for key, value in row.items() if key != "system")
    assert row["later, median"] <= row["later, slowest"]
    with pytest.raises(RuntimeError, match="No system is chosen"):
        page = Explorer(systems=[])
        explorer.waited(page, page.generate, "paint")


@pytest.fixture
def galip(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("galip")


def awake_galip(**changes) -> GALIP:
    """A tiny system off its start, where gates are shut and text has little effect."""
    torch.manual_seed(0)
    system = GALIP(GALIPConfig.tiny(**changes))
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return system


@pytest.mark.parametrize("twice", [False, True])
def test_the_plain_step_of_galip_has_the_losses_of_ours(galip, twice):
    """Sizes that double and sizes that do not: 7, 8, 16, 20."""
    systems = [awake_galip(image_size=20, clip_size=28, clip_grid=7) for _ in range(2)]
    source = galip.OneBatch(systems[0].config, torch.device("cpu"), torch.contiguous_format)
    settings = TrainingSettings(precision="fp32", channels_last=False)
    steps = galip.plain(systems[0], source, twice), galip.ours(systems[1], source, settings)
    looked = [[], []]
    for system, seen in zip(systems, looked, strict=True):
        system.eye.module.visual.conv1.register_forward_hook(lambda *_, seen=seen: seen.append(1))
    for number in range(3):
        theirs, our = (step(number) for step in steps)
        torch.testing.assert_close(theirs, our, rtol=1e-4, atol=1e-6)
    assert our["discriminator/penalty"] > 1e-6 and len(our) == 6
    assert [len(seen) for seen in looked] == [9 if twice else 6, 6]  # real and fake pictures of three steps
    for (name, one), other in zip(systems[0].named_parameters(), systems[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)


def test_a_turn_of_every_variant_of_galip_is_timed_and_written(galip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(galip, "RESULTS", tmp_path)
    arguments = ["--tiny", "--size", "16", "--nf", "2", "--batch-size", "2", "--repeats", "1"]
    monkeypatch.setattr("sys.argv", ["benchmarks/galip.py", *arguments])
    galip.main()
    result = json.loads((tmp_path / "step_galip_tiny_16px_nf2_batch2.json").read_text())
    names = ["plain", "plain, fakes seen twice", "ours, float32", "ours, bfloat16"]
    on_gpu = torch.cuda.is_available()
    assert [row["variant"] for row in result["rows"]][: len(names)] == names
    assert on_gpu or len(result["rows"]) == len(names)
    assert all((row["peak GiB"] is not None) == on_gpu for row in result["rows"])
    for row in result["rows"]:
        assert row["pictures per second"] > 0 and row["median seconds"] > 0 and row["processor seconds"] > 0
    assert (result["scale"], result["size"], result["nf"], result["batch_size"]) == ("tiny", 16, 2, 2)
    assert result["environment"]["command"].endswith("--repeats 1")
    assert len(capsys.readouterr().out.splitlines()) >= len(names)


def test_galip_is_timed_in_one_precision_alone(galip, tmp_path, monkeypatch):
    monkeypatch.setattr(galip, "RESULTS", tmp_path)
    arguments = ["--tiny", "--batch-size", "2", "--repeats", "1", "--precision", "fp32", "--name", "one"]
    monkeypatch.setattr("sys.argv", ["benchmarks/galip.py", *arguments])
    galip.main()
    rows = json.loads((tmp_path / "one.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["plain", "plain, fakes seen twice", "ours, float32"]


def test_the_page_shows_what_the_benchmark_of_galip_wrote():
    name = "step_galip_toy_64px_nf16_batch32_compiled.json"
    result = json.loads((ROOT / "benchmarks" / "results" / name).read_text())
    page = (ROOT / "benchmarks" / "README.md").read_text()
    for row in result["rows"]:
        numbers = f"{row['processor seconds']} | {row['median seconds']} | {row['against plain']:.2f}"
        assert f"| {row['variant']} | {numbers} |" in page
    assert f"results/{name}" in page and result["environment"]["command"] in page


@pytest.mark.parametrize("has_bf16", [False, True])
def test_galip_is_compiled_in_what_the_hardware_computes_in(galip, monkeypatch, has_bf16):
    cpu = torch.device("cpu")
    monkeypatch.setattr(galip, "computes_in_bf16", lambda device: has_bf16 and device == cpu)
    compiled = {name: each.precision for name, each in galip.precisions(cpu, True).items() if each.compile}
    expected = {"ours, float32, compiled": "fp32"} | ({"ours, bfloat16, compiled": "bf16"} if has_bf16 else {})
    assert compiled == expected
    assert not any(each.compile for each in galip.precisions(cpu, False).values())


def test_the_scales_of_galip_are_those_of_the_recipe(galip):
    assert galip.SCALES["paper"]() == GALIPConfig()
    recipe = load_recipe("galip_toy")
    encoders = dict.fromkeys(("text", "clip"), load_encoder("toy-clip"))
    with torch.device("meta"):
        sizes = models.build("galip", encoders, image_size=recipe.data.side, **recipe.model).config
    rates = {name: getattr(sizes, name) for name in ("lr", "discriminator_lr", "ema")}
    assert galip.SCALES["toy"](**rates) == sizes


@pytest.fixture
def evaluation(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("evaluation")


def test_an_evaluation_is_timed_in_four_ways(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "RESULTS", tmp_path)
    before = torch.get_num_threads()
    evaluation.main(count=4, repeats=1, systems=("gancls_toy",))
    torch.set_num_threads(before)
    result = json.loads((tmp_path / "evaluation.json").read_text())
    ways = [evaluation.PAINTED, evaluation.LOOKED, evaluation.TURNS, evaluation.OVERLAPPED]
    assert [(row["way"], row["threads"]) for row in result["rows"]] == [(way, n) for n in (1, 2) for way in ways]
    assert all(0 < row["pictures per second"] <= row["best turn"] for row in result["rows"])
    assert result["count"] == 4 and "hardware" in result["environment"]


def test_all_four_ways_look_at_the_same_pictures(evaluation):
    calls = evaluation.ways("gancls_toy", 20)
    looks = [calls[way]() for way in (evaluation.LOOKED, evaluation.TURNS, evaluation.OVERLAPPED)]
    assert all((look.vectors() == looks[0].vectors()).all() and len(look.vectors()) == 20 for look in looks)


def test_the_page_shows_what_the_benchmark_of_evaluations_wrote(evaluation):
    rows = json.loads((ROOT / "benchmarks" / "results" / "evaluation.json").read_text())["rows"]
    page = (ROOT / "benchmarks" / "README.md").read_text()
    for system in evaluation.SYSTEMS:
        own = sorted((row for row in rows if row["system"] == system), key=lambda row: row["threads"])
        cells = [f"{row['pictures per second']:g} ({row['best turn']:g})" for row in own]
        assert len(own) == 8 and f"| {system} | {' | '.join(cells)} |" in page


def test_memory_while_pictures_pass_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    streaming = importlib.import_module("streaming")
    monkeypatch.setattr(streaming, "RESULTS", tmp_path)
    monkeypatch.setattr(streaming, "SIDE", 32)
    row = streaming.stream(224)
    assert row["pictures"] == 224 and row["pictures per second"] > 0
    assert 0 < row["memory before, MB"] <= row["memory after, MB"] <= row["memory with the numbers, MB"]
    done = subprocess.CompletedProcess([], 0, stdout=json.dumps(row))
    monkeypatch.setattr(streaming.subprocess, "run", lambda command, **options: done)
    streaming.main((224, 224))
    told = json.loads((tmp_path / "streaming.json").read_text())
    assert told["rows"] == [row, row] and {"fid", "kid", "inception_score"} <= set(told["metrics"])

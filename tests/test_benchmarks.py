"""The benchmark compares like with like, and writes what it measured."""

import copy
import importlib.util
import json
import math

import pytest
import torch

from t2ilib.files import ROOT
from t2ilib.models.dfgan import DFGAN, DFGANConfig
from t2ilib.models.layers import DownBlock, FusionUpBlock


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

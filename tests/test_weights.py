"""Folders of a trained network: what is written is read back, damage and other kinds are named."""

import hashlib
import json

import pytest
import torch
from torch import nn

from t2ilib import weights
from t2ilib.errors import InputError

KIND, REMEDY = "t2ilib-test", "train it again (t2i train test)"


def network(width: int = 5) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2)).eval()


@pytest.fixture
def folder(tmp_path):
    weights.save_network(tmp_path / "net", KIND, {"width": 5, "name": "flügel"}, network())
    return tmp_path / "net"


def test_a_network_comes_back_in_half_precision(folder):
    assert weights.read_config(folder, KIND, REMEDY) == {"format": KIND, "version": 1, "width": 5, "name": "flügel"}
    again = network(5)
    for tensor in again.state_dict().values():
        tensor.zero_()
    weights.load_weights(folder, again, REMEDY)
    for name, tensor in network().state_dict().items():
        found = again.state_dict()[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor.half().float() if tensor.is_floating_point() else tensor), name
    assert not torch.equal(again[0].weight, network()[0].weight)  # these numbers need more than half precision


def test_two_files_and_nothing_else_are_written(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    weights.save_network(folder, KIND, {"width": 5}, network())  # over the old ones
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert "name" not in weights.read_config(folder, KIND, REMEDY)


def test_halved_leaves_whole_numbers_and_its_source_alone():
    state = {"weight": torch.randn(2, 3, dtype=torch.float64), "count": torch.tensor(70000), "flag": torch.tensor(True)}
    before = {name: tensor.clone() for name, tensor in state.items()}
    half = weights.halved(state)
    assert {name: tensor.dtype for name, tensor in half.items()} == {
        "weight": torch.float16,
        "count": torch.int64,
        "flag": torch.bool,
    }
    assert half["count"] == 70000
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_layout_of_memory_does_not_matter(tmp_path):
    """Networks that trained channels last are written and digested as any other."""
    plain = nn.Conv2d(4, 6, 3)
    before = weights.digest(plain.state_dict())
    plain.to(memory_format=torch.channels_last)
    assert weights.digest(plain.state_dict()) == before
    weights.save_network(tmp_path, KIND, {}, plain)
    again = nn.Conv2d(4, 6, 3)
    weights.load_weights(tmp_path, again, REMEDY)
    assert torch.equal(again.weight, plain.weight.half().float())


def test_digest_knows_names_contents_and_what_it_is_about():
    state = {"a": torch.arange(6.0), "b": torch.tensor(2)}
    digest = weights.digest(state)
    assert digest == weights.digest(dict(reversed(state.items()))) and len(digest) == 64
    changed = {"a": torch.arange(6.0).index_fill(0, torch.tensor([3]), 3.001), "b": torch.tensor(2)}
    others = [
        weights.digest(changed),
        weights.digest({"a": torch.arange(6.0), "c": torch.tensor(2)}),
        weights.digest({"a": torch.arange(6.0)}),
        weights.digest(state, "another configuration"),
    ]
    assert len({digest, *others}) == 5


def test_a_digest_is_the_same_in_every_process():
    """By hand: SHA-256 of the text, then names and bytes in alphabetical order."""
    expected = hashlib.sha256(b"{}" + b"a" + b"\x01\x02" + b"b" + b"\x00\x00\x80\x3f").hexdigest()
    state = {"b": torch.tensor([1.0]), "a": torch.tensor([[1], [2]], dtype=torch.uint8)}
    assert weights.digest(state, "{}") == expected


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, missing):
    assert weights.is_network(folder)
    (folder / missing).unlink()
    assert not weights.is_network(folder)
    with pytest.raises(InputError, match=rf"{missing}: missing; train it again".replace(".", r"\.")):
        weights.read_config(folder, KIND, REMEDY)
    with pytest.raises(InputError, match="holds no finished network"):
        weights.copy_network(folder, folder.parent / "copy")
    assert not (folder.parent / "copy").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"format": "t2ilib-test"}', '{"version": 1}', '"format"', "\udcff"]
)
def test_a_damaged_configuration_is_named(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"config\.json: damaged .*; train it again"):
        weights.read_config(folder, KIND, REMEDY)


@pytest.mark.parametrize("changes", [{"format": "t2ilib-other"}, {"version": 2}])
def test_another_kind_or_version_is_named(folder, changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    found = {"format": KIND, "version": 1} | changes
    message = f"holds {found['format']} of version {found['version']}, not {KIND} of version 1; train it again"
    with pytest.raises(InputError, match=message):
        weights.read_config(folder, KIND, REMEDY)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"", lambda data: b"\xff" * 8 + data[8:]])
def test_damaged_weights_are_named(folder, damage):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"model\.safetensors: damaged.*; train it again"):
        weights.load_weights(folder, network(), REMEDY)


@pytest.mark.parametrize("other", [network(6), nn.Linear(3, 5)], ids=["sizes", "names"])
def test_weights_of_another_network_are_named(folder, other):
    with pytest.raises(InputError, match=r"model\.safetensors: .*of another network.*; train it again"):
        weights.load_weights(folder, other, REMEDY)


def test_a_copy_is_the_same_network(folder, tmp_path):
    (folder / "records.jsonl").write_text("{}")
    weights.copy_network(folder, tmp_path / "a" / "copy")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "a" / "copy").iterdir()}
    assert copied == {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


def test_writing_that_fails_keeps_the_old_network(folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(weights, "save_file", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        weights.save_network(folder, KIND, {}, network(6))
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]

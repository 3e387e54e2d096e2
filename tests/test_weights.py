"""Folders of a trained network: what is written is read back, damage and other kinds are named."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
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


def changed(folder, **entries):
    """Set entries of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_configuration_that_was_changed_is_noticed(folder):
    def check():
        weights.check_belongs(folder, weights.read_config(folder, KIND, REMEDY), REMEDY)

    check()
    changed(folder, report={"mean": 0.5})
    check()  # what a training reached says nothing about the network
    changed(folder, width=6)
    with pytest.raises(InputError, match=r"config\.json: changed, or of other weights; put it back, or train it again"):
        check()
    path = folder / "model.safetensors"
    save_file(load_file(path), path)  # as older versions wrote it
    check()


def spoilt(name, change):
    """The state of the test's network with one entry changed."""
    state = network().state_dict()
    return state | {name: change(state[name].clone())}


FAULTS = {
    "not a number": ("0.weight", lambda old: old.fill_(torch.nan), "not finite"),
    "infinite": ("2.bias", lambda old: old.fill_(torch.inf), "not finite"),
    "too large": ("0.weight", lambda old: old.fill_(1e5), "in half precision 0.weight is not finite"),
    "bytes": ("0.weight", lambda old: old.to(torch.int8), "int8, not float32"),
    "float8": ("0.weight", lambda old: old.to(torch.float8_e4m3fn), "float8_e4m3fn, not float32"),
    "float64": ("0.weight", lambda old: old.double(), "float64, not float32"),
    "complex": ("0.weight", lambda old: old.to(torch.complex64), "complex64, not float32"),
    "a float counter": ("1.num_batches_tracked", lambda old: old.float(), "float32, not int64"),
    "shape": ("0.weight", lambda old: old[None], r"of shape \(1, 5, 3\), not \(5, 3\)"),
    "variance": ("1.running_var", lambda old: old.neg_(), "negative"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_could_not_be_read_again_is_not_exported(name):
    entry, change, told = FAULTS[name]
    state = spoilt(entry, change)
    with torch.device("meta"):
        outline = network()
    with pytest.raises(InputError, match=rf"c\.safetensors: .*{told}.*; train") as caught:
        weights.exportable(state, outline, "c.safetensors", "train")
    assert entry in str(caught.value) and "\n" not in str(caught.value)


def test_what_can_be_read_again_is_exported():
    state = network().state_dict()
    small = weights.exportable(state, network(), "c.safetensors", "train")
    assert all(torch.equal(small[name], weights.halved(state)[name]) for name in state)
    assert weights.fault(small, network()) is None
    assert weights.fault(state | {"more": torch.zeros(1)}, network()) == "more is of another network"
    del state["0.bias"]
    assert weights.fault(state, network()) == "0.bias is missing"


@pytest.mark.parametrize("value", [torch.nan, 1e5])
def test_weights_that_half_precision_does_not_hold_replace_nothing(folder, value):
    before = (folder / "model.safetensors").read_bytes()
    broken = network()
    broken[0].weight.data.fill_(value)
    with pytest.raises(InputError, match=r"model\.safetensors: .*0\.weight is not finite; nothing is written"):
        weights.save_network(folder, KIND, {"width": 5}, broken)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_negative_variance_is_named(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["1.running_var"].neg_()
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"1\.running_var is negative.*; train it again"):
        weights.load_weights(folder, network(), REMEDY)


FOREIGN = {
    "another library's": {"config.json": '{"model_type": "bert"}', "model.safetensors": "theirs"},
    "weights alone": {"model.safetensors": "theirs"},
    "text": {"config.json": "my settings"},
    "a list": {"config.json": "[]"},
    "another network of ours": {"config.json": '{"format": "t2ilib-other", "version": 1}'},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_no_other_network_is_replaced_by_a_copy(folder, tmp_path, name):
    there = tmp_path / "there"
    there.mkdir()
    for file, text in FOREIGN[name].items():
        (there / file).write_text(text)
    with pytest.raises(InputError, match=r"there: holds .* of something else than t2ilib-test; choose another place"):
        weights.copy_network(folder, there)
    assert {path.name: path.read_text() for path in there.iterdir()} == FOREIGN[name]


def test_a_copy_replaces_an_older_one_beside_other_files(folder, tmp_path):
    weights.save_network(tmp_path / "there", KIND, {"width": 6}, network(6))
    (tmp_path / "there" / "notes.txt").write_text("mine")
    weights.copy_network(folder, tmp_path / "there")
    assert weights.read_config(tmp_path / "there", KIND, REMEDY)["width"] == 5
    assert (tmp_path / "there" / "notes.txt").read_text() == "mine"


def test_a_damaged_network_is_not_copied(folder, tmp_path):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    tensors = load_file(path)
    tensors["0.weight"].fill_(torch.nan)
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"model\.safetensors: 0\.weight is not finite"):
        weights.copy_network(folder, tmp_path / "copy")
    path.write_bytes(whole)
    changed(folder, width=6)
    with pytest.raises(InputError, match=r"config\.json: changed"):
        weights.copy_network(folder, tmp_path / "copy")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: damaged"):
        weights.copy_network(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_only_an_exported_system_is_replaced(tmp_path):
    path = tmp_path / "w.safetensors"
    weights.check_exportable(path)
    weights.save_tensors(path, {"a": torch.zeros(2)}, {"t2ilib": "{}"})
    weights.check_exportable(path)
    save_file({"a": torch.zeros(2)}, path, metadata={"format": "pt"})
    others = {"another's": path.read_bytes(), "text": b"my thesis", "empty": b""}
    for content in others.values():
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"w\.safetensors: exists, and is no exported system; choose another place"
        ):
            weights.check_exportable(path)
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="is no exported system"):
        weights.check_exportable(path)

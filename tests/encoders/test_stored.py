"""Folders of encoders that are damaged, hostile, or of something else: one line each, and no memory taken."""

import json
import pickle
import resource
import shutil
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from t2ilib.encoders import load_encoder, released
from t2ilib.encoders.clip import build_encoder, build_model, convolutional_stem, describe, save_encoder
from t2ilib.encoders.contrastive import ClipConfig, Contrastive
from t2ilib.encoders.stored import check_stem
from t2ilib.encoders.tokens import split_words
from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    save_encoder(build_encoder(describe(ClipConfig.tiny(), ["a", "red", "bird"])), folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "own")
    return tmp_path / "own"


def refused(folder) -> str:
    with pytest.raises(InputError) as caught:
        load_encoder(str(folder))
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and len(message) < 600
    return message


def change(folder, path, value):
    """Set the entry at a dotted path of config.json."""
    config = json.loads((folder / "config.json").read_text())
    *above, last = path.split(".")
    node = config
    for name in above:
        node = node[name]
    node[last] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.text_cfg.vocab_size", 10**12),
        ("model.embed_dim", 10**9),
        ("model.vision_cfg.width", 65_536),
        ("model.text_cfg.width", 0),
        ("model.text_cfg.layers", 10**9),
        ("model.vision_cfg.layers", 900),
        ("model.vision_cfg.layers", [1, 2]),
        ("model.text_cfg.heads", 7),
        ("model.vision_cfg.patch_size", 4096),
        ("model.text_cfg.context_length", 2),
        ("model.text_cfg.context_length", True),
        ("model.text_cfg.pool_type", "none of these"),
        ("model.vision_cfg.timm_model_name", "resnet50"),
        ("model", 3),
        ("name", "x" * 1000),
        ("name", "a\nb"),
        ("mean", [0.1, 0.2]),
        ("std", [0.0, 0.1, 0.1]),
        ("std", [1e400, 0.1, 0.1]),
        ("stem", [10**9]),
        ("vocabulary", ["a", "a", "bird"]),
        ("vocabulary", [1, 2, 3]),
        ("vocabulary", "abc"),
        ("vocabulary", ["word"] * 100_000),
        ("vocabulary", ["", "red", "bird"]),
        ("vocabulary", ["\ud800", "red", "bird"]),
        ("vocabulary", ["A", "red", "bird"]),
        ("vocabulary", ["a red", "red", "bird"]),
        ("vocabulary", ["bird", "red", "a"]),
        ("model.text_cfg.eos_id", 77),
        ("model.text_cfg.eos_id", 1),
        ("model.text_cfg.pad_id", -4),
        ("model.text_cfg.pool_type", "last"),
        ("model.text_cfg.pool_type", "none"),
        ("model.text_cfg.heads", 4),
        ("model.text_cfg.context_length", 13),
        ("model.vision_cfg.head_width", 16),
        ("mean", [0.1, 0.2, 0.3]),
        ("version", 99),
        ("format", "t2ilib-judge"),
    ],
)
def test_what_config_declares_is_checked_before_it_is_built(folder, path, value):
    before = peak()
    change(folder, path, value)
    refused(folder)
    assert peak() - before < 300_000  # KB


NETWORK = "model.vision_cfg."
UNFIT = {
    "stem longer than any": ({"stem": [1] * 13}, "stem: 13 entries; 12 at most"),
    "stem of many": ({"stem": [1] * 500_000}, "stem: 500,000 entries; 12 at most"),
    "many words": ({"vocabulary": ["a"] * 500_000}, "vocabulary: 500,000 entries; 65,536 at most"),
    "stem for larger patches": ({"stem": [1] * 12}, "a transformer with patch_size 4096"),
    "patches of one pixel": ({NETWORK + "patch_size": 1, "stem": [8, 8]}, "a transformer with patch_size 4"),
    "stem of a ResNet": ({NETWORK + "layers": [1, 1, 1, 1], "stem": [8, 8, 8]}, "a transformer with patch_size 8"),
    "part of a patch": ({NETWORK + "image_size": 60, "stem": [8, 8, 8]}, "60 pixels is no number of patches of 8"),
    "larger than the picture": ({NETWORK + "patch_size": 4096}, "patch_size = 4096: larger than the picture, of 32"),
    "heads": ({"model.text_cfg.heads": 3}, "heads = 3: they must share 32 channels evenly"),
    "width of a head": ({NETWORK + "head_width": 10}, "head_width = 10: its heads must share 32 channels evenly"),
    "wider than all": ({NETWORK + "head_width": 33}, "head_width = 33: its heads must share 32 channels evenly"),
    "a ResNet's": ({NETWORK + "layers": [1] * 4, NETWORK + "head_width": 7}, "its heads must share 1024 channels"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_networks_whose_parts_do_not_fit_are_told_so_at_once(folder, name):
    """Building them would take a minute, or end in torch's own words."""
    changes, told = UNFIT[name]
    for path, value in changes.items():
        change(folder, path, value)
    begun = time.process_time()
    assert told in refused(folder)
    assert time.process_time() - begun < 2


@given(st.lists(st.integers(1, 64), max_size=14), st.sampled_from([1, 2, 4, 8, 16, 60, 64]), st.integers(1, 128))
def test_a_stem_that_is_admitted_makes_the_patches_that_the_transformer_expects(stem, patch_size, image_size):
    try:
        check_stem(stem, 1, patch_size, image_size, "")
    except InputError:
        return
    assert patch_size <= image_size and len(stem) <= 12
    with torch.device("meta"):
        shown = torch.zeros(1, 3, image_size, image_size)
        patches = convolutional_stem(stem, 4).eval()(shown).shape[-1] if stem else image_size // patch_size
    assert patches == image_size // patch_size


def peak():
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1024 if sys.platform == "darwin" else used  # bytes there


def test_older_folders_say_nothing_of_their_configuration_and_are_read(folder, whole):
    path = folder / "model.safetensors"
    save_file(load_file(path), path)
    assert load_encoder(str(folder)).fingerprint == load_encoder(str(whole)).fingerprint
    change(folder, "mean", [0.1, 0.2, 0.3])
    load_encoder(str(folder))
    change(folder, "model.text_cfg.pool_type", "last")
    assert "pool_type = 'last': must be 'eos'" in refused(folder)


@pytest.mark.parametrize("name", ["toy-clip", "toy-clip-resnet"])
def test_the_shipped_encoders_say_which_configuration_is_theirs(name, tmp_path):
    shutil.copytree(WEIGHTS / name.replace("-", "_"), tmp_path / "own")
    load_encoder(str(tmp_path / "own"))
    change(tmp_path / "own", "model.text_cfg.heads", 8)
    assert "config.json: changed, or of other weights" in refused(tmp_path / "own")


@given(st.text())
def test_every_word_of_a_caption_can_be_in_a_vocabulary(caption):
    assert all(split_words(word) == [word] for word in split_words(caption))


LARGE = {
    "pictures": {"image_size": 2048, "patch_size": 256, "stem": (128, *[8] * 7)},
    "patches": {"image_size": 1024, "patch_size": 2, "image_layers": 1},
    "captions": {"context_length": 10_000},
    "layers": {"image_layers": 100, "image_size": 1024, "patch_size": 23},
}


@pytest.mark.parametrize("name", LARGE)
def test_a_small_file_declares_no_large_work(tmp_path, name):
    """Weights of under two megabytes each; what one picture or caption takes is known without doing it."""
    sizes = {"image_width": 32, "text_width": 256 if name == "captions" else 32, "text_layers": 1, "embed_dim": 8}
    config = describe(ClipConfig(**{**sizes, **LARGE[name]}), ["a"])
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_model(config).state_dict().items()}
    save_file({key: torch.zeros(shape, dtype=torch.half) for key, shape in shapes.items()}, tmp_path / "w")
    (tmp_path / "w").rename(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refused(tmp_path)
    assert "caption takes" in message if name == "captions" else "picture takes" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB


def test_what_could_not_be_read_again_is_not_trained():
    Contrastive.outline({}, {})
    for values in LARGE.values():
        with pytest.raises(InputError, match=r"takes [0-9,]+ MiB"):
            Contrastive.outline(values, {})
    with pytest.raises(InputError, match="image_layers = 101: must be at least 1 and at most 100"):
        Contrastive.outline({"image_layers": 101}, {})
    with pytest.raises(InputError, match="open_clip builds no such networks"):
        Contrastive.outline({"text_width": 100}, {})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "damaged"),
        (b"[]", "format and version"),
        (b"\xff\xfe{", "damaged"),
        (DEEP.encode(), "nested too deeply"),
        (b'{"format": "t2ilib-clip", "format": "t2ilib-clip", "version": 1}', "'format' is there twice"),
        (b'{"format": ' + b"1" * 10_000 + b"}", "damaged"),
        (b" " * (17 << 20), "larger than 16 MiB"),
    ],
    ids=["empty", "list", "bytes", "deep", "twice", "digits", "huge"],
)
def test_configs_that_are_no_configs_are_named(folder, content, named):
    (folder / "config.json").write_bytes(content)
    assert named in refused(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_entry_replaced_or_missing_is_one_line(folder, whole, data):
    config = json.loads((whole / "config.json").read_text())
    node = data.draw(
        st.sampled_from([config, config["model"], config["model"]["vision_cfg"], config["model"]["text_cfg"]])
    )
    key = data.draw(st.sampled_from(sorted(node.keys() - {"training", "patch_dropout", "stem", "head_width"})))
    value = data.draw(st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.just([]), st.just({}), st.just(-1)))
    if data.draw(st.booleans()):
        del node[key]
    else:
        node[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    if (key, value) != ("name", value) or not isinstance(value, str):
        refused(folder)


@pytest.mark.parametrize("fault", ["nan", "missing", "extra", "shape", "kind", "overflow"])
def test_weights_that_do_not_fit_are_named(folder, fault):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "ln_final.weight"
    if fault in ("nan", "overflow"):
        tensors[name][0] = {"nan": torch.nan, "overflow": torch.inf}[fault]
    elif fault == "missing":
        del tensors[name]
    elif fault == "extra":
        tensors["more\n"] = torch.zeros(1)
    elif fault == "shape":
        tensors[name] = tensors[name][:-1]
    else:
        tensors[name] = tensors[name].to(torch.int64)
    save_file(tensors, path)
    assert ("more" if fault == "extra" else name) in refused(folder)


def test_answers_that_are_no_numbers_are_noticed(folder):
    """Finite weights of half precision whose products are not."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["text_projection"] = torch.full_like(tensors["text_projection"], 65_504).float() * 1e30
    tensors["ln_final.weight"] = torch.full_like(tensors["ln_final.weight"], 65_504).float() * 1e30
    save_file(tensors, path)
    assert "not finite" in refused(folder)


def test_folders_of_something_else_are_named(folder, tmp_path):
    assert "t2ilib-judge" in refused(WEIGHTS / "judge")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("task: dfgan\n")
    assert "encoders/text" in refused(tmp_path / "run")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors: missing" in refused(folder)
    (folder / "model.safetensors").mkdir()
    assert "missing" in refused(folder)


@pytest.mark.parametrize("name", ["", "no/such", "x" * 5000, "a\0b", "line\nline", "hf-hub:someone/model"])
def test_names_that_are_no_encoder_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_encoder(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("model", ["hf-hub:someone/model", "local-dir:/tmp", "no-such-model"])
def test_released_models_are_named_ones(model):
    with pytest.raises(InputError, match="open_clip has no such model"):
        load_encoder("clip", model=model)


@pytest.mark.parametrize("content", [b"", b"\x80\x04}q\x00.", b"no weights at all" * 100])
def test_released_weights_that_are_damaged_are_named(content, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(InputError, match="open_clip cannot load it") as caught:
        load_encoder("clip", model="RN50", pretrained=str(tmp_path / "w.pt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["ViT-H-14", "ViT-bigG-14", "RN50x64", "coca_ViT-L-14"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_too_small_for_its_model_is_named_before_the_model_is_built(tmp_path, model, name):
    (tmp_path / name).write_bytes(b"junk")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=rf"4 bytes, which cannot be the [0-9,]+ numbers of {model}"):
        load_encoder("clip", model=model, pretrained=str(tmp_path / name))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB


def test_a_model_that_finds_no_room_is_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 20))
    with open(tmp_path / "w.pt", "wb") as file:
        file.truncate(1 << 30)  # takes no place on the disk
    with pytest.raises(InputError, match=r"RN50: takes 0\.4 GiB of memory, of which 0\.0 are free; choose a smaller"):
        load_encoder("clip", model="RN50", pretrained=str(tmp_path / "w.pt"))


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("content", [Evil(), b""], ids=["code", "empty"])
def test_nobody_is_told_to_run_what_a_file_says(tmp_path, monkeypatch, capsys, recwarn, content):
    monkeypatch.setattr(released, "check_file", lambda *_: None)  # as a file of the right size would pass
    (tmp_path / "w.pt").write_bytes(pickle.dumps(content) if content else content)
    with pytest.raises(InputError, match="open_clip cannot load it") as caught:
        load_encoder("clip", model="RN50", pretrained=str(tmp_path / "w.pt"))
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out and not recwarn.list

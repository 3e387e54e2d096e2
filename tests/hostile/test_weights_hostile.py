"""Weights that anybody could have written, well-formed as files: checkpoints, encoders, released CLIPs, exports."""

import json
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from t2ilib.encoders.clip import build_model, describe
from t2ilib.encoders.contrastive import ClipConfig
from t2ilib.files import WEIGHTS
from t2ilib.training.checkpoints import read_checkpoint, write_checkpoint

STEP = "checkpoints/step_00000002.safetensors"
FIRST = "ema.stages.0.weight"


def spoil(path, change, source=None):
    """Write a checkpoint anew, checksum and all, after `change(tensors, about)`."""
    tensors, about = read_checkpoint(source or path)
    change(tensors, about)
    write_checkpoint(path, tensors, about)


def enlarged(key, value):
    return lambda tensors, about: about["recipe"]["model"].update({key: value})


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize("key", ["ngf", "projected_dim", "noise_dim"])
@pytest.mark.parametrize("value", [65, 1500, 10_000])
def test_recipes_inside_of_checkpoints_that_declare_other_networks(ask, tmp_path, command, key, value):
    spoil(tmp_path / "w.safetensors", enlarged(key, value), WEIGHTS / "gancls_toy.safetensors")
    words = ["a red bird."] if command == "sample" else ["--n", "2"]
    ask(command, "w.safetensors", *words, kind="sizes")


def test_a_discriminator_that_no_export_holds_must_find_room(ask, tmp_path):
    spoil(tmp_path / "w.safetensors", enlarged("ndf", 10_000), WEIGHTS / "gancls_toy.safetensors")
    assert "are free" in ask("sample", "w.safetensors", "a red bird.", kind="sizes").err


@pytest.mark.parametrize("command", ["sample", "export"])
def test_a_run_whose_files_agree_on_larger_networks(ask, run, command):
    spoil(run / STEP, enlarged("ngf", 1500))
    text = (run / "config.yaml").read_text()
    assert "ngf: 4" in text
    (run / "config.yaml").write_text(text.replace("ngf: 4", "ngf: 1500"))
    words = ["a red bird."] if command == "sample" else ["--to", "w.safetensors"]
    answer = ask(command, run, *words, kind="sizes")
    assert "of shape" in answer.err
    answer = ask("resume", run, "--steps", 4, kind="sizes")
    assert "resume with the recipe that wrote the checkpoint" in answer.err


@pytest.mark.parametrize("change", ["model.nf=10000", "model.nf=9999"])
def test_networks_larger_than_the_machine(ask, photos, tmp_path, change):
    ask("train", "dfgan", "--data", photos, "--folder", tmp_path / "new", "--set", change, kind="sizes")
    assert not (tmp_path / "new").exists()


SPOILT = {
    "not a number": lambda old: old * torch.nan,
    "infinite": lambda old: old * torch.inf,
    "too large for half precision": lambda old: old * 0 + 1e5,
    "bytes": lambda old: old.to(torch.int8),
    "float8": lambda old: old.to(torch.float8_e4m3fn),
    "float64": lambda old: old.double(),
    "another shape": lambda old: old[None],
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_could_not_be_read_again_is_not_exported(ask, run, tmp_path, name):
    def change(tensors, about):
        part = "ema" if any(key.startswith("ema.") for key in tensors) else "generator"
        key = f"{part}.stages.0.weight"
        tensors[key] = SPOILT[name](tensors[key])

    spoil(run / STEP, change)
    ask("export", run, "--to", tmp_path / "w.safetensors", kind="exports")
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.parametrize("name", SPOILT)
def test_shipped_weights_that_were_spoilt(ask, tmp_path, name):
    def change(tensors, about):
        tensors[FIRST] = SPOILT[name](tensors[FIRST])

    spoil(tmp_path / "w.safetensors", change, WEIGHTS / "gancls_toy.safetensors")
    answer = ask("sample", "w.safetensors", "a red bird.", "--per-caption", 2, kind="weights")
    assert "resume" not in answer.err


def test_negative_variances(ask, tmp_path):
    def change(tensors, about):
        for name in tensors:
            if name.endswith("running_var"):
                tensors[name].neg_()

    spoil(tmp_path / "w.safetensors", change, WEIGHTS / "gancls_toy.safetensors")
    for words in (["sample", "w.safetensors", "a red bird."], ["evaluate", "w.safetensors", "--n", 4]):
        assert "running_var is negative" in ask(*words, kind="weights").err


FOREIGN = {
    "w.safetensors": b"somebody's network",
    "empty.safetensors": b"",
    "folder.safetensors": None,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_an_export_replaces_nothing_else(ask, trained, tmp_path, name):
    path = tmp_path / name
    if FOREIGN[name] is None:
        path.mkdir()
    else:
        path.write_bytes(FOREIGN[name])
    ask("export", trained, "--to", path, kind="exports")
    assert path.is_dir() or path.read_bytes() == FOREIGN[name]


def test_an_export_replaces_an_older_one(ask, trained, tmp_path):
    for _ in range(2):
        ask("export", trained, "--to", tmp_path / "w.safetensors", kind="exports", wanted="accept")


@pytest.fixture(scope="session")
def reader(forked, photos, tmp_path_factory):
    """A run of a small CLIP; not to be changed."""
    folder = tmp_path_factory.mktemp("reader")
    sizes = "data.size=32 model.image_size=32 model.batch_size=4 model.words_first=0 model.parts=false model.stem=[]"
    sizes += " data.reference=test evaluation.n=4"
    sizes += " model.word_loss=0 model.image_layers=1 model.image_width=32 model.text_width=32"
    changes = [word for change in sizes.split() for word in ("--set", change)]
    answer = forked.ask("train", "clip", "--data", photos, "--steps", 2, "--folder", "run", *changes, folder=folder)
    assert answer.status == 0, answer.err
    return folder / "run"


OWN = "encoders/text"


@pytest.fixture(scope="session")
def with_reader(forked, photos, tmp_path_factory):
    """A run of two steps that reads with an encoder of its own; not to be changed."""
    folder = tmp_path_factory.mktemp("with_reader")
    sizes = {"image_size": 32, "batch_size": 4, "words_first": 0, "parts": False, "stem": [], "word_loss": 0}
    sizes |= {"image_layers": 1, "image_width": 32, "text_width": 32}
    options = {f"model.{key}": value for key, value in sizes.items()} | {"training.steps": 2, "evaluation.n": 4}
    changes = ("encoders.text.name=contrastive", f"encoders.text.options={json.dumps(options)}", "data.size=32")
    changes += ("model.ngf=4", "model.ndf=4", "model.batch_size=4", "evaluation.n=4")
    words = [word for change in changes for word in ("--set", change)]
    answer = forked.ask("train", "gancls", "--data", photos, "--steps", 2, "--folder", "run", *words, folder=folder)
    assert answer.status == 0, answer.err
    return folder / "run"


def test_an_export_takes_the_encoder_of_its_run_along(ask, with_reader, tmp_path):
    for _ in range(2):
        answer = ask("export", with_reader, "--to", "my own.safetensors", kind="exports", wanted="accept")
        assert "my own.parts; whoever gets the file needs that folder beside it" in answer.err
    (tmp_path / "elsewhere").mkdir()
    for name in ("my own.safetensors", "my own.parts"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    file = tmp_path / "elsewhere" / "my own.safetensors"
    ask("sample", file, "a red bird.", kind="exports", wanted="accept")
    ask("evaluate", file, "--n", 4, "--out", tmp_path / "results", kind="exports", wanted="accept")
    shutil.rmtree(file.with_suffix(".parts"))
    answer = ask("sample", file, "a red bird.", kind="exports")
    assert "my own.safetensors: reads with an encoder that was trained for its run" in answer.err


def foreign_file(parts, run):
    parts.write_text("mine")


def foreign_network(parts, run):
    (parts / OWN).mkdir(parents=True)
    (parts / OWN / "config.json").write_text("my settings")


def another_run(parts, run):
    shutil.copytree(run, parts)


@pytest.mark.parametrize("make", [foreign_file, foreign_network, another_run])
def test_an_encoder_taken_along_replaces_nothing_else(ask, with_reader, tmp_path, make):
    make(tmp_path / "w.parts", with_reader)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ask("export", with_reader, "--to", "w.safetensors", kind="exports")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", ["none", "another's", "damaged"])
def test_what_lies_beside_an_export_must_be_its_encoder(ask, with_reader, tmp_path, content):
    ask("export", with_reader, "--to", "w.safetensors", kind="exports", wanted="accept")
    weights = tmp_path / "w.parts" / OWN / "model.safetensors"
    if content == "none":
        shutil.rmtree(weights.parent)
    elif content == "damaged":
        weights.write_bytes(weights.read_bytes()[:-9])
    else:
        shutil.copytree(WEIGHTS / "toy_clip", weights.parent, dirs_exist_ok=True)
    answer = ask("sample", "w.safetensors", "a red bird.", kind="exports")
    assert "w." in answer.err


FOLDERS = {
    "another library's": {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"theirs"},
    "weights alone": {"model.safetensors": b"theirs"},
    "text": {"config.json": b"my settings"},
    "the judge": {"config.json": b'{"format": "t2ilib-judge", "version": 1}', "model.safetensors": b"ours"},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_an_exported_encoder_replaces_nothing_else(ask, reader, tmp_path, name):
    (tmp_path / "there").mkdir()
    for file, content in FOLDERS[name].items():
        (tmp_path / "there" / file).write_bytes(content)
    ask("export", reader, "--to", tmp_path / "there", kind="exports")
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == FOLDERS[name]


def test_an_exported_encoder_replaces_an_older_one_and_can_be_read(ask, reader, trained, tmp_path):
    for _ in range(2):
        ask("export", reader, "--to", tmp_path / "there", kind="exports", wanted="accept")
    judged = ("--judge", tmp_path / "there", "--n", 4, "--out", tmp_path / "results")
    ask("evaluate", trained, *judged, kind="encoders", wanted="accept")


CONFIGS = {
    "vocabulary reversed": lambda config: config["vocabulary"].reverse(),
    "an empty word": lambda config: config["vocabulary"].__setitem__(0, ""),
    "half a letter": lambda config: config["vocabulary"].__setitem__(0, "\ud800"),
    "the end": lambda config: config["model"]["text_cfg"].update(eos_id=77),
    "the padding": lambda config: config["model"]["text_cfg"].update(pad_id=-4),
    "heads": lambda config: config["model"]["text_cfg"].update(heads=8),
    "last": lambda config: config["model"]["text_cfg"].update(pool_type="last"),
    "none": lambda config: config["model"]["text_cfg"].update(pool_type="none"),
    "colours": lambda config: config.update(mean=[0.0, 0.5, 0.9]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_encoders_whose_configuration_is_not_of_their_weights(ask, trained, tmp_path, name):
    shutil.copytree(WEIGHTS / "toy_clip", tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    CONFIGS[name](config)
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    answer = ask("evaluate", trained, "--n", 4, "--judge", tmp_path / "own", kind="encoders")
    assert "own/config.json: " in answer.err


LARGE = {
    "pictures": {"image_size": 2048, "patch_size": 256, "stem": (128, *[8] * 7)},
    "captions": {"context_length": 10_000, "text_width": 256},
}


@pytest.mark.parametrize("name", LARGE)
def test_small_encoders_of_large_work(ask, trained, tmp_path, name):
    config = describe(ClipConfig(**{"image_width": 32, "text_width": 32, "embed_dim": 8, **LARGE[name]}), ["a"])
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_model(config).state_dict().items()}
    (tmp_path / "own").mkdir()
    tensors = {key: torch.zeros(shape, dtype=torch.half) for key, shape in shapes.items()}
    save_file(tensors, tmp_path / "own" / "model.safetensors")
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    ask("evaluate", trained, "--n", 4, "--judge", tmp_path / "own", kind="encoders")


def bomb(path):
    """What torch.save wrote, packed: four gibibytes of zeros in a few megabytes."""
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as old:
        parts = {part.filename: old.read(part) for part in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for name, content in parts.items():
            with new.open(name, "w", force_zip64=True) as file:
                for _ in range(4096 if "/data/" in name else 0):
                    file.write(bytes(1 << 20))
                file.write(content)


@pytest.mark.parametrize("content", [b"", b"junk", "bomb", b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."])
@pytest.mark.parametrize("model", ["RN50", "ViT-H-14"])
def test_released_weights_that_are_none(ask, photos, tmp_path, content, model):
    path = tmp_path / "w.pt"
    if content == "bomb":
        bomb(path)
    else:
        path.write_bytes(content)
    options = (f"encoders.text.options.{key}" for key in (f"model={model}", f"pretrained={path}"))
    changes = [word for change in ("encoders.text.name=clip", *options) for word in ("--set", change)]
    answer = ask("train", "gancls", "--data", photos, "--folder", "new", "--steps", 2, *changes, kind="weights")
    assert "weights_only" not in answer.err


def test_what_all_of_these_were_made_from_is_accepted(ask, tmp_path):
    spoil(tmp_path / "w.safetensors", lambda *_: None, WEIGHTS / "gancls_toy.safetensors")
    ask("sample", "w.safetensors", "a red bird.", kind="weights", wanted="accept")
    shutil.copytree(WEIGHTS / "toy_clip", tmp_path / "own")
    save_file(load_file(tmp_path / "own" / "model.safetensors"), tmp_path / "own" / "model.safetensors")  # of old
    words = ("--n", 4, "--judge", tmp_path / "own", "--out", tmp_path / "results")
    ask("evaluate", "gancls_toy", *words, kind="encoders", wanted="accept")

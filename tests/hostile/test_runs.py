"""Run folders that something has happened to: every file of them cut, flipped, emptied, replaced, or gone."""

import json
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

STEP = "step_00000002.safetensors"
DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0" * 8,
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"hello\n" * 10,
    "pickle": lambda data: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "first byte": lambda data: bytes([data[0] ^ 255]) + data[1:],
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "middle byte": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64]) + data[len(data) // 2 + 1 :]
    ),
    "huge header": lambda data: struct.pack("<Q", 1 << 62) + data[8:],
    "deep header": lambda data: struct.pack("<Q", 200_000) + b"[" * 200_000,
}
COMMANDS = (("resume",), ("sample",), ("evaluate",), ("export",))


def command(words, source):
    """Return the command line of a command for a run or checkpoint."""
    more = {"sample": ("a red bird.",), "evaluate": ("--n", "2"), "export": ("--to", "small.safetensors")}
    return (*words, source, *more.get(words[0], ()))


def rewrite(path, change):
    """Change the tensors of a checkpoint, a dict of arrays, and write it again as anybody could."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        about = {key: value for key, value in file.metadata().items() if key != "sha256"}  # nobody must write one
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=about)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints(ask, run, words, damage):
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    ask(*command(words, run), kind="checkpoints")


def smaller(tensors, name):
    tensors[name] = tensors[name].reshape(-1)[:1]


CHANGES = {
    "one element": smaller,
    "not a number": lambda tensors, name: tensors[name].fill(np.nan),
    "infinite": lambda tensors, name: tensors[name].fill(np.inf),
    "bytes": lambda tensors, name: tensors.update({name: tensors[name].astype(np.int8)}),
    "complex": lambda tensors, name: tensors.update({name: tensors[name].astype(np.complex64)}),
    "another shape": lambda tensors, name: tensors.update({name: tensors[name][..., None]}),
    "gone": lambda tensors, name: tensors.pop(name),
    "renamed": lambda tensors, name: tensors.update({name + "x": tensors.pop(name)}),
}


@pytest.mark.parametrize("part", ["generator.", "discriminator.", "ema.", "optimizer."])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_tensors(ask, run, part, change):
    """Somebody edits a tensor and writes the file as safetensors does: no kernel may ever see it."""
    path = run / "checkpoints" / STEP
    name = next(name for name in load_file(path) if name.startswith(part) and load_file(path)[name].ndim > 1)
    rewrite(path, lambda tensors: CHANGES[change](tensors, name))
    ask("resume", run, "--steps", 4, kind="checkpoints")


TEXTS = {
    "empty": b"",
    "no mapping": b"3",
    "bytes": b"\xff\xfe\x00\x01" * 20,
    "deep": b"[" * 100_000,
    "escape": b"task: \x1b]0;owned\x07",
    "another task": b"task: wgan\n",
    "another model": b"task: gancls\nmodel: {ngf: 5}\n",
    "a number as task": b"task: 7\n",
}


@pytest.mark.parametrize("words", COMMANDS[:1], ids=" ".join)
@pytest.mark.parametrize("text", TEXTS)
def test_configurations_that_were_changed(ask, run, words, text):
    (run / "config.yaml").write_bytes(TEXTS[text])
    answer = ask(*command(words, run), "--steps", 4, kind="run folders")
    assert "\x1b" not in answer.err + answer.out


LINES = {
    "no JSON": b"hello\n",
    "a list": b"[1]\n",
    "no step": b"{}\n",
    "step as text": b'{"step": "2"}\n',
    "deep": b"[" * 100_000 + b"\n",
    "bytes": b"\xff\xff\n",
    "a huge number": b'{"step": ' + b"9" * 5000 + b"}\n",
}


@pytest.mark.parametrize("lines", LINES)
def test_records_that_are_none(ask, run, lines):
    (run / "records.jsonl").write_bytes(LINES[lines])
    ask("resume", run, "--steps", 4, kind="run folders")


def test_a_last_record_cut_short_is_left_out(ask, run):
    with open(run / "records.jsonl", "ab") as file:
        file.write(b'{"step": 3, "ima')
    ask("resume", run, "--steps", 3, kind="run folders", wanted="accept")


@pytest.mark.parametrize("name", ["config.yaml", "records.jsonl", f"checkpoints/{STEP}"])
def test_a_folder_in_the_place_of_a_file(ask, run, name):
    (run / name).unlink()
    (run / name).mkdir()
    ask("resume", run, "--steps", 4, kind="run folders")


def test_records_without_their_checkpoints(ask, run):
    """What was trained is gone, its records are not: nothing is started over them."""
    shutil.rmtree(run / "checkpoints")
    before = (run / "records.jsonl").read_bytes()
    ask("resume", run, "--steps", 4, kind="run folders")
    assert (run / "records.jsonl").read_bytes() == before


def test_fewer_steps_than_are_done(ask, run):
    ask("resume", run, "--steps", 1, kind="run folders")


def test_a_folder_of_something_else(ask, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "config.yaml").write_text("name: nobody\n")
    for words in COMMANDS:
        ask(*command(words, tmp_path / "letters"), kind="run folders")


@pytest.mark.parametrize("seed", range(12))
def test_random_bytes_anywhere_in_a_run(ask, run, seed):
    """Refused, or of no consequence; never a traceback."""
    rng = np.random.default_rng(seed)
    files = sorted(path for path in run.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    path = files[seed % len(files)]
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, max(len(data), 1), 8):
        if data:
            data[place] = rng.integers(256)
    path.write_bytes(data)
    ask("resume", run, "--steps", 3, kind="run folders", wanted="either")


@pytest.mark.parametrize("value", [None, [], {}, {"metrics": {}}, {"metrics": 3, "protocol": {}}, "x"], ids=repr)
def test_results_that_are_none(value, tmp_path, run, request):
    from t2ilib.comparison import open_finished
    from t2ilib.errors import InputError

    (run / "results").mkdir(exist_ok=True)
    (run / "results" / "evaluation-1.json").write_text(json.dumps(value))
    with pytest.raises(InputError) as error:
        open_finished(run)
    assert "\n" not in str(error.value)
    request.node.user_properties.append(("hostile", ["run folders", "refused clearly"]))

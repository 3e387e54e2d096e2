"""Captions, files of captions, noise and weights for `t2i sample`, from people who try things."""

import os
import struct

import numpy as np
import pytest

CAPTIONS = {
    "empty": "",
    "blanks": "   ",
    "unknown words": "xyzzy plugh",
    "an escape": "a red \x1b[31mbird\x07",
    "a new line": "a red\nbird",
    "very long": "a red bird " * 2000,
    "one long word": "x" * 100_000,
    "other letters": "красная птица 鳥 🐦",
    "right to left": "a \u202ered\u202c bird",
    "a path": "../../../../tmp/evil",
    "a line separator": "a red\u2028bird",
}


@pytest.mark.parametrize("out", ["one.png", "many"])
@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_nobody_would_write(ask, trained, tmp_path, name, out):
    """Refused, or drawn under a name that is a name; what is odd is said, and nothing is sent to the terminal."""
    answer = ask("sample", trained, CAPTIONS[name], "--out", out, kind="captions", wanted="either")
    assert "\x1b" not in answer.err + answer.out and "\x07" not in answer.err + answer.out
    assert {path.name for path in tmp_path.iterdir()} <= {out}


FILES = {
    "empty": b"",
    "blank lines": b"\n\n \n",
    "UTF-16": "a red bird\n".encode("utf-16"),
    "bytes": bytes(range(256)) * 20,
    "Latin-1": "un oiseau à queue dorée\n".encode("latin-1"),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_captions_that_are_none(ask, trained, tmp_path, name):
    (tmp_path / "captions.txt").write_bytes(FILES[name])
    ask("sample", trained, "--file", "captions.txt", kind="captions")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_odd_files_of_captions(ask, trained, tmp_path, make):
    make(tmp_path / "captions.txt")
    ask("sample", trained, "--file", "captions.txt", kind="odd files")


NUMBERS = (
    *(("--truncation", value) for value in ("nan", "inf", "-1", "1e400", "x")),
    *(("--seed", value) for value in ("-1", "1.5", "9" * 30, "x")),
    *(("--per-caption", value) for value in ("0", "-3", "9" * 12, "x")),
    *(("--device", value) for value in ("", "tpu", "cuda:99", "cpu:7", "x")),
    *(("--out", value) for value in ("x.jpg", "/proc/x.png", "a/b/" + "c" * 300 + ".png")),
)


@pytest.mark.parametrize(("option", "value"), NUMBERS)
def test_settings_of_samples_that_cannot_be(ask, trained, option, value):
    ask("sample", trained, "a red bird.", option, value, kind="sampling")


WEIGHTS = {
    "empty": b"",
    "a huge header": struct.pack("<Q", 1 << 60) + b"{}",
    "a deep header": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "no tensors": struct.pack("<Q", 2) + b"{}",
    "overlapping": struct.pack("<Q", 59) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,999999]}}',
    "a pickle": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
}


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none(ask, tmp_path, name, command):
    (tmp_path / "w.safetensors").write_bytes(WEIGHTS[name])
    ask(command, "w.safetensors", *(["a red bird."] if command == "sample" else []), kind="weights")


@pytest.mark.parametrize("seed", range(10))
def test_random_bytes_in_weights(ask, forked, trained, tmp_path, seed):
    answer = forked.ask("export", trained, "--to", tmp_path / "w.safetensors", folder=tmp_path)
    assert answer.status == 0, answer.err
    data = bytearray((tmp_path / "w.safetensors").read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, 4000 if seed % 2 else len(data), 3):
        data[place] ^= 1 << int(rng.integers(8))
    (tmp_path / "w.safetensors").write_bytes(data)
    ask("sample", tmp_path / "w.safetensors", "a red bird.", kind="weights", wanted="either")


def test_what_all_of_these_were_made_from_is_accepted(ask, trained, tmp_path):
    (tmp_path / "captions.txt").write_bytes("\ufeffa red bird.\r\na blue bird.\r\n".encode())
    answer = ask("sample", trained, "--file", "captions.txt", "--per-caption", 2, kind="captions", wanted="accept")
    assert "2 rows of 2" in answer.out

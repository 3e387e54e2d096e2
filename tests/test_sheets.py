"""What `t2i sample` reads and writes: caption files of any kind, grids as they come, nothing lost that was there."""

import codecs
import itertools
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from t2ilib import sampler as sampler_module
from t2ilib import sampling, sheets
from t2ilib.cli import app
from t2ilib.devices import CPU_BATCH
from t2ilib.errors import InputError
from t2ilib.pictures import to_uint8
from t2ilib.plots import contact_sheet
from t2ilib.sheets import Captions, check_target, grid_name, grouped


@pytest.fixture(scope="module")
def sampler():
    return sampling.load_sampler("dfgan_toy", "cpu")


def refused(*arguments) -> str:
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    assert isinstance(result.exception, InputError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


# ---- caption files -----------------------------------------------------------------------------------------------


def test_lines_end_as_windows_macs_and_others_end_them_and_nowhere_else(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes("\ufeffa red\u2028bird\r\n\r\n  a blue\x0bbird\x0c.\n\na\x85bird\ra grey one\r".encode())
    captions = Captions(["first"], path)
    assert list(captions) == ["first", "a red\u2028bird", "a blue\x0bbird\x0c.", "a\x85bird", "a grey one"]
    assert len(captions) == 5 and list(captions) == list(captions)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_many_lines_of_any_end_are_as_many_captions(tmp_path, end):
    (tmp_path / "captions.txt").write_bytes("".join(f"a bird {number}{end}" for number in range(5000)).encode())
    assert list(Captions([], tmp_path / "captions.txt")) == [f"a bird {number}" for number in range(5000)]
    (tmp_path / "captions.txt").write_bytes(f"a{end}b{end}{'x' * 10_001}".encode())
    assert "line 3: longer than 10000 bytes" in refused("dfgan_toy", "--file", tmp_path / "captions.txt")


@given(lines=st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=40)))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_line_by_line(lines, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "captions.txt"
    path.write_bytes("\n".join(["x", *lines]).encode())
    assert list(Captions([], path)) == ["x", *(line.strip() for line in lines if line.strip())]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("a red bird".encode("utf-16"), "not UTF-8 but UTF-16"),
        ("a red bird".encode("utf-32"), "not UTF-8 but UTF-32"),
        (codecs.BOM_UTF32_BE + "a red bird".encode("utf-32-be"), "not UTF-8 but UTF-32"),
        (b'{"file_name": "0.png", "text": "a red bird"}\n', "line 1: JSON, not a caption; write the captions alone"),
        (b'\xef\xbb\xbf {"file_name": "0.png"}\r\n', "line 1: JSON"),
        (b'a red bird\n["a red bird", "a blue bird"]\n', "line 2: JSON"),
        ("a red bird".encode("utf-16-le"), "line 1: holds NUL bytes"),
        (b"a red bird\n\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 2: not UTF-8"),
        (b"a red bird\n\xffa blue one", "line 2: not UTF-8"),
        (b"a\n" + b"x" * 10_001, "line 2: longer than 10000 bytes"),
        (b"\n \n\r\n", "no caption given"),
        (b"", "no caption given"),
    ],
)
def test_files_that_hold_no_captions_are_named(tmp_path, content, named):
    (tmp_path / "captions.txt").write_bytes(content)
    assert named in refused("dfgan_toy", "--file", tmp_path / "captions.txt")


def test_captions_with_brackets_and_numbers_are_captions(tmp_path):
    odd = ["[a bird]", "{red} bird", '"a red bird"', "12", "{", "[1, 2"]
    (tmp_path / "captions.txt").write_text("\n".join(odd))
    assert list(Captions([], tmp_path / "captions.txt")) == odd


def test_folders_pipes_and_absent_files_are_no_text_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, named in ((tmp_path, "no text file"), (tmp_path / "pipe", "no text file"), ("no.txt", "no such file")):
        assert named in refused("dfgan_toy", "--file", path)
    assert "in UTF-8" in refused("dfgan_toy", "a \udcff bird")
    assert "in UTF-8 of at most" in refused("dfgan_toy", "x" * 10_001)


# ---- names and targets -------------------------------------------------------------------------------------------


@given(st.text(max_size=400), st.integers(1, 10**6))
def test_names_are_short_plain_and_each_number_s_own(caption, number):
    name = grid_name(number, caption, 6)
    assert name.isascii() and name.isprintable() and len(name) < 100 and "/" not in name and name.endswith(".png")
    assert name.startswith(f"{number:06d}") and name != grid_name(number + 1, caption, 6)


def test_names_of_known_captions():
    assert grid_name(1, "a red bird") == "001_a-red-bird.png" and grid_name(2, "???") == "002.png"
    assert grid_name(3, "b" * 300) == f"003_{'b' * 80}.png"


def test_what_is_there_and_no_picture_is_not_replaced(tmp_path):
    (tmp_path / "notes.png").write_text("my notes")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty.png").touch()
    Image.new("RGB", (2, 2)).save(tmp_path / "old.png")
    for name in ("notes.png", "folder.png", "file", "x.jpg", "file/x.png", "notes.png/x"):
        assert str(tmp_path / name) in refused("dfgan_toy", "a red bird", "--out", tmp_path / name)
    assert (tmp_path / "notes.png").read_text() == "my notes"
    for name in ("old.png", "empty.png", "new.png", "new"):
        check_target(tmp_path / name, 1)
    with pytest.raises(InputError, match=r"257 captions are more rows than one picture has \(256\); name a folder"):
        check_target(tmp_path / "new.png", 257)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", -1),
        ("--seed", 2**64),
        ("--seed", 10**30),
        ("--truncation", 0),
        ("--truncation", -1),
        ("--truncation", "nan"),
        ("--truncation", "inf"),
        ("--per-caption", 10_001),
        ("--per-caption", 10**12),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(option, value):
    assert option.lstrip("-").replace("-", "_") in refused("no such run", "a red bird", option, value)


def test_a_grid_too_large_to_be_seen_names_the_way_out(tmp_path, sampler):
    with pytest.raises(InputError, match="name a folder"):
        sheets.write_sheets(sampler, Captions(["a red bird"]), tmp_path / "x.png", per_caption=10_000)
    with pytest.raises(InputError, match="draw fewer"):
        sampler.recipe, kept = sampler.recipe.override(**{"data.size": 256}), sampler.recipe
        try:
            sheets.write_sheets(sampler, Captions(["a red bird"]), tmp_path / "x", per_caption=10_000)
        finally:
            sampler.recipe = kept
    assert not list(tmp_path.iterdir())


# ---- pictures ----------------------------------------------------------------------------------------------------


def test_a_stream_paints_what_sample_always_painted_to_the_bit(sampler):
    captions = ["a red bird.", "a small blue bird on a rock.", "a white bird."]
    noise = sampler.noise(7, torch.Generator().manual_seed(5)).repeat(3, 1)
    repeated, old = [caption for caption in captions for _ in range(7)], []
    for first in range(0, 21, CPU_BATCH):
        part = slice(first, first + CPU_BATCH)
        old.append(sampler.generate(sampler.encoder.encode(repeated[part]), noise[part]))
    assert torch.equal(sampler.sample(captions, 5, 7), torch.cat(old))
    assert torch.equal(torch.cat(list(sampler.stream(iter(captions), 5, 7))), torch.cat(old))
    noise = sampler.noise(7, torch.Generator().manual_seed(5))
    repeated = [caption for caption in captions for _ in range(7)]
    assert torch.equal(torch.cat(list(sampler.draw(repeated, noise.repeat(len(captions), 1)))), torch.cat(old))


@pytest.mark.parametrize("size", [1, 5, 64])
def test_the_batch_size_does_not_change_the_pictures(sampler, monkeypatch, size):
    captions = ["a red bird.", "a small blue bird on a rock."]
    whole = sampler.sample(captions, 1, 4)
    monkeypatch.setattr(sampler_module, "CPU_BATCH", size)
    other = sampler.sample(captions, 1, 4)
    assert (whole - other).abs().max() < 1e-4
    assert np.abs(to_uint8(whole).astype(int) - to_uint8(other)).max() <= 1


def test_captions_without_end_are_streamed(sampler):
    stream = sampler.stream(itertools.cycle(["a red bird.", "a blue bird."]), per_caption=9)
    assert [len(next(stream)) for _ in range(2)] == [CPU_BATCH, CPU_BATCH]


@given(st.lists(st.integers(1, 7)), st.integers(1, 9))
def test_batches_are_cut_anew_in_order(sizes, size):
    pictures = torch.linspace(-1, 1, max(1, sum(sizes)) * 3)[: sum(sizes) * 3].view(-1, 3, 1, 1)
    groups = list(grouped(pictures.split(sizes) if sizes else [], size))
    assert all(len(group) == size for group in groups) and len(groups) == sum(sizes) // size
    if groups:
        assert (np.concatenate(groups) == to_uint8(pictures)[: len(groups) * size]).all()


def test_a_job_writes_a_grid_per_line_and_says_what_was_odd(tmp_path, caplog):
    (tmp_path / "captions.txt").write_text("a red bird\na red bird\n???\nquetzal\n")
    options = ["--file", str(tmp_path / "captions.txt"), "--per-caption", "2", "--out", str(tmp_path / "grids")]
    done = CliRunner().invoke(app, ["sample", "dfgan_toy", *options])
    assert done.exit_code == 0, done.output
    names = sorted(path.name for path in (tmp_path / "grids").iterdir())
    assert names == ["001_a-red-bird.png", "002_a-red-bird.png", "003.png", "004_quetzal.png"]
    first, second = (Image.open(tmp_path / "grids" / name).tobytes() for name in names[:2])
    assert first == second and "4 grids of 2" in done.output
    assert len(caplog.messages) == 2 and "has unknown words alone" in caplog.text
    (tmp_path / "grids" / "003.png").write_text("mine")
    again = CliRunner().invoke(app, ["sample", "dfgan_toy", *options])
    assert isinstance(again.exception, InputError) and (tmp_path / "grids" / "003.png").read_text() == "mine"


def test_grids_are_written_as_they_come(tmp_path, sampler, monkeypatch):
    """So a job of any length takes the memory of a batch, and what was drawn stays when it is ended."""
    there, generate = [], sampler_module.Sampler.generate

    def spying(self, text, noise):
        there.append(len(list(tmp_path.glob("*.png"))))
        return generate(self, text, noise)

    monkeypatch.setattr(sampler_module, "CPU_BATCH", 2)
    monkeypatch.setattr(sampler_module.Sampler, "generate", spying)
    sheets.write_sheets(sampler, Captions([f"a red bird {number}" for number in range(6)]), tmp_path, per_caption=1)
    assert there == [0, 2, 4]


def test_the_sheet_of_a_few_captions_is_what_it_was(tmp_path, sampler):
    captions = ["a red bird.", "a blue bird."]
    sheets.write_sheets(sampler, Captions(captions), tmp_path / "new.png", 3, 2)
    contact_sheet(sampler.sample(captions, 3, 2), columns=2, path=tmp_path / "old.png")
    assert (tmp_path / "new.png").read_bytes() == (tmp_path / "old.png").read_bytes()


def test_sample_warns_once_per_kind_and_refuses_what_is_no_list(sampler, caplog):
    sampler.sample(["quetzal", "teal"])
    (said,) = caplog.messages
    assert said.startswith("warning: ") and "2 captions, the first" in said
    for captions in ([], "a red bird"):
        with pytest.raises(InputError, match="give a list with at least one caption"):
            sampler.sample(captions)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--n", 10**9, "evaluation.n"),
        ("--seed", -1, "evaluation.seed"),
        ("--seed", 2**32, "evaluation.seed"),
        ("--truncation", "-1", "evaluation.truncation"),
        ("--truncation", "nan", "evaluation.truncation"),
        ("--truncation", "inf", "evaluation.truncation"),
        ("--out", __file__, "no folder"),
        ("--out", f"{__file__}/deeper", "no folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_loaded(option, value, named):
    result = CliRunner().invoke(app, ["evaluate", "no such run", option, str(value)])
    assert isinstance(result.exception, InputError) and named in str(result.exception), result.output

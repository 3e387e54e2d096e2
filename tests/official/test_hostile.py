"""Checkpoints that are damaged, hostile, or of something else: one line that names the entry."""

import copy
import pickle
import resource
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from t2ilib import official
from t2ilib.errors import InputError
from t2ilib.models.dfgan import DFGAN, DFGANConfig
from t2ilib.torch_files import check_archive

SIZES = DFGANConfig.tiny(embedding_dim=6, noise_dim=5)


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(DFGAN(SIZES).state_dict())


def refused(checkpoint) -> str:
    with pytest.raises(InputError) as caught:
        official.load("dfgan", checkpoint)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 3000
    return message


NAME = "generator.start.weight"
SHOWN = "netG.fc.weight"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([1.0], f"{NAME} must be tensors"),
        (None, f"{NAME} must be tensors"),
        ({"deeper": {"still": 1}}, f"{NAME}.deeper must be tensors"),
        (torch.tensor(1.0), f"misshapen {SHOWN} ()"),
        (torch.empty(0), f"misshapen {SHOWN} (0,)"),
        (lambda old: old.fill_(torch.nan), f"not finite real {SHOWN}"),
        (lambda old: old * 1j, f"not finite real {SHOWN}"),
        (lambda old: old.long(), f"not finite real {SHOWN}"),
        (lambda old: old.to_sparse(), f"not finite real {SHOWN}"),
        (lambda old: torch.zeros(1).expand(old.shape), f"not finite real {SHOWN}"),
        (lambda old: old.to(torch.float8_e4m3fn), f"not finite real {SHOWN}"),
    ],
    ids=["list", "none", "nested", "scalar", "empty", "nan", "complex", "whole", "sparse", "expanded", "float8"],
)
def test_one_bad_entry_is_named(whole, value, named):
    value = value(whole[NAME].clone()) if callable(value) else value
    assert named in refused(whole | {NAME: value})


def test_shapes_that_nobody_stored_take_no_memory(whole):
    huge = torch.zeros(1).expand(10**15)
    assert f"misshapen {SHOWN}" in refused(whole | {NAME: huge})
    assert "unexpected" in refused(whole | {"generator.more": huge})


@pytest.mark.parametrize("name", ["generator.a\nb", "x" * 5000, "\x1b[31m", "module.module.", "", "..", 7, ("a", 1)])
def test_odd_names_are_shown_on_one_line(whole, name):
    refused(whole | {name: torch.zeros(1)})


@pytest.mark.parametrize("checkpoint", [None, [], 3, [("generator", torch.zeros(1))], {}, {"model": {}}, {"model": 3}])
def test_what_is_no_mapping_of_tensors_is_refused(checkpoint):
    refused(checkpoint)


def test_an_entry_under_two_spellings_is_named(whole):
    assert f"{NAME} is there twice" in refused(whole | {f"module.{NAME}": whole[NAME] + 1})
    assert "is there twice" in refused(whole | {"generator.fc.weight": whole[NAME] + 1})


class Code:
    def __reduce__(self):
        return print, ("code of a checkpoint ran",)


def test_files_that_are_no_checkpoints_are_named(whole, tmp_path, capsys):
    save_file(whole, tmp_path / "cut.safetensors")
    torch.save(whole, tmp_path / "cut.pth")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"netG": Code()}))
    torch.save({"netG": Code()}, tmp_path / "zipped.pth")
    (tmp_path / "empty.pth").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "folder.pth").mkdir()
    for path in sorted(tmp_path.iterdir()):
        assert str(path) in refused(path)
    assert "code of a checkpoint ran" not in capsys.readouterr().out


def packed(path, method=zipfile.ZIP_DEFLATED):
    """Write what torch.save wrote again, with its parts packed."""
    with zipfile.ZipFile(path) as old:
        parts = {part.filename: old.read(part) for part in old.infolist()}
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in parts.items():
            new.writestr(name, content)


def shared(path):
    """Let all parts that hold tensors be one and the same: many numbers, few bytes."""
    with zipfile.ZipFile(path) as old:
        parts = {part.filename: old.read(part) for part in old.infolist()}
    first, *others = [name for name in parts if "/data/" in name]
    with zipfile.ZipFile(path, "w") as new:
        for name in parts.keys() - set(others):
            new.writestr(name, parts[name])
        for name in others:
            entry = copy.copy(new.getinfo(first))
            entry.filename = name
            new.filelist.append(entry)


@pytest.mark.parametrize("spoil", [packed, shared])
def test_small_files_that_would_fill_the_memory_are_refused(tmp_path, spoil):
    path = tmp_path / "bomb.pth"
    torch.save({f"netG.{number}": torch.zeros(8 << 20, dtype=torch.uint8) for number in range(40)}, path)
    spoil(path)
    assert path.stat().st_size < 10 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refused(path)
    assert f"{path}: " in message and "MiB that unpack to 320, which no checkpoint does; download it again" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


@pytest.mark.filterwarnings("ignore:.*jit:FutureWarning")
def test_what_torch_wrote_is_no_bomb(whole, tmp_path):
    torch.save(whole, tmp_path / "whole.pth")
    check_archive(tmp_path / "whole.pth", "")
    torch.save(whole, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.jit.script(torch.nn.Linear(500, 500)).save(tmp_path / "script.pt")  # whose code is packed
    for path in tmp_path.iterdir():
        check_archive(path, "")
    assert official.load("dfgan", tmp_path / "old.pth").noise_dim == SIZES.noise_dim


def test_a_file_names_no_other_file(whole, tmp_path):
    """A mapping that the caller gives may name files; one that was downloaded may not."""
    parts = {name.removeprefix("generator."): value for name, value in whole.items() if name.startswith("generator.")}
    torch.save(parts, tmp_path / "generator.pth")
    rest = {name: value for name, value in whole.items() if not name.startswith("generator.")}
    assert official.load("dfgan", rest | {"generator": tmp_path / "generator.pth"}).noise_dim == SIZES.noise_dim
    torch.save(rest | {"generator": str(tmp_path / "generator.pth")}, tmp_path / "all.pth")
    assert "generator must be tensors" in refused(tmp_path / "all.pth")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_shape_of_any_entry_is_refused(whole, data):
    name = data.draw(st.sampled_from(sorted(whole)))
    shape = data.draw(st.lists(st.integers(0, 3), max_size=5))
    if tuple(shape) != tuple(whole[name].shape):
        refused(whole | {name: torch.zeros(shape)})


@pytest.mark.parametrize("system", ["gancls", "wgan", "dfgan", "galip"])
def test_other_architectures_are_refused(system):
    many = {f"netG.GBlocks.{i}.fuse1.affine0.fc_gamma.linear1.weight": torch.zeros(2, 2) for i in range(3000)}
    deep = {f"generator.netG.{i}.weight": torch.zeros(2, 2, 4, 4) for i in range(300)}
    judge = {f"discriminator.netD_1.{i}.weight": torch.zeros(2, 2, 4, 4) for i in range(3000)}
    for entries in (many, deep, deep | judge, {"generator.netG.x.weight": torch.zeros(2, 2, 4, 4)}):
        with pytest.raises(InputError) as caught:
            official.load(system, entries)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 3000

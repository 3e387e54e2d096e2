import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run
from t2ilib.training.checkpoints import (
    check_about,
    check_encoders,
    flatten_optimizer,
    load_module,
    read_about,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)


def trained(layout):
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3).to(memory_format=layout)
    optimizer = torch.optim.Adam(module.parameters(), 0.1, betas=(0.5, 0.9), fused=True)
    for step in range(3):
        one_step(module, optimizer, step)
    return module, optimizer


def one_step(module, optimizer, step):
    picture = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    module(picture.to(memory_format=torch.channels_last)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_optimizer_continues_exactly_in_either_memory_layout(tmp_path, layout):
    module, optimizer = trained(layout)
    write_checkpoint(
        tmp_path / "c", {**module.state_dict(), **flatten_optimizer("g", optimizer)}, {"step": 3, "recipe": {}}
    )
    tensors, about = read_checkpoint(tmp_path / "c")
    assert about == {"step": 3, "recipe": {}}
    copy = nn.Conv2d(3, 4, 3).to(memory_format=layout)
    copy.load_state_dict({name: tensors[name] for name in ("weight", "bias")})
    resumed = torch.optim.Adam(copy.parameters(), 0.1, betas=(0.5, 0.9), fused=True)
    restore_optimizer("g", resumed, tensors)
    for step in range(3, 6):
        one_step(module, optimizer, step)
        one_step(copy, resumed, step)
    assert torch.equal(module.weight, copy.weight)
    assert torch.equal(module.bias, copy.bias)


def test_truncated_checkpoint_is_named_and_the_one_before_is_taken(tmp_path):
    run = Run.create(tmp_path, Recipe("gancls"))
    for step in (1, 2, 3):
        run.save(step, {"x": torch.full((100,), float(step))}, {})
    assert [path.name for path in run.checkpoints()] == ["step_00000002.safetensors", "step_00000003.safetensors"]
    newest = run.checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:-50])
    with pytest.raises(InputError, match="step_00000003"):
        read_checkpoint(newest)
    tensors, about, _ = run.restore()
    assert about["step"] == 2 and tensors["x"][0] == 2
    run.checkpoints()[0].write_bytes(b"junk")
    with pytest.raises(InputError, match="not a whole checkpoint"):
        run.restore()


def corrupted(tensors):
    """Ways in which an optimiser's entries can be wrong, each with what is said of it."""
    weight, bias = "optimizer.g.0.exp_avg", "optimizer.g.1.exp_avg_sq"
    moment = tensors[weight]
    yield "one element", {weight: torch.zeros(1)}, r"exp_avg is of shape \(1,\)"
    yield "transposed", {weight: moment.transpose(0, 1).contiguous()}, "exp_avg is of shape"
    yield "no element", {weight: torch.zeros(0)}, "exp_avg is of shape"
    yield "step per weight", {"optimizer.g.0.step": torch.zeros(4)}, r"step is of shape \(4,\)"
    yield "half", {weight: moment.half()}, "exp_avg is float16, not float32"
    yield "double", {weight: moment.double()}, "exp_avg is float64"
    yield "int8", {weight: moment.to(torch.int8)}, "exp_avg is int8"
    yield "complex", {weight: moment.to(torch.complex64)}, "exp_avg is complex64"
    yield "NaN", {weight: torch.full_like(moment, torch.nan)}, "exp_avg is not finite"
    yield "infinite", {bias: torch.full((4,), torch.inf)}, "exp_avg_sq is not finite"
    yield "negative", {bias: torch.full((4,), -1.0)}, "exp_avg_sq is negative"
    yield "negative step", {"optimizer.g.0.step": torch.tensor(-2.0)}, "step is negative"
    yield "missing", {weight: None}, "exp_avg is missing"
    yield "foreign", {"optimizer.g.0.momentum_buffer": moment}, "of another optimiser"
    for index in ("2", "-1", "x", "1_0", "٣", ""):
        yield f"index {index}", {f"optimizer.g.{index}.exp_avg": moment}, "of no parameter"


def test_an_optimiser_takes_only_what_fits_its_parameters():
    module, optimizer = trained(torch.contiguous_format)
    whole = flatten_optimizer("g", optimizer)
    for kind, change, told in corrupted(whole):
        tensors = {key: value for key, value in (whole | change).items() if value is not None}
        fresh = torch.optim.Adam(module.parameters(), 0.1, fused=True)
        with pytest.raises(InputError, match=f"file: .*{told}"):
            restore_optimizer("g", fresh, tensors, "file")
            pytest.fail(f"{kind} was taken")
        assert not fresh.state  # nothing was loaded


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_every_optimiser_knows_its_own_entries(kind):
    module = nn.Linear(3, 2)
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(module.parameters(), 0.1, **options)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    kept = flatten_optimizer("g", optimizer)
    again = kind(module.parameters(), 0.1, **options)
    restore_optimizer("g", again, kept)
    assert all(torch.equal(value, kept[key]) for key, value in flatten_optimizer("g", again).items())


def test_no_optimiser_takes_the_root_of_a_negative_number():
    module = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters(), 0.1, amsgrad=True)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    kept = flatten_optimizer("g", optimizer)
    key = "optimizer.g.0.max_exp_avg_sq"
    with pytest.raises(InputError, match="max_exp_avg_sq is negative"):
        restore_optimizer("g", optimizer, kept | {key: -kept[key] - 1}, "file")


def test_networks_take_only_what_fits_them(tmp_path):
    net = nn.BatchNorm1d(2)
    whole = {f"net.{key}": value for key, value in net.state_dict().items()}
    load_module(net, "net", whole, tmp_path)
    for change in (
        torch.full((2,), torch.nan),
        torch.zeros(2, dtype=torch.int8),
        torch.zeros(2, dtype=torch.complex64),
    ):
        with pytest.raises(InputError, match=r"net\.weight is"):
            load_module(net, "net", whole | {"net.weight": change}, tmp_path)
    with pytest.raises(InputError, match=r"num_batches_tracked is float32, not int64"):
        load_module(net, "net", whole | {"net.num_batches_tracked": torch.tensor(1.0)}, tmp_path)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, {"x": torch.ones(1000)}, {"step": 3, "recipe": {"task": "gancls"}})
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) - 2000, whole.index(b"gancls")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"c\.safetensors: not a whole checkpoint of ours \(its checksum differs"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "about", [[], {}, {"step": 1}, {"recipe": {}}, {"step": "1"}, {"step": True}, {"step": -1}, None]
)
def test_a_checkpoint_says_its_step_and_recipe(tmp_path, about):
    path = tmp_path / "c.safetensors"
    save_file({"x": torch.ones(1)}, path, metadata={"t2ilib": json.dumps(about)})
    with pytest.raises(InputError, match="not a whole checkpoint of ours"):
        read_checkpoint(path)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan, 1e300, "3", 3, None])
def test_what_a_checkpoint_counts_can_be_counted(tmp_path, seconds):
    with pytest.raises(InputError, match="its seconds is"):
        check_about({"seconds": seconds}, {"seconds": float}, tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    "record", ["x", [1], {}, {"step": 2}, {"step": 3, "images": "many"}, {"step": 3, "g": None}, {"step": 3, "g": []}]
)
def test_a_checkpoints_record_is_one_of_its_step(tmp_path, record):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, {"x": torch.ones(1)}, {"step": 3, "recipe": {"task": "gancls"}, "record": record})
    for read in (read_checkpoint, read_about):
        with pytest.raises(InputError, match=r"c\.safetensors: not a whole checkpoint of ours \(its record is"):
            read(path)


def test_encoders_that_are_no_mapping_are_refused(tmp_path):
    with pytest.raises(InputError, match="its encoders are"):
        check_encoders({"text": "a"}, {"encoders": ["a"]}, tmp_path / "c.safetensors")


def test_foreign_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"2 entries of net do not fit.* first \w+"):
        load_module(nn.Linear(2, 2), "net", {"net.weight": torch.zeros(3, 3)}, tmp_path)
    with pytest.raises(InputError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "absent")


def test_records_survive_a_line_cut_short(tmp_path):
    run = Run.create(tmp_path, Recipe("gancls"))
    run.append({"step": 1})
    with open(tmp_path / "records.jsonl", "a") as file:
        file.write('{"step": 2, "ima')
    assert run.records() == [{"step": 1}]
    run.forget_after(1)
    run.append({"step": 2})
    assert [record["step"] for record in run.records()] == [1, 2]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_while_checkpoints_are_written_leaves_a_whole_one(tmp_path):
    script = textwrap.dedent("""
        import sys, torch
        from t2ilib.training import Recipe, Run
        run = Run.create(sys.argv[1], Recipe("gancls"))
        step = 0
        while True:
            step += 1
            run.save(step, {"x": torch.full((2_000_000,), float(step))}, {})
            print(step, flush=True)
    """)
    for delay in (0.0, 0.013, 0.029):
        folder = tmp_path / str(delay)
        child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, env=os.environ)
        for _ in range(3):
            child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        run = Run.open(folder)
        for path in run.checkpoints():
            read_checkpoint(path)  # every file that bears a checkpoint's name is whole
        tensors, about, _ = run.restore()
        assert about["step"] >= 3
        assert (tensors["x"] == about["step"]).all()

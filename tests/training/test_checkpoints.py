import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run
from t2ilib.training.checkpoints import (
    flatten_optimizer,
    load_module,
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
    write_checkpoint(tmp_path / "c", {**module.state_dict(), **flatten_optimizer("g", optimizer)}, {"step": 3})
    tensors, about = read_checkpoint(tmp_path / "c")
    assert about == {"step": 3}
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

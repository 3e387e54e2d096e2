"""What ends a run in the middle loses nothing that a checkpoint was due for: signals, and hooks that fail."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from test_loop import SETTINGS, equal, run_in, without_times
from tiny import SmallBatches, small

from t2ilib.training import Run, train
from t2ilib.training.stopping import SIGNALS, Stopped, stoppable, undivided


class Signalling(SmallBatches):
    """Batches of which one sends a signal to this very process, once."""

    def __init__(self, at, number):
        super().__init__()
        self.at, self.number = at, number

    def batch(self, number):
        if number == self.at:
            self.at = None
            os.kill(os.getpid(), self.number)
        return super().batch(number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step", [1, 2, 5, 8])
def test_a_signal_ends_after_the_step_and_the_run_goes_on_to_the_bit(tmp_path, number, step, capsys):
    whole = small()
    expected = list(train(whole, SmallBatches(), SETTINGS))
    records = []
    with pytest.raises(Stopped) as stopped, stoppable():
        records += train(small(), Signalling(step - 1, number), SETTINGS, run_in(tmp_path))
    assert stopped.value.number == number and signal.Signals(number).name in str(stopped.value)
    assert "finishing this step" in capsys.readouterr().err
    run = Run.open(tmp_path)
    assert run.checkpoints()[-1].name == f"step_{step:08d}.safetensors"
    assert [record["step"] for record in records] == [due for due in (2, 4, 6, 8) if due < step]
    resumed = small()
    list(train(resumed, SmallBatches(), SETTINGS, run))
    assert equal(whole, resumed)
    steps = [record["step"] for record in run.records()]
    assert steps == sorted({2, 4, 6, 8, step})
    assert run.records()[-1]["images"] == expected[-1]["images"]


def test_handlers_are_put_back_and_nothing_is_caught_outside():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Stopped), stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")  # outside a loop the signal is answered at once
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_the_second_signal_ends_at_once():
    child = os.fork()
    if child == 0:
        with stoppable(), undivided():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize("hook", ["sample", "evaluate"])
@pytest.mark.parametrize("step", [4, 8])
def test_what_fails_after_a_checkpoint_is_done_again_by_the_next_run(tmp_path, hook, step):
    def failing(at, _):
        if at == step:
            raise OSError("no space left on device")
        return {}

    settings = replace(SETTINGS, evaluate_every=4)
    expected = list(train(small(), SmallBatches(), settings))
    with pytest.raises(OSError, match="no space"):
        list(train(small(), SmallBatches(), settings, run_in(tmp_path, settings), **{hook: failing}))
    run = Run.open(tmp_path)
    assert run.checkpoints()[-1].name == f"step_{step:08d}.safetensors"
    assert [record["step"] for record in run.records()] == list(range(2, step, 2))
    done = []
    rest = list(train(small(), SmallBatches(), settings, run, **{hook: lambda at, _: done.append(at) or {"found": at}}))
    assert done[0] == step and rest[0]["found"] == step
    records = [{key: value for key, value in record.items() if key != "found"} for record in run.records()]
    assert without_times(records) == without_times(expected)


def test_a_run_whose_last_step_was_measured_is_not_measured_again(tmp_path):
    list(train(small(), SmallBatches(), SETTINGS, run_in(tmp_path)))
    again = train(
        small(), SmallBatches(), SETTINGS, run_in(tmp_path), evaluate=lambda *_: pytest.fail("measured again")
    )
    assert list(again) == []


def test_a_signal_in_a_hook_leaves_the_checkpoint_of_its_step(tmp_path):
    def signalled(at, _):
        if at == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return {"sampled": at}

    with pytest.raises(Stopped), stoppable():
        list(train(small(), SmallBatches(), SETTINGS, run_in(tmp_path), sample=signalled))
    run = Run.open(tmp_path)
    assert run.checkpoints()[-1].name == "step_00000004.safetensors"
    rest = list(train(small(), SmallBatches(), SETTINGS, run, sample=lambda at, _: {"sampled": at}))
    assert [(record["step"], record.get("sampled")) for record in rest] == [(4, 4), (6, None), (8, 8)]
    assert torch.isfinite(torch.tensor([record["generator/fake"] for record in rest])).all()

"""What ends a run in the middle loses nothing that a checkpoint was due for: signals, and hooks that fail."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from test_loop import SETTINGS, equal, run_in, without_times
from tiny import SmallBatches, small

from t2ilib.training import Run, checkpoints, loop, train
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


def test_those_signals_are_heard_that_end_a_process():
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} == set(SIGNALS)


def test_a_signal_that_is_ignored_stays_ignored():
    """As SIGHUP does under nohup: the run shall outlive the terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable(), undivided() as waiting:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not waiting
    finally:
        signal.signal(signal.SIGHUP, before)


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


@pytest.mark.parametrize("step", [2, 4])  # a checkpoint is due at 4 alone
def test_a_signal_in_a_hook_leaves_the_checkpoint_of_its_step(tmp_path, step):
    def signalled(at, _):
        if at == step:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on drawing")
        return {"sampled": at}

    settings = replace(SETTINGS, sample_every=2)
    with pytest.raises(Stopped), stoppable():
        list(train(small(), SmallBatches(), settings, run_in(tmp_path, settings), sample=signalled))
    run = Run.open(tmp_path)
    assert run.checkpoints()[-1].name == f"step_{step:08d}.safetensors"
    rest = list(train(small(), SmallBatches(), settings, run, sample=lambda at, _: {"sampled": at}))
    assert [(record["step"], record.get("sampled")) for record in rest] == [(s, s) for s in range(step, 9, 2)]
    assert torch.isfinite(torch.tensor([record["generator/fake"] for record in rest])).all()


def test_a_signal_while_a_record_is_shown_ends_after_the_next_step(tmp_path):
    whole, shown = small(), []
    list(train(whole, SmallBatches(), SETTINGS))
    with pytest.raises(Stopped), stoppable():
        for record in train(small(), SmallBatches(), SETTINGS, run_in(tmp_path)):
            shown.append(record["step"])
            os.kill(os.getpid(), signal.SIGTERM)
    assert shown == [2] and Run.open(tmp_path).checkpoints()[-1].name == "step_00000003.safetensors"
    resumed = small()
    list(train(resumed, SmallBatches(), SETTINGS, Run.open(tmp_path)))
    assert equal(whole, resumed)


def test_processes_agree_at_the_same_steps_however_late_a_signal_reaches_one(monkeypatch):
    """All of them ask after every tenth step and before a record, so that none waits for one that has ended."""
    asked = []
    monkeypatch.setattr(loop, "gather", lambda known: asked.append(int(known)) or torch.cat([known, known + 15]))
    trainer = loop.Trainer(small(), SETTINGS)
    trainer.process = type("Two", (), {"num_processes": 2})
    signals = [signal.SIGINT]
    answers = [trainer.agree(signals, number, last=number == 23) for number in range(24)]
    assert [number for number, answer in enumerate(answers) if answer] == [9, 19, 23] and asked == [2, 17, 32]
    assert loop.ASKED_EVERY == 10


@pytest.mark.parametrize("when", ["loading", "training"])
def test_a_real_training_ends_in_order(tmp_path, when):
    """`t2i train` in a process of its own: one line, the signal's status, and a checkpoint where a step was taken."""
    options = ["--set", "data.options={train: 64, validation: 8, test: 8}", "--set", "training.log_every=1"]
    options += ["--set", "model.ngf=4", "--set", "model.ndf=4", "--set", "model.batch_size=4", "--steps", "100000"]
    command = [sys.executable, "-m", "t2ilib.cli", "train", "gancls", "--folder", str(tmp_path / "run"), *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "loading pictures and encoders" in child.stdout.readline()
    records = tmp_path / "run" / "records.jsonl"
    while when == "training" and not (records.is_file() and records.stat().st_size):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=60)[1].replace("\r", "\n").strip().split("\n")
    assert child.returncode == 128 + signal.SIGTERM and said[-1].startswith("stopped by SIGTERM; "), said
    if when == "training":
        newest = Run.open(tmp_path / "run").checkpoints()[-1]
        assert newest.name >= "step_00000001.safetensors" and "Traceback" not in "".join(said)


def test_a_signal_while_a_checkpoint_is_read_is_no_damage_of_it(tmp_path, monkeypatch, caplog):
    """Inside safetensors it would become an error of the file, and the run go on from the one before."""
    list(train(small(), SmallBatches(), SETTINGS, run_in(tmp_path)))
    opened = checkpoints.safe_open

    def signalled(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return opened(*arguments, **options)

    monkeypatch.setattr(checkpoints, "safe_open", signalled)
    for read in (lambda: Run.open(tmp_path).newest_whole(), lambda: Run.open(tmp_path).check_recipe()):
        with pytest.raises(Stopped), stoppable():
            read()
    assert not caplog.messages


def test_what_compiled_code_makes_of_a_signal_is_the_signal():
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise ValueError("not a whole file; remove it") from None
    with pytest.raises(ValueError, match="no room"), stoppable(), undivided():
        os.kill(os.getpid(), signal.SIGTERM)  # held: what the step then says is its own
        raise ValueError("no room")


def test_no_handler_of_errors_takes_a_signal_for_one():
    assert not issubclass(Stopped, Exception)


def test_a_signal_inside_two_blocks_waits_for_the_outer_one():
    with pytest.raises(Stopped), stoppable(), undivided() as outer:
        with undivided("reading"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer == [signal.SIGTERM]

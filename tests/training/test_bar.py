"""The bar shows what goes on and leaves errors a line of their own; TensorBoard's files may fail."""

import os
import signal
import sys

import pytest

from t2ilib.errors import InputError
from t2ilib.training.bar import progress, telling
from t2ilib.training.sinks import tensorboard
from t2ilib.training.stopping import Stopped, stoppable, undivided


def records(count=3, fail=None):
    for step in range(1, count + 1):
        if step == fail:
            with telling("evaluating"):
                raise InputError("birds.zip: gone")
        yield {"step": step, "images": step, "images_per_second": 12.345, "generator/fake": 0.5, "metric/x": 1.0}


def test_the_bar_shows_speed_terms_and_what_is_done_meanwhile(capsys):
    for _ in progress(records(), 3, "text encoder"):
        with telling("evaluating"):
            assert "text encoder: evaluating ..." in capsys.readouterr().err
    shown = capsys.readouterr().err
    assert "pictures/s=12.3" in shown and "generator/fake=0.5" in shown and "metric" not in shown
    assert "evaluating" not in shown.split("\r")[-1] and "3/3" in shown


def test_an_error_stands_on_a_line_of_its_own(capsys):
    with pytest.raises(InputError):
        list(progress(records(fail=2), 3))
    print("error: birds.zip: gone", file=sys.stderr)
    assert capsys.readouterr().err.endswith("\nerror: birds.zip: gone\n")


def test_what_a_signal_says_stands_on_a_line_of_its_own(capsys):
    with pytest.raises(Stopped), stoppable():
        for _ in progress(records(), 3):
            with undivided():
                os.kill(os.getpid(), signal.SIGTERM)
    assert "finishing this step" in capsys.readouterr().err.replace("\r", "\n")
    with telling("writing"):  # no bar is left behind
        assert capsys.readouterr().err == ""


def test_bad_input_has_no_bar_above_it(capsys):
    with pytest.raises(InputError):
        list(progress(records(fail=1), 3))
    assert capsys.readouterr().err == ""


def test_tensorboard_names_its_folder_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/tensorboard: cannot be written .*checkpoints are safe"):
        list(tensorboard(records(), tmp_path / "file" / "tensorboard"))
    assert len(list(tensorboard(records(), tmp_path / "tensorboard"))) == 3
    with pytest.raises(InputError, match=r"birds\.zip: gone"):
        list(tensorboard(records(fail=2), tmp_path / "tensorboard"))

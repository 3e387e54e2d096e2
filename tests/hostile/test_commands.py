"""Words on the command line: every command with what it should refuse."""

import pytest

COMMANDS = ("data", "train", "resume", "sample", "evaluate", "export", "course", "figures")
NUMBERS = ("", "x", "1e3", "0x10", "nan", "inf", "-1", "9" * 400, "1;2", "٣")  # none is a natural number
PATHS = ("", "nowhere", "/dev/null/x", "a\nb", "\x1b[31mred", "ä" * 300, "../" * 40 + "etc/nothing", "/proc/self/mem")
PATHS += ("~nobody_here/x", "\udcff")


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options(ask, command):
    ask(command, "--no-such-option", kind="command line")


@pytest.mark.parametrize("number", [number for number in NUMBERS if number != "1e3"])
@pytest.mark.parametrize(
    "option", [("train", "gancls", "--steps"), ("data", "toy", "--size"), ("train", "wgan", "--processes")]
)
def test_numbers_that_are_none(ask, option, number):
    ask(*option, number, kind="command line")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "command",
    [
        ("data",),
        ("train", "gancls", "--data"),
        ("train", "gancls", "--recipe"),
        ("resume",),
        ("sample",),
        ("evaluate",),
        ("sample", "gancls_toy", "--file"),
        ("figures",),
    ],
    ids=" ".join,
)
def test_paths_that_lead_nowhere(ask, command, path):
    answer = ask(*command, path, kind="paths")
    assert "\x1b" not in answer.err + answer.out  # shown, not sent


@pytest.mark.parametrize("task", ["stylegan", "", "GANCLS", "gancls_toy", "../gancls", "a" * 5000])
def test_tasks_that_are_none(ask, task):
    ask("train", task, kind="command line")

"""What the record of hostile inputs says of a process's memory: all of its own, and that alone."""

from .forked import GIB


def test_what_a_process_does_not_touch_is_not_taken_off_its_memory(forked, tmp_path):
    answer = forked.ask("--help", folder=tmp_path)
    assert answer.status == 0, answer.err
    assert 0 < answer.memory < 0.25 * GIB

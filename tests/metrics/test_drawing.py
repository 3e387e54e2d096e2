"""Batches that are made ahead: the same ones in the same order, an error where it belongs, no thread left behind."""

import threading
import time

import pytest
import torch

from t2ilib.errors import InputError
from t2ilib.metrics.drawing import ahead, overlapped


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_they_come_in_their_order_and_few_are_made_ahead():
    made = []

    def batches():
        for number in range(20):
            made.append(number)
            yield number

    for place, number in enumerate(ahead(batches())):
        time.sleep(0.002)
        assert number == place and len(made) <= place + 3
    assert made == list(range(20)) and list(ahead([])) == []


def test_the_next_is_made_while_one_is_looked_at():
    begun = threading.Event()

    def batches():
        yield 0
        begun.set()
        yield 1

    found = ahead(batches())
    assert next(found) == 0 and begun.wait(20) and next(found) == 1


def test_an_error_comes_after_what_was_made_before_it():
    def batches():
        yield 0
        raise InputError("a damaged picture")

    found = ahead(batches())
    assert next(found) == 0
    with pytest.raises(InputError, match="a damaged picture"):
        next(found)


def test_who_stops_early_leaves_no_thread():
    found = ahead(iter(range(10**9)))
    assert next(found) == 0
    found.close()
    end = time.monotonic() + 20
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not threads()


@pytest.mark.parametrize(("device", "count", "expected"), [("cpu", 1, True), ("cpu", 2, False), ("meta", 2, True)])
def test_it_is_done_where_it_is_faster(monkeypatch, device, count, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    batches = [1, 2]
    found = overlapped(batches, torch.device(device))
    assert (found is not batches) == expected and list(found) == batches

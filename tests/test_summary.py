import pytest
import torch
from torch import nn

from t2ilib import summary


def test_stages_print_shapes_and_weights_in_order_and_leave_no_hook(capsys):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    summary.stages((network[2], network[0]), lambda: network(torch.zeros(2, 3, 8, 8)), within=nn.Conv2d)
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["Conv2d", "(2,", "4,", "8,", "8)", "112", "weights,", "112", "in", "Conv2d"]
    assert second.split()[1:6] == ["(2,", "2,", "8,", "8)", "10"]
    network(torch.zeros(2, 3, 8, 8))
    assert capsys.readouterr().out == ""


def test_hooks_go_when_the_call_fails():
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        summary.stages([layer], lambda: layer(torch.zeros(3)))
    assert not layer._forward_hooks


def test_hooks_go_when_a_block_is_none():
    layer = nn.Linear(2, 2)
    with pytest.raises(AttributeError):
        summary.stages([layer, "no block"], lambda: None)
    assert not layer._forward_hooks


def test_a_block_may_put_out_several_things(capsys):
    layer = nn.LSTM(3, 4)
    summary.stages([layer], lambda: layer(torch.zeros(5, 1, 3)))
    assert capsys.readouterr().out.startswith("LSTM             (5, 1, 4), (1, 1, 4), (1, 1, 4) ")


def test_all_weights_stand_before_those_of_a_class(capsys):
    block = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    summary.stages([block], lambda: block(torch.zeros(2, 3)), within=nn.Linear)
    assert capsys.readouterr().out.split()[3:] == ["24", "weights,", "16", "in", "Linear"]


def test_weights_of_nested_and_shared_parts_count_once():
    shared = nn.Linear(3, 4)
    assert summary.weights(nn.Sequential(nn.Sequential(shared), shared), nn.Sequential) == 16


def test_weights_of_a_class():
    block = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 1, bias=False), nn.BatchNorm1d(1)))
    assert summary.weights(block) == 16 + 4 + 2 and summary.weights(block, nn.Linear) == 20

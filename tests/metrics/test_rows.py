import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2ilib.errors import InputError
from t2ilib.metrics.rows import Rows, lot

VALUES = torch.arange(60.0).reshape(30, 2)


def shown(order, most=None, batch=4, seed=0) -> Rows:
    rows = Rows(most, seed)
    for part in torch.as_tensor(order).split(batch):
        rows.add(VALUES[part], part)
    return rows


@given(st.permutations(range(30)), st.integers(1, 9), st.sampled_from([None, 1, 5, 29, 30, 40]))
def test_neither_order_nor_batches_change_what_stays(order, batch, most):
    expected = shown(range(30), most, 30).ordered()
    assert torch.equal(shown(order, most, batch).ordered(), expected)
    assert len(expected) == min(most or 30, 30)


@given(st.permutations(range(30)), st.integers(0, 30), st.sampled_from([None, 3, 20]))
def test_two_processes_keep_what_one_keeps(order, cut, most):
    first = shown(order[:cut], most) if cut else Rows(most)
    second = shown(order[cut:], most) if cut < 30 else Rows(most)
    first.join(second.state())
    assert torch.equal(first.ordered(), shown(range(30), most).ordered())
    assert first.count == 30


def test_the_seed_chooses():
    chosen = [shown(range(30), 5, seed=seed).ordered() for seed in range(8)]
    assert len({tuple(rows.flatten().tolist()) for rows in chosen}) == 8
    often = torch.cat([shown(range(30), 5, seed=seed).ordered()[:, 0] for seed in range(200)])
    counts = torch.bincount((often / 2).long(), minlength=30)
    assert counts.min() > 15 and counts.max() < 60  # 33 each, give or take


def test_lots_differ():
    assert len({lot(seed, place) for seed in range(10) for place in range(100)}) == 1000


def test_few_rows_lie_in_memory():
    rows = Rows(10)
    for place in range(1000):
        rows.add(torch.rand(1, 3), torch.tensor([place]))
        assert sum(map(len, rows._places)) <= 20
    assert len(rows.state()["rows"]) == 10 and rows.count == 1000


def test_a_place_that_comes_twice_is_named():
    rows = shown(range(30))
    rows.add(VALUES[:1], torch.tensor([17]))
    with pytest.raises(InputError, match="positions: 17 came twice"):
        rows.ordered()


def test_no_rows_are_named():
    with pytest.raises(InputError, match="none were shown"):
        Rows().ordered()


def test_rows_that_were_kept_by_other_places_are_not_joined():
    """A process that counted its own pictures drew lots for places that others have, too."""
    first, second = shown(range(20), 5), shown(range(10), 5)
    with pytest.raises(InputError, match="of 10 pictures a process kept 5 by places of its own"):
        first.join(second.state(), shift=20)

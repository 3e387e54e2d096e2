"""What every metric owes: the same number whatever the batches, and however the pictures were dealt out."""

from collections.abc import Callable

import pytest
import torch
from small import extractor, fill, pictures, reference
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.fid import Fid
from t2ilib.metrics.inception_score import InceptionScore
from t2ilib.metrics.kid import Kid
from t2ilib.metrics.lpips import Lpips
from t2ilib.metrics.precision_recall import Precision, Recall
from t2ilib.metrics.ssim import Ssim
from t2ilib.metrics.topiq import Topiq

COUNT, SIDE = 130, 32
SHOWN, REAL = pictures(COUNT, side=SIDE), pictures(COUNT, seed=1, side=SIDE)


def distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().mean(dim=(1, 2, 3), keepdim=True)


METRICS: dict[str, Callable] = {
    "fid": lambda: Fid(extractor(), reference(REAL)),
    "kid": lambda: Kid(extractor(), reference(REAL), 30, 8),
    "kid of few": lambda: Kid(extractor(), reference(REAL), 30, 8, most=50),
    "inception score": lambda: InceptionScore(extractor()),
    "precision": lambda: Precision(extractor(), reference(REAL)),
    "recall": lambda: Recall(extractor(), reference(REAL), most=40),
    "lpips": lambda: Lpips(network=distance),
    "ssim": Ssim,
    "topiq": lambda: Topiq(lambda images: images.std(dim=(1, 2, 3))),
}
COUNTED = METRICS.keys() - {"kid of few", "recall"}  # which rows stay is decided by places: these must be given


@pytest.fixture(params=METRICS, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def whole(name):
    return fill(METRICS[name](), SHOWN, COUNT, REAL).compute()


def same(found, expected) -> bool:
    intervals = [one.interval for one in (found, expected)]
    if None in intervals:
        assert intervals == [None, None]
    else:
        assert intervals[0] == pytest.approx(intervals[1], rel=1e-7, abs=1e-9)
    assert found.value == pytest.approx(expected.value, rel=1e-7, abs=1e-9)
    close = {key: value for key, value in expected.details.items() if isinstance(value, float)}
    assert {key: found.details[key] for key in close} == pytest.approx(close, rel=1e-6, abs=1e-9)
    assert {**found.details, **close} == expected.details
    return found.n == expected.n == COUNT


@pytest.mark.parametrize("batch", [1, 16, 64])
def test_the_batch_size_changes_nothing(name, whole, batch):
    assert same(fill(METRICS[name](), SHOWN, batch, REAL).compute(), whole)


@pytest.mark.parametrize("name", sorted(COUNTED), scope="module")
def test_processes_that_each_take_a_stretch_are_the_whole(name, whole):
    first, *others = (METRICS[name]() for _ in range(3))
    for metric, part in zip((first, *others), torch.arange(COUNT).tensor_split(3), strict=True):
        fill(metric, SHOWN[part], 7, REAL[part])
    first.merge([other.state() for other in others])
    assert same(first.compute(), whole)


def test_processes_that_take_turns_are_the_whole_where_places_are_given(name, whole):
    """In any order, one of them without a picture; what travels is a tensor on the CPU."""
    dealt = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).tensor_split(3)
    metrics = [fill(METRICS[name](), SHOWN[part], 7, REAL[part], part) for part in dealt]
    states = [metric.state() for metric in (*metrics[:2], METRICS[name]())]
    assert all(isinstance(value, Tensor) and value.device.type == "cpu" for state in states for value in state.values())
    metrics[2].merge(states)
    assert same(metrics[2].compute(), whole)


def test_computing_and_travelling_change_nothing(name, whole):
    metric = METRICS[name]()
    fill(metric, SHOWN[:60], 7, REAL[:60])
    metric.state()
    metric.compute()
    assert same(fill(metric, SHOWN[60:], 7, REAL[60:]).compute(), whole)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (SHOWN[:2, :1], "greyscale"),
        (SHOWN[:2] * 2, "give them in"),
        (SHOWN[:2] * torch.nan, "NaN"),
        (SHOWN[:2, :, :16, :16], "16 x 16 pixels after 32 x 32"),
    ],
)
def test_what_cannot_be_measured_is_named_and_changes_nothing(name, whole, bad, message):
    metric = fill(METRICS[name](), SHOWN, 64, REAL)
    with pytest.raises(InputError, match=message):
        metric.update(bad, bad)
    assert same(metric.compute(), whole)


def test_nothing_has_no_number(name):
    with pytest.raises(InputError, match="pictures: "):
        METRICS[name]().compute()


def test_details_are_plain_json(name, whole):
    import json

    assert json.loads(json.dumps(whole.details)) == whole.details


def test_one_picture_twice_is_named():
    metric = fill(Topiq(lambda images: images.std(dim=(1, 2, 3))), SHOWN[:9], 3, positions=range(9))
    with pytest.raises(InputError, match="positions: 0 came twice"):
        metric.merge([metric.state()])

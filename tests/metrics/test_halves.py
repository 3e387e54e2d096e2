"""Halves of real pictures: one is kept in the folder that is asked for, the other is seen whole, batch by batch."""

from dataclasses import replace

import numpy as np
import pytest
from small import SIZE, Custom, extractor, fill, network, pictures

from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import CPU_BATCH
from t2ilib.metrics.drawing import halves
from t2ilib.metrics.halves import first_half, second_half
from t2ilib.metrics.protocols import METRICS, PROTOCOLS
from t2ilib.metrics.references import dataset_reference
from t2ilib.pictures import to_float, to_uint8

COUNT = 5 * CPU_BATCH + 10  # pictures: two batches and a half in each half
PROTOCOL = replace(PROTOCOLS["toy"], metrics=("fid", "kid"), augmentation=None)


@pytest.fixture(scope="module")
def photographs():
    zeros, splits = np.zeros(COUNT, np.int64), np.array(["test"] * COUNT)
    return CaptionedImages(to_uint8(pictures(COUNT)), [["x"]] * COUNT, zeros, splits, ["x"])


def test_the_second_half_is_kept_in_the_folder_that_is_asked_for(photographs, tmp_path):
    found = second_half(photographs, extractor(), PROTOCOL, 3, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("small-")
    expected = dataset_reference(photographs.subset(halves(COUNT, 3)[1]), extractor(), folder=None)
    assert found.count == COUNT // 2 and np.array_equal(found.mean, expected.mean)


def test_the_first_half_is_seen_whole_in_small_batches(photographs):
    looks = []
    eye = Custom(lambda seen: looks.append(len(seen)) or network(seen), SIZE, "small")
    reference = second_half(photographs, extractor(), PROTOCOL, 3, None)
    found = first_half(photographs, eye, reference, ["fid", "kid"], 3).numbers()
    assert sum(looks) == 2 * (COUNT // 2) and max(looks) == CPU_BATCH < COUNT // 4
    shown = to_float(photographs.images[halves(COUNT, 3)[0]])
    for name in ("fid", "kid"):
        whole = fill(METRICS[name](extractor(), reference, len(shown)), shown, batch=len(shown)).compute()
        assert found[name]["n"] == COUNT // 2 and found[name]["mean"] == pytest.approx(whole.value, rel=1e-6)
        assert found[name]["interval"] == pytest.approx(whole.interval, rel=1e-6)

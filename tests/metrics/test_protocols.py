"""Protocols as data: each can be measured by, names what it departs from, and odd ones are refused."""

from dataclasses import replace

import pytest

from t2ilib.data.importers.folder import SPLITS
from t2ilib.errors import InputError
from t2ilib.metrics.drawing import EvaluationSettings
from t2ilib.metrics.protocols import ANY, COMPARED, EXTRACTORS, METRICS, PROTOCOLS, find_protocol
from t2ilib.metrics.references import Augmentation

TEST_PICTURES = {"toy": 1000, "data/birds": 2933, "data/flowers": 1155, "data/faces": 6000, "data/coco": 40_504}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_can_be_drawn(name):
    protocol = find_protocol(name)
    count = protocol.count(TEST_PICTURES[protocol.source])
    EvaluationSettings(count, protocol.seed, truncation=protocol.truncation)
    assert count >= 1000 and set(protocol.metrics) <= set(METRICS) and protocol.extractor in EXTRACTORS
    assert {protocol.captions, protocol.reference} <= {*SPLITS, ANY} and protocol.about.endswith(".")
    assert protocol.size >= protocol.side and set(METRICS) >= COMPARED


def test_the_numbers_are_those_of_the_literature():
    pictures = TEST_PICTURES["data/birds"]
    assert find_protocol("cub_dfgan_30k").count(pictures) == find_protocol("cub_plain").count(pictures) == 29_330
    assert find_protocol("cub_dfgan_30k").augmentation == Augmentation(count=30_000)
    assert find_protocol("cub_dfgan_30k").truncation == 0.88 and find_protocol("cub_plain").truncation is None
    assert find_protocol("coco_30k").count(40_504) == 30_000 and find_protocol("faces_6k").count(6000) == 6000
    galip = find_protocol("galip_coco")
    assert (galip.count(40_504), galip.side, galip.truncation, galip.augmentation) == (30_000, 256, None, None)
    assert {name for name, one in PROTOCOLS.items() if one.view == "released"} == {"galip_birds", "galip_coco"}
    assert {find_protocol(name).extractor for name in ("cub_plain", "cub_clean")} == set(EXTRACTORS[2:])


def test_a_frechet_distance_has_more_pictures_than_features():
    """Of Inception's 2,048; flowers have 1,155 test pictures, too few unless they are augmented."""
    for name, protocol in PROTOCOLS.items():
        if "fid" in protocol.metrics and protocol.reference == "test":
            found = protocol.augmentation.count if protocol.augmentation else TEST_PICTURES[protocol.source]
            assert found > 2048, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("fid", "beauty")}, "protocol.metrics: beauty; there are fid"),
        ({"extractor": "vgg"}, "protocol.extractor = vgg: must be one of judge"),
        ({"n": 10, "passes": 1}, "n = 10, passes = 1; give one of them"),
        ({"n": 0}, "n = 0, passes = 0; give one of them"),
        ({"truncation": -1.0}, "protocol.truncation = -1.0"),
        ({"view": "squeezed"}, "protocol.view = squeezed: must be one of correct, released"),
        ({"side": 0}, "protocol.side = 0"),
    ],
)
def test_odd_protocols_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(PROTOCOLS["toy"], **changes)


def test_an_unknown_name_is_answered_with_all():
    with pytest.raises(InputError, match=r"fid50k: no such protocol; there are toy, toy_held_out, cub_dfgan_30k"):
        find_protocol("fid50k")

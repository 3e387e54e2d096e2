"""Metrics that look on: each sees every picture once, with its place and its real picture; several processes agree."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from test_evaluate import SETTINGS, ColourEncoder, dataset, faithful

from t2ilib.errors import InputError
from t2ilib.metrics.drawing import Team, choose_captions
from t2ilib.metrics.evaluate import evaluate
from t2ilib.metrics.fid import Fid
from t2ilib.metrics.inception_score import InceptionScore
from t2ilib.metrics.measured import Measured
from t2ilib.metrics.ssim import Ssim
from t2ilib.metrics.watching import Watch
from t2ilib.pictures import resized, to_float

__all__ = ["dataset"]  # a fixture


class Spy:
    """Remembers what it was shown."""

    paired = False

    def __init__(self):
        self.pictures, self.real, self.places = [], [], []

    def update(self, pictures, real=None, positions=None):
        self.pictures.append(pictures.cpu())
        self.real.append(real)
        self.places += list(positions)

    def compute(self):
        return Measured(float(len(self.places)), (1.0, 2.0), len(self.places), {"extractor": "eyes"})

    def merge(self, others):
        assert list(others) == []


class Pairs(Spy):
    paired = True


class Against(Spy):
    reference = "some"


def test_each_picture_is_seen_once_with_its_place_and_its_real_one(dataset):
    made = []

    def more():
        made.append({"plain": Spy(), "pairs": Pairs(), "distance": Against()})
        return made[-1]

    painter = faithful()
    found = evaluate(painter, dataset, ColourEncoder(), settings=SETTINGS, more=more)
    ours, real = made
    rows, _ = choose_captions(dataset, SETTINGS)
    painted = torch.cat(painter.pictures[:3])
    for spy in ours.values():
        assert spy.places == list(range(40)) and torch.equal(torch.cat(spy.pictures), painted.clamp(-1, 1))
    assert (
        torch.equal(torch.cat(ours["pairs"].real), to_float(dataset.images[rows])) and ours["plain"].real == [None] * 3
    )
    assert torch.equal(torch.cat(real["plain"].pictures), to_float(dataset.images[rows]))
    assert real["pairs"].places == real["distance"].places == []  # of photographs there are no others
    assert found["metrics"]["plain"] == {"mean": 40.0, "n": 40, "interval": [1.0, 2.0]}
    assert found["metrics"]["real"]["plain"]["n"] == 40 and "pairs" not in found["metrics"]["real"]
    assert found["protocol"]["measures"] == {name: {"extractor": "eyes"} for name in ours}


def test_pairs_are_compared_at_the_size_of_the_real_one():
    fakes, real = small.pictures(4, side=24), small.pictures(4, 1, side=12)
    watch = Watch({"pairs": Pairs(), "plain": Spy()})
    (same,) = watch.beside([fakes], [np.arange(4)], [real])
    assert same is fakes and watch.metrics["plain"].pictures[0] is fakes
    assert torch.equal(watch.metrics["pairs"].pictures[0], resized(fakes, 12).clamp(-1, 1))


def test_whoever_cannot_be_computed_is_named():
    watch = Watch({"score": InceptionScore(small.extractor())})
    list(watch.beside([small.pictures(3)], [np.arange(3)], [small.pictures(3)]))
    with pytest.raises(InputError, match="score: pictures: 3 are too few for 10 splits"):
        watch.numbers()


def test_shares_are_put_together_in_their_order(monkeypatch):
    parts = list(range(7))
    shares = [Team(rank, 3).share(parts) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]] and Team().share(parts) == parts

    def gather(lists, own):
        lists[:] = shares

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    assert Team(1, 3).gathered(shares[1]) == parts and Team().gathered([4]) == [4] and Team().collected(4) == [4]


def measured_together(team):
    """Return what a team measures of a small data set."""
    real = small.pictures(48, 3, side=32)
    images = ((real + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    colours = dataset.__wrapped__() if hasattr(dataset, "__wrapped__") else None
    held = type(colours)(images, colours.captions, colours.class_ids, colours.splits, colours.class_names)
    reference = small.reference(real)

    def more():
        extractor = small.extractor()
        return {"fid": Fid(extractor, reference, 3), "score": InceptionScore(extractor, 4), "ssim": Ssim()}

    return evaluate(faithful(), held, ColourEncoder(), settings=SETTINGS, more=more, team=team)["metrics"]


SCRIPT = """
import json, sys
from test_watching import measured_together
from t2ilib.metrics.drawing import Team
team = Team.here()
assert team.size == 2
found = measured_together(team)
if team.rank == 0:
    print("FOUND", json.dumps(found))
else:
    assert "fid" not in found and found["clip_score"] > 0
"""


def test_two_processes_find_what_one_does():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = str(Path(__file__).parent)
    shared = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    shared["PYTHONPATH"] = os.pathsep.join([here, str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [child.communicate(timeout=240) for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    found = json.loads(next(line for line in told[0][0].splitlines() if line.startswith("FOUND "))[6:])
    _alike(found, json.loads(json.dumps(measured_together(Team()))))


def _alike(found, expected, where=""):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            _alike(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            _alike(one, other, where)
    else:
        assert found == expected or abs(found - expected) <= 1e-6 * max(1, abs(expected)), (where, found, expected)


def test_real_pictures_that_come_back_are_seen_once():
    shown, spy = small.pictures(12), Spy()
    watch = Watch({"spy": spy})
    places = [np.arange(0, 5), np.arange(5, 10), np.arange(10, 12)]
    batches = [shown[part] for part in places]
    assert list(watch.alone(batches, places, most=7)) == batches
    assert spy.places == list(range(7)) and torch.equal(torch.cat(spy.pictures), shown[:7])


def test_a_resize_before_a_comparison_is_told():
    watch = Watch({"pairs": Pairs(), "plain": Spy()})
    list(watch.beside([small.pictures(4, side=24)], [np.arange(4)], [small.pictures(4, 1, side=12)]))
    assert watch.details()["pairs"]["resize"] == "24 to 12 px, bicubic, antialiased"
    assert "resize" not in watch.details()["plain"]

"""The teacher of a CLIP loss and its judges look at the same pictures."""

import pytest
import torch

from t2ilib import encoders, models
from t2ilib.data import toy
from t2ilib.errors import InputError
from t2ilib.metrics import referees as metrics_of_referees
from t2ilib.metrics.attributes import attribute_accuracy
from t2ilib.metrics.judge import load_judge
from t2ilib.metrics.r_precision import clip_score
from t2ilib.metrics.referees import Referees, drawn
from t2ilib.pictures import to_float


@pytest.fixture(scope="module")
def referees():
    clips = {"teacher": encoders.load_encoder("toy-clip"), "judge": encoders.load_encoder("toy-clip-resnet")}
    return Referees(clips, load_judge())


@pytest.fixture(scope="module")
def birds():
    rows = toy.sample_attributes(8, seed=5)
    return to_float(toy.render(rows, range(8), 64)), [toy.caption(row, number) for number, row in enumerate(rows)]


def test_each_role_gives_its_own_clip_score_and_the_judge_the_attributes(referees, birds):
    pictures, captions = birds
    found = referees.look(pictures, captions)
    assert list(found) == ["teacher", "judge", "attributes"]
    for role, clip in referees.clips.items():
        images, texts = clip.encode_images(pictures).numpy(), clip.encode(captions).sentence.numpy()
        assert found[role] == pytest.approx(clip_score(images, texts), abs=1e-3)
    assert found["attributes"] == attribute_accuracy(referees.judge, pictures, captions)["mentioned"] > 0.9


def test_real_birds_fit_their_own_captions_better_than_others(referees, birds):
    pictures, captions = birds
    own, other = referees.look(pictures, captions), referees.look(pictures, captions[1:] + captions[:1])
    assert all(own[name] > other[name] for name in own)


def test_a_probe_looks_at_what_the_system_draws_with_the_noise_of_its_seed(referees, birds):
    captions, reader = birds[1], referees.clips["teacher"]
    torch.manual_seed(0)
    system = models.build("dfgan", {"text": reader}, image_size=32, nf=2).eval()
    pictures = drawn(system, captions, reader, seed=3)
    assert pictures.shape == (8, 3, 32, 32)
    assert torch.equal(pictures, drawn(system, captions, reader, seed=3))
    assert not torch.equal(pictures, drawn(system, captions, reader, seed=4))
    assert referees.probe(captions, reader, seed=3)(0, system) == referees.look(pictures, captions)
    other = referees.look(drawn(system, captions, reader, seed=4), captions)
    assert referees.probe(captions, reader, seed=4)(0, system) == other != referees.look(pictures, captions)


def test_pictures_of_all_batches_are_looked_at(referees, birds, monkeypatch):
    whole = referees.look(*birds)
    monkeypatch.setattr(metrics_of_referees, "CPU_BATCH", 3)
    assert referees.look(*birds) == pytest.approx(whole, abs=1e-3)


def test_a_role_may_not_hide_the_judge_nor_pictures_be_bytes(referees, birds):
    with pytest.raises(InputError, match="the role attributes is the judge's"):
        Referees({"attributes": referees.clips["judge"]}, referees.judge)
    with pytest.raises(InputError, match=r"pictures: are uint8; give floating-point ones in \[-1, 1\]"):
        referees.look(torch.zeros(8, 3, 64, 64, dtype=torch.uint8), birds[1])

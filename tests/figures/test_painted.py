"""Ways between captions and noises begin and end with the pictures of their ends; looks at GALIP leave it as it was."""

import numpy as np
import pytest
import torch

from t2ilib import plots, tables
from t2ilib.figures import measured, painted, saved
from t2ilib.metrics.attributes import attribute_accuracy
from t2ilib.metrics.judge import load_judge
from t2ilib.sampling import load_sampler


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Return the pictures (N, H, W, 3) and the rows of the CSV of a sheet that is drawn into an empty folder."""
    pictures = []
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(saved, "build_commit", lambda: "0" * 40)
    drawn = plots.grid

    def grid(images, *more, **options):
        pictures.append(images)
        return drawn(images, *more, **options)

    monkeypatch.setattr(plots, "grid", grid)

    def draw(figure, weights):
        figure(weights, "a")
        return pictures[-1].astype(int), plots.read_rows(tmp_path / "a.csv")

    return draw


@pytest.mark.parametrize("weights", ["gancls_toy", "galip_toy"])
def test_a_way_between_captions_begins_and_ends_with_their_pictures(shown, weights):
    pictures, rows = shown(painted.text_ways, weights)
    sampler = load_sampler(weights, "cpu")
    first, last = rows[8]["caption"].split(" to ")
    noise = sampler.noise(4, torch.Generator().manual_seed(0))[1:2].expand(2, -1)
    ends = painted.stack(torch.cat(list(sampler.draw([first, last], noise)))).astype(int)
    assert np.abs(ends - pictures[[8, 15]]).max() <= 1
    assert [row["share"] for row in rows[8:16:7]] == ["0", "1"] and len(rows) == len(pictures) == 32
    assert np.abs(np.diff(pictures[8:16], axis=0)).mean() < np.abs(pictures[15] - pictures[8]).mean()


def test_a_way_between_noises_begins_and_ends_with_its_draws(shown):
    pictures, rows = shown(painted.noise_ways, "galip_toy")
    sampler = load_sampler("galip_toy", "cpu")
    noise = sampler.noise(8, torch.Generator().manual_seed(0))[2:4]
    ends = painted.stack(torch.cat(list(sampler.draw([rows[8]["caption"]] * 2, noise)))).astype(int)
    assert np.abs(ends - pictures[[8, 15]]).max() <= 1


def test_a_look_at_galip_counts_what_is_added_and_leaves_it_as_it_was():
    sampler = load_sampler("galip_toy", "cpu")
    bridge, captions = sampler.system.generator.bridge, painted.captions_of(3)
    text, noise = sampler.encoder.encode(captions), sampler.noise(3, torch.Generator().manual_seed(0))
    before, seen = sampler.generate(text, noise), {}
    hooks = [bridge.widen.register_forward_hook(lambda module, given, out: seen.update(map=out)),
             bridge.narrow.register_forward_hook(lambda module, given, out: seen.update(sum=given[0]))]  # fmt: skip
    pictures, ratio = measured._painted(sampler, text, noise, 0.3)
    for hook in hooks:
        hook.remove()
    added = (seen["sum"] - seen["map"]).flatten(1).norm(dim=1) / seen["map"].flatten(1).norm(dim=1)
    assert ratio == pytest.approx(added.numpy(), rel=1e-4) and (ratio > 0.3).all()
    assert bridge.share == 0.1 and torch.equal(sampler.generate(text, noise), before)
    assert not torch.allclose(pictures, before, atol=1e-2)
    same, own = measured._painted(sampler, text, noise, 0.1)
    assert torch.equal(same, before) and own == pytest.approx(ratio / 3, rel=1e-4)
    nothing = measured._painted(sampler, text, noise, 0.0)[1]
    assert (nothing == 0).all()


def test_a_look_that_fails_leaves_galip_as_it_was():
    sampler = load_sampler("galip_toy", "cpu")
    bridge = sampler.system.generator.bridge
    eye = bridge.eye
    with pytest.raises(ZeroDivisionError), measured.looked_at(sampler, 0.5):
        assert bridge.share == 0.5
        raise ZeroDivisionError
    assert bridge.share == 0.1 and bridge.eye is eye


def test_every_picture_of_a_measurement_has_its_own_noise_and_differences_are_paired(monkeypatch):
    monkeypatch.setattr(measured, "EACH", 2)
    judge, sampler = load_judge(), load_sampler("dfgan_toy", "cpu")
    captions = [painted.captions_of(1)[0]] * 2
    one, other = (measured._drawn(judge, sampler, captions, 2.0, cut) for cut in (None, 0.3))
    assert len(np.unique(one.features, axis=0)) == 4  # two of the same caption
    twice = measured._drawn(judge, sampler, captions, 1.0, None)
    assert twice.diversity == pytest.approx(2 * one.diversity) and one.diversity.mean() > other.diversity.mean()
    monkeypatch.setattr(measured, "frechet_distance", lambda own, real: float(len(own) + len(real)))
    monkeypatch.setattr(measured, "_drawn", lambda *how: other)
    found = measured._quality((judge,), 0.3, one, np.zeros((9, 3)))
    assert [mean for mean, _ in found[1::2]] == pytest.approx(
        [(other.attributes - one.attributes).mean(), (other.diversity - one.diversity).mean()]
    )
    assert found[4][0] == 13
    assert measured._quality((judge,), None, one, np.zeros((9, 3)))[1] == (0.0, [0.0, 0.0])


def test_the_effect_of_a_share_is_counted_against_the_trained_one():
    sampler, captions, judge = load_sampler("galip_toy", "cpu"), painted.captions_of(12), load_judge()
    asked = sampler, sampler.encoder.encode(captions), sampler.noise(12, torch.Generator().manual_seed(0))
    plain = sampler.generate(*asked[1:])
    moved, shares, apart = (mean for mean, _ in measured._effect(judge, (*asked, 0.0), plain, captions))
    pictures, _ = measured._painted(*asked, 0.0)
    assert moved == pytest.approx((pictures - plain).abs().mean().item() / 2, rel=1e-4) and moved > 0
    hits = [attribute_accuracy(judge, each, captions)["mentioned"] for each in (pictures, plain)]
    assert (shares, apart) == pytest.approx((hits[0], hits[0] - hits[1]))


def test_shares_of_attributes_are_those_of_the_metric():
    judge, captions = load_judge(), painted.captions_of(12)
    pictures = load_sampler("dfgan_clip_toy", "cpu").sample(captions, seed=0)
    shares = measured._mentioned(judge, judge.predict(pictures), captions)
    assert shares.mean() == pytest.approx(attribute_accuracy(judge, pictures, captions)["mentioned"])
    assert measured._found(np.zeros(3)) == (0.0, [0.0, 0.0])
    mean, (low, high) = measured._found(shares)
    assert low < mean < high

"""A linear probe reads what stands there in a line, and nothing else."""

import numpy as np
import pytest
import torch

from t2ilib.data import toy
from t2ilib.encoders.probing import probe
from t2ilib.errors import InputError


def points(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def test_what_is_linear_is_read_and_what_is_not_is_not():
    seen, new = points(600, 0), points(400, 1)
    line, product = (lambda x: (x[:, 0] + 3 * x[:, 1] > 0).long()), (lambda x: (x[:, 0] * x[:, 1] > 0).long())
    read = probe(seen, {"line": line(seen), "product": product(seen)}, new)
    assert (read["line"] == line(new)).float().mean() > 0.95
    assert (read["product"] == product(new)).float().mean() < 0.6


def test_it_equals_ridge_regression_in_its_usual_form(monkeypatch):
    monkeypatch.setattr("t2ilib.encoders.probing.STRENGTHS", (0.1,))
    seen, new = points(200, 2) * torch.arange(1, 7) + 5, points(50, 3) * torch.arange(1, 7) + 5
    labels = seen[:, :3].argmax(1)
    x, y = ((each - seen.mean(0)) / (seen.std(0) + 1e-6) for each in (seen, new))
    wanted = torch.nn.functional.one_hot(labels).float()
    ridge = 0.1 * x.square().sum(1).mean()
    weights = torch.linalg.inv(x.T @ x + ridge * torch.eye(6)) @ x.T @ (wanted - wanted.mean(0))
    assert torch.equal(probe(seen, {"largest": labels}, new)["largest"], (y @ weights + wanted.mean(0)).argmax(1))


def test_every_question_takes_the_ridge_that_serves_it():
    """A second question, whose labels are partly wrong and want another ridge, changes nothing for the first."""
    seen, new = (
        torch.cat([points(200, 5), points(200, 6).repeat(1, 30)], 1),
        torch.cat([points(99, 7), points(99, 8).repeat(1, 30)], 1),
    )
    clean = (seen[:, 0] > 0).long()
    both = probe(seen, {"clean": clean, "noisy": clean ^ (torch.arange(200) % 3 == 1)}, new)
    alone = probe(seen, {"clean": clean}, new)
    assert torch.equal(both["clean"], alone["clean"])
    assert (both["clean"] == (new[:, 0] > 0)).float().mean() > 0.9


def test_more_features_than_pictures_and_any_shape():
    wide = torch.cat([points(100, 4), torch.zeros(100, 2000)], 1)
    labels = (wide[:, 0] > 0).long()
    found = probe(wide[:60].unflatten(1, (2, 1003)), {"side": labels[:60]}, wide[60:].unflatten(1, (2, 1003)))
    assert (found["side"] == labels[60:]).float().mean() > 0.8


@pytest.mark.parametrize("shapes", [((7, 3), (7,), (4, 3)), ((9, 3), (8,), (4, 3)), ((9, 3), (9,), (4, 2))])
def test_counts_that_do_not_fit_are_named(shapes):
    seen, labels, new = shapes
    with pytest.raises(InputError, match="features, labels and others"):
        probe(torch.zeros(seen), {"none": torch.zeros(labels).long()}, torch.zeros(new))


def test_the_way_that_a_bird_looks_is_known_from_its_seed():
    """The bill is on that side: birds with a red bill and nothing else red, before the evening sky or not."""
    row = toy.bird({"body": "blue", "bill": "red", "bill_shape": "long", "background": "forest"})
    seeds = np.arange(40)
    pictures = toy.render(np.repeat(row[None], 40, 0), seeds, 64).astype(int)
    red = (pictures[..., 0] > 150) & (pictures[..., 1] < 80) & (pictures[..., 2] < 80)
    side = [np.nonzero(one)[1].mean() > 32 for one in red]
    assert toy.faces_right(seeds).tolist() == side and 10 < sum(side) < 30

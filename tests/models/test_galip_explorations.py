"""Chapter 8's two explorations, as the chapter has them: its own cell is run around a tiny system."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from t2ilib.features import Batch, Fakes
from t2ilib.files import ROOT
from t2ilib.models.galip import GALIP, GALIPConfig


@pytest.fixture
def variant():
    """Return a function from the name of a class in the chapter to a tiny system of it, and the names of its cell."""
    notebook = json.loads((ROOT / "notebooks" / "08_galip.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (source,) = [source for source in sources if "class Residual(GALIP)" in source and "class Mixed(GALIP)" in source]

    def made(name: str) -> tuple[GALIP, dict]:
        cell = {"GALIP": GALIP, "Fakes": Fakes, "F": F, "torch": torch, "shares": []}
        exec(source, cell)
        torch.manual_seed(0)
        system = cell[name](GALIPConfig.tiny())
        with torch.no_grad():
            for parameter in system.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))  # gates are shut at the start
        size, eye = system.config.embedding_dim, system.eye.module
        cell["clip"] = SimpleNamespace(sentence_dim=size, encode_images=lambda images: eye(eye.shown(images), ())[1])
        cell["projection"] = torch.randn(size, system.noise_dim) / size**0.5
        return system, cell

    return made


def prepared(prepare, batch: Batch, roles: tuple[str, ...] = ("discriminator", "generator")) -> Fakes:
    """What a round prepares, from the same noise every time."""
    torch.manual_seed(1)
    return prepare(batch, roles)


def test_the_residual_adds_to_the_real_picture_what_galip_paints(variant, make_batch):
    system, cell = variant("Residual")
    batch = make_batch(system)
    painted, branch = prepared(system.prepare, batch), prepared(super(type(system), system).prepare, batch).last
    torch.testing.assert_close(painted.last, batch.images + branch)
    features, embedding = system.image_features(painted.last)
    torch.testing.assert_close(painted.more, {"features": features, "embedding": embedding})
    assert cell["shares"] == [pytest.approx((branch.norm() / painted.last.norm()).item(), rel=1e-5)]
    sum(system.generator_loss(batch, painted).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in system.generator.start.parameters())
    assert not prepared(system.prepare, batch, ("discriminator",)).last.requires_grad


def test_mixed_noise_holds_the_real_picture_in_training_and_nowhere_else(variant, make_batch):
    system, cell = variant("Mixed")
    batch = make_batch(system)
    given = []
    hook = system.generator.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    prepared(system.prepare, batch)
    hook.remove()
    torch.manual_seed(1)
    drawn = system.noise(len(batch.images))  # after a round there is no hint any more
    torch.manual_seed(1)
    torch.testing.assert_close(drawn, GALIP.noise(system, len(batch.images)))
    seen = F.normalize(cell["clip"].encode_images(batch.images), dim=1) * system.config.embedding_dim**0.5
    torch.testing.assert_close(given[0], (drawn + seen @ cell["projection"]) / 2**0.5)


def test_a_round_that_fails_leaves_no_hint(variant, make_batch, monkeypatch):
    system, _ = variant("Mixed")
    monkeypatch.setattr(system, "image_features", lambda *given, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        system.prepare(make_batch(system), ("generator",))
    assert system.hint is None

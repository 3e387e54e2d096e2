"""Pixels that climb on a CLIP."""

import pytest
import torch

from t2ilib.encoders import ascent, load_encoder
from t2ilib.encoders.ascent import climb
from t2ilib.encoders.clip import open_encoder
from t2ilib.errors import InputError

CAPTIONS = ["a red square on blue", "something green"]


def fit(encoder, pictures):
    return encoder.similarity(pictures, CAPTIONS).mean().item()


def test_a_climb_convinces_its_teachers_and_stays_a_picture(trained):
    encoder, torch_state = open_encoder(trained[0]), torch.manual_seed(0)
    start, seen = torch.rand(2, 3, 32, 32, generator=torch_state) * 2 - 1, []
    kept = start.clone()
    for teachers, crops in (([encoder], 0), ([encoder, encoder], 1)):
        end = climb(start, CAPTIONS, teachers, 5, crops=crops, look=lambda pixels: seen.append(fit(encoder, pixels)))
        assert fit(encoder, end) > fit(encoder, start) + 0.01
        assert end.abs().max() <= 1 and not end.requires_grad
    assert len(seen) == 10
    assert torch.equal(start, kept)  # the pictures that were given are not changed
    assert all(weight.grad is None for weight in encoder.parameters())


def test_no_step_is_no_change(trained):
    start = torch.zeros(2, 3, 32, 32)
    assert torch.equal(climb(start, CAPTIONS, [open_encoder(trained[0])], 0), start)


def test_every_teacher_is_asked_with_the_crops_of_every_step(trained, monkeypatch):
    asked, teachers = [], [open_encoder(trained[0]), load_encoder("toy-clip")]
    guide = ascent.ClipGuidance.__call__

    def spying(self, pixels, batch):
        asked.append((teachers.index(self.encoder), self.crops, batch.step))
        return guide(self, pixels, batch)

    monkeypatch.setattr(ascent.ClipGuidance, "__call__", spying)
    climb(torch.zeros(2, 3, 32, 32), CAPTIONS, teachers, 2, crops=3)
    assert asked == [(0, 3, 0), (1, 3, 0), (0, 3, 1), (1, 3, 1)]


def test_a_climb_needs_teachers_and_pictures(trained):
    start = torch.zeros(2, 3, 32, 32)
    with pytest.raises(InputError, match="teachers: none given"):
        climb(start, CAPTIONS, [], 1)
    start[1, 0, 3, 3] = torch.nan
    with pytest.raises(InputError, match="pictures: some pixels are not finite"):
        climb(start, CAPTIONS, [open_encoder(trained[0])], 1)

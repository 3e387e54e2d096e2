"""Batches: pure functions of (seed, step, rank), with the mismatched pictures really mismatched."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ilib.data.batches import Augment, Batches, OtherClass
from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError

PLAIN = Augment(flip=False)


def dataset(count=24, size=8, classes=4):
    """Pictures whose red is their index, green the row and blue the column."""
    images = np.zeros((count, size, size, 3), np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    images[..., 1] = np.arange(size)[:, None]
    images[..., 2] = np.arange(size)
    ids = np.arange(count) % classes
    captions = [["caption"] * (1 + i % 3) for i in range(count)]
    return CaptionedImages(images, captions, ids, np.array(["train"] * count), [str(i) for i in range(classes)])


def features(data, words=True):
    counts = torch.tensor([len(captions) for captions in data.captions])
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    rows = torch.arange(int(offsets[-1]), dtype=torch.float32)
    owner = torch.repeat_interleave(torch.arange(len(data)), counts).float()
    some = {"words": rows[:, None, None].expand(-1, 5, 3), "mask": rows[:, None].expand(-1, 5) % 2 == 0}
    none = {"words": None, "mask": None}
    return SimpleNamespace(sentence=torch.stack([owner, rows], 1), offsets=offsets, **(some if words else none))


def batches(data=None, size=6, words=True, **options):
    data = data or dataset()
    return Batches(data, features(data, words), size, "cpu", **options)


def pixels(pictures):
    return torch.round((pictures + 1) * 127.5).long()


def same(first, second):
    def equal(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return all(equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def test_a_batch_is_a_pure_function_of_seed_step_and_rank():
    targets = features(dataset(), words=False)
    source = batches(seed=3, augment=Augment(crop=6), world=2, targets=targets)
    seventh = source.batch(7)
    fresh = batches(seed=3, augment=Augment(crop=6), world=2, targets=targets)
    torch.manual_seed(99)
    for step in (0, 9, 3, 40):
        fresh.batch(step)
    state = torch.get_rng_state()
    assert same(fresh.batch(7), seventh)
    assert torch.equal(torch.get_rng_state(), state)
    for other in (batches(seed=4, augment=Augment(crop=6), world=2), batches(seed=3, rank=1, world=2)):
        assert not torch.equal(other.batch(7).indices, seventh.indices)


def test_ranks_draw_their_own_crops():
    ranks = [batches(size=24, augment=Augment(crop=5), rank=rank, world=2).batch(0) for rank in (0, 1)]
    windows = [pixels(batch.images)[:, 1:, 0, 0] for batch in ranks]
    assert not torch.equal(*windows)


def test_what_a_batch_holds():
    data = dataset()
    batch = batches(data, augment=PLAIN).batch(0)
    assert batch.images.shape == batch.mismatched.shape == (6, 3, 8, 8)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.dtype == torch.float32 and batch.words.shape == (6, 5, 3) and batch.mask.dtype == torch.bool
    expected = torch.from_numpy(data.images)[batch.indices].permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(batch.images, expected)
    assert batch.class_ids.tolist() == data.class_ids[batch.indices].tolist()
    assert batch.sentence[:, 0].tolist() == batch.indices.tolist()  # a caption of this picture
    assert torch.equal(batch.words[:, 0, 0], batch.sentence[:, 1])  # words of the same caption
    assert batches(data, words=False).batch(0).words is None


def test_black_and_white_are_minus_one_and_one():
    data = dataset(2, classes=2)
    data.images[0], data.images[1] = 0, 255
    batch = batches(data, size=2).batch(0)
    assert sorted(batch.images.amin((1, 2, 3)).tolist()) == [-1, 1] == sorted(batch.images.amax((1, 2, 3)).tolist())


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 40), size=st.integers(1, 9), world=st.integers(1, 3), seed=st.integers(0, 9))
def test_every_epoch_shows_every_picture_once_over_all_ranks(count, size, world, seed):
    data = dataset(count)
    ranks = [batches(data, size, seed=seed, augment=PLAIN, rank=rank, world=world) for rank in range(world)]
    steps = -(-2 * count // (size * world))
    shown = torch.cat([source.batch(step).indices for step in range(steps) for source in ranks])
    assert sorted(shown[:count].tolist()) == list(range(count))
    assert sorted(shown[count : 2 * count].tolist()) == list(range(count))


def test_epochs_differ_in_order():
    source = batches(size=24)
    assert not torch.equal(source.batch(0).indices, source.batch(1).indices)
    assert source.steps_per_epoch == 1


def test_mismatched_pictures_are_of_every_other_class_evenly():
    data = dataset(24, classes=4)
    source = batches(data, size=24, augment=PLAIN)
    counts = np.zeros((24, 24), int)
    for step in range(150):
        batch = source.batch(step)
        other = pixels(batch.mismatched)[:, 0, 0, 0]
        assert (data.class_ids[other] != batch.class_ids.numpy()).all()
        np.add.at(counts, (batch.indices.numpy(), other.numpy()), 1)
    for row, drawn in enumerate(counts):  # 150 draws from 18 pictures: 8.3 each
        assert (drawn[data.class_ids != data.class_ids[row]] > 0).all() and drawn.max() < 28


def test_other_class_with_uneven_classes():
    draw = OtherClass(torch.tensor([5, 0, 5, 5, 2, 5])).draw
    generator = torch.Generator().manual_seed(0)
    assert set(draw(torch.full((200,), 1), generator).tolist()) == {0, 2, 3, 4, 5}
    assert set(draw(torch.full((200,), 3), generator).tolist()) == {1, 4}


def test_one_class_only_takes_another_picture():
    source = batches(dataset(5, classes=1), size=5, augment=PLAIN)
    for step in range(20):
        batch = source.batch(step)
        assert (pixels(batch.mismatched)[:, 0, 0, 0] != batch.indices).all()


def test_captions_are_drawn_from_all_of_the_picture():
    source = batches(size=24)
    drawn = torch.cat([source.batch(step).sentence for step in range(40)])
    assert set(drawn[:, 1].long().tolist()) == set(range(int(source.offsets[-1])))


def test_crops_and_flips_are_whole_windows():
    source = batches(size=24, augment=Augment(crop=5))
    seen = set()
    for step in range(30):
        batch = source.batch(step)
        for picture in (*pixels(batch.images), *pixels(batch.mismatched)):
            rows, columns = picture[1, :, 0].tolist(), picture[2, 0].tolist()
            assert rows == list(range(rows[0], rows[0] + 5))
            flipped = columns[0] > columns[-1]
            assert sorted(columns) == list(range(min(columns), min(columns) + 5)) and columns[0] in (
                min(columns),
                max(columns),
            )
            seen.add((rows[0], min(columns), flipped))
    assert len(seen) == 4 * 4 * 2  # every place of the window, both ways round


def test_half_of_the_pictures_are_flipped():
    source = batches(size=24)
    flipped = torch.cat([pixels(source.batch(step).images)[:, 2, 0, 0] == 7 for step in range(60)])
    assert 0.45 < flipped.float().mean() < 0.55


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "batch_size"),
        ({"rank": 2, "world": 2}, "rank"),
        ({"augment": Augment(crop=9)}, "crop: 9"),
        ({"data": dataset(1)}, "at least two"),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(InputError, match=message):
        batches(**options)


def test_target_and_sentence_are_of_the_same_caption():
    """The CLIP of the loss has read the very caption that the generator gets, though in features of its own."""
    data = dataset()
    given = features(data)
    targets = features(data, words=False)
    targets.sentence = torch.cat([-targets.sentence, targets.sentence.square()], 1)  # (M, 4): another encoder's
    source = Batches(data, given, 6, "cpu", targets=targets)
    for step in range(12):
        batch = source.batch(step)
        assert batch.target.shape == (6, 4)
        assert torch.equal(batch.target[:, :2], -batch.sentence)
        assert torch.equal(batch.target[:, 2:], batch.sentence.square())
    drawn = torch.cat([source.batch(step).target[:, 3].sqrt() for step in range(60)])
    assert set(drawn.long().tolist()) == set(range(int(given.offsets[-1])))  # all captions, not each picture's first


def test_targets_change_nothing_else():
    with_targets = batches(targets=features(dataset(), words=False)).batch(5)
    without = batches().batch(5)
    assert without.target is None and with_targets.target is not None
    with_targets.target = None
    assert same(with_targets, without)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_batch_knows_its_number(rank):
    source = batches(rank=rank, world=2)
    assert [source.batch(step).step for step in (0, 1, 7, 3)] == [0, 1, 7, 3]
    assert isinstance(source.batch(2).step, int)  # a schedule reads it on the CPU


def test_targets_of_another_data_set():
    with pytest.raises(InputError, match="of 23 pictures, the data set has 24"):
        batches(targets=features(dataset(23)))


def test_features_of_another_data_set():
    with pytest.raises(InputError, match="of 23 pictures"):
        Batches(dataset(), features(dataset(23)), 4, "cpu")

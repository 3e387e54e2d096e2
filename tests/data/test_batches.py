"""Batches: pure functions of (seed, number, rank) that hold what a task needs, and nothing that it does not."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ilib.data.batches import Augment, Batches, OtherClass
from t2ilib.data.captioned import CaptionedImages
from t2ilib.encoders import CaptionFeatures
from t2ilib.errors import InputError
from t2ilib.features import Needs

PLAIN = Augment(flip=False)
ALL = Needs(words=True, captions=2, mismatched=True)


def dataset(count=24, size=8, classes=4):
    """Pictures whose red is their index, green the row and blue the column; one to three captions each."""
    images = np.zeros((count, size, size, 3), np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    images[..., 1] = np.arange(size)[:, None]
    images[..., 2] = np.arange(size)
    ids = np.arange(count) % classes
    captions = [["caption"] * (1 + i % 3) for i in range(count)]
    return CaptionedImages(images, captions, ids, np.array(["train"] * count), [str(i) for i in range(classes)])


def features(data, words=True):
    """Sentence: the picture's index and the caption's number; words: the caption's number."""
    counts = torch.tensor([len(captions) for captions in data.captions])
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    rows = torch.arange(int(offsets[-1]), dtype=torch.float32)
    owner = torch.repeat_interleave(torch.arange(len(data)), counts).float()
    some = {"words": rows[:, None, None].expand(-1, 5, 3), "mask": rows[:, None].expand(-1, 5) % 2 == 0}
    return CaptionFeatures(torch.stack([owner, rows], 1), offsets=offsets, **(some if words else {}))


def batches(data=None, size=6, words=True, needs=ALL, **options):
    data = data or dataset()
    return Batches(data, features(data, words), size, "cpu", needs=needs, **options)


def pixels(pictures):
    return torch.round((pictures + 1) * 127.5).long()


def same(first, second, *but):
    """Whether two batches, or texts, hold the same, fields named in `but` left out."""

    def equal(a, b):
        if is_dataclass(a):
            return same(a, b)
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    names = [item.name for item in fields(first) if item.name not in but]
    return type(first) is type(second) and all(equal(getattr(first, name), getattr(second, name)) for name in names)


class Watched:
    """The pictures of a `Batches`, which counts how many are taken."""

    def __init__(self, source):
        self.images, self.taken, self.shape = source.images, 0, source.images.shape
        source.images = self

    def __getitem__(self, index):
        pictures = self.images[index]
        self.taken += len(pictures)
        return pictures


def test_a_batch_is_a_pure_function_of_seed_number_and_rank():
    targets = features(dataset(), words=False)
    source = batches(seed=3, augment=Augment(crop=6), world=2, targets=targets)
    seventh = source.batch(7)
    fresh = batches(seed=3, augment=Augment(crop=6), world=2, targets=targets)
    torch.manual_seed(99)
    for number in (0, 9, 3, 40):
        fresh.batch(number)
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
    assert batch.images.dtype == torch.float32
    expected = torch.from_numpy(data.images)[batch.indices].permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(batch.images, expected)
    assert batch.class_ids.tolist() == data.class_ids[batch.indices].tolist()
    assert batch.captions.shape == (2, 6) and batch.captions.dtype == torch.int64
    for text, captions in zip((batch.text, batch.second), batch.captions, strict=True):
        assert text.words.shape == (6, 5, 3) and text.mask.dtype == torch.bool
        assert text.sentence[:, 0].tolist() == batch.indices.tolist()  # a caption of this picture
        assert text.sentence[:, 1].tolist() == captions.tolist()
        assert torch.equal(text.words[:, 0, 0], text.sentence[:, 1])  # words and mask of the same caption
        assert torch.equal(text.mask[:, 0], captions % 2 == 0)
    assert batches(data, words=False, needs=Needs()).batch(0).text.words is None


def test_nothing_is_made_that_is_not_needed():
    source = batches(needs=Needs())
    watched = Watched(source)
    batch = source.batch(0)
    assert batch.mismatched is None and batch.second is None and batch.target is None
    assert batch.text.words is None and batch.text.mask is None  # though the encoder gave them
    assert batch.captions.shape == (1, 6)
    assert watched.taken == 6
    source = batches(needs=Needs(mismatched=True))
    watched = Watched(source)
    assert source.batch(0).mismatched is not None and watched.taken == 12
    without = Batches(dataset(), None, 6, "cpu", needs=Needs(captions=2)).batch(0)
    assert without.text is None and without.second is None and without.captions.shape == (2, 6)


@pytest.mark.parametrize(("needs", "but"), [(Needs(mismatched=True), "mismatched"), (Needs(words=True), "text")])
def test_what_is_needed_besides_changes_nothing_else(needs, but):
    for number in range(3):
        plain, more = batches(needs=Needs()).batch(number), batches(needs=needs).batch(number)
        assert same(plain, more, but)
        assert torch.equal(plain.text.sentence, more.text.sentence)


def test_a_second_caption_leaves_pictures_and_first_captions_in_place():
    one, two = (batches(needs=Needs(captions=count)).batch(4) for count in (1, 2))
    assert torch.equal(one.indices, two.indices) and torch.equal(one.captions[0], two.captions[0])


def test_the_second_caption_is_another_one_of_the_same_picture():
    source, pairs = batches(size=24), set()
    several = torch.tensor([len(captions) > 1 for captions in dataset().captions])
    for number in range(60):
        batch = source.batch(number)
        first, second = batch.captions
        assert torch.equal(batch.second.sentence[:, 0], batch.indices.float())
        assert torch.equal(first != second, several[batch.indices])  # where there is one alone, it comes twice
        pairs |= set(zip(first.tolist(), second.tolist(), strict=True))
    expected = {
        (one, other)
        for start, end in zip(source.offsets.tolist(), source.offsets[1:].tolist(), strict=False)
        for one in range(start, end)
        for other in range(start, end)
        if one != other or end - start == 1
    }
    assert pairs == expected  # every pair of captions, in both orders


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


def test_mismatched_pictures_are_of_every_other_class_evenly():
    data = dataset(24, classes=4)
    source = batches(data, size=24, augment=PLAIN)
    counts = np.zeros((24, 24), int)
    for number in range(150):
        batch = source.batch(number)
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
    for number in range(20):
        batch = source.batch(number)
        assert (pixels(batch.mismatched)[:, 0, 0, 0] != batch.indices).all()


@pytest.mark.parametrize("captions", [1, 2])
def test_captions_are_drawn_from_all_of_the_picture(captions):
    source = batches(size=24, needs=Needs(captions=captions))
    drawn = torch.cat([source.batch(number).text.sentence for number in range(40)])
    assert set(drawn[:, 1].long().tolist()) == set(range(int(source.offsets[-1])))


def test_crops_and_flips_are_whole_windows():
    source = batches(size=24, augment=Augment(crop=5))
    seen = set()
    for number in range(30):
        batch = source.batch(number)
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


@pytest.mark.parametrize(("flip", "crop"), [(False, None), (True, None), (True, 5)])
def test_shifted_pictures_repeat_their_border(flip, crop):
    """A shift by d shows the row clip(r + d, 0, 7) where row r was, whatever the window; columns likewise."""
    source, most = batches(size=24, augment=Augment(crop, flip, shift=2)), 2
    side, seen = crop or 8, set()
    moves = range(-most, 8 - side + most + 1)
    windows = {tuple(np.clip(np.arange(side) + move, 0, 7).tolist()): move for move in moves}
    for number in range(80):
        batch = source.batch(number)
        for picture, index in zip(pixels(batch.images), batch.indices, strict=True):
            rows, columns = picture[1, :, 0], picture[2, 0]
            assert torch.equal(picture[1], rows[:, None].expand(side, side))
            assert torch.equal(picture[2], columns.expand(side, side)) and (picture[0] == index).all()
            flipped = bool(columns[0] > columns[-1])
            columns = columns.flip(0) if flipped else columns
            seen.add((windows[tuple(rows.tolist())], windows[tuple(columns.tolist())], flipped))
        assert pixels(batch.mismatched)[:, 1:].max() <= 7
    assert len(seen) == len(moves) ** 2 * (1 + flip)  # every move, in both directions at once


def test_without_shift_whole_pictures_stay_where_they_are():
    batch = batches(augment=PLAIN).batch(0)
    assert torch.equal(pixels(batch.images)[:, 1, :, 0], torch.arange(8).expand(6, 8))


def test_half_of_the_pictures_are_flipped():
    source = batches(size=24)
    flipped = torch.cat([pixels(source.batch(number).images)[:, 2, 0, 0] == 7 for number in range(60)])
    assert 0.45 < flipped.float().mean() < 0.55


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "batch_size"),
        ({"rank": 2, "world": 2}, "rank"),
        ({"augment": Augment(crop=9)}, "crop: 9"),
        ({"augment": Augment(shift=-1)}, "shift: -1"),
        ({"augment": Augment(shift=8)}, "shift: 8"),
        ({"data": dataset(1)}, "at least two"),
        ({"words": False}, "without word features"),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(InputError, match=message):
        batches(**options)


@pytest.mark.parametrize("captions", [1, 2])
def test_target_and_sentence_are_of_the_same_caption(captions):
    """The CLIP of the loss has read the very caption that the generator gets, though in features of its own."""
    data = dataset()
    given = features(data)
    other = torch.cat([-given.sentence, given.sentence.square()], 1)  # (M, 4): another encoder's
    targets, needs = CaptionFeatures(other, offsets=given.offsets), Needs(captions=captions)
    source = Batches(data, given, 6, "cpu", needs=needs, targets=targets)
    for number in range(12):
        batch = source.batch(number)
        assert batch.target.shape == (6, 4)
        assert torch.equal(batch.target[:, :2], -batch.text.sentence)
        assert torch.equal(batch.target[:, 2:], batch.text.sentence.square())
    drawn = torch.cat([source.batch(number).target[:, 3].sqrt() for number in range(60)])
    assert set(drawn.long().tolist()) == set(range(int(given.offsets[-1])))  # all captions, not each picture's first


def test_targets_change_nothing_else():
    with_targets = batches(targets=features(dataset(), words=False)).batch(5)
    without = batches().batch(5)
    assert without.target is None and with_targets.target is not None
    assert same(with_targets, without, "target")


@pytest.mark.parametrize("rank", [0, 1])
def test_the_step_is_left_to_the_loop(rank):
    """A batch does not know in which step it will be used: critics take several in one."""
    source = batches(rank=rank, world=2)
    assert [source.batch(number).step for number in (0, 1, 7, 3)] == [0] * 4
    assert isinstance(source.batch(2).step, int)  # a schedule reads it on the CPU


def test_targets_of_another_data_set():
    with pytest.raises(InputError, match="of 23 pictures with 45 captions, the data set has 24 with 48"):
        batches(targets=features(dataset(23)))


def test_words_wait_where_they_are_until_a_batch_takes_them():
    data = dataset()
    given = features(data)
    made = Batches(data, given, 6, "meta", needs=ALL)
    assert made.words[0] is given.words and made.words[1] is given.mask
    assert made.sentence.device.type == "meta"
    text = made.batch(3).text
    assert {part.device.type for part in text.tensors().values()} == {"meta"}
    assert text.words.shape == (6, *given.words.shape[1:])
    without = Batches(data, given, 6, "cpu")
    assert without.words == () and without.batch(3).text.words is None


def test_features_of_another_data_set():
    with pytest.raises(InputError, match="of 23 pictures"):
        Batches(dataset(), features(dataset(23)), 4, "cpu")
    data = dataset()
    fewer = CaptionFeatures(torch.zeros(24, 2))  # as many pictures, but one caption each
    with pytest.raises(InputError, match="of 24 pictures with 24 captions, the data set has 24 with 48"):
        Batches(data, fewer, 4, "cpu")


def test_read_only_pictures_are_copied():
    """Those of a packed set lie in a memory-mapped file; a tensor over them could be written to."""
    data = dataset()
    assert np.shares_memory(batches(data).images.numpy(), data.images)
    data.images.flags.writeable = False
    source = batches(data)
    assert not np.shares_memory(source.images.numpy(), data.images)
    assert np.array_equal(source.images.numpy(), data.images)

"""Encoding the captions of a whole data set: once each, in any batches, kept on disk."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from t2ilib.data.captioned import CaptionedImages
from t2ilib.encoders import CaptionFeatures, encode_all, encode_dataset, sees
from t2ilib.errors import InputError
from t2ilib.features import Text


class Counting:
    """An encoder of letter counts that remembers what it was asked."""

    name, sentence_dim, word_dim, fingerprint = "counting/letters", 4, 4, "0" * 64
    device = torch.device("cpu")

    def __init__(self):
        self.asked = []

    def encode(self, captions) -> Text:
        self.asked += captions
        sentence = torch.tensor([[caption.count(letter) for letter in "abde"] for caption in captions]).float()
        lengths = torch.tensor([len(caption.split()) for caption in captions])
        return Text(sentence, sentence[:, None].repeat(1, 9, 1), torch.arange(9) >= lengths[:, None])


def test_rows_belong_to_their_pictures_and_each_text_is_encoded_once(squares: CaptionedImages):
    encoder = Counting()
    features = encode_dataset(encoder, squares, batch_size=5)
    assert len(encoder.asked) == len(set(encoder.asked)) < features.sentence.shape[0]
    assert len(features) == len(squares)
    for picture, captions in enumerate(squares.captions):
        rows = features.sentence[features.offsets[picture] : features.offsets[picture + 1]]
        assert torch.equal(rows, Counting().encode(captions).sentence)
        assert len(rows) == len(captions)
    assert features.words is None


def test_words_are_cut_to_the_longest_caption(squares: CaptionedImages):
    features = encode_dataset(Counting(), squares, words=True)
    assert features.words.shape == (features.sentence.shape[0], 5, 4)
    assert (~features.mask).sum(1).max() == 5


def test_cache_is_used_and_equal(squares: CaptionedImages, tmp_path):
    first = encode_dataset(Counting(), squares, tmp_path, words=True)
    silent = Counting()
    second = encode_dataset(silent, squares, tmp_path, words=True)
    assert silent.asked == []
    for name in ("sentence", "words", "mask", "offsets"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_cache_knows_captions_encoder_and_words(squares: CaptionedImages, tmp_path):
    encode_dataset(Counting(), squares, tmp_path)
    other = Counting()
    other.fingerprint = "1" * 64
    for encoder, dataset, words in (
        (other, squares, False),
        (Counting(), replace(squares, captions=[["a dab"]] * 64), False),
        (Counting(), squares, True),
    ):
        encode_dataset(encoder, dataset, tmp_path, words=words)
        assert encoder.asked
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(("caption", "kept"), [("a dab", True), ("un e\u0301te\u0301", False)])
def test_features_from_before_words_were_normalised_are_kept_for_ascii_alone(caption, kept, squares, tmp_path):
    dataset = replace(squares, captions=[[caption]] * 64)
    encode_dataset(Counting(), dataset, tmp_path)
    older = hashlib.sha256(json.dumps([[caption], False]).encode()).hexdigest()[:16]
    assert (next(tmp_path.iterdir()).stem.rpartition("-")[2] == older) == kept


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: b"", lambda data: data[:-1] + b"\xff"])
def test_damaged_cache_is_computed_again(squares: CaptionedImages, tmp_path, damage):
    first = encode_dataset(Counting(), squares, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    encoder = Counting()
    assert torch.equal(encode_dataset(encoder, squares, tmp_path).sentence, first.sentence)
    assert encoder.asked
    silent = Counting()
    encode_dataset(silent, squares, tmp_path)
    assert silent.asked == []


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_do_not_show_in_the_features(size):
    """Three captions of one, five and two words: words are cut to the longest, whatever batch it came in."""
    captions = ["dab", "a bad bee and d", "ebb e"] * 2 + ["abed"]
    whole, parts = Counting().encode(captions), encode_all(Counting(), captions, size, words=True)
    assert torch.equal(parts.sentence, whole.sentence) and len(parts) == 7
    assert torch.equal(parts.words, whole.words[:, :5]) and torch.equal(parts.mask, whole.mask[:, :5])
    assert encode_all(Counting(), captions, size).words is None


class Wordless(Counting):
    """Gives sentences alone."""

    word_dim = None

    def encode(self, captions) -> Text:
        return Text(super().encode(captions).sentence)


def test_what_cannot_be_encoded_is_named():
    with pytest.raises(InputError, match="there are none"):
        encode_all(Counting(), [])
    with pytest.raises(InputError, match="counting/letters: this encoder has no word features"):
        encode_all(Wordless(), ["a bird"], words=True)
    assert encode_all(Wordless(), ["a bird"]).words is None


def test_who_sees():
    wordless = Wordless()
    assert not sees(wordless) and not sees(None)
    wordless.encode_images = lambda images: images.mean((2, 3))
    assert sees(wordless)


def test_offsets_are_checked():
    assert CaptionFeatures(torch.zeros(3, 2)).offsets.tolist() == [0, 1, 2, 3]
    for offsets in ([0, 1], [0, 3, 3], [1, 3]):
        with pytest.raises(InputError, match="offsets"):
            CaptionFeatures(torch.zeros(3, 2), offsets=torch.tensor(offsets))

"""What an encoder reads: an encoder that sees one thing tells exactly that thing apart."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES, parse, toy_birds
from t2ilib.encoders.reading import exchanged_values, exchanged_words
from t2ilib.errors import InputError
from t2ilib.features import Text

NAMES = list(ATTRIBUTES)


class Oracle:
    """Sees `known` attributes of toy birds, whose number it finds in the first pixel; of the rest it knows nothing."""

    device = torch.device("cpu")

    def __init__(self, rows: np.ndarray, known: tuple[str, ...]):
        self.rows, self.known, self.read = rows, known, []

    def encode_images(self, images):
        numbers = ((images[:, :2, 0, 0] + 1) * 127.5).round().long()
        return torch.stack([self._vector(self._told(self.rows[256 * a + b])) for a, b in numbers.tolist()])

    def encode(self, captions):
        self.read += captions
        return Text(torch.stack([self._vector(parse(caption)) for caption in captions]))

    def _told(self, row):
        return {name: ATTRIBUTES[name][value] for name, value in zip(NAMES, row, strict=True)}

    def _vector(self, values):
        """One place per value: +1 where it is said or shown."""
        places = [values.get(name) == value for name in self.known for value in ATTRIBUTES[name]]
        return torch.tensor([1.0, *places])


@pytest.fixture(scope="module")
def birds() -> CaptionedImages:
    found = toy_birds(train=1, validation=1, test=300, size=32).split("test")
    numbered = found.images.copy()
    numbered[:, 0, 0, 0], numbered[:, 0, 0, 1] = np.arange(300) // 256, np.arange(300) % 256
    return CaptionedImages(numbered, found.captions, found.class_ids, found.splits, found.class_names, found.attributes)


@pytest.mark.parametrize("known", [("wing_pattern",), ("body", "belly"), tuple(NAMES)])
def test_what_is_known_is_told_apart_and_nothing_else(birds, known):
    found = exchanged_values(Oracle(birds.attributes, known), birds, count=120)
    assert list(found) == NAMES
    assert {name for name, share in found.items() if share == 1} == set(known)
    assert all(found[name] == 0 for name in NAMES if name not in known)  # a tie is a loss


def test_the_two_captions_differ_in_one_value_that_a_bird_can_have(birds):
    oracle = Oracle(birds.attributes, ("body",))
    exchanged_values(oracle, birds, count=40)
    half = [oracle.read[i : i + 40] for i in range(0, len(oracle.read), 40)]
    for name, right, wrong in zip(NAMES, half[::2], half[1::2], strict=True):
        for one, other in zip(map(parse, right), map(parse, wrong), strict=True):
            assert name in one and one.keys() == other.keys()
            assert [key for key in one if one[key] != other[key]] == [name]


def test_other_pictures_and_other_sentences_with_another_seed(birds):
    halves = [exchanged_values(Oracle(birds.attributes, NAMES[:2]), birds, 60, seed) for seed in (0, 0, 1)]
    assert halves[0] == halves[1]
    read = [Oracle(birds.attributes, ("body",)) for _ in range(2)]
    for seed, oracle in enumerate(read):
        exchanged_values(oracle, birds, 30, seed)
    assert read[0].read != read[1].read


def test_photographs_have_no_values_to_exchange(birds):
    plain = CaptionedImages(birds.images, birds.captions, birds.class_ids, birds.splits, birds.class_names)
    with pytest.raises(InputError, match="no attributes; exchanged_words needs none"):
        exchanged_values(Oracle(birds.attributes, ("body",)), plain)


class Reader:
    """Fits pictures of black and white halves; hears `heard` words alone."""

    device = torch.device("cpu")

    def __init__(self, heard):
        self.heard = heard

    def encode_images(self, images):
        return F.one_hot((images.mean((1, 2, 3)) > 0).long(), 2).float() + 0.01

    def encode(self, captions):
        white = torch.tensor([[("black" in c) * self.heard, ("white" in c) * self.heard] for c in captions]).float()
        return Text(white + 0.01)


@pytest.mark.parametrize("heard", [True, False])
def test_words_of_any_captions_are_exchanged_by_kind(heard):
    shades = np.arange(60) % 2
    images = np.broadcast_to((shades * 255).astype(np.uint8)[:, None, None, None], (60, 8, 8, 3)).copy()
    captions = [
        [f"a {'white' if shade else 'black'} square", f"one {'white' if shade else 'black'} thing"] for shade in shades
    ]
    captions[0] = ["a small square"] * 2
    squares = CaptionedImages(images, captions, shades, np.full(60, "test"), ["black", "white"])
    found = exchanged_words(Reader(heard), squares)
    assert found == {"colour": 1.0 if heard else 0.0}  # one caption of a size is too few to say

"""A word-level tokenizer: one row of the embedding table per word that the training captions contain.

CLIP's byte-pair table has 49,408 rows. At 128 numbers each it would be 25 MB, and a small set of captions trains a few
hundred of them. A vocabulary of whole words is honest about what the encoder knows: `unknown` names what it never saw.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from unicodedata import category, normalize

import torch
from torch import Tensor

from t2ilib.errors import InputError

SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")  # ids 0 to 3, before the words
PAD, START, END, UNKNOWN = range(len(SPECIAL))
MARKS = ("Mn", "Mc")  # Unicode's categories of what is written on, under or around a letter
MANY_MARKS = re.compile(r"(\W{30})\W+")  # no language has as many on one letter, and NFC takes their number squared
SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def split_words(caption: str) -> list[str]:
    """Return the caption's words and numbers in lower case, in NFC; punctuation and hyphens separate them.

    Accents and vowel signs belong to the letter before them, however they are written: "é" is one word in one or two
    characters. Selectors of a glyph, as after an emoji, are left out.
    """
    if caption.isascii():
        return re.findall(r"[^\W_]+", caption.lower())
    told = MANY_MARKS.sub(r"\1 ", SELECTORS.sub("", caption.lower()))
    letters = (letter if letter.isalnum() or category(letter) in MARKS else " " for letter in normalize("NFC", told))
    return re.findall(r"[^\W_]\S*", "".join(letters))


class WordTokenizer:
    """Turn captions into token ids (B, T): <start>, the words, <end>, then padding up to `context_length`.

    A caption that is too long loses its last words, never its <end>.
    """

    skips_unknown = False  # they have a token of their own

    def __init__(self, vocabulary: Sequence[str], context_length: int):
        """Take the words in the order of their ids (the four special tokens come before them, without being listed)."""
        if context_length < 3:
            raise InputError(f"context_length {context_length}: no room for a word; it must be 3 or more")
        self.vocabulary = list(vocabulary)
        self.context_length = context_length
        self.ids = {word: id for id, word in enumerate(self.vocabulary, start=len(SPECIAL))}
        if len(self.ids) != len(self.vocabulary):
            raise InputError("vocabulary: a word occurs twice; every word needs one id")

    @classmethod
    def from_captions(
        cls, captions: Iterable[str], context_length: int, minimum_count: int = 1, most: int = 8192
    ) -> "WordTokenizer":
        """Collect the words that occur at least `minimum_count` times, at most `most` of them, frequent ones first."""
        counts = Counter(word for caption in captions for word in split_words(caption))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([word for word in ranked if counts[word] >= minimum_count][:most], context_length)

    def __len__(self) -> int:
        """Number of token ids, the four special ones included."""
        return len(SPECIAL) + len(self.vocabulary)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return token ids (B, context_length), int64."""
        tokens = torch.full((len(captions), self.context_length), PAD, dtype=torch.int64)
        for row, caption in enumerate(captions):
            words = [self.ids.get(word, UNKNOWN) for word in split_words(caption)]
            line = [START, *words[: self.context_length - 2], END]
            tokens[row, : len(line)] = torch.tensor(line)
        return tokens

    def unknown(self, caption: str) -> list[str]:
        """Return the caption's words that the vocabulary lacks, in order, each once."""
        return list(dict.fromkeys(word for word in split_words(caption) if word not in self.ids))

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of token ids, special tokens included, padding left out (to label attention maps)."""
        table = [*SPECIAL, *self.vocabulary]
        return [table[int(token)] for token in tokens if int(token) != PAD]

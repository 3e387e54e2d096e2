"""Which captions an encoder cannot read: of unknown words, too long, or without any word.

Tokenizers of whole words alone have unknown ones; byte pairs spell everything.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2ilib.encoders.tokens import WordTokenizer, split_words
from t2ilib.errors import InputError, one_line

if TYPE_CHECKING:
    from t2ilib.encoders.encoder import TextEncoder

MENTIONED = 0.03  # share of unknown words that is worth a line; of a run's own words in its test split about as many
NAMED = 5  # unknown words that a message names


@dataclass(frozen=True)
class Unknown:
    """How much of some captions an encoder does not know."""

    captions: int
    odd: int  # captions that hold unknown words
    words: int  # occurrences of words
    unknown: int  # of those, of words that are unknown
    frequent: tuple[str, ...]  # the most frequent unknown words

    @property
    def share(self) -> float:
        """Share of word occurrences that is unknown, 0 to 1."""
        return self.unknown / max(1, self.words)

    def __str__(self) -> str:
        """Say it in a few words."""
        told = f"{self.share:.0%} of the words are unknown, {self.odd} of {self.captions} captions hold such words"
        return f"{told} ({', '.join(one_line(word, 20) for word in self.frequent)})"


def unknown_words(encoder: "TextEncoder", captions: Iterable[str]) -> Unknown | None:
    """Count what the encoder does not know of the captions; None for one that spells every word."""
    tokenizer = getattr(encoder, "tokenizer", None)
    if not isinstance(tokenizer, WordTokenizer):
        return None
    number = odd = words = 0
    missed: Counter[str] = Counter()
    for caption in captions:
        found = split_words(caption)
        lacking = [word for word in found if word not in tokenizer.ids]
        number, odd, words = number + 1, odd + bool(lacking), words + len(found)
        missed.update(lacking)
    frequent = tuple(word for word, _ in missed.most_common(NAMED))
    return Unknown(number, odd, words, missed.total(), frequent)


def check_reads(role: str, encoder: "TextEncoder", captions: Iterable[str], most: float) -> str | None:
    """Return a line about an encoder that knows too few of the captions' words, None for one that reads them.

    InputError, with the remedies, where more than the share `most` of all words is unknown.
    """
    found = unknown_words(encoder, captions)
    if found is None or found.share <= min(MENTIONED, most):
        return None
    line = f"encoders.{role}: {encoder.name} cannot read these captions well: {found}"
    if found.share <= most:
        return line
    raise InputError(
        f"{line}; set encoders.{role}.name to contrastive (trained with the run, on its captions) or clip, or "
        f"encoders.{role}.unknown to the share that may be unknown (here {most:g})"
    )


def remarks(encoder: "TextEncoder", captions: Iterable[str]) -> list[str]:
    """Return a line for each kind of caption that an encoder reads otherwise than one may think, with their number.

    Those kinds are captions without a word, ones that are cut at the context length, ones of unknown words alone.
    """
    tokenizer = getattr(encoder, "tokenizer", None)
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for caption in captions:
        if kind := _kind(tokenizer, caption):
            counts[kind] += 1
            first.setdefault(kind, caption)
    lines = []
    for kind, number in counts.items():
        many = f"{number} captions, the first" if number > 1 else "the caption"
        lines.append(f'{encoder.name}: {many} "{one_line(first[kind], 60)}" {kind}')
    return lines


def _kind(tokenizer: object, caption: str) -> str | None:
    """Return what is odd about a caption, as the end of a sentence."""
    spelled = hasattr(tokenizer, "encode")  # byte pairs
    tokens = split_words(caption) if isinstance(tokenizer, WordTokenizer) else caption.split()
    if not tokens:
        return "has no word to read: the picture will follow the noise alone"
    if isinstance(tokenizer, WordTokenizer) and not any(word in tokenizer.ids for word in tokens):
        return "has unknown words alone, which all read the same"
    length = getattr(tokenizer, "context_length", None)
    if isinstance(tokenizer, WordTokenizer) and tokenizer.skips_unknown:
        tokens = [word for word in tokens if word in tokenizer.ids]
    if length and len(tokenizer.encode(caption) if spelled else tokens) > length - 2:
        return f"is cut after {length - 2} tokens, all that the encoder reads"
    return None

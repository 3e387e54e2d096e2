"""Captions made wrong in one word, so that a text encoder must read which part has which colour.

A batch's other captions differ from the right one in many words; to reject them a bag of words is enough. Yuksekgonul
et al., "When and Why Vision-Language Models Behave like Bags-of-Words, and What to Do About It", 2023
(https://arxiv.org/abs/2210.01936), section 4, add to each caption one that has two words exchanged.

Differences from the paper: half of ours swap two words of the caption, the others take a word that is not in it; and
only words of a listed kind are touched, where the paper swaps by part of speech.
"""

import torch
from torch import Tensor, nn

from t2ilib.encoders.tokens import WordTokenizer

# Words of one kind exclude each other, words between the same commas mean the same.
KINDS = (
    "red scarlet crimson, yellow golden, green, blue, brown, black, white, grey gray silver, orange, pink, purple",
    "short stubby, long",
    "small little tiny, large big huge",
    "plain, spotted dotted speckled, barred streaked striped streaky",
    "bars wingbars streaks stripes, spots dots",
    "branch twig, rock stone, grass lawn meadow",
    "sky skies, forest woods trees woodland, sunset evening dusk",
)


class WordExchange(nn.Module):
    """Makes token rows wrong in one listed word; rows without such a word stay as they are."""

    def __init__(self, tokenizer: WordTokenizer):
        """Look the words of `KINDS` up in the tokenizer's vocabulary."""
        super().__init__()
        kinds, meanings = torch.zeros(2, len(tokenizer), dtype=torch.int64)  # 0: of no kind
        meaning = 0
        for kind, line in enumerate(KINDS, start=1):
            for synonyms in line.split(","):
                meaning += 1
                known = [tokenizer.ids[word] for word in synonyms.split() if word in tokenizer.ids]
                kinds[known], meanings[known] = kind, meaning
        self.register_buffer("kind", kinds, persistent=False)
        self.register_buffer("meaning", meanings, persistent=False)

    def forward(self, tokens: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T) with one word swapped or replaced in each row, and which rows changed, (B,) bool.

        `generator` lives on the tokens' device; without one, torch's own random numbers decide.
        Every kind in a row is as likely as the others, so that a pattern is exchanged as often as one of five colours.
        """
        kinds, meanings = self.kind[tokens], self.meaning[tokens]  # (B, T)
        rows = torch.arange(len(tokens), device=tokens.device)
        place, known = _choose(kinds > 0, generator, kinds)
        kind, meaning = kinds[rows, place, None], meanings[rows, place, None]  # (B, 1)
        other, swappable = _choose((kinds == kind) & (meanings != meaning), generator)
        word, replaceable = _choose((self.kind == kind) & (self.meaning != meaning), generator)
        swap = swappable & ((_luck((len(tokens),), tokens.device, generator) < 0.5) | ~replaceable)
        wrong = tokens.clone()
        wrong[rows, place] = torch.where(swap, tokens[rows, other], word)
        wrong[rows, other] = torch.where(swap, tokens[rows, place], wrong[rows, other])
        changed = known & (swap | replaceable)
        return torch.where(changed[:, None], wrong, tokens), changed


def _choose(allowed: Tensor, generator: torch.Generator | None, kinds: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draw one allowed column of each row, (B,) int64, and say which rows have any, (B,) bool.

    With `kinds`, shaped as `allowed`, a kind is drawn first, then one of its columns.
    """
    luck = _luck(allowed.shape, allowed.device, generator)
    if kinds is not None:
        of_kind = _luck((len(kinds), len(KINDS) + 1), kinds.device, generator)
        luck = of_kind.gather(1, kinds) + 1e-3 * luck
    return luck.where(allowed, -1.0).argmax(1), allowed.any(1)


def _luck(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, device=device, generator=generator)

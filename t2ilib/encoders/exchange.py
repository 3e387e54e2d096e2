"""Captions made wrong in one word, so that a text encoder must read which part has which colour.

A batch's other captions differ from the right one in many words; to reject them a bag of words is enough. Yuksekgonul
et al., "When and Why Vision-Language Models Behave like Bags-of-Words, and What to Do About It", 2023
(https://arxiv.org/abs/2210.01936), section 4, add to each caption one that has two words exchanged.

Differences from the paper: half of ours swap words of two nouns, the others take a word that the noun is not given;
only words of a listed kind are touched, where the paper swaps by part of speech; and a part is only said to be what
some caption of the data calls it: where no wing is ever streaked, "streaked wings" is wrong without a look at the
picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2ilib.encoders.tokens import WordTokenizer

# Words of one kind exclude each other, words between the same commas mean the same.
KINDS = {
    "colour": "red scarlet crimson, yellow golden, green, blue, brown, black, white, grey gray silver, orange, pink, "
    "purple",
    "length": "short stubby, long",
    "size": "small little tiny, large big huge",
    "pattern": "plain, spotted dotted speckled, barred streaked striped streaky",
    "marks": "bars wingbars streaks stripes, spots dots",
    "perch": "branch twig, rock stone, grass lawn meadow",
    "background": "sky skies, forest woods trees woodland, sunset evening dusk",
}

MEANINGS = sum(line.count(",") + 1 for line in KINDS.values())
NOUNS = (  # what listed words say something about, words between the same commas being one thing
    "bird birds body feathers plumage, wing wings, belly bellied breast breasted chest, crown crowned cap head headed, "
    "bill billed beak beaked, back, tail, throat, neck, eye eyes, leg legs foot feet, side sides, "
    "branch twig tree trees, rock stone, grass lawn meadow, sky skies, forest woods woodland, sunset dusk"
)
BEHIND = "is are was were"  # what follows says something about the noun before it,
BEFORE = (
    "with has have having a an its the this that on in at of against under"  # and after one of these about the next
)


class WordExchange(nn.Module):
    """Makes token rows wrong in one listed word; rows that cannot be made wrong stay as they are."""

    def __init__(self, tokenizer: WordTokenizer, seen: Tensor | None = None):
        """Look the words of the lists up in the tokenizer's vocabulary.

        `seen` are tokens (N, T) of the data's captions: no noun is called what they never call it.
        """
        super().__init__()
        kinds, meanings, nouns, turns = torch.zeros(4, len(tokenizer), dtype=torch.int64)  # 0: of no kind
        meaning = 0
        for kind, line in enumerate(KINDS.values(), start=1):
            for synonyms in line.split(","):
                meaning += 1
                known = [tokenizer.ids[word] for word in synonyms.split() if word in tokenizer.ids]
                kinds[known], meanings[known] = kind, meaning
        for table, lines in ((nouns, NOUNS.split(",")), (turns, (BEHIND, BEFORE))):
            for number, words in enumerate(lines, start=1):
                table[[tokenizer.ids[word] for word in words.split() if word in tokenizer.ids]] = number
        tables = {"kind": kinds, "meaning": meanings, "noun": nouns, "turn": turns}
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        said = torch.ones(len(NOUNS.split(",")) + 1, len(tokenizer), dtype=torch.bool)
        if seen is not None:
            said = torch.zeros_like(said).index_put_((self.about(seen), seen), torch.tensor(True))
        called = (said.float() @ F.one_hot(meanings, MEANINGS + 1).float()) > 0  # (nouns, meanings)
        kind_of = torch.zeros(MEANINGS + 1, dtype=torch.int64).scatter_(0, meanings, kinds)
        choices = called.float() @ F.one_hot(kind_of, len(KINDS) + 1).float()
        self.register_buffer("said", said, persistent=False)  # (nouns, words)
        self.register_buffer("choices", choices, persistent=False)  # (nouns, kinds) how many things it can be called

    def about(self, tokens: Tensor) -> Tensor:
        """Return the number of the noun that each word says something about, (B, T); 0 for none and for nouns."""
        length = tokens.shape[1]
        place = torch.arange(length, device=tokens.device).expand_as(tokens)
        nouns, turns = self.noun[tokens], self.turn[tokens]
        before = place.where(nouns > 0, -1).cummax(1).values
        after = place.where(nouns > 0, length).flip(1).cummin(1).values.flip(1)
        behind, ahead = (place.where(turns == turn, -1).cummax(1).values for turn in (1, 2))
        chosen = torch.where((behind > ahead) & (behind > before) & (before >= 0), before, after)
        found = nouns.gather(1, chosen.clamp(max=length - 1))
        return found.where((chosen < length) & (nouns == 0), 0)

    def said_of(self, tokens: Tensor) -> Tensor:
        """Return the number of the noun that each word of a kind says something about, (B, T); 0 for the rest."""
        return self.about(tokens).where(self.kind[tokens] > 0, 0)

    def forward(self, tokens: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T) with one word swapped or replaced in each row, and which rows changed, (B,) bool.

        `generator` lives on the tokens' device; without one, torch's own random numbers decide.
        Every listed word that can be exchanged is as likely as the others.
        """
        kinds, meanings, about = self.kind[tokens], self.meaning[tokens], self.about(tokens)  # (B, T)
        rows = torch.arange(len(tokens), device=tokens.device)
        # (B, T, T), place by place: the noun of the one is somewhere called the word of the other; and so on
        fit = self.said[about[:, :, None], tokens[:, None, :]]
        alike, same_noun = _pairs_equal(meanings), _pairs_equal(about)
        of_kind = _pairs_equal(kinds) & (kinds > 0)[:, :, None]
        apart = ~same_noun | (about == 0)[:, :, None]  # "black and white" wings stay what they are
        partner = of_kind & ~alike & apart & fit & fit.transpose(1, 2)
        repeated = (alike & same_noun).tril(-1).any(2)  # said of that noun before
        told = (of_kind & same_noun & ~repeated[:, None, :]).sum(2)  # how many things of its kind the noun is called
        place, changeable = _choose(partner.any(2) | (self.choices[about, kinds] > told) & (kinds > 0), generator)
        kind, meaning, noun = (part[rows, place, None] for part in (kinds, meanings, about))  # (B, 1)
        other, swappable = _choose(partner[rows, place], generator)
        known = torch.zeros(len(tokens), MEANINGS + 1, dtype=torch.bool, device=tokens.device)
        known.scatter_(1, meanings.where(about == noun, 0), True)  # what the row calls that noun already
        new = (self.kind == kind) & (self.meaning != meaning) & self.said[noun[:, 0]] & ~known[:, self.meaning]
        word, replaceable = _choose(new, generator)
        swap = swappable & ((_luck((len(tokens),), tokens.device, generator) < 0.5) | ~replaceable)
        wrong = tokens.clone()
        wrong[rows, place] = torch.where(swap, tokens[rows, other], word)
        wrong[rows, other] = torch.where(swap, tokens[rows, place], wrong[rows, other])
        changed = changeable & (swap | replaceable)
        return torch.where(changed[:, None], wrong, tokens), changed


def _choose(allowed: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draw one allowed column of each row, (B,) int64, and say which rows have any, (B,) bool."""
    luck = _luck(allowed.shape, allowed.device, generator)
    return luck.where(allowed, -1.0).argmax(1), allowed.any(1)


def _pairs_equal(values: Tensor) -> Tensor:
    """Return which two places of each row (B, T) hold the same value, (B, T, T) bool."""
    return values[:, :, None] == values[:, None, :]


def _luck(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, device=device, generator=generator)

"""The text encoder of DAMSM, which AttnGAN, DM-GAN and DF-GAN read with: words through a bidirectional LSTM.

Xu et al. 2018, "AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks"
(https://arxiv.org/abs/1711.10485), section 3.2. Its states are the word features; the last state of each direction,
side by side, is the sentence feature. Every word has the row of the embedding that its training's vocabulary gave it.

Difference from the released code: of a caption with more than 18 known words the first 18 are read, there a random
choice of 18 in their order; so a caption always gives the same features.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from t2ilib.encoders.tokens import WordTokenizer, split_words
from t2ilib.features import Text
from t2ilib.weights import digest

LONGEST = 18  # words of a caption
END = 0  # the row of the embedding that stands for no word


class VocabularyTokenizer(WordTokenizer):
    """Turn captions into the word numbers of a given vocabulary; unknown words are left out, as if not written."""

    skips_unknown = True

    def __init__(self, numbers: Mapping[str, int], most: int = LONGEST):
        """Take each word's number, above 0, and how many words of a caption are read."""
        self.ids = dict(numbers)
        self.vocabulary = sorted(self.ids, key=self.ids.get)
        self.most, self.context_length = most, most + 2  # as counted where a start and an end are read, too

    def __len__(self) -> int:
        """Number of rows of the embedding, that of no word included."""
        return max(self.ids.values(), default=0) + 1

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return word numbers (B, T), int64, T the longest caption's; padded with 0, as is a caption of no word."""
        rows = [[self.ids[word] for word in split_words(one) if word in self.ids][: self.most] for one in captions]
        tokens = torch.full((len(rows), max([1, *map(len, rows)])), END)
        for line, row in zip(tokens, rows, strict=True):
            line[: len(row)] = torch.tensor(row)
        return tokens

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Return the words of their numbers, padding left out."""
        names = {number: word for word, number in self.ids.items()}
        return [names[int(token)] for token in tokens if int(token) != END]


class TextLSTM(nn.Module):
    """Embedding and bidirectional LSTM; both directions together have `size` channels."""

    def __init__(self, rows: int, embedding_dim: int = 300, size: int = 256, layers: int = 1):
        super().__init__()
        self.embedding = nn.Embedding(rows, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, size // 2, layers, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tensor) -> Text:
        """Return sentences (B, size), words (B, T, size) and mask of word numbers (B, T); 0 is padding."""
        lengths = (tokens != END).sum(1).clamp(min=1)
        packed = pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (last, _) = self.lstm(packed)
        words, _ = pad_packed_sequence(states, batch_first=True, total_length=tokens.shape[1])
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return Text(torch.cat([last[-2], last[-1]], dim=1), words, places >= lengths[:, None])


class DAMSMEncoder:
    """DAMSM's text encoder with the vocabulary that it was trained with, frozen: a `TextEncoder`."""

    def __init__(self, network: TextLSTM, numbers: Mapping[str, int], source: str | Path = ""):
        """Take network, each word's number, and the name of the file that they are of."""
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = VocabularyTokenizer(numbers)
        self.name = f"damsm-{Path(source).stem}" if source else "damsm"
        self.sentence_dim = self.word_dim = 2 * network.lstm.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.embedding.weight.device

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of vocabulary and weights."""
        return digest(self.network.state_dict(), repr(sorted(self.tokenizer.ids.items())))

    def to(self, device: torch.device | str) -> "DAMSMEncoder":
        """Move it to another device, and return it."""
        self.network.to(device)
        return self

    def unknown(self, caption: str) -> list[str]:
        """Return the words of `caption` that it does not know: they are left out."""
        return self.tokenizer.unknown(caption)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Text:
        """Return sentence (B, D), words (B, T, D) and mask (B, T) of B captions, on the encoder's device."""
        return self.network(self.tokenizer(captions).to(self.device))

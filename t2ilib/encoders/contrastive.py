"""Training a small CLIP from scratch: pictures and captions that belong together are pulled together, all others apart.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021
(https://arxiv.org/abs/2103.00020), figure 3.

Differences from the paper: words instead of byte pairs, networks of a million weights, several captions of each picture
per step, and pairs of a batch that carry the very same caption are left out of the sums (they are no negatives).
Pairs of one class stay in: their captions differ, and telling them apart is the task. With the word loss a picture's
vector also has to tell which words its captions use, and a caption's which are its own, by one linear layer that is
dropped afterwards (Joulin et al. 2016, https://arxiv.org/abs/1511.02251, for pictures): a detail, whose features in
picture and text both start near zero, then need not wait until the other side has found it. The first `words_first`
steps have that loss alone. Single words do not say what is red: with `parts` the layer also has to tell of which part
the captions say each.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from t2ilib import losses
from t2ilib.data.captioned import CaptionedImages
from t2ilib.encoders.clip import CLIPEncoder, build_encoder, describe, outline, save_encoder, to_clip_range
from t2ilib.encoders.exchange import NOUNS, WordExchange
from t2ilib.encoders.reading import exchanged_values, word_wins
from t2ilib.encoders.retrieval import retrieval
from t2ilib.encoders.stored import LAYERS, check_name, check_stem
from t2ilib.encoders.tokens import END, PAD, SPECIAL, WordTokenizer
from t2ilib.errors import InputError, one_line
from t2ilib.features import Batch, Needs
from t2ilib.settings import BATCH, COUNT, POSITIVE, SHARE, STEPS, WEIGHT, WIDTH, Range, check_ranges
from t2ilib.task import Task, warmup_cosine

WORD_SCALE = 14.0  # vectors are of unit length: what the linear layer sees of them is not


@dataclass(frozen=True)
class ClipConfig:
    """Networks and training of a small CLIP; the paper's values are those of its ViT-B/32 on 400 million pairs."""

    name: str = "clip"  # enters file names and reports
    embed_dim: Annotated[int, WIDTH] = 128  # length of the shared vectors; paper 512
    image_size: Annotated[int, WIDTH] = 64  # pixels; paper 224
    patch_size: Annotated[int, WIDTH] = 8  # pixels; paper 32
    image_width: Annotated[int, WIDTH] = 128  # channels of the picture transformer; paper 768
    image_layers: Annotated[int | tuple[int, ...], LAYERS] = 4  # its blocks; paper 12; four numbers: stages of a ResNet
    stem: Annotated[tuple[int, ...], WIDTH] = ()  # channels of halving convolutions before it; paper none
    text_width: Annotated[int, WIDTH] = 128  # channels of the text transformer; paper 512
    text_layers: Annotated[int, LAYERS] = 2  # its blocks; paper 12
    context_length: Annotated[int, Range(least=3, most=10_000)] = 48  # tokens, start and end included; paper 77
    minimum_count: Annotated[int, COUNT] = 1  # a word must occur so often in the captions to enter the vocabulary
    batch_size: Annotated[int, BATCH] = 128  # pictures a step; paper 32,768
    captions: Annotated[int, Range(least=1, most=2)] = 2  # drawn for each picture of the batch; paper 1
    exchanged: Annotated[int, Range(least=0, most=100)] = 0  # captions beside each, one word wrong; paper 0
    words_first: Annotated[int, STEPS] = 0  # first steps, whose only loss is that of the captions' words; paper 0
    word_loss: Annotated[float, WEIGHT] = 0.0  # weight of that loss beside the contrastive one, afterwards; paper 0
    parts: bool = False  # it also asks of which part a word is said, "red" of wings; paper no
    lr: Annotated[float, POSITIVE] = 1e-3  # peak; paper 5e-4
    warmup: Annotated[int, STEPS] = 100  # steps of linear rise, then a cosine to zero; paper 2,000
    betas: Annotated[tuple[float, float], SHARE] = (0.9, 0.98)  # of AdamW; the paper's
    weight_decay: Annotated[float, WEIGHT] = 0.1  # on matrices, not on gains, biases and the temperature; paper 0.2
    patch_dropout: Annotated[float, SHARE] = 0.0  # share of patches left out while training; paper 0

    def __post_init__(self) -> None:
        """Raise InputError for numbers that cannot be."""
        check_ranges(self, "model.")
        check_name(self.name)
        if self.image_layers == () or (isinstance(self.image_layers, tuple) and len(self.image_layers) != 4):
            raise InputError(
                f"model.image_layers = {self.image_layers}: blocks of a transformer, or a ResNet's four stages"
            )
        if self.parts and not (self.words_first or self.word_loss):
            raise InputError("parts = True: nothing asks for words; set words_first (steps) or word_loss")
        check_stem(self.stem, self.image_layers, self.patch_size, self.image_size, "model.")

    @classmethod
    def tiny(cls, **changes: Any) -> "ClipConfig":
        """Return sizes for tests: 32 pixels, a few thousand weights."""
        sizes = {"embed_dim": 32, "image_size": 32, "image_width": 32, "image_layers": 2, "context_length": 12}
        return cls(
            **{**sizes, "text_width": 32, "text_layers": 1, "batch_size": 32, "lr": 3e-3, "warmup": 5, **changes}
        )


class Drawn(NamedTuple):
    """The captions of a batch: K of each of its B pictures, and E beside each that have one word wrong."""

    groups: Tensor  # (K, B) equal captions have equal numbers
    tokens: Tensor  # (K, 1 + E, B, T) the caption, then the wrong ones
    changed: Tensor  # (K, E, B) bool, where a word could be exchanged


class Contrastive(Task):
    """A CLIP and its training on the captions of one data set; with several processes each has its own negatives."""

    Config = ClipConfig
    trained = ("model",)

    def __init__(self, config: ClipConfig, captions: Sequence[Sequence[str]], start: CLIPEncoder | None = None):
        """Take the captions of each picture. With `start`, networks, words and first weights are that encoder's."""
        super().__init__(config)
        distinct = dict.fromkeys(chain.from_iterable(captions))
        if start is None:
            words = WordTokenizer.from_captions(
                chain.from_iterable(captions), config.context_length, config.minimum_count
            )
            encoder = build_encoder(describe(config, words.vocabulary))
        else:
            if "training" not in start.config:
                raise InputError(
                    f"start: {start.name} was not trained here; only a small CLIP of ours can be trained on"
                )
            encoder = copy.deepcopy(start)
            encoder.config = start.config | {"training": asdict(config), "started_from": start.config["training"]}
        self.model = nn.ModuleDict({"clip": encoder.model.requires_grad_(True)})
        self.tokenizer, self.about, self.image_size = encoder.tokenizer, encoder.config, encoder.image_size
        self.needs = Needs(captions=config.captions)
        number = {caption: index for index, caption in enumerate(distinct)}
        numbers = torch.tensor([number[caption] for own in captions for caption in own])
        tokens = self.tokenizer(list(number))
        self.exchange = WordExchange(self.tokenizer, tokens)
        tables = {"numbers": numbers, "tokens": tokens, "mean": encoder.mean, "std": encoder.std}
        if config.words_first or config.word_loss:
            pairs = self._pairs(tokens).unique()
            self.register_buffer("pairs", pairs[pairs >= 0], persistent=False)
            owner = torch.arange(len(captions)).repeat_interleave(torch.tensor([len(own) for own in captions]))
            tables["used"] = self.words_used(tokens[numbers], owner)
            self.model["words"] = nn.Linear(self.clip.text_projection.shape[1], tables["used"].shape[1])
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    @property
    def clip(self) -> nn.Module:
        """The CLIP, without what only its training needs."""
        return self.model["clip"]

    @classmethod
    def build(cls, values: Mapping[str, Any], encoders: Mapping[str, Any], dataset: CaptionedImages) -> "Contrastive":
        """Return the task for the captions of `dataset`; an encoder of the role "start" is trained further."""
        config = cls.configure(values)
        if len(dataset) < config.batch_size:
            raise InputError(f"{len(dataset)} pictures: fewer than a batch of {config.batch_size}; lower batch_size")
        return cls(config, dataset.captions, encoders.get("start"))

    @classmethod
    def outline(cls, values: Mapping[str, Any], encoders: Mapping[str, Any]) -> nn.Module:
        """Return the networks on the device "meta", without words; InputError where no folder of them could be read."""
        try:
            with torch.random.fork_rng(devices=[]):
                return outline(describe(cls.configure(values), ()))
        except (AssertionError, ArithmeticError, RuntimeError) as error:
            raise InputError(f"model: open_clip builds no such networks ({one_line(repr(error))})") from error

    @classmethod
    def check_steps(cls, config: ClipConfig, steps: int) -> None:
        """Raise InputError where no step would be left for the contrast."""
        if config.words_first >= steps:
            raise InputError(
                f"words_first = {config.words_first}: of {steps} steps none is left for the contrast; lower it"
            )

    def prepare(self, batch: Batch, roles: tuple[str, ...]) -> Drawn:
        """Look the captions' tokens up and make wrong ones."""
        groups = self.numbers[batch.captions]
        tokens = self.tokens[groups]  # (K, B, T)
        repeated = tokens[:, None].expand(-1, self.config.exchanged, -1, -1)  # (K, E, B, T)
        wrong, changed = self.exchange(repeated.flatten(0, 2))
        return Drawn(
            groups, torch.cat([tokens[:, None], wrong.view(repeated.shape)], 1), changed.view(repeated.shape[:3])
        )

    def loss(self, role: str, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        """Return the term `words` in the first `words_first` steps, then `contrastive`, a mean over the K captions.

        With `word_loss` both stand together afterwards. `accuracy` and `temperature` are only recorded.
        """
        first = batch.step < self.config.words_first
        tokens = drawn.tokens[:, :1] if first else drawn.tokens
        pixels = to_clip_range(batch.images, self.image_size, self.mean, self.std)
        with _attention(pixels.device.type):
            images = self.clip.encode_image(pixels)
            texts = encode_texts(self.clip, tokens.flatten(0, 2))
        images = F.normalize(images.float(), dim=-1)
        texts = F.normalize(texts.float(), dim=-1).unflatten(0, tokens.shape[:3])  # (K, 1 + E, B, D)
        found = {} if first else self._contrastive(images, texts, drawn)
        if weight := 1.0 if first else self.config.word_loss:
            own = drawn.tokens[:, 0].flatten(0, 1)
            sides = (images, self.used[batch.indices]), (texts[:, 0].flatten(0, 1), self.words_used(own))
            asked = [losses.words(self.model["words"](WORD_SCALE * side), used.float()) for side, used in sides]
            found["words"] = weight * torch.stack(asked).mean()
        return found

    def words_used(self, tokens: Tensor, owner: Tensor | None = None) -> Tensor:
        """Return which words captions use, and with `parts` of which part they say them, (N, V + P) bool.

        Row i is about all rows of `tokens` (B, T) whose `owner` (B,) is i; without owners about row i alone. Pairs of
        word and part that occur in no caption of the training are left out.
        """
        size, count = len(self.tokenizer), len(tokens) if owner is None else int(owner[-1]) + 1
        owner = torch.arange(count, device=tokens.device) if owner is None else owner
        pairs = self._pairs(tokens)
        place = torch.searchsorted(self.pairs, pairs).clamp(max=max(len(self.pairs) - 1, 0))
        known = self.pairs[place] == pairs if len(self.pairs) else torch.zeros_like(pairs, dtype=torch.bool)
        columns = torch.cat([tokens, (size + place).where(known, PAD)], 1)
        used = torch.zeros(count, size + len(self.pairs), device=tokens.device)
        used.index_put_((owner[:, None].expand_as(columns), columns), torch.ones_like(columns, dtype=used.dtype))
        used[:, : len(SPECIAL)] = 0
        return used.bool()

    def asked_of(self, caption: str) -> list[str]:
        """Return what `words_used` marks for a caption, in words: "red", "wings", and with `parts` "red of wing"."""
        size, nouns = len(self.tokenizer), [line.split()[0] for line in NOUNS.split(",")]
        used = self.words_used(self.tokenizer([caption]).to(self.pairs.device))[0].nonzero()[:, 0].tolist()
        words = self.tokenizer.words([column for column in used if column < size])
        pairs = [divmod(self.pairs[column - size].item(), size) for column in used if column >= size]
        return words + [f"{self.tokenizer.words([word])[0]} of {nouns[noun - 1]}" for noun, word in pairs]

    def _pairs(self, tokens: Tensor) -> Tensor:
        """Return a number for each word (B, T) together with the part that it is said of; -1 where it is of none."""
        if not self.config.parts:
            return torch.full_like(tokens, -1)
        about = self.exchange.said_of(tokens)
        return (about * len(self.tokenizer) + tokens).where(about > 0, -1)

    def _contrastive(self, images: Tensor, texts: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """Return the contrastive term of unit vectors of pictures (B, D) and texts (K, 1 + E, B, D), and its record."""
        wrong = texts[:, 1:] * drawn.changed[..., None]
        scale = self.clip.logit_scale.exp()
        triples = zip(texts[:, 0], drawn.groups, wrong, strict=True)
        terms, right = zip(*(losses.contrastive(images, *text, scale=scale) for text in triples), strict=True)
        watched = {"accuracy": torch.stack(right).mean(), "temperature": 1 / scale}
        return {"contrastive": torch.stack(terms).mean()} | {name: value.detach() for name, value in watched.items()}

    def after_update(self, role: str) -> None:
        """Keep the temperature above 1/100, the paper's bound."""
        self.clip.logit_scale.data.clamp_(0, math.log(100))

    def rate(self, role: str, step: int, steps: int) -> float:
        """Rise for `warmup` steps, then fall to zero along a cosine."""
        return warmup_cosine(step, steps, self.config.warmup)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return AdamW, whose decay spares gains, biases and the temperature."""
        matrices = [weight for weight in self.model.parameters() if weight.ndim >= 2]
        others = [weight for weight in self.model.parameters() if weight.ndim < 2]
        groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        config = self.config
        options = {"betas": config.betas, "eps": 1e-6, "weight_decay": config.weight_decay}
        return {"model": torch.optim.AdamW(groups, config.lr, **options, fused=True)}

    def encoder(self) -> CLIPEncoder:
        """Return a frozen copy, ready to encode."""
        return CLIPEncoder(copy.deepcopy(self.clip), self.tokenizer, self.about, self.about["mean"], self.about["std"])

    def measure(self, dataset: CaptionedImages) -> dict[str, float]:
        """Return how often captions of pictures that were not trained on find their own, and what is told apart."""
        encoder = self.encoder().to(self.mean.device)
        if dataset.attributes is not None:
            told = exchanged_values(encoder, dataset)
            return retrieval(encoder, dataset) | {f"exchanged/{name}": share for name, share in told.items()}
        found = retrieval(encoder, dataset)
        for kind, won in word_wins(encoder, dataset).items():
            found |= {f"exchanged/{kind}": float(won.mean()), f"asked/{kind}": len(won)}
        return found

    def save(self, folder: str | Path) -> None:
        """Write the encoder, as `t2ilib.encoders.load_encoder` reads it."""
        save_encoder(self.encoder(), folder)


def encode_texts(clip: nn.Module, tokens: Tensor, parts: int = 4) -> Tensor:
    """Return the vectors (B, D) of token rows (B, T), as `clip.encode_text` does; on a CPU in a third of the time.

    There the rows go through by length, in a few parts, each without the padding that none of its rows needs: a causal
    tower's state at <end> does not depend on what follows.
    """
    if tokens.device.type != "cpu":
        return clip.encode_text(tokens)
    ends = (tokens == END).int().argmax(1)
    order, vectors = ends.argsort(stable=True), []
    for rows in order.chunk(parts):
        length = int(ends[rows[-1]]) + 1
        states = clip.token_embedding(tokens[rows, :length]) + clip.positional_embedding[:length]
        states = clip.ln_final(clip.transformer(states, attn_mask=clip.attn_mask[:length, :length]))
        vectors.append(states[torch.arange(len(rows)), ends[rows]] @ clip.text_projection)
    return torch.cat(vectors)[order.argsort()]


def _attention(kind: str) -> AbstractContextManager:
    """Choose the plain attention kernel on CPUs: for sequences this short it trains 1.6 to 2 times as fast."""
    return sdpa_kernel(SDPBackend.MATH) if kind == "cpu" else nullcontext()

"""Training a small CLIP from scratch: pictures and captions that belong together are pulled together, all others apart.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021
(https://arxiv.org/abs/2103.00020), figure 3.

Differences from the paper: words instead of byte pairs, networks of a million weights, several captions of each picture
per step, and pairs of a batch that carry the very same caption are left out of the sums (they are no negatives).
Pairs of one class stay in: their captions differ, and telling them apart is the task.
"""

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from t2ilib.data import load
from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError
from t2ilib.text.clip import FORMAT, VERSION, CLIPEncoder, build_encoder, open_encoder, save_encoder, to_unit_range
from t2ilib.text.exchange import WordExchange
from t2ilib.text.retrieval import first_of_each, retrieval
from t2ilib.text.tokens import END, PAD, WordTokenizer


@dataclass(frozen=True)
class ClipConfig:
    """Networks and training of a small CLIP; the paper's values are those of its ViT-B/32 on 400 million pairs."""

    name: str = "toy-clip"  # enters file names and reports
    embed_dim: int = 128  # length of the shared vectors; paper 512
    image_size: int = 64  # pixels; paper 224
    patch_size: int = 8  # pixels; paper 32
    image_width: int = 128  # channels of the picture transformer; paper 768
    image_layers: int | tuple[int, ...] = 4  # its blocks; paper 12. Four numbers: the stages of the paper's ResNet
    text_width: int = 128  # channels of the text transformer; paper 512
    text_layers: int = 2  # its blocks; paper 12
    context_length: int = 48  # tokens a caption, start and end included; paper 77
    minimum_count: int = 1  # a word must occur so often in the captions to enter the vocabulary
    steps: int = 1000  # optimiser steps; paper 32 epochs
    batch_size: int = 128  # pictures a step; paper 32,768
    captions_per_picture: int = 2  # captions drawn for each picture of the batch; paper 1
    exchanged: int = 0  # captions beside each that have one word wrong (exchange.py); paper 0
    learning_rate: float = 1e-3  # peak; paper 5e-4
    warmup: int = 100  # steps of linear rise, then a cosine to zero; paper 2,000
    betas: tuple[float, float] = (0.9, 0.98)  # of AdamW; the paper's
    weight_decay: float = 0.1  # on matrices, not on gains, biases and the temperature; paper 0.2
    patch_dropout: float = 0.0  # share of patches left out while training; paper 0
    shift: int = 3  # pixels by which a picture is moved at most, at image_size 64; paper: random crops
    flip: bool = True  # mirror half of the pictures; paper: no
    bfloat16: bool | None = None  # autocast; None: where the hardware computes it; paper: float16
    seed: int = 0
    log_every: int = 50  # steps between two records


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, groups: Tensor, wrong: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the symmetric InfoNCE loss and the top-1 share of texts that find their picture, both scalars.

    images, texts (B, D) of unit length, row i with row i; scale = 1 / temperature; groups (B,) gives equal captions
    equal numbers. L = mean of CE(scale * I T', i) and CE(scale * T I', i) (figure 3 of the paper), where the pairs
    i != j of one group are left out of the softmax. The encoders minimise it. With `wrong` (E, B, D), picture i also
    has to tell its text from wrong_ei (rows of zeros are left out); Yuksekgonul et al. 2023, section 4.
    """
    logits = scale * images @ texts.T
    same = (groups[:, None] == groups[None, :]).fill_diagonal_(False)
    logits = logits.masked_fill(same, -math.inf)
    target = torch.arange(len(logits), device=logits.device)
    rivals = logits
    if wrong is not None:
        rival = (images * wrong).sum(2).masked_fill(~wrong.any(2), -math.inf)  # (E, B)
        rivals = torch.cat([logits, scale * rival.T], 1)  # (B, B + E)
    loss = (F.cross_entropy(rivals, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (logits.argmax(0) == target).float().mean()


def train_clip(
    dataset: CaptionedImages,
    config: ClipConfig,
    folder: str | Path,
    device: torch.device | str = "cpu",
    start: str | Path | None = None,
) -> Iterator[dict]:
    """Train on all pictures of `dataset`; yield records, and write config.json and model.safetensors at the end.

    A record holds step, loss (nats), accuracy (top-1 within the batch), temperature, seconds. Run the iterator to its
    end: `for record in train_clip(...)`. `t2ilib.text.load_encoder(folder)` reads the result. With `start`, weights
    and vocabulary come from an encoder trained before, whose settings are kept in config.json beside the new ones.
    """
    if len(dataset) < config.batch_size:
        raise InputError(f"{len(dataset)} pictures: fewer than a batch of {config.batch_size}; lower batch_size")
    torch.manual_seed(config.seed)
    if start is None:
        encoder = build_encoder(_encoder_config(dataset, config)).to(device)
    else:
        encoder = open_encoder(start).to(device)
        encoder.config |= {"training": asdict(config), "started_from": encoder.config["training"]}
    model = encoder.model.requires_grad_(True)
    nn.Module.train(model)
    examples = _Examples(dataset, encoder, config)
    optimizer = _optimizer(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warmup_cosine(step, config))
    began = time.perf_counter()
    for step in range(1, config.steps + 1):
        loss, accuracy = _step_loss(encoder, examples.batch(step), config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        model.logit_scale.data.clamp_(0, math.log(100))  # the paper's bound on the temperature
        if step % config.log_every == 0 or step in (1, config.steps):
            record = {"step": step, "loss": loss.item(), "accuracy": accuracy.item()}
            temperature = math.exp(-model.logit_scale.item())
            yield record | {"temperature": temperature, "seconds": time.perf_counter() - began}
    save_encoder(encoder, folder)


class _Batch(NamedTuple):
    """B pictures with K captions each."""

    pictures: Tensor  # (B, 3, H, W) in [-1, 1]
    tokens: Tensor  # (K, B, T)
    groups: Tensor  # (K, B) equal captions have equal numbers
    wrong: Tensor  # (K, E, B, T) the tokens with one word exchanged, each time another
    changed: Tensor  # (K, E, B) bool, where a word could be exchanged


class _Examples:
    """Batches of pictures and tokens, a pure function of the seed and the step."""

    def __init__(self, dataset: CaptionedImages, encoder: CLIPEncoder, config: ClipConfig):
        self.images, self.config, self.device = dataset.images, config, encoder.device
        captions = list(chain.from_iterable(dataset.captions))
        number = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
        self.tokens = encoder.tokenizer(list(number))  # (distinct captions, T)
        self.exchange = WordExchange(encoder.tokenizer)
        self.numbers = np.array([number[caption] for caption in captions])
        self.counts = np.array([len(row) for row in dataset.captions])
        self.first = np.cumsum(self.counts) - self.counts

    def batch(self, step: int) -> _Batch:
        """Return the batch of a step, counted from 1."""
        per_epoch = len(self.images) // self.config.batch_size
        epoch, place = divmod(step - 1, per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.images))
        rows = np.sort(order[place * self.config.batch_size :][: self.config.batch_size])
        random = np.random.default_rng((self.config.seed, epoch, place))
        pictures = torch.from_numpy(self._augment(self.images[rows], random)).to(self.device)
        draws = random.integers(self.counts[rows], size=(self.config.captions_per_picture, len(rows)))
        numbers = self.numbers[self.first[rows] + draws]
        tokens = self.tokens[numbers]  # (K, B, T)
        repeated = tokens[:, None].expand(-1, self.config.exchanged, -1, -1)  # (K, E, B, T)
        generator = torch.Generator().manual_seed(int(random.integers(2**63)))
        wrong, changed = self.exchange(repeated.flatten(0, 2), generator)
        return _Batch(
            pictures.permute(0, 3, 1, 2).float() / 127.5 - 1,
            tokens.to(self.device),
            torch.from_numpy(numbers).to(self.device),
            wrong.view(repeated.shape).to(self.device),
            changed.view(repeated.shape[:3]).to(self.device),
        )

    def _augment(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Move each picture (B, H, W, 3) by a few pixels, repeating its border, and mirror half of them."""
        count, size = images.shape[:2]
        most = round(self.config.shift * size / 64)
        shifts = random.integers(-most, most + 1, size=(2, count, 1))
        rows, columns = (np.arange(size) + shifts).clip(0, size - 1)  # (B, H), (B, W)
        mirrored = random.random(count) < 0.5 if self.config.flip else np.zeros(count, dtype=bool)
        columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
        return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _step_loss(encoder: CLIPEncoder, batch: _Batch, config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Return loss and accuracy of a batch, both averaged over its K draws of captions."""
    model, kind = encoder.model, encoder.device.type
    reduced = _has_bfloat16(kind) if config.bfloat16 is None else config.bfloat16
    pixels = (to_unit_range(batch.pictures, encoder.image_size) - encoder.mean) / encoder.std
    tokens = torch.cat([batch.tokens[:, None], batch.wrong], 1)  # (K, 1 + E, B, T): right, then wrong
    with torch.autocast(kind, torch.bfloat16, enabled=reduced), _attention(kind):
        images = model.encode_image(pixels)
        texts = model.encode_text(tokens.flatten(0, 2))
    images = F.normalize(images.float(), dim=-1)
    texts = F.normalize(texts.float(), dim=-1).unflatten(0, tokens.shape[:3])
    wrong = texts[:, 1:] * batch.changed[..., None]
    scale = model.logit_scale.exp()
    triples = zip(texts[:, 0], batch.groups, wrong, strict=True)
    pairs = [contrastive_loss(images, text, scale, group, other) for text, group, other in triples]
    losses, accuracies = zip(*pairs, strict=True)
    return torch.stack(losses).mean(), torch.stack(accuracies).mean()


def _attention(kind: str) -> AbstractContextManager:
    """Choose the plain attention kernel on CPUs: for sequences this short it trains 1.6 to 2 times as fast."""
    return sdpa_kernel(SDPBackend.MATH) if kind == "cpu" else nullcontext()


def _has_bfloat16(kind: str) -> bool:
    """Say whether the hardware multiplies in bfloat16; elsewhere it is emulated, and slower than float32."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def _optimizer(model: nn.Module, config: ClipConfig) -> torch.optim.Optimizer:
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups, config.learning_rate, betas=config.betas, eps=1e-6, weight_decay=config.weight_decay, fused=True
    )


def _warmup_cosine(step: int, config: ClipConfig) -> float:
    """Return the share of the peak learning rate at a step, counted from 0."""
    warmup = min(config.warmup, config.steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def _encoder_config(dataset: CaptionedImages, config: ClipConfig) -> dict:
    """Return what config.json holds: open_clip's model configuration, the vocabulary and the training's settings."""
    captions = chain.from_iterable(dataset.captions)
    tokenizer = WordTokenizer.from_captions(captions, config.context_length, config.minimum_count)
    vision = {"image_size": config.image_size, "patch_size": config.patch_size, "patch_dropout": config.patch_dropout}
    layers = config.image_layers if isinstance(config.image_layers, int) else list(config.image_layers)
    vision |= {"width": config.image_width, "layers": layers, "head_width": 32}
    text = {"context_length": config.context_length, "vocab_size": len(tokenizer), "heads": config.text_width // 32}
    text |= {"width": config.text_width, "layers": config.text_layers}
    text |= {"pool_type": "eos", "eos_id": END, "pad_id": PAD}
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": config.name,
        "model": {"embed_dim": config.embed_dim, "vision_cfg": vision, "text_cfg": text},
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "vocabulary": tokenizer.vocabulary,
        "training": asdict(config),
    }


def main(arguments: list[str] | None = None) -> None:
    """Train from the command line, print the records and, where the data has held-out pictures, the retrieval rates."""
    defaults = ClipConfig()
    parser = argparse.ArgumentParser(prog="python -m t2ilib.text.contrastive", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="toy", help="'toy', a folder, or a zip of captioned pictures")
    parser.add_argument("--folder", required=True, help="where config.json and model.safetensors are written")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--exchanged", type=int, default=0, help="captions with one word wrong, beside each caption")
    parser.add_argument("--image-width", type=int, default=defaults.image_width)
    parser.add_argument(
        "--image-layers", type=int, nargs="+", default=[defaults.image_layers], help="4 of them: a ResNet"
    )
    parser.add_argument("--name", default=defaults.name)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--start", help="folder of an encoder to train further; its networks and name are kept")
    options = parser.parse_args(arguments)
    dataset = load(options.data, defaults.image_size)
    layers = options.image_layers[0] if len(options.image_layers) == 1 else tuple(options.image_layers)
    given = {name: value for name, value in vars(options).items() if name not in ("data", "folder", "device", "start")}
    config = replace(defaults, **given | {"image_layers": layers})
    for record in train_clip(dataset.split("train"), config, options.folder, options.device, options.start):
        print(" ".join(f"{name} {value:.4g}" for name, value in record.items()), flush=True)
    if "test" in dataset.splits:
        test = dataset.split("test")
        count = min(100, len(first_of_each(test)))
        rates = retrieval(open_encoder(options.folder), test, count)
        print(f"retrieval, top-1 among {count} held-out pictures:", rates)


if __name__ == "__main__":
    main()

"""CLIP, frozen, as text encoder, as judge of pictures and as a differentiable loss.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021
(https://arxiv.org/abs/2103.00020). The networks are open_clip's, of any size, from the toy CLIP that this
project ships to the released ones.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from torch import Tensor, nn

from t2ilib import weights
from t2ilib.encoders.effort import check_effort
from t2ilib.encoders.stored import check_stored
from t2ilib.encoders.tokens import END, PAD, SPECIAL, WordTokenizer
from t2ilib.errors import InputError, one_line
from t2ilib.features import Text
from t2ilib.pictures import resized

KIND = "t2ilib-clip"


def to_unit_range(images: Tensor, size: int) -> Tensor:
    """Resize pictures (B, 3, H, W) in [-1, 1] to (B, 3, size, size) and map them to [0, 1]: black is 0, white is 1.

    Antialiased, differentiable, not clamped where bicubic overshoots: see `t2ilib.pictures.resized`.
    """
    return (resized(images, size) + 1) / 2


def to_clip_range(images: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Return what a CLIP is shown of pictures (B, 3, H, W) in [-1, 1]: in [0, 1], then standardised per channel."""
    return (to_unit_range(images, size) - mean) / std


class CLIPEncoder(nn.Module):
    """A frozen open_clip model with its tokenizer: captions and pictures to vectors of one space.

    It stays frozen: `train()` has no effect and no weight takes a gradient, but gradients pass through to the pictures.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[Sequence[str]], Tensor],
        config: dict,
        mean: Sequence[float] = OPENAI_DATASET_MEAN,
        std: Sequence[float] = OPENAI_DATASET_STD,
    ):
        """Wrap `model`; `config` (JSON-like, with "name") says what it is and enters the fingerprint."""
        super().__init__()
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.name = config["name"]
        device = next(model.parameters()).device
        self.register_buffer("mean", torch.tensor(mean, device=device).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device=device).view(3, 1, 1), persistent=False)
        size = model.visual.image_size
        self.image_size = size if isinstance(size, int) else size[0]
        self.requires_grad_(False)
        self.eval()
        probe = self.encode(["a bird"])
        self.sentence_dim = probe.sentence.shape[1]
        self.word_dim = None if probe.words is None else probe.words.shape[2]

    def train(self, mode: bool = True) -> "CLIPEncoder":
        """Stay in evaluation mode, whatever `mode` says."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of configuration and weights."""
        return weights.digest(self.model.state_dict(), json.dumps(self.config, sort_keys=True))

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Text:
        """Return sentence (B, D), words (B, T, D) and mask (B, T), True at padding.

        The sentence is the pooled embedding before normalisation. Words are the states after the last layer norm, one
        per token (start and end tokens too), through the sentence's own projection: the pooled token's row is the
        sentence. Encoders of other build (Hugging Face towers) give no words.
        """
        tokens = self.tokenizer(list(captions)).to(self.device)
        states: list[Tensor] = []
        norm = self._text_part("ln_final")
        hook = norm.register_forward_hook(lambda _module, _inputs, output: states.append(output)) if norm else None
        try:
            sentence = self.model.encode_text(tokens)
        finally:
            if hook:
                hook.remove()
        if not states or states[0].shape[:2] != tokens.shape:
            return Text(sentence)
        return Text(sentence, self._project(states[0]), self._padding(tokens))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return embeddings (B, D), not normalised, of pictures (B, 3, H, W) in [-1, 1]; differentiable."""
        return self.model.encode_image(to_clip_range(images, self.image_size, self.mean, self.std))

    def similarity(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Return the cosine (B,) between picture i of (B, 3, H, W) in [-1, 1] and caption i; differentiable."""
        return F.cosine_similarity(self.encode_images(images), self.encode(captions).sentence, dim=-1)

    def unknown(self, caption: str) -> list[str]:
        """Return the words of `caption` that the tokenizer has no entry for (byte-pair tokenizers know all)."""
        return self.tokenizer.unknown(caption) if hasattr(self.tokenizer, "unknown") else []

    def _text_part(self, name: str) -> nn.Module | Tensor | None:
        """Return a part of the text tower, which open_clip keeps in the model itself or in `model.text`."""
        return getattr(self.model, name, getattr(getattr(self.model, "text", None), name, None))

    def _project(self, states: Tensor) -> Tensor:
        projection = self._text_part("text_projection")
        if projection is None:
            return states
        return projection(states) if isinstance(projection, nn.Module) else states @ projection

    def _padding(self, tokens: Tensor) -> Tensor:
        """Return True behind the end token; "argmax" pooling takes the highest id for it, "eos" a given one.

        Comparing with the padding's id would not do: in CLIP's byte-pair table that id is also the exclamation mark.
        """
        pooling = self._text_part("text_pool_type") or self._text_part("pool_type")
        if pooling == "eos":
            last = (tokens == (self._text_part("text_eos_id") or self._text_part("eos_id"))).int().argmax(1)
        elif pooling == "argmax":
            last = tokens.argmax(1)
        else:
            return tokens == (self._text_part("pad_id") or 0)
        return torch.arange(tokens.shape[1], device=tokens.device) > last[:, None]


def describe(config: Any, vocabulary: Sequence[str]) -> dict:
    """Return what config.json holds of a new CLIP with the sizes of `config`, a `ClipConfig`, and these words."""
    vision = {"image_size": config.image_size, "patch_size": config.patch_size, "patch_dropout": config.patch_dropout}
    layers = config.image_layers if isinstance(config.image_layers, int) else list(config.image_layers)
    vision |= {"width": config.image_width, "layers": layers, "head_width": 32}
    text = {"context_length": config.context_length, "vocab_size": len(SPECIAL) + len(vocabulary)}
    text |= {"width": config.text_width, "layers": config.text_layers, "heads": config.text_width // 32}
    text |= {"pool_type": "eos", "eos_id": END, "pad_id": PAD}
    return {
        **weights.described(KIND),
        "name": config.name,
        "stem": list(config.stem),
        "model": {"embed_dim": config.embed_dim, "vision_cfg": vision, "text_cfg": text},
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "vocabulary": list(vocabulary),
        "training": asdict(config),
    }


def build_encoder(config: dict) -> CLIPEncoder:
    """Return an encoder with fresh weights from the configuration of a saved folder."""
    tokenizer = WordTokenizer(config["vocabulary"], config["model"]["text_cfg"]["context_length"])
    return CLIPEncoder(build_model(config), tokenizer, config, config["mean"], config["std"])


def build_model(config: dict) -> nn.Module:
    """Return the networks alone."""
    model = CLIP(**config["model"])
    if stem := config.get("stem"):
        model.visual.conv1 = convolutional_stem(stem, model.visual.conv1.out_channels)
    return model


def outline(config: dict) -> nn.Module:
    """Return the networks on the device "meta"; InputError where a picture or a caption would take too much of them."""
    with torch.device("meta"):
        model = build_model(config)
    sizes = config["model"]["vision_cfg"]["image_size"], config["model"]["text_cfg"]["context_length"]
    check_effort(model.eval(), *sizes)
    return model


def convolutional_stem(channels: Sequence[int], width: int) -> nn.Sequential:
    """Return what turns pictures (B, 3, H, W) into a transformer's patches (B, width, h, w), h = H / 2^len(channels).

    Xiao et al., "Early Convolutions Help Transformers See Better", 2021 (https://arxiv.org/abs/2106.14881), section 3.
    """
    pairs = zip((3, *channels), channels, strict=False)
    halvings = [(nn.Conv2d(*pair, 3, 2, 1, bias=False), nn.BatchNorm2d(pair[1]), nn.ReLU()) for pair in pairs]
    return nn.Sequential(*chain.from_iterable(halvings), nn.Conv2d(channels[-1], width, 1))


def save_encoder(encoder: CLIPEncoder, folder: str | Path) -> None:
    """Write the encoder to `folder`, in half precision."""
    weights.save_network(folder, KIND, encoder.config, encoder.model)


def open_encoder(folder: str | Path) -> CLIPEncoder:
    """Read an encoder that `save_encoder` wrote; `InputError` names the file that is missing, damaged or hostile.

    What config.json declares is compared with the weights before memory is taken for it.
    """
    remedy = "train the encoder again (t2i train clip)"
    config, path = weights.read_config(folder, KIND, remedy), Path(folder) / weights.CONFIG
    try:
        check_stored(config, len(weights.stored_shapes(folder, remedy)))
        WordTokenizer(config["vocabulary"], config["model"]["text_cfg"]["context_length"])
        network = outline(config)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = one_line(error if isinstance(error, InputError) else repr(error), 200)
        raise InputError(f"{path}: damaged ({reason}); {remedy}") from error
    weights.check_belongs(folder, config, remedy)
    weights.check_shapes(folder, network, remedy)
    encoder = build_encoder(config)
    weights.load_weights(folder, encoder.model, remedy)
    check_answers(encoder, str(Path(folder) / weights.WEIGHTS), remedy)
    return encoder


@torch.no_grad()
def check_answers(encoder: CLIPEncoder, source: str, remedy: str) -> None:
    """Raise InputError, naming the `source` of its weights, for an encoder whose answers are no numbers."""
    picture = torch.zeros(1, 3, encoder.image_size, encoder.image_size, device=encoder.device)
    answers = encoder.encode(["a bird"]).sentence, encoder.encode_images(picture)
    if not all(answer.isfinite().all() for answer in answers):
        raise InputError(f"{source}: damaged (its answers are not finite); {remedy}")

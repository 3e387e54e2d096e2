"""CLIP, frozen, as text encoder, as judge of pictures and as a differentiable loss.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021
(https://arxiv.org/abs/2103.00020). The networks are open_clip's, of any size, from the toy CLIP that this
project ships to the released ones.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from t2ilib.errors import InputError
from t2ilib.files import atomic, write_json
from t2ilib.text.encoder import TextFeatures
from t2ilib.text.tokens import WordTokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT, VERSION = "t2ilib-clip", 1


def to_unit_range(images: Tensor, size: int) -> Tensor:
    """Resize pictures (B, 3, H, W) in [-1, 1] to (B, 3, size, size) and map them to [0, 1]: black is 0, white is 1.

    Antialiased bicubic on the pictures' device, differentiable. Bicubic overshoots a little at sharp edges; the values
    are not clamped there, so that the gradient is never cut. In float32 at least: CPUs do not resize bfloat16.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    if images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return (images + 1) / 2


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
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        size = model.visual.image_size
        self.image_size = size if isinstance(size, int) else size[0]
        self.requires_grad_(False)
        self.eval()
        self.sentence_dim = self.encode(["a bird"]).sentence.shape[1]

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
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> TextFeatures:
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
            return TextFeatures(sentence)
        return TextFeatures(sentence, self._project(states[0]), self._padding(tokens))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return embeddings (B, D), not normalised, of pictures (B, 3, H, W) in [-1, 1]; differentiable."""
        pixels = to_unit_range(images, self.image_size)
        return self.model.encode_image((pixels - self.mean) / self.std)

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


def build_encoder(config: dict) -> CLIPEncoder:
    """Return an encoder with fresh weights from the configuration of a saved folder."""
    model = CLIP(**config["model"])
    tokenizer = WordTokenizer(config["vocabulary"], config["model"]["text_cfg"]["context_length"])
    return CLIPEncoder(model, tokenizer, config, config["mean"], config["std"])


def save_encoder(encoder: CLIPEncoder, folder: str | Path) -> None:
    """Write config.json and model.safetensors into `folder`, each atomically; half precision is enough to read with."""
    folder = Path(folder)
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in encoder.model.state_dict().items()}
    with atomic(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    write_json(folder / CONFIG, encoder.config)


def open_encoder(folder: str | Path) -> CLIPEncoder:
    """Read an encoder that `save_encoder` wrote; `InputError` names the file that is missing or damaged."""
    folder = Path(folder)
    for path in (folder / CONFIG, folder / WEIGHTS):
        if not path.is_file():
            raise InputError(f"{path}: no such file; a folder written by train_clip holds {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if (config["format"], config["version"]) != (FORMAT, VERSION):
            raise InputError(f"{folder / CONFIG}: not written by this version of train_clip; train the encoder again")
        encoder = build_encoder(config)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{folder / CONFIG}: damaged ({error!r}); train the encoder again") from error
    try:
        encoder.model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS}: damaged ({error}); train the encoder again") from error
    return encoder

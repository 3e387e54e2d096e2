"""Trained systems, ready for captions: from a run folder or from shipped weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from t2ilib import models, text
from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS, atomic
from t2ilib.training.checkpoints import load_module, read_checkpoint
from t2ilib.training.recipe import Recipe, recipe_from
from t2ilib.training.run import Run


@dataclass
class Sampler:
    """A trained generator with the encoder that it is conditioned on.

    `step` is the number of generator steps that it was trained for, `folder` the run's, where it has one.
    """

    system: models.System
    encoder: text.TextEncoder
    recipe: Recipe
    step: int
    folder: Path | None = None

    @torch.no_grad()
    def generate(self, captions: Sequence[str], noise: Tensor) -> Tensor:
        """Return one picture per caption, (B, 3, H, W) in [-1, 1], for noise (B, Z)."""
        sentence = self.encoder.encode(list(captions)).sentence
        return self.system.generate(sentence, noise.to(sentence.device))

    def sample(
        self, captions: Sequence[str], seed: int = 0, per_caption: int = 1, truncation: float | None = None
    ) -> Tensor:
        """Return `per_caption` pictures of each caption, (len(captions) * per_caption, 3, H, W), caption by caption.

        Picture k of every caption shares its noise, so that only the words differ; a seed gives the same noise
        whatever the captions are. `truncation` as in `System.noise`.
        """
        noise = self.system.noise(per_caption, torch.Generator().manual_seed(seed), truncation=truncation)
        repeated = [caption for caption in captions for _ in range(per_caption)]
        return self.generate(repeated, noise.repeat(len(captions), 1))


def load_sampler(source: str | Path) -> Sampler:
    """Return the sampler of a run (folder or name), a checkpoint file, or shipped weights by name (`gancls_toy`).

    Raises InputError when there is no such thing, and names a file that is damaged.
    """
    path, folder = _find(source)
    tensors, about = read_checkpoint(path)
    recipe = recipe_from(about["recipe"], str(path))
    encoder = load_recipe_encoder(recipe, folder)
    system = models.build(recipe.system, **model_config(recipe, encoder))
    part = "ema" if any(name.startswith("ema.") for name in tensors) else "generator"
    load_module(system.generator, part, {name: value.float() for name, value in tensors.items()}, path)
    return Sampler(system.eval().requires_grad_(False), encoder, recipe, about["step"], folder)


def export(run: Run, path: str | Path, about: str) -> Path:
    """Write the averaged generator of `run`'s newest checkpoint alone, in half precision, to `path`.

    `about` is stored with it: what it was trained on, how long, with which result.
    """
    restored = run.restore()
    if restored is None:
        raise InputError(f"{run.folder}: has no checkpoint yet; train it first")
    tensors, details, _ = restored
    part = "ema." if any(name.startswith("ema.") for name in tensors) else "generator."
    small = {f"ema.{n.removeprefix(part)}": half(v) for n, v in tensors.items() if n.startswith(part)}
    details = {"recipe": details["recipe"], "step": details["step"], "about": about}
    with atomic(path) as temporary:
        save_file(small, temporary, metadata={"t2ilib": json.dumps(details)})
    return Path(path)


def half(value: Tensor) -> Tensor:
    """Return floating-point tensors in float16, others as they are."""
    return (value.half() if value.is_floating_point() else value).contiguous()


def model_config(recipe: Recipe, encoder: text.TextEncoder) -> dict:
    """Return the system's hyper-parameters: the recipe's, and the sizes that data and encoder decide."""
    return {"image_size": recipe.data.crop or recipe.data.size, "embedding_dim": encoder.sentence_dim, **recipe.model}


def load_recipe_encoder(recipe: Recipe, folder: Path | None, role: str = "text") -> text.TextEncoder:
    """Return the encoder that the recipe has for `role`: "text", or "clip" (its loss), or "evaluation" (its metrics).

    One that was trained on the run's own data lies in the run folder, under the name of its role. A role that names
    no encoder has the text's.
    """
    settings = getattr(recipe, role)
    if not settings.encoder and role != "text":
        return load_recipe_encoder(recipe, folder)
    if settings.encoder != "contrastive":
        return text.load_encoder(settings.encoder, **settings.options)
    if folder is None:
        raise InputError(f"{role}.encoder: contrastive needs the run folder, which holds its weights; give the folder")
    return text.load_encoder(str(folder / role))


def _find(source: str | Path) -> tuple[Path, Path | None]:
    """Return the weights file of `source`, and its run folder where it has one."""
    shipped = WEIGHTS / f"{source}.safetensors"
    if shipped.is_file():
        return shipped, None
    path = Path(source)
    if path.suffix == ".safetensors":
        return path, path.parent.parent if path.parent.name == "checkpoints" else None
    try:
        run = Run.open(source)
    except InputError:
        names = ", ".join(sorted(path.stem for path in WEIGHTS.glob("*.safetensors")))
        raise InputError(f"{source}: no run, checkpoint or shipped weights of that name; shipped: {names}") from None
    if not run.checkpoints():
        raise InputError(f"{run.folder}: has no checkpoint yet; train it first")
    path = run.checkpoints()[-1]
    return path, run.folder

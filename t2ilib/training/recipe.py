"""Recipes: the YAML of a full-length run.

Configuration has one direction: dataclass default < recipe YAML < explicit argument. Unknown keys raise.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from t2ilib.errors import InputError
from t2ilib.files import ROOT

RECIPES = ROOT / "notebooks" / "recipes"


@dataclass(frozen=True)
class DataSettings:
    """Which pictures a run reads."""

    source: str = "toy"  # "toy", a packed set, a folder or zip with metadata.jsonl, or CUB in AttnGAN's layout
    size: int = 64  # side of the stored pictures, pixels
    split: str = "train"  # split that is trained on
    reference: str = "test"  # split whose captions are drawn and whose pictures the metrics compare with
    crop: int = 0  # side of random crops of them; 0: whole pictures (DF-GAN: 256 of pictures stored at 304)
    flip: bool = True  # mirror half of the pictures
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of t2ilib.data.load


@dataclass(frozen=True)
class TextSettings:
    """Which encoder turns captions into sentence features."""

    encoder: str = "toy-clip"  # "toy-clip", "clip", a folder of weights, or "contrastive": a small CLIP of this data
    options: dict[str, Any] = field(default_factory=dict)  # arguments of t2ilib.text.load_encoder, or of ClipConfig
    words: bool = False  # word features and padding mask too (DM-GAN)


@dataclass(frozen=True)
class ClipSettings:
    """The CLIP loss of the generator: weight * (1 - cosine of picture and caption)."""

    weight: float = 0.0  # lambda; 0: none (CLIP-enhanced DF-GAN: 0.01)
    encoder: str = ""  # as text.encoder; empty: the very encoder of the text
    options: dict[str, Any] = field(default_factory=dict)  # as text.options
    start: int = 0  # steps of training before it begins
    ramp: int = 0  # steps over which its weight then rises
    crops: int = 0  # random crops that are scored beside the whole picture
    released: bool = False  # as the released code computes it: a constant without gradient


@dataclass(frozen=True)
class EvaluationSettings:
    """What the metrics are measured with."""

    encoder: str = ""  # CLIP of R-precision and CLIP score, as text.encoder; empty: the text's own
    options: dict[str, Any] = field(default_factory=dict)  # as text.options
    truncation: float = 0.0  # of the noise (DF-GAN's protocol: 0.88); 0: plain normal noise

    def __post_init__(self):
        if self.truncation < 0:
            raise InputError(f"evaluation.truncation: {self.truncation} must not be negative; 0 is plain normal noise")


@dataclass(frozen=True)
class TrainingSettings:
    """How long a run trains, and what it writes meanwhile."""

    steps: int = 1000  # generator steps
    discriminator_steps: int = 1  # discriminator steps before each generator step (WGAN: 5)
    seed: int = 0  # weights, batches, noise
    precision: str = "auto"  # "fp32", "bf16", or "auto": bf16 where the hardware computes in it
    channels_last: bool = True  # memory layout of networks and pictures; faster convolutions on most hardware
    deterministic: bool = False  # CUDA only: reproducible cuDNN kernels, slower; a CPU always reproduces
    ema: float = 0.999  # decay per step of the averaged generator; 0 switches it off
    gradient_clip: float = 0.0  # largest gradient norm; 0 switches clipping off
    non_finite: str = "stop"  # "stop" the run at a loss that is not finite, or "skip" the update and count it
    log_every: int = 20  # steps per record
    sample_every: int = 500  # steps per grid of fixed captions and noise
    checkpoint_every: int = 500  # steps per checkpoint; the last two are kept
    evaluate_every: int = 0  # steps per evaluation; 0: only at the end

    def __post_init__(self):
        for name, allowed in {"precision": ("auto", "fp32", "bf16"), "non_finite": ("stop", "skip")}.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"training.{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        for name in ("steps", "discriminator_steps", "log_every", "sample_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"training.{name}: {getattr(self, name)} must be at least 1")
        for name in ("sample_every", "checkpoint_every", "evaluate_every"):
            if getattr(self, name) % self.log_every:
                raise InputError(
                    f"training.{name}: {getattr(self, name)} is not a multiple of log_every ({self.log_every})"
                )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run: system, its hyper-parameters, data, text, CLIP loss, training, measurement."""

    system: str
    about: str = ""  # one line: whose setting this is, and what to expect of it
    model: dict[str, Any] = field(default_factory=dict)  # fields of the system's config
    data: DataSettings = field(default_factory=DataSettings)
    text: TextSettings = field(default_factory=TextSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def to_yaml(self) -> str:
        """Return the recipe as YAML that `load_recipe` reads back."""
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)

    def override(self, **changes: Any) -> "Recipe":
        """Return a copy with dotted keys replaced: `recipe.override(**{"training.steps": 100})`."""
        recipe = self
        for key, value in changes.items():
            recipe = _override(recipe, key.split("."), value, key)
        return recipe


GROUPS = {
    "data": DataSettings,
    "text": TextSettings,
    "clip": ClipSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
}


def recipe_names() -> list[str]:
    """Return the names of the recipes that the repository ships."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str | Path, **changes: Any) -> Recipe:
    """Read a shipped recipe by name or a YAML file by path, then apply dotted `changes`.

    Raises InputError for an unknown name, a file that is not YAML, and unknown keys.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"{name}: no such recipe; shipped are {', '.join(recipe_names())}, or give a .yaml file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file ({error}); see notebooks/recipes for examples") from None
    return recipe_from(values, str(path)).override(**changes)


def recipe_from(values: Any, where: str) -> Recipe:
    """Build a recipe from nested mappings; InputError names `where` and what is unknown or of a wrong type."""
    if not isinstance(values, Mapping) or "system" not in values:
        raise InputError(f"{where}: a recipe is a mapping with at least the key 'system'")
    return _build(Recipe, values, where)


def _build(cls: type, values: Mapping, where: str) -> Any:
    known = {item.name: item for item in fields(cls)}
    if unknown := [str(key) for key in values if key not in known]:
        raise InputError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(known)}")
    parts = GROUPS if cls is Recipe else {}
    built = {}
    for key, value in values.items():
        if key in parts:
            built[key] = _build(parts[key], value or {}, f"{where}: {key}")
        else:
            built[key] = _checked(known[key], value, f"{where}: {key}")
    return cls(**built)


def _override(node: Any, keys: list[str], value: Any, where: str) -> Any:
    name, rest = keys[0], keys[1:]
    if isinstance(node, Mapping):
        return {**node, name: _override(node.get(name, {}), rest, value, where) if rest else value}
    known = {item.name: item for item in fields(node)}
    if name not in known:
        raise InputError(f"{where}: unknown key {name}; known are {', '.join(known)}")
    if not rest and (is_dataclass(getattr(node, name))):
        raise InputError(f"{where}: is a group; set one of its keys, as {where}.{fields(getattr(node, name))[0].name}")
    new = _override(getattr(node, name), rest, value, where) if rest else _checked(known[name], value, where)
    return replace(node, **{name: new})


def _checked(item, value: Any, where: str) -> Any:
    """Return `value` as the field's type; whole numbers may stand for floats, nothing else is converted."""
    wanted = {"str": str, "int": int, "float": float, "bool": bool}.get(getattr(item.type, "__name__", ""), dict)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise InputError(f"{where}: {value!r} is not of type {wanted.__name__}")
    return value

"""Recipes: the YAML of a full-length run. Dataclass default < recipe YAML < explicit argument; unknown keys raise."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml

from t2ilib import settings
from t2ilib.errors import InputError, one_line
from t2ilib.files import ROOT
from t2ilib.settings import COUNT, DEPTH, SEED, STEPS, WEIGHT, Range, check_ranges

RECIPES = ROOT / "notebooks" / "recipes"
LIMIT = 1 << 20  # bytes of a recipe's file
TAG = "tag:yaml.org,2002:"  # of YAML's own types
SCALARS = tuple(f"{TAG}{kind}" for kind in ("str", "int", "float", "bool", "null"))
TRAINED_HERE = "contrastive"  # as an encoder's name: a small CLIP, trained first, on the training split alone


@dataclass(frozen=True)
class DataSettings:
    """Which pictures a run reads, and what happens to each when it is shown."""

    source: str = "toy"  # "toy", a packed set, a folder or zip with metadata.jsonl, or CUB in AttnGAN's layout
    size: Annotated[int, Range(least=8, most=1024)] = 64  # side of the stored pictures, pixels
    split: str = "train"  # split that is trained on
    reference: str = "test"  # split whose captions are drawn and whose pictures the metrics compare with
    crop: Annotated[int, Range(least=0, most=1024)] = 0  # side of random crops; 0: none (DF-GAN: 256 of 304)
    flip: bool = True  # mirror half of the pictures
    shift: Annotated[int, Range(least=0, most=1024)] = 0  # pixels by which a picture is moved at most, either way
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of t2ilib.data.load

    def __post_init__(self):
        check_ranges(self, "data.")
        if self.crop > self.size or self.shift >= self.side:
            raise InputError(
                f"data.size = {self.size}, data.crop = {self.crop}, data.shift = {self.shift}: crops must fit into "
                "the pictures, and shifts be smaller than what is shown"
            )

    @property
    def side(self) -> int:
        """Side of the pictures that a run is shown, pixels."""
        return self.crop or self.size


@dataclass(frozen=True)
class EncoderSettings:
    """Which frozen encoder has a role."""

    name: str = "toy-clip"  # "toy-clip", "toy-clip-resnet", "clip", a folder, or "contrastive": trained for this run
    options: dict[str, Any] = field(default_factory=dict)  # of load_encoder; of "contrastive": keys of its recipe
    # share of the captions' words that it may not know: an encoder of a run's own words misses up to 0.04 in its test
    # split, the toy CLIPs 0.16 to 0.23 in captions of real birds, names of parts and colours among them; 1: never mind
    unknown: Annotated[float, Range(least=0, most=1)] = 0.1

    def __post_init__(self):
        check_ranges(self, "encoders.")


@dataclass(frozen=True)
class ClipSettings:
    """The CLIP loss of the generator, by the encoder of the role "clip"; see t2ilib.encoders.guidance."""

    weight: Annotated[float, Range(least=0, most=1e4)] = 0.0  # lambda; 0: none (CLIP-enhanced DF-GAN: 0.01)
    start: Annotated[int, STEPS] = 0  # generator steps before it begins
    ramp: Annotated[int, STEPS] = 0  # generator steps over which its weight then rises
    crops: Annotated[int, Range(least=0, most=64)] = 0  # random crops that are scored beside the whole picture
    released: bool = False  # as the released code computes it: a constant without gradient

    def __post_init__(self):
        check_ranges(self, "clip.")


@dataclass(frozen=True)
class EvaluationSettings:
    """How a system is measured, by the encoder of the role "judge"."""

    n: Annotated[int, Range(least=2, most=10_000_000)] = 1000  # pictures, one caption each; the literature's is 30,000
    truncation: Annotated[float, Range(least=0, most=100)] = 0.0  # of the noise (DF-GAN: 0.88); 0: plain normal

    def __post_init__(self):
        check_ranges(self, "evaluation.")


@dataclass(frozen=True)
class TrainingSettings:
    """How long a run trains, and what it writes meanwhile."""

    steps: Annotated[int, COUNT] = 1000  # generator steps, or steps of the one network
    seed: Annotated[int, SEED] = 0  # weights, batches, noise
    start: str = ""  # weights that all networks begin with: shipped ones by name, a run, a checkpoint; "": random
    # "fp32", "bf16", "fp16" with a loss scaler for each role, as GALIP's released code has it (see scaling.py), or
    # "auto": bf16 where the hardware computes in it, else fp32
    precision: str = "auto"
    channels_last: bool = True  # memory layout of networks and pictures; faster convolutions on most hardware
    compile: bool = False  # losses through torch.compile: minutes at the start, worth it for long runs
    deterministic: bool = False  # CUDA only: reproducible cuDNN kernels, slower; a CPU always reproduces
    gradient_clip: Annotated[float, WEIGHT] = 0.0  # largest gradient norm; 0 switches clipping off
    non_finite: str = "stop"  # "stop" the run at a loss that is not finite, or "skip" the update and count it; an
    # overflow of fp16 gradients alone is always skipped and counted
    log_every: Annotated[int, COUNT] = 20  # steps per record, for which D looks at three more batches
    sample_every: Annotated[int, COUNT] = 500  # steps per grid of fixed captions and noise
    checkpoint_every: Annotated[int, COUNT] = 500  # steps per checkpoint; the last two are kept
    evaluate_every: Annotated[int, STEPS] = 1_000_000  # steps per evaluation, and one at the end; 0: none

    def __post_init__(self):
        for name, allowed in {"precision": ("auto", "fp32", "bf16", "fp16"), "non_finite": ("stop", "skip")}.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"training.{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        check_ranges(self, "training.")
        if self.start and not self.start.strip():
            raise InputError(
                f"training.start: {self.start!r} is blank; name weights, or leave it empty for random ones"
            )
        for name in ("sample_every", "checkpoint_every", "evaluate_every"):
            if getattr(self, name) < self.steps and getattr(self, name) % self.log_every:
                raise InputError(
                    f"training.{name}: {getattr(self, name)} is not a multiple of log_every ({self.log_every})"
                )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    task: str  # a system ("gancls", "wgan", "dfgan", "galip"), "clip" or "judge"
    about: str = ""  # one line: whose setting this is, and what to expect of it
    model: dict[str, Any] = field(default_factory=dict)  # fields of the task's config
    data: DataSettings = field(default_factory=DataSettings)
    encoders: dict[str, EncoderSettings] = field(default_factory=dict)  # by role: text, clip, judge, ...
    clip: ClipSettings = field(default_factory=ClipSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def encoder(self, role: str) -> tuple[str, EncoderSettings]:
        """Return the role whose encoder serves `role`, and its settings: its own, or else the text's."""
        own = role if role in self.encoders else "text"
        return own, self.encoders.get(own, EncoderSettings())

    def to_yaml(self) -> str:
        """Return the recipe as YAML that `load_recipe` reads back."""
        return yaml.safe_dump(plain(self), sort_keys=False, allow_unicode=True)

    def override(self, **changes: Any) -> "Recipe":
        """Return a copy with dotted keys replaced: `recipe.override(**{"training.steps": 100})`."""
        return settings.override(self, changes)


def plain(recipe: Recipe) -> dict:
    """Return a recipe as mappings, lists and numbers: what YAML and JSON can hold."""

    def simple(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: simple(item) for key, item in value.items()}
        return [simple(item) for item in value] if isinstance(value, list | tuple) else value

    return simple(asdict(recipe))


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
    if path.stat().st_size > LIMIT:
        raise InputError(f"{path}: larger than {LIMIT >> 10} KiB; not a recipe, see notebooks/recipes for examples")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a readable text ({error}); see notebooks/recipes for examples") from None
    return recipe_from(parse_yaml(text, str(path)), str(path)).override(**changes)


def parse_yaml(text: str, where: str) -> Any:
    """Return what YAML says, as mappings, lists, texts, numbers, true, false and null: what JSON can hold, too.

    InputError, in one line, names `where` and the line. Refused, beside what is not YAML: aliases (a few lines of them
    unpack to gigabytes), deep nesting, tags, dates, and a key that is there twice or is no text.
    """
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise _refused(event, f"the alias *{event.anchor}; write it out")
            if getattr(event, "tag", None):
                raise _refused(event, f"the tag {one_line(event.tag.replace(TAG, '!!'))}; leave it out")
            if depth > DEPTH:
                raise _refused(event, "nested too deeply")
        waiting = [yaml.compose(text, yaml.SafeLoader)]
        while waiting:
            node = waiting.pop()
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
                waiting += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                waiting += node.value
            elif node and node.tag not in SCALARS:
                raise _refused(node, f"{one_line(node.value)} is a {node.tag.removeprefix(TAG)}; put it in quotes")
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        reason = f"{line}{error.problem}"
    except (yaml.YAMLError, ValueError) as error:  # the latter: numbers that cannot be
        reason = str(error).splitlines()[0]
    raise InputError(f"{where}: not YAML that can be read ({reason}); see notebooks/recipes for examples")


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refused(key, "a key that is not a name")
        if key.tag != f"{TAG}str":
            raise _refused(key, f"the key {one_line(key.value)} is no text; put it in quotes")
        if key.value in seen:
            raise _refused(key, f"the key {key.value!r} is there twice")
        seen.add(key.value)


def _refused(place: yaml.Event | yaml.Node, what: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=place.start_mark)


def recipe_from(values: Any, where: str) -> Recipe:
    """Build a recipe from nested mappings; InputError names `where` and what is unknown or of a wrong type."""
    if not isinstance(values, Mapping) or "task" not in values:
        raise InputError(f"{where}: a recipe is a mapping with at least the key 'task'")
    return settings.read(Recipe, values, where)

"""The interface is wide enough for every paper to come: tiny tasks that need no line in loop, experiment or sampling.

A system with word features and their mask, two stages with a discriminator each, noise for its condition, a frozen
network inside its generator, a rate schedule and an update hook; a task with one network; one with five critic updates
in a step.
"""

import copy
import json
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from t2ilib import assembly, data, encoders, experiment, files, measurement, models, sampling
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Needs, Text
from t2ilib.models.gancls import GANCLS
from t2ilib.task import Frozen, System, Task
from t2ilib.training import EncoderSettings, Recipe, Run, TrainingSettings, train


@dataclass(frozen=True)
class StagedConfig:
    image_size: int = 32
    noise_dim: int = 10  # 6 for the picture, 4 for the condition
    embedding_dim: int = 8
    word_dim: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.9)
    batch_size: int = 4
    ema: float = 0.9


class StagedGenerator(nn.Module):
    """Sixteen pixels from sentence and noise, then 32 with attention over words, seen through a frozen network."""

    def __init__(self, config, eye):
        super().__init__()
        self.condition = nn.Linear(config.embedding_dim, 8)  # mean and log-variance of 4 numbers
        self.coarse = nn.Linear(6 + 4, 3 * 16 * 16)
        self.query = nn.Linear(3 * 16 * 16, config.word_dim)
        self.fine = nn.Linear(config.word_dim, 3 * 16 * 16)
        self.eye = eye

    def forward(self, text, noise):
        mu, logvar = self.condition(text.sentence).chunk(2, 1)
        drawn = mu + noise[:, 6:] * (logvar / 2).exp()
        coarse = self.coarse(torch.cat([noise[:, :6], drawn], 1))
        scores = (self.query(coarse)[:, None] * text.words).sum(2).masked_fill(text.mask, -torch.inf)
        attention = scores.softmax(1)  # (B, T)
        seen = self.eye((attention[:, :, None] * text.words).sum(1))
        fine = (coarse + self.fine(seen)).tanh().unflatten(1, (3, 16, 16))
        pictures = [coarse.tanh().unflatten(1, (3, 16, 16)), F.interpolate(fine, scale_factor=2)]
        return Fakes(pictures, {"mu": mu, "logvar": logvar, "attention": attention})


class Staged(System):
    """Two stages, a list of discriminators, words, conditioning noise, a frozen eye."""

    Config = StagedConfig
    trained = ("discriminators", "generator")
    needs = Needs(words=True, captions=2, mismatched=True)

    def __init__(self, config, found=None):
        super().__init__(config)
        torch.manual_seed(3)
        self.generator = StagedGenerator(config, Frozen(nn.Linear(config.word_dim, config.word_dim)))
        self.discriminators = nn.ModuleList(nn.Linear(3 * side**2 + config.embedding_dim, 1) for side in (16, 32))
        self.updates = []

    @classmethod
    def sizes(cls, found):
        return super().sizes(found) | {"word_dim": found["text"].word_dim}

    def fakes(self, text, noise):
        return self.generator(text, noise)

    def judged(self, picture, text):
        stage = 0 if picture.shape[-1] == 16 else 1
        return self.discriminators[stage](torch.cat([picture.flatten(1), text.sentence], 1)).flatten()

    def score(self, pictures, text):
        return self.judged(pictures, text)

    def discriminator_loss(self, batch, fakes):
        terms = {"mismatched": F.softplus(self.judged(batch.mismatched, batch.text)).mean()}
        for picture in fakes.pictures:
            side = picture.shape[-1]
            real = F.adaptive_avg_pool2d(batch.images, side)
            loss = F.softplus(-self.judged(real, batch.text)) + F.softplus(self.judged(picture, batch.text))
            terms[f"stage_{side}"] = loss.mean()
        return terms

    def generator_loss(self, batch, fakes):
        pull = sum(F.softplus(-self.judged(picture, batch.text)).mean() for picture in fakes.pictures)
        mu, logvar = fakes.more["mu"], fakes.more["logvar"]
        views = F.cosine_similarity(batch.text.sentence, batch.second.sentence).mean()
        kl = (mu.square() + logvar.exp() - 1 - logvar).mean() / 2
        return {"adversarial": pull, "kl": kl, "views": views.detach()}

    def after_update(self, role):
        self.updates.append(role)

    def rate(self, role, step, steps):
        return 1.0 if role == "generator" else 1 - step / steps


@dataclass(frozen=True)
class OneConfig:
    lr: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    batch_size: int = 4


class One(Task):
    """A task with one network: it guesses the mean colour of a picture it is shown small."""

    Config = OneConfig
    trained = ("network",)

    def __init__(self, config):
        super().__init__(config)
        self.network = nn.Linear(12, 3)

    def loss(self, role, batch, prepared):
        small = F.adaptive_avg_pool2d(batch.images, 2).flatten(1)
        return {"mse": F.mse_loss(self.network(small), batch.images.mean((2, 3)))}

    def measure(self, dataset):
        return {"pictures": float(len(dataset))}

    def save(self, folder):
        (folder / "network.json").write_text(json.dumps(self.network.bias.tolist()))


class Bare(One):
    """The same without numbers of its own, and without a form in which others read it."""

    measure, save = Task.measure, Task.save


class Reader(Bare):
    """The same, shown captions as well."""

    encoders = ("text",)

    def loss(self, role, batch, prepared):
        colour = batch.text.sentence[:, :3]
        return {"mse": super().loss(role, batch, prepared)["mse"] + (self.network.bias - colour).square().mean()}


class FiveCritics(GANCLS):
    """GAN-CLS with five discriminator updates in a step."""

    def rounds(self, step):
        return [("discriminator",)] * 4 + [("discriminator", "generator")]


@pytest.fixture(autouse=True)
def registered(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")
    tasks = {"staged": Staged, "one": One, "bare": Bare, "reader": Reader, "five": FiveCritics}
    for name, task in tasks.items():
        monkeypatch.setitem(assembly.TASKS, name, task)
        if issubclass(task, System):
            monkeypatch.setitem(models.SYSTEMS, name, task)


class WordEncoder:
    """Reads letters: words (B, T, 8) with a mask, T the longest caption's number of words, at most 6."""

    name, sentence_dim, word_dim, fingerprint, device = "letters", 8, 8, "abc", torch.device("cpu")

    def encode(self, captions):
        words = [[self.number(word) for word in caption.split()[:6]] for caption in captions]
        mask = torch.tensor([[place >= len(row) for place in range(6)] for row in words])
        table = torch.stack([torch.stack(row + [torch.zeros(8)] * (6 - len(row))) for row in words])
        return Text(table.sum(1), table, mask)

    def number(self, word):
        return torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, word))))

    def unknown(self, caption):
        return []

    def to(self, device):
        return self


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    load = encoders.load_encoder
    monkeypatch.setattr(encoders, "load_encoder", lambda name, **o: WordEncoder() if name == "letters" else load(name))


def recipe(task, steps=4, **model):
    return Recipe(
        task,
        model=model,
        encoders={"text": EncoderSettings("letters")},
        training=TrainingSettings(
            steps=steps, log_every=1, sample_every=2, checkpoint_every=2, evaluate_every=4, precision="fp32"
        ),
    ).override(**{"data.size": 32, "data.options": {"train": 24, "validation": 4, "test": 12}, "evaluation.n": 12})


def test_a_staged_system_with_words_runs_from_recipe_to_results(tmp_path):
    records = list(experiment.run_recipe(recipe("staged"), tmp_path / "run"))
    terms = {name for name in records[0] if "/" in name}
    assert terms == {
        *(f"discriminators/{name}" for name in ("mismatched", "stage_16", "stage_32")),
        *(f"generator/{name}" for name in ("adversarial", "kl", "views")),
    }
    result = json.loads(next((tmp_path / "run" / "results").glob("*.json")).read_text())
    assert result["protocol"]["n"] == 12 and "attribute_accuracy" in result["metrics"]
    assert (tmp_path / "run" / "samples" / "step_00000004.png").is_file()
    sampler = sampling.load_sampler(tmp_path / "run")
    captions = ["a red bird.", "a small blue bird with white wings."]
    pictures = sampler.sample(captions, seed=1, per_caption=2)
    assert pictures.shape == (4, 3, 32, 32)
    words = copy.deepcopy(sampler.encoder.encode(captions))
    changed = Text(words.sentence, words.words.flip(0), words.mask)
    noise = sampler.noise(2, torch.Generator().manual_seed(0))
    assert not torch.equal(sampler.generate(words, noise), sampler.generate(changed, noise))  # words reach the picture
    assert measurement.evaluate_sampler(sampler, n=8)["protocol"]["system"] == "staged"


def test_a_staged_system_that_is_stopped_continues_to_the_bit(tmp_path):
    list(experiment.run_recipe(recipe("staged"), tmp_path / "whole"))
    stopped = experiment.run_recipe(recipe("staged"), tmp_path / "parts")
    assert [next(stopped)["step"] for _ in range(3)] == [1, 2, 3]  # the checkpoint is of step 2
    stopped.close()
    assert [record["step"] for record in experiment.run_recipe(recipe("staged"), tmp_path / "parts")] == [3, 4]
    whole, parts = (Run.open(tmp_path / name).restore()[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and any(name.startswith("optimizer.discriminators.") for name in whole)
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def staged_pieces(count=4):
    text = WordEncoder().encode(["a red bird", "a blue bird with white wings", "one", "two birds"][:count])
    torch.manual_seed(0)
    return Staged(StagedConfig()), text, torch.randn(count, 10)


def test_padding_words_do_not_matter_and_masks_do():
    system, text, noise = staged_pieces()
    other = Text(text.sentence, text.words + text.mask[:, :, None] * 5.0, text.mask)
    assert torch.equal(system.generate(text, noise), system.generate(other, noise))
    attention = system.fakes(text, noise).more["attention"]
    assert (attention[text.mask] == 0).all() and torch.allclose(attention.sum(1), torch.ones(4))


def test_noise_of_the_condition_comes_from_outside():
    system, text, noise = staged_pieces()
    assert system.noise_dim == 10 and system.noise(3).shape == (3, 10)
    assert torch.equal(system.generate(text, noise), system.generate(text, noise))  # nothing is drawn inside
    moved = noise.clone()
    moved[:, 6:] += 1
    assert not torch.equal(system.generate(text, noise), system.generate(text, moved))


def test_fakes_detach_pictures_and_what_came_along():
    system, text, noise = staged_pieces()
    fakes = system.fakes(text, noise)
    alone = fakes.detach()
    assert all(picture.requires_grad for picture in fakes.pictures) and fakes.more["mu"].requires_grad
    assert not any(t.requires_grad for t in [*alone.pictures, *alone.more.values()])
    assert fakes.last is fakes.pictures[-1] and fakes.last.shape[-1] == 32


def test_a_frozen_network_passes_gradients_and_belongs_to_nobody():
    system, text, noise = staged_pieces()
    eye = system.generator.eye
    assert not any("eye" in name for name, _ in system.named_parameters())
    assert not any("eye" in name for name in system.state_dict())
    twin = copy.deepcopy(system)
    assert twin.generator.eye is eye and twin.generator.coarse is not system.generator.coarse
    words = text.words.clone().requires_grad_()
    system.fakes(Text(text.sentence, words, text.mask), noise).last.sum().backward()
    assert words.grad.abs().sum() > 0 and eye.module.weight.grad is None
    assert not eye.module.training and not system.train().generator.eye.module.training
    assert torch.equal(eye.call("forward", words[:, 0]), eye(words[:, 0]))


@pytest.mark.parametrize("name", ["", "input"], ids=["by place", "by name"])
def test_a_frozen_network_follows_its_input_to_another_device(name):
    eye, given = Frozen(nn.Linear(2, 2)), torch.empty(3, 2, device="meta")
    seen = eye(**{name: given}) if name else eye(given)
    assert seen.device.type == "meta"
    assert eye.module.weight.device.type == "meta"


def test_rates_and_hooks_reach_every_update(monkeypatch):
    rates = []
    system, batches = Staged(StagedConfig()), StagedBatches()
    for role, optimizer in (found := system.optimizers()).items():
        step = optimizer.step
        monkeypatch.setattr(
            optimizer,
            "step",
            lambda step=step, role=role, own=optimizer: rates.append((role, own.param_groups[0]["lr"])) or step(),
        )
    monkeypatch.setattr(system, "optimizers", lambda: found)
    list(train(system, batches, TrainingSettings(steps=4, log_every=1, sample_every=1, checkpoint_every=1)))
    assert system.updates == ["discriminators", "generator"] * 4
    own = [rate for role, rate in rates if role == "discriminators"]
    assert own == pytest.approx([1e-3 * (1 - step / 4) for step in range(4)])
    assert {rate for role, rate in rates if role == "generator"} == {1e-3}


class StagedBatches:
    batch_size = 4

    def batch(self, number):
        text = WordEncoder().encode(["a red bird", "a blue bird", "one", "two birds"])
        torch.manual_seed(number)
        images, mismatched = torch.randn(2, 4, 3, 32, 32).tanh()
        numbers = torch.arange(4)
        return Batch(images, numbers[None], numbers, numbers, text, second=text, mismatched=mismatched)


def test_a_task_that_says_nothing_but_its_loss_is_trained_and_resumed(tmp_path):
    own = recipe("bare").override(**{"training.steps": 2, "encoders": {}})
    assert [record["step"] for record in experiment.run_recipe(own, tmp_path / "run")] == [1, 2]
    more = own.override(**{"training.steps": 3})
    assert [record["step"] for record in experiment.run_recipe(more, tmp_path / "run")] == [3]
    with pytest.raises(InputError, match="holds no finished network"):
        sampling.export(Run.open(tmp_path / "run"), tmp_path / "exported", "")


def test_a_task_that_is_no_system_gets_the_features_of_captions_it_asks_for():
    own = recipe("reader").override(**{"training.steps": 1})
    found = assembly.load_encoders(own, None)
    task = assembly.build(own, found)
    parts = assembly.Experiment(own, None, *[data.load("toy", 32, **own.data.options).split("train")] * 2, found, task)
    batch = assembly.make_batches(parts).batch(0)
    assert batch.text.sentence.shape == (4, found["text"].sentence_dim)
    assert task.loss("network", batch, None)["mse"] > 0


def test_a_task_with_one_network_has_run_folder_resume_and_results(tmp_path):
    own = Recipe("one", training=recipe("staged").training).override(
        **{"data.size": 32, "data.options": {"train": 24, "validation": 4, "test": 12}}
    )
    records = list(experiment.run_recipe(own.override(**{"training.steps": 2}), tmp_path / "parts"))
    assert [record["step"] for record in records] == [1, 2] and records[-1]["metric/pictures"] == 12.0
    list(experiment.run_recipe(own, tmp_path / "parts"))
    list(experiment.run_recipe(own, tmp_path / "whole"))
    whole, parts = (Run.open(tmp_path / name).restore()[0] for name in ("whole", "parts"))
    assert {name.split(".")[0] for name in whole} == {"network", "optimizer"}
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert (tmp_path / "whole" / "network.json").is_file()
    assert json.loads(next((tmp_path / "whole" / "results").glob("*.json")).read_text())["metrics"] == {"pictures": 12}
    assert not (tmp_path / "whole" / "samples").exists()
    with pytest.raises(InputError, match="paints nothing"):
        sampling.load_sampler(tmp_path / "whole")


SMALL = {"ngf": 4, "ndf": 4, "projected_dim": 4, "batch_size": 4, "noise_dim": 6}


def test_several_updates_per_step_count_generator_steps_and_all_pictures(tmp_path, monkeypatch):
    """The CLIP loss counts generator steps, whatever the critic does; records count every picture that was shown."""
    steps = []
    guide = assembly.ClipGuidance.__call__
    monkeypatch.setattr(
        assembly.ClipGuidance,
        "__call__",
        lambda self, fakes, batch: steps.append(batch.step) or guide(self, fakes, batch),
    )
    own = recipe("five", steps=3, **SMALL).override(
        **{"encoders.clip": {"name": "toy-clip"}, "clip.weight": 1.0, "clip.start": 1, "clip.ramp": 2}
    )
    records = list(experiment.run_recipe(own, tmp_path / "run"))
    assert steps == [0, 1, 2]
    assert [record["images"] for record in records] == [20, 40, 60]
    shares = [record["generator/clip"] for record in records]
    assert shares[0] == 0 and 0 < shares[1] < shares[2]


def test_several_updates_per_step_resume_with_the_right_batches(tmp_path):
    list(experiment.run_recipe(recipe("five", **SMALL), tmp_path / "whole"))
    list(experiment.run_recipe(recipe("five", steps=2, **SMALL), tmp_path / "parts"))
    records = list(experiment.run_recipe(recipe("five", **SMALL), tmp_path / "parts"))
    assert [record["images"] for record in records] == [60, 80]
    whole, parts = (Run.open(tmp_path / name).restore()[0] for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_every_round_draws_its_own_batch():
    system, seen = FiveCritics(GANCLS.Config.tiny()), []

    class Source:
        batch_size = 4

        def batch(self, number):
            seen.append(number)
            torch.manual_seed(number)
            images, mismatched = torch.randn(2, 4, 3, 32, 32).tanh()
            rows = torch.arange(4)
            return Batch(images, rows[None], rows, rows, Text(torch.randn(4, 16)), mismatched=mismatched)

    list(train(system, Source(), TrainingSettings(steps=2, log_every=1, sample_every=1, checkpoint_every=1)))
    assert seen == list(range(10))


def test_build_names_what_contradicts():
    with pytest.raises(InputError, match=r"embedding_dim = 7.*8"):
        models.build("gancls", {"text": WordEncoder()}, embedding_dim=7)
    assert models.build("gancls", {"text": WordEncoder()}, ngf=2, ndf=2).config.embedding_dim == 8
    with pytest.raises(InputError, match=r"model\.image_size = 64.*32"):
        assembly.check(recipe("gancls", image_size=64))
    with pytest.raises(InputError, match="unknown role txt; there are text"):
        assembly.check(recipe("gancls").override(**{"encoders.txt": {"name": "toy-clip"}}))
    with pytest.raises(InputError, match="stylegan: no such task; choose among gancls"):
        assembly.check(recipe("stylegan"))

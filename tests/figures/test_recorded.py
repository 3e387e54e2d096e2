"""What the scores' figures say, from losses of known logits."""

import json

import pytest
import torch

from t2ilib import losses, plots
from t2ilib.comparison import open_finished
from t2ilib.figures import recorded
from t2ilib.files import ROOT
from t2ilib.tables import RUNS
from t2ilib.training import Run

LOGITS = torch.randn(3, 512, generator=torch.Generator().manual_seed(0)) * 2 + torch.tensor([[1.0], [-1.0], [0.5]])


def record(discriminator, generator):
    terms = {f"discriminator/{name}": value.item() for name, value in discriminator.items()}
    return {**terms, "generator/adversarial": generator.item()}


def test_probabilities_lie_between_their_bounds():
    real, fake, wrong = LOGITS
    found = recorded.probabilities(record(losses.gan_discriminator(real, fake, wrong, 0.9), losses.gan_generator(fake)))
    mean, mismatched = torch.sigmoid(fake).mean(), torch.sigmoid(wrong).mean()
    assert 0 < found["D(G(z)), at least"] < mean < found["D(G(z)), at most"] < 1
    assert mismatched < found["D(x, wrong caption), at most"] < 1
    assert 0 < found["D(x), at least"] < torch.sigmoid(real).mean()
    sure = torch.full((8,), 0.3)  # where all logits are alike the bounds meet
    found = recorded.probabilities(record(losses.gan_discriminator(sure, sure, sure, 0.9), losses.gan_generator(sure)))
    assert list(found.values()) == pytest.approx([torch.sigmoid(sure[0]).item()] * 4, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.7, 0.9, 0.999, 1.0])
def test_the_mean_probability_of_reals_lies_in_its_interval(smoothing):
    for shift in (-6.0, -1.0, 0.5, 2.0, 5.0, 12.0):
        logits = (LOGITS[0] + shift).double()
        loss = losses.binary_cross_entropy(logits, smoothing).item()
        low, high = recorded.real_probability(loss, smoothing)
        assert low - 1e-9 <= torch.sigmoid(logits).mean() <= high + 1e-9 and low <= smoothing <= high <= 1
        for p in {low, high} - {1.0}:  # both ends have this loss
            end = torch.logit(torch.tensor([p], dtype=torch.float64))
            assert losses.binary_cross_entropy(end, smoothing).item() == pytest.approx(loss, rel=1e-3)
    least = torch.distributions.Bernoulli(torch.tensor(smoothing, dtype=torch.float64)).entropy().item()
    assert recorded.real_probability(least - 1e-6, smoothing) == (smoothing, smoothing)  # what rounding may do


def test_a_critic_s_scores_and_its_estimate_are_exact():
    real, fake, wrong = LOGITS
    one = record(losses.wasserstein_critic(real, fake, wrong), losses.wasserstein_generator(fake))
    means = [each.mean().item() for each in (real, fake, wrong)]
    assert list(recorded.critic_scores(one).values()) == pytest.approx(means, abs=1e-6)
    assert recorded.critic_distance(one) == pytest.approx(means[0] - (means[1] + means[2]) / 2, abs=1e-6)
    plain = record(losses.wasserstein_critic(real, fake), losses.wasserstein_generator(fake))
    assert recorded.critic_distance(plain) == pytest.approx(means[0] - means[1], abs=1e-6)


def test_hinge_losses_bound_the_scores():
    real, fake, wrong = LOGITS
    found = recorded.hinge_scores(record(losses.hinge_discriminator(real, fake, wrong), losses.hinge_generator(fake)))
    assert found["D(x), at least"] < real.mean() and found["D(x, wrong caption), at most"] > wrong.mean()
    assert found["D(G(z))"] == pytest.approx(fake.mean().item(), abs=1e-6)
    inside = LOGITS.clamp(-0.9, 0.9)  # where no score passes its margin the bounds are exact
    real, fake, wrong = inside
    found = recorded.hinge_scores(record(losses.hinge_discriminator(real, fake, wrong), losses.hinge_generator(fake)))
    assert list(found.values()) == pytest.approx([each.mean().item() for each in inside], abs=1e-6)


def test_a_run_that_recorded_d_needs_no_bounds(monkeypatch):
    """Old runs have losses alone, new ones what D said."""
    drawn = []
    monkeypatch.setattr(recorded, "save", lambda name, figure, sources: drawn.append(figure))
    real, fake, wrong = LOGITS
    losses_of = record(losses.gan_discriminator(real, fake, wrong, 0.9), losses.gan_generator(fake))
    told = {"D_real": 0.75, "D_fake": 0.25, "D_mismatched": 0.5}
    for terms in (losses_of, losses_of | told):
        rows = [{"step": step, "images": 32 * step, **terms} for step in (1, 2)]
        monkeypatch.setattr(recorded.Run, "records", lambda self, rows=rows: rows)
        recorded.scores("gancls_toy", "any")
    legends = [[text.get_text() for text in figure.axes[0].get_legend().get_texts()] for figure in drawn]
    assert "D(x), at least" in legends[0] and legends[1] == ["D(x)", "D(G(z))", "D(x, wrong caption)"]
    assert [line.get_ydata()[-1] for line in drawn[1].axes[0].lines[::2]] == [0.75, 0.25, 0.5]
    recorded.curves("gancls_toy", "any")  # what is watched is no loss
    assert [axes.get_title("left") for axes in drawn[-1].axes] == ["discriminator", "generator"]


def test_what_is_read_off_a_record_fits_the_run_that_it_is_read_off():
    """The readings take the defaults' weights of the terms: a run with others would be misread."""
    for run in recorded.SCORES:
        model = open_finished(RUNS / run).run.recipe.model
        assert not {"halve_negatives", "mismatched", "text", "smoothing"} & model.keys()


def test_measurements_hold_each_step_once_with_its_interval():
    found = recorded.measurements(open_finished(RUNS / "galip_toy"))
    assert [row["step"] for row in found] == [1000, 2000, 3000] and found[-1]["images"] == 96000
    low, high = found[-1]["metric/toy_fd/interval"]
    assert low < found[-1]["metric/toy_fd"] < high


def versions(run, role="judge"):
    """Return by step the version of the measures that a run's results on held-out species say, 0 for none."""
    found = {}
    for path in sorted((RUNS / run / "results").glob("*.json")):
        told = json.loads(path.read_text())["protocol"]
        teacher = told["judge_encoder"] == told["text_encoder"]
        if told["reference_split"] in ("test", ["test"]) and teacher == (role == "teacher"):
            found[told["step"]] = told.get("version") or 0
    return found


def test_the_budget_s_chart_marks_what_an_older_version_measured():
    rows = plots.read_rows(ROOT / "figures" / "budget.csv")
    told = [row for row in rows if row["line"] and row["axis"].startswith("pictures")]
    marks = set()
    for row in told:
        run = row["series"] + ("" if row["line"] == "0" else f"_seed{row['line']}")
        seen = {record["step"]: record["images"] for record in Run(RUNS / run).records()}
        found = {seen[step] / 1e3: version for step, version in versions(run).items()}
        assert row[recorded.OLDER] == str(int(found[float(row["place"])] < max(found.values()))), row
        marks.add(row[recorded.OLDER])
    assert marks == {"0", "1"}


def test_the_sweep_s_chart_marks_what_an_older_version_measured():
    rows = plots.read_rows(ROOT / "figures" / "clip_sweep.csv")
    told = [row for row in rows if row["lambda"] and row["series"] in ("teacher", "judge")]
    found = {
        (row["lambda"], row["series"]): versions(f"dfgan_sweep_{row['lambda']}", row["series"])[1000] for row in told
    }
    assert len(set(found.values())) > 1
    for row in told:
        older = found[row["lambda"], row["series"]] < max(found.values())
        assert row[recorded.OLDER] == str(int(older)), row


def test_one_version_marks_nothing(monkeypatch):
    drawn, rows = [], recorded.sweep()
    rows = [{**row, "version": dict.fromkeys(row["version"], 2)} for row in rows]
    monkeypatch.setattr(recorded, "sweep", lambda: rows)
    monkeypatch.setattr(recorded.tables, "write", lambda *table: None)
    monkeypatch.setattr(recorded, "save", lambda name, figure, *more, **files: drawn.append(figure))
    recorded.clip_sweep("any")
    assert {row.get(recorded.OLDER) for row in drawn[0].numbers} == {0, None} and not drawn[0].legends

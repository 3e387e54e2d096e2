"""Charts of what full-length runs recorded: losses, scores, distances, quality over pictures seen and over lambda."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.special import xlog1py, xlogy

from t2ilib import plots, tables
from t2ilib.comparison import BESIDE, Finished, measured, newest_result, open_all, same_budget
from t2ilib.figures.saved import save
from t2ilib.files import read_json
from t2ilib.measurement import headline
from t2ilib.metrics.results import entry
from t2ilib.training import Run

KEPT = {"toy FD": "toy_fd", "attribute accuracy": "attribute_accuracy", "CLIP score": "clip_score"}
KEPT |= {"R-precision": "r_precision", "diversity": "diversity"}
TERMS = {"attribute accuracy": "attribute_accuracy", "composition": "composition", "toy FD": "toy_fd"}
OLDER = "older measures"  # how charts call what an earlier version of the measures found
WATCHED = {"D_real": "D(x)", "D_fake": "D(G(z))", "D_mismatched": "D(x, wrong caption)"}  # entry of a record -> title
Record = Mapping[str, float]


def curves(run: str, name: str) -> None:
    """Loss terms of every role over a full-length run."""
    save(name, losses(Run(tables.RUNS / run).records()), [tables.RUNS / run / "records.jsonl"])


def losses(records: Sequence[Record]) -> Figure:
    """Return the chart of all loss terms that records hold, a panel per role."""
    terms: dict[str, list[str]] = {}
    for key in records[0]:
        role, found, _ = key.partition("/")
        if found and role != "metric":
            terms.setdefault(role, []).append(key)
    return plots.curves(records, terms)


def probabilities(record: Record, smoothing: float = 0.9) -> dict[str, float]:
    """Return what GAN-CLS's losses say of the probabilities D that the discriminator gives; reals have this label.

    -mean log D(G(z)) is the generator's term, so exp(-term) is the geometric mean of D(G(z)), which is no more than its
    mean; -mean log(1 - D(G(z))) is the term `fake`, so by Jensen 1 - exp(-term) is no less than it. For D(x) there is
    an interval (`real_probability`), whose lower end is told. The terms are of one batch; the generator's is read after
    the discriminator's update, so of two bounds of D(G(z)) the lower one is a step of the discriminator younger.
    """
    return {
        "D(x), at least": real_probability(record["discriminator/real"], smoothing)[0],
        "D(G(z)), at least": np.exp(-record["generator/adversarial"]),
        "D(G(z)), at most": 1 - np.exp(-record["discriminator/fake"]),
        "D(x, wrong caption), at most": 1 - np.exp(-record["discriminator/mismatched"]),
    }


def real_probability(loss: float, smoothing: float) -> tuple[float, float]:
    """Return the interval, within [0, 1], that holds the mean of D(x) where the real term is `loss`; 0 < `smoothing`.

    The term is the mean of f(p) = -s log p - (1 - s) log(1 - p) with the label s. f is convex, so f(mean p) <= loss,
    and the mean lies between the two p with f(p) = loss, one on either side of s.
    """

    def above(p: float) -> float:
        return -xlogy(smoothing, p) - xlog1py(1 - smoothing, -p) - loss

    if above(smoothing) >= 0:  # the least value of f, reached where every p is s; below it by rounding alone
        return smoothing, smoothing
    low, high = np.exp(-loss / smoothing), -np.expm1(-loss / (1 - smoothing)) if smoothing < 1 else 1.0
    ends = [brentq(above, low, smoothing) if above(low) > 0 else low]
    ends.append(brentq(above, smoothing, high) if smoothing < high < 1 and above(high) > 0 else high)
    return float(ends[0]), float(ends[1])


def critic_scores(record: Record) -> dict[str, float]:
    """Return a critic's mean scores on one batch, of which its terms are minus one, one half and one half (CLS)."""
    return {
        "D(x)": -record["discriminator/real"],
        "D(G(z))": 2 * record["discriminator/fake"],
        "D(x, wrong caption)": 2 * record["discriminator/mismatched"],
    }


def hinge_scores(record: Record) -> dict[str, float]:
    """Return what hinge losses say of the mean scores: max(0, 1 - D) is at least 1 - D, so its mean bounds D's.

    The fakes' mean is minus the generator's adversarial term, so it is known exactly, but of the discriminator after
    its update; the bounds are of the discriminator before it.
    """
    return {
        "D(x), at least": 1 - record["discriminator/real"],
        "D(G(z))": -record["generator/adversarial"],
        "D(x, wrong caption), at most": 2 * record["discriminator/mismatched"] - 1,
    }


SCORES: dict[str, Callable[[Record], dict[str, float]]] = {  # run -> what its records say of D
    "gancls_toy": probabilities,
    "wgan_toy": critic_scores,
    "dfgan_toy": hinge_scores,
    "dfgan_clip_toy": hinge_scores,
    "galip_toy": hinge_scores,
}


def watched(record: Record) -> dict[str, float]:
    """Return the means of D that a record holds, all of one batch and one state of the discriminator."""
    return {title: record[key] for key, title in WATCHED.items()}


def scores(run: str, name: str) -> None:
    """What the discriminator says of real pictures, fakes, and real pictures beside a wrong caption.

    Runs from before D was recorded have bounds in its place, from the losses.
    """
    records = Run(tables.RUNS / run).records()
    told = watched if "D_real" in records[0] else SCORES[run]
    figure = said([{"images": one["images"], **told(one)} for one in records], run == "gancls_toy")
    save(name, figure, [tables.RUNS / run / "records.jsonl"])


def said(records: Sequence[Record], probability: bool) -> Figure:
    """Return the chart of what the discriminator says, all that records hold but "images", over pictures seen."""
    terms, kind = [key for key in records[0] if key != "images"], "probability" if probability else "score"
    return plots.curves(records, terms, x="images", labels=("pictures seen", kind), smooth=0.6)


def critic_distance(record: Record) -> float:
    """Return the critic's estimate: mean score of real pictures minus that of both negatives, half each."""
    return -sum(record[f"discriminator/{term}"] for term in ("real", "fake", "mismatched") if _has(record, term))


def wgan_distance(name: str) -> None:
    """The critic's estimate of the distance beside the toy FD of the same run, seed by seed."""
    runs = open_all(tables.RUNS, "wgan_toy*")
    seeds = []
    for one in runs:
        measured = {row["step"]: row for row in measurements(one)}
        records = [{**each, "distance": critic_distance(each)} for each in one.run.records()]
        seeds.append([{**each, **measured.get(each["step"], {})} for each in records])
    terms = {"critic's estimate": "distance", "toy FD": "metric/toy_fd"}
    along = {"pictures seen, thousands": ("images", 1e3)}
    figure = plots.progress({"wgan_toy": seeds}, terms, along, hollow=OLDER)
    save(name, figure, list(_sources(runs)))


def wgan_study_distance(name: str) -> None:
    """The critic's estimate with clipped weights, with a penalty, and with a penalty and CLS, three seeds each.

    The scales are not comparable: a panel has its own.
    """
    ways = {"clipped weights": "clip", "gradient penalty": "gp", "penalty and CLS": "gpcls"}
    records: list[dict] = []
    sources = []
    for way in ways.values():
        for seed in range(3):
            folder = tables.RUNS / "wgan_study" / f"{way}_{seed}"
            sources.append(folder / "records.jsonl")
            own = f"{way}, seed {seed}"
            records += [{"seen": one["images"] / 1e3, own: critic_distance(one)} for one in Run(folder).records()]
    terms = {title: [f"{way}, seed {seed}" for seed in range(3)] for title, way in ways.items()}
    labels = "pictures seen, thousands", "critic's estimate"
    save(name, plots.curves(records, terms, x="seen", labels=labels), sources)


def sweep() -> list[dict]:
    """Return a row per lambda of the CLIP loss: what equal budgets reached, by teacher and judge, rising lambda.

    `intervals` holds the 95 % intervals of a row's numbers, where they have some, `real` what real pictures reach, and
    `version` that of the measures, None before they had one.
    """
    rows = []
    for folder in tables.RUNS.glob("dfgan_sweep_*"):
        row = {"lambda": Run(folder).recipe.clip.weight, "steps": Run(folder).records()[-1]["step"]}
        around: dict[str, Sequence[float] | None] = {}
        real: dict[str, float | None] = {}
        version: dict[str, int | None] = {}
        for path in sorted((folder / "results").glob("*.json")):
            result = read_json(path, "put it back")
            protocol = result["protocol"]
            role = "teacher" if protocol["judge_encoder"] == protocol["text_encoder"] else "judge"
            for title, key in KEPT.items():
                own = f"{role} {title}" if key in ("clip_score", "r_precision") else title
                row[own], around[own] = entry(result["metrics"], key)
                real[own] = entry(result["metrics"].get("real") or {}, key)[0]
                version[own] = protocol.get("version")
        rows.append({**row, "intervals": around, "real": real, "version": version})
    return sorted(rows, key=lambda row: row["lambda"])


def clip_sweep(name: str) -> None:
    """The sweep of lambda as a figure, beside what real pictures get of either CLIP, and as a table."""
    rows = sweep()
    own = ("attribute accuracy", "toy FD", "diversity")
    keys = ["steps", "judge CLIP score", "judge R-precision", *own, "teacher CLIP score", "teacher R-precision"]
    cells = [[f"{row[key]:,}" if isinstance(row[key], int) else f"{row[key]:.3f}" for key in keys] for row in rows]
    table = [[f"{row['lambda']:g}", *texts] for row, texts in zip(rows, cells, strict=True)]
    tables.write(name, ["lambda", *keys], table)
    series = {title: {title: title} for title in ("toy FD", "attribute accuracy")}
    series |= {
        title: {who: f"{who} {title}" for who in ("teacher", "judge")} for title in ("CLIP score", "R-precision")
    }
    panels = {title: {who: [row[key] for row in rows] for who, key in own.items()} for title, own in series.items()}
    around = {
        title: {who: [row["intervals"][key] for row in rows] for who, key in own.items()}
        for title, own in series.items()
    }
    newest = max(version or 0 for row in rows for version in row["version"].values())
    older = {
        title: {who: [(row["version"][key] or 0) < newest for row in rows] for who, key in own.items()}
        for title, own in series.items()
    }
    real = {
        f"real pictures, {who}": {title: rows[0]["real"][own[who]] for title, own in series.items() if who in own}
        for who in ("teacher", "judge")
    }
    ticks = plots.Ticks([f"{row['lambda']:g}" for row in rows], [row["lambda"] for row in rows], linear_to=0.01)
    figure = plots.lines(panels, ticks, "lambda", bounds=around, beside=real, hollow={OLDER: older})
    sources = sorted(tables.RUNS.glob("dfgan_sweep_*/results/*.json"))
    save(name, figure, sources, more=[tables.FOLDER / f"{name}.md"])


def measurements(one: Finished) -> list[dict]:
    """Return a record per measured step: its images and seconds, and metric/NAME with metric/NAME/interval.

    metric/NAME/`OLDER` says whether an earlier version of the measures found it.
    """
    found = []
    for point in measured(one):
        row = {key: point[key] for key in ("step", "images", "seconds")}
        for key in TERMS.values():
            row[f"metric/{key}"], row[f"metric/{key}/interval"] = entry(point["metrics"], key)
            row[f"metric/{key}/{OLDER}"] = point["earlier"]
        found.append(row)
    return found


def budget(name: str) -> None:
    """How good the toy systems were after so many pictures, and after so many minutes, seed by seed."""
    runs = open_all(tables.RUNS, "*_toy*")
    same_budget(runs)
    systems: dict[str, list] = {}
    for one in runs:
        systems.setdefault(one.name, []).append(measurements(one))
    along = {"pictures seen, thousands": ("images", 1e3), "minutes": ("seconds", 60)}
    beside = {"one colour": {title: _mean(runs, "one_colour", key) for title, key in TERMS.items()}}
    terms = {title: f"metric/{key}" for title, key in TERMS.items()}
    figure = plots.progress(systems, terms, along, beside, hollow=OLDER)
    save(name, figure, list(_sources(runs)))


def tell(run: Run) -> str:
    """Return what a full-length run was and what it last reached, from its own files, for chapters to print.

    Beside each number its 95 % interval, and what stands beside it in the results: real pictures, one-coloured birds.
    """
    recipe, last = run.recipe, run.records()[-1]
    hardware = read_json(run.folder / "environment.json", "put it back")["hardware"]
    result = newest_result(run.folder)
    protocol, metrics = result["protocol"], result["metrics"]
    lines = [
        f"{run.folder.name}: {last['step']:,} steps, {last['images']:,} pictures seen, {last['seconds'] / 3600:.2f} h "
        f"on {hardware}; CLIP loss {recipe.clip.weight:g}",
        f"    {protocol['n']} captions, split {', '.join(protocol['reference_split'])}, "
        f"truncation {protocol.get('truncation') or 'none'}",
    ]
    beside = {title: headline(metrics.get(name) or {}) for name, title in BESIDE.items()}
    for metric, value in headline(metrics).items():
        low, high = entry(metrics, metric)[1] or (None, None)
        around = "" if low is None else f"({low:.3f} to {high:.3f})"
        others = [f"{title} {found[metric]:.3f}" for title, found in beside.items() if metric in found]
        lines.append(f"    {metric:20} {value:8.3f} {around:19}  {'   '.join(others)}".rstrip())
    return "\n".join(lines)


def _has(record: Record, term: str) -> bool:
    return f"discriminator/{term}" in record


def _sources(runs: Sequence[Finished]) -> Iterator:
    """Yield the files that records and measurements of runs are read from."""
    for one in runs:
        yield one.run.folder / "records.jsonl"
        yield from sorted((one.run.folder / "results").glob("*.json"))


def _mean(runs: Sequence[Finished], kind: str, key: str) -> float:
    """Return the mean over runs of a number that stands beside theirs."""
    return float(np.mean([entry(one.result()["metrics"][kind], key)[0] for one in runs]))

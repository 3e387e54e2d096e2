"""How fast is an evaluation at toy size, and is it worth painting while the pictures before are looked at?

`python benchmarks/evaluation.py` paints captions with shipped systems, and looks at the pictures as an evaluation does,
by the judge and by the CLIP that scores: each by itself, then one after the other, batch by batch, then in two threads,
one of which paints ahead. All with one and with two threads to an operation, turn by turn in one process; the result
goes to `benchmarks/results/evaluation.json`.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from step import RESULTS
from torch import Tensor

from t2ilib import data
from t2ilib.assembly import load_encoder
from t2ilib.devices import CPU_BATCH, keep_freed_memory
from t2ilib.files import write_json
from t2ilib.metrics.drawing import EvaluationSettings, ahead, choose_captions, paint
from t2ilib.metrics.judge import load_judge
from t2ilib.metrics.ruler import Look
from t2ilib.provenance import environment
from t2ilib.sampling import load_sampler

SYSTEMS = "gancls_toy", "dfgan_toy", "galip_toy"
THREADS = 1, 2  # to an operation
PAINTED, LOOKED = "painting alone", "looking alone"
TURNS, OVERLAPPED = "one after the other", "painting ahead"


def ways(name: str, count: int) -> dict[str, Callable[[], object]]:
    """Return the four ways of a system, each a call that takes `count` pictures through it."""
    sampler = load_sampler(name)
    dataset = data.load(sampler.recipe.data.source, sampler.recipe.data.size, **sampler.recipe.data.options)
    settings = EvaluationSettings(count)
    _, captions = choose_captions(dataset.split(sampler.recipe.data.reference), settings)
    judge, scorer = load_judge(), load_encoder(sampler.recipe, "judge", sampler.folder)

    def painted() -> Iterator[Tensor]:
        return paint(sampler, captions, sampler.encoder, settings)

    kept = list(painted())
    return {
        PAINTED: lambda: list(painted()),
        LOOKED: lambda: Look(judge, scorer, kept),
        TURNS: lambda: Look(judge, scorer, painted()),
        OVERLAPPED: lambda: Look(judge, scorer, ahead(painted())),
    }


def main(count: int = 128, repeats: int = 9, systems: tuple[str, ...] = SYSTEMS) -> None:
    """Measure, print and write."""
    keep_freed_memory()
    before, rows = os.getloadavg(), []
    for name in systems:
        calls = ways(name, count)
        spent = {(way, threads): ([], []) for threads in THREADS for way in calls}
        for turn in range(-1, repeats):  # the first turn warms up
            for (way, threads), (wall, processor) in spent.items():
                torch.set_num_threads(threads)
                start, busy = time.perf_counter(), time.process_time()
                calls[way]()
                if turn >= 0:
                    wall.append(time.perf_counter() - start)
                    processor.append(time.process_time() - busy)
        rows += [_row(name, count, *key, *found) for key, found in spent.items()]
    told = {"count": count, "batch": CPU_BATCH, "repeats": repeats, "rows": rows}
    load = {"before": before[0], "after": os.getloadavg()[0]}
    write_json(RESULTS / "evaluation.json", told | {"load of the machine": load, "environment": environment()})


def _row(system: str, count: int, way: str, threads: int, wall: list[float], processor: list[float]) -> dict:
    """Return one row: pictures a second by the median and by the best turn, and the processor's share."""
    row = {
        "system": system,
        "way": way,
        "threads": threads,
        "pictures per second": round(count / statistics.median(wall), 1),
        "best turn": round(count / min(wall), 1),
        "processor milliseconds per picture": round(1000 * statistics.median(processor) / count, 3),
    }
    print("  ".join(f"{key} {value}" for key, value in row.items()))
    return row


if __name__ == "__main__":
    main()

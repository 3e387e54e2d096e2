"""How much memory do metrics take while pictures pass, and how fast do they look?

`python benchmarks/streaming.py` shows 1,000 and then 30,000 pictures of 256 pixels, each time in a process of its own,
to Frechet distance, KID, precision, recall and Inception Score by the judge; the result goes to
`benchmarks/results/streaming.json`. The pictures are noise: what they show changes neither memory nor time.
"""

import json
import resource
import subprocess
import sys
import time

import torch
from step import RESULTS

from t2ilib.devices import CPU_BATCH, keep_freed_memory
from t2ilib.files import write_json
from t2ilib.metrics.drawing import tidied
from t2ilib.metrics.extractors import JudgeExtractor, Shared
from t2ilib.metrics.judge import load_judge
from t2ilib.metrics.protocols import COMPARED, METRICS
from t2ilib.metrics.references import reference_of
from t2ilib.provenance import environment

COUNTS = 1000, 5000, 30_000
SIDE = 256  # pixels
NAMES = (*sorted(COMPARED), "inception_score")


def stream(count: int) -> dict:
    """Show so many pictures; return seconds, and the process's largest memory before and after, in MB."""
    keep_freed_memory()
    extractor = Shared(JudgeExtractor(load_judge(device="cpu")))
    real = torch.randint(0, 256, (CPU_BATCH, SIDE, SIDE, 3), dtype=torch.uint8).numpy()
    reference = reference_of((real for _ in range(500 // CPU_BATCH)), extractor, {"pictures": "noise"}, folder=None)
    metrics = {name: METRICS[name](extractor, reference, 200) for name in NAMES}
    before, start = _memory(), time.perf_counter()
    noise = (torch.rand(CPU_BATCH, 3, SIDE, SIDE) * 2 - 1 for _ in range(count // CPU_BATCH))
    for pictures in tidied(noise):
        for metric in metrics.values():
            metric.update(pictures)
    seconds, after = time.perf_counter() - start, _memory()
    for metric in metrics.values():
        metric.compute()
    return {
        "pictures": count // CPU_BATCH * CPU_BATCH,
        "pictures per second": round(count / seconds, 1),
        "memory before, MB": before,
        "memory after, MB": after,
        "memory with the numbers, MB": _memory(),
    }


def main(counts: tuple[int, ...] = COUNTS) -> None:
    """Measure each in a process of its own, print and write."""
    rows = []
    for count in counts:
        done = subprocess.run([sys.executable, __file__, str(count)], check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1])
    told = {"side": SIDE, "batch": CPU_BATCH, "metrics": NAMES, "rows": rows, "environment": environment()}
    write_json(RESULTS / "streaming.json", told)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(stream(int(sys.argv[1]))))
    else:
        main()

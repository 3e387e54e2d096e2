"""How many pictures a second the shipped DF-GAN paints, by batch size and by what happens to freed memory.

`python benchmarks/sampling.py` measures float32 sampling with glibc's defaults and with freed blocks kept, turn by turn
in one process; the result goes to `benchmarks/results/sampling.json`.
"""

import statistics
import time

from step import RESULTS, default_memory, wait

from t2ilib.devices import CPU_BATCH, keep_freed_memory
from t2ilib.files import write_json
from t2ilib.provenance import environment
from t2ilib.sampling import load_sampler

BATCHES = (CPU_BATCH, 64, 256)
MEMORY = {"freed memory given back": default_memory, "freed memory kept": keep_freed_memory}


def main(count: int = 512, repeats: int = 5) -> None:
    """Measure, print and write."""
    sampler, rows = load_sampler("dfgan_toy"), []
    captions = ["a red bird with black wings."] * count
    text = sampler.encoder.encode(captions)
    noise = sampler.noise(count).to(text.sentence.device)
    seconds = {(batch, memory): [] for batch in BATCHES for memory in MEMORY}
    for turn in range(-1, repeats):  # the first turn warms up
        for (batch, memory), spent in seconds.items():
            MEMORY[memory]()
            for first in range(0, 2 * batch, batch):  # memory settles
                sampler.generate(text[first : first + batch], noise[first : first + batch])
            start = time.perf_counter()
            for first in range(0, count, batch):
                sampler.generate(text[first : first + batch], noise[first : first + batch])
            wait(noise.device)
            if turn >= 0:
                spent.append(time.perf_counter() - start)
    for (batch, memory), spent in seconds.items():
        rows.append(
            {"batch": batch, "memory": memory, "pictures per second": round(count / statistics.median(spent), 1)}
        )
        print(f"batches of {batch:3}, {memory:24} {rows[-1]['pictures per second']:7.1f} pictures a second")
    write_json(
        RESULTS / "sampling.json", {"system": "dfgan_toy", "count": count, "rows": rows, "environment": environment()}
    )


if __name__ == "__main__":
    main()

"""How long a visitor of the explorer waits: from pressing Generate until the pictures are in the page's model.

`python benchmarks/explorer.py` drives the widget from Python, system by system: four pictures, first when nothing is
loaded, then with another seed each time; a closer look; a walk. The result goes to `benchmarks/results/explorer.json`.
What the browser needs to show them comes on top.
"""

import statistics
import tempfile
import time
from pathlib import Path

from step import RESULTS

from t2ilib.explore import Explorer, Studio, looking, markup
from t2ilib.files import write_json
from t2ilib.provenance import environment


def main(repeats: int = 20, systems: tuple[str, ...] = ()) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as folder:
        looking.MEMORY = Path(folder)
        _measure(repeats, systems)


def _measure(repeats: int, systems: tuple[str, ...]) -> None:
    Explorer(shared=Studio())  # what a process imports and builds for its first explorer
    rows = []
    for name in systems or Studio().systems():
        studio = Studio()  # nothing is loaded, and nobody has looked at the training pictures
        explorer = Explorer(systems=[name], shared=studio)
        row = {"system": name, "first, loading": waited(explorer, explorer.generate, "paint")}
        later = [waited(explorer, explorer.next, "paint") for _ in range(repeats)]
        row |= {"later, median": statistics.median(later), "later, slowest": max(later)}
        row["walk of eight"] = statistics.median(waited(explorer, explorer.go, "walk") for _ in range(5))
        look = explorer.gallery.rows[0].cells[0].button
        row["first closer look"] = waited(explorer, look, "look")
        row["later closer look"] = statistics.median(waited(explorer, look, "look") for _ in range(5))
        rows.append({key: value if key == "system" else round(value, 3) for key, value in row.items()})
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    write_json(RESULTS / "explorer.json", {"pictures": 4, "rows": rows, "environment": environment()})


def waited(explorer: Explorer, button, kind: str) -> float:
    """Press a button; return the seconds until what it asks for is there, then let the explorer come to rest."""
    start = time.perf_counter()
    button.click()
    explorer.worker.wait(kind=kind)
    spent = time.perf_counter() - start
    explorer.worker.wait()
    if "alert" in explorer.status.value:
        raise RuntimeError(markup.plain(explorer.status.value))
    return spent


if __name__ == "__main__":
    main()

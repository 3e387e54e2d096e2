"""Finished runs of GAN-CLS in folders of their own, with tiny weights where a test wants them."""

import json

import pytest
import test_comparison

from t2ilib import assembly, files
from t2ilib.encoders import load_encoder
from t2ilib.training import Run

run = test_comparison.run
SMALL = {"ngf": 4, "ndf": 4, "batch_size": 4}


@pytest.fixture(autouse=True)
def nothing_shipped(tmp_path, monkeypatch):
    """Where no weights are shipped."""
    monkeypatch.setattr(files, "WEIGHTS", tmp_path / "shipped")


@pytest.fixture
def trained(run, tmp_path):
    """Make a finished run as `run` does, of small networks, with a checkpoint of its last step: random weights."""

    def make(name, *arguments, **changes):
        folder = run(name, *arguments, model=SMALL, **changes)
        begun = Run.open(folder)
        encoder = load_encoder("toy-clip")
        system = assembly.build(begun.recipe, {"text": encoder})
        begun.encoders = {"text": encoder.fingerprint}
        state = {f"generator.{key}": value for key, value in system.generator.state_dict().items()}
        begun.save(changes.get("step", 20), state, {"seconds": 1.0, "skipped": 0, "drawn": 1})
        return folder

    return make


@pytest.fixture
def write_records():
    """Replace the records of a run: a mapping of step to images and seconds."""

    def write(folder, records):
        rows = [{"step": step, "images": images, "seconds": spent} for step, (images, spent) in records.items()]
        (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write

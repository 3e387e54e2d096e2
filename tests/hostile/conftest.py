"""A command line to try things on: small pictures, a small trained run, and a record of how each try was answered."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .forked import ACCEPTED, REFUSED, Answer, Forked

SYSTEM = ("--set", "model.ngf=4", "--set", "model.ndf=4", "--set", "model.batch_size=4", "--set", "data.size=32")
SHORT = ("--set", "training.sample_every=1000", "--set", "training.log_every=1", "--set", "evaluation.n=4")


@pytest.fixture(scope="session")
def forked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    answers = Forked({"T2I_DATA": str(folder / "data"), "T2I_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"})
    yield answers
    answers.close()


@pytest.fixture
def ask(forked, tmp_path, request):
    """Run `t2i ARGUMENTS` in the test's folder, and note how it was answered.

    `wanted` says what would be right: "refuse", "accept", or "either" where both can be.
    """

    def run(*arguments: object, kind: str, wanted: str = "refuse", folder: Path = tmp_path) -> Answer:
        answer = forked.ask(*arguments, folder=folder)
        right = {"refuse": (REFUSED,), "accept": (ACCEPTED,), "either": (REFUSED, ACCEPTED)}[wanted]
        good = answer.kind in right
        found = f"{ACCEPTED} {'rightly' if good else 'wrongly'}" if answer.kind == ACCEPTED else answer.kind
        request.node.user_properties.append(("hostile", [kind, found]))
        said = f"t2i {' '.join(map(str, arguments))}\n{answer.out[-1500:]}\n{answer.err[-3000:]}\n{answer}"
        assert good, f"{answer.kind}, wanted: {wanted}\n{said}"
        return answer

    return run


def picture(number: int, size: tuple[int, int] = (40, 36)) -> bytes:
    """A PNG of noise, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(count: int = 12) -> list[dict]:
    """The lines of a metadata.jsonl: three quarters to train on, the rest to test on."""
    colours = ("red", "blue", "green", "black")
    return [
        {
            "file_name": f"{number}.png",
            "text": f"a {colours[number % 4]} bird with {colours[number // 4 % 4]} wings.",
            "split": "test" if number % 4 == 3 else "train",
        }
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of twelve pictures with captions; not to be changed."""
    return write_photos(tmp_path_factory.mktemp("photos"))


def write_photos(folder: Path, lines: list[dict] | None = None) -> Path:
    """Write pictures and their metadata.jsonl into a folder and return it."""
    lines = rows() if lines is None else lines
    folder.mkdir(exist_ok=True)
    for number, row in enumerate(rows()):
        (folder / row["file_name"]).write_bytes(picture(number))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


@pytest.fixture(scope="session")
def trained(forked, photos, tmp_path_factory) -> Path:
    """A GAN-CLS of two steps on these pictures, read by the shipped toy CLIP; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    command = ("train", "gancls", "--data", photos, "--steps", 2, "--folder", folder / "run", *SYSTEM, *SHORT)
    answer = forked.ask(*command, folder=folder)
    assert answer.status == 0, answer.err
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run, to be spoilt."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"

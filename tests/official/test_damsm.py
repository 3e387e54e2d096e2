"""DF-GAN's released checkpoint with DAMSM's two files beside it: captions in, pictures out; and what is refused."""

import pickle

import parity
import pytest
import torch
from typer.testing import CliRunner

from t2ilib import official
from t2ilib.cli import app
from t2ilib.encoders.damsm import TextLSTM
from t2ilib.errors import InputError
from t2ilib.explore import Request, Studio
from t2ilib.official.damsm import find_text, load_text
from t2ilib.pictures import to_uint8
from t2ilib.sampling import load_sampler

NAMES = ["<end>", *["a", "bird", "red", "with", "wings", "black", "blue"]]
VOCABULARY = [[[1, 3, 2]], [[1, 7, 2]], dict(enumerate(NAMES)), {name: number for number, name in enumerate(NAMES)}]
CAPTIONS = ["a red bird", "a blue bird with black wings"]


def released(network):
    """Return a state dict under the released names."""
    names = {"embedding": "encoder", "lstm": "rnn"}
    return {".".join([names[n.split(".")[0]], n.split(".")[1]]): value for n, value in network.state_dict().items()}


@pytest.fixture
def folder(tmp_path):
    """A folder as users of DF-GAN have it; the golden generator reads sentences of 32 numbers."""
    torch.manual_seed(0)
    torch.save(released(TextLSTM(len(NAMES), 300, 32)), tmp_path / "text_encoder200.pth")
    (tmp_path / "captions_DAMSM.pickle").write_bytes(pickle.dumps(VOCABULARY, protocol=2))
    networks = parity.networks(parity.weights("dfgan_64"), "netG", "netD", "netC")
    torch.save({"model": networks, "epoch": 1220}, tmp_path / "state_epoch_1220.pth")
    return tmp_path


def test_a_released_checkpoint_paints_captions(folder):
    source = f"dfgan:{folder / 'state_epoch_1220.pth'}"
    sampler = load_sampler(source, "cpu")
    drawn = torch.cat(list(sampler.stream(CAPTIONS, seed=3, per_caption=2)))
    text, noise = find_text(folder).encode(CAPTIONS), sampler.noise(2, torch.Generator().manual_seed(3))
    system = official.load("dfgan", folder / "state_epoch_1220.pth")
    expected = torch.cat([system.generate(text[[row] * 2], noise) for row in (0, 1)])
    assert parity.relative(drawn, expected.detach()) < 1e-5 and drawn.shape == (4, 3, 64, 64) and sampler.side == 64
    assert parity.relative(drawn[0], drawn[2]) > 0.01  # the words count


def test_explorer_and_command_line_take_it(folder):
    source = f"dfgan:{folder / 'state_epoch_1220.pth'}"
    studio = Studio("cpu")
    painting = studio.paint(Request(CAPTIONS[0], source, seed=3, count=2))
    assert (painting.pictures == to_uint8(load_sampler(source, "cpu").sample(CAPTIONS[:1], 3, 2))).all()
    assert studio.unknown([source], "a red xylophone") == ["xylophone"]
    eyes = studio.eyes(source)
    assert eyes.scores(painting.pictures, CAPTIONS[0]) is None and eyes.diversity(painting.pictures) is None
    with pytest.raises(InputError, match="released weights say neither"):
        eyes.nearest(painting.pictures)
    again, _ = studio.again(painting.receipt(1), source)
    assert (again == painting.pictures[1]).all()
    out = folder / "drawn.png"
    done = CliRunner().invoke(app, ["sample", source, CAPTIONS[0], "--out", str(out), "--per-caption", "2"])
    assert done.exit_code == 0 and out.is_file()
    refused = CliRunner().invoke(app, ["evaluate", source, "--out", str(folder)])
    assert isinstance(refused.exception, InputError) and "no recipe says" in str(refused.exception)


def test_the_encoders_files_must_lie_beside_it(folder):
    source = f"dfgan:{folder / 'state_epoch_1220.pth'}"
    (folder / "text_encoder100.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds text_encoder100\.pth, text_encoder200\.pth"):
        load_sampler(source)
    (folder / "text_encoder100.pth").unlink()
    (folder / "captions_DAMSM.pickle").unlink()
    with pytest.raises(InputError, match=r"must hold one captions\*\.pickle of DAMSM, holds none"):
        load_sampler(source)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": 1}, "numbers words up to 1, text_encoder200.pth has 7"),
        ({"a": 1, "bird": 1}, "not numbered from 1 on"),
        ({"a": 1, "bird": 3}, "not numbered from 1 on"),
        ({"a": 1, 5: 2}, "not numbered from 1 on .as 5"),
        ({"a": True}, "not numbered from 1 on"),
        ({"<end>": 0}, "not numbered from 1 on"),
        ([], "no vocabulary"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(folder, table, message):
    path = folder / "captions_DAMSM.pickle"
    path.write_bytes(pickle.dumps([[], [], {}, table], protocol=2))
    with pytest.raises(InputError, match=message) as found:
        find_text(folder)
    assert str(path) in str(found.value)


def test_weights_that_are_none_are_refused(folder):
    weights, vocabulary = folder / "text_encoder200.pth", folder / "captions_DAMSM.pickle"
    whole = torch.load(weights, weights_only=True)
    wide = {"encoder.weight": torch.zeros(1, 1).expand(1 << 40, 300)}  # more memory than any machine has
    one_way = {name: value for name, value in whole.items() if "reverse" not in name}
    damaged = {"encoder.weight": torch.full_like(whole["encoder.weight"], torch.nan)}
    cases = {
        "no text encoder of DAMSM": [{}, {"x": torch.zeros(2)}, {**whole, **wide}, parity.weights("dfgan_64")],
        "is missing": [one_way],
        "is not finite": [{**whole, **damaged}],
    }
    for message, contents in cases.items():
        for content in contents:
            torch.save(content, weights)
            with pytest.raises(InputError, match=message) as found:
                load_text(weights, vocabulary)
            assert str(weights) in str(found.value)


def test_tensors_whose_numbers_are_not_in_the_file_are_refused(folder):
    """They would take memory that nobody has sent, or none that anybody could look at."""
    source, path = f"dfgan:{folder / 'state_epoch_1220.pth'}", folder / "state_epoch_1220.pth"
    whole = torch.load(path, weights_only=True)
    whole["model"]["netG"]["fc.weight"] = whole["model"]["netG"]["fc.weight"].to("meta")
    torch.save(whole, path)
    with pytest.raises(InputError, match=r"state_epoch_1220\.pth: holds tensors without numbers"):
        load_sampler(source)

    class Made:
        def __reduce__(self):
            return torch.FloatTensor, (60_000, 2)

    torch.save({"encoder.weight": Made()}, path)
    with pytest.raises(InputError, match=r"state_epoch_1220\.pth: says that it holds more numbers"):
        load_sampler(source)


def test_an_encoder_that_changes_is_read_again_and_told(folder):
    """The picture's recipe holds it: another encoder beside the same generator paints another picture."""
    source, studio = f"dfgan:{folder / 'state_epoch_1220.pth'}", Studio("cpu")
    first = studio.paint(Request(CAPTIONS[0], source, count=1))
    numbers = {name: number for number, name in enumerate(reversed(NAMES[1:]), start=1)}
    (folder / "captions_DAMSM.pickle").write_bytes(pickle.dumps([[], [], {}, numbers], protocol=2))
    second = studio.paint(Request(CAPTIONS[0], source, count=1))
    assert (first.pictures != second.pictures).any() and first.weights != second.weights


def test_an_encoder_of_another_length_is_refused(folder):
    torch.save(released(TextLSTM(len(NAMES), 300, 64)), folder / "text_encoder200.pth")
    with pytest.raises(InputError, match="reads sentences of 32 numbers, damsm-text_encoder200 gives 64"):
        load_sampler(f"dfgan:{folder / 'state_epoch_1220.pth'}")


def test_half_precision_and_parallel_names_are_read(folder):
    expected = find_text(folder).encode(CAPTIONS).sentence
    whole = torch.load(folder / "text_encoder200.pth", weights_only=True)
    torch.save({f"module.{name}": value.half() for name, value in whole.items()}, folder / "text_encoder200.pth")
    found = find_text(folder).encode(CAPTIONS).sentence
    assert found.dtype == torch.float32 and parity.relative(found, expected) < 1e-2


@pytest.mark.parametrize("name", ["gancls", "wgan"])
def test_systems_whose_captions_nobody_reads_say_so(tmp_path, name):
    with pytest.raises(InputError, match="reads no captions"):
        load_sampler(f"{name}:{tmp_path / 'x.pth'}")


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"x\.pth: no such file"):
        load_sampler(f"dfgan:{tmp_path / 'x.pth'}")
    with pytest.raises(InputError, match="too long; give dfgan:FILE"):
        load_sampler(f"dfgan:{'a' * 300}")


def test_a_file_that_is_none_is_refused_before_anything_is_fetched(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("no checkpoint")
    monkeypatch.setattr("t2ilib.released.load_encoder", lambda name: pytest.fail("fetched"))
    with pytest.raises(InputError, match=r"README\.md: truncated, or not a checkpoint"):
        load_sampler(f"galip:{tmp_path / 'README.md'}")

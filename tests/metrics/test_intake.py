import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import pictures

from t2ilib.errors import InputError
from t2ilib.metrics.intake import Intake, as_saved, check_pair, check_pictures, to_bytes
from t2ilib.pictures import to_float, to_uint8


def spoilt(value: float) -> torch.Tensor:
    found = pictures(2)
    found[1, 2, 3, 4] = value
    return found


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (pictures(2)[:, :1], "greyscale"),
        (pictures(2)[0], "of shape"),
        (pictures(2)[:, :2], "of shape"),
        (pictures(2)[:0], "of shape"),
        (to_bytes(pictures(2)).byte(), "are uint8"),
        (np.zeros((2, 3, 4, 4)), "are float64"),
        ("pictures", "are str"),
        (to_bytes(pictures(2)), r"in \[.*\]; give them in \[-1, 1\]"),
        (spoilt(-1.01), r"in \[-1.01"),
        (spoilt(torch.nan), "NaN or infinite"),
        (spoilt(torch.inf), "NaN or infinite"),
        (spoilt(-torch.inf), "NaN or infinite"),
    ],
)
def test_what_no_metric_can_look_at_is_named(bad, message):
    with pytest.raises(InputError, match=message):
        check_pictures(bad)


def test_rounding_beyond_the_range_is_borne():
    check_pictures(spoilt(1.0005))


@pytest.mark.parametrize(
    ("real", "message"),
    [
        (None, "none given"),
        (pictures(3), "real: "),
        (pictures(2, side=6), "real: "),
        (spoilt(torch.nan), "real: some are NaN"),
        (pictures(2)[:, :1], "real: .* greyscale"),
    ],
)
def test_pairs_that_are_none_are_named(real, message):
    with pytest.raises(InputError, match=message):
        check_pair(pictures(2), real)


def test_a_metric_sees_what_a_file_would_hold():
    images = pictures(5) * 1.0005
    saved = to_uint8(images)
    assert torch.equal(as_saved(images), to_float(saved))
    assert torch.equal(as_saved(as_saved(images)), as_saved(images))
    assert np.array_equal(to_bytes(images).permute(0, 2, 3, 1).numpy(), saved)
    assert torch.equal(images, pictures(5) * 1.0005), "what was shown is not changed"


def test_pictures_are_counted_as_they_come():
    intake = Intake()
    assert intake.take(pictures(3)).tolist() == [0, 1, 2]
    assert intake.take(pictures(2)).tolist() == [3, 4]


def test_given_places_are_kept():
    assert Intake().take(pictures(3), [7, 1, 4]).tolist() == [7, 1, 4]


@pytest.mark.parametrize("places", [[0, 1], [0.0, 1.0, 2.0], [0, 1, -1], [[0, 1, 2]]])
def test_places_that_are_none_are_named(places):
    with pytest.raises(InputError, match="positions: of shape"):
        Intake().take(pictures(3), places)


def test_places_for_some_only_are_refused():
    intake = Intake()
    intake.take(pictures(3))
    with pytest.raises(InputError, match="for all, or for none"):
        intake.take(pictures(3), [3, 4, 5])
    other = Intake()
    other.take(pictures(1), [0])
    with pytest.raises(InputError, match="for all, or for none"):
        other.take(pictures(3))
    with pytest.raises(InputError, match="in all, or in none"):
        intake.join(other.state())


def test_pictures_of_another_size_are_refused():
    intake, other = Intake(), Intake()
    intake.take(pictures(2))
    other.take(pictures(2, side=6))
    with pytest.raises(InputError, match="6 x 6 pixels after 12 x 12"):
        intake.take(pictures(2, side=6))
    with pytest.raises(InputError, match="6 x 6 pixels after 12 x 12"):
        intake.join(other.state())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_processes_that_counted_follow_each_other(counts):
    """Each counts from 0; behind each other their places are those of one process, empty ones included."""
    whole, found = Intake(), []
    for count in counts:
        part = Intake()
        places = part.take(pictures(count, side=2)) if count else torch.empty(0, dtype=torch.int64)
        found += (places + whole.join(part.state())).tolist()
    assert found == list(range(sum(counts)))


def test_an_empty_process_takes_in_places():
    intake, other = Intake(), Intake()
    other.take(pictures(2), [5, 6])
    assert intake.join(other.state()) == 0
    assert intake.take(pictures(1), [7]).tolist() == [7]

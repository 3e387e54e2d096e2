import itertools
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import SIZE, Custom, extractor, features, fill, network, pictures

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import toy_birds
from t2ilib.errors import InputError
from t2ilib.metrics import references
from t2ilib.metrics.drawing import Team
from t2ilib.metrics.fid import Fid
from t2ilib.metrics.kid import Kid
from t2ilib.metrics.references import Augmentation, augmented, checksum, dataset_reference, features_of, reference_of
from t2ilib.pictures import to_float, to_uint8


@pytest.fixture(scope="module")
def birds() -> CaptionedImages:
    return toy_birds(train=30, validation=1, test=1, size=32, seed=5).split("train")


class Counted(Custom):
    """The small extractor, which counts the pictures that it is shown."""

    def __init__(self, name="small", resize="none"):
        self.looked = 0
        super().__init__(self._network, SIZE, name, resize)

    def _network(self, seen):
        self.looked += len(seen)
        return network(seen)


def test_a_data_set_is_measured_whole(birds):
    found, rows = dataset_reference(birds, extractor(), folder=None), features(to_float(birds.images))
    table = rows.double().numpy()
    assert np.allclose(found.mean, table.mean(0), rtol=1e-9) and np.allclose(found.covariance, np.cov(table.T))
    assert torch.equal(found.features, rows) and found.count == 30
    assert found.details["split"] == ["train"] and found.details["pixels"] == [32, 32]
    assert found.details["augmentation"] is None and found.details["extractor"] == "small"


def test_metrics_take_it(birds):
    found = dataset_reference(birds, extractor(), folder=None)
    shown = to_float(birds.images)
    assert fill(Fid(extractor(), found), shown).compute().value == pytest.approx(0, abs=1e-6)
    assert fill(Kid(extractor(), found, 10, 3), shown).compute().details["reference"] == found.details


def test_the_file_is_read_again(birds, tmp_path):
    look = Counted()
    first, second = (dataset_reference(birds, look, folder=tmp_path) for _ in range(2))
    assert look.looked == 30 and len(list(tmp_path.iterdir())) == 1
    assert np.array_equal(first.mean, second.mean) and np.array_equal(first.covariance, second.covariance)
    assert torch.equal(first.features, second.features)
    assert (first.count, first.details) == (second.count, second.details)


def test_all_that_it_depends_on_has_a_file_of_its_own(birds, tmp_path):
    other = CaptionedImages(255 - birds.images, birds.captions, birds.class_ids, birds.splits, birds.class_names)
    for dataset, look, how in (
        (birds, Counted(), None),
        (other, Counted(), None),
        (birds, Counted(name="other"), None),
        (birds, Counted(resize="299 px"), None),
        (birds, Counted(), Augmentation(60)),
        (birds, Counted(), Augmentation(60, flip=False)),
        (birds, Counted(), Augmentation(60, seed=1)),
        (birds.subset(range(20)), Counted(), None),
    ):
        dataset_reference(dataset, look, how, tmp_path)
        assert look.looked
    assert len(list(tmp_path.iterdir())) == 8


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def changed(path):
    """One number of the mean, all else as it was: only the digest tells."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def foreign(path):
    save_file({"mean": torch.zeros(3)}, path)


def undigested(path):
    save_file(load_file(path), path)


def relabelled(path):
    """Numbers of another kind in the same bytes, of which the digest knows nothing."""
    content = path.read_bytes()
    assert b'"F32"' in content
    path.write_bytes(content.replace(b'"F32"', b'"I32"'))


@pytest.mark.parametrize("harm", [cut, emptied, changed, foreign, undigested, relabelled])
def test_a_damaged_file_is_computed_anew(birds, tmp_path, caplog, harm):
    look = Counted()
    first = dataset_reference(birds, look, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    harm(path)
    with caplog.at_level(logging.WARNING):
        second = dataset_reference(birds, look, folder=tmp_path)
    assert look.looked == 60 and "damaged" in caplog.text
    assert np.array_equal(first.mean, second.mean)
    dataset_reference(birds, look, folder=tmp_path)
    assert look.looked == 60, "and the file is whole again"


def test_a_folder_that_cannot_be_written_costs_no_result(birds, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert dataset_reference(birds, extractor(), folder=tmp_path / "file").count == 30
    assert "cannot be written" in caplog.text


def test_batches_change_nothing_and_few_features_stay(birds):
    def batches(size):
        return (birds.images[first : first + size] for first in range(0, 30, size))

    found = [reference_of(batches(size), extractor(), {}, None, kept=10) for size in (1, 7, 30)]
    assert all(torch.equal(one.features, found[0].features) and len(one.features) == 10 for one in found)
    assert all(np.allclose(one.mean, found[0].mean, rtol=1e-12) for one in found)


@pytest.mark.parametrize("harm", [None, cut, changed, foreign])
def test_features_are_kept_whole_to_the_last_bit(birds, tmp_path, caplog, harm):
    rows, looks = features(to_float(birds.images)).numpy(), []
    for _ in range(3):
        kept = features_of(birds.images, lambda: looks.append(1) or rows, {"extractor": "small"}, tmp_path)
        assert kept.dtype == np.float32 and np.array_equal(kept, rows)
        if harm and len(looks) == 1:
            harm(next(tmp_path.iterdir()))
    assert len(looks) == (1 if harm is None else 2) and ("damaged" in caplog.text) == (harm is not None)


def test_features_of_an_earlier_version_are_not_read(birds, tmp_path, monkeypatch):
    rows, looks = features(to_float(birds.images)).numpy(), []
    for version in (1, 2, 2):
        monkeypatch.setattr(references, "VERSION", version)
        features_of(birds.images, lambda: looks.append(references.VERSION) or rows, {"extractor": "small"}, tmp_path)
    assert looks == [1, 2] and len(list(tmp_path.iterdir())) == 2


def test_of_a_team_all_look_where_one_has_no_file(birds, tmp_path, monkeypatch):
    """Or those who look would wait for those who do not."""
    rows, looks, files = features(to_float(birds.images)).numpy(), [], []
    for others_have in (False, True, False):

        def gather(lists, own, others_have=others_have):
            lists[:] = [own, [others_have]]

        monkeypatch.setattr("torch.distributed.all_gather_object", gather)
        for rank in (1, 0):  # the second process writes nothing
            told = birds.images, lambda: looks.append(1) or rows, {"extractor": "small"}, tmp_path
            assert np.array_equal(features_of(*told, Team(rank, 2)), rows)
            files.append(len(list(tmp_path.iterdir())))
    assert len(looks) == 2 + 0 + 2 and files == [0, 1, 1, 1, 1, 1]


def test_the_checksum_is_of_bytes_and_shape(birds):
    images = np.array(birds.images)
    assert checksum(images) == checksum(images.copy()) == checksum(np.asfortranarray(images))
    changed = images.copy()
    changed[7, 3, 2, 1] ^= 1
    assert checksum(changed) != checksum(images)
    assert checksum(images.reshape(60, 16, 32, 3)) != checksum(images)


# ---- augmentation ------------------------------------------------------------------------------------------------


def whole(images, how, batch=7):
    return np.concatenate(list(augmented(images, how, batch)))


def test_the_first_round_shows_the_pictures_and_batches_change_nothing(birds):
    found = whole(birds.images, Augmentation(100, shift=0.25))
    assert len(found) == 100 and np.array_equal(found[:30], birds.images)
    assert np.array_equal(found, whole(birds.images, Augmentation(100, shift=0.25), 100))
    assert not np.array_equal(found, whole(birds.images, Augmentation(100, shift=0.25, seed=1)))


def test_every_picture_is_flipped_and_shifted_by_no_more_than_said(birds):
    """Each is its own bird, mirrored or not, then moved by at most 2 pixels; all of that occurs."""
    found, used = whole(birds.images, Augmentation(300, shift=1 / 16))[30:], set()
    for place, picture in enumerate(found):
        bird, fits = birds.images[place % 30], set()
        for flip in (False, True):
            padded = np.pad(bird[:, ::-1] if flip else bird, ((2, 2), (2, 2), (0, 0)), "edge")
            for down, right in itertools.product(range(-2, 3), repeat=2):
                if np.array_equal(picture, padded[2 - down : 34 - down, 2 - right : 34 - right]):
                    fits.add((flip, down, right))
        assert fits, place
        used |= fits
    assert {flip for flip, *_ in used} == {False, True}
    assert {down for _, down, _ in used} == {right for *_, right in used} == {-2, -1, 0, 1, 2}


def test_nothing_to_do_repeats_the_pictures(birds):
    found = whole(birds.images, Augmentation(90, flip=False, shift=0.0))
    assert np.array_equal(found, np.concatenate([birds.images] * 3))


def test_an_augmented_reference_counts_all_and_says_so(birds):
    found = dataset_reference(birds, extractor(), Augmentation(90, flip=False, shift=0.0), None)
    plain = dataset_reference(birds, extractor(), None, None)
    assert found.count == 90 and np.allclose(found.mean, plain.mean)
    assert found.details["augmentation"] == {"count": 90, "flip": False, "shift": 0.0, "seed": 0}


@pytest.mark.parametrize("bad", [{"count": 0}, {"shift": -0.1}, {"shift": 0.6}, {"seed": -1}, {"shift": float("nan")}])
def test_augmentations_of_nothing_are_refused(bad):
    with pytest.raises(InputError, match=rf"augmentation\.{next(iter(bad))} = "):
        Augmentation(**bad)


def test_fewer_than_there_are_is_named(birds):
    with pytest.raises(InputError, match="count = 20: there are 30 pictures"):
        dataset_reference(birds, extractor(), Augmentation(20), None)


def test_data_sets_that_cannot_be_measured_are_named(birds):
    with pytest.raises(InputError, match="reference: no pictures"):
        dataset_reference(birds.subset([]), extractor(), folder=None)
    with pytest.raises(InputError, match="1 have no covariance"):
        dataset_reference(birds.subset([0]), extractor(), folder=None)


def test_pictures_are_seen_as_they_are(birds):
    assert np.array_equal(to_uint8(to_float(birds.images)), birds.images)
    assert pictures(1).shape == (1, 3, 12, 12)

import pytest
import torch
from small import SIZE, extractor, network, pictures

from t2ilib.data.toy import toy_birds
from t2ilib.encoders import load_encoder
from t2ilib.errors import InputError
from t2ilib.metrics.extractors import ClipExtractor, Custom, JudgeExtractor, ReleasedView, Shared, look
from t2ilib.metrics.judge import Judge, JudgeConfig
from t2ilib.pictures import to_float, to_uint8


@pytest.fixture(scope="module")
def birds():
    return toy_birds(train=6, validation=1, test=1, size=48, seed=3)


def test_networks_are_shown_8_bit_pictures():
    images = pictures(4)
    assert torch.equal(extractor()(images).features, network(to_float(to_uint8(images))).features)


def test_the_judge_sees_as_in_an_evaluation(judge, birds):
    images = to_float(birds.images)
    seen = JudgeExtractor(judge)(images)
    assert torch.equal(seen.features, judge.features(images))
    assert seen.features.shape[1] == JudgeExtractor(judge).size


def test_the_judges_classes_are_the_colours_of_the_body(judge, birds):
    images = to_float(birds.images)
    probabilities = JudgeExtractor(judge)(images).probabilities
    column = list(judge.config.attributes).index("body")
    assert probabilities.shape == (len(birds), len(judge.config.attributes["body"]))
    assert torch.allclose(probabilities.sum(1), torch.ones(len(birds)))
    assert torch.equal(probabilities.argmax(1), judge.predict(images)[:, column])


def test_a_judge_of_other_attributes_names_no_classes(attributes):
    judge = Judge(JudgeConfig(attributes, image_size=32))
    assert JudgeExtractor(judge)(pictures(2)).probabilities is None


def test_a_clip_gives_its_image_features(birds):
    clip, images = load_encoder("toy-clip"), to_float(birds.images)
    found = ClipExtractor(clip)
    assert torch.allclose(found(images).features, clip.encode_images(images), atol=1e-5)
    assert found.name.startswith(f"{clip.name}-{clip.fingerprint[:12]}") and str(clip.image_size) in found.resize
    assert look(found, images).features.shape == (len(birds), found.size)


class Shown:
    """A CLIP that answers with what it is shown."""

    name, fingerprint, image_size, sentence_dim, word_dim = "shown", "ab12", 2, 12, None

    def to(self, device):
        return self

    def encode_images(self, images):
        return images


def test_the_released_view_takes_the_nearest_pixels_on_any_device():
    view, images = ReleasedView(Shown()), pictures(3, side=5)
    picked = images[:, :, [0, 2]][:, :, :, [0, 2]]  # of pixels 0 to 4 those at 0 * 5 / 2 and 1 * 5 / 2
    assert torch.equal(view.encode_images(images), picked / 2 + 0.5)
    assert view.fingerprint == view.to("cpu").fingerprint == "ab12+released"
    assert torch.equal(view.to("cpu").encode_images(images), picked / 2 + 0.5)


def test_metrics_share_one_look():
    looks = []

    def counted(seen):
        looks.append(len(seen))
        return network(seen)

    shared, images = Shared(Custom(counted, SIZE, "small")), pictures(4)
    first, second = shared(images), shared(images)
    assert first is second and looks == [4]
    images.mul_(0.5)
    third = shared(images)
    assert looks == [4, 4] and not torch.equal(third.features, first.features), "changed in place"
    shared(images.clone())
    assert looks == [4, 4, 4], "another tensor"
    with torch.inference_mode():
        untracked = pictures(4)
    assert torch.equal(shared(untracked).features, first.features)
    with torch.inference_mode():
        untracked.mul_(0.5)
    assert torch.equal(shared(untracked).features, third.features), "changed, and nobody counts it"
    assert (shared.name, shared.resize, shared.size) == ("small", "none", SIZE)


def test_no_gradient_is_kept():
    weights = torch.ones(3, SIZE, requires_grad=True)
    metric = Custom(lambda seen: seen.mean(dim=(2, 3)) @ weights, SIZE, "trained")
    assert not look(metric, pictures(2)).features.requires_grad


def test_features_that_are_none_are_named():
    with pytest.raises(InputError, match=r"small: .* it says that it gives 6"):
        look(Custom(lambda seen: torch.zeros(3, SIZE), SIZE, "small"), pictures(2))

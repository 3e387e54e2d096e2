"""The frozen CLIP: its pixels, its words and their mask, its folder."""

import json
from types import SimpleNamespace

import pytest
import torch
from open_clip import create_model, get_tokenizer
from torch import nn

from t2ilib.encoders import load_encoder
from t2ilib.encoders.clip import CLIPEncoder, open_encoder, save_encoder, to_clip_range, to_unit_range
from t2ilib.encoders.tokens import WordTokenizer
from t2ilib.errors import InputError

CAPTIONS = ["a red square on blue", "something green", ""]


@pytest.fixture(scope="module")
def encoder(trained) -> CLIPEncoder:
    return open_encoder(trained[0])


def test_black_is_zero_and_white_is_one_before_normalisation(encoder: CLIPEncoder):
    for size in (16, 32, 50):
        black, white = -torch.ones(1, 3, size, size), torch.ones(1, 3, size, size)
        torch.testing.assert_close(to_unit_range(black, 32), torch.zeros(1, 3, 32, 32), atol=1e-6, rtol=0)
        torch.testing.assert_close(to_unit_range(white, 32), torch.ones(1, 3, 32, 32), atol=1e-6, rtol=0)


def test_the_network_sees_each_pixel_normalised_once(encoder: CLIPEncoder):
    seen = []
    hook = encoder.model.visual.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    encoder.encode_images(torch.stack([-torch.ones(3, 32, 32), torch.ones(3, 32, 32)]))
    hook.remove()
    mean, std = encoder.mean[:, 0, 0], encoder.std[:, 0, 0]
    torch.testing.assert_close(seen[0][0].mean((1, 2)), -mean / std)
    torch.testing.assert_close(seen[0][1].mean((1, 2)), (1 - mean) / std)


def test_what_a_clip_is_shown_is_the_same_in_training(encoder: CLIPEncoder):
    """`to_clip_range` alone decides, for the encoder and for its training."""
    pictures = torch.rand(2, 3, 20, 20) * 2 - 1
    shown = to_clip_range(pictures, 32, encoder.mean, encoder.std)
    torch.testing.assert_close(encoder.model.encode_image(shown), encoder.encode_images(pictures))
    torch.testing.assert_close(shown * encoder.std + encoder.mean, to_unit_range(pictures, 32))


def test_gradient_reaches_every_pixel_and_no_weight(encoder: CLIPEncoder):
    pictures = torch.rand(2, 3, 64, 64, requires_grad=True)
    encoder.similarity(pictures, CAPTIONS[:2]).sum().backward()
    assert (pictures.grad.abs().sum(1) > 0).float().mean() > 0.95
    assert all(weight.grad is None for weight in encoder.parameters())


def test_it_stays_frozen_inside_a_training_system(encoder: CLIPEncoder):
    torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_mask_is_true_behind_the_end_and_padding_changes_nothing(encoder: CLIPEncoder):
    features = encoder.encode(CAPTIONS)
    assert (~features.mask).sum(1).tolist() == [5 + 2, 2 + 2, 2]
    last = (~features.mask).sum(1) - 1
    torch.testing.assert_close(features.words[torch.arange(3), last], features.sentence)


def test_a_caption_means_the_same_in_any_company(encoder: CLIPEncoder):
    together = encoder.encode(CAPTIONS).sentence
    torch.testing.assert_close(encoder.encode(CAPTIONS[::-1]).sentence.flip(0), together)
    torch.testing.assert_close(encoder.encode(CAPTIONS[1:2]).sentence, together[1:2])
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize("custom", [False, True])
def test_a_byte_pair_model_masks_after_its_end_token_and_keeps_exclamation_marks(custom: bool):
    sizes = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = create_model("ViT-B-32", force_custom_text=custom, text_cfg=text, **sizes)
    encoder = CLIPEncoder(model, get_tokenizer("ViT-B-32", context_length=16), {"name": "tiny"})
    features = encoder.encode(["! bird", "a bird"])  # "!" has id 0, the id that fills the line
    assert (~features.mask).sum(1).tolist() == [4, 4]
    torch.testing.assert_close(features.words[:, 3], features.sentence)


class Foreign(nn.Module):
    """A text tower of other build: nothing is known of it but that it embeds."""

    def __init__(self):
        super().__init__()
        self.visual, self.table = SimpleNamespace(image_size=(48, 48)), nn.Embedding(50, 6)

    def encode_text(self, tokens):
        return self.table(tokens).mean(1)


def test_a_tower_of_other_build_gives_sentences_alone():
    words = WordTokenizer(["a", "red", "bird"], 6)
    foreign = CLIPEncoder(Foreign(), words.__call__, {"name": "foreign"})  # a function knows no `unknown`
    assert (foreign.sentence_dim, foreign.word_dim, foreign.image_size) == (6, None, 48)
    assert foreign.encode(["a bird"]).words is None and foreign.encode(["a bird"]).mask is None
    assert foreign.unknown("a quetzal") == []


def test_sizes_and_words_are_those_of_its_features(encoder: CLIPEncoder):
    features = encoder.encode(CAPTIONS)
    assert features.sentence.shape == (3, encoder.sentence_dim) and features.words.shape[2] == encoder.word_dim
    assert encoder.encode_images(torch.zeros(2, 3, 32, 32)).shape == (2, encoder.sentence_dim)
    assert encoder.unknown("a red quetzal on a red teal") == ["quetzal", "teal"]
    assert encoder.device == torch.device("cpu")


def test_save_and_open_round_trip(encoder: CLIPEncoder, tmp_path):
    save_encoder(encoder, tmp_path)
    again = load_encoder(str(tmp_path))
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(again.encode(CAPTIONS).sentence, encoder.encode(CAPTIONS).sentence)
    assert torch.equal(again.encode_images(pictures), encoder.encode_images(pictures))
    assert again.fingerprint == encoder.fingerprint
    again.model.logit_scale.data += 1
    assert again.fingerprint != encoder.fingerprint


def test_damaged_folders_are_named(encoder: CLIPEncoder, tmp_path):
    with pytest.raises(InputError, match=r"config\.json: missing; train the encoder again"):
        load_encoder(str(tmp_path))
    save_encoder(encoder, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"format": "t2ilib-clip", "version": 1}))
    with pytest.raises(InputError, match=r"config\.json: damaged"):
        load_encoder(str(tmp_path))

"""DAMSM's text encoder: what it computes, what it reads of a caption, and that a caption's company changes nothing."""

import pytest
import torch
from torch import nn

from t2ilib.encoders.damsm import LONGEST, DAMSMEncoder, TextLSTM
from t2ilib.encoders.encoder import encode_all
from t2ilib.encoders.vocabulary import remarks

WORDS = {word: number for number, word in enumerate(["a", "bird", "red", "with", "wings", "black", "blue"], start=1)}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return DAMSMEncoder(TextLSTM(len(WORDS) + 1, embedding_dim=6, size=8), WORDS, "text_encoder200.pth")


def by_hand(encoder, words):
    """Return the states (T, 8) of a caption, a word at a time: ahead with one cell, backwards with the other."""
    lstm, rows = encoder.network.lstm, encoder.network.embedding.weight[[WORDS[word] for word in words]]
    states = []
    for end, order in (("", range(len(words))), ("_reverse", reversed(range(len(words))))):
        cell, found, state = nn.LSTMCell(6, 4), {}, None
        cell.load_state_dict({name: getattr(lstm, f"{name}_l0{end}") for name in cell.state_dict()})
        for place in order:
            state = cell(rows[place][None], state)
            found[place] = state[0][0]
        states.append(torch.stack([found[place] for place in range(len(words))]))
    return torch.cat(states, dim=1)


def test_words_and_sentence_are_the_states_of_both_directions(encoder):
    text = encoder.encode(["A red bird, with black wings!", "a blue bird"])
    for row, caption in enumerate(("a red bird with black wings", "a blue bird")):
        words = caption.split()
        states = by_hand(encoder, words)
        assert torch.allclose(text.words[row, : len(words)], states, atol=1e-6)
        ends = torch.cat([states[-1, :4], states[0, 4:]])
        assert torch.allclose(text.sentence[row], ends, atol=1e-6)
        assert text.mask[row].tolist() == [False] * len(words) + [True] * (6 - len(words))


def test_unknown_words_are_left_out_and_named(encoder):
    caption = "a red bird with a xylophone"
    assert encoder.unknown(caption) == ["xylophone"]
    assert torch.equal(encoder.encode([caption]).sentence, encoder.encode(["a red bird with a"]).sentence)


@pytest.mark.parametrize("caption", ["", "xylophone", "🐦"])
def test_a_caption_of_no_known_word_has_an_answer(encoder, caption):
    text = encoder.encode([caption, "a bird"])
    assert text.sentence.isfinite().all() and text.mask.tolist() == [[False, True], [False, False]]
    assert "has" in remarks(encoder, [caption])[0]


def test_eighteen_words_are_read(encoder):
    long, cut = " ".join(["red bird"] * 10), " ".join(["red bird"] * 9)
    assert torch.equal(encoder.encode([long]).sentence, encoder.encode([cut]).sentence)
    assert f"is cut after {LONGEST} tokens" in remarks(encoder, [long])[0] and remarks(encoder, [cut]) == []
    assert remarks(encoder, [" ".join(["very"] * 30 + ["red", "bird"])]) == []  # unknown words take no place


def test_neighbours_in_a_batch_change_nothing(encoder):
    alone, together = encoder.encode(["a red bird"]), encoder.encode([" ".join(WORDS), "a red bird"])
    assert torch.allclose(alone.sentence[0], together.sentence[1], atol=1e-6)
    assert encode_all(encoder, ["a red bird", " ".join(WORDS)], words=True).words.shape == (2, 7, 8)


def test_fingerprint_follows_weights_and_vocabulary(encoder):
    other = DAMSMEncoder(encoder.network, {**WORDS, "a": WORDS["bird"], "bird": WORDS["a"]})
    assert len(encoder.fingerprint) == 64 and encoder.fingerprint != other.fingerprint
    assert encoder.fingerprint == DAMSMEncoder(encoder.network, WORDS).fingerprint
    assert not any(weight.requires_grad for weight in encoder.network.parameters())
    assert (encoder.name, encoder.sentence_dim, len(encoder.tokenizer)) == ("damsm-text_encoder200", 8, 8)
    assert encoder.tokenizer.words([1, 3, 0, 2]) == ["a", "red", "bird"]

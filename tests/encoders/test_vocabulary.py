"""Encoders that cannot read their captions: counted, said in one line, refused where nothing could be learnt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib import assembly
from t2ilib.encoders import encode_all, load_encoder
from t2ilib.encoders.tokens import WordTokenizer
from t2ilib.encoders.vocabulary import MENTIONED, check_reads, remarks, unknown_words
from t2ilib.errors import InputError
from t2ilib.training import load_recipe

WORDS = ("a", "red", "bird")


class Reader:
    """All of an encoder that is asked about its words."""

    name = "reader"

    def __init__(self, context_length=8):
        self.tokenizer = WordTokenizer(WORDS, context_length)


class Speller:
    """An encoder whose tokenizer spells: one token a letter, start and end beside them."""

    name = "speller"

    class tokenizer:
        context_length = 8
        encode = list


@given(known=st.integers(0, 200), unknown=st.integers(0, 200), most=st.floats(0, 1))
def test_what_is_unknown_is_counted_word_by_word_and_refused_above_the_share(known, unknown, most):
    captions = [*["a red bird"] * known, *["a teal quetzal"] * unknown]
    found = unknown_words(Reader(), captions)
    assert (found.captions, found.odd) == (known + unknown, unknown)
    assert (found.words, found.unknown) == (3 * (known + unknown), 2 * unknown)
    share = 2 * unknown / max(1, 3 * (known + unknown))
    if share > most:
        with pytest.raises(InputError, match=r"encoders\.text: reader cannot read.*teal.*contrastive.*clip.*unknown"):
            check_reads("text", Reader(), captions, most)
    else:
        assert (check_reads("text", Reader(), captions, most) is None) == (share <= MENTIONED)


def test_some_unknown_words_are_told_and_taken():
    captions = ["a red bird"] * 16 + ["a teal bird", "a teal bird"]  # 2 of 54 words: above 3 %, far below the limit
    assert "4% of the words are unknown" in check_reads("text", Reader(), captions, 0.1)
    assert check_reads("text", Reader(), captions + ["a red bird"] * 16, 0.1) is None


def test_messages_are_one_line_whatever_the_words():
    line = check_reads("text", Reader(), ["ab" * 500 + " x\ny"], 1.0)
    assert "\n" not in line and len(line) < 400


def test_byte_pairs_know_every_word():
    assert unknown_words(Speller(), ["quetzal"]) is None and check_reads("text", Speller(), ["quetzal"], 0.0) is None


CAPTIONS = ["this dog sleeps on the sofa", "two dogs run along the beach"] * 5


def unread(captions=CAPTIONS, refuse=True, **changes):
    recipe = load_recipe("dfgan_toy", **changes)
    return assembly.unread(recipe, assembly.load_encoders(recipe, None), captions, refuse=refuse)


def test_a_run_on_captions_that_its_encoder_cannot_read_is_refused_with_the_remedies():
    with pytest.raises(InputError, match=r"encoders\.text: toy-clip .*dog.*contrastive \(trained with the run"):
        unread()


def test_the_recipe_may_allow_it_and_the_lines_are_said_nonetheless():
    lines = unread(**{"encoders.text.unknown": 1.0})
    assert [line.split()[:2] for line in lines] == [
        ["encoders.text:", "toy-clip"],
        ["encoders.judge:", "toy-clip-resnet"],
    ]
    assert unread(refuse=False) == lines  # what is trained already goes on
    assert unread(["a red bird with black wings."]) == []


@pytest.mark.parametrize("share", [-0.1, 1.1, "nan"])
def test_the_share_is_a_share(share):
    with pytest.raises(InputError, match="unknown"):
        load_recipe("dfgan_toy", **{"encoders.text.unknown": share})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"encoders.text.options": {"modle": "x"}},
            "encoders.text.options: toy-clip: unknown option modle; it has none",
        ),
        (
            {"encoders.judge": {"name": "clip", "options": {"tag": "x"}}},
            "encoders.judge.options: clip: unknown option tag; it has model, pretrained, cache_folder",
        ),
        ({"encoders.judge": {"name": "clip", "options": {"model": 3}}}, "option model = 3 is no text"),
        (
            {"encoders.text": {"name": "contrastive", "options": {"model.widht": 3}}},
            "encoders.text.options: model: unknown key widht",
        ),
        ({"encoders.text": {"name": "contrastive", "options": {"recipe": 3}}}, "recipe = 3 is no name"),
    ],
)
def test_unknown_options_are_named_before_anything_is_loaded(changes, named):
    with pytest.raises(InputError) as caught:
        assembly.check(load_recipe("dfgan_toy", **changes))
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (["a red bird"], []),
        ([""], ['the caption "" has no word to read']),
        (["?!", "", "..."], ['3 captions, the first "?!" has no word to read']),
        (["quetzal", "a bird"], ['the caption "quetzal" has unknown words alone']),
        (["a red bird " * 3], ["is cut after 6 tokens"]),
        (["a red bird a red bird"], []),  # six words fit exactly
        (["x\x1b[2J\n"], [r'"x\x1b[2J\n" has unknown words alone']),
    ],
)
def test_each_kind_of_unreadable_caption_is_one_line(captions, said):
    lines = remarks(Reader(), captions)
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True))
    assert all("\n" not in line and "\x1b" not in line for line in lines)


def test_captions_that_are_spelled_can_be_empty_or_cut():
    assert remarks(Speller(), ["", "abc", "abcdefg"]) == [
        'speller: the caption "" has no word to read: the picture will follow the noise alone',
        'speller: the caption "abcdefg" is cut after 6 tokens, all that the encoder reads',
    ]


def test_kinds_are_counted_over_any_number_of_captions():
    lines = remarks(Reader(), (word for word in ["", "quetzal"] for _ in range(10_000)))
    assert [line.split()[1] for line in lines] == ["10000", "10000"]


def test_shipped_encoders_have_the_words_of_toy_birds():
    for name in ("toy-clip", "toy-clip-resnet"):
        assert remarks(load_encoder(name), ["a small red bird on a rock under an evening sky"]) == []


def test_encoding_a_list_warns_once_per_kind(caplog):
    encoder = load_encoder("toy-clip")
    encode_all(encoder, ["quetzal", "teal", "a red bird"])
    (said,) = caplog.messages
    assert '2 captions, the first "quetzal" has unknown words alone' in said
    with pytest.raises(InputError, match="give a list of captions"):
        encode_all(encoder, "a red bird")

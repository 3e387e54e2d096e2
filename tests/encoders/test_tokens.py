import re
import sys
import time
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib.encoders.tokens import END, PAD, START, UNKNOWN, WordTokenizer, split_words
from t2ilib.errors import InputError

WORDS = st.lists(st.sampled_from(["red", "blue", "bird", "wings", "quetzal"]), max_size=12)


@pytest.fixture(scope="module")
def tokenizer() -> WordTokenizer:
    return WordTokenizer.from_captions(["a red bird", "a blue bird with blue wings"], context_length=8)


@given(caption=st.text(max_size=60))
def test_any_text_becomes_one_framed_line(tokenizer: WordTokenizer, caption: str):
    line = tokenizer([caption])[0].tolist()
    end = line.index(END)
    assert line[0] == START
    assert all(token not in (PAD, START, END) for token in line[1:end])
    assert line[end + 1 :] == [PAD] * (8 - end - 1)


@given(words=WORDS)
def test_known_words_come_back_and_others_are_unknown(tokenizer: WordTokenizer, words: list[str]):
    line = tokenizer([" ".join(words)])[0]
    kept = words[:6]
    assert tokenizer.words(line)[1:-1] == [word if word != "quetzal" else "<unknown>" for word in kept]
    assert (UNKNOWN in line.tolist()) == ("quetzal" in kept)
    assert tokenizer.unknown(" ".join(words)) == (["quetzal"] if "quetzal" in words else [])


def test_case_and_punctuation_do_not_matter(tokenizer: WordTokenizer):
    assert split_words("A Red-bellied bird, 2 wings!") == ["a", "red", "bellied", "bird", "2", "wings"]
    assert tokenizer(["A RED bird."]).equal(tokenizer(["a red, bird"]))


@given(caption=st.text(max_size=60))
def test_a_caption_reads_the_same_in_every_normal_form(caption: str):
    words = split_words(normalize("NFC", caption))
    assert split_words(normalize("NFD", caption)) == words == split_words(caption)
    assert [split_words(word) for word in words] == [[word] for word in words]


def test_every_character_reads_the_same_in_every_normal_form():
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        if normalize("NFD", letter) != letter:
            words = split_words(f"a{letter}a")
            assert split_words(normalize("NFD", f"a{letter}a")) == words, hex(number)
            assert all(split_words(word) == [word] for word in words), hex(number)


@given(caption=st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_ascii_is_split_as_shipped_encoders_learnt_it(caption: str):
    assert split_words(caption) == re.findall("[a-z0-9]+", caption.lower())


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("un oiseau d'e\u0301te\u0301", ["un", "oiseau", "d", "\xe9t\xe9"]),
        (
            "\u0905\u0930\u0941\u0923 \u0939\u093f\u0902\u0926\u0940",
            ["\u0905\u0930\u0941\u0923", "\u0939\u093f\u0902\u0926\u0940"],
        ),
        ("\u0e19\u0e01\u0e2a\u0e35\u0e41\u0e14\u0e07", ["\u0e19\u0e01\u0e2a\u0e35\u0e41\u0e14\u0e07"]),
        ("red\u2764\ufe0fbird 1\ufe0f\u20e3", ["red", "bird", "1"]),
        ("\u0301 \u0301a-\u0301b", ["a", "b"]),
        ("\U0001f426\u9ce5", ["\u9ce5"]),
    ],
    ids=["French", "Hindi", "Thai", "emoji", "marks alone", "Chinese"],
)
def test_marks_stay_with_their_letters(caption: str, words: list[str]):
    assert split_words(caption) == words


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u0301", "\u0344\u0323\u0f73"])
def test_marks_without_end_take_no_time(marks: str):
    begun = time.process_time()
    assert len(split_words("a" + marks * (200_000 // len(marks)) + " bird")) == 2
    assert time.process_time() - begun < 1


def test_vocabulary_is_ranked_and_cut():
    captions = ["a b", "a b", "a c"]
    assert WordTokenizer.from_captions(captions, 8).vocabulary == ["a", "b", "c"]
    assert WordTokenizer.from_captions(captions, 8, minimum_count=2).vocabulary == ["a", "b"]
    assert WordTokenizer.from_captions(captions, 8, most=1).vocabulary == ["a"]


def test_impossible_vocabularies_are_refused():
    with pytest.raises(InputError, match="twice"):
        WordTokenizer(["red", "red"], 8)
    with pytest.raises(InputError, match="context_length 2"):
        WordTokenizer(["red"], 2)

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

"""Captions made wrong in one word: exactly one, of the same kind, and never by a synonym."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ilib.data import toy
from t2ilib.encoders.exchange import KINDS, WordExchange
from t2ilib.encoders.tokens import PAD, WordTokenizer

MEANINGS = {  # word -> (kind, meaning), read from the list by other means
    word: (kind, (kind, meaning))
    for kind, line in enumerate(KINDS.values())
    for meaning, synonyms in enumerate(line.split(","))
    for word in synonyms.split()
}
FILLERS = ["a", "bird", "with", "and", "wings", "belly", "its"]


@pytest.fixture(scope="module")
def tokenizer() -> WordTokenizer:
    return WordTokenizer([*FILLERS, *MEANINGS], context_length=14)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def differing(tokenizer, before, after) -> list[tuple[str, str]]:
    """Return (old word, new word) wherever two rows of tokens differ."""
    places = (before != after).nonzero().flatten()
    return [tuple(tokenizer.words([before[place], after[place]])) for place in places]


def check(tokenizer, before, after, changed) -> str:
    """Assert all that a row promises; return "kept", "replaced" or "swapped"."""
    pairs = differing(tokenizer, before, after)
    assert bool(changed) is bool(pairs)
    if not pairs:
        return "kept"
    for old, new in pairs:
        assert MEANINGS[old][0] == MEANINGS[new][0], f"{old} and {new} are of two kinds"
        assert MEANINGS[old][1] != MEANINGS[new][1], f"{old} and {new} mean the same"
    if len(pairs) == 1:
        return "replaced"
    assert len(pairs) == 2 and pairs[0] == pairs[1][::-1]
    return "swapped"


def test_no_word_is_listed_twice():
    words = [word for line in KINDS.values() for synonyms in line.split(",") for word in synonyms.split()]
    assert len(words) == len(set(words)) == len(MEANINGS)
    assert all(len(line.split(",")) > 1 for line in KINDS.values())


CAPTION = st.lists(st.sampled_from([*FILLERS, *MEANINGS, "quetzal"]), max_size=16).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(captions=st.lists(CAPTION, min_size=1, max_size=12), seed=st.integers(0, 2**32))
def test_every_row_is_wrong_in_one_word_or_two_swapped(tokenizer, captions, seed):
    tokens = tokenizer(captions)
    original = tokens.clone()
    wrong, changed = WordExchange(tokenizer)(tokens, generator(seed))
    assert torch.equal(tokens, original)
    assert wrong.shape == tokens.shape and wrong.dtype == tokens.dtype and changed.dtype == torch.bool
    for before, after, flag in zip(tokens, wrong, changed, strict=True):
        check(tokenizer, before, after, flag)
        listed = [word for word in tokenizer.words(before) if word in MEANINGS]
        assert bool(listed) or not flag
        if len({MEANINGS[word] for word in listed if MEANINGS[word][0] == 0}) in range(1, 8):
            assert flag  # there is another colour for it


def test_half_of_those_with_two_words_of_a_kind_are_swapped(tokenizer):
    tokens = tokenizer(["a red bird with blue wings"] * 400)
    wrong, changed = WordExchange(tokenizer)(tokens, generator())
    outcomes = [check(tokenizer, *row) for row in zip(tokens, wrong, changed, strict=True)]
    assert changed.all() and 0.4 < outcomes.count("swapped") / 400 < 0.6
    assert outcomes.count("replaced") == 400 - outcomes.count("swapped")
    pairs = {pair for row, other in zip(tokens, wrong, strict=True) for pair in differing(tokenizer, row, other)}
    assert {old for old, _ in pairs} == {"red", "blue"}
    assert {new for old, new in pairs if old == "red"} >= {"blue", "black", "gray", "golden", "pink"}


def test_listed_words_are_touched_evenly_whatever_their_kind(tokenizer):
    tokens = tokenizer(["a small red black yellow white green bird with plain wings"] * 600)
    wrong, _ = WordExchange(tokenizer)(tokens, generator())
    kinds = [MEANINGS[differing(tokenizer, row, other)[0][0]][0] for row, other in zip(tokens, wrong, strict=True)]
    shares = [kinds.count(MEANINGS[word][0]) / 600 for word in ("red", "small", "plain")]
    assert shares == pytest.approx([5 / 7, 1 / 7, 1 / 7], abs=0.06)


def test_words_of_one_kind_are_all_touched(tokenizer):
    tokens = tokenizer(["a red black yellow bird"] * 300)
    wrong, _ = WordExchange(tokenizer)(tokens, generator())
    counts = (tokens != wrong).sum(0)
    assert counts[[2, 3, 4]].min() > 60 and counts.sum() == counts[[2, 3, 4]].sum()


@pytest.mark.parametrize(
    ("caption", "vocabulary", "outcomes"),
    [
        ("a bird with wings", ["red", "blue"], {"kept"}),
        ("", ["red", "blue"], {"kept"}),
        ("a red bird", ["red"], {"kept"}),  # no other colour is known
        ("a red bird", ["red", "scarlet", "crimson"], {"kept"}),  # only synonyms are
        ("a red scarlet bird", ["red", "scarlet", "small"], {"kept"}),
        ("a red bird", ["red", "small"], {"kept"}),  # another kind is no way out
        ("a red bird", ["red", "blue"], {"replaced"}),
        ("a red bird with red wings", ["red", "blue"], {"replaced"}),
        ("a red bird with blue wings", ["red", "blue"], {"replaced", "swapped"}),
        ("a gray bird with grey wings", ["gray", "grey", "silver", "pink"], {"replaced"}),
        ("a quetzal bird", ["red", "blue"], {"kept"}),  # unknown words are left alone
    ],
)
def test_what_is_possible_happens(caption, vocabulary, outcomes):
    tokenizer = WordTokenizer([*FILLERS, *vocabulary], context_length=10)
    tokens = tokenizer([caption] * 60)
    wrong, changed = WordExchange(tokenizer)(tokens, generator())
    assert {check(tokenizer, *row) for row in zip(tokens, wrong, changed, strict=True)} == outcomes


def test_the_seed_decides(tokenizer):
    exchange, tokens = WordExchange(tokenizer), tokenizer(["a red bird with blue wings and black belly"] * 50)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, same, other = (exchange(tokens, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first[0], same[0]) and torch.equal(first[1], same[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_no_rows_at_all(tokenizer):
    wrong, changed = WordExchange(tokenizer)(torch.zeros(0, 14, dtype=torch.int64), generator())
    assert wrong.shape == (0, 14) and changed.shape == (0,)


def test_the_toy_birds_captions_can_nearly_all_be_made_wrong():
    attributes = toy.sample_attributes(200, seed=5)
    captions = [caption for i, row in enumerate(attributes) for caption in toy.captions(row, seed=i)]
    tokenizer = WordTokenizer.from_captions(captions, context_length=48)
    tokens = tokenizer(captions)
    wrong, changed = WordExchange(tokenizer)(tokens, generator())
    assert changed.float().mean() > 0.95
    assert torch.equal(tokens == PAD, wrong == PAD)
    outcomes = [check(tokenizer, *row) for row in zip(tokens, wrong, changed, strict=True)]
    assert outcomes.count("swapped") > 100 and outcomes.count("replaced") > 100


def toy_tokens(count: int = 200) -> tuple[WordTokenizer, torch.Tensor]:
    attributes = toy.sample_attributes(count, seed=5)
    captions = [caption for i, row in enumerate(attributes) for caption in toy.captions(row, seed=i)]
    tokenizer = WordTokenizer.from_captions(captions, context_length=48)
    return tokenizer, tokenizer(captions)


IMPOSSIBLE = (  # of toy birds: what the renderer never draws on the part
    r"\b(streaked|streaky)( \w+)? wings",
    r"\b(barred|spotted)( \w+)? (belly|breast)",
    r"\b(belly|breast) is (\w+ and )?(barred|spotted)\b",
    r"\bwings are (\w+ and )?streaked(?! its)",
    r"\b(green|blue|white|brown)( \w+)? (bill|beak)\b",
)


def impossible(tokenizer: WordTokenizer, tokens: torch.Tensor) -> list[str]:
    sentences = [" ".join(tokenizer.words(row)[1:-1]) for row in tokens]
    # two clauses meet where the comma was: "is streaked, its wings are black"
    clauses = [clause for sentence in sentences for clause in sentence.replace(" its ", " , its ").split(",")]
    return [clause for clause in clauses if any(re.search(pattern, clause) for pattern in IMPOSSIBLE)]


def test_a_part_is_only_called_what_some_caption_calls_it():
    """ "Streaked wings" would be known for wrong without a look at the picture."""
    tokenizer, tokens = toy_tokens()
    assert not impossible(tokenizer, tokens)
    careless, _ = WordExchange(tokenizer)(tokens, generator())
    careful, changed = WordExchange(tokenizer, tokens)(tokens, generator())
    assert len(impossible(tokenizer, careless)) > 100
    assert not impossible(tokenizer, careful)
    assert changed.float().mean() > 0.95
    new = {tokenizer.words([word])[0] for word in careful[careful != tokens]}
    assert new >= {"barred", "spotted", "streaked", "plain", "long", "short", "red", "small"}  # all kinds still


@pytest.mark.parametrize(
    ("caption", "word", "noun"),
    [
        ("a small red bird with black wings", "red", "bird"),
        ("a small red bird with black wings", "black", "wings"),
        ("the bird is small and red , its wings are black and plain", "red", "bird"),
        ("the bird is small and red its wings are black and plain", "plain", "wings"),
        ("this bird has plain black wings and is perched on green grass", "green", "grass"),
        ("this bird has wings that are brown and has a white belly", "white", "belly"),
        ("the beak is red and it is on green grass", "green", "grass"),
        ("red and small", "red", None),
        ("a bird on a rock", "rock", None),  # a noun says nothing about another
    ],
)
def test_what_a_word_is_about(caption, word, noun):
    vocabulary = dict.fromkeys([*caption.replace(",", "").split(), "tail"])
    tokenizer = WordTokenizer(list(vocabulary), context_length=20)
    exchange, tokens = WordExchange(tokenizer), tokenizer([caption])
    place = tokens[0].tolist().index(tokenizer.ids[word])
    number = exchange.about(tokens)[0, place].item()
    assert number == (exchange.noun[tokenizer.ids[noun]].item() if noun else 0)


def exchanged(caption: str, vocabulary: list[str], count: int = 300) -> list[list[tuple[str, str]]]:
    """Return what was changed in so many draws of one caption, where changed."""
    tokenizer = WordTokenizer(list(dict.fromkeys([*caption.split(), *vocabulary])), context_length=20)
    tokens = tokenizer([caption] * count)
    wrong, _ = WordExchange(tokenizer)(tokens, generator())
    return [differing(tokenizer, row, other) for row, other in zip(tokens, wrong, strict=True)]


def test_a_caption_that_stays_true_is_never_made():
    """White and black wings are black and white wings."""
    changes = exchanged("a bird with black and white wings", ["red"])
    assert {pair for row in changes for pair in row} == {("black", "red"), ("white", "red")}
    changes = exchanged("a black bird with black and white wings", ["red"])
    swaps = {tuple(row) for row in changes if len(row) == 2}
    assert swaps == {(("black", "white"), ("white", "black"))}  # the bird with its wings, at both ends
    assert all(len(row) == 1 or row[0][0] != row[1][0] for row in changes)


def test_no_noun_is_given_a_word_twice():
    changes = exchanged("a bird with black and white wings", ["red", "blue"])
    assert all(new in ("red", "blue") for row in changes for _, new in row)


def test_only_words_that_can_be_exchanged_are_chosen():
    captions = ["a green bird in a green forest", "a red bird in a green forest"]
    tokenizer = WordTokenizer.from_captions(captions, context_length=10)
    tokens = tokenizer([captions[0]] * 200)
    wrong, changed = WordExchange(tokenizer, tokenizer(captions))(tokens, generator())
    assert changed.all()
    assert {pair for row, other in zip(tokens, wrong, strict=True) for pair in differing(tokenizer, row, other)} == {
        ("green", "red")
    }

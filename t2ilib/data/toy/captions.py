"""Captions of the toy birds in the style of the CUB captions, and a parser that says what a caption mentions.

`compose` writes a sentence that mentions exactly the chosen attributes; `parse` reads them back, from these
sentences and from free text such as "red bird black wings".
"""

import re
from collections.abc import Collection

import numpy as np

from t2ilib.data.toy.attributes import ATTRIBUTES, COLOUR_ATTRIBUTES, COLOURS, NAMES, describe, mixed
from t2ilib.errors import InputError

WAYS_TO_SAY = {  # value -> phrases
    "grey": ("grey", "gray"),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big"),
    "branch": ("on a branch", "on a twig", "on a tree branch"),
    "rock": ("on a rock", "on a stone"),
    "grass": ("in the grass", "on the grass", "on green grass"),
    "sky": ("against a blue sky", "under a blue sky", "in front of the sky"),
    "forest": ("in a green forest", "in the woods", "in front of green trees"),
    "sunset": ("at sunset", "in front of an orange sunset", "in the evening sun"),
}
PARTS = {  # part -> (its attributes in the order they are said, article, nouns)
    "body": (("body",), "a ", ("body",)),
    "wing": (("wing_pattern", "wing"), "", ("wings",)),
    "belly": (("belly_pattern", "belly"), "a ", ("belly", "breast")),
    "crown": (("crown",), "a ", ("crown", "cap")),
    "bill": (("bill_shape", "bill"), "a ", ("bill", "beak")),
}
POSTURES = ("perched", "sitting", "standing")


class _Writer:
    """One caption in the making: the words of a bird's mentioned attributes, varied by a seed."""

    def __init__(self, values: dict[str, str], seed: int) -> None:
        self.values, self.seed, self.draws = values, seed, 0

    def pick(self, choices: tuple) -> str:
        self.draws += 1
        return choices[mixed(self.seed, self.draws) % len(choices)]

    def word(self, name: str) -> str:
        value = self.values[name]
        return self.pick(WAYS_TO_SAY.get(value, (value,)))

    def words(self, *names: str) -> list[str]:
        return [self.word(name) for name in names if name in self.values]

    def parts(self, *leave_out: str) -> list[str]:
        """Return the mentioned parts in random order."""
        there = [part for part, (names, *_) in PARTS.items() if part not in leave_out and set(names) & set(self.values)]
        self.draws += 1
        return sorted(there, key=lambda part: mixed(self.seed + there.index(part), self.draws))

    def part(self, name: str) -> str:
        names, article, nouns = PARTS[name]
        return article + " ".join([*self.words(*names), self.pick(nouns)])

    def part_is(self, name: str) -> str:
        names, _, nouns = PARTS[name]
        verb = "are" if name == "wing" else "is"
        order = names if name == "bill" else names[::-1]
        return f"its {self.pick(nouns)} {verb} {' and '.join(self.words(*order))}"

    def place(self, posture: bool = True) -> str:
        perch = [f"{self.pick(POSTURES)} {self.word('perch')}"] if "perch" in self.values else []
        return " ".join(perch + self.words("background")) if posture else " ".join(self.words("background"))


def _enumerate(items: list[str], last: str = " and ") -> str:
    return last.join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _plainly(writer: _Writer, opening: str, verb: str) -> str:
    """Compose "a small red bird with black wings and a white belly, perched on a branch"."""
    subject = " ".join([opening, *writer.words("size", "body"), "bird"]).strip()
    parts, place = _enumerate([writer.part(name) for name in writer.parts("body")]), writer.place()
    if parts:
        comma = "," if "perch" in writer.values else ""
        return f"{subject} {verb} {parts}" + (f"{comma} {place}" if place else "")
    if verb == "has":
        return f"{subject} is {place}" if place else f"this is {subject.replace(opening, 'a', 1)}"
    return f"{subject} {place}".strip()


def _with_body(writer: _Writer) -> str:
    """Compose "this small bird has a red body, black wings and a short yellow bill"."""
    subject = " ".join(["this", *writer.words("size"), "bird"])
    parts = _enumerate([writer.part(name) for name in writer.parts()])
    place = writer.place()
    if not parts:
        return f"{subject} is {place}" if place else subject.replace("this", "this is a", 1)
    return f"{subject} has {parts}" + (f" and is {place}" if place else "")


def _clause_by_clause(writer: _Writer) -> str:
    """Compose "the bird is small and red, its wings are black, and it is sitting on a rock"."""
    subject = " and ".join(writer.words("size", "body"))
    clauses = [f"the bird is {subject}"] if subject else []
    clauses += [writer.part_is(name) for name in writer.parts("body")]
    place = writer.place()
    if place:
        clauses.append(f"it is {place}" if clauses else f"the bird is {place}")
    return _enumerate(clauses, ", and ")


def compose(row: np.ndarray, mentioned: Collection[str], seed: int) -> str:
    """Write one sentence about the bird `row` (A,) that mentions exactly the attributes named in `mentioned`.

    Raises InputError for an unknown attribute or none at all.
    """
    unknown = set(mentioned) - set(NAMES)
    if unknown or not mentioned:
        raise InputError(f"mentioned={sorted(mentioned)}: name one or more of {', '.join(NAMES)}")
    return _sentence({name: value for name, value in describe(row).items() if name in mentioned}, seed)


def _sentence(values: dict[str, str], seed: int) -> str:
    writer, style = _Writer(values, seed), mixed(seed, 0) % 10
    if style < 3:
        sentence = _plainly(writer, "a", "with")
    elif style < 5:
        sentence = _plainly(writer, "this", "has")
    elif style < 6:
        sentence = _plainly(writer, "", "with")
    elif style < 8:
        sentence = _with_body(writer)
    else:
        sentence = _clause_by_clause(writer)
    return sentence + "."


def _mentions(seed: int) -> list[str]:
    """Choose 2 to 5 attributes: the body in nine captions of ten, the other colours more often than the rest."""
    count = 2 + mixed(seed, 100) % 4
    luck = {name: mixed(seed, 101 + column) % 1000 for column, name in enumerate(NAMES)}
    luck.update({name: luck[name] + 250 for name in COLOUR_ATTRIBUTES})
    if mixed(seed, 150) % 10 > 0:
        luck["body"] += 2000
    chosen = sorted(NAMES, key=lambda name: -luck[name])[:count]
    return [name for name in NAMES if name in chosen]


def caption(row: np.ndarray, seed: int) -> str:
    """Write one caption of the bird `row` (A,) that mentions 2 to 5 of its attributes, chosen by `seed` (>= 0)."""
    return compose(row, _mentions(seed), seed)


def captions(row: np.ndarray, seed: int, count: int = 10) -> list[str]:
    """Write `count` captions of the bird `row` (A,): the first mentions every attribute, the others 2 to 5 each."""
    if count < 1:
        raise InputError(f"count={count}: a picture needs at least one caption")
    values, seeds = describe(row), [mixed(seed, 200 + i) for i in range(count)]
    others = [_sentence({name: values[name] for name in _mentions(each)}, each) for each in seeds[1:]]
    return [_sentence(values, seeds[0]), *others]


def _synonyms() -> dict[str, tuple[str, str]]:
    """Return word -> (kind, meaning); kinds: colour, shape, pattern, size, part, perch, background, marks, is, join."""
    table = {
        **{("colour", colour): colour for colour in COLOURS},
        ("colour", "grey"): "grey gray silver",
        ("colour", "red"): "red scarlet crimson",
        ("colour", "yellow"): "yellow golden",
        ("colour", "orange"): "orange",
        ("shape", "short"): "short stubby",
        ("shape", "long"): "long",
        ("pattern", "plain"): "plain",
        ("pattern", "barred"): "barred",
        ("pattern", "spotted"): "spotted dotted speckled",
        ("pattern", "streaked"): "streaked striped streaky",
        ("marks", "barred"): "bars wingbars",
        ("marks", "spotted"): "spots dots",
        ("marks", "streaked"): "streaks stripes",
        ("size", "small"): "small little tiny",
        ("size", "large"): "large big huge",
        ("part", "body"): "bird birds body it one feathers plumage",
        ("part", "wing"): "wing wings winged",
        ("part", "belly"): "belly breast chest bellied breasted",
        ("part", "crown"): "crown cap head crowned capped headed",
        ("part", "bill"): "bill beak billed beaked",
        ("perch", "branch"): "branch twig",
        ("perch", "rock"): "rock stone",
        ("perch", "grass"): "grass lawn meadow",
        ("background", "sky"): "sky skies",
        ("background", "forest"): "forest woods trees woodland",
        ("background", "sunset"): "sunset evening dusk",
        ("is", ""): "is are",
        ("join", ""): "and ,",
    }
    return {word: meaning for meaning, words in table.items() for word in words.split()}


_WORDS = _synonyms()
_EXCHANGED = ("colour", "shape", "pattern", "size", "perch", "background", "marks")
_ADJECTIVES = ("colour", "shape", "pattern", "size")


class _Reader:
    """Walks over a caption; adjectives wait for the noun that follows, or go to the noun before "is" or "are"."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.waiting: list[tuple[str, str]] = []
        self.noun: str | None = None  # the last part named
        self.told: list[tuple[str, str]] = []  # the adjectives before it
        self.after_is = self.listing = False

    def note(self, attribute: str, value: str) -> None:
        if value in ATTRIBUTES.get(attribute, ()):
            self.found.setdefault(attribute, value)

    def attach(self, part: str, adjectives: list[tuple[str, str]]) -> None:
        for kind, value in adjectives:
            if kind == "colour":
                self.note(part, value)
            elif kind == "pattern":
                stripes = {"wing": "barred", "belly": "streaked"}.get(part, value)
                self.note(f"{part}_pattern", stripes if value in ("barred", "streaked") else value)
            elif kind == "shape":
                self.note(f"{part}_shape", value)
            elif part == "body":
                self.note("size", value)
            elif part == "bill" and value == "small":
                self.note("bill_shape", "short")

    def part(self, part: str) -> None:
        if self.listing and not self.waiting and part != "body":  # "a red crown and wings"
            self.waiting = [adjective for adjective in self.told if adjective[0] == "colour"]
        self.attach(part, self.waiting)
        self.noun, self.told, self.waiting = part, self.waiting, []

    def read(self, word: str) -> None:
        kind, meaning = _WORDS.get(word, ("", ""))
        if kind in _ADJECTIVES:
            if self.after_is and self.noun:
                self.attach(self.noun, [(kind, meaning)])
            else:
                self.waiting.append((kind, meaning))
        elif kind == "part":
            self.part(meaning)
        elif kind == "marks":
            self.waiting = []
            self.attach(self.noun or "wing", [("pattern", meaning)])
        elif kind in ("perch", "background"):
            dusk = word == "sky" and ("colour", "orange") in self.waiting
            self.note(kind, "sunset" if dusk else meaning)
            self.waiting = []
        self.after_is = kind == "is" or (self.after_is and (kind in _ADJECTIVES or word == "and"))
        self.listing = kind == "part" or (self.listing and kind == "join")


def parse(caption: str) -> dict[str, str]:
    """Return the attributes that a caption mentions, e.g. {"body": "red", "wing": "black"}, canonical values.

    Of contradicting mentions the first counts; words that say nothing about the toy birds are skipped.
    """
    reader = _Reader()
    for word in re.findall(r"[a-z]+|[,.;]", caption.lower()):
        reader.read(word)
    reader.attach("body", reader.waiting)  # "red and small"
    return {name: reader.found[name] for name in NAMES if name in reader.found}


def alternatives(word: str) -> list[str]:
    """Return words that can stand where `word` does and mean something else: red -> yellow, green, ...; else none."""
    kind, meaning = _WORDS.get(word.lower(), ("", ""))
    firsts = {told: other for other, told in reversed(_WORDS.items()) if told[0] == kind and kind in _EXCHANGED}
    return [firsts[told] for told in dict.fromkeys(_WORDS.values()) if told in firsts and told[1] != meaning]


def exchanged(caption: str) -> list[str]:
    """Return the captions that differ from `caption` in one word and claim something else of the same attributes.

    "a red bird with black wings." gives "a yellow bird with black wings.", and so on, word by word.
    """
    words, own, found = caption.split(" "), parse(caption), []
    for place, word in enumerate(words):
        bare = word.strip(".,")
        for other in alternatives(bare):
            line = " ".join([*words[:place], word.replace(bare, other), *words[place + 1 :]])
            told = parse(line)
            if told.keys() == own.keys() and told != own:
                found.append(line)
    return found

"""One reader of types for everything that is configured."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib.errors import InputError
from t2ilib.settings import override, read


@dataclass(frozen=True)
class Inner:
    name: str = "a"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    count: int = 1
    rate: float = 0.5
    on: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    layers: int | tuple[int, ...] = 4
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)
    roles: dict[str, Inner] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rate": 1}, {"rate": 1.0}),
        ({"rate": "2e-4"}, {"rate": 2e-4}),
        ({"pair": [0, "0.9"]}, {"pair": (0.0, 0.9)}),
        ({"layers": [2, 2]}, {"layers": (2, 2)}),
        ({"layers": 3}, {"layers": 3}),
        ({"limit": None}, {"limit": None}),
        ({"limit": 3}, {"limit": 3.0}),
        ({"inner": {"name": "b"}}, {"inner": Inner("b")}),
        ({"inner": None}, {"inner": Inner()}),
        ({"roles": {"x": {"name": "c", "options": {"k": [1]}}}}, {"roles": {"x": Inner("c", {"k": [1]})}}),
    ],
)
def test_values_take_the_type_of_their_field(values, expected):
    found = read(Outer, values, "here")
    assert found == Outer(**expected)
    for name in expected:
        assert type(getattr(found, name)) is type(getattr(Outer(**expected), name))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"count": "1"}, "here: count: '1' is not of type int"),
        ({"count": True}, "here: count: True is not of type int"),
        ({"count": 1.0}, "here: count: 1.0 is not of type int"),
        ({"rate": True}, "here: rate: True is not of type float"),
        ({"rate": "fast"}, "here: rate: 'fast' is not of type float"),
        ({"rate": None}, "here: rate: None is not of type float"),
        ({"rate": [1]}, "here: rate: [1] is not of type float"),
        ({"on": 1}, "here: on: 1 is not of type bool"),
        ({"pair": 0.5}, "here: pair: 0.5 is not of type tuple[float, float]"),
        ({"pair": [0.5]}, "here: pair: [0.5] is not of type tuple[float, float]"),
        ({"layers": "4"}, "here: layers: '4' is not of type int | tuple[int, ...]"),
        ({"layers": [2.5]}, "here: layers: [2.5] is not of type int | tuple[int, ...]"),
        ({"speed": 1}, "here: unknown key speed; known are count, rate"),
        ({3: 1}, "here: unknown key 3"),
        ({"inner": []}, "here: inner: [] is not a mapping; its keys are name, options"),
        ({"inner": {"nam": 1}}, "here: inner: unknown key nam"),
        ({"roles": {"x": {"nam": 1}}}, "here: roles.x: unknown key nam"),
        ({"roles": []}, "here: roles: [] is not of type dict"),
        ("text", "here: 'text' is not a mapping"),
        (None, "here: None is not a mapping"),
    ],
)
def test_other_values_are_named_with_their_place(values, named):
    with pytest.raises(InputError) as error:
        read(Outer, values, "here")
    assert named in str(error.value)


def test_dotted_keys_replace_one_value_and_leave_the_rest():
    before = Outer(roles={"x": Inner("c")})
    after = override(before, {"rate": "3", "inner.options.deep.er": 2, "roles.x.name": "d", "roles.y.name": "e"})
    assert after.rate == 3.0 and after.inner == Inner("a", {"deep": {"er": 2}})
    assert after.roles == {"x": Inner("d"), "y": Inner("e")}
    assert before == Outer(roles={"x": Inner("c")})


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("rat", 1, "rat: unknown key rat"),
        ("inner", 3, "inner: is a group; set one of its keys, as inner.name"),
        ("inner.nam", 3, "inner.nam: unknown key nam"),
        ("inner.name", 3, "inner.name: 3 is not of type str"),
        ("count.more", 3, "count.more: more does not belong here"),
        ("roles.x.nam", 3, "roles.x: unknown key nam"),
        ("inner.options" + ".a" * 5000, 3, "nested too deeply; 20 keys at most"),
    ],
)
def test_bad_dotted_keys_are_named(key, value, named):
    with pytest.raises(InputError) as error:
        override(Outer(), {key: value})
    assert named in str(error.value)


@dataclass(frozen=True)
class Pair:
    low: int = 0
    high: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.low >= self.high:
            raise InputError(f"low = {self.low} is not below high = {self.high}")


@dataclass(frozen=True)
class Pairs:
    pair: Pair = field(default_factory=Pair)
    roles: dict[str, Pair] = field(default_factory=dict)


@pytest.mark.parametrize("start", ["pair", "roles.x"])
@given(changes=st.permutations(["low", "high", "options", "options.deep"]))
def test_values_are_checked_against_each_other_when_all_are_in_place(start, changes):
    values = {"low": 5, "high": 9, "options": {"old": 1}, "options.deep": 2}
    found = override(Pairs(), {f"{start}.{key}": values[key] for key in changes})
    own = found.pair if start == "pair" else found.roles["x"]
    last = changes.index("options") < changes.index("options.deep")
    assert own == Pair(5, 9, {"old": 1, "deep": 2} if last else {"old": 1})
    with pytest.raises(InputError, match="low = 5 is not below high = 1"):
        override(Pairs(), {f"{start}.low": 5})


def test_a_role_is_replaced_by_a_mapping_and_changed_further():
    found = override(Outer(), {"roles": {"x": {"name": "b"}}, "roles.x.options.k": 1, "roles.y": {"name": "c"}})
    assert found.roles == {"x": Inner("b", {"k": 1}), "y": Inner("c")}

"""Tables become dataclasses of the right types, or errors that name the place."""

from dataclasses import dataclass, field

import pytest

from mgca.utils.settings import from_table


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 15
    words: tuple[str, ...] = ()

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError("rate must not be negative")


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    flag: bool | str = False
    limit: float | None = None


def test_a_whole_table():
    table = {
        "count": 3,
        "inner": {"rate": 1, "words": ["a", "b"]},
        "many": [{}, {"rate": 0.5}],
        "files": {"a": "b"},
        "flag": "x",
        "limit": 2,
    }
    made = from_table(Outer, table)
    assert made == Outer(
        count=3,
        inner=Inner(rate=1.0, words=("a", "b")),
        many=(Inner(), Inner(rate=0.5)),
        files={"a": "b"},
        flag="x",
        limit=2.0,
    )
    assert type(made.inner.rate) is float and type(made.limit) is float
    assert from_table(Outer, {"count": 1, "limit": None}) == Outer(count=1)


@pytest.mark.parametrize("start", [Inner, Inner()])
@pytest.mark.parametrize("value", [15, 15.0])
def test_an_equal_value_stays_the_one_that_names_the_run(start, value):
    """JSON writes 15 and 15.0 differently, and a run is named by its JSON."""
    assert type(from_table(start, {"rate": value}).rate) is int


def test_an_object_keeps_what_the_table_leaves_out():
    start = Outer(count=3, inner=Inner(rate=2.0, words=("a",)), limit=1.0)
    assert from_table(start, {"inner": {"rate": 4}, "limit": None}) == Outer(
        count=3, inner=Inner(rate=4.0, words=("a",))
    )
    assert from_table(start, {}) == start


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "f.toml: count is missing"),
        ([], r"f.toml: it is a table of values, not \[\]"),
        ({"count": 1, "inner": 3}, "f.toml: inner is a table of values, not 3"),
        ({"count": 1, "cout": 3}, "f.toml: no value cout: known are count, files, flag, inner"),
        ({"count": 1, "inner": {"x": 1}}, "f.toml: no value inner.x: known are rate, words"),
        ({"count": True}, "f.toml: count must be int, not True"),
        ({"count": 1.0}, "f.toml: count must be int, not 1.0"),
        ({"count": "1"}, "f.toml: count must be int, not '1'"),
        ({"count": None}, "f.toml: count must be int, not None"),
        ({"count": 1, "inner": {"rate": True}}, "f.toml: inner.rate must be float, not True"),
        ({"count": 1, "inner": {"rate": 10**400}}, "f.toml: inner.rate is too large a number"),
        ({"count": 1, "inner": {"rate": -1}}, "f.toml: rate must not be negative"),
        ({"count": 1, "inner": {"words": "ab"}}, "f.toml: inner.words must be a list, not 'ab'"),
        ({"count": 1, "inner": {"words": ["a", 1]}}, r"inner.words\[1\] must be str, not 1"),
        ({"count": 1, "many": [{}, {"rate": "x"}]}, r"many\[1\].rate must be float, not 'x'"),
        ({"count": 1, "many": {}}, "many must be a list, not {}"),
        ({"count": 1, "files": []}, r"files must be a table, not \[\]"),
        ({"count": 1, "files": {"a": 1}}, "files.a must be str, not 1"),
        ({"count": 1, "flag": 1}, "flag must be bool or str, not 1"),
        ({"count": 1, "limit": "x"}, "limit must be float or none, not 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(table, message):
    with pytest.raises(ValueError, match=message):
        from_table(Outer, table, "f.toml")
    with pytest.raises(ValueError) as caught:  # and without a place the same, without its name
        from_table(Outer, table)
    assert "f.toml" not in str(caught.value)

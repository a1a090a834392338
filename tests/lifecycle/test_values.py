"""Whatever users hand over is made plain, or refused, by the methods of its base type alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle import TaskPolicy
from sigmic_guard.lifecycle.policy import check_policy
from sigmic_guard.lifecycle.secrets import Secrets
from sigmic_guard.lifecycle.values import (
    check_choice,
    check_count,
    check_flag,
    check_moment,
    check_number,
    check_path,
    check_paths,
    check_seconds,
    check_secrets,
    check_text,
    check_variables,
    plain,
    shown,
)

HIDDEN = "hunter2-the-secret"


def bad(*args: object) -> Any:
    raise RuntimeError(HIDDEN)


class HostileStr(str):
    """Raises wherever it is asked."""

    __slots__ = ()
    __str__ = __repr__ = __len__ = __iter__ = __hash__ = __eq__ = __add__ = bad
    __format__ = lower = strip = __getitem__ = __contains__ = bad
    encode: Any = bad


class HostileFloat(float):
    __slots__ = ()
    __float__ = __repr__ = __str__ = __lt__ = __le__ = __gt__ = __eq__ = __add__ = __hash__ = bad


class HostileInt(int):
    __float__ = __index__ = __int__ = __repr__ = __str__ = __lt__ = __gt__ = __eq__ = bad
    __hash__ = __add__ = bad


def each(*values: Any) -> list[Any]:
    """Parameters that pytest does not look into: what is tried is made by a call of each."""
    return [pytest.param(lambda it=value: it, id=type(value).__name__) for value in values]


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    THREE = 3


class Hostile:
    """Claims to be whatever is wanted, and raises."""

    __repr__ = __str__ = __len__ = __bool__ = __fspath__ = __float__ = __index__ = bad

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError(HIDDEN)


class Foreign:
    """A number of somebody else's: of no type of Python's, and registered as one."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def __float__(self) -> float:
        if isinstance(self.number, Exception):
            raise self.number
        return float(self.number)

    def __index__(self) -> int:
        if isinstance(self.number, Exception):
            raise self.number
        return int(self.number)


class ForeignReal(Foreign):
    pass


class ForeignWhole(Foreign):
    pass


class Duration(ForeignWhole):
    """Like numpy.timedelta64: a whole number, of a unit that float() is not told."""

    class dtype:  # noqa: N801
        kind = "m"


Real.register(ForeignReal)
Integral.register(ForeignWhole)


@pytest.mark.parametrize("make", each("x", HostileStr("x"), type("S", (str,), {})("x")))
def test_a_string_is_exact(make: Callable[[], Any]) -> None:
    """None of its methods is asked."""
    value = make()
    assert type(plain(value)) is str
    assert plain(value) == "x"
    assert type(check_text("namespace", value)) is str
    assert check_choice("on_exit", value, ("x", "y")) == "x"


def test_the_text_of_a_string_enum_is_its_value() -> None:
    """And not its name, nor what its class makes of str()."""
    assert check_text("key", Colour.RED) == "red"


@pytest.mark.parametrize(
    "make", each(b"x", 5, None, True, Path("x"), Hostile(), "a\x00b", "\ud800")
)
def test_no_text(make: Callable[[], Any]) -> None:
    """What no database keeps is no name."""
    value = make()
    with pytest.raises(ConfigurationError, match="namespace"):
        check_text("namespace", value)


def test_an_empty_text_may_be_refused() -> None:
    """Where a name is needed."""
    assert check_text("namespace", HostileStr("")) == ""
    with pytest.raises(ConfigurationError, match="empty"):
        check_text("key", HostileStr(""), empty=False)


@pytest.mark.parametrize(
    "make, seconds",
    [
        (lambda: 2, 2.0),
        (lambda: 2.5, 2.5),
        (lambda: HostileFloat(2.5), 2.5),
        (lambda: HostileInt(2), 2.0),
        (lambda: Number.THREE, 3.0),
        (lambda: Fraction(1, 2), 0.5),
        (lambda: ForeignReal(2.5), 2.5),
        (lambda: ForeignWhole(2), 2.0),
        (lambda: timedelta(minutes=1, milliseconds=500), 60.5),
        (lambda: type("D", (timedelta,), {"total_seconds": bad})(seconds=5), 5.0),
        (lambda: timedelta.max, timedelta.max.total_seconds()),
    ],
)
def test_seconds_are_an_exact_float(make: Callable[[], Any], seconds: float) -> None:
    """A number of any kind, or a timedelta."""
    value = make()
    found = check_seconds("timeout", value)
    assert type(found) is float
    assert found == seconds
    policy = TaskPolicy().but(timeout=value)
    assert type(policy.timeout) is float
    assert policy == TaskPolicy(timeout=value) == TaskPolicy(timeout=seconds)


@pytest.mark.parametrize(
    "make",
    each(
        timedelta(microseconds=-1),
        HostileFloat("nan"),
        HostileFloat("inf"),
        HostileFloat(-1),
        10**5000,
        -(10**5000),
        True,
        Decimal(1),
        1j,
        ForeignReal(float("nan")),
        ForeignReal(RuntimeError(HIDDEN)),
        ForeignReal(OverflowError()),
        ForeignWhole(10**400),
        Duration(5),
        HostileStr("5"),
        Hostile(),
        [],
    ),
)
def test_no_seconds(make: Callable[[], Any]) -> None:
    """It is the caller's ConfigurationError, whatever its own methods do."""
    value = make()
    with pytest.raises(ConfigurationError, match="timeout") as caught:
        check_seconds("timeout", value)
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ConfigurationError, match="timeout"):
        TaskPolicy().but(timeout=value)
    with pytest.raises(ConfigurationError, match="timeout"):
        TaskPolicy(timeout=value)


def test_numpys_numbers() -> None:
    """They are numbers, all but its durations and its truths."""
    numpy = pytest.importorskip("numpy")
    for value in (numpy.float64(2), numpy.float32(2), numpy.float16(2), numpy.int64(2)):
        assert type(check_seconds("timeout", value)) is float
        assert check_seconds("timeout", value) == 2.0
    assert type(check_count("max_tasks", numpy.uint8(2))) is int
    assert type(check_text("key", numpy.str_("x"))) is str
    for value in (
        numpy.timedelta64(5, "s"),
        numpy.timedelta64(5, "ns"),
        numpy.bool_(True),
        numpy.array(2.0),
        numpy.complex128(1),
        numpy.float64("nan"),
    ):
        with pytest.raises(ConfigurationError):
            check_seconds("timeout", value)
        with pytest.raises(ConfigurationError):
            check_count("max_tasks", value)
        with pytest.raises(ConfigurationError):
            check_flag("marker", value)


@pytest.mark.parametrize("make", each(2, HostileInt(2), ForeignWhole(2)))
def test_a_count_is_an_exact_int(make: Callable[[], Any]) -> None:
    """Of any kind of whole number."""
    value = make()
    assert type(check_count("max_tasks", value)) is int
    assert check_count("max_tasks", value) == 2


@pytest.mark.parametrize(
    "make", each(0, -1, 2.0, True, "2", ForeignReal(2), ForeignWhole(ValueError()), Hostile(), None)
)
def test_no_count(make: Callable[[], Any]) -> None:
    """A float is none, even where it is whole."""
    value = make()
    with pytest.raises(ConfigurationError, match="max_tasks"):
        check_count("max_tasks", value)


@pytest.mark.parametrize("make", each(0, 1, "True", None, [], Hostile(), Foreign(1)))
def test_a_flag_is_true_or_false(make: Callable[[], Any]) -> None:
    """What only acts as one is refused: nobody can tell what it meant."""
    value = make()
    assert check_flag("marker", True) is True
    assert check_flag("marker", False) is False
    with pytest.raises(ConfigurationError, match="marker"):
        check_flag("marker", value)


class Zone(tzinfo):
    def __init__(self, offset: Any) -> None:
        self.offset = offset

    def utcoffset(self, _: datetime | None) -> Any:
        if isinstance(self.offset, Exception):
            raise self.offset
        return self.offset

    dst = tzname = bad


@pytest.mark.parametrize(
    "make",
    each(
        datetime(2030, 1, 1),  # noqa: DTZ001
        datetime(2030, 1, 1, tzinfo=Zone(None)),
        datetime(2030, 1, 1, tzinfo=Zone(5)),
        datetime(2030, 1, 1, tzinfo=Zone(RuntimeError())),
    ),
)
def test_no_moment(make: Callable[[], Any]) -> None:
    """Without a zone, with one that raises, or with one that tells nonsense."""
    value = make()
    with pytest.raises(ConfigurationError, match="deadline"):
        check_moment("deadline", value)


def test_a_moment_is_a_float() -> None:
    """A subclass is not asked."""
    late = type("Late", (datetime,), {"timestamp": bad, "utcoffset": bad})(1970, 1, 2, tzinfo=UTC)
    assert type(check_moment("deadline", late)) is float
    assert check_moment("deadline", late) == 86400.0
    for zone in (UTC, timezone(-timedelta(hours=23)), timezone(timedelta(hours=23))):
        assert check_moment("deadline", datetime.max.replace(tzinfo=zone)) > 2e11
        assert check_moment("deadline", datetime.min.replace(tzinfo=zone)) < -6e10


def test_a_number_is_finite() -> None:
    """An int that no float can hold is none."""
    assert type(check_number("deadline", HostileInt(-5))) is float
    for value in (10**400, float("nan"), float("-inf"), timedelta(1), True, "1"):
        with pytest.raises(ConfigurationError, match="deadline"):
            check_number("deadline", value)


class Anywhere:
    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        if isinstance(self.path, Exception):
            raise self.path
        return self.path


@pytest.mark.parametrize(
    "make",
    each(
        "a/b",
        HostileStr("a/b"),
        Path("a/b"),
        PurePosixPath("a/b"),
        Anywhere("a/b"),
        Anywhere(b"a/b"),
    ),
)
def test_a_path_is_exact(make: Callable[[], Any]) -> None:
    """Of a string, or of whatever says where it is."""
    value = make()
    found = check_path("files", value)
    assert type(found) is type(Path())
    assert found == Path("a/b")


@pytest.mark.parametrize(
    "make",
    each(
        1,
        None,
        b"a",
        Anywhere(5),
        Anywhere(RuntimeError()),
        "a\x00b",
        Anywhere("\x00"),
        "\ud800",
        HostileStr("\ud800"),
        Path("\ud800"),
    ),
)
def test_no_path(make: Callable[[], Any]) -> None:
    """It is refused by name."""
    value = make()
    with pytest.raises(ConfigurationError, match="files"):
        check_path("files", value)


def test_a_name_of_bytes_that_are_no_text() -> None:
    """The operating system gives it, and takes it back."""
    assert check_path("files", "\udcff") == Path("\udcff")


def test_an_iterable_of_paths_is_read_once() -> None:
    """A generator as well; one that never ends is too long, and does not keep its caller."""

    def endless() -> Iterator[str]:
        while True:
            yield "x"

    assert check_paths("files", (name for name in "ab")) == (Path("a"), Path("b"))
    assert check_paths("files", {"a": 1}) == (Path("a"),)
    assert 20 < len(check_paths("files", endless())) < 100_000


@pytest.mark.parametrize(
    "make", each("ab", HostileStr("ab"), b"ab", Path("ab"), Anywhere("ab"), 5, None, Hostile())
)
def test_one_path_is_no_list(make: Callable[[], Any]) -> None:
    """Nor is its text one of letters."""
    value = make()
    with pytest.raises(ConfigurationError, match="files"):
        check_paths("files", value)


def test_an_iterable_that_raises() -> None:
    """Its error is the cause of ours."""

    def broken() -> Iterator[str]:
        yield "a"
        raise KeyError("b")

    with pytest.raises(ConfigurationError, match="KeyError") as caught:
        check_paths("files", broken())
    assert isinstance(caught.value.__cause__, KeyError)


class Variables(Mapping[str, str]):
    """Raises at the given step, or changes while it is read."""

    def __init__(self, broken: str) -> None:
        self.broken = broken

    def __getitem__(self, name: str) -> str:
        if self.broken == "value":
            raise KeyError(HIDDEN)
        return HIDDEN

    def __iter__(self) -> Iterator[str]:
        if self.broken == "iteration":
            raise RuntimeError(HIDDEN)
        changing = {"A": 1}
        for name in changing:
            if self.broken == "change":
                changing[name + HIDDEN] = 1
            yield name

    def __len__(self) -> int:
        return bad()  # type: ignore[no-any-return]


@pytest.mark.parametrize("broken", ["value", "iteration", "change"])
def test_variables_that_cannot_be_read(broken: str) -> None:
    """The error tells which, and holds none of them."""
    for check in (check_variables, check_secrets):
        with pytest.raises(ConfigurationError, match=r"^secrets cannot be read") as caught:
            check("secrets", Variables(broken))
        frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert HIDDEN not in "".join(frames.format())
        assert caught.value.__context__ is caught.value.__cause__ is None


@pytest.mark.parametrize("make", each(5, "A=b", [("A", "b")], {"A"}, Hostile(), True))
def test_no_mapping(make: Callable[[], Any]) -> None:
    """Pairs are not enough: the documented type is a mapping."""
    value = make()
    with pytest.raises(ConfigurationError, match=r"^env "):
        check_variables("env", value)


@pytest.mark.parametrize(
    "make",
    each(
        {"A": "b"},
        MappingProxyType({"A": HostileStr("b")}),
        type("D", (dict,), {"__len__": bad, "__iter__": bad, "__repr__": bad})({"A": "b"}),
        {Colour.RED: Colour.RED},
        Variables("nothing"),
    ),
)
def test_variables_are_a_plain_copy(make: Callable[[], Any]) -> None:
    """Of exact strings; a later change of the mapping changes nothing."""
    value = make()
    found = check_variables("env", value)
    assert type(found) is dict
    assert found is not value
    assert [*map(type, found), *map(type, found.values())] == [str, str]


def test_secrets_do_not_show() -> None:
    """And are made once."""
    found = check_secrets("secrets", MappingProxyType({"A": HIDDEN}))
    assert type(found) is Secrets
    assert HIDDEN not in repr(found)
    assert check_secrets("secrets", found) is found
    assert check_secrets("secrets", None) == {}


def test_a_policy_is_no_subclass() -> None:
    """Its fields count, and none of its methods."""
    mine = type("Mine", (TaskPolicy,), {"but": bad, "__hash__": bad})(timeout=5)
    assert type(check_policy(mine)) is TaskPolicy
    assert check_policy(mine).timeout == 5.0
    for value in (5, {"timeout": 5}, TaskPolicy, Hostile()):
        with pytest.raises(ConfigurationError, match="policy"):
            check_policy(value)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: HostileStr("a\nb"), r"'a\nb'"),
        (lambda: "x" * 1000, None),
        (lambda: 10**5000, "an immense number"),
        (lambda: HostileInt(5), "a HostileInt"),
        (lambda: Hostile(), "a Hostile"),
        (lambda: None, "None"),
        (lambda: True, "True"),
        (lambda: 1.5, "1.5"),
    ],
)
def test_a_message_shows_a_value_in_one_short_line(
    make: Callable[[], Any], text: str | None
) -> None:
    """By no method of its own."""
    found = shown(make())
    assert len(found) < 100
    assert found.isprintable()
    assert text in {None, found}

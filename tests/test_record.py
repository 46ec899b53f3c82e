"""Records: what a frozen dataclass does, made faster."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import ClassVar

import pytest

from gpuscan.record import field, record, replace

_serial = itertools.count()


@record
class Point:
    x: int
    y: int = 2
    note: str = field(default="", compare=False)
    axes: ClassVar[int] = 2


@record
class Solid(Point):
    z: int = 3


@record
class Numbered:
    of: str
    number: int = field(default_factory=lambda: next(_serial))


@record
class Ordered:
    low: int
    high: int

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError("out of order")


@record
class Own:
    x: object

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, *x):
        object.__setattr__(self, "x", x)

    def __repr__(self):
        return "own"


class Loose(Point):
    """Derived from a record, and none itself."""


def test_init_takes_the_fields_in_order_with_their_defaults():
    assert (Point(1).x, Point(1).y, Point(1).note) == (1, 2, "")
    solid = Solid(1, z=5, y=4)
    assert (solid.x, solid.y, solid.note, solid.z, solid.axes) == (1, 4, "", 5, 2)
    assert Point.y == 2  # a default is the class's attribute too
    for wrong in (dict(), dict(x=1, w=2), dict(x=1, axes=3)):
        with pytest.raises(TypeError):
            Point(**wrong)


def test_records_are_equal_by_class_and_compared_fields():
    assert Point(1, 2) == Point(1, note="another")
    assert hash(Point(1, 2)) == hash(Point(1, note="another"))
    assert Point(1) != Point(2)
    assert Solid(1) != Point(1)
    assert Point(1) != (1, 2)
    assert len({Point(1), Point(1, 2), Point(1, 3), Solid(1)}) == 3


def test_a_factory_is_called_once_an_instance():
    first, second = Numbered("a"), Numbered("a")
    assert second.number == first.number + 1
    assert first != second
    assert Numbered("a", first.number) == first


def test_records_do_not_change():
    p = Point(1)
    for change in (lambda: setattr(p, "x", 5), lambda: setattr(p, "w", 5), lambda: delattr(p, "x")):
        with pytest.raises(AttributeError, match="Point does not change"):
            change()
    loose = Loose(1)
    loose.w = 5
    assert loose.w == 5
    del loose.w
    with pytest.raises(AttributeError, match="Loose does not change"):
        loose.x = 5


def test_what_a_class_defines_stays():
    with pytest.raises(ValueError, match="out of order"):
        Ordered(2, 1)
    own = Own(1, 2)
    assert own.x == (1, 2)
    assert repr(own) == "own"
    assert own == own
    assert own != Own(1, 2)


def test_records_print_match_copy_and_pickle():
    p = Point(1, note="n")
    assert repr(p) == "Point(x=1, y=2, note='n')"
    match p:
        case Point(x, y):
            assert (x, y) == (1, 2)
    for again in (copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert again == p
        assert again.note == "n"
    assert repr(replace(p, x=7)) == "Point(x=7, y=2, note='n')"
    with pytest.raises(TypeError):
        replace(p, w=1)

"""Records: frozen classes whose instances are what their fields are.

`@record` means what `@dataclass(frozen=True)` means, for a fraction of the time at import: a
dataclass has six methods compiled, a record one; the others are written here once.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, dataclass_transform

T = TypeVar("T")

_NONE: Any = object()


class Field(NamedTuple):
    """A field: without a default and a factory it has to be given; one with compare=False takes
    no part in equality and hash."""

    default: Any
    default_factory: Callable[[], Any] | None
    compare: bool


def field(
    *,
    default: Any = _NONE,
    default_factory: Callable[[], Any] | None = None,
    compare: bool = True,
) -> Any:
    """A field of a record with more to say than its default."""
    return Field(default, default_factory, compare)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """The class as a record. Its fields are the names that it annotates, after those of its
    bases; __init__ takes them in this order and calls __post_init__. Two records are equal where
    they are of one class and their fields are. What the class itself defines stays.

    The module has to import annotations from __future__: a ClassVar, which is no field, is told
    by its text.
    """
    own = vars(cls)
    fields: dict[str, Field] = dict(getattr(cls, "__record__", {}))
    for name, kind in cls.__annotations__.items():
        if kind.startswith("ClassVar"):
            continue
        given = own.get(name, _NONE)
        fields[name] = given if isinstance(given, Field) else Field(given, None, True)
        if given is not fields[name]:
            continue
        delattr(cls, name)
        if given.default is not _NONE:
            setattr(cls, name, given.default)
    methods: dict[str, Any] = {
        "__record__": fields,
        "__match_args__": tuple(fields),
        "_compared": attrgetter("__class__", *(n for n, f in fields.items() if f.compare)),
        "__eq__": _eq,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _set_attribute,
        "__delattr__": _delete_attribute,
    }
    if "__init__" not in own:
        methods["__init__"] = _init(fields, hasattr(cls, "__post_init__"))
    for name, method in methods.items():
        if name not in own:
            setattr(cls, name, method)
    return cls


def _init(fields: dict[str, Field], checked: bool) -> Any:
    names: dict[str, Any] = {"set_": object.__setattr__, "None_": _NONE}
    parameters, body = ["self"], []
    for name, f in fields.items():
        value = name
        if f.default_factory is not None:
            names[f"make_{name}"] = f.default_factory
            parameters.append(f"{name}=None_")
            value = f"make_{name}() if {name} is None_ else {name}"
        elif f.default is not _NONE:
            names[f"default_{name}"] = f.default
            parameters.append(f"{name}=default_{name}")
        else:
            parameters.append(name)
        body.append(f" set_(self, {name!r}, {value})")
    body.append(" self.__post_init__()" if checked else " pass")
    exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(body), names)
    return names["__init__"]


def _eq(self: Any, other: Any) -> bool:
    if self.__class__ is not other.__class__:
        return NotImplemented
    key = self._compared
    return bool(key(self) == key(other))


def _hash(self: Any) -> int:
    return hash(self._compared(self))


def _repr(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record__)
    return f"{type(self).__qualname__}({values})"


def _is_frozen(self: Any, name: str) -> bool:
    # a class that is derived from a record without being one may have attributes of its own
    return "__record__" in vars(type(self)) or name in self.__record__


def _set_attribute(self: Any, name: str, value: Any) -> None:
    if _is_frozen(self, name):
        raise AttributeError(f"can't set {name!r}: a {type(self).__name__} does not change")
    object.__setattr__(self, name, value)


def _delete_attribute(self: Any, name: str) -> None:
    if _is_frozen(self, name):
        raise AttributeError(f"can't delete {name!r}: a {type(self).__name__} does not change")
    object.__delattr__(self, name)


def replace(original: T, **changes: Any) -> T:
    """The record with other values for some of its fields."""
    fields = {name: getattr(original, name) for name in original.__record__}  # type: ignore[attr-defined]
    return type(original)(**{**fields, **changes})

"""shared(): a variable that holds an array between calls."""

from __future__ import annotations

import copy as _copy
from typing import Any

import numpy as np

from .graph import Leaf, SharedBase, Variable
from .record import record
from .types import TensorType


@record
class Shared(Leaf):
    """The leaf op of a shared variable; each is its own."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class SharedVariable(SharedBase):
    """A leaf with a value that lives on the device and that functions read and update."""

    __slots__ = ("allow_downcast", "default_update", "storage", "strict")

    def __new__(
        cls, type_: TensorType, value: np.ndarray, name: str | None = None,
        strict: bool = False, allow_downcast: bool | None = None,
    ) -> SharedVariable:  # fmt: skip
        self = super().__new__(cls, Shared(type_))
        self.name = name
        self.storage = value
        self.strict = strict
        self.allow_downcast = allow_downcast
        self.default_update = None
        return self

    storage: np.ndarray
    strict: bool
    allow_downcast: bool | None
    default_update: Variable | None

    def get_value(self, borrow: bool = False, return_internal_type: bool = False) -> np.ndarray:
        """The value: a copy, or with borrow=True possibly the array itself."""
        return self.storage if borrow else self.storage.copy()

    def set_value(self, value: Any, borrow: bool = False) -> None:
        """Sets the value; its shape may differ from the old one's, dtype and ndim may not.

        Raises TypeError for a value that does not fit, and leaves the old one.
        """
        array = self.type.filter(value, strict=self.strict, allow_downcast=self.allow_downcast)
        self.storage = array if borrow or array is not value else array.copy()

    def __delattr__(self, name: str) -> None:
        if name == "default_update":
            self.default_update = None
        else:
            super().__delattr__(name)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.type, self.storage, self.name, self.strict, self.allow_downcast

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"default_update": self.default_update, "tag": self._tag}
        return SharedVariable, self.__getnewargs__(), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.default_update, self._tag = state["default_update"], state["tag"]

    def __copy__(self) -> SharedVariable:
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedVariable:
        new = self.clone()
        new.storage = self.storage.copy()
        memo[id(self)] = new
        new.default_update = _copy.deepcopy(self.default_update, memo)
        return new

    def clone(self) -> SharedVariable:
        """A new shared variable over the same array."""
        return SharedVariable(self.type, self.storage, self.name, self.strict, self.allow_downcast)

    def op_name(self) -> str:
        return f"<shared {self.type}>"


def shared(
    value: Any, name: str | None = None, strict: bool = False,
    allow_downcast: bool | None = None, borrow: bool = False, broadcastable: Any = None,
    **ignored: Any,
) -> SharedVariable:  # fmt: skip
    """A shared variable that holds `value`: an array or a number, whose dtype it keeps.

    With borrow=True an array is taken over without a copy. The number of dimensions and the
    dtype are fixed, the shape is not, except where `broadcastable` fixes a size at 1.
    """
    if isinstance(value, Variable):
        raise TypeError(
            "Shared variable constructor needs numeric values and not symbolic variables."
        )
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError as e:
        raise TypeError(f"shared() can't make an array of {value!r}: {e}") from None
    if array.dtype.kind not in "buif":
        raise TypeError(f"shared() can't hold {type(value).__name__} of dtype {array.dtype}")
    if array is value and not borrow:
        array = array.copy()
    type_ = TensorType(array.dtype.name, broadcastable or (None,) * array.ndim)
    return SharedVariable(type_, type_.filter(array), name, strict, allow_downcast)

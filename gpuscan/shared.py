"""shared(): a variable that holds an array between calls."""

from __future__ import annotations

import copy as _copy
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from .config import config
from .graph import Leaf, SharedBase, Variable
from .record import record
from .runtime.device import missing, select
from .types import TensorType, is_on_gpu


@record
class Shared(Leaf):
    """The leaf op of a shared variable; each is its own."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class SharedVariable(SharedBase):
    """A leaf with a value that lives on the device and that functions read and update."""

    __slots__ = ("allow_downcast", "default_update", "held", "strict")

    def __new__(
        cls, type_: TensorType, value: Any, name: str | None = None,
        strict: bool = False, allow_downcast: bool | None = None,
    ) -> SharedVariable:  # fmt: skip
        self = super().__new__(cls, Shared(type_))
        self.name = name
        self.held = value
        self.strict = strict
        self.allow_downcast = allow_downcast
        self.default_update = None
        return self

    held: Any  # NumPy's array, or a GPU's once a function on the GPU has used or set it
    strict: bool
    allow_downcast: bool | None
    default_update: Variable | None

    @property
    def storage(self) -> np.ndarray:
        """The value as NumPy's: the array that is held, or a copy of what is on a GPU."""
        return self.held.get() if is_on_gpu(self.held) else self.held

    def get_value(self, borrow: bool = False, return_internal_type: bool = False) -> Any:
        """The value: a copy, or with borrow=True possibly the array itself. A value on a GPU is
        always copied to the host, unless return_internal_type=True asks for the GPU's array: with
        that an array is put on the GPU of `config.device` where no function has done it yet. Where
        only function(device=...) names a GPU it is NumPy's until the first call."""
        if return_internal_type:
            self._to_gpu()
        if is_on_gpu(self.held) and not return_internal_type:
            return self.storage
        return self.held if borrow else self.held.copy()

    def _to_gpu(self) -> None:
        if self.ndim and isinstance(self.held, np.ndarray) and not missing(config.device):
            device = select(config.device)
            if getattr(device, "has_own_arrays", False):
                with device.active():
                    self.held = device.array(self.held)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """A copy of the value; with copy=False the array itself. Raises TypeError where it is on a
        GPU: get_value() is asked for a copy on the host."""
        if is_on_gpu(self.held):
            raise TypeError(f"the value of {self} is on a GPU: get_value() copies it to the host")
        return np.array(self.held, dtype, copy=copy is not False)

    def __dlpack__(self, **how: Any) -> Any:
        """The value itself, for other libraries. It is the variable's until a function or set_value
        gives it another one: nothing is written into it."""
        return self._packed().__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._packed().__dlpack_device__()
        return kind, number

    def _packed(self) -> Any:
        if not hasattr(self.held, "__dlpack__"):
            raise BufferError(f"the value of {self} is PyCUDA's, which knows nothing of DLPack")
        return self.held

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """As `__dlpack__`, of a value on a GPU."""
        if not is_on_gpu(self.held):
            raise AttributeError(f"the value of {self} is on the host")
        given = self.held.__cuda_array_interface__
        # PyCUDA leaves out its stream, the default one
        return given if given.get("stream") else {**given, "stream": 1}

    def set_value(self, value: Any, borrow: bool = False) -> None:
        """Sets the value; its shape may differ from the old one's, dtype and ndim may not. With
        borrow=True an array is taken over without a copy, as by `shared`.

        Raises TypeError for a value that does not fit, and leaves the old one.
        """
        if is_on_gpu(value):
            self.held = of_gpu(value, self.type) if borrow else of_gpu(value, self.type).copy()
            return
        array = self.type.filter(value, strict=self.strict, allow_downcast=self.allow_downcast)
        self.held = array if borrow or array is not value else array.copy()

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
        new.held = self.held.copy()
        memo[id(self)] = new
        new.default_update = _copy.deepcopy(self.default_update, memo)
        return new

    def clone(self) -> SharedVariable:
        """A new shared variable over the same array."""
        return SharedVariable(self.type, self.held, self.name, self.strict, self.allow_downcast)

    def op_name(self) -> str:
        return f"<shared {self.type}>"


def _wrapped(value: Any) -> Any:
    """A GPU's array as CuPy's or PyCUDA's, over the same memory."""
    if hasattr(value, "get") and hasattr(value, "copy"):
        return value
    device = select("pycuda" if config.device == "pycuda" else "cuda")
    with device.active():
        return device.there(value)


def of_gpu(value: Any, type_: TensorType) -> Any:
    """A GPU's array as CuPy's or PyCUDA's, over the same memory. It is never converted: raises
    TypeError where it is not of the type."""
    value = _wrapped(value)
    if value.dtype == type_.dtype and type_.shape.count(None) == value.ndim:
        return value
    found = TensorType(np.dtype(value.dtype).name, tuple(value.shape))
    if not type_.accepts(found):
        raise TypeError(f"expected a {type_}, got a {found} on a GPU, which is not converted")
    return value


_updating = threading.Lock()


def updated(
    targets: Sequence[SharedVariable], before: Sequence[Any], values: Iterable[Any]
) -> bool:
    """Sets shared variables, all or none: none, and False, where one holds something else than
    before (None: whatever it holds), since what another thread has set would be lost. An interrupt
    comes before it or behind it."""
    if not targets:
        return True
    replaced = []  # let go of behind it: that may run Python's code, and so an interrupt's
    with _updating:
        for t, x in zip(targets, before):
            if x is not None and t.held is not x:
                return False
            replaced.append(t.held)
        # by C alone, which no signal's handler comes between
        deque(map(setattr, targets, repeat("held"), values), maxlen=0)
    return True


def shared(
    value: Any, name: str | None = None, strict: bool = False,
    allow_downcast: bool | None = None, borrow: bool = False, broadcastable: Any = None,
    **ignored: Any,
) -> SharedVariable:  # fmt: skip
    """A shared variable that holds `value`: an array or a number, whose dtype it keeps.

    With borrow=True an array is taken over without a copy, also one on a GPU: CuPy's, PyCUDA's, or
    with one of these any that has DLPack or `__cuda_array_interface__`, as PyTorch's and JAX's. It
    is read, and never written to. A function on a GPU takes NumPy's array there when it first uses
    it: afterwards what is written to the array is not seen. The number of dimensions and the dtype
    are fixed, the shape is not, except where `broadcastable` fixes a size at 1.
    """
    if isinstance(value, Variable):
        raise TypeError(
            "Shared variable constructor needs numeric values and not symbolic variables."
        )
    if is_on_gpu(value):
        value = _wrapped(value)
        type_ = TensorType(np.dtype(value.dtype).name, broadcastable or (None,) * value.ndim)
        held = of_gpu(value, type_)
        return SharedVariable(type_, held if borrow else held.copy(), name, strict, allow_downcast)
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

"""All settings. Each is read from GPUSCAN_FLAGS ("name=value,name=value") or GPUSCAN_NAME.

`config.floatX = "float64"` changes one for good, `config.change_flags(floatX="float64")` for the
length of a `with` block or of a decorated function.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

DEVICES = ("auto", "reference", "native", "emulated", "cuda", "cupy", "pycuda")


def _choice(*allowed: str) -> Callable[[Any], str]:
    def parse(text: Any) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is not one of {', '.join(allowed)}")
        return str(text)

    return parse


def _boolean(text: Any) -> bool:
    if isinstance(text, bool):
        return text
    words = {"1": True, "true": True, "0": False, "false": False, "": False}
    if str(text).lower() not in words:
        raise ValueError(f"{text!r} is not true or false")
    return words[str(text).lower()]


def _count(text: Any) -> int:
    if (n := int(text)) < 0:
        raise ValueError(f"{text!r} is less than 0")
    return n


# name: (default, parser)
_SETTINGS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "floatX": ("float32", _choice("float16", "float32", "float64")),
    "device": ("auto", _choice(*DEVICES)),
    "mode": ("FAST_RUN", str),
    "on_unused_input": ("raise", _choice("raise", "warn", "ignore")),
    "compute_test_value": ("off", str),
    "profile": (False, _boolean),
    "seed": (0, int),
    # to which factors of float32 products on a GPU may be rounded
    "dot_precision": ("float32", _choice("float32", "tf32", "bf16", "fp16")),
    "threads": (0, _count),  # 0: as many as the cores that this process may use
}

# Theano's names that are read or written by programs and mean nothing here.
_ACCEPTED = frozenset(
    "allow_gc assert_no_cpu_op base_compiledir cast_policy check_input compiledir "
    "compute_test_value_opt cxx cycle_detection deterministic exception_verbosity "
    "force_device init_gpu_device int_division intermediate linker on_opt_error "
    "on_shape_error openmp openmp_elemwise_minsize optimizer optimizer_excluding "
    "optimizer_including optimizer_requiring optimizer_verbose pickle_test_value "
    "print_active_device print_global_stats print_test_value profile_memory profile_optimizer "
    "reoptimize_unpickled reoptimize_unpickled_function warn_float64".split()
)
_GROUPS = (
    "DebugMode NanGuardMode blas cmodule conv cuda dnn experimental gcc gpuarray lib magma "
    "metaopt numpy nvcc optdb profiling tensor traceback unittests vm warn".split()
)


class _Group:
    """A dotted group of Theano's settings, such as config.scan or config.warn: kept, not used."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class Config:
    """The settings as attributes; see the module's text."""

    floatX: str
    device: str
    mode: str
    on_unused_input: str
    compute_test_value: str
    profile: bool
    seed: int
    threads: int

    def __init__(self) -> None:
        d = self.__dict__
        for name, (default, _) in _SETTINGS.items():
            d[name] = default
        d["scan"] = _Group(allow_gc=False, allow_output_prealloc=True)
        d.update({name: _Group() for name in _GROUPS})
        flags = [f for f in os.environ.get("GPUSCAN_FLAGS", "").split(",") if f.strip()]
        for flag in flags:
            name, _, value = flag.partition("=")
            self._set_flag(name.strip(), value.strip())
        for name in _SETTINGS:
            if (text := os.environ.get(f"GPUSCAN_{name.upper()}")) is not None:
                setattr(self, name, text)

    def _set_flag(self, name: str, value: str) -> None:
        group, dot, rest = name.partition(".")
        if dot and isinstance(self.__dict__.get(group), _Group):
            setattr(self.__dict__[group], rest, value)
        elif name in _SETTINGS:
            setattr(self, name, value)
        else:
            warnings.warn(
                f"GPUSCAN_FLAGS: gpuscan has no setting {name!r}; it is ignored. "
                f"The settings are {', '.join(_SETTINGS)}.",
                stacklevel=4,
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTINGS:
            try:
                value = _SETTINGS[name][1](value)
            except ValueError as e:
                raise ValueError(f"config.{name}: {e}") from None
        elif name not in _ACCEPTED and name not in self.__dict__:
            raise AttributeError(
                f"config has no setting {name!r}. The settings are {', '.join(_SETTINGS)}."
            )
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        if name in _ACCEPTED:
            return None
        raise AttributeError(
            f"config has no setting {name!r}. The settings are {', '.join(_SETTINGS)}."
        )

    @contextlib.contextmanager
    def change_flags(self, **values: Any) -> Iterator[None]:
        """The settings given, for the length of a `with` block or a decorated function."""
        old = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in old.items():
                setattr(self, name, value)


config = Config()

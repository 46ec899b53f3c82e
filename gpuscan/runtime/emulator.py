"""CUDA texts on the host: built by a C++ compiler, run on fibers (kernels/emulated.cpp)."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shlex
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BuildError, DeviceError, build_failure
from ..kernel_files import kernels_dir
from ..record import field, record
from . import cache, compiler

# Values are IEEE's and round as they are written, as in compiler.FLAGS; texts are built more often
# than they run for long, hence -O1.
_COMMON = (
    "-std=c++20", "-fPIC", "-march=native", "-ffp-contract=off", "-fwrapv", "-fno-math-errno",
    "-fno-trapping-math", "-fno-strict-aliasing",
)  # fmt: skip
FLAGS = (
    *_COMMON, "-O1", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-Wno-unknown-pragmas",
)  # fmt: skip
_RUNTIME = (*_COMMON, "-O2")
_MESSAGE = 4096


class LaunchError(DeviceError):
    """A launch that a device would refuse, or whose threads wait for what cannot happen."""


@record
class EmulatedKernel:
    """A kernel of a text, loaded."""

    name: str
    function: int  # its address, as emulated_launch takes it
    count: int  # of its parameters
    library: Any = field(compare=False)  # held while the kernel is


@functools.cache
def find() -> tuple[str, ...] | None:
    """The command of a C++ compiler: $CXX, g++, c++ or clang++."""
    from shutil import which

    given = os.environ.get("CXX")
    for name in [*([given] if given else []), "g++", "c++", "clang++"]:
        words = shlex.split(name)
        if words and which(words[0]):
            return tuple(words)
    return None


def missing() -> str:
    """Why kernels can't be emulated here; empty where they can."""
    if os.name != "posix":
        return "kernels are emulated on POSIX systems only"
    if find() is None:
        return "no C++ compiler: set CXX, or install g++ or clang++"
    return ""


@functools.cache
def _identity() -> str:
    """What makes two builds differ beside source and flags: compiler, CPU, kernel headers."""
    command = _compiler()
    headers = [p.read_text() for p in sorted(kernels_dir().glob("*.h"))]
    return cache.digest(" ".join(command), compiler._version(command), compiler._cpu(), *headers)


def _compiler() -> tuple[str, ...]:
    if reason := missing():
        raise DeviceError(reason)
    command = find()
    assert command is not None
    return command


def _built(flags: Sequence[str], source: str, load: Callable[[Path], Any]) -> Any:
    """What the compiler makes of a source, from the cache where it did before. Raises BuildError
    with the compiler's words and the numbered source."""
    command = [*_compiler(), *flags, "-I", str(kernels_dir())]

    def build(path: Path) -> None:
        full = [*command, "-x", "c++", "-", "-o", str(path)]
        done = compiler._run(full, f'#line 1 "kernel.cu"\n{source}')
        if done.returncode:
            if "No space left" in done.stderr:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            raise BuildError(build_failure(full, done.returncode, done.stderr, source))

    try:
        return cache.fetch(cache.digest(_identity(), *flags, source), build, load)
    except OSError as e:
        raise BuildError(f"what {command[0]!r} built can't be kept or loaded: {e}") from e


def _library(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


@functools.cache
def _runtime() -> tuple[Any, int]:
    """emulated_launch, and the address of the table that kernels call through."""
    source = (kernels_dir() / "emulated.cpp").read_text()
    library = _built([*_RUNTIME, "-shared"], source, _library)
    library.emulated_machine.restype = ctypes.c_void_p
    launch = library.emulated_launch
    launch.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p,
        ctypes.c_size_t, ctypes.c_int, ctypes.c_longlong, ctypes.c_char_p, ctypes.c_size_t,
    ]  # fmt: skip
    return launch, library.emulated_machine()


def _with_entries(source: str, names: Sequence[str]) -> str:
    """The text, and behind it how its kernels are called: its own lines keep their numbers."""
    entries = "\n".join(f"EMULATED_KERNEL({name})" for name in names)
    return f"{source.rstrip()}\n{entries}\n"


def build(source: str, names: Sequence[str], sanitizer: str = "") -> dict[str, EmulatedKernel]:
    """The kernels of a CUDA text by name, built and loaded. Raises BuildError with the compiler's
    words and the numbered text."""
    machine = _runtime()[1]
    library = _built([*FLAGS, "-shared"], _with_entries(source, names), _library)
    library.emulated_attach.argtypes = [ctypes.c_void_p]
    library.emulated_attach(machine)
    kernels = {}
    for name in names:
        function = ctypes.cast(getattr(library, f"emulated_run_{name}"), ctypes.c_void_p).value
        count = ctypes.c_int.in_dll(library, f"emulated_count_{name}").value
        assert function is not None
        kernels[name] = EmulatedKernel(name, function, count, library)
    return kernels


def _extents(what: str, given: int | Sequence[int]) -> list[int]:
    extents = [given] if isinstance(given, int) else list(given)
    extents += [1] * (3 - len(extents))
    if len(extents) > 3 or not all(1 <= x < 2**31 for x in extents):
        raise LaunchError(f"a {what} has one to three extents from 1 on, not {given}")
    return extents


def launch(
    kernel: EmulatedKernel, grid: int | Sequence[int], block: int | Sequence[int], shared: int,
    args: Sequence[int], cooperative: bool = False, schedule: int = 0,
) -> None:  # fmt: skip
    """Runs a kernel to its end. `args` are addresses and integers, one a parameter.

    `schedule` says whose turn it is: 0 in order, above it shuffled by that seed, and -1 - i lets
    block i run as far as it can before the others. Blocks run one after another, all of a
    cooperative launch together. Raises LaunchError where threads wait for what cannot happen.
    """
    blocks, threads = _extents("grid", grid), _extents("block", block)
    if threads[0] * threads[1] * threads[2] > 1024:
        raise LaunchError(f"kernel {kernel.name!r}: a block of {block} threads; 1024 at most")
    if len(args) != kernel.count:
        raise LaunchError(
            f"kernel {kernel.name!r} takes {kernel.count} arguments, {len(args)} are given"
        )
    values = b"".join([(int(x) & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little") for x in args])
    message = ctypes.create_string_buffer(_MESSAGE)
    failed = _runtime()[0](
        kernel.function, values, len(args), struct.pack("3I", *blocks), struct.pack("3I", *threads),
        shared, cooperative, schedule, message, _MESSAGE,
    )  # fmt: skip
    if failed:
        raise LaunchError(f"kernel {kernel.name!r}: {message.value.decode(errors='replace')}")

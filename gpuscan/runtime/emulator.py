"""CUDA texts on the host: built by a C++ compiler, run on fibers (kernels/emulated.cpp)."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
SANITIZERS = {
    "": (),
    "thread": ("-fsanitize=thread", "-g1", "-fno-omit-frame-pointer"),
    "address": (
        "-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=undefined",
        "-g1", "-fno-omit-frame-pointer",
    ),
}  # fmt: skip
# Of kernels only: what a program holds when it ends is no finding.
_QUIET = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "report_thread_leaks=0:history_size=4",
}
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
    return compiler.first_command("CXX", "g++", "c++", "clang++")


def missing() -> str:
    """Why kernels can't be emulated here; empty where they can."""
    if os.name != "posix":
        return "kernels are emulated on POSIX systems only"
    try:
        return "" if find() else "no C++ compiler: set CXX, or install g++ or clang++"
    except DeviceError as e:
        return str(e)


@functools.cache
def _identity() -> str:
    """What makes two builds differ beside source and flags: compiler, CPU, kernel headers."""
    command = _compiler()
    texts = [*kernels_dir().glob("*.h"), *kernels_dir().glob("emulated*.cpp")]
    headers = [p.read_text() for p in sorted(texts)]
    return cache.digest(" ".join(command), compiler._version(command), compiler._cpu(), *headers)


def _compiler() -> tuple[str, ...]:
    if reason := missing():
        raise DeviceError(reason)
    command = find()
    assert command is not None
    return command


def _built(flags: Sequence[str], source: str, load: Callable[[Path], Any], link: str = "") -> Any:
    """What the compiler makes of a source, from the cache where it did before; with `link` an
    object first, which is linked with this flag. Raises BuildError with the compiler's words and
    the numbered source."""
    command = [*_compiler(), *flags, "-I", str(kernels_dir())]

    def build(path: Path) -> None:
        _run([*command, "-x", "c++", "-", "-o", str(path)], source)
        if link:
            made = path.with_suffix(".o")
            path.rename(made)
            _run([*_compiler(), str(made), link, "-rdynamic", "-ldl", "-o", str(path)], source)
            made.unlink()

    try:
        return cache.fetch(cache.digest(_identity(), *flags, link, source), build, load)
    except OSError as e:
        raise BuildError(f"what {command[0]!r} built can't be kept or loaded: {e}") from e


def _run(command: Sequence[str], source: str) -> None:
    done = compiler._run(command, f'#line 1 "kernel.cu"\n{source}')
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device", command[-1])
        raise BuildError(build_failure(command, done.returncode, done.stderr, source))


def _library(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


@functools.cache
def _runtime() -> tuple[Any, int]:
    """emulated_launch, and the address of the table that kernels call through."""
    library = _built([*_RUNTIME, "-shared"], '#include "emulated.cpp"\n', _library)
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
    words and the numbered text. With a sanitizer only in a process that was started with it:
    others call run_sanitized."""
    machine = _runtime()[1]
    flags = [*FLAGS, *SANITIZERS[sanitizer], "-shared"]
    library = _built(flags, _with_entries(source, names), _library)
    library.emulated_attach.argtypes = [ctypes.c_void_p]
    library.emulated_attach(machine)
    kernels = {}
    for name in names:
        function = ctypes.cast(getattr(library, f"emulated_run_{name}"), ctypes.c_void_p).value
        count = ctypes.c_int.in_dll(library, f"emulated_count_{name}").value
        assert function is not None
        kernels[name] = EmulatedKernel(name, function, count, library)
    return kernels


def _extents(given: int | Sequence[int]) -> list[int]:
    extents = [int(x) for x in (given if isinstance(given, Sequence) else [given])]
    return extents + [1] * (3 - len(extents))


def _shape(
    name: str, grid: int | Sequence[int], block: int | Sequence[int]
) -> tuple[list[int], list[int]]:
    """Three extents of each. Raises LaunchError for what a device would not launch."""
    blocks, threads = _extents(grid), _extents(block)
    count = threads[0] * threads[1] * threads[2]
    if not all(len(x) == 3 and all(1 <= n < 2**31 for n in x) for x in (blocks, threads)):
        raise LaunchError(f"kernel {name!r}: no launch of a grid {grid} of blocks {block}")
    if count > 1024:
        raise LaunchError(f"kernel {name!r}: a block of {count} threads; a device has 1024")
    return blocks, threads


def launch(
    kernel: EmulatedKernel, grid: int | Sequence[int], block: int | Sequence[int], shared: int,
    args: Sequence[int], cooperative: bool = False, schedule: int = 0,
) -> None:  # fmt: skip
    """Runs a kernel to its end. `args` are addresses and integers, one a parameter.

    `schedule` says whose turn it is: 0 in order, above it shuffled by that seed, and -1 - i lets
    block i run as far as it can before the others. Blocks run one after another, all of a
    cooperative launch together. Raises LaunchError where threads wait for what cannot happen.
    """
    blocks, threads = _shape(kernel.name, grid, block)
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


def run_sanitized(
    source: str, name: str, grid: int | Sequence[int], block: int | Sequence[int], shared: int,
    arrays: Sequence[np.ndarray[Any, Any] | int], sanitizer: str, cooperative: bool = False,
    schedule: int = 0,
) -> tuple[list[np.ndarray[Any, Any]], str]:  # fmt: skip
    """Runs a kernel under a sanitizer ("thread", or "address" with undefined behaviour) in a
    process of its own: its arrays as they are then, and the sanitizer's report, empty where it
    found nothing. Arrays of a run that was cut short are as they were given. Raises LaunchError
    as launch does."""
    import tempfile

    blocks, threads = _shape(name, grid, block)
    link = SANITIZERS[sanitizer][0]
    runner = _built([*_RUNTIME, "-c"], '#include "emulated_runner.cpp"\n', Path.read_bytes, link)
    flags = [*FLAGS, *SANITIZERS[sanitizer], "-shared"]
    library = _built(flags, _with_entries(source, [name]), Path.read_bytes)
    with tempfile.TemporaryDirectory(prefix="gpuscan-") as place:
        folder = Path(place)
        program, loaded = folder / "runner", folder / "kernel.so"
        program.write_bytes(runner)
        program.chmod(0o700)
        loaded.write_bytes(library)
        words: list[str] = []
        for i, x in enumerate(arrays):
            if isinstance(x, np.ndarray):
                (folder / str(i)).write_bytes(x.tobytes())
                words.append(f"@{x.nbytes}")
            else:
                words.append(f"={int(x) & 0xFFFFFFFFFFFFFFFF}")
        command = [program, loaded, name, folder, shared, int(cooperative), schedule, *blocks,
                   *threads, *words]  # fmt: skip
        report = _report([str(x) for x in command])
        if (fault := folder / "fault").exists():
            raise LaunchError(f"kernel {name!r}: {fault.read_text()}")
        results = [
            np.frombuffer((folder / str(i)).read_bytes(), x.dtype).reshape(x.shape).copy()
            for i, x in enumerate(arrays)
            if isinstance(x, np.ndarray)
        ]
    return results, report


def _report(command: Sequence[str]) -> str:
    """What the program says. ThreadSanitizer may need a memory layout that is not random."""
    import subprocess
    from shutil import which

    def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, capture_output=True, encoding="utf-8", errors="replace", check=False,
            env={**os.environ, **_QUIET},
        )  # fmt: skip

    done = run(command)
    if "unexpected memory mapping" in done.stderr and which("setarch"):
        done = run(["setarch", "-R", *command])
    if done.returncode and not done.stderr and done.returncode != 3:
        return f"the program ended with status {done.returncode}"
    return done.stderr

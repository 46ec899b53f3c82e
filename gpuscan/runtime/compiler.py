"""The system's C compiler.

What only a search or a build needs is imported there: it takes as long as to load a library.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import shlex
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BuildError, DeviceError, build_failure
from ..kernel_files import kernels_dir
from . import cache

if TYPE_CHECKING:
    from concurrent.futures import Future
    from subprocess import CompletedProcess

# -O3 with the CPU's own vectors. errno and traps are given up, IEEE values are not: no fast-math,
# no contraction (elementwise chains must round alike on every device), and no vectors but those of
# loops: of straight code gcc 12 takes (double)(float)x for x.
FLAGS = (
    "-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=off", "-fwrapv", "-fno-tree-slp-vectorize",
    "-Werror=implicit-function-declaration",
)  # fmt: skip


def flags() -> tuple[str, ...]:
    """What the compiler is called with. With AVX-512, gcc and clang take half its width by
    themselves, for what a few full vectors cost the clock; the products here are full of them."""
    return (*FLAGS, "-mprefer-vector-width=512") if "avx512f" in _cpu() else FLAGS


@functools.cache
def find() -> tuple[str, ...] | None:
    """The command of a C compiler: $CC, cc, gcc, clang, or ziglang where it is installed. Raises
    DeviceError where $CC is none that a shell would read."""
    if found := first_command("CC", "cc", "gcc", "clang"):
        return found
    try:
        import ziglang  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    import sys

    assert ziglang
    return (sys.executable, "-m", "ziglang", "cc")


def first_command(variable: str, *others: str) -> tuple[str, ...] | None:
    """The first that is there: the command in the variable of the environment, or another."""
    from shutil import which

    try:
        given = shlex.split(os.environ.get(variable, ""))
    except ValueError as e:
        value = os.environ[variable]
        raise DeviceError(f"{variable} is no command: {value!r} ({e})") from None
    commands = [given, *([name] for name in others)]
    return next((tuple(words) for words in commands if words and which(words[0])), None)


@functools.cache
def identity() -> str:
    """What makes two builds differ beside their source: compiler, flags, headers, CPU."""
    command = find()
    assert command is not None
    headers = [p.read_text() for p in sorted(kernels_dir().glob("*.h"))]
    return cache.digest(" ".join(command), _version(command), *flags(), _cpu(), *headers)


def _version(command: Sequence[str]) -> str:
    """What changes when the compiler does: its file, which needs no process, or where the
    command names more than one (a launcher, a module), what it says itself."""
    from shutil import which

    if len(command) == 1 and (found := which(command[0])):
        file = Path(found).resolve()
        status = file.stat()
        return f"{file} {status.st_size} {status.st_mtime_ns}"
    return _run([*command, "--version"]).stdout


@functools.cache
def _cpu() -> str:
    """The features of this CPU, which -march=native builds for."""
    try:
        with open("/proc/cpuinfo") as f:
            return next((line for line in f if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor() + platform.machine()


def _run(command: Sequence[str], source: str = "") -> CompletedProcess[str]:
    """The compiler's run, with words in English: they are read here. Raises BuildError where it
    can't be started."""
    import subprocess

    try:
        return subprocess.run(
            command, input=source, capture_output=True, encoding="utf-8", errors="replace",
            env={**os.environ, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except OSError as e:
        raise BuildError(f"the C compiler {command[0]!r} can't be started: {e}") from e


def library(source: str, routines: Sequence[str] = ()) -> ctypes.CDLL:
    """The source as a loaded library, from the cache where it was built before. routines: sources
    of what it calls, each built once for all that call it. Raises BuildError with the compiler's
    words and the numbered source."""
    key = cache.digest(identity(), source, *routines)
    return _kept(key, lambda path: _build(path, source, routines), lambda p: ctypes.CDLL(str(p)))


def _kept(key: str, build: Callable[[Path], None], load: Callable[[Path], Any]) -> Any:
    try:
        return cache.fetch(key, build, load)
    except OSError as e:
        name = " ".join(find() or ())
        raise BuildError(f"what the C compiler {name!r} built can't be kept or loaded: {e}") from e


def _build(path: Path, source: str, routines: Sequence[str]) -> None:
    """A library: the source is compiled while routines that are not there yet are."""
    if not routines:
        _compile(source, "-x", "c", "-", "-o", str(path), "-lm")
        return
    import tempfile

    objects = [_object(text) for text in routines]
    with tempfile.TemporaryDirectory(prefix="gpuscan-") as folder:
        files = [Path(folder, f"{i}.o") for i in range(1 + len(objects))]
        _compile(source, "-c", "-x", "c", "-", "-o", str(files[0]))
        for file, made in zip(files[1:], objects):
            file.write_bytes(made.result())
        _compile("", *map(str, files), "-o", str(path), "-lm")


_objects: dict[tuple[int, str], Future[bytes]] = {}  # by process: a fork has none of its threads


def _object(source: str) -> Future[bytes]:
    """The source's object file, which is there or being built by a thread; from the cache it has a
    checksum behind it, which no linker reads."""
    from concurrent.futures import Future

    key = cache.digest(identity(), "object", source)
    by = os.getpid(), key
    mine: Future[bytes] = Future()
    found = _objects.setdefault(by, mine)

    def build(path: Path) -> None:
        _compile(source, "-c", "-x", "c", "-", "-o", str(path))

    def run() -> None:
        try:
            mine.set_result(_kept(key, build, Path.read_bytes))
        except BaseException as e:
            del _objects[by]  # the next call tries again
            mine.set_exception(e)

    if found is mine:
        threading.Thread(target=run).start()
    return found


def _compile(source: str, *arguments: str) -> None:
    command = [*(find() or ()), *flags(), "-I", str(kernels_dir()), *arguments]
    done = _run(command, source)
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device", arguments[-1])
        raise BuildError(build_failure(command, done.returncode, done.stderr, source))


def side_by_side(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the tasks give, which are to build and load libraries: compilers run at the same time.
    Raises what the first that fails raises."""
    identity()  # once, and not in each thread
    found: list[Any] = [None] * len(tasks)
    failed: dict[int, BaseException] = {}

    def run(i: int) -> None:
        try:
            found[i] = tasks[i]()
        except BaseException as e:
            failed[i] = e

    others = [threading.Thread(target=run, args=(i,)) for i in range(1, len(tasks))]
    for thread in others:
        thread.start()
    if tasks:
        run(0)
    for thread in others:
        thread.join()
    if failed:
        raise failed[min(failed)]
    return found


def kernel(library: ctypes.CDLL, name: str) -> int:
    """The address of a kernel: (first, last, pointers, integers) -> an integer. A library that is
    loaded stays."""
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return address

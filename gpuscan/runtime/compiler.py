"""The system's C compiler."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import BuildError
from ..kernel_files import kernels_dir
from . import cache

# -O3 with the CPU's own vectors. errno and traps are given up, IEEE values are not: no fast-math,
# no contraction (elementwise chains must round alike on every device).
FLAGS = (
    "-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=off", "-fwrapv", "-Werror=implicit-function-declaration",
)  # fmt: skip


@functools.cache
def find() -> tuple[str, ...] | None:
    """The command of a C compiler: $CC, cc, gcc, clang, or ziglang where it is installed."""
    given = os.environ.get("CC")
    for name in [*([given] if given else []), "cc", "gcc", "clang"]:
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            return tuple(words)
    try:
        import ziglang  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    import sys

    assert ziglang
    return (sys.executable, "-m", "ziglang", "cc")


@functools.cache
def identity() -> str:
    """What makes two builds differ beside their source: compiler, flags, headers, CPU."""
    command = find()
    assert command is not None
    headers = [p.read_text() for p in sorted(kernels_dir().glob("*.h"))]
    return cache.digest(" ".join(command), _version(command), *FLAGS, _cpu(), *headers)


def _version(command: Sequence[str]) -> str:
    """What changes when the compiler does: its file, which needs no process, or where the
    command names more than one (a launcher, a module), what it says itself."""
    if len(command) == 1 and (found := shutil.which(command[0])):
        file = Path(found).resolve()
        status = file.stat()
        return f"{file} {status.st_size} {status.st_mtime_ns}"
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    return done.stdout


def _cpu() -> str:
    """The features of this CPU, which -march=native builds for."""
    try:
        with open("/proc/cpuinfo") as f:
            return next((line for line in f if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor() + platform.machine()


def library(source: str) -> ctypes.CDLL:
    """The source as a loaded library, from the cache where it was built before. Raises BuildError
    with the compiler's words and the numbered source."""

    def build(path: Path) -> None:
        command = [*(find() or ()), *FLAGS, "-I", str(kernels_dir()), "-x", "c", "-", "-o",
                   str(path), "-lm"]  # fmt: skip
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        if done.returncode:
            if "No space left" in done.stderr:
                raise OSError(done.stderr)
            lines = source.splitlines()
            numbered = "\n".join(f"{i:4} {line}" for i, line in enumerate(lines, start=1))
            raise BuildError(f"{' '.join(command)} failed:\n{done.stderr}\n{numbered}")

    key = cache.digest(identity(), source)
    found: ctypes.CDLL = cache.fetch(key, build, lambda path: ctypes.CDLL(str(path)))
    return found

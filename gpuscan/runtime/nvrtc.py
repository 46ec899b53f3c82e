"""NVIDIA's run-time compiler: CUDA text to a GPU's code, with no GPU and no driver."""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import re
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import BuildError, build_failure
from ..kernel_files import kernels_dir
from ..record import record
from . import cache

# Elementwise chains must round alike on every device, so nothing is contracted: a product says
# fmaf where it means it. -v writes what a kernel takes into the log, where NVRTC does compile: what
# it finds in its own cache it says nothing of.
OPTIONS = ("--fmad=false", "--std=c++17", "--ptxas-options=-v")
_NO_CACHE = "--no-cache"  # which an older NVRTC, without one, does not know
_INVALID_OPTION = 5  # nvrtc.h: NVRTC_ERROR_INVALID_OPTION

_lock = threading.Lock()


@record
class Resources:
    """What a kernel takes, in bytes a thread, or a block for `shared` and `constant`."""

    registers: int  # of 32 bits, a thread
    spill_stores: int  # with those of the functions that it calls
    spill_loads: int
    stack: int
    shared: int  # the static ones
    constant: int  # the bank of arguments


@record
class Cubin:
    """A compiled source: the file that a driver loads, and what was said of its kernels."""

    architecture: str
    image: bytes
    resources: dict[str, Resources]
    log: str
    seconds: float  # of the compile, also where it was found in the cache


def missing() -> str:
    """Why there is no NVRTC, or nothing."""
    try:
        _library()
    except BuildError as e:
        return str(e)
    return ""


def version() -> tuple[int, int]:
    """NVRTC's version. Raises BuildError where there is none."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library()[0].nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def architectures() -> list[str]:
    """What NVRTC compiles for: "sm_75" and so on. Raises BuildError where there is none."""
    library, _ = _library()
    count = ctypes.c_int()
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    numbers = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(numbers)
    return [f"sm_{n}" for n in numbers]


def compile(source: str, architecture: str, options: Sequence[str] = ()) -> Cubin:
    """The source, whose kernels are `extern "C" __global__`, for an architecture ("sm_90"), from
    the cache where it was compiled before. It includes what is in kernels/, and of CUDA's own
    headers those that are installed. `options` are NVRTC's, behind our own.

    Raises BuildError where there is no NVRTC, and with its words and the numbered source where it
    refuses the source.
    """
    places = [str(kernels_dir()), *_includes()]
    words = [f"--gpu-architecture={architecture}", *OPTIONS, *(f"-I{p}" for p in places), *options]

    def build(path: Path) -> None:
        path.write_bytes(_packed(_compile(source, architecture, words)))

    key = cache.digest("cubin", _identity(), _headers(), *words, "", source)
    try:
        found: Cubin = cache.fetch(key, build, _unpacked)
    except OSError as e:
        raise BuildError(f"what NVRTC compiled can't be kept: {e}") from e
    return found


def _compile(
    source: str, architecture: str, options: Sequence[str], no_cache: str = _NO_CACHE
) -> Cubin:
    library, _ = _library()
    options = [*options, *filter(None, [no_cache])]
    program = ctypes.c_void_p()
    start = time.perf_counter()
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
    )
    if status:
        raise BuildError(f"NVRTC takes no source: {_words(status)}")
    try:
        given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status = library.nvrtcCompileProgram(program, len(options), given)
        if status == _INVALID_OPTION and no_cache:
            return _compile(source, architecture, options[:-1], "")
        log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
        said = log.rstrip(b"\0").decode(errors="replace")
        if status:
            said = said or _words(status)
            who = f"NVRTC {'.'.join(map(str, version()))}"
            command = ["NVRTC", *options]
            raise BuildError(build_failure(command, status, said, source, who, _way_out(said)))
        image = _text(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    seconds = time.perf_counter() - start
    return Cubin(architecture, image, resources(said, image), said, seconds)


def _way_out(said: str) -> str:
    """What helps where NVRTC fails, behind the line that says so."""
    if header := re.search(r'cannot open source file "((?:crt/)?\w+\.h)"', said):
        return (
            f". CUDA's header {header[1]} is not installed: pip install nvidia-cuda-runtime "
            "nvidia-cuda-crt, or set CUDA_PATH to a toolkit"
        )
    if "nvrtc-builtins" in said:
        return ". NVRTC is not whole: pip install --force-reinstall nvidia-cuda-nvrtc"
    return ". Give function() fuse='never' or device='native', and please report this"


def _words(status: int) -> str:
    library, _ = _library()
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library.nvrtcGetErrorString(status).decode()


def _text(size_of: Any, get: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)
    return buffer.raw


def _packed(made: Cubin) -> bytes:
    """A cubin as one file: a line of JSON, then the image."""
    kernels = {k: [getattr(r, f) for f in _FIELDS] for k, r in made.resources.items()}
    head = [made.architecture, len(made.image), kernels, made.log, made.seconds]
    return json.dumps(head).encode() + b"\n" + made.image


def _unpacked(path: Path) -> Cubin:
    try:
        head, _, rest = path.read_bytes().partition(b"\n")
        architecture, size, kernels, log, seconds = json.loads(head)
        if len(rest) < size:  # behind it stands the cache's seal
            raise ValueError("cut short")
        taken = {k: Resources(*r) for k, r in kernels.items()}
    except (ValueError, TypeError) as e:
        raise OSError(errno.EINVAL, f"not a kept cubin: {e}", str(path)) from e
    return Cubin(architecture, rest[:size], taken, log, seconds)


_FIELDS = ("registers", "spill_stores", "spill_loads", "stack", "shared", "constant")


def resources(log: str, image: bytes) -> dict[str, Resources]:
    """What each kernel takes, from the words of `ptxas -v`; the constants, of which it does not
    always speak, from the image."""
    constant = dict(_sections(image, ".nv.constant0."))
    found: dict[str, Resources] = {}
    # a kernel's part goes on with the functions that are compiled for it
    for part in log.split("Compiling entry function '")[1:]:
        name = part[: part.index("'")]
        spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        stack = _number(r"(\d+) bytes cumulative stack", part)
        found[name] = Resources(
            registers=_number(r"Used (\d+) registers", part),
            spill_stores=sum(int(s) for s, _ in spills),
            spill_loads=sum(int(s) for _, s in spills),
            stack=stack or _number(r"(\d+) bytes stack frame", part),
            shared=_number(r"(\d+) bytes smem", part),
            constant=constant.get(name, 0),
        )
    return found


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _sections(image: bytes, prefix: str) -> Iterator[tuple[str, int]]:
    """Name behind the prefix, and size, of those sections of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names = struct.unpack_from("<HHH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", image, table + i * size) for i in range(count)]
    for header in headers:
        start = headers[names][4] + header[0]
        name = image[start : image.index(b"\0", start)].decode(errors="replace")
        if name.startswith(prefix):
            yield name[len(prefix) :], header[5]


def _library() -> tuple[Any, Path | None]:
    """NVRTC, and its file where that is known. Raises BuildError where there is none."""
    with _lock:  # one thread looks, the others wait
        found = _found()
    if isinstance(found, str):
        raise BuildError(found)
    return found


@functools.cache
def _found() -> tuple[Any, Path | None] | str:
    reason = "NVRTC is not installed: pip install nvidia-cuda-nvrtc, or set CUDA_PATH"
    candidates: list[Path | str] = []
    if file := _file():
        candidates.append(file)
    candidates += ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]  # where the system looks
    for name in candidates:
        try:
            library = ctypes.CDLL(str(name))
            library.nvrtcGetCUBIN  # noqa: B018  from CUDA 11.2 on
        except (OSError, AttributeError) as e:
            if isinstance(name, Path):
                reason = f"NVRTC can't be loaded from {name}: {e}"
            continue
        return library, name if isinstance(name, Path) else None
    return reason


@functools.cache
def _file() -> Path | None:
    """NVRTC's file: the newest of NVIDIA's wheels, or that of an installed toolkit."""
    kits = [[p / part for part in ("lib64", "lib", "targets/x86_64-linux/lib")] for p in toolkits()]
    for places in ([p / "lib" for p in wheel_folders()], *kits):
        if files := [f for place in places for f in place.glob("libnvrtc.so*")]:
            return max(files, key=lambda f: [int(n) for n in re.findall(r"\d+", f.name)])
    return None


def wheel_folders() -> list[Path]:
    """The folders of NVIDIA's wheels, each with its lib, bin and include."""
    from importlib.util import find_spec

    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return [p for place in places or () for p in sorted(Path(place).glob("*")) if p.is_dir()]


def toolkits() -> list[Path]:
    """Where a CUDA toolkit may lie."""
    given = [os.environ.get(name) for name in ("CUDA_PATH", "CUDA_HOME")]
    return [Path(p) for p in (*given, "/usr/local/cuda") if p]


@functools.cache
def _includes() -> tuple[str, ...]:
    """The folder with CUDA's own headers (cuda_fp16.h, and mma.h with what it includes), or none.
    A wheel of CUDA 13's runtime lacks the latter, which a toolkit beside it may have."""
    folders = [place / "include" for place in (*wheel_folders(), *toolkits())]
    found = [f for f in folders if (f / "cuda_fp16.h").is_file()]
    whole = [f for f in found if (f / "crt" / "mma.h").is_file()]
    return tuple(str(f) for f in (whole or found)[:1])


@functools.cache
def _identity() -> str:
    """What changes when NVRTC does. Its file tells without being loaded."""
    if file := _file():
        status = file.stat()
        return f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    return str(version())


@functools.cache
def _headers() -> str:
    return cache.digest(*(p.read_text() for p in sorted(kernels_dir().glob("*.h"))))

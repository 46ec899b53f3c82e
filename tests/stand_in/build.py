"""What runs the real PyCUDA where there is no GPU: PyCUDA, built from its sdist, and a libcuda.so.1
of our own below it (kernels/emulated_driver.cpp), both kept outside of the checkout.

    python tests/stand_in/build.py

prints the folder of the library and that of PyCUDA, and builds what is not there: PyCUDA takes
three minutes, once for each of its versions, Python's and CUDA's.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpuscan.kernel_files import kernels_dir
from gpuscan.runtime import cache, compiler, emulator, nvrtc

PYCUDA = "2026.1"


class Missing(Exception):
    """What the stand-in needs and this machine has not."""


def kept() -> Path:
    """Where builds are kept: GPUSCAN_CI_CACHE, or gpuscan-ci in the user's cache directory."""
    if own := os.environ.get("GPUSCAN_CI_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuscan-ci"


def _headers() -> Path:
    """The folder with cuda.h."""
    for place in (*nvrtc.toolkits(), *nvrtc.wheel_folders()):
        if (place / "include" / "cuda.h").is_file():
            return place / "include"
    raise Missing("no cuda.h: PyCUDA is built with the headers of a CUDA toolkit (set CUDA_PATH)")


def _run(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(x) for x in command], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    if done.returncode:
        words = (done.stdout + done.stderr).strip()
        last = next((x for x in reversed(words.splitlines()) if "error" in x.lower()), words[-300:])
        raise Missing(f"{Path(command[0]).name} fails: {last.strip()}")
    return done.stdout


# ---- PyCUDA --------------------------------------------------------------------------------------


def pycuda() -> Path:
    """The folder that PyCUDA is imported from. Raises Missing where it can't be built."""
    headers = _headers()
    cuda = re.search(r"#define CUDA_VERSION (\d+)", (headers / "cuda.h").read_text())
    version = f"{sys.implementation.cache_tag}-{cuda[1] if cuda else 0}"
    place = kept() / f"pycuda-{PYCUDA}-{version}"
    if place.is_dir():
        return place
    if emulator.find() is None:
        raise Missing(emulator.missing())
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as name:
        folder = Path(name)
        source = _unpacked(folder)
        _linked(folder, 'extern "C" int cuInit(unsigned) { return 801; }\n', "libcuda.so")
        (source / "siteconf.py").write_text(
            f"CUDA_INC_DIR = [{str(headers)!r}]\nCUDADRV_LIB_DIR = [{str(folder)!r}]\n"
            "CUDA_ENABLE_CURAND = False\n"
        )
        pip = [sys.executable, "-m", "pip"]
        _run([*pip, "wheel", "--no-deps", "-w", folder, source], folder)
        (wheel,) = folder.glob("pycuda*.whl")
        made = folder / "installed"
        # its pure dependencies lie beside it
        _run([*pip, "install", "--target", made, wheel, f"numpy=={_numpy()}"], folder)
        for own in ("numpy", "numpy.libs"):  # the interpreter has it
            shutil.rmtree(made / own, ignore_errors=True)
        for own in made.glob("numpy-*"):
            shutil.rmtree(own)
        try:
            made.rename(place)
        except OSError:  # another process was first
            if not place.is_dir():
                raise
    return place


def _numpy() -> str:
    import numpy

    return numpy.__version__


def _unpacked(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "pycuda"]
    _run([*pip, "-d", folder, f"pycuda=={PYCUDA}"], folder)
    (archive,) = folder.glob("pycuda-*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


# ---- the driver ----------------------------------------------------------------------------------


@functools.cache
def driver(extension: Path | None = None) -> Path:
    """The folder with the stand-in for libcuda.so.1, with the names that an extension links; or
    for a program that loads it by its path, under a name of its own: NVRTC looks for the driver,
    too. Raises Missing where it can't be built."""
    name = "libcuda.so.1" if extension else "libemulated_driver.so"
    source = _source() + (_others(extension) if extension else "")
    headers = [p.read_text() for p in sorted(kernels_dir().glob("emulated*"))]
    key = cache.digest(name, source, *headers, *(emulator.find() or ()), compiler._cpu())
    place = kept() / f"driver-{key}"
    if place.is_dir():
        return place
    if reason := emulator.missing():
        raise Missing(reason)
    kept().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept()) as given:
        folder = Path(given)
        made = folder / "driver"
        made.mkdir()
        _linked(made, source, name)
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    return place


def _source() -> str:
    return (kernels_dir() / "emulated_driver.cpp").read_text()


def _others(extension: Path) -> str:
    """The names that PyCUDA links and the stand-in has not: each says "not supported"."""
    said = _run(["nm", "-D", "--undefined-only", extension], extension.parent)
    names = sorted(set(re.findall(r"\bcu[A-Z]\w*", said)))
    own = set(re.findall(r"\bcu[A-Z]\w*(?=\()", _source()))
    others = [name for name in names if name not in own]
    return "".join(f'extern "C" int {name}() {{ return 801; }}\n' for name in others)


def _linked(folder: Path, source: str, name: str) -> None:
    (folder / "driver.cpp").write_text(source)
    soname = "libcuda.so.1" if name == "libcuda.so" else name
    command = [
        *(emulator.find() or ()), *emulator._RUNTIME, "-I", kernels_dir(), "-shared",
        f"-Wl,-soname,{soname}", "driver.cpp", "-ldl", "-o", name,
    ]  # fmt: skip
    _run(command, folder)


# ---- programs on it ------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """The environment in which a program's driver is the stand-in. Raises Missing."""
    (extension,) = (pycuda() / "pycuda").glob("_driver*.so")
    places = {"LD_LIBRARY_PATH": driver(extension), "PYTHONPATH": pycuda()}
    joined = {
        name: os.pathsep.join([str(place), *filter(None, [os.environ.get(name)])])
        for name, place in places.items()
    }
    return {**os.environ, **joined, "GPUSCAN_STAND_IN_DRIVER": "1"}


if __name__ == "__main__":
    try:
        print(environment()["LD_LIBRARY_PATH"], pycuda(), sep="\n")
    except Missing as e:
        print(f"no stand-in: {e}", file=sys.stderr)
        sys.exit(3)

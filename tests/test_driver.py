"""What stands between the kernels and NVIDIA's driver, as far as it can be told without one: names
and numbers are those of cuda.h, texts of ours compile, and what would not fit is refused."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscan.codegen.limits import occupancy, of
from gpuscan.codegen.program import Launch
from gpuscan.errors import BuildError, DeviceError
from gpuscan.kernel_files import kernels_dir
from gpuscan.runtime import driver, nvrtc, pycuda
from gpuscan.runtime.cuda_routines import Elements, copying
from gpuscan.selftest import _MEETINGS

needs_nvrtc = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing())


# ---- cuda.h --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def header() -> str:
    for place in (*nvrtc.toolkits(), *nvrtc.wheel_folders()):
        if (file := Path(place) / "include" / "cuda.h").is_file():
            return file.read_text()
    pytest.skip("no cuda.h: set CUDA_PATH to a CUDA toolkit")


NUMBERS = {
    "CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK": driver._THREADS_BLOCK,
    "CU_DEVICE_ATTRIBUTE_WARP_SIZE": driver._WARP,
    "CU_DEVICE_ATTRIBUTE_CLOCK_RATE": driver._CLOCK,
    "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": driver._MULTIPROCESSORS,
    "CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE": driver._MEMORY_CLOCK,
    "CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH": driver._MEMORY_BITS,
    "CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE": driver._L2,
    "CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR": driver._THREADS,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": driver._MAJOR,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": driver._MINOR,
    "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": driver._SHARED,
    "CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR": driver._REGISTERS,
    "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": driver._SHARED_BLOCK,
    "CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR": driver._BLOCKS,
    "CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK": driver._SHARED_RESERVED,
    "CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES": driver._KERNEL_SHARED,
    "CU_FUNC_ATTRIBUTE_NUM_REGS": driver._KERNEL_REGISTERS,
    "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": driver._KERNEL_MOST_SHARED,
    "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": driver._THREAD_LOCAL,
    "CU_STREAM_CAPTURE_MODE_RELAXED": driver._RELAXED,
    "CUDA_ERROR_NO_DEVICE": driver._NO_DEVICE,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_headers(header: str, name: str) -> None:
    found = re.search(rf"\b{name}\s*=\s*(\d+)", header)
    assert found and int(found[1]) == NUMBERS[name]


def test_errors_behind_which_nothing_runs_are_the_headers(header: str) -> None:
    words = {int(n): name for name, n in re.findall(r"\b(CUDA_ERROR_\w+)\s*=\s*(\d+)", header)}
    for number, (name, _) in driver._WORDS.items():
        assert words[number] == f"CUDA_ERROR_{name}"


# What the driver says of each, as it does on a machine with a GPU.
SAID = {
    214: "uncorrectable ECC error encountered",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    709: "context is destroyed",
    714: "hardware stack error",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
    999: "unknown error",
}


@pytest.mark.parametrize("status", SAID)
def test_a_lost_gpu_is_known_by_the_drivers_words_or_its_number(status: int) -> None:
    said = driver.failed(RuntimeError(f"cuMemcpyDtoH failed: {SAID[status]}"), "work on the GPU")
    assert re.search(r"context is lost: start the program again. device='\w+' runs", str(said))
    numbered = RuntimeError("cudaErrorSomething: in other words")
    numbered.status = status  # type: ignore[attr-defined]  # as CuPy's errors have it
    assert "start the program again" in str(driver.failed(numbered, "work on the GPU"))
    named = RuntimeError(f"CUDA_ERROR_{driver._WORDS[status][0]}")
    assert "start the program again" in str(driver.failed(named, "work on the GPU"))


def test_a_gpu_that_is_not_lost_is_not_said_to_be() -> None:
    busy = "cuCtxCreate failed: CUDA-capable device(s) is/are busy or unavailable"
    words = str(driver.failed(RuntimeError(busy), "work on the GPU"))
    assert "Another process may have the GPU for itself" in words and "is lost" not in words
    words = str(driver.failed(RuntimeError("cuFuncSetAttribute failed: invalid argument"), "work"))
    assert words == "work failed: RuntimeError: cuFuncSetAttribute failed: invalid argument"


def test_memory_that_is_not_there_says_how_much_was_asked_for_and_what_takes_less() -> None:
    said = "Out of memory allocating 4,000 bytes (allocated so far: 512 bytes)."  # CuPy's
    words = str(driver.failed(RuntimeError(said), "allocating memory on the GPU"))
    assert "allocating 4,000 bytes" in words and "is lost" not in words
    assert "smaller batch, by scan(memory='carries')" in words
    assert "function(fuse='auto')" in words and "memory_report()" in words


def test_functions_are_called_by_the_names_that_the_library_has(header: str) -> None:
    """The header renames some: cuMemAlloc is cuMemAlloc_v2 in the library."""
    called = set(re.findall(r"\bcu[A-Z]\w+(?=\(|\.argtypes)", inspect.getsource(driver)))
    renamed = set(
        re.findall(r"#\s*define\s+(cu\w+)\s+(?:__CUDA_API_\w+\(cu\w+\)|cu\w+_v\d)", header)
    )
    assert len(called) > 12
    plain = dict(re.findall(r"#define (cu\w+)\s+(cu\w+)\n", header))  # declared by the first one
    declared = {**{new: old for old, new in plain.items()}, **{name: name for name in plain}}
    for name in called:
        assert re.search(rf"CUresult CUDAAPI {declared.get(name, name)}\(", header), name
    # under these names only with a stream of a thread's own, which we never ask for
    assert called & renamed <= {
        "cuLaunchKernel",
        "cuLaunchCooperativeKernel",
        "cuStreamSynchronize",
        "cuStreamEndCapture",
        "cuStreamWaitEvent",
        "cuEventRecord",
        "cuGraphLaunch",
    }


# ---- texts ---------------------------------------------------------------------------------------


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"])
def test_our_own_texts_compile_for_every_gpu_without_spills(architecture: str) -> None:
    texts = [_MEETINGS]
    for dtype in ("float32", "float64"):
        texts.append(pycuda._matmul(dtype, 1).source)
    gpu: Any = SimpleNamespace(limits=of("h100"))
    texts += [copying(gpu, item).kernel.text for item in (1, 2, 4, 8)]
    texts += [Elements(gpu, kind, add=True).kernel.text for kind in ("float", "double")]
    for text in texts:
        (found,) = nvrtc.compile(text, architecture).resources.values()
        assert (found.spill_stores, found.stack) == (0, 0)
        assert found.registers <= 128


def test_the_products_sizes_are_the_headers() -> None:
    text = (kernels_dir() / "matmul.h").read_text()
    found = {k: int(v) for k, v in re.findall(r"#define GS_MATMUL_(\w+) (\d+)", text)}
    assert found == {"TILE": pycuda._TILE, "DEPTH": 8, "THREADS": pycuda._THREADS}
    assert 2 * found["TILE"] * found["DEPTH"] == pycuda._SHARED


@needs_nvrtc
def test_a_gpu_that_nvrtc_does_not_know_runs_what_is_for_one_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvrtc, "architectures", lambda: ["sm_80", "sm_90", "sm_120"])
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 1))
    known = driver._known.__wrapped__
    assert [known(f"sm_{n}") for n in (80, 87, 89, 90, 121)] == [
        "sm_80", "sm_80", "sm_80", "sm_90", "sm_120",
    ]  # fmt: skip
    for other in ("sm_75", "sm_100", "sm_130"):
        with pytest.raises(BuildError, match=rf"NVRTC 13.1 does not compile for this GPU .{other}"):
            known(other)


def test_an_nvrtc_that_is_too_new_for_the_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUSCAN_STAND_IN_DRIVER", raising=False)
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 5))
    monkeypatch.setattr(driver, "version", lambda: (12, 4))
    monkeypatch.setattr(driver, "_words", lambda *_: "CUDA_ERROR_INVALID_IMAGE")
    assert driver._refused(None, 200, "loop_0") == (
        "the driver does not load kernel 'loop_0': CUDA_ERROR_INVALID_IMAGE. NVRTC 13.5 is newer "
        "than the driver (CUDA 12.4): update the driver, or pip install nvidia-cuda-nvrtc-cu12"
    )


# ---- what fits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", ["t4", "a100", "h100", "rtx4090"])
def test_a_grid_fits_up_to_what_runs_together_and_no_further(gpu: str) -> None:
    limits = of(gpu)
    kernel = driver.Loaded("k", 1, 128, 512, limits)

    def how(grid: int, **more: Any) -> Launch:
        given = {"block": 256, "shared": 30000, "cooperative": True, **more}
        return Launch("k", "", (), grid, given["block"], given["shared"], given["cooperative"],
                      "grid", "", 1)  # fmt: skip

    most = limits.multiprocessors * occupancy(limits, 256, 128, 30512)
    driver._check_fit(kernel, how(most))
    with pytest.raises(DeviceError, match=rf"its {most + 1} blocks .* {gpu} runs {most} "):
        driver._check_fit(kernel, how(most + 1))
    driver._check_fit(kernel, how(10 * most, cooperative=False))
    with pytest.raises(DeviceError, match="does not fit a multiprocessor"):
        driver._check_fit(kernel, how(1, block=1024))  # 128 registers each are too many
    with pytest.raises(DeviceError, match=rf"{limits.shared_block} bytes"):
        driver._check_fit(kernel, how(1, shared=limits.shared_block, cooperative=False))


@pytest.mark.parametrize(
    ("capability", "like"),
    [((7, 5), "t4"), ((8, 7), "rtx3090"), ((10, 3), "b200"), ((13, 0), "rtx5090")],
)
def test_what_a_gpu_does_not_say_is_as_for_one_that_is_described(
    capability: tuple[int, int], like: str
) -> None:
    assert driver._described(*capability).name == like

"""What is known of GPUs: against NVIDIA's tables, and its own arithmetic of occupancy."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gpuscan.codegen.limits import KIB, PRESETS, occupancy, of
from gpuscan.record import replace
from gpuscan.runtime import nvrtc

GPUS = [g for g in PRESETS.values() if g.name != "emulated"]

# CUDA C++ Programming Guide, Technical Specifications per Compute Capability: threads, blocks and
# shared KiB a multiprocessor, and the shared KiB a block may have
TABLE = {
    "sm_75": (1024, 16, 64, 64),
    "sm_80": (2048, 32, 164, 163),
    "sm_86": (1536, 16, 100, 99),
    "sm_89": (1536, 24, 100, 99),
    "sm_90": (2048, 32, 228, 227),
    "sm_100": (2048, 32, 228, 227),
    "sm_120": (1536, 24, 100, 99),
}
# The sheets' dense TFLOPS of 16-bit tensor products with float32 sums
TENSOR = {"t4": 65, "a100": 312, "rtx3090": 71, "rtx4090": 165.2, "h100": 989.4, "b200": 2250,
          "rtx5090": 209.5}  # fmt: skip
SINGLE = {"t4": 8.1, "a100": 19.5, "rtx3090": 35.6, "rtx4090": 82.6, "rtx5090": 104.8}


def test_every_architecture_has_a_gpu():
    assert {g.architecture for g in GPUS} == set(TABLE)
    assert all(PRESETS[name].name == name for name in PRESETS)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda g: g.name)
def test_presets_against_the_table(gpu):
    threads, blocks, shared, a_block = TABLE[gpu.architecture]
    assert gpu.threads_multiprocessor == threads
    assert gpu.blocks_multiprocessor == blocks
    assert gpu.shared_multiprocessor == shared * KIB
    assert gpu.shared_block == a_block * KIB
    assert (gpu.threads_block, gpu.warp) == (1024, 32)
    assert (gpu.registers_multiprocessor, gpu.registers_thread) == (65536, 255)


@pytest.mark.parametrize("name", TENSOR)
def test_speeds_against_the_sheets(name):
    gpu = of(name)
    rate = gpu.multiprocessors * gpu.clock / 1e12
    assert rate * gpu.tensor_clock == pytest.approx(TENSOR[name], rel=0.01)
    if name in SINGLE:
        assert rate * 2 * gpu.fma_clock == pytest.approx(SINGLE[name], rel=0.01)


def test_of():
    assert of("H100") is of("sm_90") is PRESETS["h100"]
    assert of("emulated").architecture == "sm_90"
    with pytest.raises(ValueError, match=r"no GPU 'sm_42'.*t4 \(sm_75\), a100 \(sm_80\)"):
        of("sm_42")


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared", "blocks"),
    [
        ("h100", 256, 255, 0, 1),
        ("h100", 256, 128, 0, 2),
        ("h100", 1024, 64, 0, 1),
        ("h100", 1024, 65, 0, 0),
        ("h100", 32, 16, 0, 32),  # blocks
        ("h100", 64, 32, 227 * KIB, 1),
        ("h100", 64, 32, 227 * KIB + 1, 0),
        ("h100", 64, 32, 113 * KIB, 2),
        ("h100", 64, 32, 113 * KIB + 1, 1),
        ("a100", 2048, 16, 0, 0),
        ("t4", 32, 0, 0, 16),
        ("t4", 64, 32, 64 * KIB, 1),
        ("emulated", 64, 255, 48 * KIB, 2),
        ("emulated", 64, 32, 0, 4),
        ("emulated", 65, 32, 0, 0),
        ("emulated", 64, 32, 48 * KIB + 1, 0),
    ],
)
def test_occupancy(gpu, threads, registers, shared, blocks):
    assert occupancy(of(gpu), threads, registers, shared) == blocks


def test_occupancy_of_no_thread():
    with pytest.raises(ValueError, match="at least one thread, not 0"):
        occupancy(of("h100"), 0, 32, 0)


def test_limits_are_values():
    half = replace(of("h100"), multiprocessors=66)
    assert half != of("h100") and hash(replace(half, multiprocessors=132)) == hash(of("h100"))


NVIDIA = r"""
#include <cstdio>
#include <climits>
#include <cstddef>
#include <cstring>
#include "cuda_occupancy.h"
int main() {
    cudaOccDeviceProp p;
    cudaOccFuncAttributes a;
    cudaOccDeviceState s;
    memset(&a, 0, sizeof a);
    int threads, registers, shared;
    long optin, most, reserved;
    while (scanf("%d %d %d %d %d %ld %ld %ld %d", &p.computeMajor, &p.computeMinor,
                 &p.maxThreadsPerBlock, &p.maxThreadsPerMultiprocessor, &p.regsPerMultiprocessor,
                 &optin, &most, &reserved, &p.numSms) == 9) {
        p.regsPerBlock = p.regsPerMultiprocessor;
        p.warpSize = 32;
        p.sharedMemPerBlock = 48 * 1024;
        p.sharedMemPerBlockOptin = optin;
        p.sharedMemPerMultiprocessor = most;
        p.reservedSharedMemPerBlock = reserved;
        if (scanf("%d %d %d", &threads, &registers, &shared) != 3) return 1;
        a.maxThreadsPerBlock = INT_MAX;
        a.numRegs = registers;
        a.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        a.maxDynamicSharedSizeBytes = shared;
        cudaOccResult r;
        if (cudaOccMaxActiveBlocksPerMultiprocessor(&r, &p, &a, &s, threads, shared)) return 2;
        printf("%d\n", r.activeBlocksPerMultiprocessor);
    }
}
"""


def test_occupancy_is_nvidias(tmp_path):
    includes = [p / "include" for p in (*nvrtc.wheel_folders(), *nvrtc.toolkits())]
    includes += [Path(p) for p in os.environ.get("CPATH", "").split(":") if p]
    found = [p for p in includes if (p / "cuda_occupancy.h").is_file()]
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if not found or not compiler:
        pytest.skip("needs a C++ compiler and cuda_occupancy.h (of a CUDA toolkit)")
    text, program = tmp_path / "occupancy.cpp", tmp_path / "occupancy"
    text.write_text(NVIDIA)
    subprocess.run([compiler, "-I", str(found[0]), str(text), "-o", str(program)], check=True)
    threads = (1, 31, 32, 33, 64, 96, 128, 160, 224, 256, 288, 384, 512, 576, 768, 992, 1024, 1025)
    registers = (8, 16, 17, 24, 32, 33, 40, 56, 64, 65, 80, 96, 128, 129, 168, 200, 232, 255)
    shared = (0, 1, 127, 1000, 4096, 15 * KIB, 16 * KIB, 31 * KIB, 48 * KIB, 49 * KIB,
              64 * KIB, 99 * KIB, 100 * KIB, 113 * KIB, 163 * KIB, 227 * KIB)  # fmt: skip
    cases, lines = [], []
    for gpu in GPUS:
        version = gpu.architecture.removeprefix("sm_")
        for t, r, s in itertools.product(threads, registers, shared):
            if s + gpu.shared_reserved > gpu.shared_multiprocessor:
                continue  # the header has no answer
            cases.append((gpu, t, r, s))
            lines.append(
                f"{version[:-1]} {version[-1]} 1024 {gpu.threads_multiprocessor} 65536 "
                f"{gpu.shared_block} {gpu.shared_multiprocessor} {gpu.shared_reserved} "
                f"{gpu.multiprocessors} {t} {r} {s}"
            )
    done = subprocess.run(
        [str(program)], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    theirs = [int(line) for line in done.stdout.split()]
    assert len(theirs) == len(cases)
    wrong = [
        (c[0].name, *c[1:], ours, theirs)
        for c, theirs in zip(cases, theirs)
        if (ours := occupancy(*c)) != theirs
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)} differ, as {wrong[0]}"

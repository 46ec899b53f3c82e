"""The meeting's lines of PTX against a twin on cuda::atomic_ref: the same instructions."""

import re

import pytest

from gpuscan.runtime import nvrtc, sass

TWIN = """
#include <cuda/atomic>
extern "C" __global__ void twin(unsigned long long *counter, unsigned long long share, int *out) {
    cuda::atomic_ref<unsigned long long, cuda::thread_scope_device> c(*counter);
    const unsigned long long epoch = c.load(cuda::memory_order_acquire) >> 32;
    c.fetch_add(share, cuda::memory_order_release);
    while (c.load(cuda::memory_order_acquire) >> 32 == epoch) {}
    *out = 1;
}
"""
OURS = """
#include "grid.h"
extern "C" __global__ void ours(unsigned long long *counter, unsigned long long share, int *out) {
    const unsigned long long epoch = gs_look(counter) >> 32;
    gs_arrive(counter, share);
    while (gs_look(counter) >> 32 == epoch) {}
    *out = 1;
}
"""
# Where a toolkit or the wheel nvidia-cuda-cccl has it.
STANDARD_LIBRARY = [
    f"-I{folder}"
    for root in [*nvrtc.toolkits(), *nvrtc.wheel_folders()]
    for folder in (root / "include" / "cccl", root / "cccl")
    if folder.is_dir()
]

# What orders memory: fences, atomics, strong loads, invalidations of the first cache.
_ORDERING = re.compile(r"\b(MEMBAR|ERRBAR|ATOMG?|REDG?|CCTL|LDG?)\b(\S*)")


def ordering(text, kernel):
    """The instructions that order memory, in their order, without what differs by address type, or
    by whether anybody takes what an addition gives back."""
    body = text.partition(f".text.{kernel}:")[2].partition("//-----")[0]
    found = []
    for word, modifiers in _ORDERING.findall(body):
        kind = {"ATOM": "REDG", "ATOMG": "REDG", "RED": "REDG", "LD": "LDG"}.get(word, word)
        if kind != "LDG" or "STRONG" in modifiers:
            found.append((kind, tuple(m for m in ("SC", "ALL", "GPU", "STRONG") if m in modifiers)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_120"])
def test_the_meeting_is_that_of_the_standard_library(architecture):
    if reason := nvrtc.missing():
        pytest.skip(reason)
    if sass.disassembler() is None:
        pytest.skip("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    try:
        twin = nvrtc.compile(TWIN, architecture, STANDARD_LIBRARY)
    except Exception as e:
        if "cuda/atomic" in str(e):
            pytest.skip("no CUDA C++ standard library: pip install nvidia-cuda-cccl")
        raise
    ours = nvrtc.compile(OURS, architecture)
    wanted = ordering(sass.disassemble(twin), "twin")
    found = ordering(sass.disassemble(ours), "ours")
    assert found == wanted
    assert ("MEMBAR" in dict(found)) and ("LDG" in dict(found))

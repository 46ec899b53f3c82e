"""What bounds the step of a loop that blocks share, each alone: how long all blocks take to wait
for each other, by several ways; how long to read what others wrote; and what lies between two nodes
of a CUDA graph. Times are the slope between two counts, in one launch.

Whoever waits looks a bounded number of times and says so in the memory's first word. What is
exchanged is added up and compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuscan.codegen.limits import Limits
from gpuscan.codegen.program import Launch
from gpuscan.selftest import meeting_seconds

COUNTS, TINY_COUNTS = (1_000, 11_000), (2, 6)
GRAPH = (250, 2_250)  # nodes
KIB = (4, 16, 48, 128)
CLUSTER = 8  # blocks; what every GPU that has clusters can do
THREADS = 256
LINE = 32  # words

# memory: word 0 says that somebody waited in vain; the rest is the kernel's own, from word LINE on.
_WAITING = """#include "grid.h"

#define LINE 32
#define MOST (1ll << 22) /* looks, a few seconds */

#if GS_DEVICE
GS_FN gs_u32 look(const gs_u32 *p) { return *(const volatile gs_u32 *)p; }
GS_FN gs_u64 look(const gs_u64 *p) {
    gs_u64 x;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(x) : "l"(p) : "memory");
    return x;
}
GS_FN void write(gs_u64 *p, gs_u64 x) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" : : "l"(p), "l"(x) : "memory");
}
GS_FN gs_u32 acquire(const gs_u32 *p) {
    gs_u32 x;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}
GS_FN void release(gs_u32 *p, gs_u32 x) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" : : "l"(p), "r"(x) : "memory");
}
GS_FN uint4 fresh(const uint4 *p) { return __ldcg(p); }
#else
GS_FN gs_u32 acquire(const gs_u32 *p) {
    const gs_u32 x = __atomic_load_n(p, __ATOMIC_ACQUIRE);
    emulated::yield();
    return x;
}
GS_FN gs_u32 look(const gs_u32 *p) { return acquire(p); }
GS_FN gs_u64 look(const gs_u64 *p) {
    const gs_u64 x = __atomic_load_n(p, __ATOMIC_RELAXED);
    emulated::yield();
    return x;
}
GS_FN void release(gs_u32 *p, gs_u32 x) {
    __atomic_store_n(p, x, __ATOMIC_RELEASE);
    emulated::progress();
}
GS_FN void write(gs_u64 *p, gs_u64 x) {
    __atomic_store_n(p, x, __ATOMIC_RELAXED);
    emulated::progress();
}
GS_FN uint4 fresh(const uint4 *p) { return *p; }
#endif

/* Looks again until there() holds; 1 where that was in vain. */
template <class There> GS_FN int waited(gs_u32 *failed, There there, long long most = MOST) {
    for (long long looks = 1; !there(); looks++) {
        if (looks % 1024) continue;
        if (look(failed)) return 1;
        if (looks >= most) {
            release(failed, 1);
            return 1;
        }
    }
    return 0;
}

/* By flags: all threads of all blocks, each thread looks at a block's. */
GS_FN int met(gs_u32 *failed, gs_u32 *flags, gs_u32 round) {
    __syncthreads();
    if (threadIdx.x == 0) release(flags + blockIdx.x, round);
    int vain = 0;
    for (unsigned b = threadIdx.x; b < gridDim.x && !vain; b += blockDim.x)
        vain = waited(failed, [=] { return (int)(acquire(flags + b) - round) >= 0; });
    return __syncthreads_or(vain);
}
"""

_GRID_SYNC = """#define _CG_LIMIT_INCLUDED_DEPENDENCIES /* no libcu++: NVRTC may not find it */
#include <cooperative_groups.h>

extern "C" __global__ void grid_sync(unsigned *memory, long long count) {
    const cooperative_groups::grid_group all = cooperative_groups::this_grid();
    for (long long i = 0; i < count; i++) all.sync();
}
"""

_COUNTER = """
extern "C" __global__ void counter(gs_u32 *memory, long long count) {
    gs_u32 *const arrived = memory + LINE;
    for (long long i = 0; i < count; i++) {
        const gs_u32 all = (gs_u32)(i + 1) * gridDim.x;
        int vain = 0;
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(arrived, 1u);
            vain = waited(memory, [=] { return (int)(look(arrived) - all) >= 0; });
            __threadfence();
        }
        if (__syncthreads_or(vain)) return;
    }
}
"""

_FLAGS = """
extern "C" __global__ void flags(gs_u32 *memory, long long count) {
    for (long long i = 0; i < count; i++)
        if (met(memory, memory + LINE, (gs_u32)i + 1)) return;
}
"""

# The value and the number of the round in one word of 64 bits, so that nothing is fenced.
_TAGS = """
extern "C" __global__ void tags(gs_u32 *memory, long long count) {
    gs_u64 *const slots = (gs_u64 *)(memory + LINE);
    gs_u32 *const sums = memory + LINE + 4 * gridDim.x;
    gs_u32 sum = 0;
    for (long long i = 0; i < count; i++) {
        gs_u64 *const now = slots + (i & 1) * gridDim.x;
        const gs_u32 round = (gs_u32)i + 1;
        if (threadIdx.x == 0)
            write(now + blockIdx.x, (gs_u64)round << 32 | (round * 3 + blockIdx.x));
        int vain = 0;
        for (unsigned b = threadIdx.x; b < gridDim.x && !vain; b += blockDim.x) {
            gs_u64 found = 0;
            vain = waited(memory, [&] {
                found = look(now + b);
                return found >> 32 == round;
            });
            sum += (gs_u32)found;
        }
        if (__syncthreads_or(vain)) return;
    }
    atomicAdd(sums + blockIdx.x, sum);
}
"""

# Each block writes its part of so many words, and reads all of them.
_EXCHANGE = """
extern "C" __global__ void exchange(gs_u32 *memory, long long count, long long words) {
    gs_u32 *const sums = memory + LINE + gridDim.x, *const buffers = memory + 32 * LINE;
    const int first = (int)(words * blockIdx.x / gridDim.x);
    const int last = (int)(words * (blockIdx.x + 1) / gridDim.x);
    gs_u32 sum = 0;
    for (long long i = 0; i < count; i++) {
        gs_u32 *const now = buffers + (i & 1) * words;
        const gs_u32 round = (gs_u32)i + 1;
        for (int k = first + threadIdx.x; k < last; k += blockDim.x) now[k] = round * 3 + k;
        if (met(memory, memory + LINE, round)) return;
        const uint4 *const all = (const uint4 *)now;
#pragma unroll 8
        for (int k = threadIdx.x; k < (int)words / 4; k += blockDim.x) {
            const uint4 x = fresh(all + k);
            sum += x.x + x.y + x.z + x.w;
        }
    }
    atomicAdd(sums + blockIdx.x, sum);
}
"""

_CLUSTERS = """
#define CLUSTER 8
GS_FN void arrive_and_wait() {
    asm volatile("barrier.cluster.arrive.release.aligned;" : : : "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" : : : "memory");
}
GS_FN gs_u32 in_shared(const void *p) { return (gs_u32)__cvta_generic_to_shared(p); }
GS_FN gs_u32 in_block(gs_u32 address, gs_u32 rank) {
    gs_u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
"""

_CLUSTER_BARRIER = """
extern "C" __global__ void __cluster_dims__(8, 1, 1) cluster_barrier(gs_u32 *memory, long long n) {
    for (long long i = 0; i < n; i++) arrive_and_wait();
}
"""

# Each block has a barrier in its shared memory, at which one thread of every block arrives.
_CLUSTER_MBARRIER = """
extern "C" __global__ void __cluster_dims__(8, 1, 1) cluster_mbarrier(gs_u32 *memory, long long n) {
    __shared__ gs_u64 barrier;
    const gs_u32 own = in_shared(&barrier);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                     :
                     : "r"(own), "r"(CLUSTER)
                     : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
    }
    arrive_and_wait();
    for (long long i = 0; i < n; i++) {
        if (threadIdx.x < CLUSTER)
            asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];"
                         :
                         : "r"(in_block(own, threadIdx.x))
                         : "memory");
        const gs_u32 parity = (gs_u32)i & 1;
        const int vain = waited(memory, [=] {
            gs_u32 done;
            asm volatile("{\\n.reg .pred p;\\n"
                         "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\\n"
                         "selp.u32 %0, 1, 0, p;\\n}"
                         : "=r"(done)
                         : "r"(own), "r"(parity)
                         : "memory");
            return done != 0;
        }, 1 << 14); /* each look waits for a while */
        if (__syncthreads_or(vain)) break;
    }
    arrive_and_wait(); /* nobody leaves while others write to its memory */
}
"""

_CLUSTER_EXCHANGE = """
extern "C" __global__ void __cluster_dims__(8, 1, 1)
cluster_exchange(gs_u32 *memory, long long n, long long words) {
    GS_SHARED(bytes);
    gs_u32 *const buffers = (gs_u32 *)bytes;
    gs_u32 *const sums = memory + LINE + gridDim.x;
    const int part = (int)words / CLUSTER;
    const gs_u32 rank = blockIdx.x % CLUSTER;
    gs_u32 sum = 0;
    for (long long i = 0; i < n; i++) {
        gs_u32 *const now = buffers + (i & 1) * part;
        const gs_u32 round = (gs_u32)i + 1;
        for (int k = threadIdx.x; k < part; k += blockDim.x) now[k] = round * 3 + rank * part + k;
        arrive_and_wait();
        for (gs_u32 b = 0; b < CLUSTER; b++) { /* not all begin with the same block */
            const gs_u32 from = in_block(in_shared(now), (rank + b) % CLUSTER);
#pragma unroll 4
            for (int k = threadIdx.x; k < part / 4; k += blockDim.x) {
                gs_u32 x, y, z, w;
                asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(x), "=r"(y), "=r"(z), "=r"(w)
                             : "r"(from + 16 * k)
                             : "memory");
                sum += x + y + z + w;
            }
        }
    }
    arrive_and_wait(); /* nobody leaves while others read its memory */
    atomicAdd(sums + blockIdx.x, sum);
}
"""

_NOTHING = """
extern "C" __global__ void nothing(gs_u32 *memory, long long count) {}
"""

SOURCES = {
    "grid_sync": _GRID_SYNC,
    "counter": _WAITING + _COUNTER,
    "flags": _WAITING + _FLAGS,
    "tags": _WAITING + _TAGS,
    "exchange": _WAITING + _EXCHANGE,
    "cluster_barrier": _WAITING + _CLUSTERS + _CLUSTER_BARRIER,
    "cluster_mbarrier": _WAITING + _CLUSTERS + _CLUSTER_MBARRIER,
    "cluster_exchange": _WAITING + _CLUSTERS + _CLUSTER_EXCHANGE,
    "nothing": _WAITING + _NOTHING,
}


@dataclass(frozen=True)
class Micro:
    """name: what --case matches. kernel: of SOURCES, or nothing for gpuscan's own meeting. kib:
    what is exchanged."""

    name: str
    text: str
    kernel: str
    counts: tuple[int, int]
    kib: int = 0


@dataclass
class Found:
    """Seconds of one meeting, exchange or node, or why there are none; of a call, the samples."""

    name: str
    text: str
    blocks: int = 0
    samples: dict[int, list[float]] = field(default_factory=dict)
    seconds: float | None = None
    problem: str | None = None


def chosen(tiny: bool = False) -> list[Micro]:
    """All of them, or what an emulated GPU can do, with few rounds."""
    counts, graph = (TINY_COUNTS, TINY_COUNTS) if tiny else (COUNTS, GRAPH)
    found = [
        Micro("micro-gpuscan", "a meeting by gpuscan's own counter", "", counts),
        Micro("micro-grid-sync", "by cooperative groups' grid.sync()", "grid_sync", counts),
        Micro("micro-counter", "by a counter, with fences", "counter", counts),
        Micro("micro-flags", "by a flag of each block", "flags", counts),
        Micro("micro-tags", "by values with the round's number in them", "tags", counts),
        Micro("micro-cluster-barrier", f"in clusters of {CLUSTER}, by their barrier",
              "cluster_barrier", counts),
        Micro("micro-cluster-mbarrier", f"in clusters of {CLUSTER}, by an mbarrier of each block",
              "cluster_mbarrier", counts),
    ]  # fmt: skip
    for kib in KIB:
        text = f"all read {kib} KiB through L2, and meet by flags"
        found.append(Micro(f"micro-exchange-{kib}", text, "exchange", counts, kib))
    for kib in KIB:
        text = f"clusters of {CLUSTER} read {kib} KiB of each other's shared memory, and meet"
        found.append(Micro(f"micro-cluster-{kib}", text, "cluster_exchange", counts, kib))
    found.append(Micro("micro-graph", "a node of a CUDA graph, an empty kernel", "nothing", graph))
    if tiny:
        left = ("", "counter", "flags", "tags", "exchange", "nothing")
        return [m for m in found if m.kernel in left and m.kib in (0, KIB[0])]
    return found


def launch_of(micro: Micro, gpu: Limits, count: int) -> Launch:
    clusters = micro.kernel.startswith("cluster")
    blocks = gpu.multiprocessors // CLUSTER * CLUSTER if clusters else gpu.multiprocessors
    shared = 2 * 1024 * micro.kib // CLUSTER if clusters else 0
    alone = micro.kernel == "nothing"
    return Launch(
        micro.kernel, SOURCES[micro.kernel], (), 1 if alone else blocks,
        min(THREADS, gpu.threads_block), shared, not clusters and not alone, "grid", "to time it",
        count,
    )  # fmt: skip


def measure(micro: Micro, device: Any, repeat: int, clock: Callable[[], float]) -> Found:
    """What one of them takes: the slope of the medians of so many samples."""
    found = Found(micro.name, micro.text)
    try:
        with device.active():
            if not micro.kernel:
                found.seconds, found.blocks = meeting_seconds(device, max(micro.counts))
                return found
            for n, seconds in _samples(micro, device, repeat, clock, found):
                found.samples.setdefault(n, []).append(seconds)
    except Exception as e:
        found.problem = f"{type(e).__name__}: {e}".splitlines()[0]
        return found
    few, many = micro.counts
    slope = statistics.median(found.samples[many]) - statistics.median(found.samples[few])
    if slope > 0:
        found.seconds = slope / (many - few)
    else:
        found.problem = "more rounds took no longer"
    return found


def _samples(
    micro: Micro, device: Any, repeat: int, clock: Callable[[], float], found: Found
) -> Iterator[tuple[int, float]]:
    gpu = device.limits
    if micro.kernel.startswith("cluster") and int(gpu.architecture.removeprefix("sm_")) < 90:
        raise RuntimeError(f"{gpu.architecture} has no clusters")
    how = launch_of(micro, gpu, max(micro.counts))
    found.blocks = how.grid
    kernel = device.build(how.source, how.name)
    words = 256 * micro.kib

    def run(n: int, memory: Any) -> None:
        given = [device.address(memory), n, *([words] if words else [])]
        device.launch(kernel, how, given)

    size = 32 * LINE + 4 * how.grid + 2 * words
    if micro.kernel == "nothing":
        yield from _graphs(micro, device, repeat, clock, run)
        return
    for turn in range(repeat + 1):
        for n in micro.counts:
            memory = device.array(np.zeros(size, "uint32"))
            before = clock()
            run(n, memory)
            seconds = clock() - before
            check(micro, np.asarray(device.host(memory)), how.grid, n)
            if turn:  # the first is there to load what is loaded late
                yield n, seconds


def _graphs(
    micro: Micro, device: Any, repeat: int, clock: Callable[[], float],
    run: Callable[[int, Any], None],
) -> Iterator[tuple[int, float]]:  # fmt: skip
    memory = device.array(np.zeros(LINE, "uint32"))
    run(0, memory)
    graphs = {}
    for n in micro.counts:
        with device.capture() as graphs[n]:
            for _ in range(n):
                run(0, memory)
    for turn in range(repeat + 1):
        for n, graph in graphs.items():
            before = clock()
            device.replay(graph)
            seconds = clock() - before
            if turn:
                yield n, seconds


def check(micro: Micro, memory: np.ndarray, blocks: int, count: int) -> None:
    """Raises RuntimeError where blocks waited in vain or read something else than was written."""
    if memory[0]:
        raise RuntimeError("blocks waited for each other in vain")
    rounds = 3 * (count * (count + 1) // 2)
    if micro.kernel == "tags":
        width, first = blocks, LINE + 4 * blocks
    elif micro.kib:
        width, first = 256 * micro.kib, LINE + blocks
    else:
        return
    wanted = (rounds * width + count * (width * (width - 1) // 2)) % 2**32
    if (memory[first : first + blocks] != wanted).any():
        raise RuntimeError("blocks read something else than was written")

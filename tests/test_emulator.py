"""CUDA texts on fibers: right ones run as they would on a device, planted defects are found."""

import threading

import numpy as np
import pytest

from gpuscan.errors import BuildError, DeviceError
from gpuscan.runtime import compiler, emulator
from gpuscan.runtime.emulated import rounded

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())

SCHEDULES = (0, 1, 2, -1, -3)


def place(x):
    return x.ctypes.data if isinstance(x, np.ndarray) else x


def run(kernel, grid, block, *args, shared=0, **how):
    emulator.launch(kernel, grid, block, shared, [place(x) for x in args], **how)


def aligned(x):
    """A copy on 64 bytes."""
    memory = np.zeros(x.nbytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    copy = memory[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


# ---- a persistent loop, and what is easily wrong in it ----------------------------------------

ELMAN = """
#include "device.h"
#ifdef UNFENCED
#define FENCE()
#else
#define FENCE() __threadfence()
#endif
constexpr int UNITS = 64, BATCH = 4, OWN = 16, SLICES = 4, DEPTH = UNITS / SLICES;

/* h' = tanh(x + h U). A block owns 16 units; four threads share the depth of one. */
extern "C" __global__ void __launch_bounds__(64)
elman(const float *x, const float *u, float *h, unsigned *counter, long long steps) {
    GS_SHARED(shared);
    float *part = (float *)shared;
    const int unit = threadIdx.x % OWN, slice = threadIdx.x / OWN;
    const int column = blockIdx.x * OWN + unit;
    float weights[DEPTH];
    for (int k = 0; k < DEPTH; k++) weights[k] = u[(slice * DEPTH + k) * UNITS + column];
    for (int t = 0; t < steps; t++) {
        for (int b = 0; b < BATCH; b++) {
            const float *before = h + ((t - 1) * BATCH + b) * UNITS + slice * DEPTH;
            float sum = 0;
            for (int k = 0; k < DEPTH; k++)
                if (t) sum += __ldcg(before + k) * weights[k]; // reads h
            part[(slice * OWN + unit) * BATCH + b] = sum;
        }
#ifndef NO_BLOCK_MEETING
        __syncthreads();
#endif
        float sum = x[(t * BATCH + slice) * UNITS + column];
        for (int s = 0; s < SLICES; s++)
            sum += part[(s * OWN + unit) * BATCH + slice]; // reads part
        h[(t * BATCH + slice) * UNITS + column] = tanhf(sum); // writes h
#ifdef DIVERGENT
        if (threadIdx.x < 32)
#endif
        __syncthreads(); // behind the step
#ifdef BY_COUNTER
#ifdef RELAXED
        const auto publish = cuda::memory_order_relaxed, see = cuda::memory_order_relaxed;
#else
        const auto publish = cuda::memory_order_release, see = cuda::memory_order_acquire;
#endif
        if (threadIdx.x == 0) {
            cuda::atomic_ref<unsigned, cuda::thread_scope_device> arrived(*counter);
            arrived.fetch_add(1, publish);
            while (arrived.load(see) < (t + 1) * gridDim.x) {} // spins BY_COUNTER
        }
        __syncthreads();
#elif defined(BY_FENCES)
        if (threadIdx.x == 0) {
            FENCE();
            atomicAdd(counter, 1u);
            while (atomicAdd(counter, 0u) < (t + 1) * gridDim.x) {} // spins BY_FENCES
            FENCE();
        }
        __syncthreads();
#elif !defined(NO_GRID_MEETING)
        cooperative_groups::this_grid().sync(); // the grid
#endif
    }
#ifdef BEYOND_SHARED
    h[0] = part[SLICES * OWN * BATCH + 9]; // behind shared memory
#elif defined(BEYOND_ARRAY)
    if (threadIdx.x == 0 && blockIdx.x == 3) h[steps * BATCH * UNITS] = 1; // behind the array
#elif defined(MISALIGNED)
    if (((const float4 *)(x + 1))->x == 12345) h[0] = 1; // misaligned
#endif
}
"""
ELMAN_SHARED = 4 * 16 * 4 * 4


def elman(words):
    return "".join(f"#define {w}\n" for w in words.split()) + ELMAN


def line(text, comment):
    return 1 + next(i for i, x in enumerate(text.splitlines()) if f"// {comment}" in x)


def elman_operands(steps):
    rng = np.random.default_rng(3)
    x = (rng.random((steps, 4, 64)) - 0.5).astype("float32")
    u = ((rng.random((64, 64)) - 0.5) * 0.3).astype("float32")
    return x, u, np.full_like(x, np.nan), np.zeros(1, np.uint32), steps


def elman_result(x, u):
    h, trace = np.zeros(x.shape[1:]), []
    for row in x:
        h = np.tanh(row + h @ u.astype(float))
        trace.append(h)
    return np.array(trace)


def run_elman(words, schedule, steps=12, cooperative=True):
    kernel = emulator.build(elman(words), ["elman"])["elman"]
    x, u, h, counter, _ = operands = elman_operands(steps)
    run(kernel, 4, 64, *operands, shared=ELMAN_SHARED, cooperative=cooperative, schedule=schedule)
    return h, elman_result(x, u)


@pytest.mark.parametrize("words", ["", "BY_COUNTER", "BY_FENCES", "BY_COUNTER RELAXED"])
def test_a_persistent_loop_is_right_in_every_schedule(words):
    first, expected = run_elman(words, 0)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    for schedule in SCHEDULES[1:]:
        np.testing.assert_array_equal(run_elman(words, schedule)[0], first)


@pytest.mark.parametrize("words", ["NO_BLOCK_MEETING", "NO_GRID_MEETING"])
def test_without_a_meeting_numbers_are_wrong(words):
    for schedule in SCHEDULES:
        h, expected = run_elman(words, schedule)
        assert not np.allclose(h, expected, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_meeting_that_not_all_reach_is_reported(schedule):
    text = elman("DIVERGENT")
    with pytest.raises(DeviceError) as caught:
        run_elman("DIVERGENT", schedule)
    words = str(caught.value)
    assert words.startswith("kernel 'elman': no thread can go on")
    assert (
        f"128 threads of 4 blocks in __syncthreads at kernel.cu:{line(text, 'behind the step')}, "
        "first thread (0, 0, 0) of block (0, 0, 0)"
    ) in words
    assert (
        f"128 threads of 4 blocks in the grid's meeting at kernel.cu:{line(text, 'the grid')}, "
        "first thread (32, 0, 0) of block (0, 0, 0)"
    ) in words


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("words", ["", "BY_COUNTER", "BY_FENCES"])
def test_the_grid_meets_in_a_cooperative_launch_only(words, schedule):
    with pytest.raises(DeviceError) as caught:
        run_elman(words, schedule, cooperative=False)
    if words:
        where = line(elman(words), f"spins {words}")
        expected = f"1 thread of 1 block waiting at kernel.cu:{where} for what nobody writes"
    else:
        where = line(ELMAN, "the grid")
        expected = f"meets the grid at kernel.cu:{where}, but the launch is not cooperative"
    assert expected in str(caught.value)


@pytest.fixture(scope="module")
def sanitizers():
    text = '#include "emulated.h"\nextern "C" __global__ void idle(long long n) {}'
    for sanitizer in ("thread", "address"):
        try:
            emulator.run_sanitized(text, "idle", 1, 32, 0, [1], sanitizer)
        except BuildError as e:
            pytest.skip(f"{emulator.find()} has no {sanitizer} sanitizer: {str(e).splitlines()[0]}")


def sanitized_elman(words, sanitizer):
    operands = elman_operands(5)
    arrays, report = emulator.run_sanitized(
        elman(words), "elman", 4, 64, ELMAN_SHARED, operands, sanitizer, True, 1
    )
    return arrays[2], elman_result(*operands[:2]), report


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
@pytest.mark.parametrize("words", ["", "BY_COUNTER", "BY_FENCES"])
def test_sanitizers_are_silent_where_all_is_right(sanitizers, words, sanitizer):
    h, expected, report = sanitized_elman(words, sanitizer)
    assert report == ""
    np.testing.assert_allclose(h, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "where"),
    [("NO_BLOCK_MEETING", "reads part"), ("NO_GRID_MEETING", "writes h"),
     ("BY_COUNTER RELAXED", "writes h"), ("BY_FENCES UNFENCED", "writes h")],
)  # fmt: skip
def test_races_are_found_at_their_lines(sanitizers, words, where):
    report = sanitized_elman(words, "thread")[2]
    assert "data race" in report
    assert f"kernel.cu:{line(elman(words), where)}" in report
    assert "of block (" in report  # whose threads they are


@pytest.mark.parametrize(
    ("words", "where", "found"),
    [("BEYOND_SHARED", "behind shared memory", "heap-buffer-overflow"),
     ("BEYOND_ARRAY", "behind the array", "heap-buffer-overflow"),
     ("MISALIGNED", "misaligned", "misaligned address")],
)  # fmt: skip
def test_what_lies_outside_is_found_at_its_line(sanitizers, words, where, found):
    report = sanitized_elman(words, "address")[2]
    assert found in report
    assert f"kernel.cu:{line(elman(words), where)}" in report


def test_a_race_between_blocks_that_run_one_after_another(sanitizers):
    text = """#include "device.h"
    extern "C" __global__ void last(float *x) {
        x[0] = blockIdx.x; // races
    }"""
    report = emulator.run_sanitized(text, "last", 3, 1, 0, [np.zeros(1, "f")], "thread")[1]
    assert "data race" in report and f"kernel.cu:{line(text, 'races')}" in report
    with pytest.raises(DeviceError, match="kernel 'last': .* 1024"):
        emulator.run_sanitized(text, "last", 1, 2000, 0, [np.zeros(1, "f")], "thread")


def test_a_sanitized_launch_reports_what_a_plain_one_does(sanitizers):
    with pytest.raises(DeviceError, match="kernel 'elman': no thread can go on: 128 threads"):
        sanitized_elman("DIVERGENT", "thread")


# ---- the words of CUDA, one by one -------------------------------------------------------------

WORDS = """
#include "device.h"
typedef long long Integer;

extern "C" __global__ void coordinates(unsigned *out) {
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned size = blockDim.x * blockDim.y * blockDim.z, lane = __shfl_sync(~0u, thread, 3);
    uint4 *const at = (uint4 *)out + (block * size + thread);
    *at = make_uint4(blockIdx.z * 100 + blockIdx.y * 10 + blockIdx.x,
                     threadIdx.z * 100 + threadIdx.y * 10 + threadIdx.x, lane, warpSize);
}

extern "C" __global__ void shuffles(double *out) {
    const int t = threadIdx.x;
    const float x = t + 0.5f;
    const unsigned half = t % 32 < 16 ? 0xffffu : 0xffff0000u; /* two groups at a time */
    double *const o = out + t * 8;
    o[0] = __shfl_sync(~0u, x, 5);
    o[1] = __shfl_sync(~0u, (double)t, t + 3, 8);
    o[2] = __shfl_xor_sync(~0u, (Integer)t << 40, 17);
    o[3] = __shfl_down_sync(~0u, x, 3);
    o[4] = __shfl_up_sync(~0u, x, 3, 16);
    o[5] = __shfl_xor_sync(half, x, t % 32 < 16 ? 1 : 2);
    if (t % 2) o[6] = __shfl_down_sync(0xaaaaaaaau, t, 2);
    else o[6] = -__shfl_up_sync(0x55555555u, t, 2);
    float sum = x;
    for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    o[7] = sum;
}

extern "C" __global__ void votes(Integer *out) {
    const int t = threadIdx.x;
    Integer *const o = out + t * 8;
    o[0] = __ballot_sync(~0u, t % 3 == 0);
    o[1] = __any_sync(~0u, t == 40);
    o[2] = __all_sync(~0u, t < 32);
    o[3] = __syncthreads_count(t % 5 == 0);
    o[4] = __syncthreads_or(t == 95);
    o[5] = __syncthreads_and(t != 95);
    o[6] = __syncthreads_or(0) + 2 * __syncthreads_and(7);
    o[7] = __activemask() >> (t % 32) & 1;
}

extern "C" __global__ void returns(Integer *out, Integer alive) {
    GS_SHARED(shared);
    int *x = (int *)shared;
    const int t = threadIdx.x;
    if (t >= alive) return;
    x[t] = t;
    __syncthreads();
    const int next = x[(t + 1) % alive];
    __syncwarp();
    out[t] = next + 1000 * __syncthreads_count(1) + 100000 * __popc(__ballot_sync(~0u, 1));
}

extern "C" __global__ void atomics(int *i, unsigned *u, unsigned long long *w, Integer *s, float *f,
                                   double *d) {
    const int t = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(i, t);
    atomicMin(i + 1, 7 - t);
    atomicMax(i + 2, t);
    atomicSub(i + 3, 1);
    atomicAdd(u, 3u);
    atomicOr(u + 1, 1u << t % 32);
    atomicMax(u + 2, (unsigned)t);
    atomicAnd(u + 3, ~(1u << t % 32));
    atomicAdd(w, 1ull << 33);
    atomicXor(w + 1, 1ull << t % 64);
    atomicMin(s, -(Integer)t << 35);
    atomicMax(s + 1, (Integer)t << 35);
    atomicAdd(f, 0.5f);
    if (atomicExch(f + 1, 1.0f) == 0.0f) atomicAdd(i + 4, 1); /* one finds what was there */
    atomicAdd(d, (double)t);
    if (atomicCAS(i + 5, 0, t + 1) == 0) atomicAdd(i + 6, 1);
}

extern "C" __global__ void locked(int *lock, int *count) {
    while (atomicCAS(lock, 0, 1) != 0) {}
    __threadfence();
    const int before = __ldcg(count);
    for (int i = 0; i < 3; i++) __nanosleep(10);
    __stcg(count, before + 1);
    __threadfence();
    atomicExch(lock, 0);
}

extern "C" __global__ void unwritten(float *out) {
    GS_SHARED(shared);
    float *const x = (float *)shared;
    out[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = 1;
}

extern "C" __global__ void behind(Integer at) {
    GS_SHARED(shared);
    shared[at] = 1;
}

extern "C" __global__ void two_lines(Integer which) {
    if (threadIdx.x < 32)
        __syncthreads(); // one
    else
        __syncthreads(); // other
}

extern "C" __global__ void lanes(Integer which, Integer *out) {
    if (which == 0) __shfl_sync(0xfu, 1, 0); // not in the mask
    if (which == 1 && threadIdx.x < 16) out[0] = __shfl_sync(0xffffu, 1, 20); // not there
    if (which == 2 && threadIdx.x) out[0] = __ballot_sync(~0u, 1); // the others
    if (which == 2) __syncthreads(); // and one
    if (which == 3) __trap(); // trapped
    if (which == 4)
        for (int i = 0; i < 10000; i++) atomicMax((int *)out, -1); // nobody waits
}
"""
NAMES = "coordinates shuffles votes returns atomics locked unwritten behind two_lines lanes".split()


@pytest.fixture(scope="module")
def words():
    return emulator.build(WORDS, NAMES)


def test_threads_and_blocks_have_three_coordinates(words):
    grid, block = (2, 3, 2), (4, 2, 6)
    out = np.zeros((12, 48, 4), np.uint32)
    run(words["coordinates"], grid, block, out)
    z, y, x = np.unravel_index(np.arange(12), grid[::-1])
    np.testing.assert_array_equal(out[:, 0, 0], z * 100 + y * 10 + x)
    z, y, x = np.unravel_index(np.arange(48), block[::-1])
    np.testing.assert_array_equal(out[5, :, 1], z * 100 + y * 10 + x)
    np.testing.assert_array_equal(out[7, :, 2], np.arange(48) // 32 * 32 + 3)
    assert (out[..., 3] == 32).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_shuffles(words, schedule):
    t = np.arange(64)
    lane, first = t % 32, t // 32 * 32
    out = np.zeros((64, 8))
    run(words["shuffles"], 1, 64, out, schedule=schedule)
    odd = np.where(lane + 2 < 32, t + 2, t)
    even = -np.where(lane >= 2, t - 2, t)
    expected = [
        first + 5.5,
        t // 8 * 8 + (t + 3) % 8,
        (first + (lane ^ 17)) * 2.0**40,
        np.where(lane + 3 < 32, t + 3, t) + 0.5,
        np.where(t % 16 >= 3, t - 3, t) + 0.5,
        first + (lane ^ np.where(lane < 16, 1, 2)) + 0.5,
        np.where(t % 2, odd, even),
        np.where(t < 32, 512, 1536),
    ]
    for i, column in enumerate(expected):
        np.testing.assert_array_equal(out[:, i], column, str(i))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_votes(words, schedule):
    t = np.arange(96)
    out = np.zeros((96, 8), np.int64)
    run(words["votes"], 1, 96, out, schedule=schedule)
    ballots = [sum(1 << i for i in range(32) if (32 * w + i) % 3 == 0) for w in range(3)]
    np.testing.assert_array_equal(out[:, 0], np.repeat(ballots, 32))
    np.testing.assert_array_equal(out[:, 1], t // 32 == 1)
    np.testing.assert_array_equal(out[:, 2], t < 32)
    np.testing.assert_array_equal(out[:, 3:], [[20, 1, 0, 2, 1]] * 96)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("alive", [1, 32, 40, 96])
def test_threads_that_have_returned_are_not_waited_for(words, alive, schedule):
    t = np.arange(alive)
    out = np.zeros(alive, np.int64)
    run(words["returns"], 2, 96, out, alive, shared=96 * 4, schedule=schedule)
    in_warp = np.minimum(32, alive - t // 32 * 32)
    np.testing.assert_array_equal(out, (t + 1) % alive + 1000 * alive + 100000 * in_warp)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_atomics(words, schedule):
    i, u = np.zeros(7, np.int32), np.zeros(4, np.uint32)
    u[3] = 2**32 - 1
    w, s = np.zeros(2, np.uint64), np.zeros(2, np.int64)
    f, d = np.zeros(2, "f"), np.zeros(1)
    run(words["atomics"], 4, 64, i, u, w, s, f, d, schedule=schedule)
    assert i[[0, 1, 2, 3, 4, 6]].tolist() == [255 * 128, -248, 255, -256, 1, 1] and i[5] > 0
    assert u.tolist() == [768, 2**32 - 1, 255, 0]
    assert w.tolist() == [256 << 33, 0]
    assert s.tolist() == [-255 << 35, 255 << 35]
    assert f.tolist() == [128, 1] and d[0] == 255 * 128


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_lock_is_waited_for(words, schedule):
    lock, count = np.zeros(1, np.int32), np.zeros(1, np.int32)
    run(words["locked"], 3, 40, lock, count, cooperative=True, schedule=schedule)
    assert count[0] == 120
    lock[0] = 1
    with pytest.raises(DeviceError, match="waiting at kernel.cu:.* for what nobody writes"):
        run(words["locked"], 3, 40, lock, count, schedule=schedule)


def test_shared_memory_is_nan_until_it_is_written(words):
    out = np.zeros(32, "f")
    run(words["unwritten"], 3, 32, out, shared=128)  # nor is it an earlier block's
    assert np.isnan(out).all()


def test_a_write_behind_shared_memory_is_reported(words):
    run(words["behind"], 1, 1, 99, shared=100)
    with pytest.raises(DeviceError, match=r"kernel 'behind': block \(0, 0, 0\) writes behind its"):
        run(words["behind"], 1, 1, 100, shared=100)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_block_meets_at_one_line(words, schedule):
    one, other = line(WORDS, "one"), line(WORDS, "other")
    with pytest.raises(DeviceError, match="kernel 'two_lines': .* at different lines") as caught:
        run(words["two_lines"], 1, 64, 0, schedule=schedule)
    assert f"__syncthreads at kernel.cu:{one}" in str(caught.value)
    assert f"__syncthreads at kernel.cu:{other}" in str(caught.value)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (0, r"thread \(4, 0, 0\) of block \(0, 0, 0\) calls __shfl_sync at kernel.cu:{} with a m"),
        (1, r"reads in __shfl_sync at kernel.cu:{} from lane 20, which takes no part"),
        (2, r"31 threads of 1 block in __ballot_sync at kernel.cu:{}, first thread \(1, 0, 0\)"),
        (3, r"thread \(0, 0, 0\) of block \(0, 0, 0\): __trap at kernel.cu:{}"),
    ],
)
def test_what_lanes_must_not_do(words, which, message):
    where = line(WORDS, ["not in the mask", "not there", "the others", "trapped"][which])
    with pytest.raises(DeviceError, match=message.format(where)):
        run(words["lanes"], 1, 32, which, np.zeros(1, np.int64))


def test_a_loop_of_atomics_that_change_nothing_is_no_spin(words):
    run(words["lanes"], 1, 32, 4, np.zeros(1, np.int64))


def test_launches_that_a_device_would_refuse(words):
    kernel, out = words["unwritten"], np.zeros(32, "f")
    for grid, block in [(0, 32), (1, 0), ((1, 2, 3, 4), 32), (1, (32, 33)), (1, (8, 8, 32))]:
        with pytest.raises(DeviceError, match="kernel 'unwritten'"):
            run(kernel, grid, block, out, shared=128)
    with pytest.raises(DeviceError, match="takes 1 arguments, 2 are given"):
        run(kernel, 1, 32, out, 3, shared=128)
    with pytest.raises(DeviceError, match="threads alive together"):
        run(kernel, 100, 1024, out, shared=4096, cooperative=True)
    run(kernel, 1, 32, out, shared=128)  # and after all of that


# ---- matrices and floats of 16 bits ------------------------------------------------------------

MATRICES = """
#include "emulated_wmma.h"
using namespace nvcuda::wmma;

template <int M, int N, int K, class T, class A, class B, class S>
__device__ void product(const S *a, const S *b, const float *c, float *d, int of_a, int of_b) {
    const int w = threadIdx.x / 32;
    fragment<matrix_a, M, N, K, T, A> fa;
    fragment<matrix_b, M, N, K, T, B> fb;
    fragment<accumulator, M, N, K, float> fc, sum;
    load_matrix_sync(fa, a + w * M * K, of_a);
    load_matrix_sync(fb, b, of_b);
    load_matrix_sync(fc, c, N, mem_row_major);
    fill_fragment(sum, 0.0f);
    mma_sync(sum, fa, fb, sum);
    for (int i = 0; i < sum.num_elements; i++) sum.x[i] = 2 * sum.x[i] + fc.x[i];
    store_matrix_sync(d + w * M * N, sum, M, mem_col_major);
}

#define PRODUCT(name, M, N, K, T, S, A, B, of_a, of_b)                                  \\
    extern "C" __global__ void name(const S *a, const S *b, const float *c, float *d) { \\
        product<M, N, K, T, A, B>(a, b, c, d, of_a, of_b);                              \\
    }
PRODUCT(halves, 16, 16, 16, __half, __half, row_major, col_major, 16, 16)
PRODUCT(tall, 32, 8, 16, __nv_bfloat16, __nv_bfloat16, col_major, row_major, 32, 8)
PRODUCT(wide, 8, 32, 16, __nv_bfloat16, __nv_bfloat16, row_major, row_major, 16, 32)
PRODUCT(singles, 16, 16, 8, precision::tf32, float, row_major, row_major, 8, 16)

extern "C" __global__ void narrow(const float *x, __half *h, __nv_bfloat16 *b, float *t,
                                  long long n) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
        h[i] = __float2half(x[i]);
        b[i] = __float2bfloat16(x[i]);
        t[i] = __float_to_tf32(x[i]);
    }
}
extern "C" __global__ void widen(const __half *h, const __nv_bfloat16 *b, float *x, float *y) {
    for (int i = threadIdx.x; i < 65536; i += blockDim.x) {
        x[i] = __half2float(h[i]);
        y[i] = __bfloat162float(b[i]);
    }
}
"""


@pytest.fixture(scope="module")
def matrices():
    return emulator.build(MATRICES, "halves tall wide singles narrow widen".split())


def to_bfloat16(x):
    return (rounded(x, "bf16").view(np.uint32) >> 16).astype(np.uint16)


def from_bfloat16(h):
    return (h.astype(np.uint32) << 16).view("f")


@pytest.mark.parametrize(
    ("name", "m", "n", "k", "columns_a", "columns_b"),
    [("halves", 16, 16, 16, False, True), ("tall", 32, 8, 16, True, False),
     ("wide", 8, 32, 16, False, False), ("singles", 16, 16, 8, False, False)],
)  # fmt: skip
def test_products_of_a_warp(matrices, name, m, n, k, columns_a, columns_b):
    rng = np.random.default_rng(5)
    a, b, c = (rng.standard_normal(s).astype("f") for s in [(2, m, k), (k, n), (m, n)])
    if name == "halves":
        stored = [x.astype(np.float16) for x in (a, b)]
        values = [x.astype(float) for x in stored]
    elif name == "singles":
        stored = [a, b]
        values = [(x.view(np.uint32) & 0xFFFFE000).view("f").astype(float) for x in (a, b)]
    else:
        stored = [to_bfloat16(x) for x in (a, b)]
        values = [from_bfloat16(x).astype(float) for x in stored]
    given = [
        aligned(np.ascontiguousarray(np.swapaxes(x, -1, -2) if columns else x))
        for x, columns in zip(stored, (columns_a, columns_b))
    ]
    d = aligned(np.zeros((2, n, m), "f"))
    for schedule in SCHEDULES:
        d[...] = np.nan
        run(matrices[name], 1, 64, *given, aligned(c), d, schedule=schedule)
        expected = 2 * values[0] @ values[1] + c
        np.testing.assert_allclose(np.swapaxes(d, 1, 2), expected, atol=1e-5)


def test_matrices_have_to_be_aligned_and_warps_whole(matrices):
    operands = [aligned(np.zeros(1024, "f")) for _ in range(4)]
    shifted = [operands[0][1:], *operands[1:]]
    with pytest.raises(DeviceError, match="not on 32 bytes at kernel.cu"):
        run(matrices["singles"], 1, 32, *shifted)
    with pytest.raises(DeviceError, match="needs the 32 lanes of a warp"):
        run(matrices["singles"], 1, 48, *operands)


def test_floats_of_16_bits_round_to_nearest_even(matrices):
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 2**32, 50000, dtype=np.uint32)
    halves = np.arange(65536, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        exact = halves.view(np.float16).astype("f")
    # what any bits mean, every half, and what lies in the middle of two or close to it
    middle = exact.view(np.uint32) + 0x1000
    x = np.concatenate([bits, exact.view(np.uint32), middle, middle + 1, middle - 1]).view("f")
    x = np.concatenate([x, np.float32([65519.996, 65520, -65520, 2.9802322e-8, 2.9802325e-8])])
    h, b, t = np.zeros(x.size, np.uint16), np.zeros(x.size, np.uint16), np.zeros(x.size, "f")
    run(matrices["narrow"], 1, 32, x, h, b, t, x.size)
    number = ~np.isnan(x)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(h[number], x[number].astype(np.float16).view(np.uint16))
        assert (np.isnan(t) == ~number).all() and (h[~number] == 0x7FFF).all()
        np.testing.assert_array_equal(b[number], to_bfloat16(x[number]))
        finite = np.isfinite(x) & (abs(x) < 1e38) & (abs(x) > 1e-37)
        assert (abs(t - x)[finite] <= abs(x[finite]) * 2.0**-11).all()
        no_tie = number & (x.view(np.uint32) & 0x1FFF != 0x1000)
        np.testing.assert_array_equal(t[no_tie], rounded(x, "tf32")[no_tie])
    assert not (t[finite].view(np.uint32) & 0x1FFF).any()

    wide, wider = np.zeros(65536, "f"), np.zeros(65536, "f")
    run(matrices["widen"], 1, 32, halves, halves, wide, wider)
    np.testing.assert_array_equal(wide.view(np.uint32), exact.view(np.uint32))
    np.testing.assert_array_equal(wider.view(np.uint32), halves.astype(np.uint32) << 16)


# ---- building, and the machine itself ----------------------------------------------------------


@pytest.mark.skipif(compiler.find() is None, reason="no C compiler")
def test_values_have_the_bits_of_the_native_device():
    body = "y[i] = gs_tanh_f32(x[i]) * gs_exp_f32(-x[i]) + gs_log_f32(x[i] * x[i] + 1.1f) / x[i];"
    loop = "for (long long i = 0; i < n; i++)"
    native = compiler.library(
        f'#include "scalars.h"\nvoid f(const float *x, float *y, long long n) {{ {loop} {body} }}'
    )
    text = (
        '#include "device.h"\n#include "scalars.h"\nextern "C" __global__ void '
        f"f(const float *x, float *y, long long n) {{ {loop} {body} }}"
    )
    x = np.random.default_rng(9).standard_normal(4001).astype("f")
    y, z = np.zeros_like(x), np.zeros_like(x)
    run(emulator.build(text, ["f"])["f"], 1, 1, x, y, x.size)
    call = native.f
    call.argtypes = [emulator.ctypes.c_void_p] * 2 + [emulator.ctypes.c_longlong]
    call(x.ctypes.data, z.ctypes.data, x.size)
    np.testing.assert_array_equal(y.view(np.uint32), z.view(np.uint32))


def test_a_refused_text_is_shown_with_its_numbers():
    text = '#include "emulated.h"\n\nextern "C" __global__ void wrong(float *x) { *x = nothing; }'
    with pytest.raises(BuildError) as caught:
        emulator.build(text, ["wrong"])
    assert "kernel.cu:3:" in str(caught.value) and "nothing" in str(caught.value).splitlines()[0]
    assert "\n   3 extern" in str(caught.value)
    with pytest.raises(BuildError, match="8 bytes|pointers and long longs"):
        emulator.build('#include "emulated.h"\nextern "C" __global__ void k(int n) {}', ["k"])


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    emulator.find.cache_clear()
    try:
        assert "no C++ compiler" in emulator.missing()
        monkeypatch.setattr(emulator, "_identity", lambda: "")
        with pytest.raises(DeviceError, match="no C\\+\\+ compiler"):
            emulator.build("int x;", [])
    finally:
        monkeypatch.undo()
        emulator.find.cache_clear()
    assert emulator.missing() == ""


def test_two_threads_launch_at_once(words):
    found = []

    def work(alive):
        t = np.arange(alive)
        for schedule in range(30):
            out = np.zeros(alive, np.int64)
            run(words["returns"], 3, 96, out, alive, shared=96 * 4, schedule=schedule)
            in_warp = np.minimum(32, alive - t // 32 * 32)
            found.append((out == (t + 1) % alive + 1000 * alive + 100000 * in_warp).all())

    workers = [threading.Thread(target=work, args=(n,)) for n in (40, 96)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 60 and all(found)


def test_thousands_of_threads_are_alive_together():
    text = """#include "grid.h"
    extern "C" __global__ void together(int *count, long long *meeting, int *seen) {
        atomicAdd(count, 1);
        if (!gs_meet(meeting) && __ldcg(count) == gridDim.x * blockDim.x) atomicAdd(seen, 1);
    }"""
    kernel = emulator.build(text, ["together"])["together"]
    for schedule in (0, -2):
        count, meeting, seen = np.zeros(1, "i4"), np.zeros(48, "i8"), np.zeros(1, "i4")
        run(kernel, 8, 1024, count, meeting, seen, cooperative=True, schedule=schedule)
        assert seen[0] == 8192


def test_where_no_switch_is_written_by_hand(monkeypatch):
    """The contexts of the C library, as on machines other than x86-64 and aarch64."""
    expected = run_elman("BY_COUNTER", 0)[0]
    monkeypatch.setattr(emulator, "_RUNTIME", (*emulator._RUNTIME, "-DEMULATED_UCONTEXT"))
    emulator._runtime.cache_clear()
    try:
        np.testing.assert_array_equal(run_elman("BY_COUNTER", 3)[0], expected)
        with pytest.raises(DeviceError, match="no thread can go on"):
            run_elman("DIVERGENT", 0)
    finally:
        monkeypatch.undo()
        emulator._runtime.cache_clear()

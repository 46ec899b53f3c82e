"""What all threads of a CUDA block do together, emulated, against NumPy; and that NVRTC has
registers for it."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscan import philox
from gpuscan.codegen import weights
from gpuscan.errors import BuildError
from gpuscan.runtime import emulator, nvrtc

REALS = {"f32": (np.float32, "float"), "f64": (np.float64, "double")}
TYPES = {**REALS, "i32": (np.int32, "int"), "i64": (np.int64, "long long"),
         "u8": (np.uint8, "unsigned char")}  # fmt: skip
ROWS, WIDE, DEPTH = (1, 2, 3, 9, 17), (1, 7, 33, 64, 100), (1, 5, 64, 129)
BLOCKS = (32, 64, 256)
PRECISIONS = ("fp16", "bf16", "tf32")
ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]

emulated = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())
compiled = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing())

HEAD = "".join(
    f'#include "{header}.h"\n'
    for header in ("device", "block_draws", "block_products", "folds", "grid", "held")
)
KERNEL = 'extern "C" __global__ void __launch_bounds__(512, 1) '

# the panel lies in shared memory where there is room, else in the device's
PRODUCT = """
{name}_{t}(long long rows, long long wide, long long depth, const {type} *a, long long row,
            long long column, const {type} *b, long long down, long long right, {type} *panel,
            {type} *c, long long stride) {{
    GS_SHARED(shared);
    {type} *const place = panel ? panel : ({type} *)shared;
    gs_pack_{t}(depth, wide, b, down, right, place);
    __syncthreads();
    {gemm}_{t}(rows, wide, depth, a, row, column, place, c, stride);
}}
"""

STEPS = """
steps_{t}(long long steps, long long apart, long long rows, long long wide, long long depth,
          const {type} *a, const {type} *b, {type} *panel, {type} *c) {{
    gs_pack_{t}(depth, wide, b, wide, 1, panel);
    __syncthreads();
    gs_gemm_steps_{t}(steps, apart, rows, wide, depth, a, depth, 1, panel, c, wide);
}}
"""

UNIFORMS = """
uniforms_{t}(const unsigned long long *state, long long row, long long first, long long count,
             {type} *out) {{
    gs_uniforms_{t}(state, row, first, count, out);
}}
"""

FOLDS = ("sum", "prod", "max", "min", "any", "all")


def folding(t, kind):
    lines = [f"fold_{t}(const {kind} *x, {kind} *warps, {kind} *blocks) {{"]
    lines += ["    GS_SHARED(shared);", f"    {kind} *const partial = ({kind} *)shared;"]
    for k, name in enumerate(FOLDS):
        place = f"[{k} * blockDim.x + threadIdx.x]"
        lines.append(f"    warps{place} = gs_warp_{name}_{t}(x[threadIdx.x]);")
        lines.append(f"    blocks{place} = gs_block_{name}_{t}(x[threadIdx.x], partial);")
    return "\n".join([*lines, "}", ""])


# Every block looks whether the others have written what they write before a meeting.
MEETING = """
meet(long long *meeting, long long *seen, long long steps, long long missing, long long *wrong,
     long long *left) {
    for (long long t = 0; t < steps; t++) {
        if (threadIdx.x == blockDim.x - 1) seen[t * gridDim.x + blockIdx.x] = t + 1;
        if (t + 1 == steps && blockIdx.x == missing) return;
        if (gs_meet(meeting)) {
            left[blockIdx.x * blockDim.x + threadIdx.x] = 1;
            return;
        }
        for (unsigned b = 0; b < gridDim.x; b++)
            if (seen[t * gridDim.x + b] != t + 1) wrong[blockIdx.x * blockDim.x + threadIdx.x]++;
    }
}
"""

# dtype, depth, width of a part, threads, parts, rows of a tile, what is done
HELD = [
    ("f32", 64, 8, 32, 1, 4, "multiply"), ("f32", 129, 33, 64, 1, 2, "multiply"),
    ("f32", 5, 1, 256, 1, 4, "add"), ("f32", 100, 20, 128, 1, 1, "multiply"),
    ("f32", 320, 96, 256, 1, 8, "multiply"), ("f32", 36, 24, 64, 1, 4, "add"),
    ("f64", 64, 32, 64, 1, 2, "multiply"), ("f64", 33, 7, 256, 1, 4, "add"),
    ("f32", 64, 8, 256, 4, 4, "multiply"), ("f32", 33, 9, 128, 3, 2, "add"),
    ("f32", 129, 1, 64, 5, 4, "multiply"), ("f32", 100, 33, 128, 2, 4, "multiply"),
    ("f64", 5, 6, 32, 2, 1, "add"), ("f64", 130, 3, 128, 7, 4, "multiply"),
    ("f32", 320, 96, 256, 1, 8, "multiply_far"), ("f32", 64, 8, 256, 4, 4, "multiply_far"),
    ("f32", 36, 24, 32, 1, 2, "multiply_far"), ("f64", 130, 3, 128, 7, 4, "multiply_far"),
]  # fmt: skip

# precision, depth, width of a part, threads, parts, what is done
WMMA = [
    ("fp16", 64, 16, 64, 1, "multiply"), ("bf16", 100, 33, 128, 1, "add"),
    ("tf32", 36, 24, 64, 1, "multiply"), ("bf16", 5, 1, 32, 1, "multiply"),
    ("tf32", 129, 70, 128, 1, "multiply"), ("fp16", 129, 40, 256, 1, "add"),
    ("bf16", 64, 8, 256, 4, "multiply"), ("fp16", 33, 9, 128, 3, "add"),
    ("tf32", 100, 5, 64, 7, "multiply"), ("tf32", 33, 24, 128, 4, "add"),
]  # fmt: skip

HOLDING = """extern "C" __global__ void __launch_bounds__({threads}, 1) {name}(
    long long times, long long rows, const {kind} *a, long long row, long long column,
    const {kind} *b, long long apart, long long down, long long right, const long long *columns,
    {kind} *c, long long stride) {{
    GS_SHARED(shared);
    {kind} *const partial = ({kind} *)shared;
    {type} weight;
    weight.clear();
    {loads}
    for (long long t = 0; t < times; t++) {{ /* each its own rows */
        {kind} *const d = c + t * rows * stride;
        __syncthreads();
        weight.{verb}(rows, a + t * rows * row, row, column, stride, partial, {results});
        __syncthreads();
    }}
}}
"""


def holding_as(name, kind, type_, threads, parts, verb):
    """Parts of b, and of c, follow each other; the last is loaded first."""
    loads = [
        f"weight.load({p}, b + {p} * apart, down, right, columns[{p}], partial);"
        for p in reversed(range(parts))
    ]
    results = ", ".join(f"d + {p} * times * rows * stride" for p in range(parts))
    return HOLDING.format(name=name, kind=kind, type=type_, threads=threads, verb=verb,
                          loads="\n    ".join(loads), results=results)  # fmt: skip


def held_type(t, depth, wide, threads, parts, rows, staged):
    sizes = f"{depth}, {wide}, {threads}, {parts}, {rows}"
    return f"gs_held<{REALS[t][1]}, {sizes}, {str(staged).lower()}>"


def wmma_type(precision, depth, wide, threads, parts):
    return f"gs_held_wmma<gs_{precision}, {depth}, {wide}, {threads}, {parts}>"


def holding(name, t, depth, wide, threads, parts=1, rows=4, verb="multiply"):
    kind = held_type(t, depth, wide, threads, parts, rows, verb == "multiply_far")
    return holding_as(name, REALS[t][1], kind, threads, parts, verb)


def holding_wmma(name, precision, depth, wide, threads, parts=1, verb="multiply"):
    kind = wmma_type(precision, depth, wide, threads, parts)
    return holding_as(name, "float", kind, threads, parts, verb)


# what codegen/weights.py has a twin of
LAYOUT = """extern "C" __global__ void {name}(long long rows, long long *found) {{
    typedef {type} Held;
    if (threadIdx.x) return;
    found[0] = Held::ACROSS;
    found[1] = Held::ALONG;
    found[2] = Held::OWN;
    found[3] = sizeof(Held::weight) / 4;
    found[4] = Held::partial_elements(rows) * sizeof({kind});
}}
"""


GEMMS = {"product": "gs_gemm", "onto": "gs_gemm_onto"}


def product(name, t):
    return PRODUCT.format(name=name, gemm=GEMMS[name], t=t, type=REALS[t][1])


def blocks_source():
    parts = [HEAD]
    for t, (_, kind) in TYPES.items():
        parts.append(KERNEL + folding(t, kind))
    for t, (_, kind) in REALS.items():
        parts += [KERNEL + p.format(t=t, type=kind) for p in (STEPS, UNIFORMS)]
        parts += [KERNEL + product(name, t) for name in GEMMS]
    return "".join([*parts, KERNEL, MEETING])


def held_source():
    return HEAD + "".join(holding(f"held{i}", *case) for i, case in enumerate(HELD))


@pytest.fixture(scope="module")
def kernels():
    found = ["meet", *(f"fold_{t}" for t in TYPES)]
    found += [f"{name}_{t}" for name in (*GEMMS, "steps", "uniforms") for t in REALS]
    return emulator.build(blocks_source(), found)


def wmma_source():
    kernels = (holding_wmma(f"wmma{i}", *case) for i, case in enumerate(WMMA))
    return HEAD + '#include "held_wmma.h"\n' + "".join(kernels)


@pytest.fixture(scope="module")
def wmma():
    return emulator.build(wmma_source(), [f"wmma{i}" for i in range(len(WMMA))])


@pytest.fixture(scope="module")
def held():
    return emulator.build(held_source(), [f"held{i}" for i in range(len(HELD))])


def address(x):
    return x.ctypes.data


def small(rng, *shape, dtype):
    """Whole numbers, so that every order of a sum gives the same."""
    return rng.integers(-8, 9, shape).astype(dtype)


def strided(x, extra, transposed):
    """x with NaN between its rows, or between its columns: (memory, row, column)."""
    rows, columns = x.shape
    if transposed:
        memory = np.full((columns, rows + extra), np.nan, x.dtype)
        memory[:, :rows] = x.T
        return memory, 1, rows + extra
    memory = np.full((rows, columns + extra), np.nan, x.dtype)
    memory[:, :columns] = x
    return memory, columns + extra, 1


@emulated
@pytest.mark.parametrize("t", REALS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", GEMMS)
def test_products(kernels, t, block, name):
    dtype = REALS[t][0]
    rng = np.random.default_rng(3)
    case = 0
    for rows in ROWS:
        for wide in WIDE:
            for depth in DEPTH:
                case += 1
                x, w = small(rng, rows, depth, dtype=dtype), small(rng, depth, wide, dtype=dtype)
                a, row, column = strided(x, (0, 3, -depth % 4)[case % 3], case % 4 == 3)
                b, down, right = strided(w, case % 2, case % 3 == 1)
                panel = np.full(depth * wide + 1, np.nan, dtype)
                c = np.full((rows, wide + 2), 77, dtype)
                there = 77 if name == "onto" else 0
                emulator.launch(
                    kernels[f"{name}_{t}"], 1, block, 0 if case % 2 else depth * wide * 8,
                    [rows, wide, depth, address(a), row, column, address(b), down, right,
                     address(panel) if case % 2 else 0, address(c), wide + 2],
                    schedule=case % 5,
                )  # fmt: skip
                assert np.array_equal(c[:, :wide], there + x @ w), (rows, wide, depth)
                assert (c[:, wide:] == 77).all()
                assert np.isnan(panel[-1])  # no more than depth * wide


@emulated
@pytest.mark.parametrize("t", REALS)
def test_product_of_part_of_a_panel(kernels, t):
    """A worker's columns lie where its own panel would, at any offset."""
    dtype, rng = REALS[t][0], np.random.default_rng(5)
    x, w = small(rng, 3, 5, dtype=dtype), small(rng, 5, 9, dtype=dtype)
    panel, c = np.full(5 * 9, np.nan, dtype), np.full((3, 9), 77, dtype)
    for first, end in [(0, 3), (3, 4), (4, 9)]:
        item = w.itemsize
        emulator.launch(
            kernels[f"product_{t}"], 1, 64, 0,
            [3, end - first, 5, address(x), 5, 1, address(w) + first * item, 9, 1,
             address(panel) + first * 5 * item, address(c) + first * item, 9],
        )  # fmt: skip
    assert np.array_equal(c, x @ w)


@emulated
@pytest.mark.parametrize("t", REALS)
def test_products_do_not_depend_on_the_schedule(kernels, t):
    dtype = REALS[t][0]
    rng = np.random.default_rng(4)
    for rows, wide, depth in [(1, 8, 129), (3, 33, 64), (17, 7, 100)]:
        x, w = (rng.standard_normal(s).astype(dtype) for s in ((rows, depth), (depth, wide)))
        found = []
        for schedule in (0, 1, 2):
            panel, c = np.empty(depth * wide, dtype), np.empty((rows, wide), dtype)
            emulator.launch(
                kernels[f"product_{t}"], 1, 256, 0,
                [rows, wide, depth, address(x), depth, 1, address(w), wide, 1, address(panel),
                 address(c), wide], schedule=schedule,
            )  # fmt: skip
            found.append(c)
        assert all(np.array_equal(c, found[0]) for c in found)
        tolerance = 1e-5 if t == "f32" else 1e-13
        assert np.allclose(found[0], x @ w, rtol=tolerance, atol=10 * tolerance)


@emulated
@pytest.mark.parametrize("t", REALS)
@pytest.mark.parametrize("rows", [1, 3])
def test_products_of_several_steps(kernels, t, rows):
    dtype = REALS[t][0]
    rng = np.random.default_rng(6)
    steps, wide, depth = 5, 10, 12
    for apart in (rows * depth, rows * depth + 7, -rows * depth):
        memory = small(rng, steps * abs(apart), dtype=dtype)
        start = 0 if apart > 0 else (1 - steps) * apart
        x = np.stack([memory[start + s * apart :][: rows * depth].reshape(rows, depth)
                      for s in range(steps)])  # fmt: skip
        w = small(rng, depth, wide, dtype=dtype)
        panel, c = np.empty(depth * wide, dtype), np.empty((steps, rows, wide), dtype)
        emulator.launch(
            kernels[f"steps_{t}"], 1, 64, 0,
            [steps, apart, rows, wide, depth, address(memory[start:]), address(w),
             address(panel), address(c)],
        )  # fmt: skip
        assert np.array_equal(c, x @ w)


@emulated
@pytest.mark.parametrize("t", REALS)
def test_products_of_what_is_flipped(kernels, t):
    dtype = REALS[t][0]
    rng = np.random.default_rng(7)
    for rows, wide, depth in [(1, 9, 8), (3, 9, 8), (9, 5, 64)]:
        x, w = small(rng, rows, depth, dtype=dtype), small(rng, depth, wide, dtype=dtype)
        for flip_rows, flip_depth in [(1, 0), (0, 1), (1, 1)]:
            a = np.flip(x, [axis for axis, f in enumerate((flip_rows, flip_depth)) if f])
            b = w[::-1, ::-1]
            panel, c = np.empty(depth * wide, dtype), np.empty((rows, wide), dtype)
            strides = [s // a.itemsize for s in (*a.strides, *b.strides)]
            emulator.launch(
                kernels[f"product_{t}"], 1, 64, 0,
                [rows, wide, depth, address(a), *strides[:2], address(b), *strides[2:],
                 address(panel), address(c), wide],
            )  # fmt: skip
            assert np.array_equal(c, a @ b)


@emulated
@pytest.mark.parametrize("block", BLOCKS)
def test_uniforms(kernels, block):
    key0, key1, draw = 0x12345678, 0x9ABCDEF0, 2**40 + 3
    for begin in (0, 1, 2, 3, 6, 2**34 - 5):
        rows, row = begin // 3, 2  # are before this part of the draw
        first = begin - rows * row
        state = np.array([key0 | key1 << 32, draw, rows], np.uint64)
        for count in (0, 1, 2, 3, 5, 1000):
            u, v = np.full(count + 1, 7, np.float32), np.full(count + 1, 7, np.float64)
            for kernel, out in (("uniforms_f32", u), ("uniforms_f64", v)):
                emulator.launch(
                    kernels[kernel],
                    1,
                    block,
                    0,
                    [address(state), row, first, count, address(out)],
                )
            words = philox.words(key0, key1, draw, count, 0, begin)
            pairs = philox.words(key0, key1, draw, 2 * count, 0, 2 * begin)
            assert np.array_equal(u[:-1], philox.uniform32(words))
            assert np.array_equal(v[:-1], philox.uniform64(pairs))
            assert u[-1] == v[-1] == 7


@emulated
@pytest.mark.parametrize("t", TYPES)
@pytest.mark.parametrize("block", BLOCKS)
def test_folds(kernels, t, block):
    dtype = TYPES[t][0]
    rng = np.random.default_rng(9)
    wanted = dict(sum=np.sum, prod=np.prod, max=np.max, min=np.min, any=np.any, all=np.all)
    for x in (rng.integers(1, 3, block), rng.integers(0, 2, block), rng.integers(-9, 9, block)):
        x = x.astype(dtype)
        if t == "f32":
            x[x > 1] = 1  # a product that it can hold
        warps, blocks = np.empty((len(FOLDS), block), dtype), np.empty((len(FOLDS), block), dtype)
        emulator.launch(
            kernels[f"fold_{t}"], 1, block, 64 * 8, [address(x), address(warps), address(blocks)]
        )
        for k, name in enumerate(FOLDS):
            fold = wanted[name]
            given = {"dtype": dtype} if name in ("sum", "prod") else {}
            with np.errstate(over="ignore"):
                of_warps = fold(x.reshape(-1, 32), axis=1, **given).astype(dtype)
                of_block = dtype(fold(x, **given))
            assert np.array_equal(warps[k], np.repeat(of_warps, 32)), name
            assert (blocks[k] == of_block).all(), name


@emulated
def test_folds_are_the_same_in_every_lane(kernels):
    """Also of what is equal and has other bits; and no warp runs into the next fold's."""
    x = np.where(np.arange(256) % 3, 0.0, -0.0).astype(np.float32)
    for schedule in (-1, -2, 1, 2, 3):
        warps, blocks = np.empty((len(FOLDS), 256), np.float32), np.empty((len(FOLDS), 256), "f")
        emulator.launch(
            kernels["fold_f32"], 1, 256, 64 * 8, [address(x), address(warps), address(blocks)],
            schedule=schedule,
        )  # fmt: skip
        assert all(len(set(row)) == 1 for row in blocks.view(np.int32))
        assert all(len(set(row[:32])) == 1 for row in warps.view(np.int32))


@emulated
def test_folds_of_nan(kernels):
    for place in (0, 40, 63):
        x = np.arange(64, dtype=np.float32)
        x[place] = np.nan
        warps, blocks = np.empty((len(FOLDS), 64), np.float32), np.empty((len(FOLDS), 64), "f")
        emulator.launch(
            kernels["fold_f32"], 1, 64, 64 * 8, [address(x), address(warps), address(blocks)]
        )
        for k in (2, 3):
            assert np.isnan(blocks[k]).all()
            assert np.isnan(warps[k]).sum() == 32


# ---- meetings ---------------------------------------------------------------------------------


def meeting_of(grid, launches, steps, kernels, meeting, schedule=0, missing=-1):
    """Launches in a row: how many wrong values were seen, and how many threads left."""
    wrong, left = np.zeros(grid * 64, np.int64), np.zeros(grid * 64, np.int64)
    for _ in range(launches):
        seen = np.zeros((steps, grid), np.int64)
        emulator.launch(
            kernels["meet"], grid, 64, 0,
            [address(meeting), address(seen), steps, missing, address(wrong), address(left)],
            cooperative=True, schedule=schedule,
        )  # fmt: skip
    return wrong.sum(), left.sum()


@emulated
@pytest.mark.parametrize("schedule", [0, 1, 2, 3, -1, -2, -5])
def test_meetings(kernels, schedule):
    meeting = np.zeros(48, np.int64)
    assert meeting_of(5, 3, 4, kernels, meeting, schedule) == (0, 0)
    assert meeting[0] == 12 << 32  # and nothing has to be set back
    assert meeting_of(2, 2, 3, kernels, meeting, schedule) == (0, 0)
    assert meeting_of(1, 1, 3, kernels, meeting, schedule) == (0, 0)
    assert meeting[0] == 18 << 32
    assert not meeting[1:].any()


@emulated
def test_meetings_wrap_around(kernels):
    meeting = np.zeros(48, np.int64)
    meeting[0] = -1 << 32
    assert meeting_of(3, 1, 2, kernels, meeting) == (0, 0)
    assert meeting[0] == 1 << 32


@emulated
def test_a_block_that_is_missing_is_given_up(kernels):
    meeting = np.zeros(48, np.int64)
    meeting[32] = 64
    wrong, left = meeting_of(3, 1, 2, kernels, meeting, missing=1)
    assert (wrong, left) == (0, 128)
    assert meeting[16] == 1
    # and so is all that follows, until the host writes zeros
    wrong, left = meeting_of(3, 1, 2, kernels, meeting)
    assert left == 192
    meeting[:] = 0
    assert meeting_of(3, 1, 2, kernels, meeting) == (0, 0)


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("plain", ["", "#define GS_MEETING_PLAIN\n"])
def test_meetings_under_thread_sanitizer(plain):
    grid, steps = 3, 3
    arrays = [np.zeros(48, np.int64), np.zeros((steps, grid), np.int64)]
    counts = [np.zeros(grid * 64, np.int64), np.zeros(grid * 64, np.int64)]
    (meeting, _, wrong, _), report = emulator.run_sanitized(
        plain + HEAD + KERNEL + MEETING, "meet", grid, 64, 0, [*arrays, steps, -1, *counts],
        "thread", cooperative=True, schedule=1,
    )  # fmt: skip
    assert not report
    assert not wrong.any()
    assert meeting[0] == steps << 32


# ---- products that are held in registers -----------------------------------------------------


def check_held(kernel, dtype, depth, wide, threads, parts, verb):
    """Products with as many rows as there are cases, and with parts that are not whole."""
    rng = np.random.default_rng(depth)
    times = 2
    for case, rows in enumerate(ROWS):
        for less in {0, min(3, wide - 1)}:
            columns = np.array([max(0, wide - less - p) for p in range(parts)])
            x = small(rng, times * rows, depth, dtype=dtype)
            w = small(rng, parts, depth, wide, dtype=dtype)
            for p, n in enumerate(columns):
                w[p, :, n:] = np.nan
            a, row, column = strided(x, (0, -depth % 4, 1)[case % 3], False)
            b, down, right = zip(*(strided(part, case % 2, case % 2 == 1) for part in w))
            b = np.stack(b)
            if case == 3:  # every other column of a
                a, row, column = np.repeat(a, 2, axis=1), 2 * row, 2
            c = small(rng, parts, times * rows, wide + 1, dtype=dtype)
            before = c.copy()
            emulator.launch(
                kernel, 1, threads, max(1 << 17, 32 * rows * parts * wide * 8 * 2),
                [times, rows, address(a), row, column, address(b), b[0].size, down[0], right[0],
                 address(columns), address(c), wide + 1], schedule=(0, 1, 2, 3, -1)[case],
            )  # fmt: skip
            for p, n in enumerate(columns):
                wanted = x @ w[p, :, :n] + (before[p, :, :n] if verb == "add" else 0)
                assert np.array_equal(c[p, :, :n], wanted), (rows, p, n)
                assert np.array_equal(c[p, :, n:], before[p, :, n:])


@emulated
@pytest.mark.parametrize("i", range(len(HELD)))
def test_held_products(held, i):
    t, depth, wide, threads, parts, _, verb = HELD[i]
    check_held(held[f"held{i}"], REALS[t][0], depth, wide, threads, parts, verb)


@emulated
def test_held_products_do_not_depend_on_the_schedule_or_the_rows(held):
    t, depth, wide, threads, *_ = HELD[4]
    dtype = REALS[t][0]
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s).astype(dtype) for s in ((17, depth), (depth, wide)))
    columns = np.array([wide])
    found = []
    for schedule, rows in ((0, 17), (1, 17), (2, 3)):
        c = np.empty((rows, wide), dtype)
        emulator.launch(
            held["held4"], 1, threads, 1 << 17,
            [1, rows, address(x), depth, 1, address(w), 0, wide, 1, address(columns), address(c),
             wide], schedule=schedule,
        )  # fmt: skip
        found.append(c)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0][:3], found[2])
    assert np.allclose(found[0], x @ w, rtol=1e-5, atol=1e-4)


@emulated
@pytest.mark.parametrize("i", range(len(WMMA)))
def test_held_products_of_tensor_cores(wmma, i):
    _, depth, wide, threads, parts, verb = WMMA[i]
    check_held(wmma[f"wmma{i}"], np.float32, depth, wide, threads, parts, verb)


@emulated
@pytest.mark.parametrize("i", range(len(WMMA)))
def test_factors_for_tensor_cores_are_rounded(wmma, i):
    precision, depth, wide, threads, parts, _ = WMMA[i]
    rng = np.random.default_rng(i)
    shapes = (5, depth), (parts, depth, wide)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    columns, c = np.full(parts, wide), np.zeros((parts, 5, wide), np.float32)
    emulator.launch(
        wmma[f"wmma{i}"], 1, threads, 1 << 17,
        [1, 5, address(x), depth, 1, address(w), depth * wide, wide, 1, address(columns),
         address(c), wide],
    )  # fmt: skip
    bits = {"fp16": 11, "bf16": 8, "tf32": 11}[precision]

    def rounded(x):
        fraction, exponent = np.frexp(x.astype(np.float64))
        return np.ldexp(np.round(fraction * 2**bits), exponent - bits)

    assert np.allclose(c, rounded(x) @ rounded(w), rtol=1e-5, atol=1e-5)


@emulated
def test_layouts_are_what_weights_have_them_as():
    shapes = [(c[1:5], c[0]) for c in (*HELD, *WMMA)]
    shapes += [
        ((depth, wide, threads, parts), kind)
        for depth, wide, threads, parts in [
            (1024, 8, 256, 4), (1024, 32, 256, 1), (2048, 8, 256, 1), (650, 5, 512, 4),
            (24, 17, 512, 15), (1000, 100, 1024, 5), (7, 32, 96, 1),
        ]
        for kind in (*REALS, *PRECISIONS)
    ]  # fmt: skip
    twins, source = {}, HEAD + '#include "held_wmma.h"\n'
    for i, ((depth, wide, threads, parts), kind) in enumerate(shapes):
        sizes = dict(depth=depth, wide=wide, threads=threads, parts=parts)
        if kind in REALS:
            staged = depth % 4 == 0 and i % 2 == 0
            dtype = np.dtype(REALS[kind][0]).name
            twin = weights.Layout(**sizes, dtype=dtype, rows=8 >> i % 3 // 2, staged=staged)
        else:
            twin = weights.Fragments(**sizes, precision=kind)
        twins[f"layout{i}"] = twin
        kind = REALS[kind][1] if kind in REALS else "float"
        source += LAYOUT.format(name=f"layout{i}", type=twin.type, kind=kind)
    for name, kernel in emulator.build(source, list(twins)).items():
        twin = twins[name]
        assert twin.fits
        for rows in (1, 17):
            found = np.zeros(5, np.int64)
            emulator.launch(kernel, 1, 32, 0, [rows, address(found)])
            wanted = (twin.across, twin.along, twin.own, twin.registers, twin.partial_bytes(rows))
            assert tuple(found) == wanted, twin


# ---- sanitizers --------------------------------------------------------------------------------


@emulated
@pytest.mark.slow
def test_folds_under_thread_sanitizer():
    x = np.arange(64, dtype=np.float32)
    arrays = [x, *(np.zeros((len(FOLDS), 64), np.float32) for _ in range(2))]
    source = HEAD + KERNEL + folding("f32", "float")
    (_, _, blocks), report = emulator.run_sanitized(
        source, "fold_f32", 1, 64, 1024, arrays, "thread"
    )
    assert not report
    assert (blocks[0] == x.sum()).all()


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address"])
@pytest.mark.parametrize("name", ["product", "held", "wmma"])
def test_products_under_sanitizers(name, sanitizer):
    """Nothing is read that is not there, and what another thread wrote behind barriers only."""
    rng = np.random.default_rng(2)
    rows, wide, depth = 5, 11, 36
    x, w = small(rng, rows, depth, dtype=np.float32), small(rng, depth, wide, dtype=np.float32)
    c = np.zeros((rows, wide), np.float32)
    if name == "product":
        source = HEAD + KERNEL + product(name, "f32")
        name = "product_f32"
        args = [rows, wide, depth, x, depth, 1, w, wide, 1, 0, c, wide]
        wanted = x @ w
    else:
        w = small(rng, 3, depth, wide, dtype=np.float32)
        c = small(rng, 3, rows, wide, dtype=np.float32)
        source = HEAD + holding("held", "f32", depth, wide, 64, 3, verb="add")
        if name == "wmma":
            source = HEAD + '#include "held_wmma.h"\n'
            source += holding_wmma(name, "bf16", depth, wide, 64, 3, "add")
        columns = np.full(3, wide)
        args = [1, rows, x, depth, 1, w, depth * wide, wide, 1, columns, c, wide]
        wanted = c + x @ w
    results, report = emulator.run_sanitized(source, name, 1, 64, 16384, args, sanitizer)
    assert not report
    assert np.array_equal(results[-1], wanted)


# ---- what a device's compiler makes of it ----------------------------------------------------


def assert_no_spills(source, architecture):
    found = nvrtc.compile(source, architecture).resources
    for name, r in found.items():
        assert (r.spill_stores, r.spill_loads, r.stack) == (0, 0, 0), f"{name}: {r}"
    return found


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_suffice(architecture):
    assert_no_spills(blocks_source(), architecture)
    assert_no_spills("#define GS_MEETING_PLAIN\n" + HEAD + KERNEL + MEETING, architecture)


# depth, width of a part, threads, parts, what is done
LARGE = [
    (1024, 32, 256, 1, "multiply"), (1024, 8, 256, 4, "multiply"), (1024, 8, 256, 4, "add"),
    (2048, 8, 256, 1, "multiply"), (650, 5, 256, 4, "add"), (33, 9, 256, 3, "add"),
]  # fmt: skip


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_hold_a_weight(architecture):
    """128 of the 255 registers of a thread are one block's share of a weight of depth 1024. Each
    architecture has half of the cases, the next one the others."""
    source = HEAD + holding("of_doubles", "f64", 512, 8, 256, 4)
    cases = range(ARCHITECTURES.index(architecture) % 2, len(LARGE), 2)
    for i in cases:
        *sizes, verb = LARGE[i]
        source += holding(f"held{i}", "f32", *sizes, verb=verb)
    found = assert_no_spills(source, architecture)
    assert all(found[f"held{i}"].registers >= 128 + 32 for i in cases if i < 4)


@compiled
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fragments_hold_a_weight(architecture):
    """Each architecture has a third of the cases of each precision; the next ones the others."""
    source, first = HEAD + '#include "held_wmma.h"\n', ARCHITECTURES.index(architecture)
    for k, p in enumerate(PRECISIONS[:1] if architecture == "sm_75" else PRECISIONS):
        for i in range((first + k) % 3, len(LARGE), 3):
            source += holding_wmma(f"wmma_{p}{i}", p, *LARGE[i])
    try:
        assert_no_spills(source, architecture)
    except BuildError as e:
        if "mma.h" not in str(e) or "could not open" not in str(e):
            raise
        pytest.skip("no mma.h: pip install nvidia-cuda-runtime nvidia-cuda-crt")

"""kernels/ against gpuscan.maths and philox, bit for bit; and that NVRTC compiles it.

C, C++, and CUDA's own text of it as C++: there a quotient is made from CUDA's approximate one by
steps that take its error out, which is here as large as CUDA says that it may be.
"""

import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gpuscan import maths, philox

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
UNARY = """exp exp2 expm1 log log2 log10 log1p tanh sigmoid softplus sinh cosh arcsinh arccosh
arctanh sin cos tan arcsin arccos arctan normal_icdf erf erfc erfinv erfcinv
gammaln gamma psi""".split()
BINARY = ["power", "arctan2", "mod", "floor_divide"]
REALS = {"f32": (np.float32, np.uint32, "float"), "f64": (np.float64, np.uint64, "double")}
INTEGERS = {"i8": "signed char", "i16": "short", "i32": "int", "i64": "long long"}


# What kernels/portable.h takes from CUDA. A quotient is off by up to two units of the last place,
# up or down as the divisor has it (CUDA C++ programming guide: intrinsic functions), but
# where the divisor's fraction is all ones: CUDA's own division goes on from there in the same
# steps, and would be wrong. So would its own square root, at some more places.
CUDA = """#define __CUDACC_RTC__
#define __device__
#define __forceinline__ inline __attribute__((always_inline, unused))
#define __noinline__ __attribute__((noinline, unused))
#define BITS(name, to, from) \\
    static inline to name(from x) { to y; __builtin_memcpy(&y, &x, sizeof y); return y; }
BITS(__float_as_uint, unsigned, float)
BITS(__uint_as_float, float, unsigned)
BITS(__double_as_longlong, long long, double)
BITS(__longlong_as_double, double, long long)
static inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
static inline double __dsqrt_rn(double x) { return __builtin_sqrt(x); }
static inline float floorf(float x) { return __builtin_floorf(x); }
static inline double floor(double x) { return __builtin_floor(x); }
static inline float fmodf(float x, float y) { return __builtin_fmodf(x, y); }
static inline double fmod(double x, double y) { return __builtin_fmod(x, y); }
static inline float __fdividef(float x, float y) {
    unsigned bits = __float_as_uint(y), ones = (1u << 23) - 1;
    float q = __builtin_fabsf(y) > 0x1p126f && y - y == 0 ? 0 * x : x / y;
    bool right = q == 0 || q - q != 0 || (bits & ones) == ones;
    return right ? q : __uint_as_float(__float_as_uint(q) + (bits * 2654435761u >> 16) % 5 - 2);
}
static inline float rsqrtf(float x) { return (float)(1 / __builtin_sqrt((double)x)); }
"""


def source() -> str:
    lines = ['#include "philox.h"', "#ifdef __cplusplus", 'extern "C" {', "#endif"]
    for suffix, (_, _, kind) in REALS.items():
        for name in UNARY:
            lines.append(
                f"void {name}_{suffix}(const {kind} *x, {kind} *y, long n)"
                f"{{ for (long i = 0; i < n; i++) y[i] = gs_{name}_{suffix}(x[i]); }}"
            )
    for suffix, kind in [(s, r[2]) for s, r in REALS.items()] + list(INTEGERS.items()):
        for name in BINARY if suffix in REALS else BINARY[2:]:
            lines.append(
                f"void {name}_{suffix}(const {kind} *a, const {kind} *b, {kind} *y, long n)"
                f"{{ for (long i = 0; i < n; i++) y[i] = gs_{name}_{suffix}(a[i], b[i]); }}"
            )
    lines.append(
        "void words(unsigned k0, unsigned k1, unsigned long long draw, unsigned lane,"
        " unsigned long long start, unsigned *w, float *u, float *z, double *v, double *d,"
        " long n) {"
        " for (long i = 0; i < n; i++) {"
        " w[i] = gs_random_word(k0, k1, draw, start + i, lane);"
        " u[i] = gs_uniform_f32(w[i]); z[i] = gs_normal_f32(w[i]); }"
        " for (long i = 0; i + 1 < n; i += 2) {"
        " v[i / 2] = gs_uniform_f64(w[i], w[i + 1]); d[i / 2] = gs_normal_f64(w[i], w[i + 1]); } }"
    )
    return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", ""])


def compiler(language: str) -> list[str] | None:
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    if language == "c++17":
        names = [os.environ.get("CXX", ""), "g++", "c++", "clang++"]
    for name in names:
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            return words
    return None


@pytest.fixture(scope="module", params=["c11", "c++17", "cuda"])
def library(request, tmp_path_factory):
    language = "c11" if request.param == "c11" else "c++17"
    command = compiler(language)
    if command is None:
        pytest.skip(f"no {language} compiler: set CC or CXX, or install gcc")
    folder = tmp_path_factory.mktemp("kernels")
    text = folder / ("twin.c" if language == "c11" else "twin.cpp")
    text.write_text((CUDA if request.param == "cuda" else "") + source())
    built = folder / "twin.so"
    options = [*FLAGS, "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{KERNELS}", "-o", str(built)]
    subprocess.run([*command, f"-std={language}", *options, str(text), "-lm"], check=True)
    loaded = ctypes.CDLL(str(built))
    loaded.language = request.param
    return loaded


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def call(library, name, *args):
    out = np.empty_like(args[0])
    getattr(library, name)(*map(pointer, args), pointer(out), ctypes.c_long(out.size))
    return out


def specials(real):
    info = np.finfo(real)
    tiny = [info.smallest_subnormal, info.tiny / 2, info.tiny, info.eps, 2 * info.eps]
    whole = [1, 2, 3, 4, 5, 7, 8, 10, 88, 89, 104, 170, 171, 172, 709, 710, 745, 2**23, 2**24, 1e30]
    part = [0.1, 0.25, 0.5, 0.75, 0.925, 1.5, 2.5, 1.4616321, np.pi / 4, np.pi / 2, np.pi]
    values = np.array([0, *tiny, *whole, *part, info.max, np.inf, np.nan], real)
    values = np.concatenate([values, np.nextafter(values, real(0)), np.nextafter(values, real(9))])
    return np.concatenate([values, -values])


def samples(suffix, count):
    real, word, _ = REALS[suffix]
    rng = np.random.default_rng(7)
    if suffix == "f32":
        bits = np.arange(0, 2**32, 2**32 // count, dtype=np.uint64).astype(np.uint32)
        bits += rng.integers(0, 2**32 // count, bits.size, dtype=np.uint32)
    else:
        bits = rng.integers(0, 2**64, count, dtype=np.uint64)
    ranges = [rng.uniform(-s, s, count // 4).astype(real) for s in (1, 10, 120, 1000)]
    return np.concatenate([bits.view(real), *ranges, specials(real)])


def assert_same_bits(got, wanted, *args):
    word = {4: np.uint32, 8: np.uint64}[got.itemsize]
    wrong = (got.view(word) != wanted.view(word)) & ~(np.isnan(got) & np.isnan(wanted))
    i = int(wrong.argmax())
    detail = f"at {[x[i] for x in args]!r}: C {got[i]!r}, NumPy {wanted[i]!r}"
    assert not wrong.any(), f"{wrong.sum()} of {got.size} differ, first {detail}"


@pytest.mark.parametrize("suffix", REALS)
@pytest.mark.parametrize("name", UNARY)
def test_unary_bits(library, name, suffix):
    count = 2**17 if name in ("gamma", "gammaln", "psi") else 2**18
    if library.language == "cuda" and suffix == "f64":
        count //= 16  # of doubles it is as C++'s, but for choices
    x = samples(suffix, count)
    assert_same_bits(call(library, f"{name}_{suffix}", x), getattr(maths, name)(x), x)


@pytest.mark.parametrize("suffix", REALS)
@pytest.mark.parametrize("name", BINARY)
def test_binary_bits(library, name, suffix):
    real = REALS[suffix][0]
    rng = np.random.default_rng(8)
    a, b = (g.ravel() for g in np.meshgrid(specials(real), specials(real)))
    x = samples(suffix, 2**16)
    near = rng.uniform(-20, 20, 2**15).astype(real)
    a = np.concatenate([a, x, near, np.round(near)])
    b = np.concatenate([b, rng.permutation(x), near[::-1], np.round(near[::-1])])
    wanted = getattr(maths, name)(a, b)
    assert_same_bits(call(library, f"{name}_{suffix}", a, b), wanted, a, b)


@pytest.mark.parametrize("suffix", INTEGERS)
@pytest.mark.parametrize("name", BINARY[2:])
def test_integer_division(library, name, suffix):
    kind = np.dtype(f"int{suffix[1:]}")
    info = np.iinfo(kind)
    ends = np.array([info.min, info.min + 1, -3, -2, -1, 0, 1, 2, 3, 7, info.max], kind)
    rng = np.random.default_rng(9)
    a, b = (g.ravel() for g in np.meshgrid(ends, ends))
    a = np.concatenate([a, rng.integers(info.min, info.max, 20000, dtype=kind)])
    b = np.concatenate([b, rng.integers(-50, 50, 20000, dtype=kind)])
    with np.errstate(all="ignore"):
        wanted = np.mod(a, b) if name == "mod" else np.floor_divide(a, b)
    assert np.array_equal(call(library, f"{name}_{suffix}", a, b), wanted)


def test_random_bits(library):
    n, key0, key1 = 10001, 0x12345678, 0x9ABCDEF0
    for draw, lane, start in [(0, 0, 0), (2**40 + 3, 2, 0), (5, 1, 2**34 - 4000)]:
        w, u, z = np.empty(n, np.uint32), np.empty(n, np.float32), np.empty(n, np.float32)
        v, d = np.empty(n // 2), np.empty(n // 2)
        library.words(
            ctypes.c_uint(key0), ctypes.c_uint(key1), ctypes.c_ulonglong(draw),
            ctypes.c_uint(lane), ctypes.c_ulonglong(start),
            *map(pointer, (w, u, z, v, d)), ctypes.c_long(n),
        )  # fmt: skip
        wanted = philox.words(key0, key1, draw, n, lane, start)
        assert np.array_equal(w, wanted)
        assert_same_bits(u, philox.uniform32(wanted), w)
        assert_same_bits(z, philox.normal32(wanted), w)
        assert_same_bits(v, philox.uniform64(wanted[:-1]), v)
        assert_same_bits(d, philox.normal64(wanted[:-1]), d)


def nvrtc():
    """libnvrtc from NVIDIA's wheel, or None."""
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations or [] if spec else []:
        for found in sorted(Path(place).glob("*/lib/libnvrtc.so.*")):
            if "builtins" not in found.name:
                return ctypes.CDLL(str(found))
    return None


@pytest.mark.parametrize("arch", ["sm_75", "sm_90", "sm_120"])
def test_nvrtc_compiles(arch):
    lib = nvrtc()
    if lib is None:
        pytest.skip("NVRTC not found: pip install nvidia-cuda-nvrtc-cu12")
    lines = ['#include "philox.h"', 'extern "C" __global__ void k(float *f, double *d) {']
    for suffix, pick in (("f32", "f"), ("f64", "d")):
        lines += [f"{pick}[{i}] = gs_{name}_{suffix}({pick}[{i}]);" for i, name in enumerate(UNARY)]
        lines += [
            f"{pick}[{i}] = gs_{n}_{suffix}({pick}[1], {pick}[2]);" for i, n in enumerate(BINARY)
        ]
    lines += ["f[99] = gs_normal_f32(gs_random_word(1, 2, 3, threadIdx.x, 0));", "}"]
    program = ctypes.c_void_p()
    text = "\n".join(lines).encode()
    assert lib.nvrtcCreateProgram(ctypes.byref(program), text, b"k.cu", 0, None, None) == 0
    options = [f"--gpu-architecture={arch}", "--fmad=false", "--std=c++17", f"-I{KERNELS}"]
    options = [o.encode() for o in options]
    status = lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * 4)(*options))
    size = ctypes.c_size_t()
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    assert status == 0, log.value.decode()

"""NVRTC and the disassembler: what a kernel is compiled to, without a GPU."""

import re
import threading
import time

import pytest

from gpuscan.errors import BuildError
from gpuscan.runtime import cache, cuda_routines, nvrtc, sass

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

# 64 values a thread live through a loop: they fit in 255 registers, and not in 32. `calls` has a
# function of its own, with an array that is indexed.
SOURCE = """
extern "C" __global__ void many(float *x, int n) {
    float a[64];
    x += threadIdx.x; /* else one value for a whole warp, which has registers of its own */
#pragma unroll
    for (int i = 0; i < 64; i++) a[i] = x[i * n];
#pragma unroll 1
    for (int t = 0; t < n; t++) {
#pragma unroll
        for (int i = 0; i < 64; i++) a[i] = a[i] * a[(i * 7 + 3) % 64] + x[t];
    }
#pragma unroll
    for (int i = 0; i < 64; i++) x[i * n] = a[i];
}
extern "C" __global__ void few(float *x, int n) {
    __shared__ float s[300];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[n];
}
__device__ __noinline__ void apart(float *x) {
    float b[40];
    for (int i = 0; i < 40; i++) b[i] = x[i];
    for (int i = 0; i < 40; i++) x[i] = b[(int)x[i] % 40];
}
extern "C" __global__ void calls(float *x) { apart(x); }
"""

# What ptxas -v of CUDA 13.5 said of two kernels, the first with a function of its own.
LOG = """\
ptxas info    : Overriding maximum register limit 256 for 'calls' with  32 of maxrregcount option
ptxas info    : 0 bytes gmem, 40 bytes cmem[3]
ptxas info    : Compiling entry function 'calls' for 'sm_75'
ptxas info    : Function properties for calls
ptxas         .     384 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 384 bytes cumulative stack size, \
360 bytes cmem[0]
ptxas info    : Compile time = 14.476 ms
ptxas info    : Function properties for _Z5apartPf
ptxas         .     0 bytes stack frame, 356 bytes spill stores, 388 bytes spill loads
ptxas info    : Compiling entry function 'few' for 'sm_75'
ptxas info    : Function properties for few
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 1 barriers, 1200 bytes smem, 364 bytes cmem[0]
"""


def test_an_older_nvrtc_is_not_told_of_a_cache():
    """It refuses an option that it does not know."""
    needs_nvrtc()
    words = ["--gpu-architecture=sm_90", *nvrtc.OPTIONS]
    ours, olders = (nvrtc._compile(SOURCE, "sm_90", words, o) for o in ("--no-cache", "--no-such"))
    assert ours.resources == olders.resources and set(ours.resources) == {"many", "few", "calls"}


def needs_nvrtc():
    if reason := nvrtc.missing():
        pytest.skip(reason)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUSCAN_CACHE_DIR", str(tmp_path_factory.mktemp("cubins")))
        yield


@pytest.fixture
def built(request):
    needs_nvrtc()
    return nvrtc.compile(SOURCE, "sm_90")


@pytest.fixture
def text(built):
    return disassembled(built)


def disassembled(cubin):
    found = sass.disassemble(cubin)
    if found is None:
        pytest.skip("nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    return found


def test_version_and_architectures():
    needs_nvrtc()
    major, minor = nvrtc.version()
    assert major >= 12 and minor >= 0
    known = nvrtc.architectures()
    assert {"sm_80", "sm_90"} <= set(known)
    assert all(re.fullmatch(r"sm_\d+", a) for a in known)


def test_the_words_of_ptxas():
    empty = b"\x7fELF" + bytes(0x40 - 4)  # has no section
    assert nvrtc.resources(LOG, empty) == {
        "calls": nvrtc.Resources(32, 356, 388, 384, 0, 0),
        "few": nvrtc.Resources(12, 0, 0, 0, 1200, 0),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_resources(architecture):
    needs_nvrtc()
    if architecture not in nvrtc.architectures():
        pytest.skip(f"NVRTC {nvrtc.version()} does not know {architecture}")
    free = nvrtc.compile(SOURCE, architecture)
    tight = nvrtc.compile(SOURCE, architecture, ["--maxrregcount=32"])
    assert free.architecture == architecture and free.image[:4] == b"\x7fELF"
    assert set(free.resources) == set(tight.resources) == {"many", "few", "calls"}
    many = free.resources["many"]
    assert 64 < many.registers <= 255
    assert (many.spill_stores, many.spill_loads, many.stack, many.shared) == (0, 0, 0, 0)
    assert free.resources["few"].shared == 1200
    assert free.resources["few"].constant >= 12  # its arguments
    assert free.resources["calls"].stack >= 160
    many = tight.resources["many"]
    assert many.registers == 32
    assert many.spill_stores > 0 and many.spill_loads > 0 and many.stack > 0
    for cubin in (free, tight):
        for name, taken in cubin.resources.items():
            own = re.search(
                rf"properties for {name}\n.* (\d+) bytes stack frame, (\d+) bytes spill stores, "
                rf"(\d+) bytes spill loads\n.*Used (\d+) registers(.*)",
                cubin.log,
            )
            assert taken.registers == int(own[4])
            if name != "calls":  # whose function counts too
                assert (taken.stack, taken.spill_stores, taken.spill_loads) == tuple(
                    int(own[i]) for i in (1, 2, 3)
                )
            if said := re.search(r"(\d+) bytes cmem\[0\]", own[5]):
                assert taken.constant == int(said[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_of_one_text_compile_and_keep_to_registers(architecture):
    needs_nvrtc()
    if architecture not in nvrtc.architectures():
        pytest.skip(f"NVRTC {nvrtc.version()} does not know {architecture}")
    words = list(cuda_routines._OF_BYTES.values())
    texts = {
        cuda_routines._UNIFORMS: ["float", "double"], cuda_routines._SCATTER: ["float", "double"],
        cuda_routines._GATHER: words,
        cuda_routines._ELEMENTS.replace("{add}", "false"): words,
        cuda_routines._ELEMENTS.replace("{add}", "true"): ["float", "double"],
        cuda_routines._PLACES: [*words, *cuda_routines._SIGNED.values()],
    }  # fmt: skip
    for text, kinds in texts.items():
        for kind in kinds:
            made = nvrtc.compile(text.format(threads=256, type=kind), architecture)
            (found,) = made.resources.values()
            assert (found.spill_stores, found.spill_loads, found.stack) == (0, 0, 0)
            assert found.registers <= 64


def test_nothing_is_contracted():
    needs_nvrtc()
    lines = """extern "C" __global__ void k(float *x) { x[0] = x[1] * x[2] + x[3]; }
extern "C" __global__ void f(float *x) { x[0] = fmaf(x[1], x[2], x[3]); }"""
    found = disassembled(nvrtc.compile(lines, "sm_90"))
    assert "FFMA" not in sass.total(found, "k")
    assert sass.total(found, "f")["FFMA"] == 1


NAMES = {
    "f32": "float", "f64": "double", "b8": "unsigned char",
    "i8": "signed char", "i16": "short", "i32": "int", "i64": "long long",
    "u8": "unsigned char", "u16": "unsigned short", "u32": "unsigned", "u64": "unsigned long long",
}  # fmt: skip


def of_every_type():
    """A kernel that calls what scalars.h and rows.h have, for every type."""
    reals, whole = ("f32", "f64"), [t for t in NAMES if t[0] in "iu"]
    calls = [(n, t, 2) for n in ("max", "min") for t in NAMES]
    calls += [(n, t, 1) for n in "sqr floor ceil trunc rint round isinf".split() for t in NAMES]
    calls += [("sign", t, 1) for t in (*reals, *whole)] + [("sqrt", t, 1) for t in reals]
    calls += [(n, t, 1) for n in ("abs", "not") for t in (*whole, "b8")]
    calls += [(n, t, 2) for n in ("floor_divide", "mod", "power") for t in (*whole, *reals)]
    lines = ['#include "philox.h"', '#include "rows.h"', '#include "scalars.h"']
    lines += ['extern "C" __global__ void k(void *const *m, long long n, long long s) {']
    for i, (name, t, count) in enumerate(calls):
        x = [f"(({NAMES[t]} *)m[{j}])[{i}]" for j in range(3)]
        lines.append(f"{x[2]} = gs_{name}_{t}({', '.join(x[:count])});")
    for t in reals:
        lines += [f"gs_{f}_{t}(n, ({NAMES[t]} *)m[3], s);" for f in ("softmax", "log_softmax")]
    return "\n".join([*lines, "}"])


def test_headers_compile_without_a_warning():
    needs_nvrtc()
    cubin = nvrtc.compile(of_every_type(), "sm_90")
    assert "warning" not in cubin.log
    taken = cubin.resources["k"]
    assert (taken.spill_stores, taken.spill_loads) == (0, 0)


def test_cubin_is_kept(built, monkeypatch, tmp_path):
    start = time.perf_counter()
    again = nvrtc.compile(SOURCE, "sm_90")
    assert again == built  # with the seconds that it took at first
    fastest = min(timed() for _ in range(5))
    assert min(fastest, time.perf_counter() - start) < 0.005
    assert nvrtc.compile(SOURCE, "sm_90", ["--maxrregcount=64"]) != built
    assert nvrtc.compile(SOURCE, "sm_80") != built
    monkeypatch.setenv("GPUSCAN_CACHE_DIR", str(tmp_path))
    compiles = []
    monkeypatch.setattr(nvrtc, "_compile", lambda *a: compiles.append(a) or built)
    for content in (None, b"", b"[]\n", b"x" * 100):
        for entry in tmp_path.iterdir():
            entry.write_bytes(content)
            cache._seal(entry)
        assert nvrtc.compile(SOURCE, "sm_90").image == built.image
    assert len(compiles) == 4 and len(list(tmp_path.iterdir())) == 1


def timed():
    start = time.perf_counter()
    nvrtc.compile(SOURCE, "sm_90")
    return time.perf_counter() - start


def test_without_a_cache(built, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("GPUSCAN_CACHE_DIR", str(file / "below"))
    assert nvrtc.compile(SOURCE, "sm_90").image == built.image


def test_a_refused_source():
    needs_nvrtc()
    with pytest.raises(BuildError) as e:
        nvrtc.compile('extern "C" __global__ void k(float *x) {\n    x[0] = y;\n}', "sm_90")
    words = str(e.value)
    first = words.partition("\n")[0]
    said = r'^NVRTC \d+\.\d+ failed with status 6: kernel.cu\(2\): error: identifier "y"'
    assert re.search(said, first)
    assert first.endswith("fuse='never' or device='native', and please report this")
    assert "   2     x[0] = y;" in words
    assert "--gpu-architecture=sm_90" in words


def test_a_refused_architecture():
    needs_nvrtc()
    with pytest.raises(BuildError, match="invalid value for --gpu-architecture"):
        nvrtc.compile("", "sm_42")


def test_missing(monkeypatch):
    monkeypatch.setattr(nvrtc, "_found", lambda: "NVRTC is not installed: pip install it")
    monkeypatch.setattr(nvrtc, "_file", lambda: None)
    nvrtc._identity.cache_clear()
    assert nvrtc.missing().startswith("NVRTC is not installed: pip install")
    for call in (nvrtc.version, nvrtc.architectures, lambda: nvrtc.compile(SOURCE, "sm_90")):
        with pytest.raises(BuildError, match="NVRTC is not installed"):
            call()


def test_where_nvrtc_is_looked_for(monkeypatch, tmp_path):
    for name in ("libnvrtc.so.9", "libnvrtc.so.12", "libnvrtc-builtins.so.13.1"):
        (tmp_path / "lib64").mkdir(exist_ok=True)
        (tmp_path / "lib64" / name).write_text("not a library")
    monkeypatch.setattr(nvrtc, "wheel_folders", list)
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    for search in (nvrtc._file, nvrtc._found):
        search.cache_clear()
    try:
        assert nvrtc._file() == tmp_path / "lib64" / "libnvrtc.so.12"
        # one that can't be loaded is named, unless the system has another
        reason = nvrtc.missing()
        assert not reason or str(tmp_path) in reason
    finally:
        for search in (nvrtc._file, nvrtc._found):
            search.cache_clear()


def test_the_folder_of_headers_is_one_that_has_all_of_them(monkeypatch, tmp_path):
    """A wheel of CUDA 13 has mma.h without what it includes; a toolkit beside it has both."""
    wheel, toolkit = tmp_path / "wheel", tmp_path / "toolkit"
    for folder, names in ((wheel, ["cuda_fp16.h", "mma.h"]), (toolkit, ["cuda_fp16.h"])):
        (folder / "include" / "crt").mkdir(parents=True)
        for name in names:
            (folder / "include" / name).touch()
    (toolkit / "include" / "crt" / "mma.h").touch()
    monkeypatch.setattr(nvrtc, "wheel_folders", lambda: [wheel])
    try:
        for toolkits, found in (([toolkit], toolkit), ([], wheel)):
            monkeypatch.setattr(nvrtc, "toolkits", lambda toolkits=toolkits: toolkits)
            nvrtc._includes.cache_clear()
            assert nvrtc._includes() == (str(found / "include"),)
    finally:
        nvrtc._includes.cache_clear()


def test_a_header_that_is_not_there_says_how_it_gets_there():
    needs_nvrtc()
    with pytest.raises(BuildError, match=r"crt/nowhere.h is not installed: pip install"):
        nvrtc.compile('#include "crt/nowhere.h"\n', "sm_80")


def test_a_part_of_nvrtc_that_is_not_there_is_named():
    said = "nvrtc: error: failed to open libnvrtc-builtins.so.13.0."
    assert "pip install --force-reinstall nvidia-cuda-nvrtc" in nvrtc._way_out(said)


def test_threads_compile_at_the_same_time():
    needs_nvrtc()
    found = {}

    def run(i):
        source = f'extern "C" __global__ void k{i}(float *x) {{ x[{i}] = {i}; }}'
        found[i] = nvrtc.compile(source, "sm_90")

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: set(c.resources) for i, c in found.items()} == {i: {f"k{i}"} for i in range(8)}


def test_spills_are_seen_in_the_code(text):
    assert "STL" not in sass.total(text, "many")
    tight = disassembled(nvrtc.compile(SOURCE, "sm_90", ["--maxrregcount=32"]))
    (loop,) = sass.loops(tight, "many")
    assert loop.counts["LDL"] > 0 and loop.counts["STL"] > 0


def test_instructions_of_a_loop(text):
    (loop,) = sass.loops(text, "many")
    assert loop.counts["LDG"] == 1  # x[t]
    assert "STG" not in loop.counts
    assert loop.counts["FMUL"] == loop.counts["FADD"] == 64
    assert loop.instructions == sum(loop.counts.values()) < 150
    assert not loop.inner
    everything = sass.total(text, "many")
    assert everything["LDG"] == 65 and everything["STG"] == 64
    assert sass.loops(text, "few") == ()
    few = sass.total(text, "few")
    assert {k: few[k] for k in ("LDG", "STS", "BAR", "LDS", "STG", "EXIT")} == dict.fromkeys(
        ("LDG", "STS", "BAR", "LDS", "STG", "EXIT"), 1
    )
    assert sass.total(text, "calls")["CALL"] == 1


PERSISTENT = """
__device__ __forceinline__ int seen(const int *flag) {
    int v;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(flag) : "memory");
    return v;
}
extern "C" __global__ void steps(float *x, int *flag, float *y, int n) {
    __shared__ float s[64];
    float w = x[threadIdx.x], h = 0;
#pragma unroll 1
    for (int t = 0; t < n; t++) {
        s[threadIdx.x] = h;
        __syncthreads();
        h = fmaf(w, s[63 - threadIdx.x], 1 / (1 + h));
        y[t * 64 + threadIdx.x] = h;
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(flag) : "memory");
            while (seen(flag) < (t + 1) * gridDim.x) {}
        }
        __syncthreads();
    }
    x[threadIdx.x] = h;
}
"""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_a_loop_with_a_loop_inside(architecture):
    needs_nvrtc()
    found = disassembled(nvrtc.compile(PERSISTENT, architecture))
    outer = max(sass.loops(found, "steps"), key=lambda loop: loop.instructions)
    assert outer.counts["BAR"] == 3
    assert (outer.counts["STS"], outer.counts["LDS"], outer.counts["STG"]) == (1, 1, 1)
    assert outer.counts["RED"] == outer.counts["MEMBAR"] == 1  # a release a step
    assert outer.counts["LDG"] == 1  # of the flag: the weight stays in its register
    (spin,) = outer.inner
    assert spin.counts["LDG"] == 1 and "BAR" not in spin.counts
    assert spin.counts["CCTL"] == outer.counts["CCTL"] == 1  # what an acquire costs
    assert sass.total(found, "steps")["LDG"] == 2


def test_tensor_cores():
    needs_nvrtc()
    source = """#include <mma.h>
using namespace nvcuda::wmma;
extern "C" __global__ void k(const __half *a, const __half *b, float *c) {
    fragment<matrix_a, 16, 16, 16, __half, row_major> x;
    fragment<matrix_b, 16, 16, 16, __half, row_major> y;
    fragment<accumulator, 16, 16, 16, float> z;
    load_matrix_sync(x, a, 16);
    load_matrix_sync(y, b, 16);
    fill_fragment(z, 0.0f);
    mma_sync(z, x, y, z);
    store_matrix_sync(c, z, 16, mem_row_major);
}"""
    try:
        cubin = nvrtc.compile(source, "sm_80")
    except BuildError as e:
        if "could not open source file" in str(e) or "cannot open source file" in str(e):
            pytest.skip("no mma.h: pip install nvidia-cuda-runtime nvidia-cuda-crt")
        raise
    assert sass.total(disassembled(cubin), "k")["HMMA"] == 2


def test_no_such_kernel():
    text = "\n.text.first:\n        /*0000*/                   EXIT ;\n"
    assert sass.total(text, "first") == {"EXIT": 1}
    with pytest.raises(ValueError, match="no kernel 'k'; there are: first"):
        sass.loops(text, "k")


# A loop whose second half the compiler put behind the end, a branch that is never taken, and one
# with its condition among the operands.
ODD = """
.text.k:
        /*0000*/                   MOV R0, 0x1 ;
.L_x_1:
        /*0010*/                   LDG.E R2, [R2.64] ;
        /*0020*/               @P0 BRA `(.L_x_2) ;
        /*0030*/              @!PT BRA `(.L_x_1) ;
        /*0040*/                   EXIT ;
.L_x_2:
        /*0050*/                   ATOMG.E.ADD.STRONG.GPU PT, R3, [R2], R4 ;
        /*0060*/                   BRA.U UP0, `(.L_x_1) ;
        /*0070*/                   STG.E [R2.64], R0 ;
        /*0080*/                   EXIT ;
.L_x_0:
        /*0090*/                   BRA `(.L_x_0);
        /*00a0*/                   NOP;
.L_x_9:
"""


def test_branches_of_every_form():
    (loop,) = sass.loops(ODD, "k")
    assert (loop.first, loop.instructions) == (0x10, 4)
    assert loop.counts == {"LDG": 1, "BRA": 2, "ATOM": 1}
    assert sass.total(ODD, "k") == {
        "MOV": 1, "LDG": 1, "BRA": 3, "EXIT": 2, "ATOM": 1, "STG": 1,
    }  # fmt: skip


def test_without_a_disassembler(monkeypatch):
    monkeypatch.setattr(sass, "disassembler", lambda: None)
    assert sass.disassemble(nvrtc.Cubin("sm_90", b"", {}, "", 0.0)) is None


def test_a_failing_disassembler():
    if sass.disassembler() is None:
        pytest.skip("nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    with pytest.raises(BuildError, match="failed with status"):
        sass.disassemble(nvrtc.Cubin("sm_90", b"not a cubin", {}, "", 0.0))

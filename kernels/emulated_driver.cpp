/* A stand-in for the driver's library, libcuda.so.1, so that programs written to its interface run
 * where there is no GPU: a device whose memory is the host's, whose modules are shared objects that
 * the emulator built from the texts of the kernels, and whose launches run on fibers.
 *
 * As strict as the driver: memory and launches need a current context, copies must lie within what
 * was allocated, a cooperative grid must be alive together, shared memory above 48 KiB be asked
 * for, and a thread that captures a stream may neither wait, nor read, nor allocate. The limits are those of `emulated` in codegen/limits.py. Names that a program links and
 * that are not here are added where this is built; they answer "not supported". */
#include "emulated.cpp"

#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <thread>

namespace {

enum Status {
    FINE = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 101, NO_IMAGE = 200, NO_CONTEXT = 201,
    ILLEGAL_STATE = 401, NOT_FOUND = 500, LAUNCH_FAILED = 719, COOPERATIVE_TOO_LARGE = 720,
    NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
    CAPTURE_IMPLICIT = 906, CAPTURE_WRONG_THREAD = 908
};

constexpr int REGISTERS = 96; /* that a thread is said to take */
constexpr size_t MEMORY = size_t(4) << 30, SHARED_DEFAULT = 48 << 10, SHARED_MOST = 48 << 10;
constexpr int MULTIPROCESSORS = 4, THREADS_BLOCK = 64, THREADS = 256, BLOCKS = 4;

struct Function {
    void (*run)(void **);
    int count;
    std::string name;
    size_t shared = SHARED_DEFAULT; /* that a launch may ask for */
};

struct Module {
    void *library;
    int file; /* open while the module lives: the loader knows libraries by their names */
    std::map<std::string, Function> functions;
};

struct Event {
    std::chrono::steady_clock::time_point at;
};

int primary; /* the one context; its address is its handle */
thread_local std::vector<void *> contexts;
std::mutex allocations_change;
std::map<uintptr_t, size_t> allocations;
std::string said; /* of the last launch that failed */

/* Whether so many bytes lie within one allocation. */
bool is_ours(uintptr_t p, size_t bytes) {
    if (!bytes) return true;
    const std::lock_guard<std::mutex> lock(allocations_change);
    auto next = allocations.upper_bound(p);
    if (next == allocations.begin()) return false;
    --next;
    return p + bytes <= next->first + next->second;
}

/* ---- captures: what a stream is given is not done, but kept for a graph ------------------------ */

using Work = std::function<int()>;

struct Graph {
    std::vector<Work> work;
};

enum Mode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

struct Capture {
    int mode;
    std::thread::id thread;
    Graph graph;
    bool broken; /* by something that can't be recorded */
};

std::mutex captures_change;
std::map<void *, Capture> captures; /* by streams */
std::map<void *, unsigned> streams; /* that were made, with their flags */
thread_local int thread_mode = GLOBAL;

/* Whether a call that is not recorded is refused: that breaks the captures that forbid it. */
int refused(bool always = false) {
    const std::lock_guard<std::mutex> lock(captures_change);
    int status = FINE;
    for (auto &[stream, c] : captures) {
        const bool own = c.thread == std::this_thread::get_id();
        if (!own && c.mode != GLOBAL) continue;
        if (!always && (c.mode == RELAXED || thread_mode == RELAXED)) continue;
        c.broken = true;
        status = CAPTURE_UNSUPPORTED;
    }
    return status;
}

/* The default stream waits for all that are not made otherwise, those that are captured, too. */
int default_stream_used() {
    const std::lock_guard<std::mutex> lock(captures_change);
    int status = FINE;
    for (auto &[stream, c] : captures)
        if (!(streams[stream] & 1)) c.broken = true, status = CAPTURE_IMPLICIT;
    return status;
}

/* Does some work on a stream, or keeps it where the stream is captured. */
int submit(void *stream, Work work) {
    if (!stream) {
        if (const int status = default_stream_used()) return status;
        return work();
    }
    {
        const std::lock_guard<std::mutex> lock(captures_change);
        const auto found = captures.find(stream);
        if (found != captures.end()) {
            if (found->second.broken) return CAPTURE_INVALIDATED;
            found->second.graph.work.push_back(std::move(work));
            return FINE;
        }
    }
    return work();
}

int waited_for(void *stream) {
    if (contexts.empty()) return NO_CONTEXT;
    if (const int status = refused()) return status;
    const std::lock_guard<std::mutex> lock(captures_change);
    const auto found = captures.find(stream);
    if (found == captures.end()) return FINE;
    found->second.broken = true;
    return CAPTURE_UNSUPPORTED;
}

int copy(void *to, const void *from, size_t bytes, bool to_ours, bool from_ours) {
    if (contexts.empty()) return NO_CONTEXT;
    if (to_ours && !is_ours((uintptr_t)to, bytes)) return INVALID;
    if (from_ours && !is_ours((uintptr_t)from, bytes)) return INVALID;
    memmove(to, from, bytes);
    return FINE;
}

/* On the default stream, until it is done. */
int copy_now(void *to, const void *from, size_t bytes, bool to_ours, bool from_ours) {
    if (const int status = refused()) return status;
    if (const int status = default_stream_used()) return status;
    return copy(to, from, bytes, to_ours, from_ours);
}

int copy_on(void *stream, void *to, const void *from, size_t bytes, bool to_ours, bool from_ours) {
    if (to_ours && !is_ours((uintptr_t)to, bytes)) return INVALID;
    if (from_ours && !is_ours((uintptr_t)from, bytes)) return INVALID;
    return submit(stream, [=] { return copy(to, from, bytes, to_ours, from_ours); });
}

/* How many blocks are alive together: what codegen/limits.py says, for these limits. */
size_t alive_together(size_t threads, size_t shared) {
    const size_t warps = (threads + 31) / 32, a_warp = (REGISTERS * 32 + 255) / 256 * 256;
    size_t blocks = BLOCKS;
    blocks = std::min(blocks, THREADS / 32 / warps);
    blocks = std::min(blocks, 65536 / 4 / a_warp * 4 / warps);
    blocks = std::min(blocks, (size_t(100) << 10) / ((shared + 1024 + 127) / 128 * 128));
    return blocks * MULTIPROCESSORS;
}

int launch(void *stream, Function *f, std::array<unsigned, 3> grid, std::array<unsigned, 3> block,
           size_t shared, void **given, bool cooperative) {
    if (contexts.empty()) return NO_CONTEXT;
    if (!f || !given) return INVALID;
    const size_t threads = size_t(block[0]) * block[1] * block[2];
    const size_t blocks = size_t(grid[0]) * grid[1] * grid[2];
    if (!threads || !blocks || threads > THREADS_BLOCK) return INVALID;
    if (shared > f->shared) return INVALID;
    if (cooperative && blocks > alive_together(threads, shared)) return COOPERATIVE_TOO_LARGE;
    std::vector<Word> arguments;
    for (int i = 0; i < f->count; i++) arguments.push_back(*(const Word *)given[i]);
    return submit(stream, [=]() mutable {
        const char *const schedule = getenv("GPUSCAN_EMULATED_SCHEDULE");
        char message[4096];
        if (!emulated_launch(f->run, arguments.data(), arguments.size(), grid.data(), block.data(),
                             shared, cooperative, schedule ? atoll(schedule) : 0, message,
                             sizeof message))
            return int(FINE);
        said = f->name + ": " + message;
        return int(LAUNCH_FAILED);
    });
}

const char *name_of(int status) {
    switch (status) {
    case FINE: return "CUDA_SUCCESS";
    case INVALID: return "CUDA_ERROR_INVALID_VALUE";
    case NO_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case NO_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
    case NO_IMAGE: return "CUDA_ERROR_INVALID_IMAGE";
    case NO_CONTEXT: return "CUDA_ERROR_INVALID_CONTEXT";
    case NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
    case LAUNCH_FAILED: return "CUDA_ERROR_LAUNCH_FAILED";
    case COOPERATIVE_TOO_LARGE: return "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE";
    case NOT_SUPPORTED: return "CUDA_ERROR_NOT_SUPPORTED";
    case ILLEGAL_STATE: return "CUDA_ERROR_ILLEGAL_STATE";
    case CAPTURE_UNSUPPORTED: return "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
    case CAPTURE_INVALIDATED: return "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED";
    case CAPTURE_IMPLICIT: return "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT";
    case CAPTURE_WRONG_THREAD: return "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD";
    }
    return nullptr;
}

template <class T>
int repeat(uintptr_t to, T value, size_t count, void *stream) {
    if (contexts.empty()) return NO_CONTEXT;
    if (!is_ours(to, count * sizeof(T)) || to % sizeof(T)) return INVALID;
    return submit(stream, [=] { return std::fill_n((T *)to, count, value), int(FINE); });
}

}  // namespace

extern "C" {

/* ---- the device -------------------------------------------------------------------------------- */

int cuInit(unsigned) { return FINE; }
/* NVRTC asks any driver for its private tables, and goes on without them. */
int cuGetExportTable(const void **table, const void *) { return *table = nullptr, NOT_SUPPORTED; }
int cuDriverGetVersion(int *version) { return *version = 13000, FINE; }
int cuDeviceGetCount(int *count) { return *count = 1, FINE; }
int cuDeviceGet(int *device, int number) {
    if (number) return NO_DEVICE;
    return *device = 0, FINE;
}
int cuDeviceGetName(char *name, int size, int) {
    return snprintf(name, (size_t)size, "emulated (fibers of the host)"), FINE;
}
int cuDeviceComputeCapability(int *major, int *minor, int) { return *major = 9, *minor = 0, FINE; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = MEMORY, FINE; }

int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 1: case 2: case 3: *value = THREADS_BLOCK; break; /* threads of a block, x, y */
    case 4: *value = 64; break;                            /* z */
    case 5: *value = 2147483647; break;                    /* blocks of a grid, x */
    case 6: case 7: *value = 65535; break;                 /* y, z */
    case 8: *value = (int)SHARED_DEFAULT; break;
    case 10: *value = 32; break;       /* a warp */
    case 12: *value = 65536; break;    /* registers of a block */
    case 13: *value = 1830000; break;  /* clock, kHz */
    case 16: *value = MULTIPROCESSORS; break;
    case 36: *value = 100000; break;   /* memory's clock, kHz */
    case 37: *value = 4000; break;     /* and its bits: 100 GB/s */
    case 38: *value = 1 << 20; break;  /* L2 */
    case 39: *value = THREADS; break;  /* of a multiprocessor, as are the next two */
    case 81: *value = 100 << 10; break;
    case 82: *value = 65536; break;
    case 41: *value = 1; break;        /* one address space */
    case 75: *value = 9; break;
    case 76: *value = 0; break;
    case 95: *value = 1; break;        /* cooperative launches */
    case 97: *value = (int)SHARED_MOST; break;
    case 106: *value = BLOCKS; break;
    case 111: *value = 1024; break;    /* shared memory that the driver keeps of a block */
    default: *value = 0;
    }
    return FINE;
}

/* ---- contexts: one, and a stack of it a thread ------------------------------------------------ */

int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &primary, FINE; }
int cuDevicePrimaryCtxRelease_v2(int) { return FINE; }
int cuCtxPushCurrent_v2(void *context) {
    if (context != &primary) return NO_CONTEXT;
    return contexts.push_back(context), FINE;
}
int cuCtxPopCurrent_v2(void **context) {
    if (contexts.empty()) return NO_CONTEXT;
    if (context) *context = contexts.back();
    return contexts.pop_back(), FINE;
}
int cuCtxGetCurrent(void **context) {
    return *context = contexts.empty() ? nullptr : contexts.back(), FINE;
}
int cuCtxSetCurrent(void *context) {
    if (!contexts.empty()) contexts.pop_back();
    if (context) contexts.push_back(context);
    return FINE;
}
int cuCtxGetDevice(int *device) {
    if (contexts.empty()) return NO_CONTEXT;
    return *device = 0, FINE;
}
int cuCtxGetApiVersion(void *, unsigned *version) { return *version = 13000, FINE; }
int cuCtxSynchronize() { return contexts.empty() ? NO_CONTEXT : refused(true); }
int cuCtxDetach(void *) { return FINE; }

/* ---- memory ------------------------------------------------------------------------------------- */

int cuMemAlloc_v2(uintptr_t *address, size_t bytes) {
    if (contexts.empty()) return NO_CONTEXT;
    if (!bytes) return INVALID;
    if (const int status = refused()) return status;
    void *p = nullptr;
    if (posix_memalign(&p, 256, bytes)) return NO_MEMORY;
    memset(p, 0xff, bytes); /* what is not written shows */
    *address = (uintptr_t)p;
    const std::lock_guard<std::mutex> lock(allocations_change);
    allocations[*address] = bytes;
    return FINE;
}
int cuMemFree_v2(uintptr_t address) {
    if (const int status = refused()) return status;
    const std::lock_guard<std::mutex> lock(allocations_change);
    if (!allocations.erase(address)) return INVALID;
    return free((void *)address), FINE;
}
int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    if (contexts.empty()) return NO_CONTEXT;
    return posix_memalign(memory, 256, bytes) ? NO_MEMORY : FINE;
}
int cuMemFreeHost(void *memory) { return free(memory), FINE; }
int cuMemGetInfo_v2(size_t *left, size_t *all) { return *left = *all = MEMORY, FINE; }
int cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t bytes) {
    return copy_now((void *)to, from, bytes, true, false);
}
int cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t bytes) {
    return copy_now(to, (void *)from, bytes, false, true);
}
int cuMemcpyDtoD_v2(uintptr_t to, uintptr_t from, size_t bytes) {
    return copy_now((void *)to, (void *)from, bytes, true, true);
}
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *stream) {
    return copy_on(stream, (void *)to, from, bytes, true, false);
}
int cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *stream) {
    return copy_on(stream, to, (void *)from, bytes, false, true);
}
int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    return copy_on(stream, (void *)to, (void *)from, bytes, true, true);
}
int cuMemsetD8Async(uintptr_t to, unsigned char value, size_t count, void *stream) {
    return repeat(to, value, count, stream);
}
int cuMemsetD16Async(uintptr_t to, unsigned short value, size_t count, void *stream) {
    return repeat(to, value, count, stream);
}
int cuMemsetD32Async(uintptr_t to, unsigned value, size_t count, void *stream) {
    return repeat(to, value, count, stream);
}
int cuMemsetD8_v2(uintptr_t to, unsigned char value, size_t bytes) {
    return cuMemsetD8Async(to, value, bytes, nullptr);
}

/* ---- streams and events: everything is done when a call returns -------------------------------- */

int cuStreamCreate(void **stream, unsigned flags) {
    const std::lock_guard<std::mutex> lock(captures_change);
    *stream = malloc(1);
    return streams[*stream] = flags, FINE;
}
int cuStreamDestroy_v2(void *stream) {
    const std::lock_guard<std::mutex> lock(captures_change);
    captures.erase(stream);
    if (!streams.erase(stream)) return INVALID;
    return free(stream), FINE;
}
int cuStreamSynchronize(void *stream) { return waited_for(stream); }
int cuStreamQuery(void *stream) { return waited_for(stream); }
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *given) {
    return submit(stream, [=] { return function(given), int(FINE); });
}
int cuStreamWaitEvent(void *, void *, unsigned) { return FINE; }
int cuEventCreate(void **event, unsigned) { return *event = new Event, FINE; }
int cuEventDestroy_v2(void *event) { return delete (Event *)event, FINE; }
int cuEventRecord(void *event, void *) {
    return ((Event *)event)->at = std::chrono::steady_clock::now(), FINE;
}
int cuEventSynchronize(void *) { return FINE; }
int cuEventQuery(void *) { return FINE; }
int cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    const auto passed = ((Event *)to)->at - ((Event *)from)->at;
    *milliseconds = std::chrono::duration<float, std::milli>(passed).count();
    return FINE;
}

/* ---- graphs ------------------------------------------------------------------------------------- */

int cuThreadExchangeStreamCaptureMode(int *mode) {
    if (*mode < GLOBAL || *mode > RELAXED) return INVALID;
    return std::swap(*mode, thread_mode), FINE;
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
    if (contexts.empty()) return NO_CONTEXT;
    if (!stream) return CAPTURE_UNSUPPORTED; /* the default one */
    const std::lock_guard<std::mutex> lock(captures_change);
    if (captures.count(stream)) return ILLEGAL_STATE;
    captures[stream] = Capture{mode, std::this_thread::get_id(), {}, false};
    return FINE;
}
int cuStreamIsCapturing(void *stream, int *status) {
    const std::lock_guard<std::mutex> lock(captures_change);
    const auto found = captures.find(stream);
    *status = found == captures.end() ? 0 : found->second.broken ? 2 : 1;
    return FINE;
}
int cuStreamEndCapture(void *stream, void **graph) {
    *graph = nullptr;
    const std::lock_guard<std::mutex> lock(captures_change);
    const auto found = captures.find(stream);
    if (found == captures.end()) return ILLEGAL_STATE;
    Capture &c = found->second;
    if (c.mode != RELAXED && c.thread != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    const bool broken = c.broken;
    if (!broken) *graph = new Graph(std::move(c.graph));
    captures.erase(found);
    return broken ? CAPTURE_INVALIDATED : FINE;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long) {
    return *executable = new Graph(*(Graph *)graph), FINE;
}
int cuGraphDestroy(void *graph) { return delete (Graph *)graph, FINE; }
int cuGraphExecDestroy(void *executable) { return delete (Graph *)executable, FINE; }
int cuGraphLaunch(void *executable, void *stream) {
    if (contexts.empty()) return NO_CONTEXT;
    if (!executable) return INVALID;
    return submit(stream, [=] {
        for (const Work &work : ((Graph *)executable)->work)
            if (const int status = work()) return status;
        return int(FINE);
    });
}

/* ---- modules ------------------------------------------------------------------------------------ */

int cuModuleLoadData(void **module, const void *image) {
    if (contexts.empty()) return NO_CONTEXT;
    if (const int status = refused()) return status;
    const auto *const head = (const Elf64_Ehdr *)image;
    if (memcmp(head->e_ident, ELFMAG, SELFMAG) || head->e_type != ET_DYN) return NO_IMAGE;
    const size_t bytes = head->e_shoff + size_t(head->e_shnum) * head->e_shentsize;
    const int file = memfd_create("module", 0);
    if (file < 0 || write(file, image, bytes) != (ssize_t)bytes) return NO_IMAGE;
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    void *const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return NO_IMAGE;
    const auto attach = (void (*)(Machine *))dlsym(library, "emulated_attach");
    if (!attach) return NO_IMAGE;
    attach(emulated_machine());
    *module = new Module{library, file, {}};
    return FINE;
}
int cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void *) {
    return cuModuleLoadData(module, image);
}
int cuModuleUnload(void *module) {
    if (const int status = refused()) return status;
    dlclose(((Module *)module)->library);
    close(((Module *)module)->file);
    return delete (Module *)module, FINE;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    Module &m = *(Module *)module;
    const std::string text = name;
    const auto run = (void (*)(void **))dlsym(m.library, ("emulated_run_" + text).c_str());
    const auto count = (const int *)dlsym(m.library, ("emulated_count_" + text).c_str());
    if (!run || !count) return NOT_FOUND;
    Function &f = m.functions[text];
    f.run = run;
    f.count = *count;
    f.name = text;
    *function = &f;
    return FINE;
}
int cuFuncGetAttribute(int *value, int attribute, void *) {
    *value = attribute == 0 ? THREADS_BLOCK : attribute == 4 ? REGISTERS : 0;
    return FINE;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    if (attribute != 8 || value < 0 || (size_t)value > SHARED_MOST) return INVALID;
    return ((Function *)function)->shared = (size_t)value, FINE;
}

int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **given, void **) {
    return launch(stream, (Function *)f, {gx, gy, gz}, {bx, by, bz}, shared, given, false);
}
int cuLaunchCooperativeKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                              unsigned by, unsigned bz, unsigned shared, void *stream,
                              void **given) {
    return launch(stream, (Function *)f, {gx, gy, gz}, {bx, by, bz}, shared, given, true);
}

int cuGetErrorName(int status, const char **name) {
    *name = name_of(status);
    return *name ? FINE : INVALID;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == LAUNCH_FAILED ? said.c_str() : name_of(status);
    return *text ? FINE : INVALID;
}

}

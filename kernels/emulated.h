/* What CUDA supplies to the text of a kernel, for the C++ compiler of a host.
 *
 * Every CUDA thread is a fiber of one system thread; emulated.cpp switches between them, at
 * meetings only, so a loop that waits for a plain write has to call emulated::yield(). A library of
 * kernels reaches it through a table that it is handed when loaded. No system header: hundreds of
 * texts include this one. */
#ifndef GS_EMULATED_H
#define GS_EMULATED_H

#define __global__ __attribute__((noinline)) /* compiled once, and not again where it is called */
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define EMULATED static inline __attribute__((always_inline, unused))
#define EMULATED_METHOD inline __attribute__((always_inline))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define EMULATED_VECTORS(type, name, base)                                                \
    struct alignas(2 * sizeof(type)) name##2 {                                            \
        type x, y;                                                                        \
    };                                                                                    \
    struct alignas(16) name##4 {                                                          \
        type x, y, z, w;                                                                  \
    };                                                                                    \
    EMULATED name##2 make_##name##2(type x, type y) { return {x, y}; }                    \
    EMULATED name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float, )
EMULATED_VECTORS(double, double, )
EMULATED_VECTORS(int, int, )
EMULATED_VECTORS(unsigned, uint, )
EMULATED_VECTORS(long long, longlong, )
#undef EMULATED_VECTORS

namespace emulated {

typedef unsigned long long Word;

/* A line of the kernel's text. */
struct Spot {
    const char *file;
    int line;
};
#define EMULATED_SPOT emulated::Spot spot = {__builtin_FILE(), __builtin_LINE()}

struct Team { /* a block, as its threads see it */
    uint3 index;
    unsigned char *shared;
};

/* What a thread has started to copy: it comes as late as it may. */
struct Copy {
    void *to;
    const void *from;
    unsigned size, group;
};

struct Place { /* a thread, as it sees itself */
    uint3 index;
    unsigned lane;
    Team *team;
    Copy copies[48];
    unsigned started, groups; /* of the copies; that are complete */
};

/* A product of a warp: what each lane brings of a and b, and its share of the sum. */
struct Product {
    int m, n, k;
    const float *a, *b;
    float *sum;
};

/* Where a lane's i-th share of `count` elements lies: spread widely, for which are whose is not
 * for a kernel to know. */
EMULATED int element(int lane, int i, int count) {
    return (lane * (count / 32) + i) * 37 & (count - 1);
}

struct Machine {
    Place *here; /* of the thread that runs */
    dim3 block_dim, grid_dim;
    int (*meet_block)(int vote, const char *what, Spot); /* how many of its threads vote */
    void (*meet_grid)(Spot);
    void (*meet_warp)(unsigned mask, const char *what, bool is_fence, Spot);
    Word (*exchange)(unsigned mask, Word value, unsigned from, const char *what, Spot);
    unsigned (*ballot)(unsigned mask, bool vote, const char *what, Spot);
    void (*multiply)(Product *, Spot);
    void (*yield)(Spot);
    void (*look)(Spot); /* an atomic that changed nothing: perhaps its thread waits */
    void (*progress)();
    void (*fence)();
    bool (*releases)(const void *address); /* whether an atomic comes behind a fence */
    void (*fail)(const char *what, Spot); /* does not return */
};

static Machine *machine;

/* Waits for the thread's copies, but for those of so many groups that were closed last and what is
 * in none yet. */
EMULATED void copied_but(unsigned groups) {
    Place *const me = machine->here;
    unsigned left = 0;
    for (unsigned i = 0; i < me->started; i++) {
        const Copy c = me->copies[i];
        if (c.group + groups >= me->groups) me->copies[left++] = c;
        else if (c.size == 4) __builtin_memcpy(c.to, c.from, 4);
        else if (c.size == 8) __builtin_memcpy(c.to, c.from, 8);
        else __builtin_memcpy(c.to, c.from, 16);
    }
    me->started = left;
}

/* The copies that were started since the last call are a group. */
EMULATED void close_copies() { machine->here->groups++; }

/* Waits for all of them. */
EMULATED void copied() {
    close_copies();
    copied_but(0);
}

/* Starts to copy 4, 8 or 16 bytes: until the thread waits, nothing is there. */
EMULATED void copy(void *to, const void *from, unsigned size) {
    Place *const me = machine->here;
    if (me->started == sizeof me->copies / sizeof *me->copies) copied();
    const Word nothing[2] = {~(Word)0, ~(Word)0};
    if (size == 4) __builtin_memcpy(to, nothing, 4);
    else if (size == 8) __builtin_memcpy(to, nothing, 8);
    else __builtin_memcpy(to, nothing, 16);
    me->copies[me->started++] = {to, from, size, me->groups};
}

/* Called by a loop that waits for a write of another thread, once a look. */
EMULATED void yield(EMULATED_SPOT) { machine->yield(spot); }

/* Called behind an atomic write: somebody's waiting may be over. */
EMULATED void progress() { machine->progress(); }

}  // namespace emulated

#define threadIdx (emulated::machine->here->index)
#define blockIdx (emulated::machine->here->team->index)
#define blockDim (emulated::machine->block_dim)
#define gridDim (emulated::machine->grid_dim)
static constexpr int warpSize __attribute__((unused)) = 32;
#define GS_SHARED(name) unsigned char *const name = emulated::machine->here->team->shared

/* ---- meetings ------------------------------------------------------------------------------ */

EMULATED void __syncthreads(EMULATED_SPOT) {
    emulated::machine->meet_block(0, "__syncthreads", spot);
}
EMULATED int __syncthreads_count(int vote, EMULATED_SPOT) {
    return emulated::machine->meet_block(vote != 0, "__syncthreads_count", spot);
}
EMULATED int __syncthreads_or(int vote, EMULATED_SPOT) {
    return emulated::machine->meet_block(vote != 0, "__syncthreads_or", spot) != 0;
}
EMULATED int __syncthreads_and(int vote, EMULATED_SPOT) {
    return emulated::machine->meet_block(!vote, "__syncthreads_and", spot) == 0;
}
EMULATED void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_SPOT) {
    emulated::machine->meet_warp(mask, "__syncwarp", true, spot);
}
EMULATED unsigned __ballot_sync(unsigned mask, int vote, EMULATED_SPOT) {
    return emulated::machine->ballot(mask, vote != 0, "__ballot_sync", spot);
}
EMULATED int __any_sync(unsigned mask, int vote, EMULATED_SPOT) {
    return emulated::machine->ballot(mask, vote != 0, "__any_sync", spot) != 0;
}
EMULATED int __all_sync(unsigned mask, int vote, EMULATED_SPOT) {
    return emulated::machine->ballot(mask, !vote, "__all_sync", spot) == 0;
}
/* Which lanes are together is the hardware's choice: here each is alone. */
EMULATED unsigned __activemask() { return 1u << emulated::machine->here->lane; }

namespace emulated {
template <class T>
EMULATED T exchange(unsigned mask, T value, unsigned from, const char *what, Spot spot) {
    static_assert(sizeof(T) <= sizeof(Word));
    Word word = 0;
    __builtin_memcpy(&word, &value, sizeof value);
    word = machine->exchange(mask, word, from, what, spot);
    __builtin_memcpy(&value, &word, sizeof value);
    return value;
}
}  // namespace emulated

/* The lanes are groups of `width`; what would come from another group is a lane's own. */
template <class T>
EMULATED T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMULATED_SPOT) {
    const unsigned me = emulated::machine->here->lane, first = me & ~(unsigned)(width - 1);
    const unsigned from = first + ((unsigned)lane & (unsigned)(width - 1));
    return emulated::exchange(mask, value, from, "__shfl_sync", spot);
}
template <class T>
EMULATED T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATED_SPOT) {
    const unsigned me = emulated::machine->here->lane, last = me | (unsigned)(width - 1);
    const unsigned from = me ^ (unsigned)bits;
    return emulated::exchange(mask, value, from > last ? me : from, "__shfl_xor_sync", spot);
}
template <class T>
EMULATED T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                            EMULATED_SPOT) {
    const unsigned me = emulated::machine->here->lane, last = me | (unsigned)(width - 1);
    const unsigned from = delta > last - me ? me : me + delta;
    return emulated::exchange(mask, value, from, "__shfl_down_sync", spot);
}
template <class T>
EMULATED T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATED_SPOT) {
    const unsigned me = emulated::machine->here->lane, first = me & ~(unsigned)(width - 1);
    const unsigned from = delta > me - first ? me : me - delta;
    return emulated::exchange(mask, value, from, "__shfl_up_sync", spot);
}

/* ---- atomics and fences: relaxed, unless a fence made them more ---------------------------- */

EMULATED void __threadfence() { emulated::machine->fence(); }
EMULATED void __threadfence_block() { emulated::machine->fence(); }
EMULATED void __threadfence_system() { emulated::machine->fence(); }
EMULATED void __nanosleep(unsigned, EMULATED_SPOT) { emulated::machine->yield(spot); }
EMULATED void __trap(EMULATED_SPOT) { emulated::machine->fail("__trap", spot); }

namespace emulated {
/* What lay there. `change` may run several times; `B` are the bits of a T. */
template <class B, class T, class F> EMULATED T update(T *p, F change, Spot spot) {
    const bool releases = machine->releases(p);
    B *const at = (B *)p;
    B before = __atomic_load_n(at, __ATOMIC_RELAXED), after;
    T value;
    for (bool done = false; !done;) {
        __builtin_memcpy(&value, &before, sizeof value);
        const T changed = change(value);
        __builtin_memcpy(&after, &changed, sizeof after);
        done = releases ? __atomic_compare_exchange_n(at, &before, after, false, __ATOMIC_RELEASE,
                                                      __ATOMIC_RELAXED)
                        : __atomic_compare_exchange_n(at, &before, after, false, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED);
    }
    if (before != after) machine->progress();
    else machine->look(spot);
    return value;
}
}  // namespace emulated

#define EMULATED_UPDATE(name, type, bits, changed)                                        \
    EMULATED type name(type *p, type x, EMULATED_SPOT) {                                  \
        return emulated::update<bits>(p, [=](type old) -> type { return changed; }, spot); \
    }
#define EMULATED_WORDS(name, changed)                                                     \
    EMULATED_UPDATE(name, int, unsigned, changed)                                         \
    EMULATED_UPDATE(name, unsigned, unsigned, changed)                                    \
    EMULATED_UPDATE(name, unsigned long long, unsigned long long, changed)
#define EMULATED_FLOATS(name, changed)                                                    \
    EMULATED_UPDATE(name, float, unsigned, changed)                                       \
    EMULATED_UPDATE(name, double, unsigned long long, changed)
EMULATED_WORDS(atomicAdd, old + x)
EMULATED_FLOATS(atomicAdd, old + x)
EMULATED_UPDATE(atomicSub, int, unsigned, old - x)
EMULATED_UPDATE(atomicSub, unsigned, unsigned, old - x)
EMULATED_WORDS(atomicMin, x < old ? x : old)
EMULATED_UPDATE(atomicMin, long long, unsigned long long, x < old ? x : old)
EMULATED_WORDS(atomicMax, x > old ? x : old)
EMULATED_UPDATE(atomicMax, long long, unsigned long long, x > old ? x : old)
EMULATED_WORDS(atomicExch, ((void)old, x))
EMULATED_UPDATE(atomicExch, float, unsigned, ((void)old, x))
EMULATED_WORDS(atomicOr, old | x)
EMULATED_WORDS(atomicAnd, old &x)
EMULATED_WORDS(atomicXor, old ^ x)

#define EMULATED_CAS(type, bits)                                                          \
    EMULATED type atomicCAS(type *p, type expected, type x, EMULATED_SPOT) {              \
        return emulated::update<bits>(                                                    \
            p, [=](type old) -> type { return old == expected ? x : old; }, spot);        \
    }
EMULATED_CAS(int, unsigned)
EMULATED_CAS(unsigned, unsigned)
EMULATED_CAS(unsigned long long, unsigned long long)

#undef EMULATED_UPDATE
#undef EMULATED_WORDS
#undef EMULATED_FLOATS
#undef EMULATED_CAS

/* ---- memory and arithmetic, as the device names it ----------------------------------------- */

#define EMULATED_LOAD(name)                                                               \
    template <class T> EMULATED T name(const T *p) { return *p; }
#define EMULATED_STORE(name)                                                              \
    template <class T, class S> EMULATED void name(T *p, S x) { *p = x; }
EMULATED_LOAD(__ldg)
EMULATED_LOAD(__ldcg)
EMULATED_LOAD(__ldca)
EMULATED_LOAD(__ldcs)
EMULATED_LOAD(__ldcv)
EMULATED_STORE(__stcg)
EMULATED_STORE(__stcs)
EMULATED_STORE(__stwb)
EMULATED_STORE(__stwt)
#undef EMULATED_LOAD
#undef EMULATED_STORE

/* Texts are built without contraction, so these round as they say. */
EMULATED float __fmul_rn(float x, float y) { return x * y; }
EMULATED float __fadd_rn(float x, float y) { return x + y; }
EMULATED float __fsub_rn(float x, float y) { return x - y; }
EMULATED float __fdiv_rn(float x, float y) { return x / y; }
EMULATED float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
EMULATED float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
EMULATED double __dmul_rn(double x, double y) { return x * y; }
EMULATED double __dadd_rn(double x, double y) { return x + y; }
EMULATED double __dsub_rn(double x, double y) { return x - y; }
EMULATED double __ddiv_rn(double x, double y) { return x / y; }
EMULATED double __dsqrt_rn(double x) { return __builtin_sqrt(x); }
EMULATED double __fma_rn(double x, double y, double z) { return __builtin_fma(x, y, z); }

#define EMULATED_BITS(name, to, from)                                                     \
    EMULATED to name(from x) {                                                            \
        to y;                                                                             \
        __builtin_memcpy(&y, &x, sizeof y);                                               \
        return y;                                                                         \
    }
EMULATED_BITS(__float_as_uint, unsigned, float)
EMULATED_BITS(__float_as_int, int, float)
EMULATED_BITS(__uint_as_float, float, unsigned)
EMULATED_BITS(__int_as_float, float, int)
EMULATED_BITS(__double_as_longlong, long long, double)
EMULATED_BITS(__longlong_as_double, double, long long)
#undef EMULATED_BITS

EMULATED int __popc(unsigned x) { return __builtin_popcount(x); }
EMULATED int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
EMULATED int __ffs(int x) { return __builtin_ffs(x); }
EMULATED unsigned __umulhi(unsigned x, unsigned y) {
    return (unsigned)((emulated::Word)x * y >> 32);
}

#define EMULATED_ORDER(type)                                                              \
    EMULATED type min(type x, type y) { return y < x ? y : x; }                           \
    EMULATED type max(type x, type y) { return x < y ? y : x; }
EMULATED_ORDER(int)
EMULATED_ORDER(unsigned)
EMULATED_ORDER(long long)
EMULATED_ORDER(unsigned long long)
#undef EMULATED_ORDER

/* As <math.h> declares them, which would take longer to read than all of this. */
#ifndef EMULATED_MACHINE
#define EMULATED_MATHS(name)                                                              \
    extern "C" float name##f(float) noexcept(true);                                       \
    extern "C" double name(double) noexcept(true);
EMULATED_MATHS(exp) EMULATED_MATHS(log) EMULATED_MATHS(tanh) EMULATED_MATHS(sqrt)
EMULATED_MATHS(sin) EMULATED_MATHS(cos) EMULATED_MATHS(floor) EMULATED_MATHS(ceil)
EMULATED_MATHS(trunc) EMULATED_MATHS(rint) EMULATED_MATHS(fabs)
#undef EMULATED_MATHS
#define EMULATED_MATHS(name)                                                              \
    extern "C" float name##f(float, float) noexcept(true);                                \
    extern "C" double name(double, double) noexcept(true);
EMULATED_MATHS(pow) EMULATED_MATHS(fmod) EMULATED_MATHS(fmin) EMULATED_MATHS(fmax)
#undef EMULATED_MATHS
extern "C" float fmaf(float, float, float) noexcept(true);
extern "C" double fma(double, double, double) noexcept(true);
#endif

EMULATED long long clock64() {
#if defined(__x86_64__)
    return (long long)__builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    long long now;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(now));
    return now;
#else
    static long long now;
    return ++now;
#endif
}

/* ---- of cooperative groups and libcu++ ------------------------------------------------------ */

namespace cooperative_groups {
struct grid_group {
    EMULATED_METHOD void sync(EMULATED_SPOT) const { emulated::machine->meet_grid(spot); }
};
EMULATED grid_group this_grid() { return {}; }
}  // namespace cooperative_groups

namespace cuda {
enum thread_scope { thread_scope_system, thread_scope_device, thread_scope_block };
enum memory_order {
    memory_order_relaxed = __ATOMIC_RELAXED,
    memory_order_acquire = __ATOMIC_ACQUIRE,
    memory_order_release = __ATOMIC_RELEASE,
    memory_order_acq_rel = __ATOMIC_ACQ_REL,
    memory_order_seq_cst = __ATOMIC_SEQ_CST,
};
template <class T, thread_scope = thread_scope_system> struct atomic_ref {
    T *p;
    EMULATED_METHOD explicit atomic_ref(T &x) : p(&x) {}
    EMULATED_METHOD T load(memory_order order = memory_order_seq_cst, EMULATED_SPOT) const {
        const T x = __atomic_load_n(p, order);
        emulated::machine->yield(spot);
        return x;
    }
    EMULATED_METHOD void store(T x, memory_order order = memory_order_seq_cst) const {
        __atomic_store_n(p, x, order);
        emulated::machine->progress();
    }
    EMULATED_METHOD T fetch_add(T x, memory_order order = memory_order_seq_cst) const {
        const T before = __atomic_fetch_add(p, x, order);
        emulated::machine->progress();
        return before;
    }
};
}  // namespace cuda

/* ---- what the library offers --------------------------------------------------------------- */

#define EMULATED_OFFERED extern "C" __attribute__((visibility("default")))

EMULATED_OFFERED void emulated_attach(emulated::Machine *machine) { emulated::machine = machine; }

namespace emulated {
template <class... P> struct Call { /* braces take its arguments in order */
    Call(void (*kernel)(P...), P... arguments) { kernel(arguments...); }
};
template <class P> EMULATED P take(void **&arguments) {
    static_assert(sizeof(P) == 8, "a kernel's parameters are pointers and long longs");
    return *(P *)*arguments++;
}
template <class... P> EMULATED void call(void (*kernel)(P...), void **arguments) {
    Call<P...>{kernel, take<P>(arguments)...};
}
template <class... P> constexpr int count(void (*)(P...)) { return sizeof...(P); }
}  // namespace emulated

/* A kernel as emulated.cpp calls it, and how many parameters it has. */
#define EMULATED_KERNEL(name)                                                             \
    EMULATED_OFFERED const int emulated_count_##name = emulated::count(name);             \
    EMULATED_OFFERED void emulated_run_##name(void **arguments) {                         \
        emulated::call(name, arguments);                                                  \
    }

#endif

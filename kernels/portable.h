/* What C11, C++17 and NVRTC call the same things by. Needs no system header. */
#ifndef GS_PORTABLE_H
#define GS_PORTABLE_H

#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
/* gcc interleaves the independent parts of a long loop body only when told to */
#pragma GCC optimize("schedule-insns", "sched-pressure")
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define GS_FN static __device__ __forceinline__
#define GS_APART static __device__ __noinline__
#define GS_RARE GS_APART /* a device's code is the shorter for what is seldom called */
#define GS_TABLE static __device__ const
#define GS_LIBM(name) name
#else
#define GS_FN static inline __attribute__((always_inline, unused))
#define GS_APART static __attribute__((noinline, unused))
#define GS_RARE GS_FN
#define GS_TABLE static const __attribute__((unused))
#define GS_LIBM(name) __builtin_##name
#endif
#define GS_RESTRICT __restrict__

typedef int gs_i32;
typedef unsigned int gs_u32;
typedef long long gs_i64;
typedef unsigned long long gs_u64;

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
GS_FN gs_u32 gs_bits_f32(float x) { return __float_as_uint(x); }
GS_FN float gs_real_f32(gs_u32 u) { return __uint_as_float(u); }
GS_FN gs_u64 gs_bits_f64(double x) { return (gs_u64)__double_as_longlong(x); }
GS_FN double gs_real_f64(gs_u64 u) { return __longlong_as_double((gs_i64)u); }
#define GS_SQRT_f32(x) __fsqrt_rn(x)
#define GS_SQRT_f64(x) __dsqrt_rn(x)
#define GS_FLOOR_f32(x) floorf(x)
#define GS_FLOOR_f64(x) floor(x)
#define GS_FMOD_f32(x, y) fmodf(x, y)
#define GS_FMOD_f64(x, y) fmod(x, y)

/* a / b to the last bit, where |b| lies in [2^-24, 2^60] and |a / b| in [2^-72, 2^60], or a is 0,
 * or b is 1 or 2. The compiler's own division takes the same steps, and then a branch for what lies
 * outside: which keeps it from mixing the steps of several, and a thread that has few to do waits
 * for each of them. */
GS_FN float gs_quotient_f32(float a, float b) {
    float y = __fdividef(1.0f, b);
    y = __fmaf_rn(y, __fmaf_rn(-b, y, 1.0f), y);
    float q = a * y;
    q = __fmaf_rn(__fmaf_rn(-b, q, a), y, q);
    return __fmaf_rn(__fmaf_rn(-b, q, a), y, q);
}
/* So a square root, x in [2^-60, 2^60]. */
GS_FN float gs_root_f32(float x) {
    const float y = rsqrtf(x), r = x * y;
    return __fmaf_rn(__fmaf_rn(-r, r, x), y * 0.5f, r);
}
/* a where c holds, else b. By their bits: of a ? : the compiler makes a branch too. */
GS_FN float gs_select_f32(bool c, float a, float b) {
    const gs_u32 mask = 0u - (gs_u32)c;
    return gs_real_f32((gs_bits_f32(a) & mask) | (gs_bits_f32(b) & ~mask));
}
GS_FN double gs_select_f64(bool c, double a, double b) {
    const gs_u64 mask = 0ull - (gs_u64)c;
    return gs_real_f64((gs_bits_f64(a) & mask) | (gs_bits_f64(b) & ~mask));
}
#else
GS_FN float gs_select_f32(int c, float a, float b) { return c ? a : b; }
GS_FN double gs_select_f64(int c, double a, double b) { return c ? a : b; }
GS_FN gs_u32 gs_bits_f32(float x) {
    gs_u32 u;
    __builtin_memcpy(&u, &x, sizeof u);
    return u;
}
GS_FN float gs_real_f32(gs_u32 u) {
    float x;
    __builtin_memcpy(&x, &u, sizeof x);
    return x;
}
GS_FN gs_u64 gs_bits_f64(double x) {
    gs_u64 u;
    __builtin_memcpy(&u, &x, sizeof u);
    return u;
}
GS_FN double gs_real_f64(gs_u64 u) {
    double x;
    __builtin_memcpy(&x, &u, sizeof x);
    return x;
}
#define GS_SQRT_f32(x) __builtin_sqrtf(x)
#define GS_SQRT_f64(x) __builtin_sqrt(x)
#define GS_FLOOR_f32(x) __builtin_floorf(x)
#define GS_FLOOR_f64(x) __builtin_floor(x)
#define GS_FMOD_f32(x, y) __builtin_fmodf(x, y)
#define GS_FMOD_f64(x, y) __builtin_fmod(x, y)

GS_FN float gs_quotient_f32(float a, float b) { return a / b; }
GS_FN float gs_root_f32(float x) { return GS_SQRT_f32(x); }
#endif

GS_FN double gs_quotient_f64(double a, double b) { return a / b; }
GS_FN double gs_root_f64(double x) { return GS_SQRT_f64(x); }

GS_FN gs_u32 gs_mulhi_f32(gs_u32 a, gs_u32 b) { return (gs_u32)(((gs_u64)a * b) >> 32); }

/* The high 64 bits of a * b, by halves: no 128-bit type everywhere. */
GS_FN gs_u64 gs_mulhi_f64(gs_u64 a, gs_u64 b) {
    gs_u64 al = a & 0xffffffffu, ah = a >> 32, bl = b & 0xffffffffu, bh = b >> 32;
    gs_u64 mid = ah * bl + ((al * bl) >> 32);
    gs_u64 low = al * bh + (mid & 0xffffffffu);
    return ah * bh + (mid >> 32) + (low >> 32);
}

#endif

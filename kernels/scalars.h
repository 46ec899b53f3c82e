/* The elementwise functions that C has no operator for, under one name a dtype. What they are
 * transcendental of is maths.h; here are absolute value, sign, rounding, order and casts. */
#ifndef GS_SCALARS_H
#define GS_SCALARS_H

#include "maths.h"

#define GS_FLOATS(X) X(float, f32) X(double, f64)
#define GS_SIGNED(X) X(signed char, i8) X(short, i16) X(int, i32) X(long long, i64)
#define GS_UNSIGNED(X)                                                                    \
    X(unsigned char, u8) X(unsigned short, u16) X(unsigned int, u32) X(unsigned long long, u64)
#define GS_INTEGERS(X) GS_SIGNED(X) GS_UNSIGNED(X)

/* What integers are added and multiplied in: without a sign, since NVRTC takes it that no sum with
 * one overflows. */
typedef unsigned int gs_word_i8, gs_word_i16, gs_word_i32, gs_word_u8, gs_word_u16, gs_word_u32;
typedef unsigned long long gs_word_i64, gs_word_u64;

/* NumPy's maximum and minimum: NaN wins, and of two zeros the second. For this order of the
 * questions, of which a constant b answers one, compilers have vectors. */
#define GS_ORDER(type, t)                                                                 \
    GS_FN type gs_max_##t(type a, type b) { return (a <= b || b != b) ? b : a; }          \
    GS_FN type gs_min_##t(type a, type b) { return (a >= b || b != b) ? b : a; }
GS_FLOATS(GS_ORDER)
GS_INTEGERS(GS_ORDER)
GS_ORDER(unsigned char, b8)

#define GS_SQUARE(type, t)                                                                \
    GS_FN type gs_sqr_##t(type a) { return (type)((gs_word_##t)a * (gs_word_##t)a); }
GS_INTEGERS(GS_SQUARE)
GS_FN float gs_sqr_f32(float a) { return a * a; }
GS_FN double gs_sqr_f64(double a) { return a * a; }
GS_FN unsigned char gs_sqr_b8(unsigned char a) { return a; }

#define GS_SIGNED_ONLY(type, t)                                                           \
    GS_FN type gs_abs_##t(type a) { return a < 0 ? (type)(0 - (gs_word_##t)a) : a; }      \
    GS_FN type gs_sign_##t(type a) { return (type)((a > 0) - (a < 0)); }
GS_SIGNED(GS_SIGNED_ONLY)

#define GS_UNSIGNED_ONLY(type, t)                                                         \
    GS_FN type gs_abs_##t(type a) { return a; }                                           \
    GS_FN type gs_sign_##t(type a) { return (type)(a > 0); }
GS_UNSIGNED(GS_UNSIGNED_ONLY)

#define GS_UNSIGNED_QUOTIENT(type, t)                                                     \
    GS_FN type gs_floor_divide_##t(type a, type b) { return (type)(b ? a / b : 0); }      \
    GS_FN type gs_mod_##t(type a, type b) { return (type)(b ? a % b : 0); }
GS_UNSIGNED(GS_UNSIGNED_QUOTIENT)

/* Rounding leaves them as they are. */
#define GS_ROUND(type, t)                                                                 \
    GS_FN type gs_floor_##t(type a) { return a; }                                         \
    GS_FN type gs_ceil_##t(type a) { return a; }                                          \
    GS_FN type gs_trunc_##t(type a) { return a; }                                         \
    GS_FN type gs_rint_##t(type a) { return a; }                                          \
    GS_FN type gs_round_##t(type a) { return a; }                                         \
    GS_FN int gs_isinf_##t(type a) { return (void)a, 0; }
GS_INTEGERS(GS_ROUND)
GS_ROUND(unsigned char, b8)

#define GS_WHOLE(type, t)                                                                 \
    GS_FN type gs_not_##t(type a) { return (type)~a; }                                    \
    /* By squaring. A negative exponent leaves what truncation leaves of the exact value; \
     * compilers warn of a plain n < 0 where n has no sign. */                            \
    GS_FN type gs_power_##t(type x, type n) {                                             \
        if (n && n < 1) return (type)(x == 1 ? 1 : x == (type)-1 ? (n & 1 ? -1 : 1) : 0); \
        type y = 1;                                                                       \
        for (; n; n = (type)(n >> 1)) {                                                   \
            if (n & 1) y = (type)((gs_word_##t)y * (gs_word_##t)x);                       \
            x = gs_sqr_##t(x);                                                            \
        }                                                                                 \
        return y;                                                                         \
    }
GS_INTEGERS(GS_WHOLE)

GS_FN unsigned char gs_not_b8(unsigned char a) { return !a; }
GS_FN unsigned char gs_abs_b8(unsigned char a) { return a; }

#define GS_REAL(type, t, f)                                                               \
    GS_FN type gs_sign_##t(type a) { return a > 0 ? 1 : a < 0 ? -1 : a != a ? a : 0; }    \
    GS_FN type gs_sqrt_##t(type a) { return GS_SQRT_##t(a); }                             \
    GS_FN type gs_floor_##t(type a) { return GS_LIBM(floor##f)(a); }                      \
    GS_FN type gs_ceil_##t(type a) { return GS_LIBM(ceil##f)(a); }                        \
    GS_FN type gs_trunc_##t(type a) { return GS_LIBM(trunc##f)(a); }                      \
    GS_FN type gs_rint_##t(type a) { return GS_LIBM(rint##f)(a); }                        \
    GS_FN type gs_round_##t(type a) {                                                     \
        return GS_LIBM(copysign##f)(GS_LIBM(floor##f)(GS_LIBM(fabs##f)(a) + (type)0.5), a); \
    }                                                                                     \
    GS_FN int gs_isinf_##t(type a) { return GS_LIBM(fabs##f)(a) == gs_inf_##t(); }
GS_REAL(float, f32, f)
GS_REAL(double, f64, )

/* Floats as integers, cut to whole numbers; `ops.scalar` says what comes of the others. C leaves
 * that open, CPUs and GPUs differ. */
#define GS_CUT(type, t, f)                                                                \
    GS_FN int gs_int32_##t(type x) {                                                      \
        const type end = 2147483648.0##f;                                                 \
        return GS_LIBM(fabs##f)(x) < end ? (int)x : -2147483647 - 1;                      \
    }                                                                                     \
    GS_FN gs_i64 gs_int64_##t(type x) {                                                   \
        const type end = 9223372036854775808.0##f;                                        \
        return GS_LIBM(fabs##f)(x) < end ? (gs_i64)x : -9223372036854775807ll - 1;        \
    }                                                                                     \
    GS_FN gs_u64 gs_uint64_##t(type x) {                                                  \
        const type end = 9223372036854775808.0##f;                                        \
        const int far = x >= end;                                                         \
        return (gs_u64)gs_int64_##t(far ? x - end : x) ^ ((gs_u64)far << 63);             \
    }                                                                                     \
    GS_FN signed char gs_int8_##t(type x) { return (signed char)gs_int32_##t(x); }        \
    GS_FN short gs_int16_##t(type x) { return (short)gs_int32_##t(x); }                   \
    GS_FN unsigned char gs_uint8_##t(type x) { return (unsigned char)gs_int32_##t(x); }   \
    GS_FN unsigned short gs_uint16_##t(type x) { return (unsigned short)gs_int32_##t(x); } \
    GS_FN unsigned int gs_uint32_##t(type x) { return (unsigned int)gs_int64_##t(x); }
GS_CUT(float, f32, f)
GS_CUT(double, f64, )

#endif

/* Exact elementwise maths: gs_exp_f32, gs_exp_f64, ...
 *
 * Plain IEEE steps in a stated order, the same as gpuscan/maths takes: build with
 * -ffp-contract=off (NVRTC: --fmad=false) and every device gives the same bits. */
#ifndef GS_MATHS_H
#define GS_MATHS_H
#include "maths_tables.h"
#include "portable.h"

#define GS_JOIN_(a, b, c) a##b##c
#define GS_JOIN(a, b, c) GS_JOIN_(a, b, c)
#define FN(name) GS_JOIN(gs_##name, _, SUFFIX)
#define T(name) GS_JOIN(GS_##name, _, SUFFIX)

#define SUFFIX f32
#define REAL float
#define UINT gs_u32
#define INT gs_i32
#define WIDTH 32
#define FRACTION 23
#define BIAS 127
#include "maths_exponential.h"
#include "maths_circular.h"
#include "maths_special.h"
#undef SUFFIX
#undef REAL
#undef UINT
#undef INT
#undef WIDTH
#undef FRACTION
#undef BIAS

#define SUFFIX f64
#define REAL double
#define UINT gs_u64
#define INT gs_i64
#define WIDTH 64
#define FRACTION 52
#define BIAS 1023
#include "maths_exponential.h"
#include "maths_circular.h"
#include "maths_special.h"
#undef SUFFIX
#undef REAL
#undef UINT
#undef INT
#undef WIDTH
#undef FRACTION
#undef BIAS

#undef FN
#undef T

/* Signed integers as NumPy divides them: towards -inf, 0 by 0, and no trap at INT_MIN / -1. */
#define GS_INTEGER_DIVISION(name, type, unsigned_type)                                    \
    GS_FN type gs_floor_divide_##name(type a, type b) {                                   \
        type d = b == 0 || b == -1 ? 1 : b, q = a / d;                                    \
        q -= (type)(q * d != a && (a < 0) != (d < 0));                                    \
        return b == 0 ? 0 : b == -1 ? (type)(0 - (unsigned_type)a) : q;                   \
    }                                                                                     \
    GS_FN type gs_mod_##name(type a, type b) {                                            \
        type d = b == 0 || b == -1 ? 1 : b, r = (type)(a % d);                            \
        return r != 0 && (r < 0) != (d < 0) ? (type)(r + d) : r;                          \
    }
GS_INTEGER_DIVISION(i8, signed char, unsigned char)
GS_INTEGER_DIVISION(i16, short, unsigned short)
GS_INTEGER_DIVISION(i32, gs_i32, gs_u32)
GS_INTEGER_DIVISION(i64, gs_i64, gs_u64)

#endif

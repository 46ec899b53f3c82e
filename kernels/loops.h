/* What a loop on the host calls for whole operands: draws, and products with a packed operand.
 *
 * A product's right operand is packed once into panels of GS_NR_* columns, row by row, padded with
 * zeros. A block of rows of the left operand is multiplied with one panel at a time; the sums are
 * held in vectors, and each runs over the depth in order, by multiply-add. */
#ifndef GS_LOOPS_H
#define GS_LOOPS_H

#include "philox.h"
#include "scalars.h"

/* Elements first .. first + count - 1 of a draw. */
static __attribute__((noinline, unused)) void gs_uniforms_f32(
    const unsigned long long *state, long long first, long long count, float *out) {
    const gs_u32 key0 = (gs_u32)state[0], key1 = (gs_u32)(state[0] >> 32);
    const gs_u64 draw = state[1];
    long long i = 0;
    for (; i < count && (first + i) % 4; i++)
        out[i] = gs_uniform_f32(gs_random_word(key0, key1, draw, (gs_u64)(first + i), 0));
    const gs_u64 block = (gs_u64)(first + i) / 4;
    const long long blocks = (count - i) / 4;
    float *const whole = out + i;
#pragma GCC ivdep
    for (long long b = 0; b < blocks; b++) {
        gs_words w = gs_random_block(key0, key1, draw, block + (gs_u64)b, 0);
        whole[4 * b] = gs_uniform_f32(w.x);
        whole[4 * b + 1] = gs_uniform_f32(w.y);
        whole[4 * b + 2] = gs_uniform_f32(w.z);
        whole[4 * b + 3] = gs_uniform_f32(w.w);
    }
    for (i += 4 * blocks; i < count; i++)
        out[i] = gs_uniform_f32(gs_random_word(key0, key1, draw, (gs_u64)(first + i), 0));
}

static __attribute__((noinline, unused)) void gs_uniforms_f64(
    const unsigned long long *state, long long first, long long count, double *out) {
    const gs_u32 key0 = (gs_u32)state[0], key1 = (gs_u32)(state[0] >> 32);
    const gs_u64 draw = state[1];
#pragma GCC ivdep
    for (long long i = 0; i < count; i++) {
        const gs_u64 element = (gs_u64)(first + i);
        gs_words w = gs_random_block(key0, key1, draw, element / 2, 0);
        out[i] = element % 2 ? gs_uniform_f64(w.z, w.w) : gs_uniform_f64(w.x, w.y);
    }
}

#ifdef __AVX512F__
#define GS_VECTOR 64 /* bytes */
#elif defined(__AVX__)
#define GS_VECTOR 32
#else
#define GS_VECTOR 16
#endif

typedef float gs_vector_f32 __attribute__((vector_size(GS_VECTOR)));
typedef double gs_vector_f64 __attribute__((vector_size(GS_VECTOR)));

#define GS_WIDE_f32 (GS_VECTOR / 4)
#define GS_WIDE_f64 (GS_VECTOR / 8)
#define GS_NR_f32 (2 * GS_WIDE_f32)
#define GS_NR_f64 (2 * GS_WIDE_f64)

/* Products may be fused with their sums here, and only here: a contraction's rounding is not
 * part of what devices agree on to the bit. */
#if defined(__clang__)
#pragma clang fp contract(fast)
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
#endif

#define GS_PACK(type, t)                                                                  \
    static __attribute__((noinline, unused)) void gs_pack_##t(                            \
        long long depth, long long wide, const type *b, long long down, long long right,  \
        type *panel) {                                                                    \
        for (long long j = 0; j < wide; j += GS_NR_##t) {                                 \
            const long long n = wide - j < GS_NR_##t ? wide - j : GS_NR_##t;              \
            for (long long k = 0; k < depth; k++, panel += GS_NR_##t) {                   \
                const type *row = b + k * down + j * right;                               \
                for (long long i = 0; i < n; i++) panel[i] = row[i * right];              \
                for (long long i = n; i < GS_NR_##t; i++) panel[i] = 0;                   \
            }                                                                             \
        }                                                                                 \
    }

GS_PACK(float, f32)
GS_PACK(double, f64)

/* R rows of a times P panels side by side. */
#define GS_TILE(type, t, R, P)                                                            \
    static inline __attribute__((always_inline)) void gs_tile_##t##_##R##_##P(            \
        long long depth, const type *a, long long row, long long column,                  \
        const type *panel, type *c, long long stride, long long wide) {                   \
        gs_vector_##t sum[R][P][2] = {0};                                                 \
        for (long long k = 0; k < depth; k++) {                                           \
            _Pragma("GCC unroll 8") for (int p = 0; p < P; p++) {                         \
                const type *q = panel + (p * depth + k) * GS_NR_##t;                      \
                gs_vector_##t x, y;                                                       \
                __builtin_memcpy(&x, q, sizeof x);                                        \
                __builtin_memcpy(&y, q + GS_WIDE_##t, sizeof y);                          \
                _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) {                     \
                    const type v = a[r * row + k * column];                               \
                    sum[r][p][0] += v * x;                                                \
                    sum[r][p][1] += v * y;                                                \
                }                                                                         \
            }                                                                             \
        }                                                                                 \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                               \
            _Pragma("GCC unroll 8") for (int p = 0; p < P; p++) {                         \
                type *out = c + r * stride + p * GS_NR_##t;                               \
                const long long left = wide - p * GS_NR_##t;                              \
                if (left >= GS_NR_##t)                                                    \
                    __builtin_memcpy(out, sum[r][p], sizeof sum[r][p]);                   \
                else if (left > 0)                                                        \
                    __builtin_memcpy(out, sum[r][p], (unsigned long)left * sizeof(type)); \
            }                                                                             \
    }
#define GS_TILES(type, t) GS_TILE(type, t, 6, 1) GS_TILE(type, t, 2, 1) GS_TILE(type, t, 1, 1) \
    GS_TILE(type, t, 1, 4)
GS_TILES(float, f32)
GS_TILES(double, f64)

/* c = a @ b of `rows` rows of a; b is packed, and `wide` columns of it are real. */
#define GS_GEMM(type, t)                                                                  \
    static __attribute__((noinline, unused)) void gs_gemm_##t(                            \
        long long rows, long long wide, long long depth, const type *a, long long row,    \
        long long column, const type *panel, type *c, long long stride) {                 \
        for (long long j = 0; j < wide;) {                                                \
            const int four = rows < 3 && wide - j > 3 * GS_NR_##t;                        \
            const type *p = panel + j * depth;                                            \
            long long i = 0;                                                              \
            for (; four && i < rows; i++)                                                 \
                gs_tile_##t##_1_4(depth, a + i * row, row, column, p, c + i * stride + j, \
                                  stride, wide - j);                                      \
            for (; i + 6 <= rows; i += 6)                                                 \
                gs_tile_##t##_6_1(depth, a + i * row, row, column, p, c + i * stride + j, \
                                  stride, wide - j);                                      \
            for (; i + 2 <= rows; i += 2)                                                 \
                gs_tile_##t##_2_1(depth, a + i * row, row, column, p, c + i * stride + j, \
                                  stride, wide - j);                                      \
            for (; i < rows; i++)                                                         \
                gs_tile_##t##_1_1(depth, a + i * row, row, column, p, c + i * stride + j, \
                                  stride, wide - j);                                      \
            j += four ? 4 * GS_NR_##t : GS_NR_##t;                                        \
        }                                                                                 \
    }
GS_GEMM(float, f32)
GS_GEMM(double, f64)

#if !defined(__clang__)
#pragma GCC pop_options
#endif

#endif

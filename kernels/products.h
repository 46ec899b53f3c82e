/* Products of matrices on the host.
 *
 * The right operand is packed into panels of GS_NR_* columns, row by row, padded with zeros. A
 * block of rows of the left operand is multiplied with one panel at a time; the sums are held in
 * vectors, and each runs over the depth in order, by multiply-add: so what an element is does not
 * depend on which rows and columns are computed with it. */
#ifndef GS_PRODUCTS_H
#define GS_PRODUCTS_H
#include "portable.h"

#ifdef __AVX512F__
#define GS_VECTOR 64 /* bytes */
#elif defined(__AVX__)
#define GS_VECTOR 32
#else
#define GS_VECTOR 16
#endif

/* once in a file, and not again for each constant that it is called with */
#ifdef __clang__
#define GS_ROUTINE static __attribute__((noinline, unused))
#else
#define GS_ROUTINE static __attribute__((noinline, noclone, unused))
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

/* Element (k, j) of the operand is b[k * down + j * right]; the panels are `height` rows high. */
#define GS_PACK(type, t)                                                                  \
    GS_ROUTINE void gs_pack_rows_##t(                       \
        long long height, long long depth, long long wide, const type *b, long long down, \
        long long right, type *panel) {                                                   \
        const long long whole = right == 1 ? wide - wide % GS_NR_##t : 0;                 \
        for (long long k = 0; k < depth; k++) /* along rows, as they lie in memory */     \
            for (long long j = 0; j < whole; j += GS_NR_##t)                              \
                __builtin_memcpy(panel + j * height + k * GS_NR_##t, b + k * down + j,     \
                                 GS_NR_##t * sizeof(type));                               \
        for (long long j = whole; j < wide; j += GS_NR_##t) {                             \
            const long long n = wide - j < GS_NR_##t ? wide - j : GS_NR_##t;              \
            for (long long k = 0, m; k < depth; k += m) {                                 \
                /* where columns lie along memory, a few lines of each at a time */       \
                m = depth - k < 2 * GS_WIDE_##t ? depth - k : 2 * GS_WIDE_##t;            \
                const type *from = b + k * down + j * right;                              \
                type *to = panel + j * height + k * GS_NR_##t;                            \
                for (long long i = 0; i < n; i++)                                         \
                    for (long long l = 0; l < m; l++)                                     \
                        to[l * GS_NR_##t + i] = from[i * right + l * down];               \
                for (long long l = 0; l < m; l++)                                         \
                    for (long long i = n; i < GS_NR_##t; i++) to[l * GS_NR_##t + i] = 0;  \
            }                                                                             \
        }                                                                                 \
    }                                                                                     \
    static inline __attribute__((unused)) void gs_pack_##t(                               \
        long long depth, long long wide, const type *b, long long down, long long right,  \
        type *panel) {                                                                    \
        gs_pack_rows_##t(depth, depth, wide, b, down, right, panel);                      \
    }

GS_PACK(float, f32)
GS_PACK(double, f64)

/* Rows of `panels` panels' vectors, from or to where only `wide` columns are: what is beyond them is
 * 0, and is not written. */
#define GS_EDGE(type, t)                                                                  \
    GS_ROUTINE void gs_edge_##t(int rows, int panels, int vectors, gs_vector_##t *edge, type *c, \
                                long long stride, long long wide, int put) {              \
        for (int r = 0; r < rows; r++, c += stride)                                       \
            for (int p = 0; p < panels; p++)                                              \
                for (int v = 0; v < vectors; v++, edge++) {                               \
                    const long long j = p * GS_NR_##t + v * GS_WIDE_##t;                  \
                    const long long left = wide - j < GS_WIDE_##t ? wide - j : GS_WIDE_##t; \
                    if (!put) __builtin_memset(edge, 0, sizeof *edge);                    \
                    if (left <= 0) continue;                                              \
                    if (put) __builtin_memcpy(c + j, edge, (unsigned long)left * sizeof(type)); \
                    else __builtin_memcpy(edge, c + j, (unsigned long)left * sizeof(type)); \
                }                                                                         \
    }
GS_EDGE(float, f32)
GS_EDGE(double, f64)

/* Each vector of such a tile, in registers: the loops are none. */
#define GS_EACH(R, P, V)                                                                  \
    _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                   \
        _Pragma("GCC unroll 8") for (int p = 0; p < P; p++)                               \
            _Pragma("GCC unroll 2") for (int v = 0; v < V; v++)

/* R rows of a times P panels side by side, of each of which the first V vectors count; added to
 * what c holds where `onto` is not 0. The sums are never in memory: nothing has their address.
 * With `ahead`, a constant, it asks in step k for what is at next[k * each]. */
#define GS_TILE(type, t, R, P, V)                                                         \
    static inline __attribute__((always_inline)) void gs_tile_##t##_##R##_##P##_##V(      \
        long long depth, const type *a, long long row, long long column,                  \
        const type *panel, type *c, long long stride, long long wide, int onto,           \
        int ahead, const type *next, long long each) {                                    \
        gs_vector_##t sum[R][P][V], edge[R][P][V];                                        \
        const int whole = wide >= ((P - 1) * 2 + V) * GS_WIDE_##t;                        \
        if (!onto)                                                                        \
            GS_EACH(R, P, V) sum[r][p][v] = (gs_vector_##t){0};                           \
        else if (whole)                                                                   \
            GS_EACH(R, P, V)                                                              \
                __builtin_memcpy(&sum[r][p][v],                                           \
                                 c + r * stride + p * GS_NR_##t + v * GS_WIDE_##t,        \
                                 sizeof(gs_vector_##t));                                  \
        else {                                                                            \
            gs_edge_##t(R, P, V, edge[0][0], c, stride, wide, 0);                         \
            GS_EACH(R, P, V) sum[r][p][v] = edge[r][p][v];                                \
        }                                                                                 \
        for (long long k = 0; k < depth; k++) {                                           \
            if (ahead) __builtin_prefetch(next + k * each);                               \
            _Pragma("GCC unroll 8") for (int p = 0; p < P; p++) {                         \
                const type *q = panel + (p * depth + k) * GS_NR_##t;                      \
                gs_vector_##t x, y;                                                       \
                __builtin_memcpy(&x, q, sizeof x);                                        \
                if (V > 1) __builtin_memcpy(&y, q + GS_WIDE_##t, sizeof y);               \
                _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) {                     \
                    const type v = a[r * row + k * column];                               \
                    sum[r][p][0] += v * x;                                                \
                    if (V > 1) sum[r][p][V - 1] += v * y;                                 \
                }                                                                         \
            }                                                                             \
        }                                                                                 \
        if (whole)                                                                        \
            GS_EACH(R, P, V)                                                              \
                __builtin_memcpy(c + r * stride + p * GS_NR_##t + v * GS_WIDE_##t,        \
                                 &sum[r][p][v], sizeof(gs_vector_##t));                   \
        else {                                                                            \
            GS_EACH(R, P, V) edge[r][p][v] = sum[r][p][v];                                \
            gs_edge_##t(R, P, V, edge[0][0], c, stride, wide, 1);                         \
        }                                                                                 \
    }

/* as many rows as there are registers for */
#ifdef __AVX512F__
#define GS_MR 8
#else
#define GS_MR 6
#endif
#define GS_TILE_OF_(t, R, V) gs_tile_##t##_##R##_1_##V
#define GS_TILE_OF(t, R, V) GS_TILE_OF_(t, R, V)
#define GS_TILE_(type, t, R, P, V) GS_TILE(type, t, R, P, V)
#define GS_TILES(type, t)                                                                 \
    GS_TILE_(type, t, GS_MR, 1, 2) GS_TILE(type, t, 4, 1, 2) GS_TILE(type, t, 2, 1, 2)    \
    GS_TILE(type, t, 1, 1, 2) GS_TILE(type, t, 1, 4, 2)                                   \
    GS_TILE_(type, t, GS_MR, 1, 1) GS_TILE(type, t, 1, 1, 1)
GS_TILES(float, f32)
GS_TILES(double, f64)

/* The bytes of b that stay near a core from one product to the next, with what else a loop holds.
 * Where b has more, the tiles that go through a panel ask for the next one meanwhile, each of them
 * for its part. */
#define GS_NEAR (128 << 10)

/* c = a @ b, or c + a @ b where `onto` is not 0, of `rows` rows of a; b is packed, and `wide`
 * columns of it are real. */
#define GS_GEMM(type, t)                                                                  \
    GS_ROUTINE void gs_gemm_onto_##t(                                                     \
        long long rows, long long wide, long long depth, const type *a, long long row,    \
        long long column, const type *panel, type *c, long long stride, int onto) {       \
        const long long tiles = rows / GS_MR, each = tiles ? GS_NR_##t / tiles : 0;       \
        const int is_far = tiles > 1 && depth * wide * (long long)sizeof(type) > GS_NEAR; \
        for (long long j = 0; j < wide;) {                                                \
            const int four = rows < 3 && wide - j > 3 * GS_NR_##t;                        \
            const int half = wide - j <= GS_WIDE_##t;                                     \
            const type *p = panel + j * depth;                                            \
            long long i = 0;                                                              \
            for (; four && i < rows; i++)                                                 \
                gs_tile_##t##_1_4_2(depth, a + i * row, row, column, p,                   \
                                    c + i * stride + j, stride, wide - j, onto, 0, 0, 0); \
            for (; half && i + GS_MR <= rows; i += GS_MR)                                 \
                GS_TILE_OF(t, GS_MR, 1)(depth, a + i * row, row, column, p,               \
                                        c + i * stride + j, stride, wide - j, onto, 0, 0, 0); \
            for (; half && i < rows; i++)                                                 \
                gs_tile_##t##_1_1_1(depth, a + i * row, row, column, p,                   \
                                    c + i * stride + j, stride, wide - j, onto, 0, 0, 0); \
            for (; is_far && i + GS_MR <= rows; i += GS_MR)                               \
                GS_TILE_OF(t, GS_MR, 2)(depth, a + i * row, row, column, p,               \
                                        c + i * stride + j, stride, wide - j, onto, 1,    \
                                        p + (GS_NR_##t + i / GS_MR * each) * depth, each); \
            for (; i + GS_MR <= rows; i += GS_MR)                                         \
                GS_TILE_OF(t, GS_MR, 2)(depth, a + i * row, row, column, p,               \
                                        c + i * stride + j, stride, wide - j, onto, 0, 0, 0); \
            for (; i + 4 <= rows; i += 4)                                                 \
                gs_tile_##t##_4_1_2(depth, a + i * row, row, column, p,                   \
                                    c + i * stride + j, stride, wide - j, onto, 0, 0, 0); \
            for (; i + 2 <= rows; i += 2)                                                 \
                gs_tile_##t##_2_1_2(depth, a + i * row, row, column, p,                   \
                                    c + i * stride + j, stride, wide - j, onto, 0, 0, 0); \
            for (; i < rows; i++)                                                         \
                gs_tile_##t##_1_1_2(depth, a + i * row, row, column, p,                   \
                                    c + i * stride + j, stride, wide - j, onto, 0, 0, 0); \
            j += four ? 4 * GS_NR_##t : GS_NR_##t;                                        \
        }                                                                                 \
    }                                                                                     \
    static inline __attribute__((unused)) void gs_gemm_##t(                               \
        long long rows, long long wide, long long depth, const type *a, long long row,    \
        long long column, const type *panel, type *c, long long stride) {                 \
        gs_gemm_onto_##t(rows, wide, depth, a, row, column, panel, c, stride, 0);         \
    }                                                                                     \
    /* the same for the rows of several steps, which are `apart` in a and follow each other in c */ \
    static inline __attribute__((unused)) void gs_gemm_steps_##t(                         \
        long long steps, long long apart, long long rows, long long wide, long long depth, \
        const type *a, long long row, long long column, const type *panel, type *c,       \
        long long stride) {                                                               \
        if (rows == 1 || apart == rows * row) {                                           \
            gs_gemm_##t(steps * rows, wide, depth, a, rows == 1 ? apart : row, column, panel, c, \
                        stride);                                                          \
            return;                                                                       \
        }                                                                                 \
        for (long long s = 0; s < steps; s++)                                             \
            gs_gemm_##t(rows, wide, depth, a + s * apart, row, column, panel,             \
                        c + s * rows * stride, stride);                                   \
    }
GS_GEMM(float, f32)
GS_GEMM(double, f64)

/* A whole product in blocks that stay in a core's cache: GS_BLOCK_DEPTH x GS_BLOCK_WIDE of b,
 * and, where a's rows do not lie along memory, GS_BLOCK_ROWS x GS_BLOCK_DEPTH of a. */
#define GS_BLOCK_DEPTH 256
#define GS_BLOCK_WIDE 512
#define GS_BLOCK_ROWS 96

static inline long long gs_fewer(long long a, long long b) { return a < b ? a : b; }

/* Products of several left operands with one right operand b, which is packed once for all of them.
 * Takes GS_BLOCK_DEPTH * (GS_BLOCK_WIDE + GS_BLOCK_ROWS) elements of scratch memory.
 * c[i * stride + j] = sum over k of a[i * row + A(k)] * b[B(k) + j * right], where the index k runs
 * over steps of `span` each: A(k) = k / span * apart + k % span * column, and B(k) alike, by down.
 * Where there are `rows`, row k of b is also added to row rows[k] of out, in the order of k. */
#define GS_PRODUCT(type, t)                                                               \
    typedef struct {                                                                      \
        const type *a;                                                                    \
        type *c;                                                                          \
        long long rows, row, column, apart;                                               \
    } gs_left_##t;                                                                        \
    static inline void gs_product_with_##t(                                               \
        const gs_left_##t *left, long long wide, long long k, long long depth,            \
        long long span, int in_steps, const type *panel, type *c, long long stride,       \
        type *slab) {                                                                     \
        if (left->column == 1 && !in_steps) {                                             \
            gs_gemm_onto_##t(left->rows, wide, depth, left->a + k, left->row, 1, panel, c, stride, \
                             k > 0);                                                      \
            return;                                                                       \
        }                                                                                 \
        for (long long i = 0; i < left->rows; i += GS_BLOCK_ROWS) {                       \
            const long long n = gs_fewer(left->rows - i, GS_BLOCK_ROWS), row = left->row; \
            for (long long l = 0, m; l < depth; l += m) {                                 \
                const long long step = (k + l) / span, at = (k + l) % span;               \
                const type *from = left->a + i * row + step * left->apart + at * left->column; \
                m = gs_fewer(depth - l, span - at);                                       \
                for (long long q = 0; q < m; q++, from += left->column) {                 \
                    type *to = slab + (l + q) * GS_BLOCK_ROWS;                            \
                    if (row == 1)                                                         \
                        for (long long r = 0; r < n; r++) to[r] = from[r];                \
                    else                                                                  \
                        for (long long r = 0; r < n; r++) to[r] = from[r * row];          \
                }                                                                         \
            }                                                                             \
            gs_gemm_onto_##t(n, wide, depth, slab, 1, GS_BLOCK_ROWS, panel, c + i * stride, stride, \
                             k > 0);                                                      \
        }                                                                                 \
    }                                                                                     \
    /* the rows of packed panels, one after another, onto rows of a matrix */              \
    static inline void gs_add_panels_##t(long long height, long long wide, const type *panel, \
                                         const long long *rows, type *out, long long stride) { \
        for (long long k = 0; k < height; k++) {                                          \
            type *restrict to = out + rows[k] * stride;                                   \
            const type *restrict from = panel + k * GS_NR_##t;                            \
            const long long whole = wide - wide % GS_NR_##t;                              \
            for (long long j = 0; j < whole; j += GS_NR_##t)                              \
                for (long long i = 0; i < GS_NR_##t; i++) to[j + i] += from[j * height + i]; \
            for (long long j = whole; j < wide; j++)                                      \
                to[j] += from[whole * height + j - whole];                                \
        }                                                                                 \
    }                                                                                     \
    GS_ROUTINE void gs_product_##t(                         \
        const gs_left_##t *lefts, long long count, long long wide, long long depth,       \
        long long span, const type *b, long long down, long long right, long long apart,  \
        long long stride, type *scratch, const long long *rows, type *out) {              \
        type *const panel = scratch, *const slab = scratch + GS_BLOCK_DEPTH * GS_BLOCK_WIDE; \
        for (long long k = 0; k < depth || !k; k += GS_BLOCK_DEPTH) {                     \
            const long long kn = gs_fewer(depth - k, GS_BLOCK_DEPTH);                     \
            for (long long j = 0; j < wide; j += GS_BLOCK_WIDE) {                         \
                const long long jn = gs_fewer(wide - j, GS_BLOCK_WIDE);                   \
                for (long long l = 0, n; l < kn; l += n) {                                \
                    const long long step = (k + l) / span, at = (k + l) % span;           \
                    n = gs_fewer(kn - l, span - at);                                      \
                    gs_pack_rows_##t(kn, n, jn, b + step * apart + at * down + j * right, down, \
                                     right, panel + l * GS_NR_##t);                       \
                }                                                                         \
                if (rows) gs_add_panels_##t(kn, jn, panel, rows + k, out + j, stride);    \
                for (long long i = 0; i < count; i++)                                     \
                    gs_product_with_##t(lefts + i, jn, k, kn, span, span < depth, panel,  \
                                        lefts[i].c + j, stride, slab);                    \
            }                                                                             \
        }                                                                                 \
    }
GS_PRODUCT(float, f32)
GS_PRODUCT(double, f64)

#if !defined(__clang__)
#pragma GCC pop_options
#endif

#endif

/* Products of rows of a left operand with packed panels of the right one: the routines of
 * products.h for TYPE, which is f32 or f64 by SUFFIX.
 *
 * A block of rows is multiplied with one panel at a time; the sums are held in vectors. */
#include "products.h"

/* Products may be fused with their sums here, and only here: a contraction's rounding is not
 * part of what devices agree on to the bit. */
#if defined(__clang__)
#pragma clang fp contract(fast)
#else
#pragma GCC optimize("fp-contract=fast")
#endif

/* once, and not again for each constant that it is called with */
#ifdef __clang__
#define ONCE __attribute__((noinline))
#else
#define ONCE __attribute__((noinline, noclone))
#endif

typedef real vector __attribute__((vector_size(GS_VECTOR)));

#define WIDE ((index)(GS_VECTOR / sizeof(real)))

ONCE void pack_rows(index height, index depth, index wide, const real *b, index down, index right,
                    real *panel) {
    const index whole = right == 1 ? wide - wide % PANEL : 0;
    for (index k = 0; k < depth; k++) /* along rows, as they lie in memory */
        for (index j = 0; j < whole; j += PANEL)
            __builtin_memcpy(panel + j * height + k * PANEL, b + k * down + j,
                             PANEL * sizeof(real));
    for (index j = whole; j < wide; j += PANEL) {
        const index n = fewer(wide - j, PANEL);
        for (index k = 0, m; k < depth; k += m) {
            /* where columns lie along memory, a few lines of each at a time */
            m = fewer(depth - k, 2 * WIDE);
            const real *from = b + k * down + j * right;
            real *to = panel + j * height + k * PANEL;
            for (index i = 0; i < n; i++)
                for (index l = 0; l < m; l++) to[l * PANEL + i] = from[i * right + l * down];
            for (index l = 0; l < m; l++)
                for (index i = n; i < PANEL; i++) to[l * PANEL + i] = 0;
        }
    }
}

void GS_OF(gs_pack)(index depth, index wide, const real *b, index down, index right, real *panel) {
    pack_rows(depth, depth, wide, b, down, right, panel);
}

/* Rows of `panels` panels' vectors, from or to where only `wide` columns are: what is beyond them
 * is 0, and is not written. */
ONCE static void edge_rows(int rows, int panels, int vectors, vector *edge, real *c, index stride,
                           index wide, int put) {
    for (int r = 0; r < rows; r++, c += stride)
        for (int p = 0; p < panels; p++)
            for (int v = 0; v < vectors; v++, edge++) {
                const index j = p * PANEL + v * WIDE, left = fewer(wide - j, WIDE);
                if (!put) __builtin_memset(edge, 0, sizeof *edge);
                if (left <= 0) continue;
                if (put) __builtin_memcpy(c + j, edge, (unsigned long)left * sizeof(real));
                else __builtin_memcpy(edge, c + j, (unsigned long)left * sizeof(real));
            }
}

/* Each vector of such a tile, in registers: the loops are none. */
#define EACH(R, P, V)                                                                     \
    _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                                   \
        _Pragma("GCC unroll 8") for (int p = 0; p < P; p++)                               \
            _Pragma("GCC unroll 2") for (int v = 0; v < V; v++)

/* R rows of a times P panels side by side, of each of which the first V vectors count; added to
 * what c holds where `onto` is not 0. The sums are never in memory: nothing has their address.
 * With `ahead`, a constant, it asks in step k for what is at next[k * each]. */
#define TILE(name, R, P, V)                                                               \
    static inline __attribute__((always_inline)) void name(                               \
        index depth, const real *a, index row, index column, const real *panel, real *c,  \
        index stride, index wide, int onto, int ahead, const real *next, index each) {    \
        vector sum[R][P][V], edge[R][P][V];                                               \
        const int whole = wide >= ((P - 1) * 2 + V) * WIDE;                               \
        if (!onto)                                                                        \
            EACH(R, P, V) sum[r][p][v] = (vector){0};                                     \
        else if (whole)                                                                   \
            EACH(R, P, V)                                                                 \
                __builtin_memcpy(&sum[r][p][v], c + r * stride + p * PANEL + v * WIDE,    \
                                 sizeof(vector));                                         \
        else {                                                                            \
            edge_rows(R, P, V, edge[0][0], c, stride, wide, 0);                           \
            EACH(R, P, V) sum[r][p][v] = edge[r][p][v];                                   \
        }                                                                                 \
        _Pragma("GCC unroll 4") /* or counting takes its share of the ports */            \
        for (index k = 0; k < depth; k++) {                                               \
            if (ahead) __builtin_prefetch(next + k * each);                               \
            _Pragma("GCC unroll 8") for (int p = 0; p < P; p++) {                         \
                const real *q = panel + (p * depth + k) * PANEL;                          \
                vector x, y;                                                              \
                __builtin_memcpy(&x, q, sizeof x);                                        \
                if (V > 1) __builtin_memcpy(&y, q + WIDE, sizeof y);                      \
                _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) {                     \
                    const real v = a[r * row + k * column];                               \
                    sum[r][p][0] += v * x;                                                \
                    if (V > 1) sum[r][p][V - 1] += v * y;                                 \
                }                                                                         \
            }                                                                             \
        }                                                                                 \
        if (whole)                                                                        \
            EACH(R, P, V)                                                                 \
                __builtin_memcpy(c + r * stride + p * PANEL + v * WIDE, &sum[r][p][v],    \
                                 sizeof(vector));                                         \
        else {                                                                            \
            EACH(R, P, V) edge[r][p][v] = sum[r][p][v];                                   \
            edge_rows(R, P, V, edge[0][0], c, stride, wide, 1);                           \
        }                                                                                 \
    }

TILE(tile, ROWS, 1, 2)
TILE(tile_of_4_rows, 4, 1, 2)
TILE(tile_of_2_rows, 2, 1, 2)
TILE(row_of_tile, 1, 1, 2)
TILE(row_of_4_tiles, 1, 4, 2)
TILE(half_tile, ROWS, 1, 1)
TILE(row_of_half_tile, 1, 1, 1)

/* The bytes of b that stay near a core from one product to the next, with what else a loop holds.
 * Where b has more, the tiles that go through a panel ask for the next one meanwhile, each of them
 * for its part. */
#define NEAR (128 << 10)

ONCE void gemm_onto(index rows, index wide, index depth, const real *a, index tile_of_a, index row,
                    index column, const real *panel, real *c, index stride, int onto) {
    const index tiles = rows / ROWS, each = tiles ? PANEL / tiles : 0;
    const int is_far = tiles > 1 && depth * wide * (index)sizeof(real) > NEAR;
    for (index j = 0; j < wide;) {
        const int four = rows < 3 && wide - j > 3 * PANEL;
        const int half = wide - j <= WIDE;
        const real *p = panel + j * depth;
        real *to = c + j;
        index i = 0;
#define TILES(when, name, R, ...)                                                         \
    for (; when && i + R <= rows; i += R)                                                 \
        name(depth, a + i / ROWS * tile_of_a + i % ROWS * row, row, column, p,            \
             to + i * stride, stride, wide - j, onto, __VA_ARGS__);
        TILES(four, row_of_4_tiles, 1, 0, 0, 0)
        TILES(half, half_tile, ROWS, 0, 0, 0)
        TILES(half, row_of_half_tile, 1, 0, 0, 0)
        TILES(is_far, tile, ROWS, 1, p + (PANEL + i / ROWS * each) * depth, each)
        TILES(1, tile, ROWS, 0, 0, 0)
        TILES(1, tile_of_4_rows, 4, 0, 0, 0)
        TILES(1, tile_of_2_rows, 2, 0, 0, 0)
        TILES(1, row_of_tile, 1, 0, 0, 0)
        j += four ? 4 * PANEL : PANEL;
    }
}

void GS_OF(gs_gemm)(index rows, index wide, index depth, const real *a, index row, index column,
                    const real *panel, real *c, index stride) {
    gemm_onto(rows, wide, depth, a, ROWS * row, row, column, panel, c, stride, 0);
}

void GS_OF(gs_gemm_steps)(index steps, index apart, index rows, index wide, index depth,
                          const real *a, index row, index column, const real *panel, real *c,
                          index stride) {
    if (rows == 1 || apart == rows * row) {
        if (rows == 1) row = apart;
        gemm_onto(steps * rows, wide, depth, a, ROWS * row, row, column, panel, c, stride, 0);
        return;
    }
    for (index s = 0; s < steps; s++)
        gemm_onto(rows, wide, depth, a + s * apart, ROWS * row, row, column, panel,
                  c + s * rows * stride, stride, 0);
}

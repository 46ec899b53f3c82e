/* Products of matrices, by all threads of a block.
 *
 * Every thread of the block calls with the same arguments; the block is one-dimensional and of whole
 * warps. What one of these reads must be there and what it wrote may be read behind a barrier, which
 * is the caller's. Arrays may lie in shared memory or the device's. Names and arguments are those of
 * products.h, so that one kernel calls either. */
#ifndef GS_BLOCK_PRODUCTS_H
#define GS_BLOCK_PRODUCTS_H

#include "folds.h"

/* A panel holds `wide` columns of `depth` elements in depth * wide elements: four (two of f64)
 * rows at a time, of which a column's elements lie together, and then the rows that are left. So
 * a thread reads a column by whole vectors, and neighbouring threads neighbouring ones. It has
 * fewer than 2^31 elements, and eight rows of the other factor span fewer. */
template <class T> GS_FN gs_u32 gs_panel_whole(long long depth) {
    return (gs_u32)(depth - depth % gs_vector<T>::size);
}

template <class T> GS_FN gs_u32 gs_panel_place(gs_u32 whole, gs_u32 wide, gs_u32 k, gs_u32 j) {
    constexpr gs_u32 V = gs_vector<T>::size;
    return k < whole ? (k - k % V) * wide + j * V + k % V : k * wide + j;
}

/* Element (k, j) of the operand is b[k * down + j * right]. */
template <class T>
GS_FN void gs_pack(long long depth, long long wide, const T *b, long long down, long long right,
                   T *panel) {
    const gs_u32 whole = gs_panel_whole<T>(depth), size = (gs_u32)(depth * wide);
    /* neighbouring threads read along the axis that lies along memory */
    const bool columns = down == 1 && right != 1;
    const gs_u32 inner = (gs_u32)(columns ? depth : wide);
    GS_ROLLED for (gs_u32 i = threadIdx.x; i < size; i += blockDim.x) {
        const gs_u32 x = i % inner, y = i / inner;
        const gs_u32 k = columns ? x : y, j = columns ? y : x;
        panel[gs_panel_place<T>(whole, (gs_u32)wide, k, j)] = b[k * down + j * right];
    }
}

/* Some vectors of the depth, from k on, of R rows and a column, to SUMS sums of each row. */
template <class T, int R, int VECTORS, int SUMS, bool WHOLE>
GS_FN void gs_tile_part(const T *a, const gs_i32 (&at)[R], long long column, const T *panel,
                        gs_u32 wide, gs_u32 k, T (&sum)[R * SUMS]) {
    constexpr int V = gs_vector<T>::size;
    gs_vector<T> y[VECTORS];
    GS_UNROLL for (int u = 0; u < VECTORS; u++) {
        const T *const q = panel + (k + u * V) * wide;
        if constexpr (WHOLE) y[u] = gs_vector_at(q);
        else
            GS_UNROLL for (int v = 0; v < V; v++) y[u].at[v] = q[v];
    }
    GS_UNROLL for (int r = 0; r < R; r++) {
        const gs_i32 place = at[r] + (gs_i32)k;
        const T *const from = a + (WHOLE ? place : at[r]);
        GS_UNROLL for (int u = 0; u < VECTORS; u++) {
            gs_vector<T> x;
            if constexpr (WHOLE) x = gs_vector_at(from + u * V);
            else
                GS_UNROLL for (int v = 0; v < V; v++) x.at[v] = from[(k + u * V + v) * column];
            T &own = sum[r * SUMS + u % SUMS];
            GS_UNROLL for (int v = 0; v < V; v++) own = gs_fma(x.at[v], y[u].at[v], own);
        }
    }
}

/* R rows of a column, of which `left` are real. A thread takes every `slices`-th part of the
 * depth, the first of them also what is no whole vector. A single row has four sums, and is read
 * eight vectors at a time: there is nothing else that a thread could do while it waits. */
template <class T, int R, bool WHOLE>
GS_FN void gs_tile(gs_i32 left, gs_u32 wide, gs_u32 depth, const T *a, gs_i32 row,
                   long long column, const T *panel, gs_u32 j, gs_u32 slices, gs_u32 slice,
                   T (&sum)[R]) {
    constexpr int V = gs_vector<T>::size, U = !WHOLE ? 1 : R == 1 ? 8 : R == 4 ? 2 : 1;
    constexpr int SUMS = WHOLE && R == 1 ? 4 : 1;
    const gs_u32 whole = depth - depth % V, most = depth - depth % (U * V);
    gs_i32 at[R]; /* behind the last row, the last once more */
    T part[R * SUMS];
    GS_UNROLL for (int r = 0; r < R; r++) at[r] = (r < left ? r : left - 1) * row;
    GS_UNROLL for (int i = 0; i < R * SUMS; i++) part[i] = 0;
    const T *const q = panel + j * V;
    GS_ROLLED for (gs_u32 k = slice * U * V; k < most; k += slices * U * V)
        gs_tile_part<T, R, U, SUMS, WHOLE>(a, at, column, q, wide, k, part);
    if constexpr (U > 1)
        GS_ROLLED for (gs_u32 k = most + slice * V; k < whole; k += slices * V)
            gs_tile_part<T, R, 1, SUMS, WHOLE>(a, at, column, q, wide, k, part);
    GS_UNROLL for (int r = 0; r < R; r++) {
        sum[r] = part[r * SUMS];
        GS_UNROLL for (int i = 1; i < SUMS; i++) sum[r] += part[r * SUMS + i];
    }
    if (slice) return;
    GS_ROLLED for (gs_u32 k = whole; k < depth; k++) {
        const T y = panel[k * wide + j];
        GS_UNROLL for (int r = 0; r < R; r++) sum[r] = gs_fma(a[at[r] + k * column], y, sum[r]);
    }
}

/* Panels of as many columns each, and a result for each. */
template <class T, int R, bool WHOLE, int P>
GS_FN void gs_tiles(long long rows, gs_u32 wide, gs_u32 depth, const T *a, long long row,
                    long long column, const T *const (&panel)[P], T *const (&c)[P],
                    long long stride, bool onto) {
    const long long tiles = (rows + R - 1) / R;
    const gs_u32 columns = P * wide; /* of all panels */
    /* the depth is shared out where there are threads left: over lanes of a warp, far apart, so
     * that what neighbours read lies together */
    gs_u32 halvings = 0; /* of a warp's lanes; shifts, for a device divides slowly */
    while ((1u << halvings) < GS_WARP && (tiles * columns << (halvings + 1)) <= blockDim.x &&
           (gs_vector<T>::size << (halvings + 1)) <= depth)
        halvings++;
    const gs_u32 slices = 1u << halvings, together = GS_WARP >> halvings;
    const gs_u32 lane = threadIdx.x % GS_WARP, own = lane & (together - 1);
    const gs_u32 slice = (lane * slices) / GS_WARP, begin = threadIdx.x / GS_WARP * together;
    const gs_u32 apart = blockDim.x / GS_WARP * together;
    gs_u32 j = (begin + own) % columns;
    long long tile = (begin + own) / columns;
    /* whole warps go round together: they fold. Lanes behind the last tile do it again. */
    GS_ROLLED for (long long i = begin; i < tiles * columns; i += apart) {
        const bool live = tile < tiles;
        if (!live) tile = tiles - 1;
        const gs_i32 left = rows - tile * R < R ? (gs_i32)(rows - tile * R) : R;
        const T *from = panel[0];
        T *out = c[0];
        gs_u32 k = j; /* the column of its panel */
        GS_UNROLL for (int p = 1; p < P; p++)
            if (j >= p * wide) from = panel[p], out = c[p], k = j - p * wide;
        T sum[R];
        gs_tile<T, R, WHOLE>(left, wide, depth, a + tile * R * row, (gs_i32)row, column, from, k,
                             slices, slice, sum);
        GS_ROLLED for (gs_u32 d = GS_WARP / 2; d >= together; d /= 2)
            GS_UNROLL for (int r = 0; r < R; r++)
                sum[r] = gs_lane_fold(sum[r], gs_sum(), d);
        out += tile * R * stride + k;
        GS_UNROLL for (int r = 0; r < R; r++)
            if (live && !slice && r < left)
                out[r * stride] = onto ? out[r * stride] + sum[r] : sum[r];
        j += apart;
        tile += j / columns;
        j %= columns;
    }
}

template <class T, int P>
GS_FN void gs_gemms(long long rows, long long wide, long long depth, const T *a, long long row,
                    long long column, const T *const (&panel)[P], T *const (&c)[P],
                    long long stride, bool onto) {
    constexpr int V = gs_vector<T>::size;
    const gs_u32 n = (gs_u32)wide, m = (gs_u32)depth;
    if (rows <= 0 || wide <= 0) return;
    bool whole = column == 1 && (rows == 1 || row % V == 0) && gs_is_vector(a);
    GS_UNROLL for (int p = 0; p < P; p++) whole = whole && gs_is_vector(panel[p]);
    if (rows == 1 && whole)
        gs_tiles<T, 1, true>(rows, n, m, a, row, column, panel, c, stride, onto);
    else if (whole && rows > 4)
        gs_tiles<T, 8, true>(rows, n, m, a, row, column, panel, c, stride, onto);
    else if (whole)
        gs_tiles<T, 4, true>(rows, n, m, a, row, column, panel, c, stride, onto);
    else
        gs_tiles<T, 4, false>(rows, n, m, a, row, column, panel, c, stride, onto);
}

/* c[i * stride + j] = sum over k, in order, of a[i * row + k * column] * b's element (k, j), by
 * multiply-add; where the block has more threads than there are elements, of several such sums.
 * With `onto` it is added to what c holds. */
template <class T>
GS_FN void gs_gemm(long long rows, long long wide, long long depth, const T *a, long long row,
                   long long column, const T *panel, T *c, long long stride, bool onto) {
    const T *const panels[1] = {panel};
    T *const results[1] = {c};
    gs_gemms(rows, wide, depth, a, row, column, panels, results, stride, onto);
}

/* The same for the rows of several steps, which are `apart` in a and follow each other in c. */
template <class T, class Gemm>
GS_FN void gs_gemm_steps(Gemm gemm, long long steps, long long apart, long long rows,
                         long long wide, long long depth, const T *a, long long row,
                         long long column, const T *panel, T *c, long long stride) {
    const bool together = rows == 1 || apart == rows * row;
    const long long times = together ? 1 : steps, count = together ? steps * rows : rows;
    const long long between = together && rows == 1 ? apart : row;
    GS_ROLLED for (long long s = 0; s < times; s++)
        gemm(count, wide, depth, a + s * apart, between, column, panel, c + s * rows * stride,
             stride);
}

#define GS_PRODUCTS(type, t)                                                              \
    GS_APART void gs_pack_##t(long long depth, long long wide, const type *b, long long down, \
                           long long right, type *panel) {                                \
        gs_pack(depth, wide, b, down, right, panel);                                      \
    }                                                                                     \
    GS_APART void gs_gemm_##t(long long rows, long long wide, long long depth, const type *a, \
                           long long row, long long column, const type *panel, type *c,   \
                           long long stride) {                                            \
        gs_gemm(rows, wide, depth, a, row, column, panel, c, stride, false);              \
    }                                                                                     \
    GS_APART void gs_gemm_onto_##t(long long rows, long long wide, long long depth,       \
                           const type *a, long long row, long long column,                \
                           const type *panel, type *c, long long stride) {                \
        gs_gemm(rows, wide, depth, a, row, column, panel, c, stride, true);               \
    }                                                                                     \
    /* Of several panels with the same rows: a panel, its result, and so on. */           \
    template <class... Of>                                                                \
    GS_APART void gs_gemms_##t(long long rows, long long wide, long long depth,           \
                               const type *a, long long row, long long column,            \
                               long long stride, Of... of) {                              \
        constexpr int P = sizeof...(of) / 2;                                              \
        const type *const all[2 * P] = {of...};                                           \
        const type *panels[P];                                                            \
        type *results[P];                                                                 \
        GS_UNROLL for (int p = 0; p < P; p++)                                             \
            panels[p] = all[2 * p], results[p] = const_cast<type *>(all[2 * p + 1]);      \
        gs_gemms<type, P>(rows, wide, depth, a, row, column, panels, results, stride, false); \
    }                                                                                     \
    GS_APART void gs_gemm_steps_##t(long long steps, long long apart, long long rows,        \
                                 long long wide, long long depth, const type *a,          \
                                 long long row, long long column, const type *panel,      \
                                 type *c, long long stride) {                             \
        gs_gemm_steps(gs_gemm_##t, steps, apart, rows, wide, depth, a, row, column, panel, c, \
                      stride);                                                            \
    }
GS_FLOATS(GS_PRODUCTS)

#endif

/* Whole products of matrices of TYPE, f32 or f64 by SUFFIX; of at most LEFTS left operands with one
 * right operand. */
#include "products.h"

/* A product in blocks that stay in a core's cache: BLOCK_DEPTH x BLOCK_WIDE of b, and, where
 * a's rows do not lie along memory, BLOCK_TILES x BLOCK_DEPTH of a, a slab: each tile's rows side
 * by side, and between two tiles a cache line, so that they do not all share its sets. */
#define BLOCK_DEPTH 256
#define BLOCK_WIDE 512
#define BLOCK_TILES 12
#define BLOCK_ROWS (BLOCK_TILES * ROWS)
#define SLAB_TILE (BLOCK_DEPTH * ROWS + 64 / (index)sizeof(real))

/* The elements of scratch memory that each thread needs. */
index GS_OF(gs_product_elements)(void) {
    return BLOCK_DEPTH * BLOCK_WIDE + BLOCK_TILES * SLAB_TILE;
}

typedef struct {
    const real *a;
    real *c;
    index rows, row, column, apart;
} left_operand;

/* One block of b with all rows of a left operand. */
static inline void product_with(const left_operand *left, index wide, index k, index depth,
                                index span, int in_steps, const real *panel, real *c, index stride,
                                real *slab) {
    if (left->column == 1 && !in_steps) {
        gemm_onto(left->rows, wide, depth, left->a + k, ROWS * left->row, left->row, 1, panel, c,
                  stride, k > 0);
        return;
    }
    for (index i = 0; i < left->rows; i += BLOCK_ROWS) {
        const index n = fewer(left->rows - i, BLOCK_ROWS), row = left->row;
        for (index l = 0, m; l < depth; l += m) {
            const index step = (k + l) / span, at = (k + l) % span;
            const real *from = left->a + i * row + step * left->apart + at * left->column;
            m = fewer(depth - l, span - at);
            for (index q = 0; q < m; q++, from += left->column) {
                real *to = slab + (l + q) * ROWS;
                index r = 0;
                for (; r + ROWS <= n; r += ROWS, to += SLAB_TILE)
                    if (row == 1)
                        __builtin_memcpy(to, from + r, ROWS * sizeof(real));
                    else
                        for (index s = 0; s < ROWS; s++) to[s] = from[(r + s) * row];
                for (index s = 0; r + s < n; s++) to[s] = from[(r + s) * row];
            }
        }
        gemm_onto(n, wide, depth, slab, SLAB_TILE, 1, ROWS, panel, c + i * stride, stride, k > 0);
    }
}

/* The rows of packed panels, one after another, onto rows of a matrix. */
static inline void add_panels(index height, index wide, const real *panel, const index *rows,
                              real *out, index stride) {
    for (index k = 0; k < height; k++) {
        real *restrict to = out + rows[k] * stride;
        const real *restrict from = panel + k * PANEL;
        const index whole = wide - wide % PANEL;
        for (index j = 0; j < whole; j += PANEL)
            for (index i = 0; i < PANEL; i++) to[j + i] += from[j * height + i];
        for (index j = whole; j < wide; j++) to[j] += from[whole * height + j - whole];
    }
}

/* Products of several left operands with one right operand b, packed once for all of them.
 * c[i * stride + j] = sum over k of a[i * row + A(k)] * b[B(k) + j * right], where the index k runs
 * over steps of `span` each: A(k) = k / span * apart + k % span * column, and B(k) alike, by down.
 * Where there are `rows`, row k of b is also added to row rows[k] of out, in the order of k. */
static inline void product(const left_operand *lefts, index count, index wide, index depth,
                           index span, const real *b, index down, index right, index apart,
                           index stride, real *scratch, const index *rows, real *out) {
    real *const panel = scratch, *const slab = scratch + BLOCK_DEPTH * BLOCK_WIDE;
    for (index k = 0; k < depth || !k; k += BLOCK_DEPTH) {
        const index kn = fewer(depth - k, BLOCK_DEPTH);
        for (index j = 0; j < wide; j += BLOCK_WIDE) {
            const index jn = fewer(wide - j, BLOCK_WIDE);
            for (index l = 0, n; l < kn; l += n) {
                const index step = (k + l) / span, at = (k + l) % span;
                n = fewer(kn - l, span - at);
                pack_rows(kn, n, jn, b + step * apart + at * down + j * right, down, right,
                          panel + l * PANEL);
            }
            if (rows) add_panels(kn, jn, panel, rows + k, out + j, stride);
            for (index i = 0; i < count; i++)
                product_with(lefts + i, jn, k, kn, span, span < depth, panel, lefts[i].c + j,
                             stride, slab);
        }
    }
}

/* c = a @ b per left operand a: the columns first .. last - 1 of them, or those rows, where the
 * rows of one left operand are counted on from those of the one before. By columns, b's rows may
 * also be added to those rows of a matrix `out` that are given.
 * memory: b, scratch, the rows or 0, out, and a, c of each left operand */
index GS_OF(gs_product)(index first, index last, void *const *memory, const index *integer) {
    const index by_columns = integer[0], count = integer[1], wide = integer[2];
    const index depth = integer[3], span = integer[4];
    const index down = integer[5], right = integer[6], apart = integer[7];
    const index columns = by_columns ? last - first : wide, start = by_columns ? first : 0;
    left_operand lefts[LEFTS];
    index used = 0, before = 0;
    for (index i = 0; i < count; i++) {
        const real *a = (const real *)memory[4 + 2 * i];
        real *c = (real *)memory[5 + 2 * i];
        const index *of = integer + 8 + 4 * i, rows = of[0], row = of[1];
        const index from = by_columns || first < before ? 0 : first - before;
        const index to = by_columns || last > before + rows ? rows : last - before;
        before += rows;
        if (from >= to) continue;
        lefts[used].a = a + from * row;
        lefts[used].c = c + from * wide + start;
        lefts[used].rows = to - from;
        lefts[used].row = row;
        lefts[used].column = of[2];
        lefts[used++].apart = of[3];
    }
    product(lefts, used, columns, depth, span, (const real *)memory[0] + start * right, down, right,
            apart, wide, (real *)memory[1], (const index *)memory[2], (real *)memory[3] + start);
    return 0;
}

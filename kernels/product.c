/* Whole products of TYPE, f32 or f64 by SUFFIX, as a library; of at most LEFTS left operands with
 * one right operand. */
#include "products.h"

#define GS_PASTE(a, b) a##b
#define GS_OF(name, suffix) GS_PASTE(name, suffix)

/* The elements of scratch memory that each thread needs. */
long long gs_product_elements(void) { return GS_BLOCK_DEPTH * (GS_BLOCK_WIDE + GS_BLOCK_ROWS); }

/* c = a @ b per left operand a: the columns first .. last - 1 of them, or those rows, where the
 * rows of one left operand are counted on from those of the one before. By columns, b's rows may
 * also be added to those rows of a matrix `out` that are given.
 * memory: b, scratch, the rows or 0, out, and a, c of each left operand */
long long gs_product_kernel(long long first, long long last, void *const *memory,
                            const long long *integer) {
    const long long by_columns = integer[0], count = integer[1], wide = integer[2];
    const long long depth = integer[3], span = integer[4];
    const long long down = integer[5], right = integer[6], apart = integer[7];
    const long long columns = by_columns ? last - first : wide, start = by_columns ? first : 0;
    GS_OF(gs_left_, SUFFIX) lefts[LEFTS];
    long long used = 0, before = 0;
    for (long long i = 0; i < count; i++) {
        const TYPE *a = (const TYPE *)memory[4 + 2 * i];
        TYPE *c = (TYPE *)memory[5 + 2 * i];
        const long long *of = integer + 8 + 4 * i, rows = of[0], row = of[1];
        const long long from = by_columns || first < before ? 0 : first - before;
        const long long to = by_columns || last > before + rows ? rows : last - before;
        before += rows;
        if (from >= to) continue;
        lefts[used].a = a + from * row;
        lefts[used].c = c + from * wide + start;
        lefts[used].rows = to - from;
        lefts[used].row = row;
        lefts[used].column = of[2];
        lefts[used++].apart = of[3];
    }
    GS_OF(gs_product_, SUFFIX)(lefts, used, columns, depth, span,
                               (const TYPE *)memory[0] + start * right, down, right, apart, wide,
                               (TYPE *)memory[1], (const long long *)memory[2],
                               (TYPE *)memory[3] + start);
    return 0;
}

/* Whole products of TYPE, f32 or f64 by SUFFIX, as a library. */
#include "products.h"

#define GS_PASTE(a, b) a##b
#define GS_OF(name, suffix) GS_PASTE(name, suffix)

/* The elements of scratch memory that each thread needs. */
long long gs_product_elements(void) { return GS_BLOCK_DEPTH * (GS_BLOCK_WIDE + GS_BLOCK_ROWS); }

/* c = a @ b for rows, or columns, first .. last - 1 of c. */
long long gs_product_kernel(long long first, long long last, void *const *memory,
                            const long long *integer) {
    const TYPE *a = (const TYPE *)memory[0], *b = (const TYPE *)memory[1];
    TYPE *c = (TYPE *)memory[2], *scratch = (TYPE *)memory[3];
    const long long by_columns = integer[0];
    const long long rows = integer[1], wide = integer[2], depth = integer[3];
    const long long row = integer[4], column = integer[5];
    const long long down = integer[6], right = integer[7];
    if (by_columns)
        GS_OF(gs_product_, SUFFIX)(rows, last - first, depth, a, row, column, b + first * right,
                                   down, right, c + first, wide, scratch);
    else
        GS_OF(gs_product_, SUFFIX)(last - first, wide, depth, a + first * row, row, column, b,
                                   down, right, c + first * wide, wide, scratch);
    return 0;
}

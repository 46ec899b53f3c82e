/* What the host runs beside generated kernels: its team of threads, and whole products. */
#include "products.h"
#include "team.h"

long long gs_size(long long shares) { return gs_team_size(shares); }

/* How many threads this process has started. */
long long gs_workers(void) { return gs_team.process == getpid() ? gs_team.workers : 0; }

long long gs_run(gs_kernel *kernel, long long shares, int meet, const long long *first,
                 const long long *last, void *const *const *memory,
                 const long long *const *integer) {
    return gs_team_run(kernel, shares, meet, first, last, memory, integer);
}

long long gs_product_scratch_elements(void) { return gs_product_scratch(); }

/* c = a @ b for rows, or columns, first .. last - 1 of c. */
#define GS_PRODUCT_KERNEL(type, t)                                                        \
    long long gs_product_kernel_##t(long long first, long long last, void *const *memory, \
                                    const long long *integer) {                           \
        const type *a = (const type *)memory[0], *b = (const type *)memory[1];            \
        type *c = (type *)memory[2], *scratch = (type *)memory[3];                        \
        const long long by_columns = integer[0];                                          \
        const long long rows = integer[1], wide = integer[2], depth = integer[3];         \
        const long long row = integer[4], column = integer[5];                            \
        const long long down = integer[6], right = integer[7];                            \
        if (by_columns)                                                                   \
            gs_product_##t(rows, last - first, depth, a, row, column, b + first * right,  \
                           down, right, c + first, wide, scratch);                        \
        else                                                                              \
            gs_product_##t(last - first, wide, depth, a + first * row, row, column, b,    \
                           down, right, c + first * wide, wide, scratch);                 \
        return 0;                                                                         \
    }
GS_PRODUCT_KERNEL(float, f32)
GS_PRODUCT_KERNEL(double, f64)

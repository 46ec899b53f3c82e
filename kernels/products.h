/* Products of matrices on the host: what gemm.c has for float and for double, built once and linked
 * to each kernel that calls it.
 *
 * gs_pack_T: element (k, j) of the right operand, depth x wide, is b[k * down + j * right]; it is
 * packed into panels of GS_PANEL columns, row by row, padded with zeros. gs_pack_rows_T: the panels
 * are `height` rows high.
 * gs_gemm_T: c = a @ b of `rows` rows of a, whose element (i, k) is a[i * row + k * column]; b is
 * packed, and `wide` columns of it are real. Each sum runs over the depth in order, by
 * multiply-add: so what an element is does not depend on which rows and columns are computed with
 * it.
 * gs_gemm_onto_T: c + a @ b where `onto` is not 0. GS_ROWS rows of a, which are computed at once,
 * are a tile: the element (i, k) is a[i / GS_ROWS * tile + i % GS_ROWS * row + k * column].
 * gs_gemm_steps_T: the same for the rows of several steps, which are `apart` in a and follow each
 * other in c. */
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
#define GS_PANEL(type) (2 * GS_VECTOR / (long long)sizeof(type))

#ifdef __AVX512F__
#define GS_ROWS 8 /* as many as there are registers for */
#else
#define GS_ROWS 6
#endif

#define GS_LINKED extern __attribute__((visibility("hidden")))

#define GS_PRODUCTS(type, t)                                                              \
    GS_LINKED void gs_pack_##t(long long depth, long long wide, const type *b, long long down, \
                               long long right, type *panel);                             \
    GS_LINKED void gs_pack_rows_##t(long long height, long long depth, long long wide,    \
                                    const type *b, long long down, long long right, type *panel); \
    GS_LINKED void gs_gemm_##t(long long rows, long long wide, long long depth, const type *a, \
                               long long row, long long column, const type *panel, type *c, \
                               long long stride);                                         \
    GS_LINKED void gs_gemm_onto_##t(long long rows, long long wide, long long depth,      \
                                    const type *a, long long tile, long long row,         \
                                    long long column, const type *panel, type *c,         \
                                    long long stride, int onto);                          \
    GS_LINKED void gs_gemm_steps_##t(long long steps, long long apart, long long rows,    \
                                     long long wide, long long depth, const type *a,      \
                                     long long row, long long column, const type *panel,  \
                                     type *c, long long stride);
GS_PRODUCTS(float, f32)
GS_PRODUCTS(double, f64)

#ifdef TYPE /* what the sources have in common that are for one kind of floats */
#define GS_PASTE_(a, b) a##_##b
#define GS_PASTE(a, b) GS_PASTE_(a, b)
#define GS_OF(name) GS_PASTE(name, SUFFIX)

typedef long long index;
typedef TYPE real;

#define ROWS GS_ROWS
#define PANEL GS_PANEL(real)
#define pack_rows GS_OF(gs_pack_rows)
#define gemm_onto GS_OF(gs_gemm_onto)

static inline index fewer(index a, index b) { return a < b ? a : b; }
#endif

#endif

/* Rows of TYPE that are added to rows of a matrix, one after another, as a library. */

/* out[rows[i]] += y[i] for i = 0 .. count - 1, in columns first .. last - 1. */
long long gs_scatter_kernel(long long first, long long last, void *const *memory,
                            const long long *integer) {
    TYPE *out = (TYPE *)memory[0];
    const TYPE *y = (const TYPE *)memory[1];
    const long long *rows = (const long long *)memory[2];
    const long long count = integer[0], wide = integer[1];
    for (long long i = 0; i < count; i++) {
        TYPE *restrict to = out + rows[i] * wide;
        const TYPE *restrict from = y + i * wide;
        for (long long j = first; j < last; j++) to[j] += from[j];
    }
    return 0;
}
